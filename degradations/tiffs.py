"""TIFFs and portable pixmaps that OpenCV reads wrongly, or of which it reads a thumbnail alone."""

import io
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", *(b"P%d" % kind for kind in range(1, 7)))
RAW = "a camera's raw file, of which only the thumbnail could be read; develop it to TIFF or JPEG"
SIGNED = "a TIFF of signed integers is not read; save it as 16-bit RGB"
SUBFILE, KIND, PAGES, EXTRA, SAMPLES, DNG = 254, 262, 330, 338, 339, 50706  # tags


def read(data: bytes) -> np.ndarray | None:
    """Decode a file that OpenCV would read wrongly.

    OpenCV cuts a grey TIFF of 16 bits to 8, multiplies the colours of a TIFF by its alpha, and does
    not scale pixmaps of 10 or 12 bits.

    Args:
        data: The file.

    Returns:
        uint8 or uint16 (H, W) or (H, W, 3), not upright; None for any other file.

    Raises:
        ValueError: It is a camera's raw file, or has signed integers.
        OSError: It is broken.
    """
    if not data.startswith(HEADS):
        return None
    tags = tags_of(data)
    refuse(data, tags)
    is_separate = 2 in tags.get(EXTRA, ())  # colours that its alpha did not multiply
    try:
        with Image.open(io.BytesIO(data), formats=["TIFF", "PPM"]) as image:
            if image.mode.startswith("I"):
                return _grey(image, is_inverted=0 in tags.get(KIND, ()))
            if image.format == "PPM" or (is_separate and image.mode == "RGBA"):
                return np.asarray(image.convert("RGB"))
    except Image.UnidentifiedImageError:
        pass
    return None


def tags_of(data: bytes) -> dict[int, tuple[Any, ...]]:
    """The values of the tags of the first page of a TIFF; none of other files."""
    if data[:2] not in (b"II", b"MM"):
        return {}
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(data[:16] if 43 in data[2:4] else data[:8])
        file = io.BytesIO(data)
        file.seek(tags.next)
        tags.load(file)
        return {tag: it if isinstance(it, tuple) else (it,) for tag, it in dict(tags).items()}
    except (OSError, ValueError, SyntaxError, KeyError, struct.error):
        return {}


def refuse(data: bytes, tags: Mapping[int, tuple[Any, ...]]) -> None:
    """Refuse a camera's raw file, which begins with a thumbnail, and signed integers.

    Args:
        data: The file.
        tags: What `tags_of` returns.

    Raises:
        ValueError: It is one of them.
    """
    is_part = PAGES in tags and any(kind & 1 for kind in tags.get(SUBFILE, ()))  # NEF, ARW
    if DNG in tags or is_part or (tags and data[4:12] == b"\x10\0\0\0CR\2\0"):
        raise ValueError(RAW)
    if 2 in tags.get(SAMPLES, ()):
        raise ValueError(SIGNED)


def _grey(image: Image.Image, is_inverted: bool) -> np.ndarray:
    """uint16 (H, W) of 16 bits, which Pillow may hold in 32."""
    values = np.asarray(image).astype(np.int32).clip(0, 65535).astype(np.uint16)
    return 65535 - values if is_inverted else values
