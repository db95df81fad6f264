from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from restore.diffusion import vae
from restore.diffusion.canvas import canvas_rows
from restore.diffusion.compact import FirstStage
from restore.diffusion.restorer import Restorer
from restore.images.picture import Picture
from restore.images.strips import mirrored
from restore.options import Img2imgOptions, UpscaleOptions
from restore.pixel.model import PixelModel
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


@pytest.fixture(params=["walk", "first stage", "upscaler"])
def tinting(request, stack):
    """A model of each kind that gives grey a tint."""
    if request.param == "walk":
        return stack
    torch.manual_seed(0)
    if request.param == "first stage":
        networks = [Restorer(channels=8, layers=1).eval().requires_grad_(False) for _ in range(2)]
        return replace(stack, restorer=FirstStage(*networks, None), restore_steps=0)
    network = torch.nn.Sequential(torch.nn.Upsample(scale_factor=2), torch.nn.Conv2d(3, 3, 1))
    return PixelModel(network, 2)


def without_colour(picture) -> Picture:
    low = picture(300, 20)  # more rows than are looked at together
    return replace(low, pixels=np.repeat(low.pixels[..., :1], 3, axis=2).clip(9, 240))


def tint(made: Picture) -> int:
    return int(np.ptp(made.pixels, axis=2).max())


def test_a_picture_without_colour_gets_none_though_its_file_is_not_grey(tinting, picture):
    low = without_colour(picture)
    rounded, hidden = low.pixels.copy(), low.pixels.copy()
    rounded[::7, ::5, 1] += 1  # as WebP decodes grey
    hidden[:, :5], alpha = (255, 0, 255), np.full(low.size, 255, np.uint8)
    alpha[:, :5] = 0
    for each in (low, replace(low, pixels=rounded), replace(low, pixels=hidden, alpha=alpha)):
        made = restore(each, UpscaleOptions(scale=2), tinting, 0)
        assert tint(made) == 0 and not made.grey


@pytest.mark.parametrize("row", [0, 299])
def test_a_trace_of_colour_anywhere_keeps_the_colours_of_all(tinting, picture, row):
    low = without_colour(picture)
    low.pixels[row, 3, 2] += 2
    assert tint(restore(low, UpscaleOptions(scale=2), tinting, 0)) > 2


def test_a_restorer_at_its_own_size_may_give_colour(picture):
    torch.manual_seed(0)
    model = PixelModel(torch.nn.Conv2d(3, 3, 1), 1)
    assert tint(restore(without_colour(picture), UpscaleOptions(), model, 0)) > 2


def test_words_may_give_colour_to_a_picture_without(stack, picture):
    options = Img2imgOptions(strength=0.5, prompt="blue")
    assert tint(restore(without_colour(picture), options, stack, 0)) > 2


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
