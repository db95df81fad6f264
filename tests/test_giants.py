"""Pictures that no memory holds: read, walked over and written by bands, to the same bytes."""

import errno
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image, ImageCms

from restore.batch.dry_run import Planned, peak
from restore.diffusion import vae
from restore.errors import ImageError
from restore.images import encode, memmap, row_writers, sandbox, tiff_rows
from restore.images import picture as images
from restore.images.decode import MAX_PIXELS
from restore.images.picture import Header, Picture, Reading
from restore.options import UpscaleOptions
from restore.tasks.run import restore

HOW = {
    "tiles": {"tile": (64, 48), "compression": "zlib"},
    "strips": {"rowsperstrip": 7, "compression": "zlib", "predictor": True},
    "plain": {},
    "big": {"tile": (32, 32), "bigtiff": True, "byteorder": "<"},
    "swapped": {"tile": (32, 32), "byteorder": ">"},
    "swapped_plain": {"byteorder": ">"},
}


@pytest.fixture
def small(monkeypatch):
    """What counts as large is small, on this side of the workers' pipe and on the other."""
    monkeypatch.setattr(tiff_rows, "LARGE", 999)
    monkeypatch.setattr(encode, "LARGE", 999)
    monkeypatch.setattr(memmap, "ENOUGH", 999)
    monkeypatch.setattr(memmap, "ROWS", 7)
    monkeypatch.setattr(vae, "BLOCK", 16)
    monkeypatch.setattr(tiff_rows, "shared_workers", lambda: Here)
    monkeypatch.setattr(sandbox, "shared_workers", lambda: Here)


class Here:
    """A worker that is this process."""

    @staticmethod
    def call(limit_s, function, *args):
        return function(*args)


def saved(path, pixels, **how):
    colours = "rgb" if pixels.ndim == 3 else "minisblack"
    tifffile.imwrite(path, pixels, photometric=colours, metadata=None, **how)
    return path


def deep(pixels):
    return pixels.astype(np.uint16) * 257 + np.arange(pixels.shape[1], dtype=np.uint16)[:, None]


@pytest.mark.parametrize("layout", HOW)
@pytest.mark.parametrize("kind", ["rgb", "rgb16", "grey", "grey16"])
def test_rows_of_a_tiff_are_those_of_the_picture_read_whole(small, pixels, tmp_path, layout, kind):
    source = pixels(143, 101)
    source = deep(source) if kind.endswith("16") else source
    source = source if kind.startswith("rgb") else np.ascontiguousarray(source[..., 0])
    path = saved(tmp_path / "a.tif", source, **HOW[layout])
    [lazy], count = sandbox.read_by_rows(path)
    [whole], _ = sandbox.read_frames(path)
    assert isinstance(lazy.pixels, tiff_rows.Rows) and count == 1
    assert (lazy.size, lazy.depth, lazy.grey) == (whole.size, whole.depth, whole.grey)
    assert lazy.icc == whole.icc and lazy.warnings == whole.warnings
    for rows in (slice(0, 143), slice(0, 1), slice(63, 65), slice(140, 143), slice(50, 50)):
        assert np.array_equal(lazy.pixels[rows], whole.pixels[rows])
    assert np.array_equal(lazy.pixels[::5, ::5], whole.pixels[::5, ::5])


@pytest.mark.parametrize("colour", ["none", "wavelet", "adain", "lowpass"])
@pytest.mark.parametrize("steps", [1, 3])
def test_a_giant_comes_out_as_it_would_in_memory(small, stack, pixels, tmp_path, colour, steps):
    source = deep(pixels(143, 101))
    if colour == "none":  # then with a picture without colour too
        source = np.repeat(source[..., :1], 3, axis=2)
    path = saved(tmp_path / "a.tif", source, **HOW["tiles"])
    options = UpscaleOptions(scale=1.5, steps=steps, colour=colour)
    [whole], _ = sandbox.read_frames(path)
    expected = restore(whole, options, stack, 3)
    assert type(expected.pixels.base) is not memoryview
    [lazy], _ = sandbox.read_by_rows(path)
    with memmap.use_folder(tmp_path):
        made = restore(lazy, options, stack, 3)
        assert sorted(file.name for file in tmp_path.iterdir()) == ["a.tif"]
    assert np.array_equal(made.pixels, expected.pixels) and made.warnings == expected.warnings
    assert (np.ptp(made.pixels, axis=2).max() == 0) == (colour == "none")


@pytest.mark.parametrize("sampler", ["ddim", "euler", "dpm++_2m"])
def test_a_walk_that_begins_part_of_the_way_is_the_same_on_disk(
    small, stack, picture, tmp_path, sampler
):
    options = UpscaleOptions(scale=2, steps=4, strength=0.6, sampler=sampler)
    expected = restore(picture(70, 50), options, stack, 3)
    with memmap.use_folder(tmp_path):
        made = restore(picture(70, 50), options, stack, 3)
    assert np.array_equal(made.pixels, expected.pixels)


