"""Inputs that are no pictures, broken, or bombs: cases 1 to 20, 53 and 55 of the catalogue.

Each goes through the worker that decodes, whose memory and time are watched.
"""

import ast
import io
import json
import sys
import time
import zlib
from pathlib import Path

import broken
import carrying_more
import hostile
import numpy as np
import pytest
from PIL import Image, ImageFile, TiffImagePlugin

from restore.errors import ImageError
from restore.images import decode, sandbox, tiff_rows
from restore.images import picture as images
from restore.images.picture import Reading
from restore.images.worker_pool import Workers

ROOT = Path(__file__).resolve().parents[1]
PICTURE = broken.encoded()
JPEG = broken.encoded(format="JPEG")
BOMB = ("TOO_LARGE", "TIMEOUT")


@pytest.fixture(scope="module")
def workers():
    made = Workers(1)
    made.call(60, hostile.peak_of, len, "")  # its modules are loaded
    yield made
    made.close()


def refusal(path: Path) -> str:
    with pytest.raises(ImageError) as caught:
        sandbox.read_frames(path)
    assert str(caught.value).startswith(f"{path}: ")
    return caught.value.code


def saved(tmp_path: Path, data: bytes, name: str = "photo.jpg") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="case_01_zero_byte"),
        pytest.param(b"\xff", id="case_02_one_byte"),
        pytest.param(broken.RNG.bytes(3000), id="case_03_random"),
        pytest.param(b"<!doctype html><title>404</title>" * 9, id="case_04_html"),
        pytest.param(b"Dear diary,\n" * 99, id="case_05_text"),
    ],
)
def test_what_is_no_picture_is_told_so(tmp_path, data):
    assert refusal(saved(tmp_path, data)) == "NOT_IMAGE"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        pytest.param(JPEG[: len(JPEG) // 2], "a.jpg", id="case_06_half_a_jpeg"),
        pytest.param(JPEG[:-2], "a.jpg", id="case_07_jpeg_minus_2"),
        pytest.param(PICTURE[: len(PICTURE) // 2], "a.png", id="case_08_half_a_png"),
    ],
)
def test_a_file_cut_short_is_refused_or_marked(tmp_path, data, name):
    path = saved(tmp_path, data, name)
    assert refusal(path) == "TRUNCATED"
    [picture], _ = sandbox.read_frames(path, Reading(allow_truncated=True))
    assert any(note.startswith("truncated") for note in picture.warnings)
    rows = slice(0, None if data == JPEG[:-2] else 24)  # what came is the picture
    assert np.abs(picture.pixels[rows].astype(int) - broken.SOFT[rows]).mean() < 6


def test_case_09_a_png_without_its_end_is_done_and_told(tmp_path):
    path = saved(tmp_path, PICTURE[:-12], "a.png")
    [picture], _ = sandbox.read_frames(path)
    assert (picture.pixels == broken.SOFT).all()
    assert picture.warnings == ("the end of the file is missing",)


def test_case_10_a_checksum_that_is_off_is_corrupt(tmp_path):
    assert refusal(saved(tmp_path, broken.png_with_checksum_off())) == "CORRUPT"
    flipped = bytearray(PICTURE)
    flipped[flipped.index(b"IDAT") + 200] ^= 4
    assert refusal(saved(tmp_path, bytes(flipped))) == "CORRUPT"


@pytest.mark.parametrize("data", [PICTURE, JPEG], ids=["png", "jpeg"])
def test_case_11_garbage_after_the_end_costs_nothing(tmp_path, data):
    [plain], _ = sandbox.read_frames(saved(tmp_path, data, "a.x"))
    [more], _ = sandbox.read_frames(saved(tmp_path, data + broken.RNG.bytes(1000), "b.x"))
    assert (more.pixels == plain.pixels).all()
    assert more.warnings == ("what follows the end of the picture is dropped",)


def test_case_12_a_png_called_jpg_is_a_png_and_told(tmp_path):
    [picture], _ = sandbox.read_frames(saved(tmp_path, PICTURE, "a.jpg"))
    assert (picture.pixels == broken.SOFT).all() and picture.format == "PNG"
    assert picture.warnings == ("ext_mismatch: named .jpg, but it is PNG",)


def test_case_13_no_width_is_corrupt(tmp_path):
    body = broken.chunk(b"IDAT", zlib.compress(b"\0" * 60))
    assert refusal(saved(tmp_path, broken.png(broken.header(0, 20), body))) == "CORRUPT"


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
@pytest.mark.parametrize(
    ("make", "codes", "limit_s"),
    [
        pytest.param(lambda: broken.png_claiming(100_000), BOMB, 1, id="case_14_claims_100k"),
        pytest.param(lambda: broken.png_of_zeros(14_000), BOMB, 1, id="case_15_real_bomb"),
        pytest.param(lambda: broken.png_claiming(12_000), BOMB, 1, id="case_16_claims_12k"),
        pytest.param(
            lambda: broken.png_with_text(b"a\0\0" + zlib.compress(b"\0" * 80_000_000, 9)),
            ("METADATA", None),
            1,
            id="case_17_text_bomb",
        ),
        pytest.param(lambda: broken.gif_of_frames(10_000), BOMB, 1, id="case_18_gif_of_10k_frames"),
        pytest.param(lambda: broken.jpeg_of_scans(5000), BOMB, 30, id="case_19_jpeg_of_5k_scans"),
        pytest.param(
            lambda: broken.tiff_with(277, 60_000), BOMB, 1, id="case_20_samples_per_pixel"
        ),
        pytest.param(broken.tiff_in_a_loop, (None,), 1, id="case_20_directory_loop"),
    ],
)
def test_a_bomb_takes_neither_memory_nor_time(tmp_path, workers, make, codes, limit_s):
    path = saved(tmp_path, make(), "bomb.png")
    began = time.monotonic()
    answer, megabytes = workers.call(60, hostile.peak_of, images.read_frames, path, Reading())
    taken = time.monotonic() - began
    assert getattr(answer, "code", None) in codes, answer
    assert megabytes < 100
    assert taken < limit_s * 10  # of a machine that others work on


def test_case_15_is_a_bomb_that_is_real():
    data = broken.png_of_zeros(14_000)
    assert len(data) < 1_000_000
    small = Image.open(io.BytesIO(broken.png_of_zeros(700)))
    assert small.size == (700, 700) and not np.asarray(small).any()


def test_scans_that_encoders_write_are_read(tmp_path):
    assert sandbox.read(saved(tmp_path, broken.jpeg_of_scans(100))).size == broken.SOFT.shape[:2]


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99)


def test_case_53_heic_without_the_plug_in_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"pip install 'restore-toolkit\[formats\]'") as caught:
        images.read(saved(tmp_path, HEIC, "a.heic"))
    assert caught.value.code == "UNSUPPORTED"


