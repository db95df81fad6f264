"""Colour information other than ICC profiles: of a PNG, an AVIF, a BMP, a TIFF, and in EXIF.

It is converted to a profile, so that results carry the same colours. High dynamic range is refused:
read as sRGB it would be another picture.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from PIL.ExifTags import IFD, Base

from restore.errors import ImageError
from restore.images import icc, metadata, sniff
from restore.images.icc import SRGB, SRGB_CURVE, Chromaticities, Curve

LINEAR = 112  # level of sRGB: a gamma of 1 gives 128, of 1.8, the least of usual profiles, 71

# ITU-T H.273: code points of primaries and of transfer characteristics; 2 is "unspecified"
PRIMARIES: dict[int, tuple[str, Chromaticities]] = {
    1: ("BT.709", SRGB),
    2: ("BT.709", SRGB),
    4: ("BT.470 M", (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08)),
    5: ("BT.601 625", (0.3127, 0.3290, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06)),
    6: ("BT.601 525", (0.3127, 0.3290, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07)),
    7: ("SMPTE 240M", (0.3127, 0.3290, 0.63, 0.34, 0.31, 0.595, 0.155, 0.07)),
    8: ("film", (0.310, 0.316, 0.681, 0.319, 0.243, 0.692, 0.145, 0.049)),
    9: ("BT.2020", (0.3127, 0.3290, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046)),
    11: ("DCI-P3", (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)),
    12: ("Display P3", (0.3127, 0.3290, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)),
    22: ("EBU 3213", (0.3127, 0.3290, 0.63, 0.34, 0.295, 0.605, 0.155, 0.077)),
}
VIDEO: Curve = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
TRANSFERS: dict[int, Curve] = {
    **dict.fromkeys((1, 6, 14, 15), VIDEO),
    **{2: SRGB_CURVE, 4: (2.2,), 5: (2.8,), 8: (1.0,), 13: SRGB_CURVE, 17: (2.6,)},
}
HDR = {16: "PQ", 18: "HLG"}
USUAL = 1 / 0.45455  # what a PNG's gAMA says of sRGB, roughly
ADOBE: Chromaticities = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
ADOBE_CURVE: Curve = (563 / 256,)
WHITE, RGB, TRANSFER = 318, 319, 301  # tags of a TIFF, and of EXIF
BITMAP_V4, BITMAP_V5 = 108, 124  # bytes of a BMP's header that speaks of colours, and of profiles
NEAR = 0.02  # levels, 0 to 1, by which curves may differ that are the same


def find_profile(
    data: bytes, image: Image.Image, embedded: bytes | None, grey: bool, notes: list[str]
) -> bytes | None:
    """Return the profile of a picture: the embedded one, or one built from other information.

    Args:
        data: The bytes of the file.
        image: Pillow's image.
        embedded: The embedded profile, if it is valid.
        grey: Whether the picture is grey.
        notes: Notes on what was built or dropped are appended here.

    Raises:
        ImageError: The colours can be expressed neither as sRGB nor by a profile.
    """
    info = image.info
    if data.startswith(sniff.PNG):
        codes = sniff.find_png_chunk(data, b"cICP")
        if codes is not None:
            return _from_codes("cICP", codes, grey, notes) if len(codes) == 4 else embedded
        if embedded is None and "icc_profile" not in info and "srgb" not in info:
            return _from_gamma(info, grey, notes)
    elif embedded is None and (codes := sniff.read_nclx(data)):
        return _from_codes("nclx", codes, grey, notes)
    elif data.startswith(b"BM"):
        return _from_bitmap(data, grey, notes)
    elif embedded is None and "icc_profile" not in info and image.format in ("TIFF", "JPEG", "MPO"):
        return _from_exif(image, grey, notes)
    return embedded


def _from_codes(where: str, codes: bytes, grey: bool, notes: list[str]) -> bytes | None:
    """Build a profile from four code points: primaries, transfer, matrix, range."""
    primaries, transfer, matrix, is_full = codes
    if transfer in HDR:
        mend = "map it to standard range first, such as to a PNG in sRGB"
        raise ImageError("UNSUPPORTED", f"{where} says {HDR[transfer]}, high dynamic range; {mend}")
    if where == "cICP" and (matrix or not is_full):
        raise ImageError("UNSUPPORTED", "cICP says video levels, no RGB of full range; convert it")
    if primaries not in PRIMARIES or transfer not in TRANSFERS:
        notes.append(f"{where} {primaries}/{transfer} is not known: taken as sRGB")
        return None
    name, points = PRIMARIES[primaries]
    curve = TRANSFERS[transfer]
    if points == SRGB and curve == SRGB_CURVE:
        return None
    notes.append(f"{where} is kept as a colour profile: {name}")
    return icc.build_profile(points, curve, grey, f"{name}, made from {where}")


def _from_gamma(info: Mapping[str, Any], grey: bool, notes: list[str]) -> bytes | None:
    """Build a profile from gAMA and cHRM; None where they mean sRGB or are invalid."""
    gamma, points = info.get("gamma"), info.get("chromaticity", SRGB)
    names = [name for name, key in (("gAMA", "gamma"), ("cHRM", "chromaticity")) if key in info]
    curve = SRGB_CURVE
    if gamma is not None and not (gamma and math.isclose(1 / gamma, USUAL, rel_tol=0.03)):
        curve = (1 / gamma,) if gamma else ()
    if curve == SRGB_CURVE and (grey or _is_usual(points)):
        return None
    return _build(" and ".join(names), points, curve, grey, notes)


def _build(
    what: str, points: Chromaticities, curve: Curve, grey: bool, notes: list[str]
) -> bytes | None:
    try:
        if not curve or not 0.1 <= curve[0] <= 10:
            raise ValueError(f"a gamma of {curve[0] if curve else 0:g}")
        made = icc.build_profile(points, curve, grey, f"made from {what}")
    except ValueError as error:
        notes.append(f"{what} dropped: {error}")
        return None
    notes.append(f"{what} kept as a colour profile")
    return made


def _from_bitmap(data: bytes, grey: bool, notes: list[str]) -> bytes | None:
    """Read the profile in a BMP (BITMAPV5HEADER); name other colours than sRGB's."""
    size = int.from_bytes(data[14:18], "little")
    kind = data[70:74][::-1] if size >= BITMAP_V4 else b""
    if kind == b"MBED" and size >= BITMAP_V5:
        start, length = struct.unpack("<II", data[126:134])
        return metadata.check_profile(data[14 + start : 14 + start + length], grey, notes)
    if kind == b"LINK":
        notes.append("the colour profile is dropped: it is in another file")
    if kind == bytes(4) and any(data[74:122]):
        ends = struct.unpack("<9i3I", data[74:122])
        points = [value / 2**30 for value in ends[:9]]
        if not _is_usual((*SRGB[:2], *(points[at + xy] for at in (0, 3, 6) for xy in (0, 1)))):
            notes.append("the primaries of its header are dropped: taken as sRGB")
    return None


