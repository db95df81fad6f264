"""Pictures to files: depth, grey, alpha, and what is told beside them, where the format can."""

import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from PIL import Image

from restore.errors import ImageError, UsageError
from restore.files import replacing
from restore.images import row_writers, tags, tiff_rows
from restore.images.picture import Picture, eight
from restore.images.tags import Tags
from restore.images.tiff_rows import LARGE


@dataclass(frozen=True)
class Format:
    """What a file format can hold."""

    suffix: str
    side: int  # the longest side in pixels
    deep: bool = True  # 16 bits
    alpha: bool = True


FORMATS = {
    "png": Format(".png", 2**31 - 1),
    "jpeg": Format(".jpg", 65500, deep=False, alpha=False),
    "webp": Format(".webp", 16383, deep=False),
    "avif": Format(".avif", 65536, deep=False),
    "tiff": Format(".tif", 2**31 - 1),
}
OWN = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), "jpeg"),
    **{".webp": "webp", ".avif": "avif"},
}
OPAQUE = {suffix for suffix, own in OWN.items() if own == "jpeg"}
SUBSAMPLED = ("jpeg", "avif")
LOSSLESS = ("png", "tiff", "webp")
PNG_STORED = 33  # the length of signature and IHDR, after which profile and EXIF stand
Rgb = tuple[int, int, int]
Subsampling = Literal["auto", "4:4:4", "4:2:2", "4:2:0"]


@dataclass(frozen=True)
class Writing:
    """How files are written.

    quality      1 to 100, for JPEG, WebP and AVIF.
    background   RGB in 0..255 to lay under a transparent picture where the format holds no alpha.
    subsampling  of the colours of JPEG and AVIF; auto: none from quality 90 on, else 4:2:0.
    lossless     WebP keeps every sample, as PNG and TIFF always do.
    """

    quality: int = 95
    background: Rgb | None = None
    subsampling: Subsampling = "auto"
    lossless: bool = False


def format_for(source: Path, format: str, lossless: bool = False) -> str:
    """`auto` is the source's own format for JPEG, WebP and AVIF, by its name; PNG for all others.

    A lossless `auto` keeps WebP alone and makes PNG of the others.
    Raises UsageError if the format cannot be lossless.
    """
    if format == "auto":
        own = OWN.get(source.suffix.casefold(), "png")
        return own if own in LOSSLESS or not lossless else "png"
    if lossless and format not in LOSSLESS:
        raise UsageError(f"--lossless: {format} is lossy; use --format {', '.join(LOSSLESS)}")
    return format


def refuse(picture: Picture, format: str, size: tuple[int, int], background: Rgb | None) -> None:
    """Raise ImageError if `picture`, enlarged to `size`, will not fit: asked before the work."""
    holds = FORMATS[format]
    if max(size) > holds.side:
        sides = f"{size[1]}x{size[0]} pixels do not fit {format} ({holds.side} a side)"
        raise ImageError("UNSUPPORTED", f"{sides}; use --format png or a smaller scale")
    if picture.alpha is not None and not holds.alpha and background is None:
        mend = "use --format png, or give a --background such as white"
        raise ImageError("UNSUPPORTED", f"{format} holds no transparency; {mend}")


def write(
    picture: Picture,
    path: Path,
    format: str = "png",
    how: Writing = Writing(),
    about: str = "",
) -> list[str]:
    """Put a picture under `path` in one step, checked. Returns encode()'s notes.

    Raises ImageError if the format cannot hold it, OSError if the disk cannot; `path` is as before.
    """
    with replacing(path) as temporary:
        return encode(picture, temporary, format, how, about)


def encode(
    picture: Picture,
    path: Path,
    format: str = "png",
    how: Writing = Writing(),
    about: str = "",
) -> list[str]:
    """Write a file, not in one step, and check that it decodes. Returns what it could not hold.

    about  ASCII that a PNG carries as the text `restore`: how it was made.
    """
    refuse(picture, format, picture.size, how.background)
    notes: list[str] = []
    holds = FORMATS[format]
    pixels, alpha = picture.pixels, picture.alpha
    if picture.depth == 16 and not holds.deep:
        pixels, alpha = eight(pixels), None if alpha is None else eight(alpha)
        notes.append(f"depth reduced to 8 bits for {format}")
    grey = picture.grey
    if alpha is not None and not holds.alpha and how.background is not None:
        pixels = _flat(pixels, alpha, how.background)
        grey = grey and len(set(how.background)) == 1
        alpha = None
    carried = tags.fitting(picture, format, notes)
    if grey != picture.grey:  # a grey profile does not suit colours
        carried = replace(carried, icc=None)
    if pixels.size > 3 * LARGE and format in row_writers.FORMATS:
        notes += _by_rows(path, format, (pixels, alpha, grey), carried, about)
        return notes
    layers = _layers(pixels, alpha, grey)
    if format == "png":
        parts = _png(layers, carried, about)
    elif format == "tiff":
        parts = [_tiff(layers, carried)]
    else:
        parts = [_pillow(layers, format, how, carried)]
    with path.open("wb") as file:
        for part in parts:
            file.write(part)
    check(path, format, picture.size)
    return notes


