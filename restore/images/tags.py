"""What a result's file says beside its pixels, and what its format cannot say."""

import struct
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from importlib.util import find_spec
from typing import IO, Any

import numpy as np
from PIL import Image, TiffImagePlugin
from PIL.ExifTags import IFD, Base

from restore.errors import ImageError
from restore.images import metadata
from restore.images.metadata import ABOUT, IPTC_RESOURCE, IPTC_TAG
from restore.images.picture import Picture
from restore.images.row_writers import chunk

INCH = 0.0254  # m
JPEG_SEGMENT = 65533
JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
COMMENT = "Comment"  # the one text that a JPEG holds
IPTC_FORMATS, TEXT_FORMATS = ("jpeg", "tiff"), ("png",)
PACKED = 1024  # bytes from which a text of a PNG is packed
COLOURS_ALONE = ("webp",)
IN_EXIF = ("webp", "avif")  # whose resolution stands there
XMP_TAG = 700


@dataclass(frozen=True)
class Tags:
    """What goes into one file; see Picture."""

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    dpi: tuple[float, float] | None = None
    texts: tuple[tuple[str, str], ...] = ()


def fitting(picture: Picture, format: str, notes: list[str]) -> Tags:
    """What of a picture the format can hold, true of the picture's size. Notes the rest."""
    exif = metadata.sized_exif(picture.exif, picture.size) if picture.exif else None
    xmp = metadata.sized_xmp(picture.xmp, picture.size) if picture.xmp else None
    iptc, texts = picture.iptc, picture.texts
    icc = picture.icc
    if icc and picture.grey and format in COLOURS_ALONE:
        notes.append(f"the colour profile is dropped: it is for grey, and {format} holds none")
        icc = None
    if picture.dpi and format in IN_EXIF:
        exif = _with_resolution(exif, picture.dpi)
    if iptc and format not in IPTC_FORMATS:
        notes.append(f"IPTC dropped: {format} does not hold it; --format jpeg or tiff do")
        iptc = None
    if format == "jpeg":
        parts = {"EXIF": (exif, 6), "XMP": (xmp, len(JPEG_XMP)), "IPTC": (iptc, 26)}
        long = [n for n, (data, more) in parts.items() if data and len(data) + more > JPEG_SEGMENT]
        notes += [f"{name} dropped: too long for jpeg" for name in long]
        exif, xmp, iptc = (None if name in long else data for name, (data, _) in parts.items())
    lost = [name for name, text in texts if not _holds(format, name, text)]
    if lost:
        names = ", ".join(lost[:5]) + (", ..." if len(lost) > 5 else "")
        notes.append(f"texts dropped ({names}): {format} does not hold them; --format png does")
        texts = tuple(pair for pair in texts if pair[0] not in lost)
    return Tags(icc, exif, xmp, iptc, picture.dpi, texts)


def _holds(format: str, name: str, text: str) -> bool:
    if format == "jpeg":
        return name == COMMENT and len(_utf8(text)) <= JPEG_SEGMENT
    return format in TEXT_FORMATS


def _with_resolution(exif: bytes | None, dpi: tuple[float, float]) -> bytes:
    told = Image.Exif()
    if exif:
        told.load(exif)
    told[Base.XResolution], told[Base.YResolution] = dpi
    told[Base.ResolutionUnit] = 2  # inch
    return told.tobytes()


def pillow(tags: Tags, format: str) -> dict[str, Any]:
    """What Pillow's encoders of JPEG, WebP and AVIF are told."""
    told: dict[str, Any] = {"icc_profile": tags.icc, "exif": tags.exif, "xmp": tags.xmp}
    if format == "jpeg":
        told["dpi"] = tags.dpi
        told["comment"] = next((_utf8(text) for name, text in tags.texts), None)
        if tags.iptc:
            padded = tags.iptc + b"\0" * (len(tags.iptc) % 2)
            resource = struct.pack(">4sHHI", b"8BIM", IPTC_RESOURCE, 0, len(tags.iptc)) + padded
            body = b"Photoshop 3.0\0" + resource
            told["extra"] = b"\xff\xed" + struct.pack(">H", len(body) + 2) + body
    return {name: value for name, value in told.items() if value}


