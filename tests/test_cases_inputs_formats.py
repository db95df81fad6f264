"""Pictures of every kind: cases 21 to 52, 54 and 56 of the catalogue, by the command.

The model is a stand-in that repeats each pixel, so that what comes out can be told from what came
in; reading, planning, writing and the report are real.
"""

import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import broken
import cv2
import numpy as np
import PIL
import profiles
import pytest
import tifffile
from PIL import Image, ImageCms

from restore import cli
from restore.checkpoints import devices, manifest
from restore.images import picture as images
from restore.images.picture import Reading
from restore.tasks import run as tasks_run

RNG = np.random.default_rng(3)
COLOURS = cv2.GaussianBlur(RNG.integers(0, 256, (24, 32, 3), np.uint8), (0, 0), 2)
GREY = COLOURS[..., 1]
ALPHA = np.tile(np.linspace(0, 255, 32).astype(np.uint8), (24, 1))
DEEP = RNG.integers(0, 65536, (24, 32, 3), np.uint16)
INKS = RNG.integers(0, 6, (24, 32, 4)).astype(np.uint8) * 51
INKS = np.repeat(np.repeat(INKS[::8, ::8], 8, 0), 8, 1)  # flat patches: JPEG keeps them
LEVELS = (40, 120, 200)  # of frames


def twice(array):
    return np.repeat(np.repeat(array, 2, 0), 2, 1)


@pytest.fixture
def command(capsys, tmp_path, monkeypatch):
    """`restore upscale -s 2` over the folder `in` by pixels repeated: (code, out, err)."""

    def load(*_, **__):
        return SimpleNamespace(parts=[], scale=4)

    def restore(picture, options, stack, seed, mask=None, on_frame=None):
        alpha = None if picture.alpha is None else twice(picture.alpha)
        return replace(picture, pixels=twice(picture.pixels), alpha=alpha)

    monkeypatch.setattr(manifest, "find_model", lambda name, **_: (Path(name), "w"))
    monkeypatch.setattr(devices, "load", load)
    monkeypatch.setattr(tasks_run, "restore", restore)
    (tmp_path / "in").mkdir()

    def run(*words, out="out"):
        asked = [str(tmp_path / "in"), "-s", "2", "-o", str(tmp_path / out)]
        code = cli.main(["upscale", *asked, *map(str, words)])
        said = capsys.readouterr()
        return code, said.out, said.err

    run.rows = lambda out="out": {
        row["key"]: row
        for row in map(json.loads, (tmp_path / out / "report.jsonl").read_text().splitlines())
    }
    return run


def made(tmp_path, name, out="out") -> tuple[np.ndarray, str]:
    with Image.open(tmp_path / out / name) as image:
        return np.asarray(image), image.mode


# Modes: 21 to 28, 35, 37


def test_case_21_22_23_25_26_27_28_modes_and_alpha_are_kept(command, tmp_path):
    source = tmp_path / "in"
    palette = Image.fromarray(COLOURS).quantize(16)
    seen = np.asarray(palette.convert("RGB"))
    hidden = tuple(int(v) for v in COLOURS[0, 0])
    pictures = {
        "21_l": (Image.fromarray(GREY), {}, "L", GREY),
        "22_la": (Image.fromarray(np.dstack([GREY, ALPHA])), {}, "LA", np.dstack([GREY, ALPHA])),
        "23_rgba": (
            Image.fromarray(np.dstack([COLOURS, ALPHA])),
            {},
            "RGBA",
            np.dstack([COLOURS, ALPHA]),
        ),
        "25_p": (palette, {}, "RGB", seen),
        "26_p_alpha": (
            palette,
            {"transparency": 3},
            "RGBA",
            np.dstack([seen, np.where(np.asarray(palette) == 3, 0, 255)]),
        ),
        "27_trns": (
            Image.fromarray(COLOURS),
            {"transparency": hidden},
            "RGBA",
            np.dstack([COLOURS, np.where((hidden == COLOURS).all(2), 0, 255)]),
        ),
        "28_bits": (Image.fromarray(GREY > 99), {}, "L", (GREY > 99) * 255),
    }
    for name, (image, how, _, _) in pictures.items():
        image.save(source / f"{name}.png", **how)
    assert command()[0] == 0
    for name, (_, _, mode, expected) in pictures.items():
        found, its = made(tmp_path, f"{name}.png")
        assert its == mode, name
        assert (found == twice(expected)).all(), name
        assert command.rows()[f"{name}.png"]["warnings"] == []


