"""Metadata written into result files, fitted to what each format can hold."""

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
from restore.images import metadata, positions
from restore.images import xmp as packets
from restore.images.icc import widen
from restore.images.metadata import ABOUT, IPTC_RESOURCE, IPTC_TAG
from restore.images.picture import Picture
from restore.images.row_writers import make_png_chunk

INCH = 0.0254  # m
JPEG_SEGMENT = 65533
JPEG_XMP = b"http://ns.adobe.com/xap/1.0/\0"
COMMENT = "Comment"  # the one text that a JPEG holds
IPTC_FORMATS, TEXT_FORMATS = ("jpeg", "tiff"), ("png",)
PACKED = 1024  # bytes from which a text of a PNG is packed
IN_EXIF = ("webp", "avif")  # whose resolution stands there
XMP_TAG = 700


@dataclass(frozen=True)
class Tags:
    """Metadata for one file; the fields are those of Picture.

    Attributes:
        icc: Colour profile.
        exif: EXIF block.
        xmp: XMP packet.
        iptc: IPTC records.
        dpi: Pixels per inch, (horizontal, vertical).
        texts: (name, text) pairs.
    """

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    dpi: tuple[float, float] | None = None
    texts: tuple[tuple[str, str], ...] = ()


def fit_tags(picture: Picture, format: str, notes: list[str]) -> Tags:
    """Select the metadata that a format can hold, with pixel dimensions set to the picture's.

    Args:
        picture: The picture as it is written: `grey` says whether the file has a channel of grey.
        format: A key of restore.images.encode.FORMATS.
        notes: Notes on what is dropped are appended here.
    """
    exif, xmp = _fit_positions(picture.exif, picture.xmp, picture.described, picture.size, notes)
    iptc, texts = picture.iptc, picture.texts
    icc = _fit_profile(picture, notes)
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
        names = metadata.first_few(lost)
        notes.append(f"texts dropped ({names}): {format} does not hold them; --format png does")
        texts = tuple(pair for pair in texts if pair[0] not in lost)
    return Tags(icc, exif, xmp, iptc, picture.dpi, texts)


def _fit_profile(picture: Picture, notes: list[str]) -> bytes | None:
    """The colour profile for the channels that are written."""
    if not picture.icc or picture.grey or picture.icc[16:20] != b"GRAY":
        return picture.icc
    made = metadata.check_profile(widen(picture.icc), False, [])
    became = "kept as one for colours" if made else "dropped"
    notes.append(f"the colour profile is {became}: it is for grey, and the file holds colours")
    return made


def _fit_positions(
    exif: bytes | None,
    packet: bytes | None,
    old: tuple[int, int] | None,
    size: tuple[int, int],
    notes: list[str],
) -> tuple[bytes | None, bytes | None]:
    """Make what EXIF and XMP say of pixels true of a picture of another size.

    Args:
        exif: EXIF block.
        packet: XMP packet.
        old: (height, width) that their positions speak of; None if they hold no more.
        size: (height, width) of the picture.
        notes: Notes on what was dropped are appended here.
    """
    if exif:
        exif = positions.scale_exif(metadata.set_exif_size(exif, size), old, size, notes)
    if packet:
        try:
            packet, names = packets.fit(packet, old, size)
            notes += positions.name_dropped("XMP", names)
        except ValueError:
            notes.append(packets.BROKEN)
            packet = None
    return exif, packet


def _holds(format: str, name: str, text: str) -> bool:
    if format == "jpeg":
        return name == COMMENT and len(_utf8(text)) <= JPEG_SEGMENT
    return format in TEXT_FORMATS


def _with_resolution(exif: bytes | None, dpi: tuple[float, float]) -> bytes:
    block = Image.Exif()
    if exif:
        block.load(exif)
    block[Base.XResolution], block[Base.YResolution] = dpi
    block[Base.ResolutionUnit] = 2  # inch
    return block.tobytes()


def pillow_options(tags: Tags, format: str) -> dict[str, Any]:
    """Return the metadata as options of Pillow's encoders for JPEG, WebP and AVIF."""
    options: dict[str, Any] = {"icc_profile": tags.icc, "exif": tags.exif, "xmp": tags.xmp}
    if format == "jpeg":
        options["dpi"] = tags.dpi
        options["comment"] = next((_utf8(text) for name, text in tags.texts), None)
        if tags.iptc:
            padded = tags.iptc + b"\0" * (len(tags.iptc) % 2)
            resource = struct.pack(">4sHHI", b"8BIM", IPTC_RESOURCE, 0, len(tags.iptc)) + padded
            body = b"Photoshop 3.0\0" + resource
            options["extra"] = b"\xff\xed" + struct.pack(">H", len(body) + 2) + body
    return {name: value for name, value in options.items() if value}