def _from_exif(image: Image.Image, grey: bool, notes: list[str]) -> bytes | None:
    """Build a profile from the tags of EXIF and TIFF; None where they mean sRGB or are invalid."""
    try:
        tags = image.getexif()
        inner = tags.get_ifd(IFD.Exif)
        if inner.get(Base.ColorSpace) == 1:
            return None
        # Pillow 12.3 raises a KeyError for a part that is not there
        interop = tags.get_ifd(IFD.Interop) if IFD.Interop in inner else {}
        if str(interop.get(1, "")).startswith("R03"):
            return None if grey else _build("DCF's Adobe RGB", ADOBE, ADOBE_CURVE, grey, notes)
        points = tuple(map(float, (*tags.get(WHITE, SRGB[:2]), *tags.get(RGB, SRGB[2:]))))
        gamma, table = inner.get(Base.Gamma), tags.get(TRANSFER)
        curve = SRGB_CURVE
        if gamma is not None and not math.isclose(float(gamma), 2.2, rel_tol=0.1):
            curve = (float(gamma),)
        if table is not None:
            curve = _fitted(np.array(table, np.float64), grey)
    except MemoryError:
        raise
    except Exception as error:  # written by cameras and attackers
        notes.append(f"colours dropped that the tags tell: {error}"[:200])
        return None
    names = [
        name
        for name, tag in (
            ("WhitePoint", WHITE),
            ("PrimaryChromaticities", RGB),
            ("TransferFunction", TRANSFER),
        )
        if tag in tags
    ]
    if len(points) != 8 or (curve == SRGB_CURVE and (grey or _is_usual(points))):
        return None
    return _build(" and ".join(names) or "Gamma", points, curve, grey, notes)


def _is_usual(points: Sequence[float]) -> bool:
    return all(math.isclose(a, b, abs_tol=0.002) for a, b in zip(points, SRGB, strict=True))


def _fitted(table: np.ndarray, grey: bool) -> Curve:
    """The curve of a TransferFunction: sRGB's, or the power that it is.

    Raises:
        ValueError: It is neither.
    """
    curves = table.reshape(1 if grey or table.size < 768 else 3, -1) / 65535
    level = np.linspace(0, 1, curves.shape[1])
    if not (curves == curves[0]).all():
        raise ValueError("the channels have curves of their own")
    power, a, b, c, start = SRGB_CURVE
    usual = np.where(level >= start, (a * level + b) ** power, c * level)
    if np.abs(curves[0] - usual).max() < NEAR:
        return SRGB_CURVE
    middle = curves[0, len(level) // 2]
    if 0 < middle < 1:
        power = math.log(middle) / math.log(level[len(level) // 2])
        if np.abs(curves[0] - level**power).max() < NEAR:
            return SRGB_CURVE if math.isclose(power, 2.2, rel_tol=0.03) else (power,)
    raise ValueError("a TransferFunction that is no power")


def is_linear(profile: bytes, grey: bool) -> bool:
    """Whether an ICC profile's levels grow about as light does, not as the eye sees it."""
    level = Image.new("L" if grey else "RGB", (1, 1), "#373737")
    shown = metadata.to_srgb(level, profile, [])  # 0x37 of linear light is 128 of sRGB
    return int(np.asarray(shown).mean()) > LINEAR
