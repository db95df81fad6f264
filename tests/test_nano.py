"""The model that ships: whole, small, and better than enlarging."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

import degradations
from degradations import ops
from restore.checkpoints.load import load
from restore.checkpoints.manifest import find_model
from restore.images.icc import SRGB, build_profile
from restore.images.picture import Picture
from restore.options import UpscaleOptions
from restore.tasks.run import restore


@pytest.fixture(scope="module")
def nano():
    return load("nano", device="cpu")


def scene(size: int = 256) -> np.ndarray:
    """uint8 (size, size, 3): a gradient sky and shapes with edges."""
    ramp = np.linspace(60, 200, size).astype(np.uint8)
    image = Image.fromarray(np.stack([np.repeat(ramp[:, None], size, 1)] * 3, -1))
    draw = ImageDraw.Draw(image)
    draw.ellipse((20, 40, 120, 140), fill=(200, 80, 60))
    draw.polygon([(130, 220), (190, 60), (245, 220)], fill=(40, 110, 70))
    draw.rectangle((20, 170, 110, 240), fill=(240, 235, 220))
    return np.asarray(image)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = np.square(one.astype(float) - other.astype(float)).mean()
    return float(10 * np.log10(255**2 / error))


def test_it_is_small_and_its_manifest_holds():
    folder, digest = find_model("nano")
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 18e6
    assert len(digest) == 64
    assert (folder / "README.md").is_file()


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_it_restores_what_enlarging_alone_cannot(nano, scale):
    noise = ops.GaussianNoise(sigma_levels=12, grey=0)
    steps = (ops.Resize(of="target"), noise, ops.Jpeg(quality=60))
    truth, recipe = scene(), degradations.Recipe(name="a web picture", steps=steps)
    low = recipe.degrade(truth, scale=scale, seed=0, key="scene").lr
    made = restore(Picture(low), UpscaleOptions(scale=scale), nano, seed=0).pixels
    plain = np.asarray(Image.fromarray(low).resize((256, 256), Image.Resampling.BICUBIC))
    assert psnr(made, truth) > psnr(plain, truth) + 0.3


def test_it_shifts_no_colour(nano):
    low = np.full((48, 48, 3), (180, 120, 70), np.uint8)
    made = restore(Picture(low), UpscaleOptions(scale=4), nano, seed=0).pixels
    assert np.abs(made.mean((0, 1)) - low[0, 0]).max() < 2


def test_it_leaves_no_seam_and_no_checkerboard(nano):
    """A gradient over several windows: no step at a window's border, no pattern of four pixels."""
    ramp = np.linspace(40, 210, 150)
    low = np.rint(np.repeat(ramp[None, :, None], 100, 0).repeat(3, 2)).astype(np.uint8)
    made = restore(Picture(low), UpscaleOptions(scale=4), nano, seed=0).pixels.astype(float)
    rows = cv2.GaussianBlur(made[50:-50, 50:-50], (0, 0), 4)
    fine = made[50:-50, 50:-50] - rows
    assert np.abs(np.diff(made[50:-50].mean((0, 2)))).max() < 3
    assert fine.std() < 1.5


def test_more_steps_still_show_the_same_picture(nano):
    low = np.asarray(Image.open(Path(__file__).parent / "samples" / "portrait.jpg"))
    none, one, four = (
        restore(Picture(low), UpscaleOptions(scale=2, steps=steps), nano, seed=0).pixels
        for steps in (0, 1, 4)
    )
    assert psnr(none, one) > 22
    assert psnr(one, four) > 22


def test_fidelity_leads_from_the_sharp_picture_to_the_faithful_one(nano):
    truth = scene()
    low = np.asarray(Image.fromarray(truth).resize((64, 64), Image.Resampling.BICUBIC))
    made = [
        restore(Picture(low), UpscaleOptions(fidelity=fidelity), nano, seed=0).pixels
        for fidelity in (0, 0.5, 1)
    ]
    told = restore(Picture(low), UpscaleOptions(), nano, seed=0).pixels
    assert (told == made[0]).all()
    apart = [psnr(made[0], other) for other in made[1:]]
    assert 25 < apart[1] < apart[0] < 60


@pytest.mark.parametrize("grey", [False, True])
def test_a_picture_in_linear_light_is_told_apart(nano, grey):
    """Networks see tones as sRGB has them; in linear light, shadows come out as dark blots."""
    pixels = np.repeat(scene(32)[..., :1], 3, 2) if grey else scene(32)
    linear, usual = (build_profile(SRGB, (gamma,), grey, "made by hand") for gamma in (1.0, 1.8))
    for profile, told in ((linear, True), (usual, False), (None, False)):
        low = Picture(pixels, grey=grey, icc=profile)
        made = restore(low, UpscaleOptions(scale=2), nano, 0)
        assert any("linear light" in note for note in made.warnings) == told
