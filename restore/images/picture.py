"""Picture files as upright integer arrays, with alpha, colour profile and metadata."""

import stat
import warnings as python_warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

import cv2
import numpy as np
from PIL import Image

from restore.errors import ImageError
from restore.images import attachments, colours, memmap, metadata, sniff
from restore.images import decode as decoding
from restore.images.deep_samples import grey_to_rgb
from restore.images.tiff_samples import applied_orientation, apply_orientation

MAX_BYTES = 2**30
BAND = 256  # rows converted together
Rgb = tuple[int, int, int]  # 0..255
WHITE: Rgb = (255, 255, 255)


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture, upright.

    Attributes:
        pixels: (H, W, 3) RGB, uint8 or uint16, full range.
        alpha: (H, W), the dtype of `pixels`; not premultiplied.
        grey: The file was grey: the three channels are equal, and it is written as grey again.
        icc: A colour profile that parses and suits the channels.
        exif: EXIF block with the orientation tag set to 1.
        format: Format of the source file, by Pillow's name.
        warnings: What was lost or left out when the file was read.
        xmp: XMP packet with the orientation set to 1.
        iptc: IPTC records.
        dpi: Pixels per inch, (horizontal, vertical).
        texts: (name, text) pairs: those of a PNG, or the comment of another format.
        described: (height, width) of the picture that EXIF and XMP speak of, when they tell where
            something is in it. None: not known, so a result does not say it.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    grey: bool = False
    icc: bytes | None = None
    exif: bytes | None = None
    format: str = "PNG"
    warnings: tuple[str, ...] = ()
    xmp: bytes | None = None
    iptc: bytes | None = None
    dpi: tuple[float, float] | None = None
    texts: tuple[tuple[str, str], ...] = ()
    described: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def depth(self) -> int:
        """Bits per channel, 8 or 16."""
        return self.pixels.dtype.itemsize * 8


@dataclass(frozen=True)
class Reading:
    """How picture files are read.

    Attributes:
        frames: Which frames of a file to read; "refuse" raises an error if there are several.
        icc: "srgb" converts the colours to sRGB and drops the profile.
        strip: Metadata to leave out: "gps" the location, "all" also EXIF, XMP, IPTC and texts.
        allow_truncated: Read a file that is cut short; what is missing is flat.
        max_pixels: Limit for pictures that are read by rows or decoded into a file; 0 reads
            every picture whole.
    """

    frames: Literal["first", "all", "refuse"] = "first"
    icc: Literal["keep", "srgb"] = "keep"
    strip: metadata.Strip = "nothing"
    allow_truncated: bool = False
    max_pixels: int = decoding.MAX_PIXELS


@dataclass(frozen=True)
class Header:
    """What the header of a picture file says.

    Attributes:
        size: (height, width) of the upright picture.
        frames: Number of frames or pages.
        has_alpha: The header speaks of transparency.
        by_rows: The file is read by rows, by restore.images.tiff_rows.
        is_spooled: The file is decoded into another file, by restore.images.spooled.
    """

    size: tuple[int, int]
    frames: int
    has_alpha: bool
    by_rows: bool = False
    is_spooled: bool = False


def refuse_frames(count: int, how: Reading) -> None:
    """Raise ImageError if a file of so many frames is not read."""
    if count > 1 and how.frames == "refuse":
        raise ImageError("FRAMES", f"{count} frames; --frames first takes one, all keeps all")


class Encoded(NamedTuple):
    """A picture file in memory.

    Attributes:
        data: The bytes of the file.
        suffix: The extension that its name would have, such as ".png".
    """

    data: bytes
    suffix: str


Source = Path | Encoded


def read(source: Source, how: Reading = Reading()) -> Picture:
    """Read a picture, the first frame where there are several.

    Raises:
        ImageError: The file cannot be read; its `code` says why.
    """
    return read_frames(source, how)[0][0]


