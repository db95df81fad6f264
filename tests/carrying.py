"""Files that say something beside their pixels, as other tools write them; what is made of it."""

import io
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tifffile
from conftest import smooth_pixels
from PIL import Image, ImageCms, PngImagePlugin

from restore.errors import ImageError
from restore.images import encode, icc, picture
from restore.images.encode import Writing
from restore.images.picture import Picture
from restore.images.row_writers import make_png_chunk

PIXELS = smooth_pixels(40, 48)
DEEP = PIXELS.astype(np.uint16) * 257
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
IPTC = b"\x1c\x02\x78\x00\x05hello"
XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-'
    'syntax-ns#"><rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/" dc:title="A bridge"'
    "{more}/></rdf:RDF></x:xmpmeta>"
)
GAIN_SPACE = "http://ns.adobe.com/hdr-gain-map/1.0/"
GAIN = f' xmlns:hdrgm="{GAIN_SPACE}" hdrgm:Version="1.0" hdrgm:GainMapMax="3.2"'
MOTION = (
    ' xmlns:C="http://ns.google.com/photos/1.0/camera/" C:MotionPhoto="1" C:MotionPhotoVersion="1"'
)
VIDEO = b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + b"\xff\xda" * 300 + bytes(5000)
WIDE = (0.3127, 0.3290, 0.30, 0.60, 0.64, 0.33, 0.15, 0.06)  # red and green change places


def saved(array: np.ndarray, format: str, **how) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format, **how)
    return buffer.getvalue()


def png(*chunks: tuple[bytes, bytes], pixels: np.ndarray = PIXELS) -> bytes:
    data = encode._png(pixels, encode.Tags(), "")
    whole = b"".join(data)
    return whole[:33] + b"".join(make_png_chunk(*one) for one in chunks) + whole[33:]


def chrm(points: tuple[float, ...]) -> tuple[bytes, bytes]:
    return b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in points))


def gama(value: float) -> tuple[bytes, bytes]:
    return b"gAMA", struct.pack(">I", round(value * 100_000))


def text_png() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a red boat\nSteps: 20")
    info.add_itxt("workflow", json.dumps({"nodes": ["\u00e9\u2603"]}))
    info.add_text("long", "many words " * 500, zip=True)
    return saved(PIXELS, "PNG", pnginfo=info)


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def jpeg(*segments: bytes, after: bytes = b"", **how) -> bytes:
    data = saved(PIXELS, "JPEG", quality=95, **how)
    return data[:2] + b"".join(segments) + data[2:] + after


def photoshop(records: bytes) -> bytes:
    pad = b"\0" * (len(records) % 2)
    return segment(
        0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(records)) + records + pad
    )


def xmp(more: str = "") -> bytes:
    return XMP.replace("{more}", more).encode()


def tiff(array: np.ndarray, **how) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, metadata=None, **how)
    return buffer.getvalue()


def planes(array: np.ndarray) -> np.ndarray:
    return np.moveaxis(array, 2, 0)


def exif() -> bytes:
    told = Image.Exif()
    told[0x010F], told[0x0131] = "Maker", "Camera 1.0"
    told.get_ifd(0x8769)[0x829A] = 0.5
    told.get_ifd(0x8825)[1] = "N"
    return told.tobytes()


@dataclass(frozen=True)
class Case:
    """A file of one format that says one thing, and what is to become of it."""

    format: str
    what: str
    data: Callable[[], bytes]
    suffix: str
    becomes: str  # kept, a colour profile, 16 bits, refused, dropped: the start of the table's cell
    note: str = ""  # what its row says