def make_png_chunks(tags: Tags, about: str) -> list[bytes]:
    """Build the PNG chunks between header and pixels.

    Args:
        tags: The metadata.
        about: ASCII text that says how the picture was made; "" for none.
    """
    parts = []
    if tags.icc:
        parts.append(make_png_chunk(b"iCCP", b"icc\0\0" + zlib.compress(tags.icc)))
    if tags.dpi:
        sides = (min(2**31 - 1, round(side / INCH)) for side in tags.dpi)
        parts.append(make_png_chunk(b"pHYs", struct.pack(">IIB", *sides, 1)))
    if tags.exif:
        parts.append(make_png_chunk(b"eXIf", tags.exif.removeprefix(b"Exif\0\0")))
    if tags.xmp:
        parts.append(make_png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + tags.xmp))
    parts += [_png_text(name, text) for name, text in tags.texts]
    if about:
        parts.append(make_png_chunk(b"tEXt", ABOUT.encode() + b"\0" + about.encode("ascii")))
    return parts


def _png_text(name: str, text: str) -> bytes:
    """Build tEXt, which every program reads, if Latin-1 suffices, else iTXt; compress long ones."""
    key = name.encode("latin-1", "replace").replace(b"\0", b"")[:79] or b"Text"
    text = text.replace("\0", "\ufffd")
    try:
        data = text.encode("latin-1")
    except UnicodeEncodeError:
        data = _utf8(text)
        if len(data) < PACKED:
            return make_png_chunk(b"iTXt", key + b"\0\0\0\0\0" + data)
        return make_png_chunk(b"iTXt", key + b"\0\1\0\0\0" + zlib.compress(data))
    if len(data) < PACKED:
        return make_png_chunk(b"tEXt", key + b"\0" + data)
    return make_png_chunk(b"zTXt", key + b"\0\0" + zlib.compress(data))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def tifffile_options(layers: np.ndarray, tags: Tags) -> dict[str, Any]:
    """Return the metadata and layout as options of tifffile's writer.

    Args:
        layers: Samples (H, W, 1 to 4) such as those to be written.
        tags: The metadata.

    Raises:
        ImageError: tifffile is not installed.
    """
    if find_spec("tifffile") is None:
        mend = "pip install 'restore-toolkit[formats]', or use --format png"
        raise ImageError("UNSUPPORTED", f"TIFF is written by tifffile, which is missing; {mend}")
    tags_written = ((XMP_TAG, 1, tags.xmp), (IPTC_TAG, 7, tags.iptc))
    size = {"resolution": tags.dpi, "resolutionunit": 2} if tags.dpi else {}
    return {
        "photometric": "rgb" if layers.shape[2] >= 3 else "minisblack",
        "extrasamples": ["unassalpha"] if layers.shape[2] == 4 else None,
        "compression": "zlib",
        "iccprofile": tags.icc,
        "extratags": [
            (tag, kind, len(data), data, True) for tag, kind, data in tags_written if data
        ],
        "metadata": None,
        "software": False,  # the EXIF's own stays
        **size,
    }


def add_exif(file: IO[bytes], exif: bytes) -> bool:
    """Add EXIF to a TIFF, as a new first directory at its end; tifffile cannot write it.

    Returns:
        Whether there was room: offsets of a classic TIFF end at 4 GiB.
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
    """Map tags to their entries, which hold a value or its offset in the file."""
    parts = [data[at : at + 12] for at in range(0, len(data), 12)]
    return {struct.unpack(order + "H", part[:2])[0]: part for part in parts}


def _directory(
    exif: bytes, head: bytes, there: Collection[int]
) -> TiffImagePlugin.ImageFileDirectory_v2:
    """Convert EXIF to a TIFF directory, without the tags in `there`."""
    block = Image.Exif()
    block.load(exif)
    directory = TiffImagePlugin.ImageFileDirectory_v2(head)
    for tag, value in block.items():
        if tag not in there and tag not in (IFD.Exif, IFD.GPSInfo):
            directory[tag] = value
    for part in (IFD.Exif, IFD.GPSInfo):
        if inner := dict(block.get_ifd(part)):
            directory[part] = inner
    return directory
