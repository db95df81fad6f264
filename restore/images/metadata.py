"""Metadata of picture files, cleaned when read: EXIF, XMP, IPTC, texts, ICC profiles."""

import io
import math
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from PIL import ExifTags, Image, ImageCms
from PIL.ExifTags import Base, Interop

from restore.images import attachments, positions, xmp

ORIENTATION = 0x0112
MAKER_NOTE = 0x927C
IPTC_TAG, PHOTOSHOP_TAG = 33723, 34377  # of a TIFF
DESCRIPTIONS = {  # EXIF that stays true when enlarged; the rest describes the old file's storage
    *(ORIENTATION, Base.ImageDescription, Base.Make, Base.Model, Base.Software, Base.DateTime),
    *(Base.Artist, Base.Copyright, Base.ExifOffset, Base.GPSInfo, Base.XPTitle, Base.XPComment),
    *(Base.XPAuthor, Base.XPKeywords, Base.XPSubject, Base.HostComputer),
    *(Base.DocumentName, Base.PageName, Base.PageNumber),
    *(0x4746, 0x4749),  # stars, in two ways
}
SPENT = {  # what speaks of the old file's storage, or is read elsewhere; all else is named
    *(*range(254, 260), *range(262, 267), *range(273, 285), 288, 289, 292, 293, 296, 301),
    *(*range(317, 331), *range(332, 348), *range(512, 533), 700),
    *(IPTC_TAG, PHOTOSHOP_TAG, 34675, 37724, 0xA005),
    *(33550, 33922, 34264, 34735, 34736, 34737),  # GeoTIFF's
    *(0xC4A5, 0xEA1C),  # for printers, and padding
}
RESOLUTION = {Base.XResolution, Base.YResolution}
WIDTH, HEIGHT = Base.ExifImageWidth, Base.ExifImageHeight
ABOUT = "restore"  # the name of the text in which a PNG of ours tells how it was made
IPTC_RESOURCE = 0x0404  # of Photoshop
ELSEWHERE = re.compile(r"(?i)XML:com\.adobe\.xmp|Raw profile type (exif|app1|xmp|icc|icm)")
Strip = Literal["nothing", "gps", "all"]
TELLING = re.compile(  # texts of a PNG in which a place may hide
    r"(?i)<x:xmpmeta|<rdf:RDF|gps_?(?:latitude|longitude|position)|^geo:"
)
PROFILE = re.compile(r"(?i)Raw profile type ")


@dataclass(frozen=True)
class Metadata:
    """Metadata of the upright picture, without its colour profile.

    Attributes:
        exif: EXIF block with the orientation tag set to 1.
        xmp: XMP packet with the orientation set to 1.
        iptc: IPTC records, as in Photoshop's resource 0x0404.
        dpi: Pixels per inch, (horizontal, vertical).
        texts: (name, text) pairs: those of a PNG, or the comment of another format.
        described: (height, width) of the picture whose positions EXIF and XMP tell.
    """

    exif: bytes | None = None
    xmp: bytes | None = None
    iptc: bytes | None = None
    dpi: tuple[float, float] | None = None
    texts: tuple[tuple[str, str], ...] = ()
    described: tuple[int, int] | None = None


def read_metadata(
    image: Image.Image, strip: Strip, notes: list[str], applied: int = 1
) -> tuple[int, Metadata]:
    """Read the metadata of an open image. What does not parse is dropped, with a note.

    Args:
        image: Pillow's image.
        strip: What to leave out.
        notes: Notes on what was dropped are appended here.
        applied: The orientation that the decoder has applied and taken out of EXIF.

    Returns:
        The EXIF orientation that is left to apply, 1 to 8, and the metadata as of the upright
        picture.
    """
    orientation, exif = read_exif(image, strip, notes)
    turn = orientation if orientation > 1 else applied
    size = (image.width, image.height) if orientation > 4 else (image.height, image.width)
    exif = positions.turn_exif(exif, size, turn, notes) if exif else None
    packet = read_xmp(image, strip, turn, notes)
    if packet:
        packet, dropped = attachments.strip_references(packet)
        notes += [note for note in dropped if note not in notes]
    metadata = Metadata(exif, packet or None, dpi=read_resolution(image, notes), described=size)
    if metadata.dpi and turn > 4:
        metadata = replace(metadata, dpi=metadata.dpi[::-1])
    if strip == "all":
        return orientation, metadata
    records = read_iptc(image)
    if records and strip == "gps":
        notes.append("IPTC dropped: it may tell where it was taken")
        records = None
    return orientation, replace(metadata, iptc=records, texts=read_texts(image, strip, notes))


