"""What a file carries beside one picture, and what a picture made anew cannot carry on.

Gain maps, videos, depth and layers belong to the old pixels. They are named, and what the XMP
promises of them is taken out of it.
"""

import re

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
TAGS = {  # of a TIFF
    330: "further pages in SubIFDs",
    37724: "Photoshop's layers",
    **dict.fromkeys((33550, 33922, 34264, 34735), "its place on a map (GeoTIFF)"),
}


def is_gain_map_beside(data: bytes) -> bool:
    """Whether what a JPEG holds beside its picture is a gain map, not a second picture."""
    for segment in sniff.jpeg_segments(data):
        if segment.marker == 0xE1 and any(name in segment.body for name in GAIN_NAMES):
            return True
        if segment.marker == 0xE2 and segment.body.startswith(ISO_GAIN):
            return True
    return False


def lost(image: Image.Image, data: bytes) -> list[str]:
    """Notes on what is not carried on."""
    named: list[str] = []
    if data.startswith(sniff.JPEG):
        named = [name for segment in sniff.jpeg_segments(data) for name in _names(segment)]
        if _has_video(data):
            named.append(VIDEO)
    elif data.startswith(sniff.PNG):
        others = {name.decode("latin-1") for name in sniff.png_names(data) - CHUNKS}
        named = [f"PNG's {name}" for name in sorted(others)]
    elif image.format == "TIFF":
        named = [name for tag, name in TAGS.items() if tag in getattr(image, "tag_v2", {})]
    elif image.format in ("HEIF", "AVIF"):
        maps = [GAIN] if b"tmap" in sniff.brands(data) else []
        apart = [*image.info.get("aux", ()), *(["depth"] if image.info.get("depth_images") else [])]
        named = maps + [f"the auxiliary picture {name}" for name in map(_text, apart)]
        if sniff.is_deep_heif(data, image.info):
            return [*_dropped(named), "depth reduced to 8 bits"]
    return _dropped(named)


def _text(name: object) -> str:
    return name.decode("latin-1") if isinstance(name, bytes) else str(name)


def _names(segment: Segment) -> list[str]:
    return [
        name
        for (marker, start), name in SEGMENTS.items()
        if segment.marker == marker and segment.body.startswith(start)
    ]


def _has_video(data: bytes) -> bool:
    """Whether an MP4 or QuickTime file stands behind the end of a JPEG."""
    end = sniff.jpeg_end(data)
    return end > 0 and FILM.search(data, end) is not None


def _dropped(named: list[str]) -> list[str]:
    return [f"{name} is dropped" for name in dict.fromkeys(named)]


def without_promises(packet: bytes) -> tuple[bytes, list[str]]:
    """(an XMP packet without what it says of things that lie beside the picture, notes)."""
    names: list[str] = []
    spoken = [space for space in (*PROMISES, CAMERA) if space in packet]
    if spoken and len(packet) > MOST:
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
    """Without a prefix's properties, as attributes and as elements with all that is in them."""
    value = rb"\s*=\s*(?:\"[^\"<]*\"|'[^'<]*')"
    name = re.escape(prefix) + b":" + names
    packet = re.sub(rb"\s" + name + value, b"", packet)
    if names != MOTION:  # nothing is left that needs the prefix
        packet = re.sub(rb"\sxmlns:" + re.escape(prefix) + value, b"", packet)
    return re.sub(rb"(?s)<(" + name + rb")\b[^>]*?(?:/>|>.*?</\1\s*>)", b"", packet)
