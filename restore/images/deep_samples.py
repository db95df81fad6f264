"""Samples that Pillow reduces to 8 bits, or misreads.

Pillow silently reduces 16-bit colour to 8 bits. So cv2 decodes such a file once more, and its
samples are used if their upper 8 bits equal Pillow's. cv2 alone would not do: it silently fills up
a file that is cut short.
"""

import re

import cv2
import numpy as np
from PIL import Image

from restore.errors import ImageError
from restore.images import sniff, tiff_samples
from restore.images.tiff_samples import Samples

DEEP = 65535


def grey_to_rgb(values: np.ndarray) -> np.ndarray:
    """Repeat grey (H, W) as (H, W, 3)."""
    return np.repeat(values[..., None], 3, axis=2)


def decode(image: Image.Image, data: bytes, frame: int, notes: list[str]) -> Samples | None:
    """Decode samples of more than 8 bits as 16; None, with a note, if only 8 can be had."""
    if isinstance(image, tiff_samples.Page):
        return _of_page(image, frame, notes)
    if tiff_samples.is_signed(getattr(image, "tag_v2", {})):
        raise ImageError("UNSUPPORTED", "signed integers are not read; save it with unsigned ones")
    if image.mode == "F":
        values = np.asarray(image)
        values = 1 - values if _is_white_zero(image) else values
        return _levels((grey_to_rgb(values), None, True), notes)
    key = _take_key(image, data)
    if image.mode.startswith("I"):
        made = decode_grey(image)
    elif _is_deep(image, data):
        made = _deep(image, data, frame)
        if made is None:
            notes.append("depth reduced to 8 bits")
    else:
        made = None
    if made is None or key is None:
        return made
    pixels, _, grey = made
    return pixels, cut_out(pixels, key), grey


def _take_key(image: Image.Image, data: bytes) -> np.ndarray | None:
    """Take the transparent colour (tRNS) of a 16-bit PNG, and scale that of a shallow grey one.

    Pillow compares the former with samples of 8 bits, and the latter with samples that it scaled.
    """
    if image.format != "PNG" or image.mode not in ("L", "RGB", "I;16"):
        return None
    body, most = sniff.find_png_chunk(data, b"tRNS"), 2 ** data[24] - 1  # IHDR: bit depth
    if body is None:
        return None
    key = np.frombuffer(body, ">u2", 3 if image.mode == "RGB" else 1) & most
    if most == DEEP:
        image.info.pop("transparency", None)
        return key
    if image.mode == "L":
        image.info["transparency"] = int(key[0]) * 255 // most
    return None


def cut_out(pixels: np.ndarray, key: np.ndarray | int) -> np.ndarray:
    """Alpha (H, W) of 16-bit pixels of which one colour, or grey, is transparent."""
    return np.where((pixels == key).all(2), 0, DEEP).astype(np.uint16)


def decode_grey(image: Image.Image) -> Samples:
    """Return the samples of a loaded grey image of more than 8 bits, a mode I of Pillow.

    Raises:
        ImageError: They do not fit 16 bits.
    """
    values, tags = np.asarray(image), getattr(image, "tag_v2", {})
    if values.min() < 0 or values.max() > DEEP:
        raise ImageError("UNSUPPORTED", "32-bit integers are not read; save it with 16 bits")
    if tags.get(258) == (12,):  # Pillow does not scale these, and takes a JPEG's for packed ones
        if image.info.get("compression") == "jpeg":
            raise ImageError("UNSUPPORTED", "a JPEG of 12 bits is not read; save it with 16 bits")
        values = np.rint(values / (2**12 - 1) * DEEP)
    values = values.astype(np.uint16)
    return grey_to_rgb(DEEP - values if _is_white_zero(image) else values), None, True


def _is_deep(image: Image.Image, data: bytes) -> bool:
    """Whether the file holds 16 bits per channel where Pillow's mode holds 8."""
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
    if layout and layout.planes:  # if they are not packed, Pillow takes these for interleaved
        samples = tiff_samples.decode(data, frame, layout) if layout.is_known else None
        if samples is None and image.info.get("compression") == "raw":
            raise ImageError("UNSUPPORTED", f"a TIFF of {layout}: {tiff_samples.NEEDED}")
        return samples
    array = _by_cv2(data, frame)
    if array is not None and array.dtype == np.uint16 and array.shape[:2] == image.size[::-1]:
        # Pillow calls a deep grey PNG with alpha RGBA; bit 1 of its header's byte 25 is colour
        grey = not data[25] & 2 if image.format == "PNG" else image.mode in ("L", "LA")
        samples = _from_cv2(array, grey)
        is_opaque = not layout.has_alpha if layout else image.mode == "RGB"
        samples = (samples[0], None, samples[2]) if is_opaque else samples
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
        mend = "save it uncompressed"
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
