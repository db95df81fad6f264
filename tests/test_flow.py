"""No black pictures: what half precision loses is computed again in fp32, and said so."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from restore.errors import ConfigError, NonFiniteError
from restore.images.picture import Picture
from restore.options import Img2imgOptions, Text2imgOptions, UpscaleOptions
from restore.tasks.run import restore

TASKS = [
    UpscaleOptions(scale=2),
    Img2imgOptions(steps=2),
    Text2imgOptions(steps=2, width=30, height=20, prompt="a"),
]


def lost(stack, where, dtype):
    """A copy in half precision whose part `where` answers NaN in `dtype`, or whenever asked."""
    half = deepcopy(stack)
    half.unet.to(torch.float16)
    part = half.unet if where == "unet" else half.vae.decoder

    def spoil(module, args, made):
        if dtype is not None and half.unet.dtype != dtype:
            return made
        if where == "unet":
            made.sample = made.sample * torch.nan
            return made
        return made * torch.nan

    part.register_forward_hook(spoil)
    return half


@pytest.mark.parametrize("options", TASKS, ids=lambda options: options.task)
@pytest.mark.parametrize("where", ["unet", "vae"])
def test_a_nan_in_half_precision_is_computed_again_in_fp32(stack, picture, options, where):
    low = None if options.task == "text2img" else picture(20, 24)
    half = lost(stack, where, torch.float16)
    made = restore(low, options, half, seed=3)
    assert made.warnings[-1].startswith("computed again in fp32: ")
    assert half.unet.dtype == torch.float16  # the next picture is tried in half again
    exact = deepcopy(stack)
    exact.unet.to(torch.float16).to(torch.float32)
    assert np.array_equal(made.pixels, restore(low, options, exact, seed=3).pixels)


@pytest.mark.parametrize("where", ["unet", "vae"])
def test_what_fp32_does_not_help_either_is_an_error(stack, picture, where):
    with pytest.raises(NonFiniteError, match="left the finite numbers"):
        restore(picture(20, 24), UpscaleOptions(scale=2), lost(stack, where, None), seed=0)


def test_half_precision_comes_close_to_fp32(stack, picture):
    low = picture(24, 30)
    exact = restore(low, UpscaleOptions(scale=2), stack, seed=0)
    for dtype in (torch.float16, torch.bfloat16):
        half = deepcopy(stack)
        half.unet.to(dtype)
        made = restore(low, UpscaleOptions(scale=2), half, seed=0)
        assert made.warnings == ()
        assert np.abs(made.pixels.astype(int) - exact.pixels).mean() < 1


def darkened(stack):
    """A copy whose decoder sees only black."""
    dark = deepcopy(stack)
    dark.vae.decoder.register_forward_hook(lambda module, args, made: torch.full_like(made, -1))
    return dark


def test_a_black_result_of_a_bright_picture_is_an_error(stack, picture):
    for options in TASKS:
        with pytest.raises(NonFiniteError, match="black all over"):
            restore(picture(20, 24), options, darkened(stack), seed=0)


def test_a_black_picture_may_stay_black(stack):
    black = Picture(np.zeros((20, 24, 3), np.uint8))
    made = restore(black, UpscaleOptions(scale=2), darkened(stack), seed=0)
    assert not made.pixels.any()
    # colours that do not show say nothing
    hidden = Picture(np.zeros((20, 24, 3), np.uint8), np.full((20, 24), 255, np.uint8))
    hidden.alpha[:5] = 0
    hidden.pixels[:5] = 255
    assert not restore(hidden, UpscaleOptions(scale=2), darkened(stack), seed=0).pixels.any()


@pytest.mark.parametrize("size", [(1, 1), (33, 47), (64, 65)])
def test_sizes_that_the_vae_does_not_divide_come_out_exact(stack, picture, size):
    made = restore(picture(*size), Img2imgOptions(steps=2), stack, seed=0)
    assert made.size == size
    words = Text2imgOptions(steps=1, height=size[0], width=size[1])
    assert restore(None, words, stack, seed=0).size == size


@pytest.mark.parametrize("prompt", ["", "🐈‍⬛ 🟥", "((unbalanced [", "word " * 10_000])
def test_any_prompt_makes_a_picture(stack, prompt):
    options = Text2imgOptions(steps=1, height=16, width=16, prompt=prompt)
    assert restore(None, options, stack, seed=0).size == (16, 16)


def test_every_frame_is_seen_and_the_last_is_the_result(stack, picture):
    frames = {}
    options = Img2imgOptions(steps=2, loopback=3)
    made = restore(picture(16, 20), options, stack, 1, on_frame=frames.__setitem__)
    assert list(frames) == [1, 2, 3]
    assert frames[3] is made
    once = restore(picture(16, 20), Img2imgOptions(steps=2), stack, 1)
    assert np.array_equal(frames[1].pixels, once.pixels)
    assert not np.array_equal(frames[2].pixels, frames[1].pixels)


@pytest.mark.parametrize("sampler", ["ddim", "euler"])
def test_the_least_strength_takes_the_shortest_walk_that_there_is(stack, picture, sampler):
    """Not as many steps as one over it, which no schedule has."""
    near, nearer = (
        restore(picture(9, 8), Img2imgOptions(strength=s, sampler=sampler), stack, seed=0).pixels
        for s in (1e-4, 1e-12)
    )
    assert np.array_equal(near, nearer)


@pytest.mark.parametrize("colour", ["wavelet", "adain", "lowpass"])
def test_colours_are_given_back_on_request(stack, picture, colour):
    low = picture(20, 24)
    plain, matched = (
        restore(low, UpscaleOptions(scale=2, colour=how), stack, seed=0) for how in ("none", colour)
    )

    def away(made):
        return np.abs(made.pixels.mean((0, 1)) - low.pixels.mean((0, 1))).max()

    assert away(matched) < 0.1 * away(plain)
    assert any("lowpass" in note for note in matched.warnings) == (colour == "lowpass")


@pytest.mark.parametrize("options", TASKS, ids=lambda options: options.task)
def test_words_of_subjects_are_lost_on_a_model_that_only_hears_of_damage(stack, picture, options):
    low = None if options.task == "text2img" else picture(20, 24)
    told = options.model_copy(update={"prompt": "a red cube"})
    noted = restore(low, told, replace(stack, prompts_describe="damage"), seed=0).warnings
    assert bool(noted) == (options.task != "upscale")
    assert all("draws nothing from words" in note for note in noted)
    assert not restore(low, told, stack, seed=0).warnings


def test_a_model_of_one_step_still_goes_by_the_strength(stack, picture):
    """One step would begin at pure noise, where the strength says nothing."""
    low, quick = picture(32, 32), replace(stack, steps=1)
    near, far = (
        restore(low, Img2imgOptions(strength=strength), quick, seed=0).pixels
        for strength in (0.1, 0.9)
    )
    assert not np.array_equal(near, far)
    long = replace(stack, steps=4)
    asked, plain = (
        restore(low, Img2imgOptions(strength=0.6, steps=steps), long, seed=0).pixels
        for steps in (4, None)
    )
    assert np.array_equal(asked, plain)  # where there is room, the walk is the model's own
    with pytest.raises(ConfigError, match="take 2 steps or more"):
        restore(low, Img2imgOptions(strength=0.4, steps=1), quick, seed=0)
