"""XMP packets (ISO 16684-1): properties are found by their namespace, and changed in place.

All other bytes stay as they are. The parser loads nothing and refuses entities, which could grow
without limit.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from xml.parsers import expat

EXIF, TIFF = "http://ns.adobe.com/exif/1.0/", "http://ns.adobe.com/tiff/1.0/"
XML = "http://www.w3.org/XML/1998/namespace"
PANORAMA = "http://ns.google.com/photos/1.0/panorama/"
DIMENSIONS = "http://ns.adobe.com/xap/1.0/sType/Dimensions#"
IPTC = "http://iptc.org/std/Iptc4xmp"  # Core and Ext begin so
GEO = "http://www.w3.org/2003/01/geo/"
PLACES = {
    "http://ns.adobe.com/photoshop/1.0/": {"City", "State", "Country"},
    "http://purl.org/dc/elements/1.1/": {"coverage"},
}
IPTC_PLACES = {"City", "ProvinceState", "CountryName", "CountryCode", "WorldRegion"}
PLACE = re.compile(
    r"(?i)gps|latitude|longt?itude|altitude|geotag"
    r"|^(?:sub|shot)?location(?:created|shown|name|id)?$"
)
SIZES = {  # name -> which of (height, width)
    **{(TIFF, "ImageLength"): 0, (TIFF, "ImageWidth"): 1},
    **{(EXIF, "PixelYDimension"): 0, (EXIF, "PixelXDimension"): 1},
}
FOCAL = {(EXIF, "FocalPlaneYResolution"): 0, (EXIF, "FocalPlaneXResolution"): 1}
SUBJECTS = {(EXIF, "SubjectArea"), (EXIF, "SubjectLocation")}
REGIONS = {  # of faces and the like
    ("http://www.metadataworkinggroup.com/schemas/regions/", "Regions"),
    ("http://ns.acdsee.com/regions/", "Regions"),
    ("http://ns.microsoft.com/photo/1.2/", "RegionInfo"),
    ("http://iptc.org/std/Iptc4xmpExt/2008-02-29/", "ImageRegion"),
}
IN_PIXELS = re.compile(r"(?:Pixels|Rect(?:Left|Top|Width|Height))$")
DEPTH, PREFIXES, ELEMENTS = 100, 1000, 200_000  # the most that are followed
ATTRIBUTE = re.compile(rb"(\s+)([^\s=]+)(\s*=\s*)(\"[^\"]*\"|'[^']*')")
DIGITS = re.compile(rb"\s*\d+\s*")
NUMBER = re.compile(rb"\s*\d{1,10}(?:[./]\d{1,10})?\s*")
BROKEN = "XMP dropped: it is no XML that can be read safely"


@dataclass(frozen=True)
class Property:
    """A property, be it an attribute or an element.

    Attributes:
        space: Its namespace.
        name: Its name there.
        above: Names of the elements around it, from the outermost.
        value: Its bytes, which are markup if it has parts.
    """

    space: str
    name: str
    above: tuple[str, ...]
    value: bytes

    @property
    def key(self) -> tuple[str, str]:
        """(namespace, name)."""
        return self.space, self.name


Change = Callable[[Property], bytes | None]
"""Returns the value of a property, the same or another; None removes it."""


@dataclass
class _Element:
    space: str
    name: str
    prefixes: dict[str, str]
    start: int
    inner: int  # where its content begins
    is_empty: bool  # <name/>


class _Editor:
    """Walks through a packet and collects (start, end, new bytes, name) of what changes."""

    def __init__(self, packet: bytes, change: Change):
        self.packet, self.change = packet, change
        self.open: list[_Element] = []
        self.elements = 0
        self.edits: list[tuple[int, int, bytes, str]] = []
        self.parser = expat.ParserCreate("utf-8")
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.StartDoctypeDeclHandler = self._refuse

    def _refuse(self, *_: object) -> None:
        raise ValueError("a document type")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        start = self.parser.CurrentByteIndex
        prefixes = self.open[-1].prefixes if self.open else {"xml": XML, "": ""}
        declared = {
            name[6:]: space
            for name, space in attributes.items()
            if name == "xmlns" or name.startswith("xmlns:")
        }
        prefixes = {**prefixes, **declared} if declared else prefixes
        self.elements += 1
        if len(self.open) > DEPTH or len(prefixes) > PREFIXES or self.elements > ELEMENTS:
            raise ValueError("more than any packet holds")
        space, name = _resolved(tag, prefixes)
        position = start + 1 + len(tag.encode())
        above = (*(element.name for element in self.open), name)
        while match := ATTRIBUTE.match(self.packet, position):
            position = match.end()
            self._attribute(match, prefixes, above)
        closing = self.packet.index(b">", position)
        is_empty = self.packet[closing - 1 : closing] == b"/"
        self.open.append(_Element(space, name, prefixes, start, closing + 1, is_empty))

    def _attribute(
        self, found: re.Match[bytes], prefixes: dict[str, str], above: tuple[str, ...]
    ) -> None:
        tag = found[2].decode()
        if tag == "xmlns" or tag.startswith("xmlns:"):
            return
        space, name = _resolved(tag, prefixes) if ":" in tag else ("", tag)
        start, end = found.start(4) + 1, found.end(4) - 1
        value = self.packet[start:end]
        changed = self.change(Property(space, name, above, value))
        if changed is None:
            self.edits.append((found.start(), found.end(), b"", name))
        elif changed != value:
            self.edits.append((start, end, changed, ""))

    def _end(self, tag: str) -> None:
        element = self.open.pop()
        closing = element.inner if element.is_empty else self.parser.CurrentByteIndex
        end = element.inner if element.is_empty else self.packet.index(b">", closing) + 1
        value = self.packet[element.inner : closing]
        above = tuple(outer.name for outer in self.open)
        changed = self.change(Property(element.space, element.name, above, value))
        if changed is None:
            while self.edits and self.edits[-1][0] > element.start:  # what stood in it goes with it
                self.edits.pop()
            self.edits.append((element.start, end, b"", element.name))
        elif changed != value:
            self.edits.append((element.inner, closing, changed, ""))


def _resolved(tag: str, prefixes: dict[str, str]) -> tuple[str, str]:
    prefix, _, name = tag.rpartition(":")
    return prefixes[prefix], name


def edit(packet: bytes, change: Change) -> tuple[bytes, list[str]]:
    """Change properties of a packet.

    Returns:
        The packet, and the names of what was removed, each once.

    Raises:
        ValueError: The packet is not sound XML, or cannot be read safely.
    """
    body = packet.rstrip(b"\0")  # some pad with it
    editor = _Editor(body, change)
    try:
        editor.parser.Parse(body, True)
    except (expat.ExpatError, LookupError) as error:
        raise ValueError("not sound XML") from error
    parts, at = [], 0
    for start, end, new, _ in sorted(editor.edits):
        parts += [body[at:start], new]
        at = end
    names = dict.fromkeys(name for *_, name in editor.edits if name)
    return b"".join([*parts, packet[at:]]), list(names)


def is_place(name: str) -> bool:
    """Whether a text of this name tells where a picture was taken: `exif:GPSLatitude`, `City`."""
    space, _, name = name.rpartition(":")
    named = IPTC_PLACES.union(*PLACES.values())
    return space == "geo" or PLACE.search(name) is not None or name.title() in map(str.title, named)


def strip_place(packet: bytes) -> bytes:
    """Remove what tells where the picture was taken.

    Raises:
        ValueError: As for `edit`.
    """

    def change(one: Property) -> bytes | None:
        by_iptc = one.space.startswith(IPTC) and one.name in IPTC_PLACES
        by_space = one.space.startswith(GEO) or one.name in PLACES.get(one.space, ())
        return None if PLACE.search(one.name) or by_iptc or by_space else one.value

    return edit(packet, change)[0]


def set_upright(packet: bytes) -> bytes:
    """Set the orientation to 1.

    Raises:
        ValueError: As for `edit`.
    """

    def change(one: Property) -> bytes | None:
        is_turn = one.key == (TIFF, "Orientation") and DIGITS.fullmatch(one.value)
        return b"1" if is_turn else one.value

    return edit(packet, change)[0]


def strip_positions(packet: bytes) -> tuple[bytes, list[str]]:
    """Remove what speaks of places in the picture, by its pixels or by its sides.

    Returns:
        The packet, and the names of what was removed.

    Raises:
        ValueError: As for `edit`.
    """
    all_of = SUBJECTS | REGIONS | FOCAL.keys()

    def change(one: Property) -> bytes | None:
        gone = one.key in all_of or (one.space == PANORAMA and IN_PIXELS.search(one.name))
        return None if gone else one.value

    return edit(packet, change)


def fit(
    packet: bytes, old: tuple[int, int] | None, size: tuple[int, int]
) -> tuple[bytes, list[str]]:
    """Make sizes and positions those of a picture of another size.

    Args:
        packet: The packet.
        old: (height, width) that its positions speak of; None if they hold no more.
        size: (height, width) of the picture.

    Returns:
        The packet, and the names of what could not be scaled and was removed.

    Raises:
        ValueError: As for `edit`.
    """
    names: list[str] = []
    if old is None:
        packet, names = strip_positions(packet)
        old = size
    ratio = [Fraction(new, was) for new, was in zip(size, old, strict=True)]

    def change(one: Property) -> bytes | None:
        if one.key in SIZES and DIGITS.fullmatch(one.value):
            return b"%d" % size[SIZES[one.key]]
        return one.value if size == old else _scaled(one, ratio)

    packet, more = edit(packet, change)
    return packet, names + more


def _scaled(item: Property, ratio: list[Fraction]) -> bytes | None:
    """The value in a picture of `ratio` times the (height, width); None if it is not scaled."""
    if item.key in SUBJECTS or (
        item.key in REGIONS and b"pixel" in item.value and "Image" in item.name
    ):
        return None
    if item.key in FOCAL and (value := _number(item.value)):
        value = (value * ratio[FOCAL[item.key]]).limit_denominator(10**4)
        return b"%d/%d" % value.as_integer_ratio()
    side = None
    if item.space == PANORAMA and IN_PIXELS.search(item.name):
        side = 0 if "Height" in item.name or "Top" in item.name else 1
    elif item.space == DIMENSIONS and "AppliedToDimensions" in item.above:
        side = {"h": 0, "w": 1}.get(item.name)
    value = None if side is None else _number(item.value)
    return item.value if side is None or value is None else b"%d" % round(value * ratio[side])


def _number(text: bytes) -> Fraction | None:
    try:
        return Fraction(text.decode().strip()) if NUMBER.fullmatch(text) else None
    except ZeroDivisionError:
        return None
