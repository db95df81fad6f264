"""Bytes to pixels: what is refused and by which code, and every mode in its own depth.

Pillow gets bytes, never paths, and an allow-list of formats. It cuts 16-bit colour to 8 bits in
silence, so once it has judged such a file sound, cv2 decodes it; cv2 alone would turn half a file
into a whole picture without a word.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from restore.errors import ImageError
from restore.images import carried, sniff
from restore.images.metadata import to_srgb

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF", "PPM")
FIRST_ALONE = "only the first frame is taken, of {}; --frames all keeps them all"
MAX_PIXELS = 2**27  # 134 million; Pillow itself only warns below 179 million
MAX_FRAMES = 1000
DEEP = 65535


def opened(data: bytes, suffix: str) -> Image.Image:
    """Pillow's image, its header read and the pixels not. Raises ImageError."""
    Image.init()  # AVIF is a plug-in that some builds lack
    formats = [name for name in FORMATS if name in Image.OPEN]
    if suffix.casefold() == ".tga":  # it has no signature: text would pass for it
        formats.append("TGA")
    if sniff.is_heic(data):
        formats.append(_heif())

    with judged(data, suffix):
        try:
            image = Image.open(io.BytesIO(data), formats=formats)
        except UnidentifiedImageError:
            image = _float_colours(data)
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(f"{image.width}x{image.height} pixels")
    return image


def load(
    image: Image.Image, data: bytes, suffix: str, truncated_ok: bool, notes: list[str]
) -> Image.Image:
    """The image with the frame in hand decoded; one cut short is noted, if `truncated_ok`."""
    try:
        with judged(data, suffix):
            image.load()
    except ImageError as error:
        if not (truncated_ok and error.code == "TRUNCATED"):
            raise
        notes.append("truncated: what is missing is flat")
        if image.format == "JPEG":  # with an end, libjpeg gives its last rows too
            image = opened(data + b"\xff\xd9", suffix)
            with judged(data, suffix):
                image.load()
        else:
            image.tile = []  # what came is in place; asked for again, it is not decoded again
    return image


def count_frames(image: Image.Image, data: bytes, suffix: str) -> int:
    """How many frames or pages there are. Raises ImageError beyond MAX_FRAMES."""
    if image.format == "MPO" and carried.is_gain_map_beside(data):
        return 1  # the others are no pictures
    with judged(data, suffix):
        count = getattr(image, "n_frames", 1)
    if count > MAX_FRAMES:
        raise ImageError("TOO_LARGE", f"{count} frames; the limit is {MAX_FRAMES}; split the file")
    return count


def seek(image: Image.Image, data: bytes, suffix: str, frame: int) -> None:
    """Go to a frame, from 0. Raises ImageError."""
    with judged(data, suffix):
        image.seek(frame)
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(f"{image.width}x{image.height} pixels")


@contextmanager
def judged(data: bytes, suffix: str) -> Iterator[None]:
    """Whatever a decoder raises on these bytes becomes an ImageError."""
    try:
        yield
    except Image.DecompressionBombError as error:
        raise _too_large(str(error)) from error
    except UnidentifiedImageError as error:
        raise sniff.unidentified(data, suffix) from error
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # a decoder on broken bytes raises anything
        if "MAX_TEXT" in str(error):
            mend = "strip the file's texts"
            raise ImageError("METADATA", f"its texts unpack to too much; {mend}") from error
        if "truncated" in str(error).casefold() or sniff.is_short_riff(data):
            raise ImageError("TRUNCATED", "the file is cut short; fetch it again") from error
        raise ImageError("CORRUPT", f"broken data: {error}; fetch it again") from error


def _too_large(what: str) -> ImageError:
    mend = "cut it into parts, or make it a TIFF of tiles and raise --megapixels"
    limit = f"the limit is {MAX_PIXELS // 10**6} million pixels; {mend}"
    return ImageError("TOO_LARGE", f"{what}; {limit}")


def _heif() -> str:
    try:
        import pillow_heif  # an extra
    except ImportError as error:
        mend = "pip install 'restore-toolkit[formats]', or convert it to PNG or JPEG"
        raise ImageError("UNSUPPORTED", f"HEIC needs pillow-heif; {mend}") from error
    pillow_heif.register_heif_opener()
    return "HEIF"


class FloatColours(Image.Image):
    """Stands for a TIFF of float colours, which Pillow does not know and cv2 reads."""

    format = "TIFF"

    def __init__(self, size: tuple[int, int], turn: int):
        super().__init__()
        self._size, self._mode = size[::-1] if turn > 4 else size, "F"
        self.turn = turn


def _float_colours(data: bytes) -> Image.Image:
    """Raises UnidentifiedImageError if it is none, ImageError for a bomb's number of samples."""
    if data[:4] not in (b"II*\0", b"MM\0*"):
        raise UnidentifiedImageError
    stream = io.BytesIO(data)
    tags = TiffImagePlugin.ImageFileDirectory_v2(stream.read(8))
    try:
        stream.seek(tags.next)
        tags.load(stream)
        width, height, samples, turn = (int(tags.get(tag, 1)) for tag in (256, 257, 277, 274))
        kinds, bits = set(tags.get(339, (1,))), set(tags.get(258, (1,)))
    except Exception as error:  # a broken directory raises anything
        raise UnidentifiedImageError from error
    if samples > 6:
        raise ImageError("TOO_LARGE", f"{samples} samples a pixel; the limit is 6")
    if kinds != {3} or not bits <= {32, 64} or samples not in (1, 3):
        raise UnidentifiedImageError
    return FloatColours((width, height), turn if turn in range(1, 9) else 1)


