"""JPEGs and PNGs too large to be held: a worker decodes one whole and leaves its rows in a file.

The worker takes 4 bytes a pixel, and more for a progressive JPEG; whoever asked maps the file.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from restore.errors import ImageError
from restore.images import carried, colours, metadata, sniff
from restore.images import decode as decoding
from restore.images import picture as images
from restore.images.decode import MAX_PIXELS, threefold
from restore.images.picture import Head, Picture, Reading
from restore.images.tiff_samples import upright

SUFFIXES = {".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".png": "PNG"}
ROWS = 256  # written together


def read(path: Path, how: Reading, room: Path) -> tuple[Picture, tuple[int, int, int]] | None:
    """Decode a picture above MAX_PIXELS into the file `room`, uint8, upright and row by row.

    Gives the picture without its pixels, and their shape; None if it is not so large.
    Raises ImageError where it has more pixels than asked for, or cannot be read this way.
    """
    found = _opened(path, how)
    if found is None:
        return None
    image, data = found
    notes: list[str] = []
    with images.noting(notes):
        sniff.inspect(data, notes)
        if misnamed := sniff.misnamed(path.suffix, image.format or ""):
            notes.append(misnamed)
        image = decoding.load(image, data, path.suffix, how.allow_truncated, notes)
        turn, facts = metadata.facts(image, how.strip, notes)
        grey = image.mode == "L"
        icc = metadata.profile(image.info.get("icc_profile"), grey, notes)
        icc = colours.profile(data, image.info, icc, grey, notes)
        notes += [note for note in carried.lost(image, data) if note not in notes]
    height, width = _upright(image, turn)
    with room.open("wb") as file:
        for first in range(0, height, ROWS):
            file.write(_rows(image, turn, first, min(first + ROWS, height)).tobytes())
    nothing = np.empty((0, width, 3), np.uint8)
    told, form = tuple(notes), image.format or ""
    made = Picture(nothing, None, grey, icc, format=form, warnings=told, **vars(facts))
    return made, (height, width, 3)


def look(path: Path, how: Reading) -> Head | None:
    """What the header of such a picture says, as `read`."""
    found = _opened(path, how)
    if found is None:
        return None
    turn, _ = metadata.exif(found[0], "all", [])
    return Head(_upright(found[0], turn), 1, has_alpha=False, is_spooled=True)


def _opened(path: Path, how: Reading) -> tuple[Image.Image, bytes] | None:
    """The image, its header read, and the file's bytes. Raises ImageError."""
    kind = SUFFIXES.get(path.suffix.casefold())
    if kind is None or how.max_pixels <= MAX_PIXELS:
        return None
    data = images.file_bytes(path)
    Image.init()
    try:  # straight to the decoder: Image.open's bomb guard is for what is held whole
        image = Image.OPEN[kind][0](io.BytesIO(data), str(path))
    except Exception:  # of another kind, or broken: whoever reads it whole says how
        return None
    pixels = image.width * image.height
    if pixels <= MAX_PIXELS:
        return None
    told = f"{image.width}x{image.height} pixels"
    if pixels > how.max_pixels:
        mend = f"--megapixels {-(-pixels // 10**6)} takes it"
        raise ImageError("TOO_LARGE", f"{told}; the limit is {how.max_pixels // 10**6}; {mend}")
    if why := _refused(image, data, how):
        mend = "save it as an opaque RGB JPEG, or cut it into parts"
        raise ImageError("TOO_LARGE", f"{told} are too many where {why}; {mend}")
    return image, data


def _refused(image: Image.Image, data: bytes, how: Reading) -> str:
    """What of it needs more than rows, if anything does."""
    if image.mode not in ("RGB", "L") or image.has_transparency_data:
        return f"its mode is {image.mode}, or it is transparent"
    if image.format == "PNG" and data[24] == 16:  # IHDR: bit depth
        return "it has 16 bits a channel"
    if how.icc == "srgb" and "icc_profile" in image.info:
        return "its colours are to be converted"
    if getattr(image, "n_frames", 1) > 1:
        return "it has several frames"
    return ""


def _upright(image: Image.Image, turn: int) -> tuple[int, int]:
    size = image.height, image.width
    return size[::-1] if turn > 4 else size


def _rows(image: Image.Image, turn: int, first: int, last: int) -> np.ndarray:
    """Rows of the upright picture, (last - first, W, 3)."""
    if turn in (3, 4, 7, 8):  # they come in the opposite order
        height, _ = _upright(image, turn)
        first, last = height - last, height - first
    box = (0, first, image.width, last) if turn <= 4 else (first, 0, last, image.height)
    band = np.asarray(image.crop(box))
    return upright(band if band.ndim == 3 else threefold(band), turn)