def read_resolution(image: Image.Image, notes: list[str]) -> tuple[float, float] | None:
    """Read pixels per inch, (horizontal, vertical), of the picture as stored."""
    info = image.info
    if image.format == "TIFF" and not set(getattr(image, "tag_v2", ())) >= RESOLUTION:
        return None  # Pillow would invent 1
    try:
        ratio = info.get("aspect") or info.get("resolution")  # the latter of a TIFF without a unit
        ratio = ratio or (info.get("jfif_density") if info.get("jfif_unit") == 0 else None)
        if ratio and len(set(ratio)) > 1:
            wide, tall = map(float, ratio)
            notes.append(f"the shape of its pixels, {wide:g}:{tall:g}, is dropped")
        if image.format in ("JPEG", "MPO") and info.get("jfif_unit") not in (1, 2):
            found = _exif_resolution(image.getexif())  # Pillow would invent 72
        else:
            found = info.get("dpi") or _exif_resolution(image.getexif())
        dpi = (float(found[0]), float(found[1])) if found else None
    except MemoryError:
        raise
    except Exception:  # Pillow raises anything on tags that cameras and attackers wrote
        return None
    is_sound = dpi and all(math.isfinite(side) and 1 <= side <= 10**6 for side in dpi)
    return dpi if is_sound else None


def _exif_resolution(tags: Image.Exif) -> tuple[Any, Any] | None:
    inch = {2: 1, 3: 2.54}.get(tags.get(Base.ResolutionUnit, 0))
    sides = tags.get(Base.XResolution), tags.get(Base.YResolution)
    if inch is None or None in sides:
        return None
    return float(sides[0]) * inch, float(sides[1]) * inch


def read_iptc(image: Image.Image) -> bytes | None:
    """Read the IPTC records, if any (IIM 4.2)."""
    found = None
    if image.format == "TIFF":
        found = getattr(image, "tag_v2", {}).get(IPTC_TAG)
    elif isinstance(resources := image.info.get("photoshop"), dict):
        found = resources.get(IPTC_RESOURCE)
    if isinstance(found, tuple):  # some write it as words
        found = b"".join(int(word).to_bytes(4, "little") for word in found if isinstance(word, int))
    return found if isinstance(found, bytes) and found.startswith(b"\x1c") else None


def read_texts(image: Image.Image, strip: Strip, notes: list[str]) -> tuple[tuple[str, str], ...]:
    """Read (name, text) pairs, except EXIF, XMP and profiles stored as text, and our own note."""
    found: dict[str, Any] = {}
    if image.format == "PNG":
        try:
            found = dict(image.text)
        except MemoryError:
            raise
        except Exception as error:  # Pillow raises anything on hostile texts; the pixels are there
            notes.append(f"texts dropped: {error}"[:200])
    elif comment := image.info.get("comment"):
        found = {"Comment": comment}
    kept = {name: _text(text) for name, text in found.items() if not ELSEWHERE.match(name)}
    if strip == "gps":
        telling = [name for name, text in kept.items() if _may_tell_place(name, text)]
        if telling:
            notes.append(f"texts dropped ({first_few(telling)}): they may tell where it was taken")
        kept = {name: text for name, text in kept.items() if name not in telling}
    return tuple((name, text) for name, text in kept.items() if name != ABOUT and text)


def _may_tell_place(name: str, text: str) -> bool:
    return xmp.is_place(name) or bool(PROFILE.match(name) or TELLING.search(text))


def _text(text: Any) -> str:
    if isinstance(text, bytes):
        try:
            return text.decode()
        except UnicodeDecodeError:
            return text.decode("latin-1")
    return str(text)


def read_exif(image: Image.Image, strip: Strip, notes: list[str]) -> tuple[int, bytes | None]:
    """Read the EXIF block. What does not parse is dropped, with a note.

    Returns:
        The orientation, 1 to 8, and the EXIF of the upright picture, if any.
    """
    try:
        source = image.getexif()
        orientation = source.get(ORIENTATION, 1)
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises anything on such tags; the picture needs none
        notes.append(f"EXIF dropped: {error}"[:200])
        return 1, None
    if orientation not in range(1, 9):
        notes.append(f"orientation {orientation} does not exist; taken as upright")
        orientation = 1
    return orientation, _clean_exif(source, strip, notes)


