"""Samples that Pillow reduces to 8 bits, or misreads: they come as the file holds them."""

import base64
import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from restore.errors import ImageError, UsageError
from restore.images import picture as picture_files
from restore.images.arrays import to_picture
from restore.images.row_writers import SIGNATURE, make_png_chunk
from restore.images.tiff_samples import apply_orientation

ROWS, COLUMNS = np.mgrid[:12, :18]
GREY = (COLUMNS / 17 * 0.8 + ROWS / 110).astype(np.float32)  # within [0, 1]
COVER = (ROWS / 11).astype(np.float32)


def bytes_of(values):
    return np.rint(values * 255).astype(np.uint8)


def read(tmp_path, data, name):
    path = tmp_path / name
    path.write_bytes(data)
    return picture_files.read(path)


def tiff(*args, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, *args, metadata=None, **options)
    return file.getvalue()


def png(rows, bits, kind, key):
    """A PNG of unpacked samples (H, W, C), with a transparent colour."""
    if bits == 16:
        lines = [row.astype(">u2").tobytes() for row in rows]
    else:
        spread = np.unpackbits(rows.astype(np.uint8)[..., None], axis=-1)[..., 8 - bits :]
        lines = [np.packbits(row).tobytes() for row in spread]
    head = struct.pack(">IIBBBBB", rows.shape[1], rows.shape[0], bits, kind, 0, 0, 0)
    packed = zlib.compress(b"".join(b"\0" + line for line in lines))
    parts = [(b"IHDR", head), (b"tRNS", struct.pack(f">{len(key)}H", *key)), (b"IDAT", packed)]
    return SIGNATURE + b"".join(make_png_chunk(*part) for part in [*parts, (b"IEND", b"")])


@pytest.mark.parametrize(
    ("bits", "channels"), [(1, 1), (2, 1), (4, 1), (8, 1), (16, 1), (8, 3), (16, 3)]
)
def test_the_transparent_colour_of_a_png_is_found_at_every_depth(tmp_path, bits, channels):
    most = 2**bits - 1
    rows = np.rint(np.dstack([GREY, GREY * 0.5, GREY * 0.25])[..., :channels] * most).astype(int)
    key = rows[4, 9].tolist()
    picture = read(tmp_path, png(rows, bits, 2 if channels == 3 else 0, key), "p.png")
    assert picture.warnings == () and picture.depth == max(8, bits)
    assert picture.grey == (channels == 1)
    scaled = rows * (2**picture.depth - 1) // most
    assert (picture.pixels == scaled).all()
    assert ((picture.alpha == 0) == (rows == key).all(2)).all()


