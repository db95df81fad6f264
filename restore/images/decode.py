"""Decoding of picture files in their own depth, with an error code for each refusal.

Pillow gets bytes, never paths, and a fixed list of formats. It silently reduces 16-bit colour to 8
bits. So cv2 decodes such a file once more, and its samples are used if their upper 8 bits equal
Pillow's. cv2 alone would not do: it silently fills up a file that is cut short.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from restore.errors import ImageError
from restore.images import attachments, sniff, tiff_samples
from restore.images.metadata import to_srgb
from restore.images.tiff_samples import Samples

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF", "PPM")
FIRST_ALONE = "only the first frame is taken, of {}; --frames all keeps them all"
MAX_PIXELS = 2**27  # 134 million; Pillow itself only warns below 179 million
MAX_FRAMES = 1000
DEEP = 65535


def open_image(data: bytes, suffix: str) -> Image.Image:
    """Open the bytes of a picture file with Pillow; only the header is decoded.

    Args:
        data: The bytes of the file.
        suffix: The extension of its name; it decides for TGA, which has no signature.

    Raises:
        ImageError: The format is not supported, or the picture is broken or too large.
    """
    Image.init()  # AVIF is a plug-in that some builds lack
    formats = [name for name in FORMATS if name in Image.OPEN]
    if suffix.casefold() == ".tga":  # it has no signature: text would pass for it
        formats.append("TGA")
    if sniff.is_heic(data):
        formats.append(_heif())

    with translate_errors(data, suffix):
        try:
            image = Image.open(io.BytesIO(data), formats=formats)
        except UnidentifiedImageError:
            image = tiff_samples.open_page(data)
    tiff_samples.refuse_raw(data, getattr(image, "tag_v2", {}))
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(f"{image.width}x{image.height} pixels")
    return image


def load(
    image: Image.Image, data: bytes, suffix: str, truncated_ok: bool, notes: list[str]
) -> Image.Image:
    """Decode the current frame.

    Args:
        image: As open_image returned it.
        data: The bytes of the file.
        suffix: The extension of its name.
        truncated_ok: Accept a file that is cut short; a note is appended to `notes`.
        notes: Notes on the picture.

    Raises:
        ImageError: The file is broken.
    """
    try:
        with translate_errors(data, suffix):
            image.load()
    except ImageError as error:
        if not (truncated_ok and error.code == "TRUNCATED"):
            raise
        notes.append("truncated: what is missing is flat")
        if image.format == "JPEG":  # with an end, libjpeg gives its last rows too
            image = open_image(data + b"\xff\xd9", suffix)
            with translate_errors(data, suffix):
                image.load()
        else:
            image.tile = []  # what came is in place; asked for again, it is not decoded again
    return image


def count_frames(image: Image.Image, data: bytes, suffix: str) -> int:
    """Count the frames or pages.

    Raises:
        ImageError: There are more than MAX_FRAMES.
    """
    if image.format == "MPO" and attachments.is_gain_map_beside(data):
        return 1  # the others are no pictures
    with translate_errors(data, suffix):
        count = (
            _count_pages(image, data) if image.format == "TIFF" else getattr(image, "n_frames", 1)
        )
    if count > MAX_FRAMES:
        raise ImageError("TOO_LARGE", f"{count} frames; the limit is {MAX_FRAMES}; split the file")
    return count


def _count_pages(image: Image.Image, data: bytes) -> int:
    """Count the pages of a TIFF, also those that Pillow cannot decode, such as masks."""
    try:
        return getattr(image, "n_frames", 1)
    except SyntaxError:  # such a page
        count = tiff_samples.count_pages(data)
        image.seek(0)
        return count


def seek(image: Image.Image, data: bytes, suffix: str, frame: int) -> None:
    """Go to a frame.

    Args:
        image: The opened picture.
        data: The file's bytes, to explain an error.
        suffix: Of the file, likewise.
        frame: Counted from 0.

    Raises:
        ImageError: The frame is broken or too large.
    """
    with translate_errors(data, suffix):
        image.seek(frame)
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(f"{image.width}x{image.height} pixels")


@contextmanager
def translate_errors(data: bytes, suffix: str) -> Iterator[None]:
    """Turn whatever a decoder raises on these bytes into an ImageError with a code."""
    try:
        yield
    except Image.DecompressionBombError as error:
        raise _too_large(str(error)) from error
    except UnidentifiedImageError as error:
        raise sniff.explain_unidentified(data, suffix) from error
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # a decoder on broken bytes raises anything
        if "MAX_TEXT" in str(error):
            mend = "strip the file's texts"
            raise ImageError("METADATA", f"its texts unpack to too much; {mend}") from error
        if "truncated" in str(error).casefold() or sniff.is_short_riff(data):
            raise ImageError("TRUNCATED", "the file is cut short; fetch it again") from error
        if isinstance(error, SyntaxError) and "unknown pixel mode" in str(error):
            told = "a page with samples of a kind that is not read"
            raise ImageError("UNSUPPORTED", f"{told}; take the others out") from error
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


def to_arrays(
    image: Image.Image, data: bytes, frame: int, icc: bytes | None, notes: list[str]
) -> Decoded:
    """Convert an image of any mode to arrays.

    Args:
        image: Loaded, with `frame` current.
        data: The bytes of the file.
        frame: Number of the frame, from 0.
        icc: The colour profile.
        notes: Notes on what was lost are appended here.

    Returns:
        Pixels (H, W, 3), alpha (H, W) or None, whether the picture is grey, and the profile, which
        is None if the colours were converted to sRGB.
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


