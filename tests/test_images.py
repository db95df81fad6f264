"""Pictures: each kind of file comes in right, and goes out with all that its format can hold."""

import io
import os
import struct
import subprocess
import sys
import time
import zlib
from itertools import pairwise

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile

from restore.errors import ImageError
from restore.files import replacing
from restore.images import colours, contact_sheet, decode, encode, row_writers
from restore.images.encode import Writing
from restore.images.icc import SRGB as CHROMATICITIES
from restore.images.icc import build_profile
from restore.images.picture import Picture, bleed, probe, read, to_rgb8, to_uint8
from restore.images.resample import resize_alpha, resize_band

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
RNG = np.random.default_rng(7)
COLOURS = cv2.GaussianBlur(RNG.integers(0, 256, (20, 30, 3), np.uint8), (0, 0), 2)
GREY = COLOURS[..., 0]
ALPHA = RNG.integers(0, 256, (20, 30), np.uint8)
DEEP = RNG.integers(0, 65536, (20, 30, 3), np.uint16)
DEEP_ALPHA = RNG.integers(0, 65536, (20, 30), np.uint16)


def encoded(array, format="PNG", mode=None, **how):
    buffer = io.BytesIO()
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(buffer, format, **how)
    return buffer.getvalue()


def saved(tmp_path, data, name="picture.png"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


def code_of(path):
    with pytest.raises(ImageError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}: ")
    return caught.value.code


# What cannot be read


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "NOT_IMAGE"),
        (b"\xff", "NOT_IMAGE"),
        (b"not a picture at all\n" * 9, "NOT_IMAGE"),
        (b"<!doctype html><title>404</title>", "NOT_IMAGE"),
        (RNG.bytes(3000), "NOT_IMAGE"),
        (b"%PDF-1.7\n", "UNSUPPORTED"),
        (b"MM\0+\0\x08\0\0", "UNSUPPORTED"),  # a big-endian BigTIFF
        (b"\0\0\0\x18ftypheic\0\0\0\0", "UNSUPPORTED"),
        (encoded(COLOURS, "JPEG")[:400], "TRUNCATED"),
        (encoded(COLOURS, "JPEG")[:-2], "TRUNCATED"),
        (encoded(COLOURS)[:600], "TRUNCATED"),
        (encoded(COLOURS, "WEBP", lossless=True)[:300], "TRUNCATED"),
        (encoded(COLOURS, "JPEG")[:20], "CORRUPT"),
        (encoded(COLOURS, "AVIF")[:100], "CORRUPT"),
        (encoded(COLOURS)[:80] + b"????" + encoded(COLOURS)[84:], "CORRUPT"),
        (encoded(COLOURS)[:16] + b"\0\0\0\0" + encoded(COLOURS)[20:], "CORRUPT"),
    ],
)
def test_a_bad_file_is_refused_by_its_kind(tmp_path, data, code, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as if the extra were not there
    assert code_of(saved(tmp_path, data, "photo.jpg")) == code


def test_a_missing_an_unreadable_and_an_odd_file_are_named(tmp_path, monkeypatch):
    assert code_of(tmp_path / "gone.png") == "UNREADABLE"
    assert code_of(tmp_path) == "UNREADABLE"
    path = saved(tmp_path, encoded(COLOURS))

    def closed(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", closed)
    assert code_of(path) == "UNREADABLE"


@pytest.mark.parametrize("side", [12_000, 100_000])
def test_a_bomb_is_refused_by_its_header(tmp_path, side):
    ihdr = struct.pack(">II5B", side, side, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", ihdr), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(row_writers.make_png_chunk(*chunk) for chunk in chunks)
    path = saved(tmp_path, data)
    began = time.process_time()  # the machine may be busy
    assert code_of(path) == "TOO_LARGE"
    assert time.process_time() - began < 1
    with pytest.raises(ImageError):
        probe(path)


def test_floats_without_a_white_point_are_refused_and_not_cut(tmp_path):
    path = saved(tmp_path, encoded(np.full((4, 4), 1.5, np.float32), "TIFF"), "f.tif")
    assert code_of(path) == "UNSUPPORTED"


# What comes in right


def test_grey_comes_in_as_grey(tmp_path):
    picture = read(saved(tmp_path, encoded(GREY)))
    assert picture.grey and picture.alpha is None and picture.depth == 8
    assert (picture.pixels == GREY[..., None]).all()


def test_grey_with_alpha(tmp_path):
    picture = read(saved(tmp_path, encoded(np.dstack([GREY, ALPHA]))))
    assert picture.grey
    assert (picture.pixels == GREY[..., None]).all() and (picture.alpha == ALPHA).all()


def test_rgb_and_rgba(tmp_path):
    assert (read(saved(tmp_path, encoded(COLOURS))).pixels == COLOURS).all()
    picture = read(saved(tmp_path, encoded(np.dstack([COLOURS, ALPHA]))))
    assert (picture.pixels == COLOURS).all() and (picture.alpha == ALPHA).all()


def test_a_palette_with_and_without_transparency(tmp_path):
    image = Image.fromarray(COLOURS).quantize(16)
    expected = np.asarray(image.convert("RGB"))
    for how, transparent in [({}, False), ({"transparency": 3}, True)]:
        path = tmp_path / "p.png"
        image.save(path, **how)
        picture = read(path)
        assert (picture.pixels == expected).all()
        assert (picture.alpha is not None) == transparent
        if picture.alpha is not None:
            assert ((picture.alpha == 0) == (np.asarray(image) == 3)).all()


def test_one_colour_declared_transparent(tmp_path):
    path = saved(tmp_path, encoded(COLOURS, transparency=tuple(COLOURS[0, 0].tolist())))
    picture = read(path)
    assert picture.alpha is not None
    assert ((picture.alpha == 0) == (COLOURS[0, 0] == COLOURS).all(axis=2)).all()
    assert read(saved(tmp_path, encoded(GREY, transparency=3))).grey


def test_black_and_white(tmp_path):
    picture = read(saved(tmp_path, encoded(GREY, mode="1")))
    assert picture.grey and set(np.unique(picture.pixels)) <= {0, 255}


@pytest.mark.parametrize("name", ["d.png", "d.tif", "d.ppm"])
def test_16_bit_colour_is_not_cut_to_8(tmp_path, name):
    cv2.imwrite(str(tmp_path / name), DEEP[..., ::-1])
    picture = read(tmp_path / name)
    assert picture.depth == 16 and not picture.grey and not picture.warnings
    assert (picture.pixels == DEEP).all()


@pytest.mark.parametrize("name", ["d.png", "d.tif", "d.pgm"])
def test_16_bit_grey_is_not_cut_to_8(tmp_path, name):
    cv2.imwrite(str(tmp_path / name), DEEP[..., 0])
    picture = read(tmp_path / name)
    assert picture.grey and picture.depth == 16
    assert (picture.pixels == DEEP[..., :1]).all()


def test_16_bit_grey_with_alpha(tmp_path):
    rows = np.dstack([DEEP[..., 0], DEEP_ALPHA]).astype(">u2").reshape(20, -1)
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    ihdr = struct.pack(">II5B", 30, 20, 16, 4, 0, 0, 0)
    chunks = [(b"IHDR", ihdr), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    data = b"\x89PNG\r\n\x1a\n" + b"".join(row_writers.make_png_chunk(*chunk) for chunk in chunks)
    picture = read(saved(tmp_path, data))
    assert picture.grey and picture.depth == 16
    assert (picture.pixels == DEEP[..., :1]).all() and (picture.alpha == DEEP_ALPHA).all()


def test_cmyk_ycbcr_and_lab_become_rgb(tmp_path):
    flat = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    for mode, name in [("CMYK", "c.jpg"), ("CMYK", "c.tif"), ("YCbCr", "y.jpg")]:
        path = tmp_path / name
        Image.fromarray(flat).convert(mode).save(path)
        assert np.abs(read(path).pixels.astype(int) - flat).max() <= 4, name
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    image = ImageCms.profileToProfile(Image.fromarray(flat), srgb, lab, outputMode="LAB")
    image.save(tmp_path / "l.tif")
    assert np.abs(read(tmp_path / "l.tif").pixels.astype(int) - flat).max() <= 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_orientation_is_applied_and_reset(tmp_path, format, orientation):
    quarters = np.zeros((32, 48, 3), np.uint8)
    quarters[:16, :24], quarters[:16, 24:], quarters[16:, :24] = (
        (250, 0, 0),
        (0, 250, 0),
        (0, 0, 250),
    )
    image = Image.fromarray(quarters)
    turned = {  # undoing what the tag asks for
        **{1: None, 2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180},
        **{4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE},
        **{6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE},
        **{8: Image.Transpose.ROTATE_270},
    }[orientation]
    stored = image if turned is None else image.transpose(turned)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "o.img"
    stored.save(path, format, exif=exif, quality=95)
    picture = read(path)
    assert picture.size == probe(path).size == (32, 48)
    assert np.abs(picture.pixels.astype(int) - quarters)[4:12, 4:20].max() < 30
    assert np.abs(picture.pixels.astype(int) - quarters)[20:28, 28:44].max() < 30
    again = Image.Exif()
    again.load(picture.exif)
    assert again[0x0112] == 1


def test_an_orientation_that_does_not_exist_is_upright_and_told(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 99
    picture = read(saved(tmp_path, encoded(COLOURS, exif=exif)))
    assert (picture.pixels == COLOURS).all()
    assert any("orientation 99" in warning for warning in picture.warnings)


def test_broken_exif_costs_nothing_but_itself(tmp_path):
    path = saved(tmp_path, encoded(COLOURS, "JPEG", exif=b"Exif\0\0MM\0*\0\0\xff\xff????"))
    assert read(path).size == (20, 30)


def test_a_broken_or_unfit_profile_is_dropped_and_told(tmp_path):
    for array, icc in [(COLOURS, b"no profile"), (GREY, SRGB)]:
        picture = read(saved(tmp_path, encoded(array, "JPEG", icc_profile=icc), "p.jpg"))
        assert picture.icc is None
        assert any("profile is dropped" in warning for warning in picture.warnings)


def test_of_an_animation_the_first_frame_is_taken_and_told(tmp_path):
    frames = [Image.fromarray(COLOURS), Image.fromarray(255 - COLOURS)]
    for name in ("a.gif", "a.webp", "a.png", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        picture = read(tmp_path / name)
        assert (
            "only the first frame is taken, of 2; --frames all keeps them all" in picture.warnings
        ), name
        assert np.abs(picture.pixels.astype(int) - COLOURS).mean() < 12


def test_what_counts_is_the_bytes_not_the_name(tmp_path):
    picture = read(saved(tmp_path, encoded(COLOURS), "picture.jpg"))
    assert picture.format == "PNG" and (picture.pixels == COLOURS).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (3, 3), (500, 1)])
def test_the_smallest_pictures(tmp_path, size):
    array = RNG.integers(0, 256, (*size, 3), np.uint8)
    assert (read(saved(tmp_path, encoded(array))).pixels == array).all()


# What goes out


@pytest.mark.parametrize("format", ["png", "tiff"])
@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("with_alpha", [False, True])
@pytest.mark.parametrize("depth", [8, 16])
def test_png_and_tiff_keep_depth_grey_and_alpha(tmp_path, format, grey, with_alpha, depth):
    pixels, alpha = (COLOURS, ALPHA) if depth == 8 else (DEEP, DEEP_ALPHA)
    if grey:
        pixels = np.repeat(pixels[..., :1], 3, axis=2)
    icc = None if grey else SRGB
    picture = Picture(pixels, alpha if with_alpha else None, grey, icc)
    path = tmp_path / "out"
    assert encode.encode(picture, path, format) == []
    back = read(path)
    assert back.warnings == ()
    assert back.depth == depth and back.icc == icc
    assert (back.pixels == pixels).all()
    if with_alpha:
        assert (back.alpha == alpha).all()
    else:
        assert back.alpha is None and back.grey == grey
    with Image.open(path) as image:  # as strangers see it
        image.load()
        assert image.size == (30, 20)


@pytest.mark.parametrize("pixels", [COLOURS, DEEP])
def test_a_png_of_transparent_grey_stays_grey_and_keeps_its_profile(tmp_path, pixels):
    alpha = ALPHA if pixels.dtype == np.uint8 else DEEP_ALPHA
    profile = build_profile(CHROMATICITIES, (1.8,), True, "grey")
    grey = np.repeat(pixels[..., :1], 3, 2)
    written = Picture(grey, alpha, grey=True, icc=profile)
    assert encode.encode(written, tmp_path / "g.png", "png") == []
    again = read(tmp_path / "g.png")
    assert again.grey and again.icc == profile and again.warnings == ()
    assert (again.pixels == grey).all() and (again.alpha == alpha).all()


@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "tiff"])
def test_profile_and_exif_survive(tmp_path, format):
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker", 6
    exif.get_ifd(0x8769)[0x829A] = 0.5  # exposure time
    exif.get_ifd(0x8769)[0xA002] = 999  # the old width, which would be wrong
    exif.get_ifd(0x8825)[1] = "N"
    source = saved(tmp_path, encoded(COLOURS, "JPEG", exif=exif, icc_profile=SRGB), "s.jpg")
    notes = encode.encode(read(source), tmp_path / "out", format)
    back = read(tmp_path / "out")
    assert back.size == (30, 20) and back.icc == SRGB
    assert notes == []
    told = Image.Exif()
    told.load(back.exif)
    assert told[0x010F].rstrip("\0") == "Maker" and told[0x0112] == 1
    assert told.get_ifd(0x8769) == {0x829A: 0.5, 0xA002: 20, 0xA003: 30}
    assert told.get_ifd(0x8825)[1].rstrip("\0") == "N"


def test_16_bits_are_rounded_where_only_8_fit_and_told(tmp_path):
    notes = encode.encode(Picture(DEEP), tmp_path / "out", "webp", Writing(quality=100))
    assert notes == ["depth reduced to 8 bits for webp"]
    levels = np.arange(65536, dtype=np.uint16)
    assert (to_uint8(levels) == np.rint(levels / 257)).all()


def test_transparency_to_jpeg_needs_a_background(tmp_path):
    picture = Picture(np.full((16, 16, 3), 200, np.uint8), np.zeros((16, 16), np.uint8))
    with pytest.raises(ImageError, match="--background"):
        encode.encode(picture, tmp_path / "out.jpg", "jpeg")
    assert not list(tmp_path.iterdir())
    encode.encode(picture, tmp_path / "out.jpg", "jpeg", Writing(background=(10, 200, 30)))
    back = read(tmp_path / "out.jpg").pixels.astype(int)
    assert np.abs(back - (10, 200, 30)).max() <= 3


def test_a_size_that_the_format_cannot_hold_is_refused_before_the_work():
    with pytest.raises(ImageError, match="16384x4 pixels do not fit webp"):
        encode.check_fits(Picture(COLOURS), "webp", (4, 16384), None)


def test_an_error_while_writing_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "out.png"
    encode.encode(Picture(COLOURS), path)
    before = path.read_bytes()
    halves = [lambda *_: [before[:500]], lambda *_: iter([before[:500], 1 / 0])]

    def full(*_):
        raise OSError(28, "No space left on device")

    for broken, error in [(halves[0], ImageError), (full, OSError)]:
        monkeypatch.setattr(encode, "_png", broken)
        with pytest.raises(error), replacing(path) as temporary:
            encode.encode(Picture(255 - COLOURS), temporary)
        assert path.read_bytes() == before
        assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="kill -9")
def test_a_killed_writer_leaves_the_old_file(tmp_path):
    path = tmp_path / "out.png"
    encode.encode(Picture(COLOURS), path)
    before = path.read_bytes()
    code = (
        "import os, sys, pathlib; from restore.files import replacing\n"
        "with replacing(pathlib.Path(sys.argv[1])) as path:\n"
        "    path.write_bytes(b'half'); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == -9
    assert path.read_bytes() == before


# Enlarging


@pytest.mark.parametrize("size", [(80, 120), (20, 30), (33, 71), (81, 30), (20, 119), (7, 11)])
def test_bands_are_the_whole_and_the_whole_is_pillows(size):
    whole = resize_band(COLOURS, size, (0, size[0]))
    cuts = [0, 1, size[0] // 3, size[0] // 2, size[0]]
    bands = [resize_band(COLOURS, size, rows) for rows in pairwise(cuts)]
    assert (np.concatenate(bands) == whole).all()
    for channel in range(3):
        plane = Image.fromarray(COLOURS[..., channel].astype(np.float32) / 255)
        pillow = plane.resize(size[::-1], Image.Resampling.BICUBIC)
        assert np.abs(whole[..., channel] - np.clip(pillow, 0, 1)).max() < 1e-6


def test_a_resize_to_its_own_size_changes_nothing():
    for array, top in [(COLOURS, 255), (DEEP, 65535)]:
        same = resize_band(Picture(array), array.shape[:2], (0, 20))
        assert same.dtype == np.float32
        assert (np.rint(same * top) == array).all()


def test_a_flat_picture_stays_flat_to_its_edges():
    flat = resize_band(np.full((5, 5, 3), 77, np.uint8), (23, 19), (0, 23))
    assert np.abs(flat * 255 - 77).max() < 1e-4


def test_alpha_is_enlarged_in_its_own_depth():
    assert resize_alpha(Picture(COLOURS), (40, 60)) is None
    for pixels, alpha in [(COLOURS, ALPHA), (DEEP, DEEP_ALPHA)]:
        large = resize_alpha(Picture(pixels, alpha), (40, 60), band=7)
        assert large is not None and large.dtype == alpha.dtype and large.shape == (40, 60)
        whole = np.rint(resize_band(alpha, (40, 60), (0, 40)) * np.iinfo(alpha.dtype).max)
        assert (large == whole).all()


def test_hidden_colours_draw_no_halo():
    pixels = np.zeros((20, 30, 3), np.uint8)
    alpha = np.zeros((20, 30), np.uint8)
    pixels[5:15, 5:15], pixels[5:15, 20:25] = (200, 100, 50), (10, 20, 30)
    alpha[5:15, 5:15], alpha[5:15, 20:25] = 255, 128
    filled = bleed(Picture(pixels, alpha)).pixels
    assert (filled[alpha > 0] == pixels[alpha > 0]).all()
    assert (filled[0, 0] == (200, 100, 50)).all() and (filled[19, 29] == (10, 20, 30)).all()
    large = resize_band(filled, (80, 120), (0, 80))[20:60, 20:60] * 255
    assert np.abs(large - (200, 100, 50)).max() < 1


def test_a_picture_without_holes_or_all_hole_is_left_alone():
    for alpha in (None, np.full((20, 30), 1, np.uint8), np.zeros((20, 30), np.uint8)):
        picture = Picture(COLOURS, alpha)
        assert bleed(picture) is picture


def test_pillows_guards_stay_as_they_are():
    assert Image.MAX_IMAGE_PIXELS is not None
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    assert decode.MAX_PIXELS < 2 * Image.MAX_IMAGE_PIXELS


def test_a_contact_sheet_shows_pictures_as_they_look(tmp_path):
    deep = Picture(np.full((20, 20, 3), 20_000, np.uint16), grey=True)
    red = np.full((20, 20, 3), (255, 0, 0), np.uint8)
    clear = Picture(red, alpha=np.zeros((20, 20), np.uint8))
    wide = Picture(red // 2, icc=build_profile(colours.ADOBE, (2.2,), False, "wide"))
    for picture in (deep, clear, wide):
        encode.encode(picture, tmp_path / "a.png")
        contact_sheet.write_sheet([tmp_path / "a.png"], tmp_path / "sheet.png")
        with Image.open(tmp_path / "sheet.png") as sheet:
            assert sheet.getpixel((18, 18)) == tuple(to_rgb8(picture)[10, 10])