def grey_12(size, data, compression=1):
    """A grey TIFF of 12 bits a sample."""
    tags = {256: size[1], 257: size[0], 258: 12, 259: compression, 262: 1, 277: 1, 278: size[0]}
    tags |= {273: 8 + 2 + 12 * 9 + 4, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", 9) + entries + bytes(4) + data


def packed_12(values):
    pairs = values.reshape(len(values), -1, 2).astype(np.uint32)
    joined = pairs[..., 0] << 12 | pairs[..., 1]  # two samples in three bytes
    return np.stack([joined >> 16, joined >> 8 & 255, joined & 255], -1).astype(np.uint8).tobytes()


def test_grey_of_12_bits_is_as_bright_as_it_was(tmp_path):
    values = np.rint(GREY * 4095).astype(np.uint16)
    picture = read(tmp_path, grey_12(values.shape, packed_12(values)), "p.tif")
    assert picture.depth == 16 and picture.grey
    assert (picture.pixels[..., 0] == np.rint(values / 4095 * 65535)).all()


def test_deep_grey_that_pillow_opened_is_as_its_file_is(tmp_path):
    levels = np.rint(GREY * 4095).astype(int)
    made = {
        "key.png": png(levels[..., None] * 16, 16, 0, [int(levels[4, 9]) * 16]),
        "white.tif": tiff((levels * 16).astype(np.uint16), photometric="miniswhite"),
        "dark.tif": grey_12((12, 18), packed_12(levels)),
    }
    for name, data in made.items():
        expected = read(tmp_path, data, name)
        picture = to_picture(Image.open(io.BytesIO(data)))
        assert (picture.pixels == expected.pixels).all() and picture.grey, name
        assert (picture.alpha is None) == (name != "key.png")
        assert picture.alpha is None or (picture.alpha == expected.alpha).all()
    with pytest.raises(UsageError, match="32-bit"):
        to_picture(Image.fromarray(np.full((4, 4), 70_000, np.int32)))


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
def test_a_tiff_of_grey_and_alpha_by_planes_is_read_as_it_is(tmp_path, compression, kind):
    shown = GREY * COVER if kind == "assocalpha" else GREY
    planes = bytes_of(np.stack([shown, COVER]))
    how = {"planarconfig": "separate", "photometric": "minisblack", "extrasamples": [kind]}
    picture = read(tmp_path, tiff(planes, compression=compression, **how), "p.tif")
    assert picture.grey and picture.depth == 8
    assert (picture.alpha == bytes_of(COVER)).all()
    seen = COVER > 0.3
    assert np.abs(picture.pixels[..., 0] / 255 - GREY)[seen].max() < 0.01


@pytest.mark.parametrize("bits", [8, 16])
def test_alpha_that_was_multiplied_in_is_read_by_planes_too(tmp_path, bits):
    most = 2**bits - 1
    planes = np.rint(np.stack([GREY * COVER] * 3 + [COVER]) * most).astype(f"u{bits // 8}")
    how = {"planarconfig": "separate", "photometric": "rgb", "extrasamples": ["assocalpha"]}
    picture = read(tmp_path, tiff(planes, **how), "p.tif")
    assert picture.depth == bits and (picture.alpha == planes[3]).all()
    assert np.abs(picture.pixels[..., 1] / most - GREY)[COVER > 0.3].max() < 0.01


@pytest.mark.parametrize("order", ["<", ">"])
def test_packed_floats_are_read_in_both_byte_orders(tmp_path, order):
    data = tiff(GREY, byteorder=order, compression="zlib", photometric="minisblack")
    picture = read(tmp_path, data, "p.tif")
    assert picture.depth == 16 and picture.grey
    assert np.abs(picture.pixels[..., 0] / 65535 - GREY).max() < 1e-4


def planes_of(photometric, count, dtype="u1"):
    how = {"planarconfig": "separate", "photometric": photometric, "extrasamples": []}
    return tiff(np.zeros((count, 12, 18), dtype), **how)


def with_compression(data, code):
    tag = struct.pack("<HHI", 259, 3, 1)
    at = data.index(tag) + len(tag)
    return data[:at] + struct.pack("<H", code) + data[at + 2 :]


PAIR = {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": ["unassalpha"]}


JPEG_12 = base64.b64decode(  # 8x8 pixels of 12 bits
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDABALDA4MChAODQ4SERATGCgaGBYWGDEjJR0oOjM9PDkzODdASFxOQERXRT"
    "c4UG1RV19iZ2hnPk1xeXBkeFxlZ2P/wQALDAAIAAgBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAABf/EABQQAQAAAAAA"
    "AAAAAAAAAAAAAAD/2gAIAQEAAD8AHf/Z"
)


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("p.tif", planes_of("cielab", 3), "3 samples a pixel of 8-bit integers by planes"),
        ("p.tif", planes_of("separated", 4, "u2"), "4 samples a pixel of 16-bit integers by"),
        ("p.tif", with_compression(tiff(bytes_of(GREY)), 50001), "cannot be unpacked"),
        (
            "p.tif",
            with_compression(tiff(np.dstack([GREY, COVER]), **PAIR), 50000),
            "cannot be unpacked",
        ),
        ("p.jpg", JPEG_12, "a JPEG of 12 bits a channel is not read"),
        ("p.tif", grey_12((8, 8), JPEG_12, 7), "a JPEG of 12 bits is not read"),
        ("p.pfm", b"PF\n1 1\n-1.0\n" + bytes(12), "PFM is not read"),
    ],
)
def test_what_no_decoder_reads_is_not_called_broken(tmp_path, name, data, told):
    with pytest.raises(ImageError, match=told) as caught:
        read(tmp_path, data, name)
    assert caught.value.code == "UNSUPPORTED"


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "RGBA", "CMYK"])
def test_a_turned_tiff_that_pillow_opened_by_its_name_is_upright(pixels, tmp_path, mode):
    rgb = Image.fromarray(pixels(6, 9))
    stored = Image.fromarray(np.asarray(rgb)[..., 0] * np.uint16(257))
    stored = stored if mode == "I;16" else rgb.convert(mode)
    for turn in range(1, 9):
        path = tmp_path / f"{turn}.tif"
        stored.save(path, tiffinfo={274: turn})
        with Image.open(path) as image:
            made = to_picture(image).pixels
            assert image.filename == str(path)
        assert np.array_equal(made, apply_orientation(to_picture(stored).pixels, turn))