def grey_to_rgb(values: np.ndarray) -> np.ndarray:
    """Repeat grey (H, W) as (H, W, 3)."""
    return np.repeat(values[..., None], 3, axis=2)


def has_alpha(image: Image.Image) -> bool:
    """Whether the header declares transparency."""
    return image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info


def _is_deep(image: Image.Image, data: bytes) -> bool:
    """Whether the file holds 16 bits per channel where Pillow's mode holds 8."""
    if image.mode == "I;16" and "transparency" not in image.info:
        return False
    if image.format == "PNG":
        return data[24] == 16  # IHDR: bit depth
    if image.format == "PPM":
        header = re.match(rb"P[36](?:\s+|#[^\n]*\n)+\d+\s+\d+\s+(\d+)\s", data)
        return bool(header) and int(header[1]) > 255
    if image.format == "TIFF":
        bits = image.tag_v2.get(258, (8,))
        return max(bits) > 8 and image.mode in ("RGB", "RGBA", "LA", "CMYK")
    return False


def _by_cv2(data: bytes, frame: int) -> np.ndarray | None:
    array = np.frombuffer(data, np.uint8)
    if frame == 0:
        return cv2.imdecode(array, cv2.IMREAD_UNCHANGED)
    _, pages = cv2.imdecodemulti(array, cv2.IMREAD_UNCHANGED, range=(frame, frame + 1))
    return pages[0] if pages else None


def _deep_samples(image: Image.Image, data: bytes, frame: int, notes: list[str]) -> Samples | None:
    """Decode samples of more than 8 bits as 16; None, with a note, if only 8 can be had."""
    if isinstance(image, tiff_samples.Page):
        return _of_page(image, frame, notes)
    if tiff_samples.is_signed(getattr(image, "tag_v2", {})):
        raise ImageError("UNSUPPORTED", "signed integers are not read; save it with unsigned ones")
    if image.mode == "F":
        values = np.asarray(image)
        values = 1 - values if _is_white_zero(image) else values
        return _levels((grey_to_rgb(values), None, True), notes)
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
        return grey_to_rgb(DEEP - values if _is_white_zero(image) else values), None, True
    return None


