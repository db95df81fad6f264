"""The measures equal what others measure, and obey their laws."""

import importlib.util
import math
import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, uniform_filter

from restore.errors import UsageError
from restore.images import picture
from restore.metrics import fidelity, measures, niqe, perceptual
from restore.metrics.measures import MEASURES, Pair

SAMPLES = Path(__file__).parent / "samples"
EVAL = os.environ.get("RESTORE_EVAL", "")  # a folder with score.py, hr/ and sets of inputs


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    """A sample and what is left of it at half its size: levels."""
    pixels = picture.read(SAMPLES / "landscape.jpg").pixels
    small = cv2.resize(pixels, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    soft = cv2.resize(small, pixels.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return fidelity.to_levels(soft), fidelity.to_levels(pixels)


def tensor(array: np.ndarray) -> torch.Tensor:
    planes = array[..., None] if array.ndim == 2 else array
    return torch.from_numpy(planes).permute(2, 0, 1)[None]


def test_luma_is_that_of_bt_601():
    weights = np.array([0.299, 0.587, 0.114])  # of the standard; 16 to 235
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(float)
    np.testing.assert_allclose(fidelity.to_luma(rgb), 16 + 219 / 255 * (rgb @ weights), atol=0.01)


def test_psnr_and_ssim_equal_torchmetrics(pair):
    from torchmetrics.functional.image import peak_signal_noise_ratio as psnr
    from torchmetrics.functional.image import structural_similarity_index_measure as ssim

    crops = [array[:61, :48] for array in pair]
    for one, other in (crops, [fidelity.to_luma(crop) for crop in crops]):
        both = tensor(one), tensor(other)
        assert fidelity.psnr(one, other) == pytest.approx(psnr(*both, data_range=255).item())
        _, theirs = ssim(*both, data_range=255, return_full_image=True)
        # it reflects pictures at their edges; the paper's code stays within
        inside = theirs[..., 5:-5, 5:-5].mean().item()
        assert fidelity.ssim(one, other) == pytest.approx(inside, abs=1e-12)


@pytest.mark.parametrize("size", [(176, 176), (181, 203)])
def test_ms_ssim_is_the_papers_and_near_torchmetrics(pixels, size):
    from torchmetrics.functional.image import (
        multiscale_structural_similarity_index_measure as ms_ssim,
    )

    other = fidelity.to_luma(fidelity.to_levels(pixels(*size)))
    one = other + np.random.default_rng(0).normal(0, 20, size)
    theirs = ms_ssim(tensor(one), tensor(other), data_range=255.0).item()
    assert fidelity.ms_ssim(one, other) == pytest.approx(theirs, abs=2e-3)  # its edges
    assert fidelity.ms_ssim(one, other) == pytest.approx(by_the_paper(one, other), abs=1e-9)


def by_the_paper(one: np.ndarray, other: np.ndarray) -> float:
    """Wang, Simoncelli and Bovik 2003, equations 1 to 3, 7, in scipy's filters."""

    def mean(x):
        return gaussian_filter(x, 1.5, radius=5)[5:-5, 5:-5]

    product = 1.0
    for power in (0.0448, 0.2856, 0.3001, 0.2363, 0.1333):
        mean1, mean2 = mean(one), mean(other)
        spread1, spread2 = mean(one**2) - mean1**2, mean(other**2) - mean2**2
        both = mean(one * other) - mean1 * mean2
        contrast = (2 * both + 58.5225) / (spread1 + spread2 + 58.5225)
        light = (2 * mean1 * mean2 + 6.5025) / (mean1**2 + mean2**2 + 6.5025)
        product *= (contrast * (light if power == 0.1333 else 1)).mean() ** power
        # the mean of 2x2, then every other one
        one, other = (uniform_filter(x, 2, origin=-1)[:-1:2, :-1:2] for x in (one, other))
    return product


def test_ms_ssim_of_a_negative_is_0_and_not_complex(pixels):
    plane = fidelity.to_luma(fidelity.to_levels(pixels(176, 176)))
    assert fidelity.ms_ssim(255 - plane, plane) == 0


def test_equal_pictures_have_the_best_of_each_measure(pair):
    _, original = pair
    chosen, _ = measures.choose(["psnr", "ssim", "psnr_rgb", "ssim_rgb", "pd"])
    scores = {one.name: one.of(Pair(original, original)) for one in chosen}
    assert math.isfinite(scores["psnr"]) and scores["psnr"] > 160
    assert (scores["ssim"], scores["ssim_rgb"], scores["pd"]) == (1, 1, 0)


def test_the_border_is_left_out_by_all_but_the_perceptual_ones(pair):
    soft, original = pair
    framed = soft.copy()
    framed[:4], framed[-4:], framed[:, :4], framed[:, -4:] = 0, 255, 0, 255
    for name in ("psnr", "ssim", "psnr_rgb", "ssim_rgb"):
        of = MEASURES[name].of
        assert of(Pair(framed, original)) == of(Pair(soft, original)), name
        assert of(Pair(framed, original, 3)) != of(Pair(soft, original, 3)), name
    assert perceptual.pd(framed, original) > perceptual.pd(soft, original)


def test_16_bits_are_measured_whole():
    fine = np.full((20, 20, 3), 30000, np.uint16)
    coarse = fidelity.to_levels(fine // 257 * 257)
    assert fidelity.psnr(fidelity.to_levels(fine), coarse) == pytest.approx(
        20 * math.log10(255 / (30000 % 257 / 257))
    )


def test_a_picture_that_is_too_small_has_no_value():
    tiny = np.zeros((10, 300, 3))
    assert math.isnan(fidelity.ssim(tiny, tiny)) and math.isnan(perceptual.pd(tiny, tiny))
    assert math.isnan(fidelity.ms_ssim(tiny[..., 0], tiny[..., 0]))
    assert math.isnan(niqe.niqe(tiny[..., 0]))


def test_pd_is_what_it_was(pair):
    # by the script that our published figures were measured with
    assert perceptual.pd(*pair) == pytest.approx(1.025051, rel=1e-4)
    assert perceptual.pd(pair[1][:64, :50], pair[1][64:128, :50]) == pytest.approx(
        7.658658, rel=1e-4
    )


@pytest.mark.parametrize("height", [512, 529, 600])
def test_pd_in_bands_is_pd(pixels, height):
    other = fidelity.to_levels(pixels(height, 40))
    one = other + np.random.default_rng(0).normal(0, np.linspace(0, 40, height)[:, None, None])
    whole = perceptual.pd(one, other, band=1024)
    assert perceptual.pd(one, other, band=64) == pytest.approx(whole, rel=1e-6)


def test_pd_is_symmetric_and_grows_with_noise(pair):
    _, original = pair
    noise = np.random.default_rng(0).normal(size=original.shape)
    found = [perceptual.pd(original + noise * sigma, original) for sigma in (2, 8, 32)]
    assert found == sorted(found) and found[0] > 0.01
    assert perceptual.pd(original, original + noise) == pytest.approx(
        perceptual.pd(original + noise, original)
    )


def test_a_loss_can_be_made_of_the_features():
    rgb = torch.rand(2, 3, 40, 33, requires_grad=True)
    layers = list(perceptual.extract_features(rgb * 255))
    assert [layer.shape[1] for layer in layers] == [64, 128, 256, 384, 384, 512, 512]
    other = torch.rand(2, 3, 40, 33)
    sum(
        map(torch.nn.functional.mse_loss, layers, perceptual.extract_features(other * 255))
    ).backward()
    assert rgb.grad is not None and rgb.grad.abs().sum() > 0


@pytest.mark.skipif(not EVAL, reason="needs RESTORE_EVAL, a folder with score.py")
def test_ours_equals_the_script_of_the_published_figures():
    spec = importlib.util.spec_from_file_location("score", Path(EVAL) / "score.py")
    assert spec and spec.loader
    theirs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs)
    net = theirs.SqueezeNet()
    for inputs in ("old_x1", "scratched_x1"):
        for original in sorted((Path(EVAL) / "hr").glob("*.png"))[::5]:
            restored = Path(EVAL) / inputs / f"{original.stem}.jpg"
            one, other = theirs.read(restored), theirs.read(original)
            both = Pair(
                *(measures.picture_levels(picture.read(path)) for path in (restored, original))
            )
            found = {name: MEASURES[name].of(both) for name in ("psnr", "ssim", "pd")}
            assert found["psnr"] == pytest.approx(theirs.psnr(one, other), abs=1e-9)
            assert found["ssim"] == pytest.approx(theirs.ssim(one, other), abs=1e-9)
            assert found["pd"] == pytest.approx(net.distance(one, other), rel=1e-5)


@pytest.mark.skipif(not importlib.util.find_spec("basicsr"), reason="needs basicsr 1.4.2")
def test_what_niqe_imports_can_be_imported_after_it():
    """numpy's extensions refuse to be loaded a second time."""
    lines = "from restore.metrics import niqe; niqe._load_niqe(); import numpy.fft, scipy.stats"
    done = subprocess.run(
        [sys.executable, "-c", lines], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not importlib.util.find_spec("basicsr"), reason="needs basicsr 1.4.2")
def test_niqe_finds_a_photo_more_natural_than_its_blur():
    pixels = picture.read(SAMPLES / "phone_noisy.jpg").pixels
    soft = cv2.GaussianBlur(pixels, (0, 0), 3)
    sharp, blurred = (niqe.niqe(fidelity.to_luma(fidelity.to_levels(x))) for x in (pixels, soft))
    assert 1 < sharp < blurred < 50
    assert math.isnan(niqe.niqe(np.full((200, 200), 128.0)))


def test_what_is_absent_names_the_mend(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    chosen, absent = measures.choose([])
    assert {"lpips", "niqe"}.isdisjoint(one.name for one in chosen)
    assert any(line.startswith("niqe needs basicsr") and "pip install" in line for line in absent)
    with pytest.raises(UsageError, match="lpips needs the package: pip install lpips torchvision"):
        measures.choose(["psnr", "lpips"])
    with pytest.raises(UsageError, match="no measure snr; there are psnr, ssim,"):
        measures.choose(["snr"])


def test_lpips_is_the_packages_and_fetches_no_backbone(monkeypatch, tmp_path, pair):
    class LPIPS:
        def __init__(self, net, verbose):
            assert net == "alex"

        def eval(self):
            return lambda one, other: (one - other).abs().amax()[None]

    for name in ("lpips", "torchvision"):
        stand = ModuleType(name)
        stand.__spec__ = ModuleSpec(name, None)
        stand.LPIPS = LPIPS
        monkeypatch.setitem(sys.modules, name, stand)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert str(tmp_path / "checkpoints" / perceptual.BACKBONE) in perceptual.explain_lpips_absence()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / perceptual.BACKBONE).touch()
    assert not perceptual.explain_lpips_absence()
    perceptual._lpips.cache_clear()
    black, white = np.zeros((40, 40, 3)), np.full((40, 40, 3), 255.0)
    assert perceptual.lpips(black, white) == 2  # it takes -1 to 1
    perceptual._lpips.cache_clear()


def test_gmsd_and_detail_tell_blur_and_noise(pixels):
    sharp = fidelity.to_luma(pixels(64, 80).astype(float))
    blurred = cv2.GaussianBlur(sharp, (0, 0), 1.5)
    noisy = sharp + np.random.default_rng(0).normal(0, 20, sharp.shape)
    assert (fidelity.gmsd(sharp, sharp), fidelity.detail(sharp, sharp)) == (0, 1)
    assert (
        0
        < fidelity.gmsd(cv2.GaussianBlur(sharp, (0, 0), 0.7), sharp)
        < fidelity.gmsd(blurred, sharp)
        < 1
    )
    assert max(fidelity.detail(blurred, sharp), fidelity.detail(noisy, sharp)) < 1
    assert math.isnan(fidelity.gmsd(sharp[:4], sharp[:4])) and math.isnan(
        fidelity.detail(sharp, sharp * 0)
    )