def test_case_24_transparency_into_jpeg_is_refused_in_the_plan(command, tmp_path):
    Image.fromarray(np.dstack([COLOURS, ALPHA])).save(tmp_path / "in" / "a.png")
    Image.fromarray(COLOURS).save(tmp_path / "in" / "b.png")
    code, _, err = command("--format", "jpeg")
    assert code == 2 and "a.png: transparent" in err and "b.png" not in err
    assert not (tmp_path / "out").exists()
    assert command("--format", "jpeg", "--background", "#0a141e")[0] == 0
    found = made(tmp_path, "a.jpg")[0].astype(int)
    assert np.abs(found[:, :2] - (10, 20, 30)).max() < 12


def test_case_35_ycbcr_becomes_rgb(command, tmp_path):
    # Pillow 12 calls such a TIFF truncated, even where it wrote it.
    names = ("y.jpg", "y.tif") if int(PIL.__version__.split(".")[0]) > 12 else ("y.jpg",)
    for name in names:
        Image.fromarray(COLOURS).convert("YCbCr").save(tmp_path / "in" / name)
    assert command("--format", "png", "--on-collision", "keep-ext")[0] == 0
    for name in names:
        found, mode = made(tmp_path, f"{name}.png")
        assert mode == "RGB" and np.abs(found.astype(int) - twice(COLOURS)).mean() < 6


def test_case_37_all_transparent_stays_so(command, tmp_path):
    clear = np.dstack([COLOURS, np.zeros_like(GREY)])
    Image.fromarray(clear).save(tmp_path / "in" / "a.png")
    assert command()[0] == 0
    found, mode = made(tmp_path, "a.png")
    assert mode == "RGBA" and not found[..., 3].any()


# Depth: 29 to 32


def test_case_29_30_31_16_bits_stay_16_bits(command, tmp_path):
    source = tmp_path / "in"
    Image.fromarray(DEEP[..., 0]).save(source / "29_i16.png")
    Image.fromarray(DEEP[..., 0]).save(source / "29_i16t.tif")
    cv2.imwrite(str(source / "30_rgb16.png"), DEEP[..., ::-1])
    tifffile.imwrite(source / "31_rgb16.tif", DEEP, photometric="rgb")
    ways = {"": DEEP, "_tiff": DEEP}
    assert command()[0] == 0 and command("--format", "tiff", out="tiff")[0] == 0
    for name, expected in [
        ("29_i16", DEEP[..., :1].repeat(3, 2)),
        ("29_i16t", DEEP[..., :1].repeat(3, 2)),
        ("30_rgb16", ways[""]),
        ("31_rgb16", ways["_tiff"]),
    ]:
        for path in (tmp_path / "out" / f"{name}.png", tmp_path / "tiff" / f"{name}.tif"):
            back = images.read(path)
            assert back.depth == 16 and (back.pixels == twice(expected)).all(), path
            levels = [len(np.unique(back.pixels[..., c])) for c in range(3)]
            assert min(levels) > 256
    assert all(row["warnings"] == [] for row in command.rows().values())


