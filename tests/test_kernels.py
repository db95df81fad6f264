"""Kernels: laws that every size, spread and shape obeys."""

import math

import numpy as np
import pytest

from degradations import kernels

SIZES = range(7, 22, 2)
FAMILY = [
    lambda n, s: kernels.generalised_gaussian(n, s, s / 2, 0.7),
    lambda n, s: kernels.generalised_gaussian(n, s, s / 2, 0.7, 0.5),
    lambda n, s: kernels.generalised_gaussian(n, s, s / 2, 0.7, 4.0),
    lambda n, s: kernels.plateau(n, s, s / 2, 0.7, 1.0),
    lambda n, s: kernels.plateau(n, s, s / 2, 0.7, 2.0),
]


def cutoffs(size):
    return np.linspace(math.pi / (3 if size < 13 else 5), math.pi, 7)


@pytest.mark.parametrize("make", FAMILY)
@pytest.mark.parametrize("sigma", [1e-9, 0.2, 1.5, 3])
def test_the_gaussian_family_is_a_centred_positive_mean(make, sigma):
    for size in SIZES:
        kernel = make(size, sigma)
        assert kernel.shape == (size, size) and kernel.dtype == np.float32
        assert kernel.sum() == pytest.approx(1, abs=1e-5)
        assert kernel.min() >= 0 and kernel.argmax() == kernel.size // 2
        np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-7)


def test_without_spread_a_kernel_is_the_unit_impulse():
    for make in FAMILY[:3]:
        assert make(7, 0.0)[3, 3] == 1


def test_generalised_is_gaussian_at_beta_one():
    line = kernels.gaussian_1d(15, 1.7)
    kernel = kernels.generalised_gaussian(15, 1.7, 1.7, 0.3, 1.0)
    np.testing.assert_allclose(kernel, np.outer(line, line), atol=1e-6)


def test_generalised_and_plateau_become_the_same_filled_ellipse_as_beta_grows():
    disc = kernels.plateau(21, 4.3, 3.1, 0.4, 40.0)
    flat = kernels.generalised_gaussian(21, 4.3, 3.1, 0.4, 40.0)
    assert ((disc > disc.max() / 2) == (flat > flat.max() / 2)).all()
    assert np.count_nonzero(disc > disc.max() / 2) == pytest.approx(math.pi * 4.3 * 3.1, rel=0.1)


def test_a_kernel_spreads_along_its_angle():
    axis = np.arange(21) - 10
    kernel = kernels.generalised_gaussian(21, 2.0, 0.8, math.pi / 6)
    x, y = np.meshgrid(axis, axis)
    covariance = np.array([[(kernel * a * b).sum() for b in (x, y)] for a in (x, y)])
    c, s = math.cos(math.pi / 6), math.sin(math.pi / 6)
    along, across = np.array([c, s]), np.array([-s, c])
    assert along @ covariance @ along == pytest.approx(4, rel=0.02)
    assert across @ covariance @ across == pytest.approx(0.64, rel=0.02)
    assert along @ covariance @ across == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("size", SIZES)
def test_the_sinc_passes_low_frequencies_and_stops_high_ones(size):
    for cutoff in cutoffs(size):
        kernel = kernels.sinc(size, cutoff)
        assert kernel.sum() == pytest.approx(1, abs=1e-5)
        np.testing.assert_allclose(kernel, kernel.T, atol=1e-7)
        np.testing.assert_allclose(kernel, kernel[::-1], atol=1e-7)
        gain = np.abs(np.fft.fft2(kernel, s=(128, 128)))
        assert gain.max() < 1.10  # 1.7 without a window
        frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(128), np.fft.fftfreq(128))) * 2 * math.pi
        width = 7 / size  # of the transition, a half
        if cutoff > 2 * width:
            assert gain[frequency < cutoff - 2 * width].min() > 0.8
        assert gain[frequency > cutoff + 2 * width].max(initial=0) < 0.2


def test_the_sinc_still_overshoots_at_an_edge():
    step = np.cumsum(kernels.sinc(21, math.pi / 3).sum(0))
    assert step.max() > 1.04 and step.min() < -0.04


@pytest.mark.parametrize("length", [0, 0.3, 1, 7.5, 30])
@pytest.mark.parametrize("bend", [0, 1.0, -2.5])
def test_motion_is_a_mean_along_a_centred_path(length, bend):
    kernel = kernels.motion(length, 0.6, bend)
    assert kernel.dtype == np.float32 and len(kernel) % 2 == 1 and kernel.min() >= 0
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    axis = np.arange(len(kernel)) - len(kernel) // 2
    assert kernel.sum(0) @ axis == pytest.approx(0, abs=1e-4)
    assert kernel.sum(1) @ axis == pytest.approx(0, abs=1e-4)
    if length == 0:
        assert kernel.max() == 1
    if bend == 0:  # a straight line of this length has a variance of length^2 / 12 along itself
        along = axis[None, :] * math.cos(0.6) + axis[:, None] * math.sin(0.6)
        spread = (kernel * along**2).sum() - length**2 / 12
        assert spread == pytest.approx(0, abs=0.5)  # sharing among pixels adds up to a quarter


@pytest.mark.parametrize("radius", [0, 0.4, 1, 2.7, 6, 15])
def test_defocus_is_a_disc(radius):
    kernel = kernels.disc(radius)
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(kernel, kernel.T)
    np.testing.assert_allclose(kernel, kernel[::-1])
    if radius < 0.5:
        assert kernel.max() == 1
    if radius > 2:  # flat, of its area, with the second moment of a disc
        assert 1 / kernel.max() == pytest.approx(math.pi * radius**2, rel=0.05)
        axis = np.arange(len(kernel)) - len(kernel) // 2
        assert kernel.sum(0) @ axis**2 == pytest.approx(radius**2 / 4, rel=0.05)


def test_trimming_keeps_the_kernel_within_its_tail():
    kernel = kernels.generalised_gaussian(21, 0.8, 0.5, 0.3)
    small = kernels.trim(kernel)
    cut = (21 - len(small)) // 2
    assert 3 <= len(small) < 15 and len(small) % 2 == 1
    assert small.sum() == pytest.approx(1, abs=1e-6)
    assert np.abs(np.pad(small, cut) - kernel).sum() < 3e-4
    wide = kernels.plateau(9, 3, 3, 0, 1)
    assert kernels.trim(wide) is wide


@pytest.mark.parametrize("angle", [0.0, 0.3, 1.2])
def test_trimming_shifts_nothing(angle):
    small = kernels.trim(kernels.generalised_gaussian(21, 3.0, 0.4, angle))
    assert (small == 0).mean() > 0.3
    assert ((small == 0) == (small[::-1, ::-1] == 0)).all()
    axis = np.arange(len(small)) - len(small) // 2
    assert small.sum(0) @ axis == pytest.approx(0, abs=1e-5)
    assert small.sum(1) @ axis == pytest.approx(0, abs=1e-5)
