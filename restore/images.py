"""Pictures: files become upright integer arrays with alpha, depth, profile and EXIF.

Pillow gets bytes, never paths, and an allow-list of formats. It cuts 16-bit colour to 8 bits in
silence, so once it has judged such a file sound, cv2 decodes it; cv2 alone would turn half a file
into a whole picture without a word.
"""

import io
import re
import stat
import warnings as python_warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError
from PIL.ExifTags import Base

from restore.errors import ImageError

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF", "PPM")
MAX_PIXELS = 2**27  # 134 million; Pillow itself only warns below 179 million
MAX_BYTES = 2**30
ORIENTATION = 0x0112
DESCRIPTIONS = {  # EXIF that stays true when enlarged; the rest describes the old file's storage
    *(ORIENTATION, Base.ImageDescription, Base.Make, Base.Model, Base.Software, Base.DateTime),
    *(Base.Artist, Base.Copyright, Base.ExifOffset, Base.GPSInfo, Base.XPTitle, Base.XPComment),
    *(Base.XPAuthor, Base.XPKeywords, Base.XPSubject),
}
OLD_SIZE = (Base.ExifImageWidth, Base.ExifImageHeight)
SIGNATURES = {  # of formats that are read: what starts so and cannot be opened is a broken picture
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}
REFUSED = {  # formats told by their first bytes, and not read
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"8BPS": "Photoshop",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
}


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture as its file holds it, upright."""

    pixels: np.ndarray  # (H, W, 3) RGB, uint8 or uint16, full range
    alpha: np.ndarray | None = None  # (H, W), the dtype of pixels; not premultiplied
    grey: bool = False  # the file was grey, so it is written grey again; the three channels agree
    icc: bytes | None = None  # a profile that parses and suits the channels
    exif: bytes | None = None  # orientation applied, the tag set to 1
    format: str = "PNG"  # of the source, in Pillow's words
    warnings: tuple[str, ...] = ()  # what was lost or left out on the way in

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)"""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def depth(self) -> int:
        """8 or 16 bits a channel."""
        return self.pixels.dtype.itemsize * 8


def read(path: Path) -> Picture:
    """Read a picture file; of several frames, the first. Raises ImageError."""
    with _named(path):
        return decode(_bytes(path), path.suffix)


def decode(data: bytes, suffix: str) -> Picture:
    """The picture in the bytes of a file whose name ends so; as `read`. Raises ImageError."""
    notes: list[str] = []
    with _noting(notes):
        image = _open(data, suffix, load=True)
        if getattr(image, "is_animated", False):
            notes.append("only the first frame is taken")
        orientation, exif = _exif(image, notes)
        pixels, alpha, grey, icc = _decoded(image, data, image.info.get("icc_profile"), notes)
        pixels = _upright(pixels, orientation)
        alpha = None if alpha is None else _upright(alpha, orientation)
        icc = _profile(icc, grey, notes)
    return Picture(pixels, alpha, grey, icc, exif, image.format or "", tuple(notes))


def plain(picture: Picture) -> np.ndarray:
    """uint8 (H, W, 3): 16 bits are rounded, transparency lies on white."""
    pixels, alpha = (
        ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)
        if array is not None and array.dtype == np.uint16
        else array
        for array in (picture.pixels, picture.alpha)
    )
    assert pixels is not None
    if alpha is None:
        return pixels
    share = alpha[..., None].astype(np.float32) / 255
    return np.rint(pixels * share + 255 * (1 - share)).astype(np.uint8)


def peek(path: Path) -> tuple[int, int]:
    """The upright (height, width) of a picture file, from its header. Raises ImageError."""
    with _named(path):
        return peek_at(_bytes(path), path.suffix)


def peek_at(data: bytes, suffix: str) -> tuple[int, int]:
    """As `peek`, of the bytes of a file whose name ends so."""
    with _noting([]):
        image = _open(data, suffix, load=False)
        orientation, _ = _exif(image, [])
    return (image.width, image.height) if orientation > 4 else (image.height, image.width)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except ImageError as error:
        raise ImageError(error.code, f"{path}: {error}") from error.__cause__


@contextmanager
def _noting(notes: list[str]) -> Iterator[None]:
    """Turn Pillow's warnings into notes of the picture they speak of."""
    with python_warnings.catch_warnings(record=True) as caught:
        python_warnings.simplefilter("always")
        yield
    texts = (str(w.message) for w in caught if w.category is not Image.DecompressionBombWarning)
    notes.extend(text.strip()[:200] for text in texts)


def _bytes(path: Path) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("UNREADABLE", "is not a regular file")
        if status.st_size > MAX_BYTES:
            raise ImageError("TOO_LARGE", f"{status.st_size >> 20} MiB; the limit is 1024")
        with path.open("rb") as file:
            return file.read(MAX_BYTES)
    except OSError as error:
        why = error.strerror or str(error)
        raise ImageError("UNREADABLE", f"{why}; check the file and its permissions") from error