def _clean_exif(source: Image.Exif, strip: Strip, notes: list[str]) -> bytes | None:
    """EXIF of the upright picture. A tag that cannot be written costs no other."""
    if strip == "all":
        return None
    gps = () if strip == "gps" else (ExifTags.IFD.GPSInfo,)
    told = DESCRIPTIONS & set(source) - {Base.ExifOffset, Base.GPSInfo}
    parts: dict[int | None, dict[int, Any]] = {None: {tag: source[tag] for tag in sorted(told)}}
    if ORIENTATION in told:
        parts[None][ORIENTATION] = 1
    notes += _name_dropped(set(source) - DESCRIPTIONS - SPENT)
    kept = Image.Exif()
    for part in (ExifTags.IFD.Exif, *gps):
        try:
            inner = dict(source.get_ifd(part))
            if ExifTags.IFD.Interop in inner:  # an offset in the old file
                related = source.get_ifd(ExifTags.IFD.Interop)
                sizes = (Interop.RelatedImageWidth, Interop.RelatedImageHeight)
                inner[ExifTags.IFD.Interop] = {
                    tag: value for tag, value in related.items() if tag not in sizes
                }
            inner.pop(ExifTags.IFD.GPSInfo, None)  # it belongs elsewhere, and is but an offset
        except MemoryError:
            raise
        except Exception as error:  # Pillow raises anything on such tags; the picture needs none
            notes.append(f"EXIF's part {part.name} dropped: {error}"[:200])
            continue
        parts[part] = inner
    if strip == "gps" and MAKER_NOTE in parts.get(ExifTags.IFD.Exif, {}):
        parts[ExifTags.IFD.Exif].pop(MAKER_NOTE)
        notes.append("EXIF's MakerNote dropped: it may tell where it was taken")
    odd: set[str] = set()
    for part, tags in parts.items():
        names = ExifTags.GPSTAGS if part == ExifTags.IFD.GPSInfo else ExifTags.TAGS
        sound = _writable(tags, part)
        odd |= {names.get(tag, f"tag {tag}") for tag in tags.keys() - sound.keys()}
        if sound:
            (kept if part is None else kept.get_ifd(part)).update(sound)
    if odd:
        notes.append(f"EXIF's {first_few(sorted(odd))} dropped: not of the kind that EXIF asks")
    return kept.tobytes() if len(kept) or kept._ifds else None


def _writable(tags: dict[int, Any], part: int | None) -> dict[int, Any]:
    """The tags that Pillow can write: cameras write numbers where EXIF has texts, and so on."""
    if not tags or _can_be_written(tags, part):
        return tags
    return {tag: value for tag, value in tags.items() if _can_be_written({tag: value}, part)}


def _can_be_written(tags: dict[int, Any], part: int | None) -> bool:
    exif = Image.Exif()
    (exif if part is None else exif.get_ifd(part)).update(tags)
    try:
        exif.tobytes()
    except MemoryError:
        raise
    except Exception:  # struct.error, TypeError and others, by the kind of the tag
        return False
    return True


def _name_dropped(tags: set[int]) -> list[str]:
    if not tags:
        return []
    named = [ExifTags.TAGS.get(tag, f"tag {tag}") for tag in sorted(tags)]
    return [f"EXIF's {first_few(named)} dropped"]


def first_few(names: list[str]) -> str:
    """The first names of a list, for a note."""
    return f"{', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"


def set_exif_size(data: bytes, size: tuple[int, int]) -> bytes:
    """Set the pixel dimensions in an EXIF block to (height, width), if it has any."""
    exif = Image.Exif()
    exif.load(data)
    inner = exif.get_ifd(ExifTags.IFD.Exif)
    if WIDTH not in inner and HEIGHT not in inner:
        return data
    inner[HEIGHT], inner[WIDTH] = size
    return exif.tobytes()


def read_xmp(image: Image.Image, strip: Strip, turn: int, notes: list[str]) -> bytes | None:
    """Read the XMP packet (ISO 16684-1) of a picture turned upright by `turn`, 1 to 8."""
    packet = image.info.get("xmp")
    if isinstance(packet, str):
        packet = packet.encode()
    if not packet or not isinstance(packet, bytes) or strip == "all":
        return None
    try:
        if strip == "gps":
            packet = xmp.strip_place(packet)
        if turn > 1:
            packet, names = xmp.strip_positions(packet)
            notes += positions.name_dropped("XMP", names)
        return xmp.set_upright(packet)
    except ValueError:
        notes.append(xmp.BROKEN)
        return None


def check_profile(icc: bytes | None, grey: bool, notes: list[str]) -> bytes | None:
    """Return the profile if it parses and suits the channels, else None, with a note."""
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


@lru_cache(256)
def is_srgb(icc: bytes, grey: bool) -> bool:
    """Whether a profile gives the colours of sRGB, to within one 8-bit level."""
    steps = np.linspace(0, 255, 6).astype(np.uint8)
    if grey:
        values = steps[None]
    else:
        values = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(1, -1, 3)
    notes: list[str] = []
    converted = np.asarray(to_srgb(Image.fromarray(values), icc, notes)).astype(int)
    return not notes and bool(
        np.abs(converted - (values[..., None] if grey else values)).max() <= 1
    )


def to_srgb(image: Image.Image, icc: bytes | None, notes: list[str]) -> Image.Image:
    """Convert an image to sRGB.

    Args:
        image: In any mode that LittleCMS knows.
        icc: Its profile. Without one CMYK is converted by Pillow's plain formula.
        notes: A note is appended here if the profile is broken.
    """
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
