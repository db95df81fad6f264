from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from restore.diffusion import vae
from restore.diffusion.canvas import canvas_rows
from restore.images.strips import mirrored
from restore.options import UpscaleOptions
from restore.tasks.run import restore


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3, 3), (23, 31), (40, 17)])
@pytest.mark.parametrize("scale", [1, 1.5, 4])
def test_the_size_is_exact_for_any_scale(stack, picture, size, scale):
    made = restore(picture(*size), UpscaleOptions(scale=scale), stack, seed=0)
    assert made.size == (round(size[0] * scale), round(size[1] * scale))
    assert made.pixels.dtype == np.uint8


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(stack, picture):
    low, options = picture(24, 30), UpscaleOptions(scale=2, steps=2)
    one, two, other = (restore(low, options, stack, seed).pixels for seed in (5, 5, 6))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_windows_at_a_time_do_not_change_a_byte(stack, picture):
    low = picture(40, 30)
    made = [
        restore(low, UpscaleOptions(scale=2, windows=count), stack, seed=0).pixels
        for count in (1, 4)
    ]
    assert np.array_equal(*made)


def test_depth_alpha_profile_and_grey_survive(stack, picture):
    low = picture(20, 26)
    grey = np.repeat(low.pixels[..., :1], 3, axis=2).astype(np.uint16) * 257
    alpha = np.full((20, 26), 65535, np.uint16)
    alpha[:, 13:] = 0
    deep = replace(low, pixels=grey, alpha=alpha, grey=True, icc=b"profile")
    made = restore(deep, UpscaleOptions(scale=2), stack, seed=0)
    assert made.pixels.dtype == made.alpha.dtype == np.uint16
    assert made.alpha.shape == (40, 52)
    assert (made.alpha[:, :20] == 65535).all()
    assert (made.alpha[:, -20:] == 0).all()
    assert (made.pixels == made.pixels[..., :1]).all()
    assert made.icc == b"profile"


def test_the_hidden_colour_of_transparent_pixels_does_not_leak(stack, picture):
    low = picture(24, 24)
    alpha = np.full((24, 24), 255, np.uint8)
    alpha[:, 12:] = 0
    loud = low.pixels.copy()
    loud[:, 12:] = (255, 0, 255)
    quiet, noisy = (
        restore(replace(low, pixels=p, alpha=alpha), UpscaleOptions(scale=2), stack, seed=0)
        for p in (np.where(alpha[..., None] > 0, low.pixels, 0).astype(np.uint8), loud)
    )
    assert np.array_equal(quiet.pixels, noisy.pixels)


def test_an_answer_of_zero_gives_the_enlarged_picture(stack, picture):
    """Where the UNet adds nothing, what comes out is what is known, decoded."""
    stack = deepcopy(stack)
    torch.nn.init.zeros_(stack.unet.conv_out.weight)
    torch.nn.init.zeros_(stack.unet.conv_out.bias)
    low, size = picture(30, 20), (60, 40)
    canvas = [n * stack.factor for n in stack.canvas(size)]
    made = restore(low, UpscaleOptions(scale=2), stack, seed=0)
    with torch.inference_mode():
        rows = canvas_rows(low, size, canvas[1], (0, canvas[0]))
        rgb = vae.decode(stack.vae, vae.encode(stack.vae, rows))
    expected = (rgb[0, :, :60, :40].permute(1, 2, 0) * 255).round().numpy()
    assert np.abs(made.pixels - expected).max() <= 1


def test_a_small_picture_is_mirrored_up_to_a_window():
    assert mirrored(np.arange(8), 3).tolist() == [0, 1, 2, 2, 1, 0, 0, 1]


def test_guidance_takes_the_negative_prompt_into_account(stack, picture):
    low = picture(16, 16)
    plain, guided_ = (
        restore(low, UpscaleOptions(scale=1, guidance=g, prompt="a", negative="b"), stack, 0)
        for g in (1, 9)
    )
    assert not np.array_equal(plain.pixels, guided_.pixels)