KEPT = "kept"
CASES = [
    Case("PNG", "gAMA of linear light", lambda: png(gama(1.0)), ".png", "a colour profile", "gAMA"),
    Case(
        "PNG",
        "gAMA and cHRM of sRGB",
        lambda: png(gama(0.45455), chrm((0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06))),
        ".png",
        KEPT,
    ),
    Case(
        "PNG",
        "other primaries in cHRM",
        lambda: png(chrm(WIDE)),
        ".png",
        "a colour profile",
        "cHRM",
    ),
    Case(
        "PNG",
        "cICP: Display P3",
        lambda: png((b"cICP", bytes([12, 13, 0, 1]))),
        ".png",
        "a colour profile",
        "Display P3",
    ),
    Case("PNG", "cICP: PQ", lambda: png((b"cICP", bytes([9, 16, 0, 1]))), ".png", "refused", "PQ"),
    Case(
        "PNG", "cICP: HLG", lambda: png((b"cICP", bytes([9, 18, 0, 1]))), ".png", "refused", "HLG"
    ),
    Case("PNG", "pHYs: 300 dpi", lambda: saved(PIXELS, "PNG", dpi=(300, 300)), ".png", KEPT),
    Case(
        "PNG",
        "pHYs: pixels that are not square",
        lambda: png((b"pHYs", struct.pack(">IIB", 2, 1, 0))),
        ".png",
        "dropped",
        "shape of its pixels",
    ),
    Case("PNG", "texts of other tools", text_png, ".png", KEPT),
    Case(
        "PNG",
        "other chunks, such as caBX",
        lambda: png((b"caBX", b"c2pa")),
        ".png",
        "dropped",
        "PNG's caBX",
    ),
    Case("JPEG", "resolution", lambda: jpeg(dpi=(300, 300)), ".jpg", KEPT),
    Case("JPEG", "IPTC", lambda: jpeg(photoshop(IPTC)), ".jpg", KEPT),
    Case("JPEG", "a comment", lambda: jpeg(comment=b"of the sea"), ".jpg", KEPT),
    Case("JPEG", "EXIF", lambda: jpeg(exif=exif()), ".jpg", KEPT),
    Case("JPEG", "an HDR gain map", lambda: jpeg(xmp=xmp(GAIN)), ".jpg", "dropped", "HDR gain map"),
    Case(
        "JPEG",
        "an ISO gain map",
        lambda: jpeg(segment(0xE2, b"urn:iso:std:iso:ts:21496:-1\0\0\0\0\0")),
        ".jpg",
        "dropped",
        "HDR gain map",
    ),
    Case(
        "JPEG",
        "the video of a motion photo",
        lambda: jpeg(xmp=xmp(MOTION), after=VIDEO),
        ".jpg",
        "dropped",
        "video of a motion photo",
    ),
    Case(
        "JPEG",
        "extended XMP",
        lambda: jpeg(segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(50))),
        ".jpg",
        "dropped",
        "extended XMP",
    ),
    Case(
        "JPEG",
        "content credentials",
        lambda: jpeg(segment(0xEB, b"JP\0\1")),
        ".jpg",
        "dropped",
        "content credentials",
    ),
    Case(
        "WebP",
        "resolution in EXIF",
        lambda: saved(PIXELS, "WEBP", lossless=True, exif=with_dpi()),
        ".webp",
        KEPT,
    ),
    Case(
        "AVIF",
        "nclx: Display P3",
        lambda: avif((12, 13)),
        ".avif",
        "a colour profile",
        "Display P3",
    ),
    Case("AVIF", "nclx: PQ", lambda: avif((9, 16)), ".avif", "refused", "PQ"),
    Case(
        "TIFF",
        "16 bits by planes",
        lambda: tiff(planes(DEEP), photometric="rgb", planarconfig="separate"),
        ".tif",
        KEPT,
    ),
    Case(
        "TIFF",
        "16 bits with associated alpha",
        lambda: tiff(associated(), photometric="rgb", extrasamples=["assocalpha"]),
        ".tif",
        KEPT,
    ),
    Case(
        "TIFF",
        "16 bits, white is zero",
        lambda: tiff(65535 - DEEP[..., 0], photometric="miniswhite"),
        ".tif",
        KEPT,
    ),
    Case(
        "TIFF",
        "half floats",
        lambda: tiff((PIXELS / 255).astype(np.float16), photometric="rgb"),
        ".tif",
        "16 bits",
        "floats to 16 bits",
    ),
    Case(
        "TIFF",
        "floats by planes",
        lambda: tiff(
            planes((PIXELS / 255).astype(np.float32)), photometric="rgb", planarconfig="separate"
        ),
        ".tif",
        "16 bits",
        "floats to 16 bits",
    ),
    Case(
        "TIFF",
        "32-bit integers",
        lambda: tiff(DEEP.astype(np.uint32), photometric="rgb"),
        ".tif",
        "refused",
        "is not read",
    ),
    Case(
        "TIFF",
        "16-bit CMYK",
        lambda: tiff(np.dstack([DEEP, DEEP[..., :1]]), photometric="separated"),
        ".tif",
        "8 bits",
        "8 bits",
    ),
    Case(
        "TIFF",
        "resolution",
        lambda: tiff(PIXELS, photometric="rgb", resolution=(300, 300), resolutionunit=2),
        ".tif",
        KEPT,
    ),
    Case(
        "TIFF",
        "IPTC",
        lambda: tiff(PIXELS, photometric="rgb", extratags=[(33723, 7, len(IPTC), IPTC, True)]),
        ".tif",
        KEPT,
    ),
    Case(
        "TIFF",
        "a place on a map (GeoTIFF)",
        lambda: tiff(PIXELS, photometric="rgb", extratags=[(33550, 12, 3, (1.0, 1.0, 0.0), True)]),
        ".tif",
        "dropped",
        "GeoTIFF",
    ),
    Case("BMP", "resolution", lambda: saved(PIXELS, "BMP", dpi=(300, 300)), ".bmp", KEPT),
    Case("GIF", "a comment", lambda: saved(PIXELS, "GIF", comment=b"of the sea"), ".gif", KEPT),
]


