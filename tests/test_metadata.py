"""Nothing that a file says is lost or changed without a word; docs/reference/formats.md is true."""

import io
import os
import warnings
from pathlib import Path
from unittest import mock

import carrying
import numpy as np
import pytest
from carrying import DEEP, FACTS, FORMATS, GAIN_SPACE, PIXELS
from carrying_more import CASES, of_camera, with_mask
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image, ImageCms

from restore.errors import ImageError
from restore.images import colours, encode, icc, metadata, picture
from restore.images.arrays import to_picture
from restore.images.picture import Encoded, convert_to_srgb
from restore.images.tags import JPEG_XMP

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "formats.md"
IDS = [f"{case.format} {case.what}" for case in CASES]


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_what_a_file_says_is_kept_converted_or_named(case):
    became, one, notes = carrying.came(case)
    assert became == case.becomes
    assert case.note in " ".join(notes) and bool(notes) == bool(case.note)
    if one is None:
        return
    if case.format != "AVIF" and case.what not in ("16-bit CMYK", "a comment"):
        want = one.pixels.dtype.type(257 if one.depth == 16 else 1) * PIXELS.astype(
            one.pixels.dtype
        )
        want = np.repeat(want[..., :1], 3, 2) if one.grey else want
        near = {"16 bits with associated alpha": 3, "half floats": 20}.get(case.what, 0)
        near = 6 if case.format == "JPEG" else near
        assert np.percentile(np.abs(one.pixels.astype(int) - want), 90) <= near
    if "esolution" in case.what or "dpi" in case.what:
        assert one.dpi == pytest.approx((300, 300), abs=0.1)
    if "IPTC" in case.what:
        assert one.iptc == carrying.IPTC


