"""What a file says beside its pixels: EXIF, XMP and colour profiles, cleaned on the way in."""

import io
import re
from typing import Literal

from PIL import ExifTags, Image, ImageCms
from PIL.ExifTags import Base

ORIENTATION = 0x0112
DESCRIPTIONS = {  # EXIF that stays true when enlarged; the rest describes the old file's storage
    *(ORIENTATION, Base.ImageDescription, Base.Make, Base.Model, Base.Software, Base.DateTime),
    *(Base.Artist, Base.Copyright, Base.ExifOffset, Base.GPSInfo, Base.XPTitle, Base.XPComment),
    *(Base.XPAuthor, Base.XPKeywords, Base.XPSubject),
}
WIDTH, HEIGHT = Base.ExifImageWidth, Base.ExifImageHeight
Strip = Literal["nothing", "gps", "all"]
# A property of XMP (ISO 16684-1) stands as an attribute, name="value", or as an element.
XMP_PROPERTY = rb'(?s)(?:\s%s\s*=\s*(?:"[^"<]*"|\'[^\'<]*\')|<%s>[^<]*</%s>)'
XMP_GPS = rb"exif:GPS\w+"
XMP_VALUE = rb"(\b(?:%s)(?:\s*=\s*[\"']|>))\s*\d+"


def exif(image: Image.Image, strip: Strip, notes: list[str]) -> tuple[int, bytes | None]:
    """(orientation 1 to 8, the EXIF of the upright picture). What does not parse is dropped."""
    try:
        source = image.getexif()
        orientation = source.get(ORIENTATION, 1)
        if strip == "all":
            parts, tags = (), set()
        else:
            gps = () if strip == "gps" else (ExifTags.IFD.GPSInfo,)
            parts, tags = (ExifTags.IFD.Exif, *gps), DESCRIPTIONS & set(source)
        kept = Image.Exif()
        for tag in tags - {Base.ExifOffset, Base.GPSInfo}:
            kept[tag] = source[tag]
        for part in parts:
            inner = dict(source.get_ifd(part))
            if inner:
                kept.get_ifd(part).update(inner)
        if ORIENTATION in kept:
            kept[ORIENTATION] = 1
        cleaned = kept.tobytes() if len(kept) or kept._ifds else None
    except Exception as error:  # written by cameras and attackers; the picture stands without it
        notes.append(f"EXIF dropped: {error}"[:200])
        return 1, None
    if orientation not in range(1, 9):
        notes.append(f"orientation {orientation} does not exist; taken as upright")
        orientation = 1
    return orientation, cleaned


def sized_exif(data: bytes, size: tuple[int, int]) -> bytes:
    """The EXIF, its pixel dimensions those of (height, width) where it has any."""
    told = Image.Exif()
    told.load(data)
    inner = told.get_ifd(ExifTags.IFD.Exif)
    if WIDTH not in inner and HEIGHT not in inner:
        return data
    inner[HEIGHT], inner[WIDTH] = size
    return told.tobytes()


def xmp(image: Image.Image, strip: Strip) -> bytes | None:
    """The XMP packet of the upright picture."""
    packet = image.info.get("xmp")
    if isinstance(packet, str):
        packet = packet.encode()
    if not packet or not isinstance(packet, bytes) or strip == "all":
        return None
    if strip == "gps":
        packet = re.sub(XMP_PROPERTY % ((XMP_GPS,) * 3), b"", packet)
    return re.sub(XMP_VALUE % b"tiff:Orientation", rb"\g<1>1", packet)


def sized_xmp(packet: bytes, size: tuple[int, int]) -> bytes:
    """The packet, its dimensions those of (height, width)."""
    for names, side in zip(
        (b"tiff:ImageLength|exif:PixelYDimension", b"tiff:ImageWidth|exif:PixelXDimension"),
        size,
        strict=True,
    ):
        packet = re.sub(XMP_VALUE % names, rb"\g<1>%d" % side, packet)
    return packet


def profile(icc: bytes | None, grey: bool, notes: list[str]) -> bytes | None:
    """The profile if it parses and suits the channels, else None with a note."""
    if not icc:
        return None
    try:
        parsed = ImageCms.ImageCmsProfile(io.BytesIO(icc)).profile
        space = str(getattr(parsed, "xcolor_space", "broken")).strip()
    except (OSError, TypeError, ValueError):
        space = "broken"
    if space != ("GRAY" if grey else "RGB"):
        notes.append(f"the colour profile is dropped: it is {space}")
        return None
    return icc


def to_srgb(image: Image.Image, icc: bytes | None, notes: list[str]) -> Image.Image:
    """The image in sRGB: through its own profile; CMYK and Lab without one by the plain formula."""
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