KINDS = {
    "rgb": Picture,
    "rgb16": lambda rgb: Picture(deep(rgb)),
    "rgba": lambda rgb: Picture(rgb, alpha=rgb[..., 1]),
    "grey": lambda rgb: Picture(np.repeat(rgb[..., :1], 3, 2), grey=True),
    "grey16": lambda rgb: Picture(np.repeat(deep(rgb)[..., :1], 3, 2), grey=True),
    "grey_alpha": lambda rgb: Picture(np.repeat(rgb[..., :1], 3, 2), alpha=rgb[..., 2], grey=True),
}


@pytest.mark.parametrize("format", ["png", "tiff"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_written_by_bands_reads_as_the_one_written_whole(
    monkeypatch, pixels, tmp_path, format, kind
):
    picture = KINDS[kind](pixels(701, 530))
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'
    picture = replace(picture, xmp=xmp, icc=None if picture.grey else icc)
    whole, banded = (tmp_path / f"{name}{encode.FORMATS[format].suffix}" for name in "ab")
    encode.encode(picture, whole, format, about="{}")
    monkeypatch.setattr(encode, "LARGE", 999)
    encode.encode(picture, banded, format, about="{}")
    one, other = images.read(whole), images.read(banded)
    assert np.array_equal(other.pixels, picture.pixels)
    assert (one.grey, one.icc, one.xmp) == (other.grey, other.icc, other.xmp)
    assert (other.alpha is None) == (picture.alpha is None)
    assert other.alpha is None or np.array_equal(other.alpha, picture.alpha)
    with Image.open(whole) as first, Image.open(banded) as second:
        assert first.mode == second.mode and first.info.get("restore") == second.info.get("restore")
    assert banded.stat().st_size < 1.3 * whole.stat().st_size


def test_a_tiff_that_was_not_written_whole_is_not_handed_over(monkeypatch, pixels, tmp_path):
    def cut(file, *told):
        write(file, *told)
        file.truncate(file.tell() // 2)

    write = row_writers.write_tiff
    monkeypatch.setattr(encode, "LARGE", 999)
    monkeypatch.setattr(row_writers, "write_tiff", cut)
    with pytest.raises(ImageError):
        encode.encode(Picture(pixels(701, 530)), tmp_path / "a.tif", "tiff")


@pytest.mark.parametrize("format", ["png", "tiff", "jpeg"])
def test_the_command_makes_of_a_giant_what_it_makes_of_a_picture(
    call, pixels, tmp_path, monkeypatch, format
):
    (tmp_path / "in").mkdir()
    saved(tmp_path / "in" / "a.tif", pixels(143, 101), **HOW["tiles"])
    words = ("upscale", tmp_path / "in", "-s", 1.5, "--steps", 2, "--format", format)
    assert call(*words, out="whole")[0] == 0
    monkeypatch.setattr(tiff_rows, "LARGE", 999)
    monkeypatch.setattr(encode, "LARGE", 999)
    monkeypatch.setattr(memmap, "ENOUGH", 999)
    monkeypatch.setattr(tiff_rows, "shared_workers", lambda: Here)
    monkeypatch.setattr(sandbox, "shared_workers", lambda: Here)
    code, _, said = call(*words, out="banded")
    assert code == 0, said
    name = f"a{encode.FORMATS[format].suffix}"
    assert np.array_equal(*(images.read(tmp_path / o / name).pixels for o in ("whole", "banded")))
    rows = [json.loads((tmp_path / o / "report.jsonl").read_text()) for o in ("whole", "banded")]
    assert rows[0]["size_in"] == rows[1]["size_in"] and rows[0]["warnings"] == rows[1]["warnings"]
    left = {path.name for path in (tmp_path / "banded").iterdir()}
    assert left == {name, ".restore", "report.jsonl", "report.html", "summary.json"}


def test_a_tile_that_is_cut_short_is_a_failed_row(small, call, pixels, tmp_path):
    (tmp_path / "in").mkdir()
    path = saved(tmp_path / "in" / "a.tif", pixels(143, 101), **HOW["tiles"])
    with tifffile.TiffFile(path) as file:
        last = max(file.pages.first.dataoffsets)
    os.truncate(path, last + 3)
    assert call("upscale", tmp_path / "in", "-s", 1, "--format", "png")[0] == 1
    row = json.loads((tmp_path / "out" / "report.jsonl").read_text())
    assert row["code"] == "TRUNCATED"


def test_a_disk_without_room_ends_the_run_before_it_is_written_to(
    small, call, pixels, tmp_path, monkeypatch
):
    def none_left(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", none_left, raising=False)
    (tmp_path / "in").mkdir()
    saved(tmp_path / "in" / "a.tif", pixels(143, 101))
    code, _, said = call("upscale", tmp_path / "in", "-s", 1)
    assert code == 3 and "no room left" in said


def test_what_is_let_go_of_is_there_when_it_is_asked_for_again(tmp_path):
    with memmap.use_folder(tmp_path):
        made = memmap.empty_tensor((1, 8, 900, 700), torch.device("cpu"))
        assert memmap.is_on_disk((1, 8, 900, 700), torch.device("cpu"))
    made.copy_(torch.arange(made.numel()).view_as(made))
    memmap.release_pages()
    assert torch.equal(made, torch.arange(made.numel()).view_as(made).float())
    assert not list(tmp_path.iterdir())  # without a name: whatever ends the process removes it
    assert not memmap.is_on_disk((1, 8, 900, 700), torch.device("cpu"))  # no folder is in use


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_what_is_let_go_of_takes_no_memory(tmp_path):
    def resident():
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    with memmap.use_folder(tmp_path):
        made = memmap.empty((2**27,), np.dtype(np.uint8))
    before = resident()
    made[:] = 7
    assert resident() > before + 2**26
    memmap.release_pages()
    assert resident() < before + 2**24


@pytest.fixture(scope="module")
def dark(tmp_path_factory):
    """144 megapixels in 0.2 MB."""
    path = tmp_path_factory.mktemp("dark") / "dark.tif"
    nothing = np.zeros((row_writers.TILE, 12_000, 1), np.uint8)
    told = {"photometric": "minisblack", "compression": "zlib"}
    with path.open("wb") as file:
        row_writers.write_tiff(file, lambda a, b: nothing[: b - a], (12_000, 12_000), told)
    return path


def test_case_16_a_giant_is_a_bomb_unless_it_is_asked_for(dark):
    for task in (sandbox.read_by_rows, sandbox.probe):
        with pytest.raises(ImageError, match="--megapixels") as caught:
            task(dark)
        assert caught.value.code == "TOO_LARGE"
    how = Reading(max_pixels=150 * 10**6)
    assert sandbox.probe(dark, how) == Header((12_000, 12_000), 1, False, by_rows=True)
    [picture], _ = sandbox.read_by_rows(dark, how)
    assert picture.grey and picture.pixels[11_900:].shape == (100, 12_000, 3)
    with pytest.raises(ImageError, match="a TIFF of tiles"):  # a task that wants it whole
        sandbox.read_by_rows(dark, Reading(max_pixels=0))


def test_a_giant_that_is_one_piece_is_refused_with_the_reason(small, monkeypatch, pixels, tmp_path):
    monkeypatch.setattr(tiff_rows, "SEGMENT", 999)
    monkeypatch.setattr(tiff_rows, "MAX_PIXELS", 999)
    path = saved(tmp_path / "a.tif", pixels(143, 101), rowsperstrip=143, compression="zlib")
    with pytest.raises(ImageError, match="one piece; save it"):
        sandbox.read_by_rows(path)


def test_what_cannot_be_read_by_rows_is_read_whole(small, pixels, tmp_path):
    rgb = pixels(143, 101)
    turned = [(274, "H", 1, 6, True)]
    saved(tmp_path / "turned.tif", rgb, extratags=turned, **HOW["tiles"])
    saved(tmp_path / "planes.tif", np.moveaxis(rgb, 2, 0), planarconfig="separate")
    tifffile.imwrite(tmp_path / "clear.tif", np.dstack([rgb, rgb[..., 0]]), photometric="rgb")
    for name in ("turned.tif", "planes.tif", "clear.tif"):
        path = tmp_path / name
        [picture], _ = sandbox.read_by_rows(path)
        assert np.array_equal(picture.pixels, images.read(path).pixels)


def test_the_memory_told_is_flat_where_it_is():
    def told(megapixels, suffix=".tif", by_rows=True, engine="torch", **options):
        size = round(megapixels * 1e6 / 5000), 5000
        head = Header(size, 1, False, by_rows)
        path, options = Path(f"a{suffix}"), UpscaleOptions(scale=1, **options)
        return peak(Planned(head, size), path, options, engine=engine)

    for engine, steps in (("torch", None), ("onnx", None), ("torch", 1)):
        flat = {told(megapixels, engine=engine, steps=steps) for megapixels in (12, 300)}
        assert len(flat) == 1 and max(flat) < 2e9
    assert told(300, ".jpg") > 3e9
    assert told(300, sampler="euler") > 9e9 and told(300, colour="lowpass") > 9e9
    assert told(100, by_rows=False) > told(100) + 5e8
    assert Reading().max_pixels == MAX_PIXELS


def test_the_memory_told_of_a_wide_picture_counts_the_rows_that_are_there():
    def told(*size):
        head, options = Header(size, 1, False, by_rows=True), UpscaleOptions(scale=4)
        return peak(Planned(head, options.output_size(size)), Path("a.png"), options)

    assert told(10, 30_000) < told(64, 30_000) / 3
    assert told(64, 30_000) == told(900, 30_000)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_flat_and_what_the_plan_tells(tmp_path):
    from benchmarks import memory

    rows = memory.measure(tmp_path, str(memory.tiny_model(tmp_path)), [12, 50], [1], "tiff")
    small, large = ({k: row[k] for k in ("own_mb", "told_mb")} for row in rows)
    assert large["own_mb"] < small["own_mb"] + 300
    for row in (small, large):
        assert row["own_mb"] < row["told_mb"] < 2.5 * row["own_mb"]
