"""Parity with BasicSR 1.4.2, the code behind Real-ESRGAN: what is right there is the same here.

Skipped without it. It is built by
`pip install setuptools wheel cython && pip install --no-build-isolation --no-deps basicsr==1.4.2`.
"""

import importlib
import importlib.util
import math
import random
import sys
from collections import Counter
from types import ModuleType, SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from scipy import stats
from test_ops import flat, picture

from degradations import kernels, sharpen
from degradations.ops import (
    Blur,
    CompatJpeg,
    CompatPoissonNoise,
    CompatSinc,
    GaussianNoise,
    PoissonNoise,
)
from degradations.ops.blur import SHAPES, correlate
from degradations.rng import Rng

FOUND = importlib.util.find_spec("basicsr")
pytestmark = pytest.mark.skipif(not FOUND, reason="needs basicsr 1.4.2")
SIZES = (7, 9, 13, 21)
KINDS = ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso")
SHARES = (0.45, 0.25, 0.12, 0.03, 0.12, 0.03)  # of Real-ESRGAN's options
DRAWS = 20_000
RNG = np.random.default_rng(0)


def luma(img, num_output_channels=1):
    """torchvision's rgb_to_grayscale, whose old place is gone: ITU-R BT.601."""
    weights = torch.tensor([0.2989, 0.587, 0.114]).view(1, 3, 1, 1)
    return (img * weights).sum(1, keepdim=True)


@pytest.fixture(scope="module")
def theirs():
    """Its modules, without the packages' own imports: most of those need torchvision."""
    stands = {name: ModuleType(name) for name in ("basicsr", "basicsr.data", "basicsr.utils")}
    for name, module in stands.items():
        module.__path__ = [f"{FOUND.submodule_search_locations[0]}/{name.partition('.')[2]}"]
    old = "torchvision.transforms.functional_tensor"
    stands |= {name: ModuleType(name) for name in ("torchvision", "torchvision.transforms", old)}
    stands[old].rgb_to_grayscale = luma
    parts = ("data.degradations", "utils.diffjpeg", "utils.img_process_util")
    with patch.dict(sys.modules, stands), np.errstate():  # it sets numpy's for good
        made = [importlib.import_module(f"basicsr.{part}") for part in parts]
    return SimpleNamespace(degradations=made[0], diffjpeg=made[1], process=made[2])


