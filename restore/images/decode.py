"""Decoding of picture files in their own depth, with an error code for each refusal.

Pillow gets bytes, never paths, and a fixed list of formats.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, UnidentifiedImageError

from restore.errors import ImageError
from restore.images import attachments, deep_samples, sniff, tiff_samples
from restore.images.metadata import to_srgb

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF", "PPM")
FIRST_ALONE = "only the first frame is taken, of {}; --frames all keeps them all"
MAX_PIXELS = 2**27  # 134 million; Pillow itself only warns below 179 million
MAX_FRAMES = 1000


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
    if image.format == "TIFF" and tiff_samples.is_misread(image):
        return tiff_samples.open_page(data, image.tell())
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
    made = deep_samples.decode(image, data, frame, notes)
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


def has_alpha(image: Image.Image) -> bool:
    """Whether the header declares transparency."""
    return image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info