def read_frames(source: Source, how: Reading = Reading()) -> tuple[list[Picture], int]:
    """Read the frames that `how` selects.

    Returns:
        The pictures, and the number of frames in the file.

    Raises:
        ImageError: The file cannot be read; its `code` says why.
    """
    with _loaded(source) as encoded:
        return _decode_frames(*encoded, how)


def _decode_frames(data: bytes, suffix: str, how: Reading) -> tuple[list[Picture], int]:
    notes: list[str] = []
    with collect_warnings(notes):
        image = decoding.open_image(data, suffix)
        sniff.inspect(data, notes)
        count = decoding.count_frames(image, data, suffix)
    if misnamed := sniff.check_suffix(suffix, image.format or ""):
        notes.append(misnamed)
    refuse_frames(count, how)
    if count > 1 and how.frames == "first":
        notes.append(decoding.FIRST_ALONE.format(count))
    wanted = count if how.frames == "all" else 1
    pictures, total = [], 0
    for frame in range(wanted):
        if frame:
            decoding.seek(image, data, suffix, frame)
        total += image.width * image.height
        if total > decoding.MAX_PIXELS:
            mend = "--frames first takes one"
            raise ImageError("TOO_LARGE", f"{count} frames have too many pixels; {mend}")
        pictures.append(_frame(image, data, suffix, frame, how, notes))
    return pictures, count


def _frame(
    image: Image.Image, data: bytes, suffix: str, frame: int, how: Reading, file_notes: list[str]
) -> Picture:
    """Decode the current frame; `file_notes` concern the whole file."""
    notes = list(file_notes)
    with collect_warnings(notes):
        applied = applied_orientation(image)  # once it is loaded, nothing tells it
        image = decoding.load(image, data, suffix, how.allow_truncated, notes)
        orientation, facts = metadata.read_metadata(image, how.strip, notes, applied)
        profile = image.info.get("icc_profile")
        with decoding.translate_errors(data, suffix):
            pixels, alpha, grey, icc = decoding.to_arrays(image, data, frame, profile, notes)
        pixels = apply_orientation(pixels, orientation)
        alpha = None if alpha is None else apply_orientation(alpha, orientation)
        icc = metadata.check_profile(icc, grey, notes)
        icc = colours.find_profile(data, image, icc, grey, notes)
        notes += [note for note in attachments.list_dropped(image, data) if note not in notes]
    warnings, form = tuple(notes), image.format or ""
    made = Picture(pixels, alpha, grey, icc, format=form, warnings=warnings, **vars(facts))
    return convert_to_srgb(made) if how.icc == "srgb" else made


def convert_to_srgb(picture: Picture) -> Picture:
    """Convert the colours to sRGB by the profile, and drop the profile."""
    if picture.icc is None:
        return picture
    if metadata.is_srgb(picture.icc, picture.grey):
        return replace(picture, icc=None)
    notes = list(picture.warnings)
    pixels = picture.pixels
    if picture.depth == 16:  # LittleCMS by Pillow knows no 16-bit colour
        notes.append("depth reduced to 8 bits: the colour profile was converted")
        pixels = to_uint8(pixels)
    alpha = None if picture.alpha is None else to_uint8(picture.alpha)
    image = Image.fromarray(pixels[..., 0] if picture.grey else pixels)
    pixels = np.asarray(metadata.to_srgb(image, picture.icc, notes))
    if picture.grey:
        pixels = grey_to_rgb(pixels[..., 1])
    return replace(picture, pixels=pixels, alpha=alpha, icc=None, warnings=tuple(notes))


def to_uint8(array: np.ndarray) -> np.ndarray:
    """Convert uint16 samples to uint8, rounded; uint8 stays as it is."""
    if array.dtype == np.uint8:
        return array
    return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)


def probe(source: Source) -> Header:
    """Read the header without decoding pixels.

    Raises:
        ImageError: The file cannot be read; its `code` says why.
    """
    with _loaded(source) as (data, suffix), collect_warnings([]):
        image = decoding.open_image(data, suffix)
        orientation, _ = metadata.read_exif(image, "all", [])
        if applied_orientation(image) > 1:  # its size is turned already
            orientation = 1
        size = (image.height, image.width)
        frames = decoding.count_frames(image, data, suffix)
        return Header(size[::-1] if orientation > 4 else size, frames, decoding.has_alpha(image))