ODD = {  # of kinds that EXIF does not know there
    "PageNumber": (None, 297, (70000, 1)),
    "GPSAltitudeRef": (ExifTags.IFD.GPSInfo, 5, 300),
    "GPSLatitude": (ExifTags.IFD.GPSInfo, 2, (-48.5, 5.0, 0.0)),
    "ISOSpeedRatings": (ExifTags.IFD.Exif, 0x8827, 2**40),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_tag_costs_neither_the_turn_nor_any_other_tag(tmp_path, name):
    part, tag, value = ODD[name]
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    (exif if part is None else exif.get_ifd(part))[tag] = value
    image = Image.new("RGB", (40, 20), "teal")
    with mock.patch.object(Image.Image, "getexif", lambda image: exif):
        notes = []
        turn, facts = metadata.read_metadata(image, "nothing", notes)
        assert to_picture(image).size == (40, 20)
    assert turn == 6 and notes == [f"EXIF's {name} dropped: not of the kind that EXIF asks"]
    kept = Image.Exif()
    kept.load(facts.exif)
    assert kept[0x010F] == "Maker" and kept[0x0112] == 1


def test_texts_of_other_tools_come_in_whole():
    one = picture.read(Encoded(carrying.text_png(), ".png"))
    told = dict(one.texts)
    assert told["workflow"] == '{"nodes": ["\\u00e9\\u2603"]}' and len(told["long"]) == 5500
    assert told["parameters"] == "a red boat\nSteps: 20"


def test_the_rule_of_a_camera_is_no_offset_in_the_old_file():
    """Its directory is inside of EXIF's; copied as a number, it would point to nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        one = picture.read(Encoded(carrying.jpeg(exif=of_camera(1, "R98")), ".jpg"))
        for block in (one.exif, metadata.set_exif_size(one.exif, (3, 5))):
            told = Image.Exif()
            told.load(block)
            assert told.get_ifd(0xA005) == {1: "R98", 2: b"0100"}


def test_a_page_that_is_a_mask_costs_no_other():
    """Pillow cannot decode it; the picture before it is whole."""
    source = Encoded(with_mask(), ".tif")
    [one], count = picture.read_frames(source)
    assert (one.pixels == PIXELS).all() and count == 2
    assert "only the first frame" in " ".join(one.warnings)
    with pytest.raises(ImageError, match="a kind that is not read"):
        picture.read_frames(source, picture.Reading(frames="all"))


CHROMATICITY = st.floats(allow_nan=True) | st.integers(-5, 5)


@given(st.lists(CHROMATICITY, max_size=9), st.lists(CHROMATICITY, max_size=3), CHROMATICITY)
def test_any_colours_in_exif_make_a_profile_that_parses_or_none(primaries, white, gamma):
    class Tags(dict):
        def get_ifd(self, number):
            return {0xA500: gamma} if number == 0x8769 else {}

    image, notes = Image.new("RGB", (1, 1)), []
    image.format, image.getexif = "JPEG", lambda: Tags({318: white, 319: primaries})
    made = colours.find_profile(b"", image, None, False, notes)
    assert made is None or ImageCms.ImageCmsProfile(io.BytesIO(made)).profile.xcolor_space == "RGB "
    assert made is None or notes


def test_names_of_document_and_page_come_back_from_each_format(tmp_path):
    data = next(case for case in CASES if "document" in case.what).data()
    one = picture.read(Encoded(data, ".tif"))
    for format, suffix in FORMATS.items():
        encode.encode(one, tmp_path / f"a{suffix}", format)
        told = Image.Exif()
        told.load(picture.read(tmp_path / f"a{suffix}").exif)
        assert (told[269], told[285]) == ("a scan", "page 7"), format


def test_xmp_promises_no_gain_map_and_no_video_any_more():
    for more, word in ((carrying.GAIN, GAIN_SPACE), (carrying.MOTION, "MotionPhoto")):
        one = picture.read(Encoded(carrying.jpeg(xmp=carrying.xmp(more)), ".jpg"))
        assert word.encode() not in one.xmp and b"A bridge" in one.xmp


def test_a_gain_map_behind_a_jpeg_is_no_second_frame():
    main = Image.fromarray(PIXELS)
    buffer = io.BytesIO()
    main.save(buffer, "MPO", save_all=True, append_images=[Image.fromarray(PIXELS[:8, :8])])
    whole = buffer.getvalue()
    assert picture.read_frames(Encoded(whole, ".jpg"))[1] == 2
    said = carrying.segment(0xE1, JPEG_XMP + carrying.xmp(carrying.GAIN))
    _, count = picture.read_frames(Encoded(whole[:2] + said + whole[2:], ".jpg"))
    assert count == 1


def test_ten_thousand_scans_of_a_video_behind_a_jpeg_are_none_of_its_own():
    one = picture.read(Encoded(carrying.jpeg(after=carrying.VIDEO * 20), ".jpg"))
    assert one.size == PIXELS.shape[:2]


def test_strip_takes_all_that_tells_who_and_where():
    both = carrying.jpeg(carrying.photoshop(carrying.IPTC), comment=b"of the sea", dpi=(300, 300))
    [gps], _ = picture.read_frames(Encoded(both, ".jpg"), picture.Reading(strip="gps"))
    assert gps.iptc is None and any("IPTC" in note for note in gps.warnings)
    [none], _ = picture.read_frames(Encoded(both, ".jpg"), picture.Reading(strip="all"))
    assert (none.iptc, none.texts, none.dpi) == (None, (), (300, 300))


def test_a_made_profile_says_what_the_file_said():
    """Linear light, read through its profile, is what the sRGB curve makes of it."""
    one = convert_to_srgb(picture.read(Encoded(carrying.png(carrying.gama(1.0)), ".png")))
    linear = PIXELS / 255
    want = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(one.pixels - want * 255).max() <= 2
    swapped = convert_to_srgb(
        picture.read(Encoded(carrying.png(carrying.chrm(carrying.WIDE)), ".png"))
    )
    assert np.abs(swapped.pixels.astype(int) - PIXELS[..., [1, 0, 2]]).max() <= 2


@given(st.tuples(*[st.floats(-1, 2) for _ in range(8)]), st.floats(0.11, 9.9), st.booleans())
def test_any_primaries_make_a_profile_that_parses_or_none(points, power, grey):
    try:
        made = icc.build_profile(points, (power,), grey, "any")
    except ValueError:
        return
    parsed = ImageCms.ImageCmsProfile(io.BytesIO(made)).profile
    assert parsed.xcolor_space.strip() == ("GRAY" if grey else "RGB")


@pytest.mark.parametrize("fact", FACTS)
@pytest.mark.parametrize("format", FORMATS)
def test_what_a_format_cannot_hold_is_named(tmp_path, fact, format):
    became, notes = carrying.goes(fact, format, tmp_path)
    assert bool(notes) == (became != "kept")


def test_software_of_the_camera_stays_in_a_tiff(tmp_path):
    assert carrying.goes("EXIF", "tiff", tmp_path) == ("kept", [])


def table() -> str:
    """docs/reference/formats.md's tables, by trying."""
    lines = ["| file | says | becomes |", "| --- | --- | --- |"]
    for case in CASES:
        became, _, _ = carrying.came(case)
        lines.append(f"| {case.format} | {case.what} | {became} |")
    return "\n".join(lines)


def outward(folder: Path) -> str:
    lines = [f"| said | {' | '.join(FORMATS)} |", "| --- " * (len(FORMATS) + 1) + "|"]
    for fact in FACTS:
        cells = [carrying.goes(fact, format, folder)[0] for format in FORMATS]
        lines.append(f"| {fact} | {' | '.join(cells)} |")
    return "\n".join(lines)


def test_the_tables_in_the_docs_are_current(tmp_path):
    """With RESTORE_WRITE_DOCS=1 they are written anew."""
    head, *_ = PAGE.read_text(encoding="utf-8").partition("## What comes in")
    parts = (head.rstrip(), "## What comes in", table(), "## What goes out", outward(tmp_path))
    text = "\n\n".join(parts) + "\n"
    if os.environ.get("RESTORE_WRITE_DOCS"):
        PAGE.write_text(text, encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == text


def test_16_bits_by_planes_agree_with_tifffile_in_any_packing():
    for how in ({}, {"compression": "zlib"}, {"compression": "zlib", "tile": (16, 16)}):
        data = carrying.tiff(
            carrying.planes(DEEP), photometric="rgb", planarconfig="separate", **how
        )
        assert (picture.read(Encoded(data, ".tif")).pixels == DEEP).all()


@pytest.mark.parametrize("size", [(1, 1), (5, 60), (60, 5), (7, 7), (1, 300)])
@pytest.mark.parametrize("format", FORMATS)
def test_results_thinner_than_a_block_are_written_and_checked(tmp_path, size, format):
    one = picture.Picture(np.full((*size, 3), 90, np.uint8))
    path = tmp_path / f"a{FORMATS[format]}"
    encode.encode(one, path, format)
    assert picture.read(path).size == size


def test_training_sees_what_the_file_shows():
    """A profile is heeded where pixels go on without it; sRGB's own costs no level."""
    linear = picture.read(Encoded(carrying.png(carrying.gama(1.0)), ".png"))
    assert np.abs(picture.to_rgb8(linear).astype(int) - PIXELS).max() > 20
    assert (picture.to_rgb8(linear) == convert_to_srgb(linear).pixels).all()
    usual = picture.read(Encoded(carrying.saved(PIXELS, "PNG", icc_profile=carrying.SRGB), ".png"))
    assert (picture.to_rgb8(usual) == PIXELS).all()
    deep = picture.Picture(DEEP, icc=carrying.SRGB)
    assert convert_to_srgb(deep).depth == 16 and convert_to_srgb(deep).icc is None


@pytest.mark.parametrize("told", [{}, {282: 300.0}, {283: 300.0}, {296: 2}, {282: 1, 283: 1}])
def test_a_tiff_that_tells_no_resolution_has_none(tmp_path, told):
    Image.fromarray(PIXELS).save(tmp_path / "a.tif", tiffinfo=told)
    one = picture.read(tmp_path / "a.tif")
    assert one.dpi == ((1, 1) if len(told) == 2 else None) and not one.warnings


@pytest.mark.parametrize(
    "format", ["BMP", "DIB", "PNG", "GIF", "PPM", "TGA", "WEBP", "AVIF", "JPEG"]
)
def test_no_format_invents_a_resolution(format):
    how = {"dpi": (0, 0)} if format in ("BMP", "DIB") else {}
    data = carrying.saved(PIXELS, format, **how)
    assert picture.read(Encoded(data, f".{format.lower()}")).dpi is None


# The whole way: nothing that came in is missing from a result without a word in its row

SAID = {
    "icc": "profile",
    "exif": "EXIF",
    "xmp": "XMP",
    "iptc": "IPTC",
    "dpi": "resolution",
    "texts": "texts",
}


@pytest.mark.parametrize("words", [(), ("--format", "jpeg", "--background", "white")])
def test_a_folder_of_all_goes_through_and_each_row_says_what_was_lost(restored, tmp_path, words):
    (tmp_path / "in").mkdir()
    names = {}
    for number, case in enumerate(CASES):
        names[f"{number:02}{case.suffix}"] = case
        (tmp_path / "in" / f"{number:02}{case.suffix}").write_bytes(case.data())
    code, rows, _ = restored(*words)
    assert code == 1 and rows.keys() == names.keys()
    for name, case in names.items():
        row = rows[name]
        told = " ".join(row.get("warnings") or [row.get("error", "")])
        assert row["status"] == ("failed" if case.becomes == "refused" else "done")
        assert case.note in told, (case, told)
        if row["status"] == "failed":
            continue
        source = picture.read(tmp_path / "in" / name)
        made = picture.read(tmp_path / "out" / row["output"])
        for fact, word in SAID.items():
            if getattr(source, fact):
                assert getattr(made, fact) or word in told, (case, fact, told)
        if source.depth > made.depth:
            assert "8 bits" in told


def test_a_part_of_exif_that_is_not_there_is_not_asked_for(monkeypatch, tmp_path):
    """Pillow 12.3 raises a KeyError then, and the colours that the tags tell were dropped."""
    ask = Image.Exif.get_ifd

    def get_ifd(exif, tag):
        if tag == ExifTags.IFD.Interop and tag not in ask(exif, ExifTags.IFD.Exif):
            raise KeyError(tag)
        return ask(exif, tag)

    monkeypatch.setattr(Image.Exif, "get_ifd", get_ifd)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.tif")
    assert picture.read(tmp_path / "a.tif").warnings == ()