def batch(rgb):
    """float32 (H, W, 3) -> tensor (1, 3, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)))[None]


def unbatch(tensor):
    return tensor[0].detach().numpy().transpose(1, 2, 0)


def spreads(count=40):
    """(size, sigma_x, sigma_y, angle, beta) over the published ranges and beyond."""
    for _ in range(count):
        size, (sigma_x, sigma_y) = int(RNG.choice(SIZES)), RNG.uniform(0.2, 4, 2)
        yield size, sigma_x, sigma_y, RNG.uniform(-math.pi, math.pi), RNG.uniform(0.5, 4)


def test_the_kernels_of_the_gaussian_family_are_theirs(theirs):
    code = theirs.degradations
    pairs = (
        (kernels.generalised_gaussian, code.bivariate_Gaussian, False),
        (kernels.generalised_gaussian, code.bivariate_generalized_Gaussian, True),
        (kernels.plateau, code.bivariate_plateau, True),
    )
    for size, sigma_x, sigma_y, angle, beta in spreads():
        turned, level = (sigma_x, sigma_y, angle), (sigma_x, sigma_x, 0.0)
        for our, their, is_shaped in pairs:
            shape = (beta,) if is_shaped else ()
            for isotropic, mine in ((True, level), (False, turned)):
                wanted = their(size, *turned, *shape, isotropic=isotropic)
                np.testing.assert_allclose(our(size, *mine, *shape), wanted, rtol=0, atol=1e-6)
        line = kernels.gaussian_1d(size, sigma_x)
        wanted = code.bivariate_Gaussian(size, *turned, isotropic=True)
        np.testing.assert_allclose(np.outer(line, line), wanted, rtol=0, atol=1e-6)


def test_compat_sinc_is_their_low_pass_and_ours_does_not_amplify(theirs):
    strongest = {"theirs": 0.0, "ours": 0.0}
    for size in (7, 9, 11, 13, 15, 17, 19, 21):
        impulse = flat(0.0, (41, 41))
        impulse[20, 20] = 1
        for cutoff in np.linspace(math.pi / (3 if size < 13 else 5), math.pi, 40):
            with np.errstate(invalid="ignore"):  # its middle is 0 / 0, and then replaced
                wanted = theirs.degradations.circular_lowpass_kernel(cutoff, size, 41)
            made = CompatSinc.apply(impulse, {"size": size, "cutoff": cutoff}, (1, 1))[..., 0]
            np.testing.assert_allclose(made, wanted, rtol=0, atol=1e-6)
            for name, kernel in (("theirs", wanted), ("ours", kernels.sinc(size, cutoff))):
                gain = np.abs(np.fft.fft2(kernel, s=(128, 128))).max()
                strongest[name] = max(strongest[name], gain)
    assert strongest["theirs"] > 1.55 and strongest["ours"] < 1.10


def test_a_filtered_picture_is_theirs(theirs):
    for size, sigma_x, sigma_y, angle, beta in spreads(12):
        rgb, kernel = picture(37, 53), kernels.plateau(size, sigma_x, sigma_y, angle, beta)
        wanted = theirs.process.filter2D(batch(rgb), torch.from_numpy(kernel)[None])
        np.testing.assert_allclose(correlate(rgb, kernel), unbatch(wanted), rtol=0, atol=1e-5)


def drawn_by_them(code, monkeypatch):
    """20,000 calls of random_mixed_kernels: kind -> (n, 4) of sigma_x, sigma_y, angle, beta."""
    drawn = {kind: [] for kind in KINDS}

    def record(name):
        def note(size, *spread, isotropic):
            kind = name + ("iso" if isotropic else "aniso")
            drawn[kind].append((*spread, 1.0)[:4])  # without a beta it is 1
            return np.ones((1, 1))

        return note

    monkeypatch.setattr(code, "bivariate_Gaussian", record(""))
    monkeypatch.setattr(code, "bivariate_generalized_Gaussian", record("generalized_"))
    monkeypatch.setattr(code, "bivariate_plateau", record("plateau_"))
    random.seed(0)
    np.random.seed(0)
    for _ in range(DRAWS):
        angles = (-math.pi, math.pi)
        code.random_mixed_kernels(
            KINDS, SHARES, 21, (0.2, 3), (0.2, 3), angles, (0.5, 4), (1, 2), None
        )
    return {kind: np.array(rows) for kind, rows in drawn.items()}


def test_random_kernels_are_drawn_from_their_distribution(theirs, monkeypatch):
    wanted = drawn_by_them(theirs.degradations, monkeypatch)
    ours = [Blur().draw(Rng(0, str(i))) for i in range(DRAWS)]
    counts = Counter(params["shape"] for params in ours)
    table = [[counts[shape] for shape in SHAPES], [len(wanted[kind]) for kind in KINDS]]
    assert sum(table[0]) == sum(table[1]) == DRAWS
    assert stats.chi2_contingency(table).pvalue > 1e-3
    assert stats.chisquare(table[0], np.multiply(SHARES, DRAWS)).pvalue > 1e-3
    for shape, kind in zip(SHAPES, KINDS, strict=True):
        rows = np.array(
            [(*p["sigma"], p["angle"], p.get("beta", 1.0)) for p in ours if p["shape"] == shape]
        )
        for column in range(4):
            same = stats.ks_2samp(rows[:, column], wanted[kind][:, column])
            assert same.pvalue > 1e-4, (shape, column)


@pytest.mark.parametrize("level", [0, 20, 128, 235, 255])
@pytest.mark.parametrize("sigma", [1.0, 12.0, 30.0])
def test_gaussian_noise_has_their_mean_and_spread_at_every_level(theirs, level, sigma):
    torch.manual_seed(level)
    rgb = flat(level / 255)
    for grey in (False, True):
        params = {"sigma_levels": sigma, "grey": grey, "seed": level}
        ours = GaussianNoise.apply(rgb, params, (1, 1)) * 255
        wanted = theirs.degradations.add_gaussian_noise_pt(batch(rgb), sigma, float(grey))
        wanted = unbatch(wanted) * 255
        error = 5 * sigma / math.sqrt(ours[..., 0].size)  # of a mean, five times
        assert ours.mean() == pytest.approx(wanted.mean(), abs=error)
        assert ours.std() == pytest.approx(wanted.std(), rel=0.03)
        assert np.ptp(ours, 2).max() < 1e-3 or not grey


def test_as_many_pictures_have_grey_noise(theirs):
    torch.manual_seed(0)
    pictures = torch.full((4000, 3, 2, 2), 0.5)
    noise = theirs.degradations.random_generate_gaussian_noise_pt(pictures, (1, 30), 0.4)
    wanted = (noise[:, :1] == noise).all(3).all(2).all(1).float().mean().item()
    for op in (GaussianNoise(), PoissonNoise()):
        ours = np.mean([op.draw(Rng(0, str(i)))["grey"] for i in range(4000)])
        assert ours == pytest.approx(wanted, abs=0.04)
        assert ours == pytest.approx(0.4, abs=0.03)


def ramp(colours=256):
    """float32 (300, 256, 3): every column of one level, `colours` of them in all."""
    levels = np.rint(np.linspace(0, 255, colours))[np.arange(256) * colours // 256] / 255
    return np.tile(levels.astype(np.float32)[None, :, None], (300, 1, 3))


@pytest.mark.parametrize("grey", [False, True])
def test_poisson_noise_has_their_variance_at_every_level(theirs, grey):
    """On 256 distinct values, where their count of photons is the one that ours always has."""
    torch.manual_seed(0)
    rgb = ramp()
    wanted = unbatch(theirs.degradations.generate_poisson_noise_pt(batch(rgb), 0.7, float(grey)))
    for op in (PoissonNoise, CompatPoissonNoise):
        params = {"scale": 0.7, "grey": grey, "seed": 5}
        made = op.apply(rgb, params, (1, 1)) - rgb
        inner = slice(8, 200)  # the ends are clipped
        spread = np.stack([noise[:, inner].var((0, 2)) for noise in (made, wanted)])
        np.testing.assert_allclose(spread[0].mean(), spread[1].mean(), rtol=0.03)
        slopes = [np.polyfit(rgb[0, inner, 0], one, 1)[0] for one in spread]
        assert slopes[0] == pytest.approx(slopes[1], rel=0.08)
        assert slopes[0] == pytest.approx(0.7**2 / 256, rel=0.08)
        assert made[:, inner].mean() == pytest.approx(wanted[:, inner].mean(), abs=6e-4)
        assert np.ptp(made[:, inner], 2).max() < 1e-5 or not grey


@pytest.mark.parametrize("colours", [2, 5, 40])
def test_compat_poisson_noise_counts_values_as_they_do(theirs, colours):
    torch.manual_seed(0)
    rgb = ramp(colours)
    wanted = unbatch(theirs.degradations.add_poisson_noise_pt(batch(rgb), 0.3))
    params = {"scale": 0.3, "grey": False, "seed": 9}
    made = CompatPoissonNoise.apply(rgb, params, (1, 1))
    for level in np.unique(rgb):
        here = rgb == level
        assert made[here].mean() == pytest.approx(wanted[here].mean(), abs=0.005)
        assert made[here].std() == pytest.approx(wanted[here].std(), rel=0.06, abs=1e-6)


@pytest.mark.parametrize("size", [(16, 16), (64, 48), (37, 53), (100, 99), (1, 1), (5, 40)])
def test_compat_jpeg_is_their_differentiable_jpeg(theirs, size):
    code = theirs.diffjpeg.DiffJPEG(differentiable=False)
    for quality in (30.0, 33.7, 42.1, 55.5, 68.3, 77.7, 86.9, 95.0):
        rgb = picture(*size, seed=int(quality))
        with torch.no_grad():
            wanted = unbatch(code(batch(rgb), quality)) * 255.0
        made = CompatJpeg.apply(rgb, {"quality": quality}, (1, 1)) * 255.0
        np.testing.assert_allclose(made, wanted, rtol=0, atol=1e-3)


@pytest.mark.parametrize("size", [(120, 90), (61, 77)])
def test_sharpening_is_their_unsharp_mask(theirs, size):
    rgb = np.rint(picture(*size) * 255).astype(np.uint8)
    ours, image = sharpen(rgb).astype(np.float64), rgb.astype(np.float32) / 255
    with torch.no_grad():
        module = unbatch(theirs.process.USMSharp()(batch(image)))
    for wanted in (module, theirs.process.usm_sharp(image)):
        assert np.abs(ours - wanted * 255).max() < 0.6  # ours is rounded to 8 bits
    assert (ours != rgb).mean() > 0.2