def to_rgb8(picture: Picture) -> np.ndarray:
    """Convert to uint8 (H, W, 3) sRGB: 16 bits are rounded, transparency is laid on white."""
    picture = convert_to_srgb(picture)
    pixels = to_uint8(picture.pixels)
    return pixels if picture.alpha is None else lay_on(pixels, to_uint8(picture.alpha), WHITE)


def lay_on(pixels: np.ndarray, alpha: np.ndarray, background: Rgb) -> np.ndarray:
    """Lay uint8 (H, W, 3) pixels with alpha uint8 (H, W) on a background; uint8 (H, W, 3)."""
    share = alpha[..., None].astype(np.float32) / 255
    under = np.array(background, np.float32)
    return np.rint(pixels * share + under * (1 - share)).astype(np.uint8)


@contextmanager
def _loaded(source: Source) -> Iterator[Encoded]:
    """Load a file into memory; errors name its path."""
    if isinstance(source, Encoded):
        yield source
        return
    try:
        yield Encoded(read_bytes(source), source.suffix)
    except ImageError as error:
        raise ImageError(error.code, f"{source}: {error}") from error.__cause__


@contextmanager
def collect_warnings(notes: list[str]) -> Iterator[None]:
    """Append Pillow's warnings to `notes` instead of printing them."""
    with python_warnings.catch_warnings(record=True) as caught:
        python_warnings.simplefilter("always")
        yield
    texts = (str(w.message) for w in caught if w.category is not Image.DecompressionBombWarning)
    notes.extend(text.strip()[:200] for text in texts)


def read_bytes(path: Path) -> bytes:
    """Read a regular file of at most MAX_BYTES.

    Raises:
        ImageError: The file is too large or cannot be read.
    """
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ImageError("UNREADABLE", "is a folder that could not be listed; run again")
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("UNREADABLE", "is not a regular file")
        if status.st_size > MAX_BYTES:
            raise ImageError("TOO_LARGE", f"{status.st_size >> 20} MiB; the limit is 1024")
        with path.open("rb") as file:
            return file.read(status.st_size)  # room is taken for as much as is asked for
    except OSError as error:
        why = error.strerror or str(error)
        raise ImageError("UNREADABLE", f"{why}; check the file and its permissions") from error


def deepen(picture: Picture) -> Picture:
    """Convert the colours to 16 bits, so that rounding on the way to a result does not show."""
    if picture.pixels.dtype == np.uint16:
        return picture
    pixels = memmap.empty(picture.pixels.shape, np.dtype(np.uint16))
    for first in range(0, len(pixels), BAND):
        rows = slice(first, first + BAND)
        pixels[rows] = picture.pixels[rows].astype(np.uint16) * 257
        memmap.release_pages()
    return replace(picture, pixels=pixels)


def bleed(picture: Picture, hole: np.ndarray | None = None) -> Picture:
    """Give each transparent pixel the nearest visible colour, so that enlarging makes no halo.

    Args:
        picture: The picture.
        hole: bool (H, W): what is replaced; it stays as it is, and gives no colour.
    """
    if picture.alpha is None:
        return picture
    visible = picture.alpha > 0
    if hole is not None:
        visible &= ~hole
    if visible.all() or not visible.any():
        return picture
    _, labels = cv2.distanceTransformWithLabels(
        (~visible).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    nearest = np.asarray(labels, np.int32)
    pixels = picture.pixels.copy()
    owner = np.zeros(nearest.max() + 1, np.intp)  # label -> the pixel that carries it
    owner[nearest[visible]] = np.flatnonzero(visible)
    hidden = ~visible if hole is None else ~visible & ~hole
    pixels[hidden] = picture.pixels.reshape(-1, 3)[owner[nearest[hidden]]]
    return replace(picture, pixels=pixels)
