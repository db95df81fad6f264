"""Sizes, halos and seams: cases 38 and 57 to 64 of the catalogue, through a real model."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from PIL import Image

from restore.checkpoints.load import load
from restore.images import sandbox
from restore.images.picture import Picture
from restore.images.resample import resize_band
from restore.options import UpscaleOptions
from restore.tasks import run
from restore.tasks.run import restore


@pytest.fixture(scope="module")
def nano():
    return load("nano", device="cpu")


SIZES = {  # (width, height); a window of the tiny stack is 64 pixels
    "57": (1, 1),
    "58": (1, 5000),
    "58_wide": (500, 1),
    "59": (3, 3),
    "60": (257, 383),
    "61": (40, 21),
    "62": (64, 64),
    "62_plus_1": (65, 65),
}


def test_case_57_58_59_60_61_62_every_size_comes_out_exactly(call, pixels, tmp_path):
    (tmp_path / "in").mkdir()
    for name, (width, height) in SIZES.items():
        Image.fromarray(pixels(height, width)).save(tmp_path / "in" / f"{name}.png")
    assert call("upscale", tmp_path / "in", "-s", 1.5)[0] == 0
    lines = (tmp_path / "out" / "report.jsonl").read_text().splitlines()
    rows = {row["key"]: row for row in map(json.loads, lines)}
    for name, (width, height) in SIZES.items():
        expected = round(1.5 * width), round(1.5 * height)
        with Image.open(tmp_path / "out" / f"{name}.png") as image:
            image.load()
            assert image.size == expected, name
        assert rows[f"{name}.png"]["size_out"] == list(expected[::-1])


def test_case_63_fifty_megapixels_come_out_exactly(call, tmp_path, monkeypatch):
    """The model is a stand-in; reading, the large picture's own way out and the report are real."""
    (tmp_path / "in").mkdir()
    ramp = np.linspace(0, 255, 8660).astype(np.uint8)
    wide = np.repeat(np.tile(ramp, (5774, 1))[..., None], 3, 2)
    Image.fromarray(wide).save(tmp_path / "in" / "a.jpg", quality=90)

    def nearest(picture, options, *_, **__):
        height, width = options.output_size(picture.size)
        size = (width, height)
        return replace(picture, pixels=cv2.resize(picture.pixels, size, interpolation=0))

    monkeypatch.setattr(run, "restore", nearest)
    assert wide.size > 3 * sandbox.LARGE
    assert call("upscale", tmp_path / "in", "-s", 1.01)[0] == 0
    with Image.open(tmp_path / "out" / "a.jpg") as image:
        assert image.size == (round(1.01 * 8660), round(1.01 * 5774))


def test_case_38_what_transparency_hides_does_not_shine_through(nano, pixels):
    truth = pixels(144, 144, 5)
    rows, columns = np.ogrid[:144, :144]
    disc = (rows - 72) ** 2 + (columns - 72) ** 2 < 60**2
    small = np.rint(resize_band(truth, (72, 72), (0, 72)) * 255).astype(np.uint8)
    hidden = ~disc[1::2, 1::2]
    dirty = small.copy()
    dirty[hidden] = (0, 255, 0)
    alpha = np.where(hidden, 0, 255).astype(np.uint8)
    options = UpscaleOptions(scale=2)
    inside = cv2.erode(disc.astype(np.uint8), np.ones((5, 5))) > 0

    def psnr(picture: Picture) -> float:
        made = restore(picture, options, nano, 0).pixels[inside].astype(float)
        return 10 * np.log10(255**2 / np.square(made - truth[inside]).mean())

    opaque, seen_through = psnr(Picture(small)), psnr(Picture(dirty, alpha))
    assert seen_through > opaque - 0.1
    green, white = (restore(one, options, nano, 0) for one in (Picture(dirty), Picture(small)))
    rim = inside & ~(cv2.erode(inside.astype(np.uint8), np.ones((7, 7))) > 0)
    shows = np.abs(green.pixels[rim].astype(float) - white.pixels[rim]).mean()
    assert shows > 2  # without the alpha it would show


def test_case_64_a_flat_gradient_shows_no_seams(nano):
    """Three windows a side; where they meet no step is larger than elsewhere by a level."""
    size = 448
    ramp = np.linspace(40, 215, size)
    grey = np.rint((ramp[:, None] + ramp[None]) / 2).astype(np.uint8)
    made = restore(Picture(np.repeat(grey[..., None], 3, 2)), UpscaleOptions(scale=1), nano, 0)
    values = made.pixels.astype(int)
    stride = nano.windows.stride * nano.factor
    window = nano.windows.size * nano.factor
    edges = [e for start in range(0, size, stride) for e in (start, start + window)]
    for axis in (0, 1):
        steps = np.abs(np.diff(values, axis=axis)).max(axis=(1 - axis, 2))[8:-8]
        at = np.arange(8, size - 9)
        seam = np.isin(at, [e + off for e in edges for off in (-2, -1, 0, 1)])
        assert seam.any() and (~seam).any()
        assert steps[seam].max() <= steps[~seam].max() + 1
