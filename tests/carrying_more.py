"""More files that say something beside their pixels; see tests/carrying.py."""

import io
import struct

import carrying
import numpy as np
import tifffile
from carrying import DEEP, KEPT, PIXELS, SRGB, Case, jpeg, saved, segment, tiff
from PIL import Image

from restore.images import icc

ADOBE = (0.3127, 0.3290, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
BANDS = np.dstack([PIXELS, PIXELS[..., :2]])


def bitmap(kind: bytes, primaries=carrying.WIDE, profile: bytes = b"") -> bytes:
    """A BMP with BITMAPV5HEADER, whose colour space is of this kind."""
    rows = PIXELS[::-1, :, ::-1].tobytes()
    height, width = PIXELS.shape[:2]
    head = struct.pack(
        "<IiiHHIIiiII", 124, width, height, 1, 24, 0, len(rows), 2835, 2835, 0, 0
    ) + bytes(16)
    points = np.reshape(primaries[2:], (3, 2))
    ends = (round(v * 2**30) for x, y in points for v in (x, y, 1 - x - y))
    head += kind[::-1] + struct.pack("<9i", *ends) + struct.pack("<3I", *[2**16] * 3)
    head += struct.pack("<IIII", 4, 124 + len(rows), len(profile), 0)
    body = head + rows + profile
    return b"BM" + struct.pack("<IHHI", 14 + len(body), 0, 0, 138) + body


def rationals(*values: float) -> tuple[int, ...]:
    return tuple(number for value in values for number in (round(value * 10_000), 10_000))


def primaries(points: tuple[float, ...]) -> list[tuple]:
    """The tags of a TIFF that tell white and primaries."""
    return [
        (318, 5, 2, rationals(*points[:2]), True),
        (319, 5, 6, rationals(*points[2:]), True),
    ]


def transfer(power: float) -> list[tuple]:
    table = tuple(np.rint(np.linspace(0, 1, 256) ** power * 65535).astype(int).tolist())
    return [(301, 3, 768, table * 3, True)]


def with_mask() -> bytes:
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        file.write(PIXELS, photometric="rgb", metadata=None)
        file.write(PIXELS[..., 0] > 99, photometric=4, subfiletype=4, metadata=None)
    return buffer.getvalue()


def photoshop(number: int, data: bytes) -> bytes:
    """A resource of Photoshop's."""
    pad = bytes(len(data) % 2)
    return b"8BIM" + struct.pack(">H", number) + b"\0\0" + struct.pack(">I", len(data)) + data + pad


def of_camera(space: int, kind: str) -> bytes:
    """EXIF as cameras write it (DCF 2.0): colour space, and which of its rules holds."""
    told = Image.Exif()
    told[0x010F] = "Maker"
    told.get_ifd(0x8769).update({0xA001: space, 0xA005: {1: kind, 2: b"0100"}})
    return told.tobytes()


def raw(with_version: bool) -> bytes:
    """A camera's raw file: a thumbnail, and the picture in a page below it."""
    tags = [(50706, 1, 4, (1, 4, 0, 0), True)] if with_version else []
    buffer = io.BytesIO()
    how = {"metadata": None, "photometric": "rgb"}
    with tifffile.TiffWriter(buffer) as file:
        file.write(PIXELS[::4, ::4], subfiletype=1, subifds=1, extratags=tags, **how)
        file.write(PIXELS, **how)
    return buffer.getvalue()


def pyramid(below: bool) -> bytes:
    """A picture and smaller versions of it, as further pages or in pages below."""
    buffer = io.BytesIO()
    how = {"metadata": None, "photometric": "rgb"}
    with tifffile.TiffWriter(buffer) as file:
        file.write(PIXELS, subifds=int(below), **how)
        file.write(PIXELS[::2, ::2], subfiletype=1, **how)
    return buffer.getvalue()


RAW = "a camera's raw file, of which only the thumbnail could be read"
PATH = photoshop(2000, bytes(26))
AFTER = b"SEFH" + bytes(range(256))
MORE = [
    Case(
        "BMP",
        "an embedded profile",
        lambda: bitmap(b"MBED", profile=icc.build_profile(ADOBE, (2.2,), False, "wide")),
        ".bmp",
        KEPT,
    ),
    Case("BMP", "a linked profile", lambda: bitmap(b"LINK"), ".bmp", "dropped", "another file"),
    Case("BMP", "other primaries", lambda: bitmap(bytes(4)), ".bmp", "dropped", "primaries"),
    Case("BMP", "sRGB", lambda: bitmap(b"sRGB"), ".bmp", KEPT),
    Case("BMP", "primaries of sRGB", lambda: bitmap(bytes(4), icc.SRGB), ".bmp", KEPT),
    Case(
        "TIFF",
        "other primaries",
        lambda: tiff(PIXELS, photometric="rgb", extratags=primaries(carrying.WIDE)),
        ".tif",
        "a colour profile",
        "PrimaryChromaticities",
    ),
    Case(
        "TIFF",
        "primaries of sRGB",
        lambda: tiff(PIXELS, photometric="rgb", extratags=primaries(icc.SRGB)),
        ".tif",
        KEPT,
    ),
    Case(
        "TIFF",
        "a transfer function of linear light",
        lambda: tiff(PIXELS, photometric="rgb", extratags=transfer(1)),
        ".tif",
        "a colour profile",
        "TransferFunction",
    ),
    Case(
        "TIFF",
        "a transfer function near sRGB's",
        lambda: tiff(PIXELS, photometric="rgb", extratags=transfer(2.2)),
        ".tif",
        KEPT,
    ),
    Case(
        "TIFF",
        "the names of document and page",
        lambda: tiff(
            PIXELS,
            photometric="rgb",
            extratags=[(269, 2, 0, "a scan", True), (285, 2, 0, "page 7", True)],
        ),
        ".tif",
        KEPT,
    ),
    Case(
        "TIFF",
        "tags that no picture keeps",
        lambda: tiff(PIXELS, photometric="rgb", extratags=[(42112, 2, 0, "<GDAL/>", True)]),
        ".tif",
        "dropped",
        "tag 42112",
    ),
    Case(
        "TIFF",
        "bands beyond the colours",
        lambda: tiff(BANDS, photometric="rgb", extrasamples=[0, 0]),
        ".tif",
        "dropped",
        "2 further bands",
    ),
    Case(
        "TIFF",
        "16 bits with a band beyond the colours",
        lambda: tiff(
            np.dstack([DEEP, DEEP[..., :1]]), photometric="rgb", extrasamples=["unspecified"]
        ),
        ".tif",
        "dropped",
        "1 further band",
    ),
    Case(
        "TIFF",
        "signed bytes",
        lambda: tiff(PIXELS[..., 0].astype(np.int8), photometric="minisblack"),
        ".tif",
        "refused",
        "signed integers",
    ),
    Case(
        "TIFF",
        "signed 16 bits",
        lambda: tiff(PIXELS[..., 0].astype(np.int16), photometric="minisblack"),
        ".tif",
        "refused",
        "signed integers",
    ),
    Case(
        "TIFF",
        "pixels that are not square",
        lambda: tiff(PIXELS, photometric="rgb", resolution=(2, 1), resolutionunit=1),
        ".tif",
        "dropped",
        "shape of its pixels, 2:1",
    ),
    Case(
        "TIFF",
        "a path of Photoshop's",
        lambda: tiff(PIXELS, photometric="rgb", extratags=[(34377, 7, len(PATH), PATH, True)]),
        ".tif",
        "dropped",
        "path",
    ),
    Case("TIFF", "a camera's raw file (DNG)", lambda: raw(True), ".tif", "refused", RAW),
    Case("TIFF", "a camera's raw file, as a TIFF", lambda: raw(False), ".tif", "refused", RAW),
    Case("TIFF", "smaller versions", lambda: pyramid(False), ".tif", KEPT, "only the first frame"),
    Case(
        "TIFF",
        "smaller versions in SubIFDs",
        lambda: pyramid(True),
        ".tif",
        "dropped",
        "further pages in SubIFDs",
    ),
    Case(
        "JPEG",
        "a path of Photoshop's",
        lambda: jpeg(segment(0xED, b"Photoshop 3.0\0" + PATH)),
        ".jpg",
        "dropped",
        "path",
    ),
    Case(
        "JPEG",
        "Photoshop's mark of copyright",
        lambda: jpeg(segment(0xED, b"Photoshop 3.0\0" + photoshop(1034, b"\1"))),
        ".jpg",
        "dropped",
        "copyright",
    ),
    Case(
        "JPEG",
        "Adobe RGB by the camera's rule",
        lambda: jpeg(exif=of_camera(65535, "R03")),
        ".jpg",
        "a colour profile",
        "Adobe RGB",
    ),
    Case("JPEG", "sRGB by the camera's rule", lambda: jpeg(exif=of_camera(1, "R98")), ".jpg", KEPT),
    Case(
        "JPEG",
        "what follows its end",
        lambda: jpeg(after=AFTER),
        ".jpg",
        "dropped",
        "follows the end",
    ),
    Case("JPEG", "zeros after its end", lambda: jpeg(after=bytes(999)), ".jpg", KEPT),
    Case(
        "PNG",
        "what follows its end",
        lambda: saved(PIXELS, "PNG") + AFTER,
        ".png",
        "dropped",
        "follows the end",
    ),
    Case(
        "WebP",
        "what follows its end",
        lambda: saved(PIXELS, "WEBP", lossless=True, icc_profile=SRGB) + AFTER,
        ".webp",
        "dropped",
        "follows the end",
    ),
]
CASES = [*carrying.CASES, *MORE]
