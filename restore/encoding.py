"""Pictures to files: depth, grey, alpha, profile, EXIF and XMP are kept where the format can."""

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from PIL import Image

from restore import metadata
from restore.errors import ImageError, UsageError
from restore.files import replacing
from restore.images import Picture, eight


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
JPEG_SEGMENT = 65533
JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
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
    layers = _layers(pixels, alpha, grey)
    tags = _tags(picture, format, notes)
    if grey != picture.grey:  # a grey profile does not suit colours
        tags.pop("icc_profile", None)
    if format == "png":
        parts = _png(layers, tags, about)
    elif format == "tiff":
        parts = [_tiff(layers, tags)]
    else:
        parts = [_pillow(layers, format, how, tags)]
    with path.open("wb") as file:
        for part in parts:
            file.write(part)
    check(path, format, picture.size)
    return notes


def _tags(picture: Picture, format: str, notes: list[str]) -> dict[str, bytes]:
    """Profile, EXIF and XMP by Pillow's names, true of the picture's size."""
    tags = {}
    if picture.icc:
        tags["icc_profile"] = picture.icc
    if picture.exif:
        tags["exif"] = metadata.sized_exif(picture.exif, picture.size)
    if picture.xmp:
        tags["xmp"] = metadata.sized_xmp(picture.xmp, picture.size)
    if format == "tiff" and tags.pop("exif", None):
        notes.append("EXIF dropped: it is not written to tiff")
    if format == "jpeg":
        for name, prefix in (("exif", 6), ("xmp", len(JPEG_XMP))):
            if len(tags.get(name, b"")) + prefix > JPEG_SEGMENT:
                del tags[name]
                notes.append(f"{name.upper()} dropped: too long for jpeg")
    return tags


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
                image.draft("RGB", (image.width // 8, image.height // 8))  # a JPEG at 1/8: quick
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


def _pillow(layers: np.ndarray, format: str, how: Writing, tags: dict[str, bytes]) -> bytes:
    image = Image.fromarray(layers[..., 0] if layers.shape[2] == 1 else layers)
    asked: dict[str, Any] = {"quality": how.quality, **tags}
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


def _png(layers: np.ndarray, tags: dict[str, bytes], about: str) -> list[bytes]:
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
    parts = [data[:PNG_STORED]]
    if "icc_profile" in tags:
        parts.append(_chunk(b"iCCP", b"icc\0\0" + zlib.compress(tags["icc_profile"])))
    if "exif" in tags:
        parts.append(_chunk(b"eXIf", tags["exif"].removeprefix(b"Exif\0\0")))
    if "xmp" in tags:
        parts.append(_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + tags["xmp"]))
    if about:
        parts.append(_chunk(b"tEXt", b"restore\0" + about.encode("ascii")))
    return [*parts, data[PNG_STORED:]]


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _tiff(layers: np.ndarray, tags: dict[str, bytes]) -> bytes:
    """Deflated TIFF by tifffile: Pillow writes no 16-bit colour, cv2 no profile."""
    try:
        import tifffile  # an extra
    except ImportError as error:
        mend = "pip install 'restore-toolkit[formats]', or use --format png"
        raise ImageError(
            "UNSUPPORTED", f"TIFF is written by tifffile, which is missing; {mend}"
        ) from error
    if layers.shape[2] == 2:
        layers = layers[..., [0, 0, 0, 1]]  # few readers know grey with alpha
    colours = layers.shape[2] >= 3
    xmp = tags.get("xmp")
    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        layers if colours else layers[..., 0],
        photometric="rgb" if colours else "minisblack",
        extrasamples=["unassalpha"] if layers.shape[2] == 4 else None,
        compression="zlib",
        iccprofile=tags.get("icc_profile"),
        extratags=[(700, "B", len(xmp), xmp, True)] if xmp else [],
        metadata=None,
    )
    return buffer.getvalue()