def with_dpi() -> bytes:
    told = Image.Exif()
    told[282], told[283], told[296] = 300.0, 300.0, 2
    return told.tobytes()


def associated() -> np.ndarray:
    alpha = np.full((*DEEP.shape[:2], 1), 40_000, np.uint16)
    return np.dstack([np.rint(DEEP * (40_000 / 65535)).astype(np.uint16), alpha])


def avif(codes: tuple[int, int]) -> bytes:
    """An AVIF whose colour box says other primaries and another transfer than Pillow's."""
    data = saved(PIXELS, "AVIF", quality=95)
    at = data.index(b"colrnclx") + 8
    return data[:at] + struct.pack(">HH", *codes) + data[at + 4 :]


def came(case: Case) -> tuple[str, Picture | None, tuple[str, ...]]:
    """(what became of it, the picture, the notes)."""
    try:
        one = picture.read(picture.Encoded(case.data(), case.suffix))
    except ImageError as error:
        return "refused", None, (str(error),)
    notes = one.warnings
    if any("dropped" in note for note in notes):
        return "dropped", one, notes
    if any("colour profile" in note for note in notes):
        return "a colour profile", one, notes
    bits = [f"{n} bits" for n in (8, 16) if any(f"{n} bits" in note for note in notes)]
    return (bits or [KEPT])[0], one, notes


FACTS = {
    "16 bits a channel": {"pixels": DEEP},
    "grey": {"pixels": np.repeat(PIXELS[..., :1], 3, 2), "grey": True},
    "grey with its profile": {
        "pixels": np.repeat(PIXELS[..., :1], 3, 2),
        "grey": True,
        "icc": icc.build_profile(icc.SRGB, (2.2,), True, "grey"),
    },
    "grey with its profile, transparent": {
        "pixels": np.repeat(PIXELS[..., :1], 3, 2),
        "grey": True,
        "icc": icc.build_profile(icc.SRGB, (2.2,), True, "grey"),
        "alpha": np.full(PIXELS.shape[:2], 200, np.uint8),
    },
    "transparency": {"alpha": np.full(PIXELS.shape[:2], 200, np.uint8)},
    "colour profile": {"icc": SRGB},
    "EXIF": {"exif": exif()},
    "XMP": {"xmp": xmp()},
    "IPTC": {"iptc": IPTC},
    "resolution": {"dpi": (300.0, 200.0)},
    "a comment": {"texts": (("Comment", "of the sea"),)},
    "other texts": {"texts": (("parameters", "a boat"), ("workflow", "{\u2603}"))},
}
FORMATS = {"png": ".png", "jpeg": ".jpg", "webp": ".webp", "avif": ".avif", "tiff": ".tif"}


def goes(fact: str, format: str, folder: Path) -> tuple[str, list[str]]:
    """(what becomes of a fact in a format: kept, dropped or refused; the notes)."""
    given = FACTS[fact]
    one = replace(Picture(PIXELS), **given)
    path = folder / f"out{FORMATS[format]}"
    try:
        notes = encode.encode(one, path, format, Writing(lossless=format == "webp"))
    except ImageError as error:
        return "refused", [str(error)]
    back = picture.read(path)
    if back.icc and any("profile is kept as" in note for note in notes):
        return "a colour profile", notes
    return "kept" if all(
        _same(name, value, back) for name, value in given.items()
    ) else "dropped", notes


def _same(name: str, value: object, back: Picture) -> bool:
    found = getattr(back, name)
    simple = {
        "pixels": lambda: found.dtype == value.dtype,
        "alpha": lambda: found is not None,
        # WebP knows no grey, but can hold one
        "grey": lambda: found or bool((back.pixels == back.pixels[..., :1]).all()),
    }
    if name in simple:
        return simple[name]()
    if name == "exif":
        if not found:
            return False
        told = Image.Exif()
        told.load(found)
        inner, place = told.get_ifd(0x8769), told.get_ifd(0x8825)
        names = (told[0x010F], told[0x0131], place[1])
        clean = [text.rstrip("\0") for text in names]
        return clean == ["Maker", "Camera 1.0", "N"] and inner[0x829A] == 0.5
    if name == "dpi":
        return found is not None and bool(np.allclose(found, value, atol=0.1))
    return found == value
