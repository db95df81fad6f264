"""Parts of a file beside its picture: gain maps, videos, depth maps, layers.

They belong to the old pixels, so a result cannot keep them. They are listed as dropped, and the XMP
properties that refer to them are removed.
"""

import re
import struct
from typing import Any

from PIL import Image

from restore.images import sniff
from restore.images.sniff import Segment

GAIN = "the HDR gain map"
VIDEO = "the video of a motion photo"
PROMISES = {  # XMP namespaces that speak of what lies beside the picture
    b"http://ns.adobe.com/hdr-gain-map/1.0/": GAIN,
    b"http://ns.apple.com/HDRGainMap/1.0/": GAIN,
    b"http://ns.google.com/photos/1.0/depthmap/": "the depth map",
    b"http://ns.google.com/photos/1.0/image/": "",  # data of what the others name
    b"http://ns.google.com/photos/1.0/container/": "",
    b"http://ns.google.com/photos/1.0/container/item/": "",
}
CAMERA = b"http://ns.google.com/photos/1.0/camera/"
MOST = 2**20  # bytes of XMP that are searched through
EXTENDED = re.compile(rb'\s\w+:HasExtendedXMP\s*=\s*(?:"[^"<]*"|\'[^\'<]*\')')
FILM = re.compile(rb"ftyp(?:mp4|iso|qt  |avc|hvc|M4V|3gp)")
MOTION = rb"(?:MotionPhoto|MicroVideo)\w*"
GAIN_NAMES = (b"hdr-gain-map", b"HDRGainMap")
ISO_GAIN = b"urn:iso:std:iso:ts:21496:-1"
SEGMENTS = {  # of a JPEG, by number and beginning
    (0xE1, b"http://ns.adobe.com/xmp/extension/"): "extended XMP",
    (0xE2, b"FPXR\0"): "FlashPix data",
    (0xE2, ISO_GAIN): GAIN,
    (0xEB, b"JP"): "content credentials (C2PA)",
}
CHUNKS = {  # of a PNG, that are carried on, are spent, or speak of the old file alone
    *(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"acTL", b"fcTL", b"fdAT", b"tIME"),
    *(b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"pHYs", b"eXIf", b"tEXt", b"zTXt", b"iTXt"),
    *(b"sBIT", b"hIST", b"sPLT", b"iDOT"),
}
PATHS = range(2000, 3000)  # Photoshop's resources that are paths, and the name of the clipping path
RESOURCES = {1034: "the mark of copyright", 1035: "the URL"}  # of Photoshop
ALPHA = (1, 2)  # ExtraSamples of a TIFF that are transparency
TAGS = {  # of a TIFF
    330: "further pages in SubIFDs",
    37724: "Photoshop's layers",
    **dict.fromkeys((33550, 33922, 34264, 34735), "its place on a map (GeoTIFF)"),
}


def is_gain_map_beside(data: bytes) -> bool:
    """Whether the second picture in a JPEG is a gain map."""
    for segment in sniff.iter_jpeg_header(data):
        if segment.marker == 0xE1 and any(name in segment.body for name in GAIN_NAMES):
            return True
        if segment.marker == 0xE2 and segment.body.startswith(ISO_GAIN):
            return True
    return False


def list_dropped(image: Image.Image, data: bytes) -> list[str]:
    """Return a note for each part of the file that a result cannot keep."""
    named: list[str] = []
    if data.startswith(sniff.JPEG):
        named = [name for segment in sniff.iter_jpeg_header(data) for name in _names(segment)]
        named += _list_resources(image.info.get("photoshop"))
        if _has_video(data):
            named.append(VIDEO)
    elif data.startswith(sniff.PNG):
        others = {name.decode("latin-1") for name in sniff.list_png_chunks(data) - CHUNKS}
        named = [f"PNG's {name}" for name in sorted(others)]
    elif image.format == "TIFF":
        tags = getattr(image, "tag_v2", {})
        named = [name for tag, name in TAGS.items() if tag in tags]
        named += _list_bands(tags.get(338, ())) + _list_resources(_unpack(tags.get(34377)))
    elif image.format in ("HEIF", "AVIF"):
        maps = [GAIN] if b"tmap" in sniff.read_brands(data) else []
        apart = [*image.info.get("aux", ()), *(["depth"] if image.info.get("depth_images") else [])]
        named = maps + [f"the auxiliary picture {name}" for name in map(_text, apart)]
        if sniff.is_deep_heif(data, image.info):
            return [*_dropped(named), "depth reduced to 8 bits"]
    if not {GAIN, VIDEO} & set(named) and image.format != "MPO":
        named += _list_appended(data)
    return _dropped(named)