def _open(data: bytes, suffix: str, load: bool) -> Image.Image:
    """Pillow's image, decoded if `load`. Whatever Pillow raises becomes an ImageError."""
    Image.init()  # AVIF is a plug-in that some builds lack
    formats = [name for name in FORMATS if name in Image.OPEN]
    if suffix.casefold() == ".tga":  # it has no signature: text would pass for it
        formats.append("TGA")
    try:
        image = Image.open(io.BytesIO(data), formats=formats)
        if image.width * image.height > MAX_PIXELS:
            raise Image.DecompressionBombError(f"{image.width}x{image.height} pixels")
        if load:
            image.load()
    except Image.DecompressionBombError as error:
        limit = f"the limit is {MAX_PIXELS // 10**6} million pixels; cut it into parts"
        raise ImageError("TOO_LARGE", f"{error}; {limit}") from error
    except UnidentifiedImageError as error:
        raise _unidentified(data, suffix) from error
    except MemoryError:
        raise
    except Exception as error:  # a decoder on broken bytes raises anything
        if "truncated" in str(error).casefold() or _is_short_riff(data):
            raise ImageError("TRUNCATED", "the file is cut short; fetch it again") from error
        raise ImageError("CORRUPT", f"broken data: {error}; fetch it again") from error
    return image


def _unidentified(data: bytes, suffix: str) -> ImageError:
    if _is_short_riff(data):
        return ImageError("TRUNCATED", "the file is cut short; fetch it again")
    refused = next((name for start, name in REFUSED.items() if data.startswith(start)), None)
    brand = data[8:12] if data[4:8] == b"ftyp" else b""
    if brand in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
        refused = "HEIC"
    if refused or suffix.casefold() == ".svg":
        name = refused or "SVG"
        return ImageError("UNSUPPORTED", f"{name} is not read; convert it to PNG or JPEG")
    known = next((name for start, name in SIGNATURES.items() if data.startswith(start)), None)
    if brand == b"avif":
        known = "AVIF"
    if known:
        return ImageError("CORRUPT", f"a {known} whose header is broken; fetch it again")
    what = "empty" if not data else "not a picture, whatever its name says"
    return ImageError("NOT_IMAGE", f"the file is {what}")


def _is_short_riff(data: bytes) -> bool:
    return (
        data[:4] == b"RIFF"
        and data[8:12] == b"WEBP"
        and int.from_bytes(data[4:8], "little") + 8 > len(data)
    )


Decoded = tuple[np.ndarray, np.ndarray | None, bool, bytes | None]


def _decoded(image: Image.Image, data: bytes, icc: bytes | None, notes: list[str]) -> Decoded:
    """(pixels, alpha, grey, icc) of any mode; icc is None where the colours became sRGB."""
    mode = image.mode
    if _is_deep(image, data):
        deep = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if deep is not None and deep.dtype == np.uint16 and deep.shape[:2] == image.size[::-1]:
            # Pillow calls a deep grey PNG with alpha RGBA; bit 1 of its header's byte 25 is colour
            grey = not data[25] & 2 if image.format == "PNG" else mode in ("L", "LA")
            return *_from_cv2(deep, grey), icc
        notes.append("depth reduced to 8 bits")
    if mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError("UNSUPPORTED", "32-bit integers are not read; save it with 16 bits")
        return threefold(values.astype(np.uint16)), None, True, icc
    if mode == "F":
        raise ImageError("UNSUPPORTED", "32-bit floats are not read; save it with 16-bit integers")
    if mode in ("CMYK", "LAB"):
        return np.asarray(_to_srgb(image, icc, notes)), None, False, None
    grey = mode in ("1", "L", "LA", "La")
    if image.has_transparency_data or mode in ("La", "RGBa"):
        if mode in ("La", "RGBa"):  # premultiplied
            image = image.convert("LA" if mode == "La" else "RGBA")
        rgba = np.asarray(image.convert("RGBA"))
        return rgba[..., :3].copy(), rgba[..., 3].copy(), grey, icc
    return np.asarray(image.convert("RGB")), None, grey, icc


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


def _from_cv2(array: np.ndarray, grey: bool) -> tuple[np.ndarray, np.ndarray | None, bool]:
    if array.ndim == 2:
        return threefold(array), None, True
    rgb = np.ascontiguousarray(array[..., 2::-1])
    return rgb, array[..., 3].copy() if array.shape[2] == 4 else None, grey


def threefold(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


def _to_srgb(image: Image.Image, icc: bytes | None, notes: list[str]) -> Image.Image:
    """CMYK or Lab in sRGB: through the picture's own profile, else by the plain formula."""
    srgb = ImageCms.createProfile("sRGB")
    own = ImageCms.createProfile("LAB") if image.mode == "LAB" else io.BytesIO(icc or b"")
    try:
        done = ImageCms.profileToProfile(image, own, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        if icc:
            notes.append("the colour profile is broken: colours are approximate")
        return image.convert("RGB")
    assert done is not None  # it is None only for inPlace
    return done


def _profile(icc: bytes | None, grey: bool, notes: list[str]) -> bytes | None:
    """The profile if it parses and suits the channels, else None with a note."""
    if not icc:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc)).profile
        space = str(getattr(profile, "xcolor_space", "broken")).strip()
    except (OSError, TypeError, ValueError):
        space = "broken"
    if space != ("GRAY" if grey else "RGB"):
        notes.append(f"the colour profile is dropped: it is {space}")
        return None
    return icc


