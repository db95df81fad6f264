"""ICC profiles (ICC.1:2022) built from primaries and a tone curve."""

import struct

import numpy as np

Chromaticities = tuple[float, float, float, float, float, float, float, float]
"""(x, y) of white, red, green and blue"""
Curve = tuple[float, ...]
"""a power; or (power, a, b, c, d): (a x + b)^power from d on, c x below"""

SRGB: Chromaticities = (0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
SRGB_CURVE: Curve = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
D50 = np.array([0.9642, 1.0, 0.8249])
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)


def build_profile(primaries: Chromaticities, curve: Curve, grey: bool, name: str) -> bytes:
    """Build a display profile of version 4.

    Args:
        primaries: xy chromaticities of white, red, green and blue.
        curve: Power, or the five parameters of ICC's parametric curve.
        grey: Build a grey profile, which has the curve and the white alone.
        name: Description that programs show.

    Raises:
        ValueError: The primaries span no colours.
    """
    return _built(primaries, _parametric(curve), grey, name)


def widen(profile: bytes) -> bytes | None:
    """Build a profile for RGB that gives equal channels the tones of a grey profile.

    Returns:
        The profile, or None if the grey one is no curve to a share of white.
    """
    (count,) = struct.unpack(">I", profile[128:132])
    entries = (profile[at : at + 12] for at in range(132, 132 + 12 * min(count, 100), 12))
    places = {entry[:4]: struct.unpack(">II", entry[4:]) for entry in entries if len(entry) == 12}
    start, size = places.get(b"kTRC", (0, 0))
    tone = profile[start : start + size]
    if profile[20:24] != b"XYZ " or b"A2B0" in places or tone[:4] not in (b"curv", b"para"):
        return None
    return _built(SRGB, tone, False, "made from a profile for grey")


def _built(primaries: Chromaticities, tone: bytes, grey: bool, name: str) -> bytes:
    adapted, columns = _to_d50(primaries)
    tags = {
        b"desc": _text(name),
        b"cprt": _text("No copyright, use freely"),
        b"wtpt": _xyz(D50),
        b"chad": b"sf32\0\0\0\0" + b"".join(map(_fixed, adapted.ravel())),
    }
    if grey:
        tags[b"kTRC"] = tone
    else:
        for letter, column in zip(b"rgb", columns.T, strict=True):
            tags[bytes([letter]) + b"XYZ"] = _xyz(column)
            tags[bytes([letter]) + b"TRC"] = tone
    return _packed(tags, b"GRAY" if grey else b"RGB ")


def _to_d50(primaries: Chromaticities) -> tuple[np.ndarray, np.ndarray]:
    """Return the adaptation of the white to D50, and the primaries in XYZ as columns."""
    points = np.array(primaries, np.float64).reshape(4, 2)
    if not (np.isfinite(points).all() and (points[:, 1] > 1e-3).all()):
        raise ValueError("primaries without a brightness")
    xyz = np.stack([points[:, 0], points[:, 1], 1 - points.sum(1)], 1) / points[:, 1:]
    white, matrix = xyz[0], xyz[1:].T
    if abs(np.linalg.det(matrix)) < 1e-3:
        raise ValueError("primaries on one line")
    matrix = matrix * np.linalg.solve(matrix, white)
    cones = np.diag(BRADFORD @ D50 / (BRADFORD @ white))
    adapted = np.linalg.inv(BRADFORD) @ cones @ BRADFORD
    columns = adapted @ matrix
    if not np.abs(np.concatenate([columns, adapted])).max() < 100:
        raise ValueError("primaries far from any colour")
    return adapted, columns


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(float(value) * 65536))


def _xyz(value: np.ndarray) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(_fixed, value))


def _parametric(curve: Curve) -> bytes:
    kind = 0 if len(curve) == 1 else 3
    return b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + b"".join(map(_fixed, curve))


def _text(text: str) -> bytes:
    data = text.encode("utf-16-be")
    return b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(data), 28) + data


def _packed(tags: dict[bytes, bytes], space: bytes) -> bytes:
    table, body, places = b"", b"", {}
    start = 128 + 4 + 12 * len(tags)
    for name, data in tags.items():
        if data not in places:  # three equal curves are one
            places[data] = start + len(body)
            body += data + b"\0" * (-len(data) % 4)
        table += struct.pack(">4sII", name, places[data], len(data))
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"", 0x04400000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp")
    head = head.ljust(68, b"\0") + b"".join(map(_fixed, D50))
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body
