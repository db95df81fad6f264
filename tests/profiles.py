"""Colour profiles made by hand (ICC.1:2001-04), and the colours that they mean."""

import struct
from itertools import product

import numpy as np

D50 = np.array([0.9642, 1.0, 0.8249])
P3 = [(0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407)]
ADOBE = [(0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)]
SRGB = [(0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141)]
GAMMA = 563 / 256  # as Adobe RGB's


def fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def xyz(values) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(map(fixed, values))


def profile(space: bytes, pcs: bytes, device: bytes, tags: dict[bytes, bytes]) -> bytes:
    words = b"made by hand\0"
    named = b"desc\0\0\0\0" + struct.pack(">I", len(words)) + words + bytes(78)
    tags = {b"desc": named, b"cprt": b"text\0\0\0\0" + words, b"wtpt": xyz(D50), **tags}
    at, table, bodies = 128 + 4 + 12 * len(tags), b"", b""
    for name, body in tags.items():
        table += name + struct.pack(">II", at + len(bodies), len(body))
        bodies += body + bytes(-len(body) % 4)
    head = bytearray(128)
    head[0:4] = struct.pack(">I", at + len(bodies))
    head[8:12] = struct.pack(">I", 0x02100000)
    head[12:24] = device + space + pcs
    head[36:40] = b"acsp"
    head[68:80] = b"".join(map(fixed, D50))
    return bytes(head) + struct.pack(">I", len(tags)) + table + bodies


def matrix(primaries) -> bytes:
    """A display of these primaries, gamma 2.2."""
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(GAMMA * 256))
    names = (b"rXYZ", b"gXYZ", b"bXYZ")
    tags = {name: xyz(values) for name, values in zip(names, primaries, strict=True)}
    tags |= {name: curve for name in (b"rTRC", b"gTRC", b"bTRC")}
    return profile(b"RGB ", b"XYZ ", b"mntr", tags)


STEPS = 6  # nodes of a CMYK profile on each axis: 0, 51, 102, ... 255


def ink(cmyk) -> np.ndarray:
    """The sRGB colour, 0 to 1, of a printer unlike the plain formula: its inks are darker."""
    c, m, y, k = np.moveaxis(np.asarray(cmyk) / 255, -1, 0)
    return np.stack([(1 - c) * (1 - k), (1 - m) * (1 - k), (1 - y) * (1 - k)], -1) ** 1.6


def printer() -> bytes:
    """A CMYK profile that says what `ink` does, by a table (lut16Type)."""
    nodes = np.array(list(product(np.linspace(0, 255, STEPS), repeat=4)))
    lab = to_lab(ink(nodes))
    codes = np.rint((lab + np.array([0, 128, 128])) * (65280 / 100, 256, 256)).clip(0, 65535)
    straight = struct.pack(">HH", 0, 65535)
    body = b"mft2\0\0\0\0" + bytes([4, 3, STEPS, 0])
    body += b"".join(fixed(value) for value in np.eye(3).ravel())
    body += struct.pack(">HH", 2, 2) + straight * 4
    body += codes.astype(">u2").tobytes() + straight * 3
    return profile(b"CMYK", b"Lab ", b"prtr", {b"A2B0": body})


def linear(srgb) -> np.ndarray:
    srgb = np.asarray(srgb, float)
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def to_lab(rgb, primaries=SRGB, light=linear) -> np.ndarray:
    """CIE Lab (D50) of colours (..., 3) in 0 to 1."""
    return xyz_to_lab(light(rgb) @ np.array(primaries))


def xyz_to_lab(values: np.ndarray) -> np.ndarray:
    t = values / D50
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.stack(
        [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1
    )


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """The mean of CIE 1976's colour difference."""
    return float(np.linalg.norm(one - other, axis=-1).mean())
