"""Holes filled with patches of the same picture."""

import cv2
import numpy as np
import pytest

from restore.images.masks import fill_smoothly
from restore.images.patchmatch import patchmatch
from restore.images.picture import Picture
from restore.tasks.fill import fill_plain, patched


def bricks(dtype=np.uint8):
    """A wall, (96, 120, 3): what is in a hole follows from what is round it."""
    y, x = np.mgrid[:96, :120]
    row = y // 8
    joint = (y % 8 < 2) | ((x + 8 * (row % 2)) % 16 < 2)
    wall = np.where(joint[..., None], (200, 195, 190), (150, 70, 50))
    return (wall * (np.iinfo(dtype).max // 255)).astype(dtype)


def hole_in(size, rows=slice(36, 64), columns=slice(50, 84)):
    hole = np.zeros(size, bool)
    hole[rows, columns] = True
    return hole


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_pattern_goes_on_through_the_hole(dtype):
    wall, hole = bricks(dtype), hole_in((96, 120))
    made = patchmatch(np.where(hole[..., None], 0, wall).astype(dtype), hole)
    smooth = fill_smoothly(wall, hole)

    def error(filled):
        return np.abs(filled.astype(float) - wall)[hole].mean() / np.iinfo(dtype).max

    assert error(made) < 0.1 * error(smooth)
    assert np.array_equal(made[~hole], wall[~hole])


def test_what_is_in_the_hole_decides_nothing(pixels):
    photo, hole = pixels(80, 90), hole_in((80, 90), slice(20, 50), slice(30, 60))
    one, other = (
        patchmatch(np.where(hole[..., None], value, photo).astype(np.uint8), hole)
        for value in (0, 255)
    )
    assert np.array_equal(one, other)


def test_sixteen_bits_stay_sixteen(pixels):
    photo = pixels(80, 90).astype(np.uint16) * 257 + 3
    hole = hole_in((80, 90), slice(20, 50), slice(30, 60))
    made = patchmatch(photo, hole)
    assert (made[hole].min(0) >= photo.min((0, 1))).all()
    assert (made[hole].max(0) <= photo.max((0, 1))).all()
    assert len(np.unique(made[hole] % 257)) > 100  # means of 16 bits, not of 8


def test_a_seed_gives_the_same_and_another_one_a_candidate(pixels):
    photo, hole = pixels(80, 90), hole_in((80, 90), slice(10, 60), slice(20, 70))
    one, again, other = (patchmatch(photo, hole, seed) for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (30, 30), (64, 9)])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_picture_with_too_few_patches_is_filled_smoothly(pixels, size, share):
    photo = pixels(*size)
    hole = np.random.default_rng(0).random(size) < share
    made = patchmatch(photo, hole)
    assert made.dtype == photo.dtype and made.shape == photo.shape
    assert np.array_equal(made[~hole], photo[~hole])
    if hole.all():
        assert np.array_equal(made, fill_smoothly(photo, hole))


def test_many_odd_holes_are_filled_by_what_is_outside_of_all(pixels):
    photo = pixels(120, 140)
    marks = np.zeros((120, 140), np.uint8)
    rng = np.random.default_rng(3)
    for _ in range(6):
        center, axes = rng.integers(0, 140, 2).tolist(), rng.integers(2, 25, 2).tolist()
        cv2.ellipse(marks, center, axes, 0, 0, 360, 1, -1)
    hole = marks > 0
    loud = np.where(hole[..., None], [255, 0, 255], photo).astype(np.uint8)
    made = patchmatch(loud, hole)
    assert np.abs(made[hole] - np.array([255.0, 0, 255])).max(1).min() > 20


def sky(dtype=np.uint8):
    """A gradient with a faint grain, (160, 150, 3)."""
    y, x = np.mgrid[:160, :150, :1][:2] / 160
    grain = np.random.default_rng(0).normal(0, 0.7, (160, 150, 3))
    levels = np.concatenate([90 + 70 * y + 8 * x, 140 + 60 * y, 210 + 25 * y - 5 * x], 2) + grain
    return np.rint(levels * (np.iinfo(dtype).max / 255)).astype(dtype)


def disc(size=(160, 150), middle=(80, 75), radius=45):
    y, x = np.indices(size)
    return np.hypot(y - middle[0], x - middle[1]) < radius


def test_a_hole_is_filled_however_deep_it_is(monkeypatch):
    monkeypatch.setattr("restore.images.patchmatch.ROUNDS", (2, 1, 1))  # it is large
    shades = np.random.default_rng(0).uniform(100, 200, (28, 60, 3)).astype(np.uint8)
    wall = np.concatenate([shades, np.zeros((28, 200, 3), np.uint8)], 1)
    made = patchmatch(wall, hole_in(wall.shape[:2], slice(None), slice(60, None)))
    assert made.min() >= shades.min()  # from 149 px on it was black throughout
    assert np.abs(made[:, 60:].mean() - shades.mean()) < 10


def test_a_hole_in_noise_is_filled_beside_one_in_a_flat_part():
    wall, hole = np.full((100, 140, 3), 240, np.uint8), hole_in((100, 140), slice(10, 90))
    wall[30:70, 94:134] = np.random.default_rng(0).integers(50, 256, (40, 40, 3))
    hole[44:56, 108:120] = True
    made = patchmatch(wall, hole)[44:56, 108:120]
    assert made.min() >= 50  # it was black: patches so unlike the best of others counted as nothing


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_hole_in_a_sky_leaves_no_smudge(dtype):
    true, hole = sky(dtype), disc()
    holed = np.where(hole[..., None], 0, true).astype(dtype)
    made = patched(Picture(holed), hole, 4, 0).pixels
    gap = np.abs(made.astype(float) - true)[hole] / np.iinfo(dtype).max * 255
    assert gap.max() < 5 and gap.mean() < 0.9  # patches: 10 and 2.0
    assert np.array_equal(made[~hole], true[~hole])


def test_colours_beyond_its_rim_do_not_seep_into_a_flat_part():
    flat, hole = np.full((160, 150, 3), 200, np.uint8), disc(radius=30)
    flat[~disc()] = 0
    made = np.where(hole[..., None], 9, flat).astype(np.uint8)
    assert np.array_equal(fill_plain(made, hole), hole) and np.array_equal(made, flat)


def test_what_crosses_the_rim_is_not_smoothed_away():
    """Of three holes, one lies under a faint wire, one in a texture, and one has no rim."""
    true = sky()
    true[40:42] -= 20
    true[90:] = np.random.default_rng(0).integers(0, 256, (70, 150, 3))
    for hole in (
        disc(middle=(40, 75), radius=20),
        disc(middle=(125, 75), radius=15),
        true[..., 0] >= 0,
    ):
        made = true.copy()
        assert not fill_plain(made, hole).any() and np.array_equal(made, true)
