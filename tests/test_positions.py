"""What metadata says of places in a picture is true of the result, or named as dropped."""

from dataclasses import replace

import carrying
import numpy as np
import pytest
from PIL import Image

from restore.images import encode, masks, picture
from restore.images.picture import Encoded
from restore.images.tiff_samples import applied_orientation, apply_orientation

FOCAL = {0xA20E: 2000.0, 0xA20F: 1000.0}
SPACES = (
    ' xmlns:p="http://ns.google.com/photos/1.0/panorama/" xmlns:e="http://ns.adobe.com/exif/1.0/"'
    ' xmlns:d="http://ns.adobe.com/xap/1.0/sType/Dimensions#"'
    ' xmlns:m="http://www.metadataworkinggroup.com/schemas/regions/"'
    ' xmlns:i="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
)
PANORAMA = 'p:FullPanoWidthPixels="96" p:CroppedAreaTopPixels="7" p:PoseHeadingDegrees="350.0"'
REGIONS = (
    '<m:Regions rdf:parseType="Resource"><m:AppliedToDimensions d:w="48" d:h="40" d:unit="pixel"/>'
    '<m:RegionList d:w="3"/></m:Regions>'
)
IMAGE_REGION = "<i:ImageRegion><rdf:Bag><rdf:li i:rbUnit='{}'/></rdf:Bag></i:ImageRegion>"


def with_exif(tags: dict, turn: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = turn
    exif.get_ifd(0x8769).update(tags)
    return exif.tobytes()


def packet(attributes: str, elements: str = "") -> bytes:
    more = f"{SPACES} {attributes}>{elements}</rdf:Description><rdf:Description"
    return carrying.xmp(more)


def doubled(one: picture.Picture, tmp_path) -> tuple[picture.Picture, list[str]]:
    """The result of twice the size, as read again."""
    pixels = one.pixels.repeat(2, 0).repeat(2, 1)
    notes = encode.encode(replace(one, pixels=pixels), tmp_path / "a.png")
    return picture.read(tmp_path / "a.png"), notes


def inner(one: picture.Picture) -> dict:
    exif = Image.Exif()
    exif.load(one.exif)
    return dict(exif.get_ifd(0x8769))


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_a_subject_stays_where_it_is_in_the_picture(tmp_path, turn, format):
    stored = np.zeros((40, 48, 3), np.uint8)
    stored[6:13, 3:6] = 255  # its centre is (4, 9)
    tags = {0x9214: (4, 9, 3, 7), 0xA214: (4, 9), **FOCAL}
    how = {"quality": 100, "subsampling": 0} if format == "JPEG" else {}
    data = carrying.saved(stored, format, exif=with_exif(tags, turn), dpi=(300, 200), **how)
    one = picture.read(Encoded(data, "." + format.lower()))
    rows, columns = np.nonzero(one.pixels[..., 0] > 127)
    centre = (columns.mean(), rows.mean())
    extent = (np.ptp(columns) + 1, np.ptp(rows) + 1)
    assert (one.pixels == apply_orientation(stored, turn)).mean() > 0.9
    assert inner(one)[0x9214] == (*centre, *extent) and inner(one)[0xA214] == centre
    assert one.dpi == pytest.approx((200, 300) if turn > 4 else (300, 200), abs=0.1)
    twice, notes = doubled(one, tmp_path)
    assert not notes
    told = inner(twice)
    assert told[0x9214][2:] == (2 * extent[0], 2 * extent[1])
    assert np.abs(np.subtract(told[0xA214], np.add(centre, 0.5) * 2 - 0.5)).max() <= 0.5
    wide, tall = (2000, 4000) if turn > 4 else (4000, 2000)
    assert (told[0xA20E], told[0xA20F]) == (wide, tall)


def test_a_subject_beyond_what_the_tag_holds_is_named(tmp_path):
    one = picture.Picture(
        carrying.PIXELS, exif=with_exif({0xA214: (40_000, 3)}), described=(40, 48)
    )
    twice, notes = doubled(one, tmp_path)
    assert notes == ["EXIF's SubjectLocation dropped: true of the old picture alone"]
    assert 0xA214 not in inner(twice)


def test_positions_in_xmp_are_scaled_by_their_namespace(tmp_path):
    said = packet(
        PANORAMA + ' e:FocalPlaneXResolution="2000/3"', REGIONS + IMAGE_REGION.format("x")
    )
    one = picture.read(Encoded(carrying.jpeg(xmp=said), ".jpg"))
    assert one.xmp == said
    twice, notes = doubled(one, tmp_path)
    for old, new in (
        (b'FullPanoWidthPixels="96"', b'FullPanoWidthPixels="192"'),
        (b'TopPixels="7"', b'TopPixels="14"'),
        (b'd:w="48" d:h="40"', b'd:w="96" d:h="80"'),
        (b'"2000/3"', b'"4000/3"'),
    ):
        said = said.replace(old, new)
    assert twice.xmp == said and not notes


def test_positions_in_xmp_that_are_not_scaled_are_named(tmp_path):
    subject = (
        "<e:SubjectArea><rdf:Seq><rdf:li>3</rdf:li><rdf:li>4</rdf:li></rdf:Seq></e:SubjectArea>"
    )
    said = packet("", subject + IMAGE_REGION.format("pixel"))
    one = picture.read(Encoded(carrying.jpeg(xmp=said), ".jpg"))
    assert one.xmp == said and not one.warnings
    twice, notes = doubled(one, tmp_path)
    assert twice.xmp == packet("")
    assert notes == ["XMP's SubjectArea, ImageRegion dropped: true of the old picture alone"]


@pytest.mark.parametrize("turn", [2, 3, 6])
def test_regions_of_a_turned_picture_are_named(turn):
    said = packet(PANORAMA, REGIONS)
    one = picture.read(Encoded(carrying.jpeg(xmp=said, exif=with_exif({}, turn)), ".jpg"))
    assert one.xmp == packet('p:PoseHeadingDegrees="350.0"')
    told = "XMP's FullPanoWidthPixels, CroppedAreaTopPixels, Regions dropped"
    assert one.warnings == (f"{told}: true of the old picture alone",)


@pytest.mark.parametrize(
    ("told", "turn"),
    [({}, 1), ({"original_orientation": None}, 1), ({"original_orientation": 6}, 6)],
)
def test_the_turn_that_the_reader_of_heic_took_is_known(told, turn):
    image = Image.new("RGB", (4, 4))
    image.info |= told
    assert applied_orientation(image) == turn


def test_on_a_larger_canvas_nothing_is_where_it_was(tmp_path):
    data = carrying.jpeg(xmp=packet(PANORAMA, REGIONS), exif=with_exif({0xA214: (3, 4)}))
    one = picture.read(Encoded(data, ".jpg"))
    larger, _ = masks.extend(one, np.zeros((40, 48), np.uint8), (4, 0, 0, 0))
    notes = encode.encode(larger, tmp_path / "a.png")
    assert [note.split("'")[0] for note in notes] == ["EXIF", "XMP"]
    again = picture.read(tmp_path / "a.png")
    assert b"Regions>" not in again.xmp and 0xA214 not in inner(again)


def test_numbers_that_would_take_forever_stay_as_they_are(tmp_path):
    said = packet('p:FullPanoWidthPixels="1e999999999" e:FocalPlaneXResolution="1/0"')
    one = picture.read(Encoded(carrying.jpeg(xmp=said), ".jpg"))
    assert doubled(one, tmp_path)[0].xmp == said