def png_chunks(tags: Tags, about: str) -> list[bytes]:
    """What stands between a PNG's head and its pixels.

    about  ASCII: how the picture was made.
    """
    parts = []
    if tags.icc:
        parts.append(chunk(b"iCCP", b"icc\0\0" + zlib.compress(tags.icc)))
    if tags.dpi:
        sides = (min(2**31 - 1, round(side / INCH)) for side in tags.dpi)
        parts.append(chunk(b"pHYs", struct.pack(">IIB", *sides, 1)))
    if tags.exif:
        parts.append(chunk(b"eXIf", tags.exif.removeprefix(b"Exif\0\0")))
    if tags.xmp:
        parts.append(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + tags.xmp))
    parts += [_png_text(name, text) for name, text in tags.texts]
    if about:
        parts.append(chunk(b"tEXt", ABOUT.encode() + b"\0" + about.encode("ascii")))
    return parts


def _png_text(name: str, text: str) -> bytes:
    """tEXt where Latin-1 can say it, so that every tool reads it, else iTXt; long ones packed."""
    key = name.encode("latin-1", "replace").replace(b"\0", b"")[:79] or b"Text"
    text = text.replace("\0", "\ufffd")
    try:
        data = text.encode("latin-1")
    except UnicodeEncodeError:
        data = _utf8(text)
        if len(data) < PACKED:
            return chunk(b"iTXt", key + b"\0\0\0\0\0" + data)
        return chunk(b"iTXt", key + b"\0\1\0\0\0" + zlib.compress(data))
    if len(data) < PACKED:
        return chunk(b"tEXt", key + b"\0" + data)
    return chunk(b"zTXt", key + b"\0\0" + zlib.compress(data))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def tiff_told(layers: np.ndarray, tags: Tags) -> dict[str, Any]:
    """What tifffile is told about samples such as these. Raises ImageError where it is missing."""
    if find_spec("tifffile") is None:
        mend = "pip install 'restore-toolkit[formats]', or use --format png"
        told = f"TIFF is written by tifffile, which is missing; {mend}"
        raise ImageError("UNSUPPORTED", told)
    own = ((XMP_TAG, 1, tags.xmp), (IPTC_TAG, 7, tags.iptc))
    size = {"resolution": tags.dpi, "resolutionunit": 2} if tags.dpi else {}
    return {
        "photometric": "rgb" if layers.shape[2] >= 3 else "minisblack",
        "extrasamples": ["unassalpha"] if layers.shape[2] == 4 else None,
        "compression": "zlib",
        "iccprofile": tags.icc,
        "extratags": [(tag, kind, len(data), data, True) for tag, kind, data in own if data],
        "metadata": None,
        "software": False,  # the EXIF's own stays
        **size,
    }


def add_exif(file: IO[bytes], exif: bytes) -> bool:
    """Put EXIF into a TIFF: a new first directory at its end, which tifffile cannot write.

    Returns whether there was room for it: not beyond 4 GB.
    """
    file.seek(0)
    head = file.read(8)
    if head[:4] not in (b"II*\0", b"MM\0*"):
        return False
    order = "<" if head[:2] == b"II" else ">"
    file.seek(struct.unpack(order + "I", head[4:])[0])
    (count,) = struct.unpack(order + "H", file.read(2))
    entries, following = _entries(file.read(12 * count), order), file.read(4)
    start = file.seek(0, 2)
    start += start % 2
    block = _directory(exif, head, entries.keys()).tobytes(start)
    (more,) = struct.unpack(order + "H", block[:2])
    entries |= _entries(block[2 : 2 + 12 * more], order)
    at = start + len(block) + len(block) % 2
    data = struct.pack(order + "H", len(entries)) + b"".join(v for _, v in sorted(entries.items()))
    if at + len(data) >= 2**32:
        return False
    for place, part in ((start, block), (at, data + following), (4, struct.pack(order + "I", at))):
        file.seek(place)
        file.write(part)
    return True


def _entries(data: bytes, order: str) -> dict[int, bytes]:
    """Tag -> entry, which holds a value or tells where it stands in the file."""
    parts = [data[at : at + 12] for at in range(0, len(data), 12)]
    return {struct.unpack(order + "H", part[:2])[0]: part for part in parts}


def _directory(
    exif: bytes, head: bytes, there: Collection[int]
) -> TiffImagePlugin.ImageFileDirectory_v2:
    """EXIF as a TIFF's directory, without the tags that are there."""
    told = Image.Exif()
    told.load(exif)
    made = TiffImagePlugin.ImageFileDirectory_v2(head)
    for tag, value in told.items():
        if tag not in there and tag not in (IFD.Exif, IFD.GPSInfo):
            made[tag] = value
    for part in (IFD.Exif, IFD.GPSInfo):
        if inner := dict(told.get_ifd(part)):
            made[part] = inner
    return made
