"""`--strip gps` leaves nothing that tells where a picture was taken, and takes nothing else."""

import warnings

import carrying
import pytest
from PIL import Image, PngImagePlugin

from restore.images import picture, xmp
from restore.images.picture import Encoded, Reading

HEAD = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description'
    ' xmlns:e="http://ns.adobe.com/exif/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/"'
    ' xmlns:drone-dji="http://www.dji.com/drone-dji/1.0/" xmlns:dc="http://purl.org/dc/elements/1.1/"'
    ' xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/"'
    ' xmlns:Iptc4xmpCore="http://iptc.org/std/Iptc4xmpCore/1.0/xmlns/"'
    ' xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
    ' xmlns:geo="http://www.w3.org/2003/01/geo/wgs84_pos#"'
    ' xmlns:ps="http://ns.adobe.com/photoshop/1.0/" dc:title="A bridge &amp; &lt;boat&gt;"'
)
TAIL = (
    "<photoshop:Headline>City of light</photoshop:Headline><e:SubjectLocation>3</e:SubjectLocation>"
    '<Iptc4xmpCore:CreatorContactInfo Iptc4xmpCore:CiAdrCity="Bern"/><!-- e: -->'
    "<dc:format> image/jpeg </dc:format></rdf:Description></rdf:RDF></x:xmpmeta>\n  "
    '<?xpacket end="w"?>\0\0'
)
ATTRIBUTES = (
    'e:GPSLatitude="48,51.5N"',
    "drone-dji:GpsLatitude = '48.5'",
    'drone-dji:GpsLongtitude="8.5"',
    'drone-dji:AbsoluteAltitude="+480.5"',
    'ps:City="Paris 48"',
    'geo:lat="48.5"',
)
ELEMENTS = (
    '<exif:GPSLatitude rdf:datatype="s">48,51.5N</exif:GPSLatitude>',
    "<exif:GPSMapDatum/>",
    "<photoshop:City>Paris 48</photoshop:City>",
    "<photoshop:State>48</photoshop:State>",
    "<ps:Country>48</ps:Country>",
    "<Iptc4xmpCore:Location>48</Iptc4xmpCore:Location>",
    "<Iptc4xmpCore:CountryCode>48</Iptc4xmpCore:CountryCode>",
    '<Iptc4xmpExt:LocationCreated><rdf:Bag><rdf:li rdf:parseType="Resource"><Iptc4xmpExt:City>48'
    "</Iptc4xmpExt:City><exif:GPSLatitude>48</exif:GPSLatitude></rdf:li></rdf:Bag>"
    "</Iptc4xmpExt:LocationCreated>",
    '<Iptc4xmpExt:LocationShown><rdf:Bag><rdf:li><rdf:Description Iptc4xmpExt:City="48"/></rdf:li>'
    "</rdf:Bag></Iptc4xmpExt:LocationShown>",
    '<q:GPSLatitude xmlns:q="any:">48</q:GPSLatitude>',
)


@pytest.mark.parametrize("what", [*ATTRIBUTES, *ELEMENTS])
def test_a_place_is_taken_from_xmp_and_not_a_byte_of_the_rest(what):
    inside = what.startswith("<")
    told = HEAD + ("" if inside else f"\n {what}") + ">" + (what if inside else "") + TAIL
    assert xmp.strip_place(told.encode()) == f"{HEAD}>{TAIL}".encode()
    data = carrying.jpeg(xmp=told.encode())
    one = picture.read(Encoded(data, ".jpg"), Reading(strip="gps"))
    assert b"48" not in one.xmp and b"A bridge" in one.xmp
    assert picture.read(Encoded(data, ".jpg")).xmp == told.encode()


def test_markup_that_only_looks_like_a_place_or_hides_one_is_read_as_xml():
    told = b"\xef\xbb\xbf<a xmlns:q='u&#58;x' %sb='\"' ><![CDATA[<q:GPS>]]>%s\xc3\xa9%s</a>\n"
    places = (
        b'q:GPS="1>2" ',
        b'<q:GPS a=">"><![CDATA[</q:GPS>]]></q:GPS>',
        b"<q:GPS><q:GPS /></q:GPS >",
    )
    assert xmp.strip_place(told % places) == told % (b"", b"", b"")
    long = b"A" * 3 * 2**20  # the parser takes it in pieces
    assert xmp.strip_place(b"<a>%s<GPS>48</GPS></a>" % long) == b"<a>%s</a>" % long


ENTITY = '<!DOCTYPE x [<!ENTITY a "48N">]>'


@pytest.mark.parametrize(
    "packet",
    [
        f"{HEAD} e:GPSLatitude='48'>{TAIL}"[:-60],  # cut short
        f"{HEAD}>{TAIL}".replace("<x:", ENTITY + "<x:", 1),
        f"{HEAD} unknown:GPSLatitude='48'>{TAIL}",
        "<a>" * 10**5 + "48" + "</a>" * 10**5,
        f"<a>{'<b/>' * 250_000}48</a>",
        f"{HEAD} e:GPSLatitude='48'>{TAIL}".encode("utf-16").decode("latin-1"),
    ],
    ids=["cut", "entity", "prefix", "deep", "many", "utf-16"],
)
def test_xmp_that_cannot_be_read_safely_is_dropped_and_told(packet):
    image, notes = Image.new("RGB", (4, 4)), []
    image.info["xmp"] = packet.encode("latin-1", "replace")
    _, facts = picture.metadata.read_metadata(image, "gps", notes)
    assert facts.xmp is None and notes == [xmp.BROKEN]


def test_texts_of_a_png_that_tell_a_place_go_and_the_others_stay():
    info = PngImagePlugin.PngInfo()
    for name in ("exif:GPSLatitude", "GPSInfo", "photoshop:City", "Location", "geo:lat"):
        info.add_text(name, "48/1")
    info.add_text("Raw profile type iptc", "\niptc\n 10\n1c025a000548")
    info.add_text("Notes", '{"GPS_Latitude": 48}')
    info.add_text("Title", "a bridge of 4/8")
    info.add_text("exif:SubjectLocation", "3, 4")
    data = carrying.saved(carrying.PIXELS, "PNG", pnginfo=info)
    one = picture.read(Encoded(data, ".png"), Reading(strip="gps"))
    assert dict(one.texts) == {"Title": "a bridge of 4/8", "exif:SubjectLocation": "3, 4"}
    [note] = one.warnings
    assert note.startswith("texts dropped (exif:GPSLatitude, GPSInfo, ")
    assert len(picture.read(Encoded(data, ".png")).texts) == 9


def test_a_comment_that_holds_a_packet_goes_too():
    for comment, stays in ((b"GPSLatitude=48", False), (b"of the sea", True)):
        data = carrying.jpeg(comment=comment)
        one = picture.read(Encoded(data, ".jpg"), Reading(strip="gps"))
        assert bool(one.texts) == stays == (not one.warnings)


def test_makers_notes_may_tell_the_place():
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    exif.get_ifd(0x8769).update({0x927C: b"Landmark: 48", 0x829A: 0.5})
    exif.get_ifd(0x8825)[1] = "N"
    data = carrying.jpeg(exif=exif.tobytes())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = picture.read(Encoded(data, ".jpg"), Reading(strip="gps"))
    told = Image.Exif()
    told.load(one.exif)
    assert told.get_ifd(0x8769) == {0x829A: 0.5} and not told.get_ifd(0x8825)
    assert one.warnings == ("EXIF's MakerNote dropped: it may tell where it was taken",)
    told.load(picture.read(Encoded(data, ".jpg")).exif)
    assert 0x927C in told.get_ifd(0x8769)