Decoded = tuple[np.ndarray, np.ndarray | None, bool, bytes | None]


def own_turn(image: Image.Image) -> int:
    """The orientation, 1 to 8, that Pillow and cv2 apply by themselves: that of a TIFF."""
    tags = getattr(image, "tag_v2", {})
    turn = getattr(image, "turn", 0) or tags.get(274, 1)
    return turn if turn in range(1, 9) else 1


def upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Rows and columns turned as EXIF's orientation asks."""
    if orientation > 4:  # stored on its side
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def pixels(
    image: Image.Image, data: bytes, frame: int, icc: bytes | None, notes: list[str]
) -> Decoded:
    """(pixels, alpha, grey, icc) of any mode; icc is None where the colours became sRGB.

    image  loaded, with `frame` in hand.
    notes  is told what was lost.
    """
    mode = image.mode
    if mode == "F":
        return *_floats(image, data, frame, notes), icc
    if _is_deep(image, data):
        deep = _by_cv2(data, frame)
        if deep is not None and deep.dtype == np.uint16 and deep.shape[:2] == image.size[::-1]:
            # Pillow calls a deep grey PNG with alpha RGBA; bit 1 of its header's byte 25 is colour
            grey = not data[25] & 2 if image.format == "PNG" else mode in ("L", "LA")
            return *_from_cv2(deep, grey), icc
        notes.append("depth reduced to 8 bits")
    if mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > DEEP:
            raise ImageError("UNSUPPORTED", "32-bit integers are not read; save it with 16 bits")
        return threefold(values.astype(np.uint16)), None, True, icc
    if mode in ("CMYK", "LAB"):
        notes.append(f"colours converted from {mode} to sRGB")
        return np.asarray(to_srgb(image, icc, notes)), None, False, None
    grey = mode in ("1", "L", "LA", "La")
    if image.has_transparency_data or mode in ("La", "RGBa"):
        if mode in ("La", "RGBa"):  # premultiplied
            image = image.convert("LA" if mode == "La" else "RGBA")
        rgba = np.asarray(image.convert("RGBA"))
        return rgba[..., :3].copy(), rgba[..., 3].copy(), grey, icc
    return np.asarray(image.convert("RGB")), None, grey, icc


def threefold(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


def has_alpha(image: Image.Image) -> bool:
    """Whether the header speaks of transparency."""
    return image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info


def _is_deep(image: Image.Image, data: bytes) -> bool:
    """Whether the file holds 16 bits a channel where Pillow's mode holds 8."""
    if image.mode == "I;16" and "transparency" not in image.info:
        return False
    if image.format == "PNG":
        return data[24] == 16  # IHDR: bit depth
    if image.format == "PPM":
        header = re.match(rb"P[36](?:\s+|#[^\n]*\n)+\d+\s+\d+\s+(\d+)\s", data)
        return bool(header) and int(header[1]) > 255
    if image.format == "TIFF":
        bits = image.tag_v2.get(258, (8,))  # pyright: ignore[reportAttributeAccessIssue]
        return max(bits) > 8 and image.mode in ("RGB", "RGBA", "LA")
    return False


def _by_cv2(data: bytes, frame: int) -> np.ndarray | None:
    array = np.frombuffer(data, np.uint8)
    if frame == 0:
        return cv2.imdecode(array, cv2.IMREAD_UNCHANGED)
    _, pages = cv2.imdecodemulti(array, cv2.IMREAD_UNCHANGED, range=(frame, frame + 1))
    return pages[0] if pages else None


def _from_cv2(array: np.ndarray, grey: bool) -> tuple[np.ndarray, np.ndarray | None, bool]:
    if array.ndim == 2:
        return threefold(array), None, True
    rgb = np.ascontiguousarray(array[..., 2::-1])
    return rgb, array[..., 3].copy() if array.shape[2] == 4 else None, grey


def _floats(
    image: Image.Image, data: bytes, frame: int, notes: list[str]
) -> tuple[np.ndarray, None, bool]:
    """Floats in [0, 1] as 16 bits; what goes beyond has no white of its own and is refused."""
    is_known = not isinstance(image, FloatColours)
    values = np.asarray(image) if is_known else _by_cv2(data, frame)
    if values is None or values.shape[:2] != image.size[::-1]:
        raise ImageError("CORRUPT", "broken data: the floats cannot be unpacked; fetch it again")
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
        mend = "scale them, or save it with 16-bit integers"
        raise ImageError("UNSUPPORTED", f"floats outside [0, 1] have no white point; {mend}")
    notes.append("depth reduced from floats to 16 bits")
    levels = np.rint(values * DEEP).astype(np.uint16)
    if levels.ndim == 2:
        return threefold(levels), None, True
    return np.ascontiguousarray(levels[..., ::-1]), None, False