def _from_cv2(array: np.ndarray, grey: bool) -> Samples:
    if array.ndim == 2:
        return grey_to_rgb(array), None, True
    rgb = np.ascontiguousarray(array[..., 2::-1])
    return rgb, array[..., 3].copy() if array.shape[2] == 4 else None, grey


def _is_white_zero(image: Image.Image) -> bool:
    """Whether 0 is white in a TIFF, which Pillow respects at 8 bits only."""
    return getattr(image, "tag_v2", {}).get(262) == tiff_samples.WHITE_IS_ZERO


def _deep(image: Image.Image, data: bytes, frame: int) -> Samples | None:
    """Decode 16 bits per channel; None if no decoder agrees with Pillow's 8 bits."""
    if image.mode == "CMYK":
        return None
    layout = tiff_samples.read_layout(data, frame) if image.format == "TIFF" else None
    if (
        layout and layout.planes
    ):  # Pillow takes these for interleaved too, where they are not packed
        samples = tiff_samples.decode(data, frame, layout) if layout.is_known else None
        if samples is None and image.info.get("compression") == "raw":
            raise ImageError("UNSUPPORTED", f"a TIFF of {layout}: {tiff_samples.NEEDED}")
        return samples
    array = _by_cv2(data, frame)
    if array is not None and array.dtype == np.uint16 and array.shape[:2] == image.size[::-1]:
        # Pillow calls a deep grey PNG with alpha RGBA; bit 1 of its header's byte 25 is colour
        grey = not data[25] & 2 if image.format == "PNG" else image.mode in ("L", "LA")
        samples = _from_cv2(array, grey)
        samples = (samples[0], None, samples[2]) if layout and not layout.has_alpha else samples
        if _agree(samples, image):
            return samples
    if layout is None or not layout.is_known:
        return None
    samples = tiff_samples.decode(data, frame, layout)
    is_like = samples is not None and samples[0].dtype == np.uint16 and _agree(samples, image)
    return samples if is_like else None


def _agree(samples: Samples, image: Image.Image) -> bool:
    """Whether the upper 8 bits of 16-bit samples equal Pillow's samples."""
    pixels, alpha, _ = samples
    if image.has_transparency_data != (alpha is not None):
        return False
    eight_bits = np.asarray(image.convert("RGB" if alpha is None else "RGBA"))
    if eight_bits.shape[:2] != pixels.shape[:2]:
        return False
    away = np.abs((pixels // 257).astype(np.int16) - eight_bits[..., :3])
    if alpha is None:
        return bool(away.max() <= 1)
    # what is barely there may be rounded otherwise, where alpha was multiplied in
    seen = eight_bits[..., 3] >= 64
    near = np.abs((alpha // 257).astype(np.int16) - eight_bits[..., 3]).max() <= 1
    return bool(near and (not seen.any() or away[seen].max() <= 4))


def _of_page(page: tiff_samples.Page, frame: int, notes: list[str]) -> Samples:
    made = tiff_samples.decode(page.data, frame, page.layout)
    if made is None or made[0].shape[:2] != page.size[::-1]:
        mend = "save it uncompressed or deflated"
        raise ImageError("UNSUPPORTED", f"a TIFF of {page.layout} cannot be unpacked; {mend}")
    return made if made[0].dtype.kind == "u" else _levels(made, notes)


def _levels(samples: Samples, notes: list[str]) -> Samples:
    """Convert floats in [0, 1] to 16 bits.

    Raises:
        ImageError: Values lie outside of [0, 1], so that white is not defined.
    """
    for values in samples[:2]:
        if values is None:
            continue
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            mend = "scale them, or save it with 16-bit integers"
            raise ImageError("UNSUPPORTED", f"floats outside [0, 1] have no white point; {mend}")
    notes.append("depth reduced from floats to 16 bits")
    pixels, alpha = (None if part is None else _counted(part) for part in samples[:2])
    assert pixels is not None
    return pixels, alpha, samples[2]


def _counted(values: np.ndarray) -> np.ndarray:
    return np.rint(values.astype(np.float64) * DEEP).astype(np.uint16)
