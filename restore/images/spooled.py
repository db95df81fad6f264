"""JPEGs and PNGs too large for memory: a worker decodes them into a file, which is then mapped.

The worker needs 4 bytes per pixel, and more for a progressive JPEG.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from restore.errors import ImageError
from restore.images import attachments, colours, metadata, sniff
from restore.images import decode as decoding
from restore.images import picture as images
from restore.images.decode import MAX_PIXELS
from restore.images.deep_samples import grey_to_rgb
from restore.images.picture import Header, Picture, Reading
from restore.images.tiff_samples import apply_orientation

SUFFIXES = {".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".png": "PNG"}
ROWS = 256  # written together


def read(path: Path, how: Reading, target: Path) -> tuple[Picture, tuple[int, int, int]] | None:
    """Decode a picture above MAX_PIXELS into a file.

    Args:
        path: The picture.
        how: Reading options; `max_pixels` is the limit.
        target: File for the samples: uint8, upright, row by row.

    Returns:
        The picture without its pixels, and their shape (H, W, 3); None if it is not so large.

    Raises:
        ImageError: It has more pixels than the limit, or cannot be read this way.
    """
    found = _opened(path, how)
    if found is None:
        return None
    image, data = found
    notes: list[str] = []
    with images.collect_warnings(notes):
        sniff.inspect(data, notes)
        if misnamed := sniff.check_suffix(path.suffix, image.format or ""):
            notes.append(misnamed)
        image = decoding.load(image, data, path.suffix, how.allow_truncated, notes)
        turn, facts = metadata.read_metadata(image, how.strip, notes)
        grey = image.mode == "L"
        icc = metadata.check_profile(image.info.get("icc_profile"), grey, notes)
        icc = colours.find_profile(data, image, icc, grey, notes)
        notes += [note for note in attachments.list_dropped(image, data) if note not in notes]
    height, width = _upright(image, turn)
    with target.open("wb") as file:
        for first in range(0, height, ROWS):
            file.write(_rows(image, turn, first, min(first + ROWS, height)).tobytes())
    nothing = np.empty((0, width, 3), np.uint8)
    warnings, form = tuple(notes), image.format or ""
    made = Picture(nothing, None, grey, icc, format=form, warnings=warnings, **vars(facts))
    return made, (height, width, 3)


def probe(path: Path, how: Reading) -> Header | None:
    """Read the header of such a picture; None and errors as for `read`."""
    found = _opened(path, how)
    if found is None:
        return None
    turn, _ = metadata.read_exif(found[0], "all", [])
    return Header(_upright(found[0], turn), 1, has_alpha=False, is_spooled=True)


def _opened(path: Path, how: Reading) -> tuple[Image.Image, bytes] | None:
    """Open the image, header only, and return it with the bytes of the file."""
    kind = SUFFIXES.get(path.suffix.casefold())
    if kind is None or how.max_pixels <= MAX_PIXELS:
        return None
    data = images.read_bytes(path)
    Image.init()
    try:  # straight to the decoder: Image.open's bomb guard is for what is held whole
        image = Image.OPEN[kind][0](io.BytesIO(data), str(path))
    except MemoryError:
        raise
    except Exception:  # Pillow raises anything on a broken header; reading it whole explains it
        return None
    pixels = image.width * image.height
    if pixels <= MAX_PIXELS:
        return None
    size = f"{image.width}x{image.height} pixels"
    if pixels > how.max_pixels:
        mend = f"--megapixels {-(-pixels // 10**6)} takes it"
        raise ImageError("TOO_LARGE", f"{size}; the limit is {how.max_pixels // 10**6}; {mend}")
    if why := _refused(image, data, how):
        mend = "save it as an opaque RGB JPEG, or cut it into parts"
        raise ImageError("TOO_LARGE", f"{size} are too many where {why}; {mend}")
    return image, data


def _refused(image: Image.Image, data: bytes, how: Reading) -> str:
    """Return why the picture cannot be read by rows; an empty text if it can."""
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
    height, width = image.height, image.width
    return (width, height) if turn > 4 else (height, width)


def _rows(image: Image.Image, turn: int, first: int, last: int) -> np.ndarray:
    """Return rows of the upright picture, (last - first, W, 3)."""
    if turn in (3, 4, 7, 8):  # they come in the opposite order
        height, _ = _upright(image, turn)
        first, last = height - last, height - first
    box = (0, first, image.width, last) if turn <= 4 else (first, 0, last, image.height)
    band = np.asarray(image.crop(box))
    return apply_orientation(band if band.ndim == 3 else grey_to_rgb(band), turn)