def _list_appended(data: bytes) -> list[str]:
    """Name what follows the end of the picture, unless it only fills up."""
    end = sniff.find_end(data)
    return (
        ["what follows the end of the picture"] if end and data[end:].strip(b"\0\xff\r\n ") else []
    )


def _list_bands(extra: Any) -> list[str]:
    """Name the bands of a TIFF that are neither colour nor transparency."""
    kinds = extra if isinstance(extra, tuple) else (extra,)
    first_is_alpha = kinds[:1] in [(kind,) for kind in ALPHA]
    count = len(kinds) - first_is_alpha
    return [f"what its {count} further band{'s' * (count > 1)} hold{'s' * (count < 2)}"] * (
        count > 0
    )


def _list_resources(resources: Any) -> list[str]:
    """Name what Photoshop keeps beside a picture, by the numbers of its resources."""
    if not isinstance(resources, dict):
        return []
    found = [name for number, name in RESOURCES.items() if any(resources.get(number, b""))]
    return ["a path of Photoshop's"] * any(number in PATHS for number in resources) + found


def _unpack(block: Any) -> dict[int, bytes]:
    """Photoshop's resources in a TIFF: number -> content, as far as they are whole."""
    resources: dict[int, bytes] = {}
    block, at = block[0] if isinstance(block, tuple) and block else block, 0
    while isinstance(block, bytes) and block[at : at + 4] == b"8BIM" and at + 12 <= len(block):
        number, name = struct.unpack(">HB", block[at + 4 : at + 7])
        start = at + 6 + (name + 2) // 2 * 2
        size = int.from_bytes(block[start : start + 4], "big")
        resources[number] = block[start + 4 : start + 4 + size]
        at = start + 4 + size + size % 2
    return resources


def _text(name: object) -> str:
    return name.decode("latin-1") if isinstance(name, bytes) else str(name)


def _names(segment: Segment) -> list[str]:
    return [
        name
        for (marker, start), name in SEGMENTS.items()
        if segment.marker == marker and segment.body.startswith(start)
    ]


def _has_video(data: bytes) -> bool:
    """Whether an MP4 or QuickTime file follows the end of a JPEG."""
    end = sniff.find_jpeg_end(data)
    return end > 0 and FILM.search(data, end) is not None


def _dropped(named: list[str]) -> list[str]:
    return [f"{name} is dropped" for name in dict.fromkeys(named)]


def strip_references(packet: bytes) -> tuple[bytes, list[str]]:
    """Remove from an XMP packet the properties that refer to dropped parts.

    Returns:
        The packet, and notes on what was removed.
    """
    names: list[str] = []
    found = [space for space in (*PROMISES, CAMERA) if space in packet]
    if found and len(packet) > MOST:
        return b"", ["XMP dropped: it is long and speaks of what lies beside the picture"]
    packet = EXTENDED.sub(b"", packet)
    for space, what in PROMISES.items():
        for prefix in _prefixes(packet, space):
            packet = _without(packet, prefix)
            names += [what] if what else []
    for prefix in _prefixes(packet, CAMERA):
        kept = packet
        packet = _without(packet, prefix, MOTION)
        names += [VIDEO] if packet != kept else []
    return packet, _dropped(names)


def _prefixes(packet: bytes, space: bytes) -> list[bytes]:
    return re.findall(rb"xmlns:(\w+)\s*=\s*[\"']" + re.escape(space) + rb"[\"']", packet)


def _without(packet: bytes, prefix: bytes, names: bytes = rb"\w+") -> bytes:
    """Remove a prefix's properties, be they attributes or elements with content."""
    value = rb"\s*=\s*(?:\"[^\"<]*\"|'[^'<]*')"
    name = re.escape(prefix) + b":" + names
    packet = re.sub(rb"\s" + name + value, b"", packet)
    if names != MOTION:  # nothing is left that needs the prefix
        packet = re.sub(rb"\sxmlns:" + re.escape(prefix) + value, b"", packet)
    return re.sub(rb"(?s)<(" + name + rb")\b[^>]*?(?:/>|>.*?</\1\s*>)", b"", packet)