def _exif(image: Image.Image, notes: list[str]) -> tuple[int, bytes | None]:
    """(orientation 1 to 8, the EXIF of the upright picture). What does not parse is dropped."""
    try:
        source = image.getexif()
        orientation = source.get(ORIENTATION, 1)
        kept = Image.Exif()
        for tag in DESCRIPTIONS & set(source):
            kept[tag] = source[tag]
        for part in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            inner = dict(source.get_ifd(part))
            for tag in OLD_SIZE:
                inner.pop(tag, None)
            kept.pop(part, None)
            if inner:
                kept.get_ifd(part).update(inner)
        if ORIENTATION in kept:
            kept[ORIENTATION] = 1
        exif = kept.tobytes() if len(kept) or kept._ifds else None
    except (
        Exception
    ) as error:  # EXIF is written by cameras and by attackers; the picture stands without it
        notes.append(f"EXIF dropped: {error}"[:200])
        return 1, None
    if orientation not in range(1, 9):
        notes.append(f"orientation {orientation} does not exist; taken as upright")
        orientation = 1
    return orientation, exif


def _upright(array: np.ndarray, orientation: int) -> np.ndarray:
    if orientation > 4:  # stored on its side
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def resize_band(
    source: Picture | np.ndarray, size: tuple[int, int], rows: tuple[int, int]
) -> np.ndarray:
    """Rows r0 to r1 of the picture resized to `size` by Pillow's antialiased bicubic.

    source  a Picture, or an array (H, W, 3) or (H, W): uint8, uint16, or float in [0, 1].
    size    (height, width) of the whole result.
    Returns float32 (r1 - r0, width[, 3]) in [0, 1]. A row has the same bits in whatever band.
    """
    array = source.pixels if isinstance(source, Picture) else source
    height, width = size
    taps = [_taps(row, array.shape[0], height) for row in range(*rows)]
    top = taps[0][0]
    bottom = taps[-1][0] + len(taps[-1][1])
    wide = _widen(_unit(array[top:bottom]), width)
    band = np.empty((len(taps), *wide.shape[1:]), np.float32)
    for row, (first, weights) in enumerate(taps):  # row by row: no sum depends on the band
        np.multiply(wide[first - top], weights[0], out=band[row])
        for offset, weight in enumerate(weights[1:], first - top + 1):
            band[row] += wide[offset] * weight
    return np.clip(band, 0, 1, out=band)


def _taps(row: int, height_in: int, height_out: int) -> tuple[int, np.ndarray]:
    """The first source row and the weights from it on, for one row (Pillow's Resample.c)."""
    scale = height_in / height_out
    blur = max(scale, 1.0)
    center = (row + 0.5) * scale
    first = max(0, int(center - 2 * blur + 0.5))
    last = min(height_in, int(center + 2 * blur + 0.5))
    x = np.abs((np.arange(first, last) + 0.5 - center) / blur)
    near = (1.5 * x - 2.5) * x * x + 1  # Keys' cubic with a = -0.5
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    return first, (weights / weights.sum()).astype(np.float32)


def _widen(rows: np.ndarray, width: int) -> np.ndarray:
    if rows.shape[1] == width:
        return rows
    size = (width, rows.shape[0])
    planes = np.moveaxis(np.atleast_3d(rows), 2, 0)
    wide = [Image.fromarray(plane).resize(size, Image.Resampling.BICUBIC) for plane in planes]
    return np.stack([np.asarray(plane) for plane in wide], axis=2).reshape(
        rows.shape[0], width, *rows.shape[2:]
    )


def _unit(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    return array.astype(np.float32) / np.float32(np.iinfo(array.dtype).max)


def resize_alpha(picture: Picture, size: tuple[int, int], band: int = 256) -> np.ndarray | None:
    """The alpha at (height, width), in the picture's depth; None if there is none."""
    if picture.alpha is None:
        return None
    result = np.empty(size, picture.alpha.dtype)
    top = np.iinfo(picture.alpha.dtype).max
    for row in range(0, size[0], band):
        rows = (row, min(row + band, size[0]))
        result[slice(*rows)] = np.rint(resize_band(picture.alpha, size, rows) * top)
    return result


def bleed(picture: Picture) -> Picture:
    """Give each fully transparent pixel the nearest colour that shows: enlarged without a halo."""
    if picture.alpha is None:
        return picture
    shown = picture.alpha > 0
    if shown.all() or not shown.any():
        return picture
    _, labels = cv2.distanceTransformWithLabels(
        (~shown).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    nearest = np.asarray(labels, np.int32)
    pixels = picture.pixels.copy()
    owner = np.zeros(nearest.max() + 1, np.intp)  # label -> the pixel that carries it
    owner[nearest[shown]] = np.flatnonzero(shown)
    pixels[~shown] = picture.pixels.reshape(-1, 3)[owner[nearest[~shown]]]
    return replace(picture, pixels=pixels)