def _by_rows(
    path: Path,
    format: str,
    shown: tuple[np.ndarray, np.ndarray | None, bool],
    carried: Tags,
    about: str,
) -> list[str]:
    """As the others, for a large picture: a band of it at a time, and checked so too."""
    pixels, alpha, grey = shown

    def layers(first: int, last: int) -> np.ndarray:
        cover = None if alpha is None else alpha[first:last]
        made = _layers(pixels[first:last], cover, grey)
        return _without_grey_alpha(made) if format == "tiff" else made

    size = pixels.shape[0], pixels.shape[1]
    with path.open("wb") as file:
        if format == "png":
            row_writers.write_png(file, layers, size, tags.png_chunks(carried, about))
        else:
            row_writers.write_tiff(file, layers, size, tags.tiff_told(layers(0, 1), carried))
    if format == "png":
        check(path, format, size)
        return []
    notes = _add_exif(path, carried)
    for first in range(0, size[0], row_writers.TILE):
        tiff_rows.decode(path, first, min(first + row_writers.TILE, size[0]))
    return notes


def _add_exif(path: Path, carried: Tags) -> list[str]:
    if carried.exif is None:
        return []
    with path.open("rb+") as file:
        done = tags.add_exif(file, carried.exif)
    return [] if done else ["EXIF dropped: the TIFF is too large for it"]


def check(path: Path, format: str, size: tuple[int, int]) -> None:
    """Raise ImageError unless the file decodes to (height, width)."""
    Image.init()
    with path.open("rb") as file:
        try:
            # straight to the decoder: Image.open's bomb guard is for the files of others
            image = Image.OPEN[format.upper()][0](file, str(path))
            found = image.size[::-1]
            if format == "png":
                image.verify()  # every checksum, without unpacking
            else:
                small = (max(1, image.width // 8), max(1, image.height // 8))
                image.draft("RGB", small)  # a JPEG at 1/8: quick
                image.load()
        except (OSError, SyntaxError, ValueError) as error:
            raise ImageError(
                "CORRUPT", f"the file just written does not decode: {error}"
            ) from error
    if found != size:
        raise ImageError("CORRUPT", f"the file just written is {found}, not {size}")


def _flat(pixels: np.ndarray, alpha: np.ndarray, background: Rgb) -> np.ndarray:
    cover = alpha[..., None].astype(np.float32) / np.float32(255)
    under = np.array(background, np.float32)
    return np.rint(pixels * cover + under * (1 - cover)).astype(np.uint8)


def _layers(pixels: np.ndarray, alpha: np.ndarray | None, grey: bool) -> np.ndarray:
    """(H, W, 1 to 4): grey, grey and alpha, RGB or RGBA."""
    colours = pixels[..., :1] if grey else pixels
    return colours if alpha is None else np.dstack([colours, alpha])


def _pillow(layers: np.ndarray, format: str, how: Writing, carried: Tags) -> bytes:
    image = Image.fromarray(layers[..., 0] if layers.shape[2] == 1 else layers)
    asked: dict[str, Any] = {"quality": how.quality, **tags.pillow(carried, format)}
    if format == "webp" and how.lossless:
        # quality is effort now; `exact` keeps the colours that transparency hides
        asked |= {"lossless": True, "exact": True, "quality": 75}
    elif format in SUBSAMPLED and image.mode not in ("L", "LA"):
        # who asks for this quality wants the colours as sharp as the rest
        auto = "4:4:4" if how.quality >= 90 else "4:2:0"
        asked["subsampling"] = auto if how.subsampling == "auto" else how.subsampling
    buffer = io.BytesIO()
    try:
        image.save(buffer, format, **asked)
    except KeyError as error:  # Pillow was built without the codec
        mend = "pip install -U pillow, or use --format png"
        raise ImageError("UNSUPPORTED", f"this Pillow writes no {format}; {mend}") from error
    return buffer.getvalue()


def _png(layers: np.ndarray, carried: Tags, about: str) -> list[bytes]:
    """PNG by cv2: seven times quicker than Pillow at the same size, and with 16-bit colour."""
    count = layers.shape[2]
    if count == 2 and layers.dtype == np.uint8:  # cv2 knows no grey with alpha
        buffer = io.BytesIO()
        Image.fromarray(layers).save(buffer, "PNG")
        data = buffer.getvalue()
    else:
        order = {1: [0], 2: [0, 0, 0, 1], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[count]
        done, array = cv2.imencode(".png", layers[..., order])
        if not done:
            raise ImageError("UNSUPPORTED", "the PNG encoder refused the picture")
        data = array.tobytes()
    return [data[:PNG_STORED], *tags.png_chunks(carried, about), data[PNG_STORED:]]


def _tiff(layers: np.ndarray, carried: Tags) -> bytes:
    """Deflated TIFF by tifffile: Pillow writes no 16-bit colour, cv2 no profile."""
    layers = _without_grey_alpha(layers)
    told = tags.tiff_told(layers, carried)
    import tifffile  # an extra, and there

    buffer = io.BytesIO()
    tifffile.imwrite(buffer, layers if layers.shape[2] >= 3 else layers[..., 0], **told)
    if carried.exif:
        tags.add_exif(buffer, carried.exif)  # such a small one has room
    return buffer.getvalue()


def _without_grey_alpha(layers: np.ndarray) -> np.ndarray:
    """Grey with alpha as RGBA: few readers of TIFF know it."""
    return layers[..., [0, 0, 0, 1]] if layers.shape[2] == 2 else layers
