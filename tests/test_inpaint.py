import time
from copy import deepcopy
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from restore.errors import UsageError
from restore.images import masks
from restore.images.masks import dilate, fill_smoothly, find_boxes
from restore.images.picture import Picture
from restore.options import InpaintOptions, UpscaleOptions
from restore.tasks.run import restore


def hole_in(height, width, rows=slice(10, 20), columns=slice(8, 30)):
    mask = np.zeros((height, width), np.uint8)
    mask[rows, columns] = 255
    return mask


@settings(max_examples=12)
@given(
    height=st.integers(3, 90),
    width=st.integers(3, 90),
    seed=st.integers(0, 99),
    grow=st.integers(0, 5),
    feather=st.integers(0, 9),
    deep=st.booleans(),
)
def test_outside_the_feather_not_a_sample_moves(stack, height, width, seed, grow, feather, deep):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 65536 if deep else 256, (height, width, 3))
    picture = Picture(pixels.astype(np.uint16 if deep else np.uint8))
    mask = np.where(rng.random((height, width)) < 0.01, 255, 0).astype(np.uint8)
    mask[: height // 3, : width // 4] = 255
    options = InpaintOptions(steps=1, grow=grow, feather=feather)
    made = restore(picture, options, stack, seed, mask=mask)
    outside = masks.feather(dilate(mask > 127, grow), feather) == 0
    assert made.pixels.dtype == picture.pixels.dtype
    assert np.array_equal(made.pixels[outside], picture.pixels[outside])


def test_case_83_and_84_a_black_mask_gives_the_input_and_a_white_one_another_picture(
    stack, picture
):
    low = replace(picture(40, 50), alpha=np.full((40, 50), 7, np.uint8), exif=b"x")
    same = restore(low, InpaintOptions(steps=1), stack, 0, mask=np.zeros((40, 50), np.uint8))
    assert np.array_equal(same.pixels, low.pixels) and same.alpha is low.alpha
    assert (same.exif, same.icc) == (low.exif, low.icc)
    assert same.warnings == ("nothing to fill: the mask is black throughout",)
    made = restore(low, InpaintOptions(steps=1), stack, 0, mask=np.full((40, 50), 255, np.uint8))
    assert made.size == low.size and not made.warnings
    assert (made.pixels != low.pixels).any(2).mean() > 0.9


@pytest.mark.parametrize("invert", [False, True])
@pytest.mark.parametrize("engine", ["telea", "model"])
def test_a_mask_of_zeros_and_ones_is_black_and_told(stack, picture, engine, invert):
    ones = np.zeros((40, 50), np.uint8)
    ones[10:20, 10:20] = 1
    steps = {"steps": 1} if engine == "model" else {}
    options = InpaintOptions(**steps, engine=engine, invert=invert)
    told, *others = restore(picture(40, 50), options, stack, 0, mask=ones).warnings
    black = "the mask is taken for black: its brightest value is 1 of 255, and white begins at 128"
    assert told == black
    assert others == ([] if invert else ["nothing to fill: the mask is black throughout"])


def test_what_is_in_the_hole_does_not_decide_what_fills_it(stack, picture):
    low, mask = picture(60, 60), hole_in(60, 60)
    other = replace(low, pixels=np.where(mask[..., None] > 0, 255 - low.pixels, low.pixels))
    made = [restore(p, InpaintOptions(steps=2), stack, 0, mask=mask).pixels for p in (low, other)]
    assert np.array_equal(*made)


def test_a_hole_is_filled_the_same_whatever_lies_far_away(stack, picture):
    low, mask = picture(64, 400), hole_in(64, 400)
    far = mask.copy()
    far[20:40, 360:380] = 255
    one, both = (
        restore(low, InpaintOptions(steps=2), stack, 0, mask=m).pixels for m in (mask, far)
    )
    assert np.array_equal(one[:, :100], both[:, :100])
    assert not np.array_equal(one[20:40, 360:380], both[20:40, 360:380])


def test_near_holes_share_a_box_and_far_ones_do_not():
    hole = np.zeros((2000, 2000), bool)
    hole[100:110, 100:110] = hole[100:110, 200:210] = hole[1500:1600, 1500:1900] = True
    found = sorted(
        (b[0].start, b[0].stop, b[1].start, b[1].stop) for b in find_boxes(hole, 0.5, 256, 4)
    )
    assert len(found) == 2
    assert all(start % 4 == 0 for box in found for start in box[::2])
    rows = found[1][1] - found[1][0]
    assert rows >= 100 + 2 * 200


@pytest.mark.parametrize("engine", ["patchmatch", "telea", "navier_stokes"])
def test_the_classical_engines_keep_the_promise_too(stack, picture, engine):
    low, mask = picture(50, 50), hole_in(50, 50)
    made = restore(low, InpaintOptions(engine=engine, feather=0), stack, 0, mask=mask)
    assert np.array_equal(made.pixels[mask == 0], low.pixels[mask == 0])
    assert np.abs(made.pixels[mask > 0].astype(int) - low.pixels[mask > 0]).mean() < 40


@pytest.mark.parametrize("engine", ["model", "patchmatch", "telea", "navier_stokes", "upscale"])
def test_neither_hidden_colours_nor_the_holes_own_reach_what_fills_it(stack, picture, engine):
    """The hole has thick and thin parts, and reaches into what is transparent."""
    low, mask = picture(60, 60), hole_in(60, 60, slice(20, 36), slice(20, 45))
    mask[50:52, 10:55] = 255
    alpha = np.full((60, 60), 255, np.uint8)
    alpha[:, :28] = 0
    is_upscale = engine == "upscale"
    options = UpscaleOptions(scale=2) if is_upscale else InpaintOptions(engine=engine, feather=2)
    made = []
    for hidden, held in ((0, 255), (255, 0)):
        pixels = np.where((alpha == 0)[..., None], hidden, low.pixels)
        pixels = np.where(mask[..., None] > 0, held, pixels).astype(np.uint8)
        given = replace(low, pixels=pixels, alpha=alpha)
        result = restore(given, options, stack, 0, mask=mask)
        made.append(result.pixels[result.alpha > 0])
        if not is_upscale:
            far = dilate(mask > 0, 3)
            assert np.array_equal(result.pixels[~far], pixels[~far])
    assert np.array_equal(*made)


def test_restoring_and_filling_in_one_pass_ignores_what_the_damage_shows(stack, picture):
    low, mask = picture(40, 40), hole_in(40, 40, slice(10, 12), slice(0, 40))
    white = replace(low, pixels=np.where(mask[..., None] > 0, 255, low.pixels).astype(np.uint8))
    options = UpscaleOptions(scale=2)
    one, other, plain = (
        restore(p, options, stack, 0, mask=m).pixels
        for p, m in ((low, mask), (white, mask), (white, None))
    )
    assert np.array_equal(one, other)
    assert not np.array_equal(one, plain)


@pytest.mark.parametrize("top", [255, 65535])
def test_a_mended_hole_goes_on_from_what_is_round_it(top):
    ramp = np.linspace(0.2 * top, 0.8 * top, 60)[:, None, None]
    pixels = np.broadcast_to(np.rint(ramp), (60, 50, 3)).astype(
        np.uint8 if top == 255 else np.uint16
    )
    hole = hole_in(60, 50, slice(20, 34), slice(10, 30)) > 0
    made = fill_smoothly(np.where(hole[..., None], 0, pixels).astype(pixels.dtype), hole)
    assert np.array_equal(made[~hole], pixels[~hole])
    assert np.abs(made.astype(float) - pixels)[hole].max() < 0.1 * top
    assert (fill_smoothly(pixels, np.ones_like(hole)) == top // 2 + 1).all()


def test_a_mask_of_another_size_or_none_is_refused(stack, picture):
    with pytest.raises(UsageError, match="mask is"):
        restore(picture(20, 20), InpaintOptions(), stack, 0, mask=np.zeros((20, 21), np.uint8))
    with pytest.raises(UsageError, match="needs a mask"):
        restore(picture(20, 20), InpaintOptions(), stack, 0)


def test_the_walk_is_finite_at_a_strength_below_one(stack, picture):
    low, mask = picture(40, 40), hole_in(40, 40)
    options = InpaintOptions(steps=4, strength=0.5)
    made = restore(low, options, stack, 0, mask=mask)
    assert not np.array_equal(made.pixels, low.pixels)
    assert torch.isfinite(torch.from_numpy(made.pixels.astype(np.float32))).all()


def test_a_picture_is_extended_and_only_what_is_new_is_made(stack, picture):
    low = picture(30, 40)
    made = restore(low, InpaintOptions(steps=1, extend=(4, 3, 2, 1), feather=0), stack, 0)
    assert made.size == (34, 46)
    assert np.array_equal(made.pixels[3:33, 4:44], low.pixels)
    assert np.ptp(made.pixels[:, -2:]) > 0


def test_a_model_of_damage_says_that_it_paints_no_scene_beyond_the_edges(stack, picture):
    low, modest = picture(30, 40), replace(stack, prompts_describe="damage")

    def notes(stack, **options):
        given = InpaintOptions(feather=0, **options)
        return restore(low, given, stack, 0, mask=hole_in(30, 40)).warnings

    assert not notes(stack, extend=(4, 0, 0, 0)) and not notes(modest)
    for options in ({"extend": (4, 0, 0, 0)}, {"aspect": "16:9"}):
        assert "paints no scene beyond the edges" in notes(modest, engine="model", **options)[0]
        assert not notes(modest, **options)


@pytest.mark.parametrize("engine", ["auto", "patchmatch", "telea"])
def test_a_filling_without_a_model_tells_what_it_did_not_hear(engine, stack, picture):
    modest = replace(stack, prompts_describe="damage")

    def notes(**options):
        given = InpaintOptions(engine=engine, windows=2, grow=1, **options)
        return restore(picture(30, 40), given, modest, 0, mask=hole_in(30, 40)).warnings

    assert not notes()
    said = "steps, guidance are for a model alone, not for this filling; add --engine model"
    assert notes(steps=3, guidance=2) == (said,)


def test_patches_fill_where_nobody_asked_a_model_of_subjects(stack, picture):
    low, mask = picture(60, 60), hole_in(60, 60)
    modest = replace(stack, prompts_describe="damage")

    def made(model, **options):
        given = InpaintOptions(steps=2, **options)
        return restore(low, given, model, 0, mask=mask).pixels.tobytes()

    patches, painted = made(modest, engine="patchmatch"), made(modest, engine="model")
    assert patches != painted
    assert made(modest) == made(stack, engine="patchmatch") == patches
    assert made(stack) == made(stack, engine="model") == painted
    assert made(modest, prompt="noise") == made(modest, prompt="noise", engine="model") != patches
    assert made(modest, strength=0.5) == made(modest, strength=0.5, engine="model") != patches


@pytest.mark.parametrize("size", [(30, 40), (9, 9)])
@pytest.mark.parametrize("aspect", ["1:1", "16:9", "2.5:3"])
def test_an_aspect_is_met_without_cutting(size, aspect):
    options = InpaintOptions(aspect=aspect)
    height, width = options.output_size(size)
    across, down = map(float, aspect.split(":"))
    assert height >= size[0] and width >= size[1]
    assert abs(width / height - across / down) < 1 / min(size)


@pytest.mark.parametrize(
    "wrong", [{"aspect": "16"}, {"aspect": "0:1"}, {"extend": (-1, 0, 0, 0)}, {"grow": -1}]
)
def test_sides_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValidationError):
        InpaintOptions(**wrong)


def test_case_87_an_inverted_mask_repaints_the_rest(stack, picture):
    low, mask = picture(40, 40), hole_in(40, 40)
    options = InpaintOptions(steps=1, invert=True, feather=0)
    made = restore(low, options, stack, 0, mask=mask)
    assert np.array_equal(made.pixels[mask > 0], low.pixels[mask > 0])
    assert (made.pixels[mask == 0] != low.pixels[mask == 0]).any()


def test_case_88_a_hole_at_the_border_is_filled(stack, picture):
    low, mask = picture(50, 70), hole_in(50, 70, slice(0, 9), slice(60, 70))
    made = restore(low, InpaintOptions(steps=1, feather=0), stack, 0, mask=mask)
    assert np.array_equal(made.pixels[mask == 0], low.pixels[mask == 0])
    assert (made.pixels[mask > 0] != low.pixels[mask > 0]).any()


def test_a_model_that_was_not_taught_to_fill_restores_the_continued_rim(stack, picture):
    low, mask = picture(40, 40), hole_in(40, 40)
    modest = replace(stack, fills=False)
    taught, restored = (
        restore(low, InpaintOptions(steps=1, feather=0), s, 0, mask=mask) for s in (stack, modest)
    )
    assert not np.array_equal(taught.pixels, restored.pixels)
    assert np.array_equal(restored.pixels[mask == 0], low.pixels[mask == 0])


def test_the_specks_of_a_dusty_scan_are_told_apart_quickly():
    hole = np.zeros((3000, 3000), bool)
    hole[tuple(np.random.default_rng(0).integers(0, 3000, (2, 15000)))] = True
    times = np.zeros(hole.shape, np.uint8)
    began = time.process_time()  # the machine may be busy
    for box in find_boxes(hole, 0.0, 9, 1):
        times[box] += 1
    assert time.process_time() - began < 20  # pair by pair it took minutes
    assert times.max() == 1 and times[hole].min() == 1


def test_a_small_hole_costs_one_window_of_the_model():
    for row, column, radius in ((50, 70, 3), (301, 402, 30), (598, 5, 20), (333, 250, 60)):
        rows, columns = np.ogrid[:600, :800]
        hole = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
        ((down, across),) = find_boxes(hole, context=0.5, least=256, step=4)
        assert (down.stop - down.start, across.stop - across.start) == (256, 256)
        assert down.start % 4 == across.start % 4 == 0
        assert hole[down, across].sum() == hole.sum()


def test_a_large_hole_is_seen_with_its_surroundings():
    hole = np.zeros((900, 1200), bool)
    hole[200:500, 301:702] = True
    ((down, across),) = find_boxes(hole, context=0.25, least=256, step=8)
    margins = (200 - down.start, down.stop - 500, 301 - across.start, across.stop - 702)
    assert all(100 <= margin <= 112 for margin in margins)


def test_a_model_that_adds_nothing_leaves_the_rims_continuation(stack, picture):
    silent = replace(stack, unet=deepcopy(stack.unet))
    torch.nn.init.zeros_(silent.unet.conv_out.weight)
    torch.nn.init.zeros_(silent.unet.conv_out.bias)
    low, mask = picture(80, 70), hole_in(80, 70)
    made = restore(low, InpaintOptions(steps=1, context=8), silent, 0, mask=mask)
    assert np.array_equal(made.pixels, fill_smoothly(low.pixels, mask > 127))


def test_an_empty_mask_that_grows_stays_empty(stack, picture):
    low, empty = picture(40, 40), np.zeros((40, 40), np.uint8)
    made = restore(low, InpaintOptions(steps=1, grow=2), stack, 0, mask=empty)
    assert np.array_equal(made.pixels, low.pixels)


def test_a_picture_that_has_the_shape_asked_for_stays_as_it_is(stack, picture):
    low = picture(18, 32)
    made = restore(low, InpaintOptions(steps=1, aspect="16:9"), stack, 0)
    assert np.array_equal(made.pixels, low.pixels)


def test_a_thin_part_is_continued_as_opencv_does_and_a_thick_one_painted(stack, picture):
    low = picture(64, 80)
    scratch, blob = np.zeros((64, 80), np.uint8), np.zeros((64, 80), np.uint8)
    cv2.line(scratch, (4, 8), (70, 14), 255, 4)
    blob[36:60, 30:60] = 255
    options = InpaintOptions(steps=1)
    of_damage = replace(stack, prompts_describe="damage")
    both = restore(low, options, of_damage, 0, mask=scratch | blob).pixels
    wanted = cv2.inpaint(low.pixels, scratch, 3, cv2.INPAINT_NS)
    assert (both[scratch > 0] == wanted[scratch > 0]).all()
    assert (both[blob > 0] != cv2.inpaint(low.pixels, blob, 3, cv2.INPAINT_NS)[blob > 0]).any()
    worded = options.model_copy(update={"prompt": "a scratch"})
    for told, model in ((worded, of_damage), (options, stack)):  # who says it, or chose who paints
        made = restore(low, told, model, 0, mask=scratch).pixels
        assert (made[scratch > 0] != wanted[scratch > 0]).any()


def test_sixteen_bits_are_continued_in_all_of_them(stack):
    ramp = np.add.outer(np.arange(40), np.arange(60))[..., None] * np.array([601, 400, 200])
    low, mask = Picture(ramp.astype(np.uint16)), hole_in(40, 60, slice(20, 23), slice(10, 50))
    for options in (InpaintOptions(steps=1), InpaintOptions(engine="telea")):
        made = restore(low, options, replace(stack, prompts_describe="damage"), 0, mask=mask).pixels
        gap = np.abs(made.astype(int) - low.pixels)
        assert gap.max() < 1500 and len(np.unique(made[mask > 0])) > 60  # not steps of 257


@pytest.mark.parametrize("engine", ["patchmatch", "telea"])
def test_a_feather_that_is_not_heard_is_told(stack, picture, engine):
    low, mask = picture(40, 40), hole_in(40, 40, slice(10, 30), slice(10, 30))
    plain, told = (
        restore(low, InpaintOptions(engine=engine, **more), stack, 0, mask=mask)
        for more in ({}, {"feather": 9})
    )
    assert np.array_equal(plain.pixels, told.pixels) and not plain.warnings
    assert "feather" in told.warnings[0]
