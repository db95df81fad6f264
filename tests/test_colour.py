from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from restore.images.picture import Picture
from restore.images.resample import resize_band
from restore.tasks.colour import LEVELS, averaging, coarse, match, unfaded

HOWS = ("wavelet", "adain", "lowpass")


def enlarged(low: Picture, size: tuple[int, int]) -> Picture:
    """What an upscaler that adds nothing makes."""
    top = np.iinfo(low.pixels.dtype).max
    alpha = None if low.alpha is None else np.full(size, top, low.pixels.dtype)
    pixels = np.rint(resize_band(low, size, (0, size[0])) * top).astype(low.pixels.dtype)
    return replace(low, pixels=pixels, alpha=alpha)


def softened(low: Picture) -> Picture:
    """Room for a cast at both ends of the range."""
    return replace(low, pixels=(low.pixels // 2 + 50).astype(low.pixels.dtype))


def means(picture: Picture) -> np.ndarray:
    return picture.pixels.mean((0, 1))


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("scale", [2, 3.7])
def test_a_colour_cast_is_taken_back(picture, how, scale):
    low = softened(picture(33, 41))
    made = enlarged(low, (round(33 * scale), round(41 * scale)))
    cast = replace(made, pixels=(made.pixels + np.uint8([25, 3, 40])).astype(np.uint8))
    assert np.abs(means(match(cast, low, how)) - means(made)).max() < 0.5


@pytest.mark.parametrize("how", HOWS)
def test_what_is_right_already_stays(picture, how):
    low = picture(40, 31)
    made = enlarged(low, (160, 124))
    moved = match(made, low, how).pixels.astype(int) - made.pixels
    # an enlarged picture, averaged, is a little softer than its source: lowpass mends that
    assert np.abs(moved).max() <= (12 if how == "lowpass" else 1)
    same = match(low, low, how)
    assert np.abs(same.pixels.astype(int) - low.pixels).max() <= 1


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("size", [(97, 130), (33, 41), (1, 5)])
def test_the_band_changes_no_byte(picture, how, size):
    low, made = picture(33, 41), picture(*size, seed=1)
    if size == (1, 5):
        low = picture(1, 3)
    one, other, whole = (match(made, low, how, band) for band in (1, 32, 1000))
    assert np.array_equal(one.pixels, whole.pixels)
    assert np.array_equal(other.pixels, whole.pixels)
    assert one.warnings == whole.warnings


@pytest.mark.parametrize("scale", [2, 4, 2.5])
def test_lowpass_states_the_bound_that_it_keeps(picture, scale):
    low = picture(30, 26)
    size = round(30 * scale), round(26 * scale)
    made = match(picture(*size, seed=3), low, "lowpass")
    bound = float(made.warnings[-1].split("within ")[1].split()[0])
    rows, columns = averaging(30, size[0]).toarray(), averaging(26, size[1]).toarray()
    back = np.einsum("ih,jw,hwc->ijc", rows, columns, made.pixels.astype(float))
    assert np.abs(back - low.pixels).max() <= bound + 0.01
    assert bound < 1


def test_averages_are_boxes():
    blocks = averaging(4, 12).toarray()
    assert np.allclose(blocks, np.kron(np.eye(4), np.full(3, 1 / 3)))
    assert np.allclose(averaging(7, 10).toarray().sum(1), 1)
    assert np.allclose(averaging(7, 10).toarray().sum(0), 0.7)  # every pixel counts the same


def test_coarse_waves_are_five_blurs_with_holes():
    rgb = np.random.default_rng(0).random((50, 70, 3), np.float32)
    wanted = rgb.astype(float)
    for level in range(LEVELS):
        kernel = np.zeros(2 * 2**level + 1)
        kernel[[0, 2**level, -1]] = 0.25, 0.5, 0.25
        for axis in (0, 1):
            wanted = ndimage.correlate1d(wanted, kernel, axis, mode="nearest")
    assert np.abs(coarse(rgb) - wanted).max() < 1e-6


@pytest.mark.parametrize("how", HOWS)
def test_depth_grey_and_alpha_are_kept(picture, how):
    low = softened(picture(20, 20))
    grey = np.repeat(low.pixels[..., :1], 3, 2).astype(np.uint16) * 257
    deep = replace(low, pixels=grey, grey=True, alpha=np.full((20, 20), 65535, np.uint16))
    made = enlarged(deep, (40, 40))
    cast = replace(made, pixels=made.pixels + np.uint16(3000))
    done = match(cast, deep, how)
    assert done.pixels.dtype == np.uint16
    assert (done.pixels == done.pixels[..., :1]).all()
    assert done.alpha is cast.alpha
    assert np.abs(means(done) - means(made)).max() < 128  # half an 8-bit level


@pytest.mark.parametrize("how", HOWS)
def test_colours_that_do_not_show_do_not_count(picture, how):
    low, made = picture(24, 24), picture(48, 48, seed=1)
    alpha = np.full((24, 24), 255, np.uint8)
    alpha[:, :8] = 0
    made = replace(made, alpha=np.kron(alpha, np.ones((2, 2), np.uint8)))
    loud = low.pixels.copy()
    loud[:, :8] = 255, 0, 255
    one, other = (match(made, replace(low, pixels=p, alpha=alpha), how) for p in (low.pixels, loud))
    assert np.array_equal(one.pixels, other.pixels)


def test_none_changes_nothing(picture):
    made = picture(8, 8)
    assert match(made, picture(4, 4), "none") is made


def test_a_flat_result_gets_the_mean(picture):
    low = picture(16, 16)
    flat = Picture(np.full((32, 32, 3), 9, np.uint8))
    wanted = means(enlarged(low, (32, 32)))
    assert np.abs(means(match(flat, low, "adain")) - wanted).max() < 0.5


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_half_of_the_fading_is_undone_and_told(dtype):
    unit = np.iinfo(dtype).max // 255
    ramp = np.linspace(40, 240, 4096).reshape(64, 64, 1) + np.array([0, -4, -10])
    pale = Picture(np.rint(ramp * unit).clip(0, 255 * unit).astype(dtype))
    made = unfaded(pale, 0.5)
    first, last = made.pixels[0, 0] / unit, made.pixels[-1, -1] / unit
    assert np.abs(first - [22, 19, 16]).max() < 2  # half of the way, and white hardly moves
    assert 237 < last[0] < 240 and "(41, 37, 31)" in made.warnings[-1]
    assert unfaded(pale, 0) is pale


def test_black_stays_and_grey_stays_grey():
    grey = np.repeat(np.linspace(3, 255, 4096).reshape(64, 64, 1), 3, 2).astype(np.uint8)
    assert unfaded(Picture(grey), 1).pixels is grey
    assert unfaded(Picture(np.maximum(grey, 30)), 1).pixels.min() == 30  # white is there
    pale = unfaded(Picture(grey.clip(30, 240)), 1).pixels
    assert (pale[..., :1] == pale).all() and pale.min() == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_is_hidden_does_not_count_as_black_or_white(dtype):
    unit = np.iinfo(dtype).max // 255
    ramp = np.repeat(np.linspace(40, 240, 4096).reshape(64, 64, 1), 3, 2) * unit
    pale = Picture(np.rint(ramp).astype(dtype))
    hidden = np.zeros((64, 64), bool)
    hidden[:2, :32], hidden[2:4, :32] = True, True
    pale.pixels[:2, :32], pale.pixels[2:4, :32] = 0, 255 * unit
    assert unfaded(pale, 1) is pale
    assert unfaded(pale, 1, hidden).pixels[~hidden].min() == 0
    assert unfaded(pale, 1, np.ones_like(hidden)) is pale  # nothing shows