def test_case_30_what_a_format_cannot_hold_is_told(command, tmp_path):
    cv2.imwrite(str(tmp_path / "in" / "a.png"), DEEP[..., ::-1])
    assert command("--format", "webp")[0] == 0
    assert command.rows()["a.png"]["warnings"] == ["depth reduced to 8 bits for webp"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_case_32_floats_become_16_bits_or_are_refused(command, tmp_path, dtype):
    source = tmp_path / "in"
    values = (DEEP / 65535).astype(dtype)
    tifffile.imwrite(source / "colours.tif", values, photometric="rgb")
    tifffile.imwrite(source / "bright.tif", values * 4, photometric="rgb")
    tifffile.imwrite(source / "nan.tif", np.where(values > 0.5, np.nan, values), photometric="rgb")
    if dtype == np.float32:
        tifffile.imwrite(source / "grey.tif", values[..., 0], photometric="minisblack")
    assert command()[0] == 1
    rows = command.rows()
    assert rows["bright.tif"]["code"] == rows["nan.tif"]["code"] == "UNSUPPORTED"
    told = ["depth reduced from floats to 16 bits"]
    assert rows["colours.tif"]["warnings"] == told
    back = images.read(tmp_path / "out" / "colours.png")
    assert (back.pixels == twice(DEEP)).all()
    if dtype == np.float32:
        assert (images.read(tmp_path / "out" / "grey.png").pixels == twice(DEEP[..., :1])).all()


# Colours: 33, 34, 36, 43, 44


def test_case_33_34_cmyk_goes_through_its_profile(command, tmp_path):
    """Inverted as Adobe's JPEGs are, and not inverted as in TIFF."""
    image = Image.frombytes("CMYK", (32, 24), INKS.tobytes())
    printer = profiles.printer()
    image.save(tmp_path / "in" / "33.tif", icc_profile=printer)
    image.save(tmp_path / "in" / "34.jpg", icc_profile=printer, quality=100, subsampling=0)
    image.save(tmp_path / "in" / "no_profile.tif")
    assert b"Adobe" in (tmp_path / "in" / "34.jpg").read_bytes()
    assert command("--format", "png")[0] == 0
    expected = profiles.to_lab(profiles.ink(twice(INKS)))
    for name in ("33.png", "34.png"):
        found, mode = made(tmp_path, name)
        assert mode == "RGB"
        assert profiles.distance(profiles.to_lab(found / 255), expected) <= 2, name
    assert "colours converted from CMYK to sRGB" in command.rows()["33.tif"]["warnings"]
    plain = np.asarray(image.convert("RGB"))
    assert (made(tmp_path, "no_profile.png")[0] == twice(plain)).all()
    assert profiles.distance(profiles.to_lab(twice(plain) / 255), expected) > 4  # another thing


def test_case_36_lab_keeps_its_colours(command, tmp_path):
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    image = ImageCms.profileToProfile(Image.fromarray(COLOURS), srgb, lab, outputMode="LAB")
    image.save(tmp_path / "in" / "a.tif")
    assert command()[0] == 0
    found, _ = made(tmp_path, "a.png")
    pair = (profiles.to_lab(array / 255) for array in (found, twice(COLOURS)))
    assert profiles.distance(*pair) <= 2


@pytest.mark.parametrize("primaries", [profiles.P3, profiles.ADOBE], ids=["p3", "adobe_rgb"])
def test_case_43_a_profile_is_kept_or_its_colours_converted(command, tmp_path, primaries):
    icc = profiles.matrix(primaries)
    slopes = np.linspace(90, 170, 32), np.linspace(170, 100, 24)[:, None], 120  # within sRGB
    soft = np.stack(np.broadcast_arrays(*slopes), 2).astype(np.uint8)
    for name in ("a.png", "b.jpg", "c.webp", "d.avif", "e.tif"):
        fine = {"quality": 100, "subsampling": "4:4:4"} if name[2:] != "tif" else {}
        Image.fromarray(soft).save(tmp_path / "in" / name, icc_profile=icc, **fine)
    assert command("--quality", 100)[0] == 0 and command("--format", "tiff", out="tiff")[0] == 0
    expected = profiles.to_lab(twice(soft) / 255, primaries, lambda rgb: rgb**profiles.GAMMA)
    names = ("a.png", "b.jpg", "c.webp", "d.avif", "e.png")
    for name in names:
        with Image.open(tmp_path / "out" / name) as image:
            assert image.info["icc_profile"] == icc, name
            found = np.asarray(image) / 255
        kept = profiles.to_lab(found, primaries, lambda rgb: rgb**profiles.GAMMA)
        assert profiles.distance(kept, expected) <= 2, name
    with Image.open(tmp_path / "tiff" / "a.tif") as image:
        assert image.info["icc_profile"] == icc
    assert command("--icc", "srgb", "--quality", 100, out="srgb")[0] == 0
    for name in names:
        with Image.open(tmp_path / "srgb" / name) as image:
            assert "icc_profile" not in image.info
            found = np.asarray(image) / 255
        assert profiles.distance(profiles.to_lab(found), expected) <= 2, name


def test_case_43_of_16_bits_converted_the_loss_is_told(command, tmp_path):
    icc = profiles.matrix(profiles.P3)
    tifffile.imwrite(tmp_path / "in" / "a.tif", DEEP, photometric="rgb", iccprofile=icc)
    assert command("--icc", "srgb")[0] == 0
    assert "depth reduced to 8 bits" in command.rows()["a.tif"]["warnings"][0]
    assert command(out="kept")[0] == 0
    kept = images.read(tmp_path / "kept" / "a.png")
    assert kept.icc == icc and (kept.pixels == twice(DEEP)).all()


def test_case_44_a_broken_profile_is_dropped_and_told(command, tmp_path):
    broken_icc = profiles.matrix(profiles.P3)[:200]
    Image.fromarray(COLOURS).save(tmp_path / "in" / "a.png", icc_profile=broken_icc)
    assert command()[0] == 0
    assert any("profile is dropped" in note for note in command.rows()["a.png"]["warnings"])
    with Image.open(tmp_path / "out" / "a.png") as image:
        assert "icc_profile" not in image.info


# What is told beside the pixels: 39 to 42, 45 to 47

STORED = {  # undoing what the tag asks for
    **{2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180},
    **{4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE},
    **{6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE},
    **{8: Image.Transpose.ROTATE_270},
}


def test_case_39_40_41_eight_orientations_in_three_formats_come_back_upright(command, tmp_path):
    quarters = np.zeros((32, 48, 3), np.uint8)
    quarters[:16, :24], quarters[:16, 24:], quarters[16:, :24] = (
        (250, 0, 0),
        (0, 250, 0),
        (0, 0, 250),
    )
    names = [f"{tag}.{suffix}" for tag in range(1, 9) for suffix in ("jpg", "png", "tif")]
    for name in names:
        tag = int(name[0])
        stored = Image.fromarray(quarters)
        stored = stored.transpose(STORED[tag]) if tag in STORED else stored
        exif = Image.Exif()
        exif[0x0112] = tag
        stored.save(tmp_path / "in" / name, exif=exif, quality=95)
    assert command("--on-collision", "keep-ext")[0] == 0
    for name in names:
        path = tmp_path / "out" / (name + ".png" if name.endswith("tif") else name)
        assert images.probe(tmp_path / "in" / name).size == (32, 48), name
        with Image.open(path) as image:
            assert image.size == (96, 64), name
            assert image.getexif().get(0x0112, 1) == 1, name
            off = np.abs(np.asarray(image).astype(int) - twice(quarters))
        assert off[8:24, 8:40].max() < 30 and off[40:56, 56:88].max() < 30, name


@pytest.mark.parametrize("tag", range(1, 9))
def test_case_41_a_deep_tiff_comes_back_upright_too(tmp_path, tag):
    for name, array in [("deep.tif", DEEP), ("float.tif", (DEEP / 65535).astype(np.float32))]:
        inverse = {6: 8, 8: 6}.get(tag, tag)
        stored = images.apply_orientation(array, inverse)
        extra = [(274, "H", 1, tag, True)]
        tifffile.imwrite(tmp_path / name, stored, photometric="rgb", extratags=extra)
        picture = images.read(tmp_path / name)
        assert picture.depth == 16 and (picture.pixels == DEEP).all(), name
        assert images.probe(tmp_path / name).size == (24, 32)


def test_case_42_an_orientation_that_does_not_exist_is_told(command, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 99
    Image.fromarray(COLOURS).save(tmp_path / "in" / "a.png", exif=exif)
    assert command()[0] == 0
    assert (made(tmp_path, "a.png")[0] == twice(COLOURS)).all()
    told = ["orientation 99 does not exist; taken as upright"]
    assert command.rows()["a.png"]["warnings"] == told


XMP = b"""<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:exif="http://ns.adobe.com/exif/1.0/"
 xmlns:dc="http://purl.org/dc/elements/1.1/" tiff:Orientation="6" tiff:ImageWidth="32"
 exif:GPSLatitude="47,22.5N" dc:title="A bridge">
<tiff:ImageLength>24</tiff:ImageLength><exif:GPSLongitude>8,32.4E</exif:GPSLongitude>
<exif:PixelXDimension>32</exif:PixelXDimension>
</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""


def with_place():
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", 6
    exif.get_ifd(0x8769)[0xA002] = 32
    exif.get_ifd(0x8825)[1] = "N"
    exif.get_ifd(0x8825)[2] = (47.0, 22.0, 30.0)
    return {"exif": exif, "xmp": XMP, "quality": 95}


def told_by(path):
    """(EXIF, XMP) of a file, as a stranger reads it."""
    with Image.open(path) as image:
        exif = image.getexif()
        for part in (0x8769, 0x8825):  # read while the file is open
            exif.get_ifd(part)
        return exif, image.info.get("xmp") or b""


def test_case_45_the_place_is_gone_with_strip_and_only_then(command, tmp_path):
    names = ("a.jpg", "b.webp", "c.avif")
    for name in names:
        Image.fromarray(COLOURS).save(tmp_path / "in" / name, **with_place())
    for words, out in [((), "out"), (("--strip", "gps"), "gps"), (("--strip", "all"), "all")]:
        assert command(*words, out=out)[0] == 0
        for name in names:
            exif, xmp = told_by(tmp_path / out / name)
            assert bool(exif.get_ifd(0x8825)) == (b"GPS" in xmp) == (out == "out"), (out, name)
            assert (b"A bridge" in xmp) == ("Maker" in exif.get(0x010F, "")) == (out != "all")
            data = (tmp_path / out / name).read_bytes()
            assert (b"47,22.5N" in data) == (out == "out")


@pytest.mark.parametrize("form", ["png", "jpeg", "webp", "avif", "tiff"])
def test_case_45_46_what_is_kept_is_true_of_the_new_size(command, tmp_path, form):
    Image.fromarray(COLOURS).save(tmp_path / "in" / "a.jpg", **with_place())
    assert command("--format", form)[0] == 0
    [path] = (tmp_path / "out").glob("a.*")
    exif, xmp = told_by(path)
    assert b'tiff:ImageWidth="48"' in xmp and b"<tiff:ImageLength>64<" in xmp
    assert b"<exif:PixelXDimension>48<" in xmp and b'tiff:Orientation="1"' in xmp
    assert exif.get_ifd(0x8769) == {0xA002: 48, 0xA003: 64}


def test_case_46_ten_megabytes_of_xmp_cost_nothing_but_themselves(command, tmp_path):
    large = XMP.replace(b"A bridge", b"A bridge" + b"!" * 10**7)
    data = broken.encoded(COLOURS)
    text = b"XML:com.adobe.xmp\0\0\0\0\0" + large
    path = tmp_path / "in" / "a.png"
    path.write_bytes(data[:33] + broken.chunk(b"iTXt", text) + data[33:])
    assert command()[0] == 0
    assert b"A bridge!!!" in told_by(tmp_path / "out" / "a.png")[1]
    assert command("--format", "jpeg", out="jpeg")[0] == 0
    assert command.rows("jpeg")["a.png"]["warnings"] == ["XMP dropped: too long for jpeg"]


def test_case_47_hostile_texts_stay_in_the_picture(command, tmp_path):
    evil = b"\x1b[31m../../etc/passwd<script>alert(1)</script>"
    data = broken.encoded(COLOURS)
    path = tmp_path / "in" / "a.png"
    path.write_bytes(
        data[:33]
        + broken.chunk(b"tEXt", b"Comment\0" + evil)
        + broken.chunk(b"zTXt", b"../x\0\0" + zlib.compress(evil))
        + data[33:]
    )
    code, out, err = command()
    assert code == 0 and "\x1b" not in out + err
    assert (made(tmp_path, "a.png")[0] == twice(COLOURS)).all()
    with Image.open(tmp_path / "out" / "a.png") as image:
        assert image.text == {"Comment": evil.decode(), "../x": evil.decode()}
    for file in (tmp_path / "out").rglob("*.*"):
        if file.is_file() and file.name != "a.png":
            assert b"passwd" not in file.read_bytes() and b"<script>alert" not in file.read_bytes()


# Several frames: 48 to 52


def write_frames(folder: Path) -> dict[str, int]:
    """Files of three frames; the name of each and how exact it is."""
    for name, how in [
        ("48.gif", {"duration": 50}),
        ("49.webp", {"lossless": True}),
        ("50.png", {}),
        ("51.tif", {}),
        ("52.jpg", {"format": "MPO", "quality": 95}),
    ]:
        first, *others = (Image.fromarray(np.full((16, 16, 3), v, np.uint8)) for v in LEVELS)
        first.save(folder / name, save_all=True, append_images=others, **how)
    deep = np.stack([np.full((16, 16, 3), level * 257 + 1, np.uint16) for level in LEVELS])
    tifffile.imwrite(folder / "51_deep.tif", deep, photometric="rgb")
    return {"48.gif": 8, "49.webp": 0, "50.png": 0, "51.tif": 0, "52.jpg": 3, "51_deep.tif": 0}


def test_case_48_49_50_51_52_the_first_frame_is_taken_and_told(command, tmp_path):
    names = write_frames(tmp_path / "in")
    assert command("--format", "png")[0] == 0
    rows = command.rows()
    for name, off in names.items():
        assert rows[name]["n_frames"] == 3
        assert (
            "only the first frame is taken, of 3; --frames all keeps them all"
            in rows[name]["warnings"]
        )
        found = images.read(tmp_path / "out" / Path(name).with_suffix(".png"))
        eight = found.pixels if found.depth == 8 else images.to_uint8(found.pixels)
        assert np.abs(eight.astype(int) - 40).max() <= off, name


def test_case_48_49_50_51_52_all_frames_are_kept(command, tmp_path):
    names = write_frames(tmp_path / "in")
    Image.fromarray(COLOURS).save(tmp_path / "in" / "single.png")
    assert command("--format", "png", "--frames", "all")[0] == 0
    rows = command.rows()
    assert rows["single.png"]["n_frames"] == 1 and "frames" not in rows["single.png"]
    for name, off in names.items():
        stem = Path(name).stem
        assert rows[name]["n_frames"] == 3 and rows[name]["warnings"] == []
        assert list(rows[name]["frames"]) == [f"{stem}_002.png", f"{stem}_003.png"]
        for ending, level in [("", 40), ("_002", 120), ("_003", 200)]:
            found = images.read(tmp_path / "out" / f"{stem}{ending}.png")
            assert found.depth == (16 if "deep" in name else 8)
            eight = found.pixels if found.depth == 8 else images.to_uint8(found.pixels)
            assert np.abs(eight.astype(int) - level).max() <= off, (name, ending)
    assert "7 finished" in command("--format", "png", "--frames", "all")[1]


def test_case_48_49_50_51_52_or_they_are_refused(command, tmp_path):
    names = write_frames(tmp_path / "in")
    assert command("--format", "png", "--frames", "refuse")[0] == 1
    assert {command.rows()[name]["code"] for name in names} == {"FRAMES"}


def test_case_48_two_that_want_one_name_are_found_in_the_plan(command, tmp_path):
    write_frames(tmp_path / "in")
    Image.fromarray(COLOURS).save(tmp_path / "in" / "48_002.png")
    code, _, err = command("--format", "png", "--frames", "all")
    assert code == 2 and "48_002.png" in err and not (tmp_path / "out").exists()
    assert command("--frames", "all", "--find-scratches")[0] == 2


def test_case_51_pages_of_too_many_pixels_together_are_refused(tmp_path, monkeypatch):
    write_frames(tmp_path)
    monkeypatch.setattr(images.decoding, "MAX_PIXELS", 600)
    assert len(images.read_frames(tmp_path / "51.tif")[0]) == 1
    with pytest.raises(images.ImageError, match="too many pixels"):
        images.read_frames(tmp_path / "51.tif", Reading(frames="all"))


# Formats: 54, 56


def test_case_54_56_avif_bmp_ppm_and_tga_are_read(command, tmp_path):
    names = {"54.avif": 6, "56.bmp": 0, "56_p.ppm": 0, "56_t.tga": 0, "56_r.tga": 0}
    for name in names:
        how = {"quality": 95} if name == "54.avif" else {}
        how |= {"compression": "tga_rle"} if name == "56_r.tga" else {}
        Image.fromarray(COLOURS).save(tmp_path / "in" / name, **how)
    assert command("--format", "png")[0] == 0
    for name, off in names.items():
        found, mode = made(tmp_path, Path(name).with_suffix(".png").name)
        assert mode == "RGB" and np.abs(found.astype(int) - twice(COLOURS)).mean() <= off, name


@pytest.mark.parametrize(
    ("words", "suffix", "check"),
    [
        (["--format", "webp", "--lossless"], ".webp", lambda data: b"VP8L" in data[:64]),
        (["--format", "jpeg", "--subsampling", "4:4:4"], ".jpg", lambda data: sampling(data) == 17),
        (["--format", "jpeg", "--subsampling", "4:2:0"], ".jpg", lambda data: sampling(data) == 34),
        (["--format", "jpeg", "--quality", "80"], ".jpg", lambda data: sampling(data) == 34),
        (["--format", "avif"], ".avif", lambda data: b"ftypavif" in data[:16]),
    ],
)
def test_what_is_asked_of_a_format_is_done(command, tmp_path, words, suffix, check):
    Image.fromarray(np.dstack([COLOURS, ALPHA])).save(tmp_path / "in" / "a.png")
    assert command(*words, "--background", "white")[0] == 0
    path = tmp_path / "out" / f"a{suffix}"
    assert check(path.read_bytes())
    if "--lossless" in words:
        assert (made(tmp_path, path.name)[0] == twice(np.dstack([COLOURS, ALPHA]))).all()


def sampling(data: bytes) -> int:
    """Of a JPEG's luma: 0x11 where colours are as fine, 0x22 where they are half so both ways."""
    at = data.index(b"\xff\xc0")
    return struct.unpack(">B", data[at + 11 : at + 12])[0]


def test_lossless_auto_and_lossless_jpeg(command, tmp_path):
    for name in ("a.jpg", "b.webp", "c.png", "d.avif"):
        Image.fromarray(COLOURS).save(tmp_path / "in" / name)
    code, _, err = command("--format", "jpeg", "--lossless")
    assert code == 2 and "jpeg is lossy" in err
    assert command("--lossless")[0] == 0
    made_now = {path.name for path in (tmp_path / "out").glob("?.*")}
    assert made_now == {"a.png", "b.webp", "c.png", "d.png"}
    for changed in (["--icc", "srgb"], ["--strip", "gps"], ["--subsampling", "4:2:0"]):
        assert "4 done" in command("--lossless", *changed)[1]  # another thing was asked
    assert "4 finished" in command("--lossless", *changed, "--allow-truncated")[1]
