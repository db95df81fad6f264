"""Colour information other than ICC profiles: PNG's cICP, gAMA and cHRM, and AVIF's nclx.

It is converted to a profile, so that results carry the same colours. High dynamic range is refused:
read as sRGB it would be another picture.
"""

import math
from collections.abc import Mapping
from typing import Any

from restore.errors import ImageError
from restore.images import icc, sniff
from restore.images.icc import SRGB, SRGB_CURVE, Chromaticities, Curve

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


def find_profile(
    data: bytes, info: Mapping[str, Any], embedded: bytes | None, grey: bool, notes: list[str]
) -> bytes | None:
    """Return the profile of a picture: the embedded one, or one built from other information.

    Args:
        data: The bytes of the file.
        info: `info` of Pillow's image.
        embedded: The embedded profile, if it is valid.
        grey: Whether the picture is grey.
        notes: Notes on what was built or dropped are appended here.

    Raises:
        ImageError: The colours can be expressed neither as sRGB nor by a profile.
    """
    if data.startswith(sniff.PNG):
        codes = sniff.find_png_chunk(data, b"cICP")
        if codes is not None:
            return _from_codes("cICP", codes, grey, notes) if len(codes) == 4 else embedded
        if embedded is None and "icc_profile" not in info and "srgb" not in info:
            return _from_gamma(info, grey, notes)
    elif embedded is None and (codes := sniff.read_nclx(data)):
        return _from_codes("nclx", codes, grey, notes)
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
    usual = all(math.isclose(a, b, abs_tol=0.002) for a, b in zip(points, SRGB, strict=True))
    if curve == SRGB_CURVE and (usual or grey):
        return None
    try:
        if not curve or not 0.1 <= curve[0] <= 10:
            raise ValueError(f"a gamma of {gamma:g}")
        made = icc.build_profile(points, curve, grey, f"made from {' and '.join(names)}")
    except ValueError as error:
        notes.append(f"{' and '.join(names)} dropped: {error}")
        return None
    notes.append(f"{' and '.join(names)} kept as a colour profile")
    return made
