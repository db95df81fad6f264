"""Pictures that no memory holds: read, walked over and written by bands, to the same bytes."""

import numpy as np
import pytest
import tifffile

from restore import codecs, encoding, giants, spill
from restore.flow import restore
from restore.options import UpscaleOptions

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
    monkeypatch.setattr(giants, "LARGE", 999)
    monkeypatch.setattr(encoding, "LARGE", 999)
    monkeypatch.setattr(spill, "ENOUGH", 999)
    monkeypatch.setattr(giants, "shared", lambda: Here)
    monkeypatch.setattr(codecs, "shared", lambda: Here)


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
    [lazy], count = codecs.read_by_rows(path)
    [whole], _ = codecs.read_frames(path)
    assert isinstance(lazy.pixels, giants.Rows) and count == 1
    assert (lazy.size, lazy.depth, lazy.grey) == (whole.size, whole.depth, whole.grey)
    assert lazy.icc == whole.icc and lazy.warnings == whole.warnings
    for rows in (slice(0, 143), slice(0, 1), slice(63, 65), slice(140, 143), slice(50, 50)):
        assert np.array_equal(lazy.pixels[rows], whole.pixels[rows])
    assert np.array_equal(lazy.pixels[::5, ::5], whole.pixels[::5, ::5])


@pytest.mark.parametrize("colour", ["none", "wavelet", "adain", "lowpass"])
@pytest.mark.parametrize("steps", [1, 3])
def test_a_giant_comes_out_as_it_would_in_memory(small, stack, pixels, tmp_path, colour, steps):
    path = saved(tmp_path / "a.tif", deep(pixels(143, 101)), **HOW["tiles"])
    options = UpscaleOptions(scale=1.5, steps=steps, colour=colour)
    [whole], _ = codecs.read_frames(path)
    expected = restore(whole, options, stack, 3)
    assert type(expected.pixels.base) is not memoryview
    [lazy], _ = codecs.read_by_rows(path)
    with spill.into(tmp_path):
        made = restore(lazy, options, stack, 3)
        assert sorted(file.name for file in tmp_path.iterdir()) == ["a.tif"]
    assert np.array_equal(made.pixels, expected.pixels) and made.warnings == expected.warnings


@pytest.mark.parametrize("sampler", ["ddim", "euler", "dpm++_2m"])
def test_a_walk_that_begins_part_of_the_way_is_the_same_on_disk(
    small, stack, picture, tmp_path, sampler
):
    options = UpscaleOptions(scale=2, steps=4, strength=0.6, sampler=sampler)
    expected = restore(picture(70, 50), options, stack, 3)
    with spill.into(tmp_path):
        made = restore(picture(70, 50), options, stack, 3)
    assert np.array_equal(made.pixels, expected.pixels)
