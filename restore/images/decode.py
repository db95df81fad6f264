"""Bytes to pixels: what is refused and by which code, and every mode in its own depth.

Pillow gets bytes, never paths, and an allow-list of formats. It cuts 16-bit colour to 8 bits in
silence, so once it has judged such a file sound, cv2 decodes it, and is believed where its upper 8
bits are Pillow's; cv2 alone would turn half a file into a whole picture without a word.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from restore.errors import ImageError
from restore.images import carried, sniff, tiff_samples
from restore.images.metadata import to_srgb
from restore.images.tiff_samples import Samples

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
            image = tiff_samples.page(data)
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
    mend = "raise --megapixels for a JPEG, a PNG or a TIFF of tiles, or cut it into parts"
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


Decoded = tuple[np.ndarray, np.ndarray | None, bool, bytes | None]


def own_turn(image: Image.Image) -> int:
    """The orientation, 1 to 8, that Pillow and cv2 apply by themselves: that of a TIFF."""
    tags = getattr(image, "tag_v2", {})
    turn = tags.get(274, 1)
    return turn if turn in range(1, 9) else 1


def pixels(
    image: Image.Image, data: bytes, frame: int, icc: bytes | None, notes: list[str]
) -> Decoded:
    """(pixels, alpha, grey, icc) of any mode; icc is None where the colours became sRGB.

    image  loaded, with `frame` in hand.
    notes  is told what was lost.
    """
    made = _deep_samples(image, data, frame, notes)
    if made is not None:
        return *made, icc
    mode = image.mode
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
        return max(bits) > 8 and image.mode in ("RGB", "RGBA", "LA", "CMYK")
    return False


def _by_cv2(data: bytes, frame: int) -> np.ndarray | None:
    array = np.frombuffer(data, np.uint8)
    if frame == 0:
        return cv2.imdecode(array, cv2.IMREAD_UNCHANGED)
    _, pages = cv2.imdecodemulti(array, cv2.IMREAD_UNCHANGED, range=(frame, frame + 1))
    return pages[0] if pages else None


def _deep_samples(image: Image.Image, data: bytes, frame: int, notes: list[str]) -> Samples | None:
    """What has more than 8 bits a channel, as 16 bits; None, and a note, where 8 are left."""
    if isinstance(image, tiff_samples.Page):
        return _of_page(image, frame, notes)
    if image.mode == "F":
        values = np.asarray(image)
        values = 1 - values if _is_white_zero(image) else values
        return _levels((threefold(values), None, True), notes)
    if _is_deep(image, data):
        made = _deep(image, data, frame)
        if made is None:
            notes.append("depth reduced to 8 bits")
        return made
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > DEEP:
            raise ImageError("UNSUPPORTED", "32-bit integers are not read; save it with 16 bits")
        values = values.astype(np.uint16)
        return threefold(DEEP - values if _is_white_zero(image) else values), None, True
    return None


def _from_cv2(array: np.ndarray, grey: bool) -> Samples:
    if array.ndim == 2:
        return threefold(array), None, True
    rgb = np.ascontiguousarray(array[..., 2::-1])
    return rgb, array[..., 3].copy() if array.shape[2] == 4 else None, grey


def _is_white_zero(image: Image.Image) -> bool:
    """Whether a TIFF counts from white to black, which Pillow heeds at 8 bits alone."""
    return getattr(image, "tag_v2", {}).get(262) == tiff_samples.WHITE_IS_ZERO


def _deep(image: Image.Image, data: bytes, frame: int) -> Samples | None:
    """16 bits a channel; None where no decoder's agree with what Pillow gives at 8 bits."""
    if image.mode == "CMYK":
        return None
    layout = tiff_samples.layout(data, frame) if image.format == "TIFF" else None
    if (
        layout and layout.planes
    ):  # Pillow takes these for interleaved too, where they are not packed
        made = tiff_samples.decode(data, frame, layout) if layout.is_known else None
        if made is None and image.info.get("compression") == "raw":
            raise ImageError("UNSUPPORTED", f"a TIFF of {layout}: {tiff_samples.NEEDED}")
        return made
    array = _by_cv2(data, frame)
    if array is not None and array.dtype == np.uint16 and array.shape[:2] == image.size[::-1]:
        # Pillow calls a deep grey PNG with alpha RGBA; bit 1 of its header's byte 25 is colour
        grey = not data[25] & 2 if image.format == "PNG" else image.mode in ("L", "LA")
        made = _from_cv2(array, grey)
        if _agree(made, image):
            return made
    if layout is None or not layout.is_known:
        return None
    made = tiff_samples.decode(data, frame, layout)
    is_like = made is not None and made[0].dtype == np.uint16 and _agree(made, image)
    return made if is_like else None


def _agree(made: Samples, image: Image.Image) -> bool:
    """Whether 16-bit samples are those of which Pillow gives the upper 8 bits."""
    pixels, alpha, _ = made
    if image.has_transparency_data != (alpha is not None):
        return False
    shown = np.asarray(image.convert("RGB" if alpha is None else "RGBA"))
    if shown.shape[:2] != pixels.shape[:2]:
        return False
    away = np.abs((pixels // 257).astype(np.int16) - shown[..., :3])
    if alpha is None:
        return bool(away.max() <= 1)
    # what is barely there may be rounded otherwise, where alpha was multiplied in
    seen = shown[..., 3] >= 64
    near = np.abs((alpha // 257).astype(np.int16) - shown[..., 3]).max() <= 1
    return bool(near and (not seen.any() or away[seen].max() <= 4))


def _of_page(page: tiff_samples.Page, frame: int, notes: list[str]) -> Samples:
    made = tiff_samples.decode(page.data, frame, page.layout)
    if made is None or made[0].shape[:2] != page.size[::-1]:
        mend = "save it uncompressed or deflated"
        raise ImageError("UNSUPPORTED", f"a TIFF of {page.layout} cannot be unpacked; {mend}")
    return made if made[0].dtype.kind == "u" else _levels(made, notes)


def _levels(made: Samples, notes: list[str]) -> Samples:
    """Floats in [0, 1] as 16 bits; what goes beyond has no white of its own and is refused."""
    for values in filter(lambda part: part is not None, made[:2]):
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            mend = "scale them, or save it with 16-bit integers"
            raise ImageError("UNSUPPORTED", f"floats outside [0, 1] have no white point; {mend}")
    notes.append("depth reduced from floats to 16 bits")
    pixels, alpha = (None if part is None else _counted(part) for part in made[:2])
    assert pixels is not None
    return pixels, alpha, made[2]


def _counted(values: np.ndarray) -> np.ndarray:
    return np.rint(values.astype(np.float64) * DEEP).astype(np.uint16)