def test_case_53_heic_with_the_plug_in_is_read(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    heif.from_pillow(Image.fromarray(broken.SOFT)).save(tmp_path / "a.heic", quality=95)
    assert np.abs(images.read(tmp_path / "a.heic").pixels - broken.SOFT.astype(int)).mean() < 6


@pytest.mark.parametrize("suffix", [".own", ".jpg"])
@pytest.mark.parametrize(
    ("data", "own"),
    [
        (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', ".svg"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", ".eps"),
        (b"%PDF-1.7\n1 0 obj\nendobj\n", ".pdf"),
    ],
)
def test_case_55_pages_of_vectors_are_refused_and_no_interpreter_is_started(
    tmp_path, monkeypatch, data, own, suffix
):
    mark = tmp_path / "started"
    for name in ("gs", "gswin64c", "rsvg-convert"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\ntouch {mark}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(ImageError) as caught:
        images.read(saved(tmp_path, data, "a" + suffix.replace(".own", own)))
    assert caught.value.code == "UNSUPPORTED" and not mark.exists()


def test_each_has_its_row_and_a_mark_where_it_was_taken_all_the_same(tmp_path, call):
    (tmp_path / "in").mkdir()
    for name, data in [("cut.jpg", JPEG[:-2]), ("none.png", b""), ("whole.png", PICTURE)]:
        saved(tmp_path / "in", data, name)
    assert call("upscale", tmp_path / "in", "-s", 1)[0] == 1
    code, said, _ = call("upscale", tmp_path / "in", "-s", 1, "--allow-truncated")
    assert code == 1 and "1 done, 1 finished, 1 failed" in said
    lines = (tmp_path / "out" / "report.jsonl").read_text().splitlines()
    found = {row["key"]: row for row in map(json.loads, lines)}
    assert found["cut.jpg"]["warnings"] == ["truncated: what is missing is flat"]
    assert found["none.png"]["code"] == "NOT_IMAGE"


# What keeps decoders in bounds


def calls(name: str) -> list[tuple[str, ast.Call]]:
    found = []
    for file in [*ROOT.glob("restore/**/*.py"), *ROOT.glob("degradations/**/*.py")]:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        found += [
            (f"{file.name}:{node.lineno}", node)
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and ast.unparse(node.func) == name
        ]
    return found


def test_pictures_are_opened_by_an_allow_list_of_formats():
    opened = calls("Image.open")
    assert opened
    for where, call in opened:
        assert any(word.arg == "formats" for word in call.keywords), where
    refused = {"EPS", "PSD", "FITS", "WMF", "HDF5", "GRIB", "BUFR", "PDF", "MPEG", "IM", "FPX"}
    assert not refused & set(decode.FORMATS)


def test_pillows_guards_are_never_lowered():
    assert Image.MAX_IMAGE_PIXELS and decode.MAX_PIXELS < 2 * Image.MAX_IMAGE_PIXELS
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    for file in [*ROOT.glob("restore/**/*.py"), *ROOT.glob("degradations/**/*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            targets = [node] if isinstance(node, ast.Attribute) else []
            for target in targets:
                guards = ("MAX_IMAGE_PIXELS", "LOAD_TRUNCATED_IMAGES")
                assert not (isinstance(target.ctx, ast.Store) and target.attr in guards), file


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\0\0\1\0\1\0\x10\x10", "ICO"),
        (b"\0\0\2\0\1\0\x10\x10", "CUR"),
        (b"\n\5\1\x08", "PCX"),
        (b"8BPS\0\1", "Photoshop"),
        (b"v/1\1", "OpenEXR"),
        (b"\0\0\0\x18ftypcrx ", "raw file"),
        (b"IIU\0", "raw file"),
    ],
)
@pytest.mark.parametrize("suffix", [".ico", ".png", ".tif"])
def test_a_format_that_is_not_read_is_named_with_a_mend(tmp_path, start, name, suffix):
    path = saved(tmp_path, start + bytes(range(256)), f"a{suffix}")
    with pytest.raises(ImageError, match=f"{name} is not read; (convert|develop) it to") as caught:
        images.read(path)
    assert caught.value.code == "UNSUPPORTED"


def cr2() -> bytes:
    """As Canon begins one: a mark after the header, and a preview as the first page."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags.update({256: 12, 257: 10, 258: (8, 8, 8), 259: 1, 262: 2, 277: 3, 278: 10, 279: 360})
    tags[273] = 0
    tags[273] = 16 + len(tags.tobytes(16))
    return b"II*\0\x10\0\0\0CR\2\0" + bytes(4) + tags.tobytes(16) + bytes(360)


RAWS = {"dng": carrying_more.raw(True), "nef": carrying_more.raw(False), "cr2": cr2()}


@pytest.mark.parametrize("maker", RAWS)
@pytest.mark.parametrize("name", ["a.raw", "a.tif", "a.jpg"])
def test_a_raw_file_is_not_answered_with_its_thumbnail(tmp_path, maker, name):
    path = saved(tmp_path, RAWS[maker], name)
    for reading in (images.read, images.probe):
        with pytest.raises(ImageError, match="raw file, of which only") as caught:
            reading(path)
        assert caught.value.code == "UNSUPPORTED"


@pytest.mark.parametrize("maker", RAWS)
def test_a_large_raw_file_is_not_answered_with_its_preview(tmp_path, maker, monkeypatch):
    monkeypatch.setattr(tiff_rows, "LARGE", 50)
    with pytest.raises(ImageError, match="raw file, of which only"):
        tiff_rows.read(saved(tmp_path, RAWS[maker], "a.tif"), Reading())
