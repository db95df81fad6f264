"""TIFFs whose samples Pillow does not know or reduces to 8 bits; decoded by tifffile, an extra.

cv2 reads many of them too, but silently takes planes for interleaved samples and leaves alpha
premultiplied. So its samples are used only if they agree with another decoder.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import cv2
import numpy as np
from PIL import Image, TiffImagePlugin

from restore.errors import ImageError

MAX_SAMPLES = 6  # of a pixel; more are a bomb
MAX_FRAMES = 1001  # that are counted
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2
UNSPECIFIED = 0  # a sample of which the file says no more
ASSOCIATED = 1  # alpha that the colours are multiplied by
INTEGER, SIGNED, FLOAT = 1, 2, 3
BIG = (b"II+\0", b"MM\0+")  # how a BigTIFF begins
KINDS = {(INTEGER, 8), (INTEGER, 16), (FLOAT, 16), (FLOAT, 32), (FLOAT, 64)}
NEEDED = "pip install 'restore-toolkit[formats]', or convert it to PNG"
DNG, SUB_PAGES = 50706, 330  # tags
REDUCED = 1  # the bit of tag 254 that says: a smaller version of another page
RAW = "a camera's raw file, of which only the thumbnail could be read; develop it to TIFF or JPEG"
PLANES = {"RGB": 3, "RGBA": 4, "CMYK": 4}  # samples that Pillow reads by planes, uncompressed
Tags = TiffImagePlugin.ImageFileDirectory_v2
Samples = tuple[np.ndarray, np.ndarray | None, bool]
"""(pixels (H, W, 3), alpha, whether grey)"""


@dataclass(frozen=True)
class Layout:
    """How a page holds its samples.

    Attributes:
        size: (height, width), as stored.
        samples: Samples per pixel.
        kind: INTEGER, FLOAT or another SampleFormat.
        bits: Bits per sample; 0 if they differ.
        planes: Each sample has a plane of its own.
        photometric: PhotometricInterpretation: WHITE_IS_ZERO, BLACK_IS_ZERO, RGB or another.
        extra: ExtraSamples: what the samples beyond the colours are.
        orientation: 1 to 8, as in EXIF.
    """

    size: tuple[int, int]
    samples: int
    kind: int
    bits: int
    planes: bool
    photometric: int
    extra: tuple[int, ...]
    orientation: int

    @property
    def colours(self) -> int:
        """Colour samples per pixel: 1, 3, or 0 if the colour space is not known."""
        return {WHITE_IS_ZERO: 1, BLACK_IS_ZERO: 1, RGB: 3}.get(self.photometric, 0)

    @property
    def has_alpha(self) -> bool:
        """Whether a sample beyond the colours is transparency, or nobody says what it is."""
        return self.samples > self.colours and self.extra[:1] != (UNSPECIFIED,)

    @property
    def is_known(self) -> bool:
        """Whether it is grey or RGB, with or without alpha, of a sample type in KINDS."""
        has_more = self.samples == self.colours + 1
        return (
            self.colours > 0
            and (self.kind, self.bits) in KINDS
            and (self.samples == self.colours or has_more)
        )

    def __str__(self) -> str:
        kind = {INTEGER: "integers", FLOAT: "floats"}.get(self.kind, "samples of another kind")
        how = " by planes" if self.planes else ""
        return f"{self.samples} samples a pixel of {self.bits}-bit {kind}{how}"


class Page(Image.Image):
    """A Pillow image for a TIFF that Pillow does not know; `decode` reads its samples."""

    format = "TIFF"

    def __init__(self, data: bytes):
        super().__init__()
        self.fp = io.BytesIO(data)
        self.data, self._directories = data, _directories(data)
        self.n_frames = len(self._directories)
        self.seek(0)

    def seek(self, frame: int) -> None:
        """Go to a page, counted from 0."""
        self.tag_v2 = self._directories[frame]
        self.layout = _layout(self.tag_v2)
        height, width = self.layout.size
        self._size = (height, width) if self.layout.orientation > 4 else (width, height)
        self._mode = ("L" if self.layout.colours == 1 else "RGB") + "A" * self.layout.has_alpha
        self.info = {"icc_profile": self.tag_v2.get(34675), "xmp": self.tag_v2.get(700)}

    def getexif(self) -> Image.Exif:
        """Return the EXIF without the orientation, which `decode` applies."""
        exif = Image.Exif()
        exif.endian = self.tag_v2._endian
        exif.load_from_fp(self.fp, self.tag_v2._offset)
        exif.pop(274, None)
        return exif


def _directories(data: bytes) -> list[Tags]:
    """Read the tags of all pages.

    Raises:
        UnidentifiedImageError: No page is valid.
    """
    stream = io.BytesIO(data)
    pages: list[Tags] = []
    try:
        head = stream.read(16 if data[:4] in BIG else 8)
        offset = Tags(head).next
        while offset and len(pages) < MAX_FRAMES:
            tags = Tags(head)
            stream.seek(offset)
            tags.load(stream)
            tags._offset = offset  # Pillow's getexif asks for it
            _layout(tags)
            pages.append(tags)
            offset = tags.next if tags.next > offset else 0  # a circle has no end
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises anything on a broken directory
        if not pages:
            raise Image.UnidentifiedImageError from error
    if not pages:
        raise Image.UnidentifiedImageError
    return pages


def _layout(tags: Tags) -> Layout:
    def one(tag: int, default: Any = None) -> int:
        value = tags.get(tag, default)
        return int(value[0] if isinstance(value, tuple) else value)

    bits, kinds = set(_several(tags.get(258, 1))), set(_several(tags.get(339, 1)))
    orientation = one(274, 1)
    size = one(257), one(256)
    if min(size) < 1:
        raise ValueError("no pixels")
    return Layout(
        size=size,
        samples=one(277, 1),
        kind=kinds.pop() if len(kinds) == 1 else 0,
        bits=max(bits) if len(bits) == 1 else 0,
        planes=one(284, 1) == 2,
        photometric=one(262, 0),
        extra=_several(tags.get(338)),
        orientation=orientation if orientation in range(1, 9) else 1,
    )


def _several(value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    return tuple(map(int, value)) if isinstance(value, tuple) else (int(value),)


def is_signed(tags: Mapping[int, Any]) -> bool:
    """Whether samples are signed integers; Pillow reads signed bytes as if they were not."""
    return SIGNED in _several(tags.get(339))


def refuse_raw(data: bytes, tags: Mapping[int, Any]) -> None:
    """Refuse a camera's raw file, which begins with a thumbnail as a TIFF: DNG, CR2, NEF, ARW.

    Args:
        data: The file's first bytes.
        tags: The tags of its first page; none if it is no TIFF.

    Raises:
        ImageError: It is one.
    """
    is_reduced = bool(tags) and any(kind & REDUCED for kind in _several(tags.get(254)))
    is_cr2 = bool(tags) and data[4:12] == b"\x10\0\0\0CR\2\0"
    if DNG in tags or is_cr2 or (is_reduced and SUB_PAGES in tags):
        raise ImageError("UNSUPPORTED", RAW)


def is_misread(image: Image.Image) -> bool:
    """Whether Pillow cannot unpack the current page of a TIFF, or takes its samples for others."""
    tags = getattr(image, "tag_v2", None)
    if tags is None or isinstance(image, Page):
        return False
    layout, compression = _layout(tags), image.info.get("compression")
    if layout.planes and layout.samples > 1:
        if compression != "raw":
            return image.mode in ("LA", "La", "LAB") or layout.samples > 4
        is_like = PLANES.get(image.mode) == layout.samples and layout.extra[:1] != (ASSOCIATED,)
        return not is_like or (layout.bits > 8 and not layout.is_known)
    if image.mode == "F":
        return compression != "raw" and tags.prefix == b"MM"
    return compression == "webp"  # its libtiff lacks it


def open_page(data: bytes, frame: int = 0) -> Page:
    """Open a page, counted from 0, of a TIFF that Pillow does not know.

    Raises:
        UnidentifiedImageError: The bytes are not a TIFF.
        ImageError: Its samples are not supported.
    """
    if data[:4] not in (b"II*\0", b"MM\0*", *BIG):
        raise Image.UnidentifiedImageError
    page = Page(data)
    page.seek(frame)
    refuse_raw(data, page.tag_v2)
    layout = page.layout
    if layout.samples > MAX_SAMPLES:
        found = f"{layout.samples} samples a pixel"
        raise ImageError("TOO_LARGE", f"{found}; the limit is {MAX_SAMPLES}")
    if not layout.is_known:
        raise ImageError("UNSUPPORTED", f"a TIFF of {layout} is not read; save it as 16-bit RGB")
    if not _is_cv2s(layout) and find_spec("tifffile") is None:
        raise ImageError("UNSUPPORTED", f"a TIFF of {layout} needs tifffile; {NEEDED}")
    return page


def count_pages(data: bytes) -> int:
    """Count the pages. Raises UnidentifiedImageError if none is valid."""
    return len(_directories(data))


def read_layout(data: bytes, frame: int) -> Layout:
    """Read how a page, counted from 0, holds its samples."""
    return _layout(_directories(data)[frame])


def _is_cv2s(layout: Layout) -> bool:
    is_float = layout.kind == FLOAT and layout.bits >= 32
    return is_float and not layout.planes and layout.samples == layout.colours


def decode(data: bytes, frame: int, layout: Layout) -> Samples | None:
    """Decode a page, counted from 0.

    Plain interleaved floats are decoded by cv2, which knows more compressions than tifffile.

    Returns:
        Upright samples, uint8, uint16 or floats; None if tifffile is missing or cannot read them.

    Raises:
        ImageError: The file is cut short, which decoders would silently fill up.
    """
    tags = _directories(data)[frame]
    starts, sizes = (
        tags.get(strips) or tags.get(tiles) for strips, tiles in ((273, 324), (279, 325))
    )
    pairs = zip(_several(starts), _several(sizes), strict=False)
    if max((start + size for start, size in pairs), default=0) > len(data):
        raise ImageError("TRUNCATED", "the file is cut short; fetch it again")
    array = _by_cv2(data, frame) if _is_cv2s(layout) else _by_tifffile(data, frame, layout)
    if array is None:
        return None
    if layout.photometric == WHITE_IS_ZERO:
        array[..., :1] = (np.iinfo(array.dtype).max if layout.kind == INTEGER else 1) - array[
            ..., :1
        ]
    colours = array[..., : layout.colours]
    alpha = array[..., layout.colours].copy() if layout.has_alpha else None
    if alpha is not None and layout.extra[:1] == (ASSOCIATED,):
        colours = unpremultiply(colours, alpha)
    grey = layout.colours == 1
    return np.repeat(colours, 3, axis=2) if grey else np.ascontiguousarray(colours), alpha, grey


def _by_cv2(data: bytes, frame: int) -> np.ndarray | None:
    found, pages = cv2.imdecodemulti(
        np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED, range=(frame, frame + 1)
    )
    if not found:
        return None
    array = pages[0]
    return array[..., None].copy() if array.ndim == 2 else array[..., ::-1].copy()


def _by_tifffile(data: bytes, frame: int, layout: Layout) -> np.ndarray | None:
    if find_spec("tifffile") is None:
        return None
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        try:
            array = file.pages[frame].asarray(maxworkers=1)
        except (ValueError, ImportError):  # no codec for its compression
            return None
    height, width = layout.size
    shape = (layout.samples, height, width) if layout.planes else (height, width, layout.samples)
    array = array.reshape(shape)
    array = np.moveaxis(array, 0, 2) if layout.planes else array
    return apply_orientation(array.astype(array.dtype.newbyteorder("=")), layout.orientation)


def applied_orientation(image: Image.Image) -> int:
    """Return the orientation, 1 to 8, that decoders apply themselves: that of a TIFF or HEIC."""
    tags = getattr(image, "tag_v2", {})
    turn = tags.get(274, image.info.get("original_orientation", 1))
    return turn if turn in range(1, 9) else 1


def apply_orientation(array: np.ndarray, orientation: int) -> np.ndarray:
    """Turn and mirror an array (H, W, ...) by an EXIF orientation, 1 to 8."""
    if orientation > 4:  # stored on its side
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def unpremultiply(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Divide colours (H, W, C) by the alpha (H, W) that they were multiplied by."""
    most = np.iinfo(alpha.dtype).max if alpha.dtype.kind == "u" else 1
    share = np.maximum(alpha[..., None].astype(np.float64) / most, 1e-9)
    plain = np.minimum(colours / share, most)
    return np.rint(plain).astype(colours.dtype) if alpha.dtype.kind == "u" else plain
