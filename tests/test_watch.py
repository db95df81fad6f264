"""Who looks on is told between windows, blocks and bands, and stops the work there."""

from itertools import groupby
from threading import Thread

import numpy as np
import pytest
import tiny
import torch
from torch import nn

import restore
from restore.api import Restorer
from restore.diffusion import vae, watch
from restore.diffusion.tiling import Windows
from restore.pixel import model

STAGES = ["encode", "walk", "decode", "colour"]


@pytest.fixture(autouse=True)
def told_once(monkeypatch):
    """However slow the machine is, nothing is told twice."""
    monkeypatch.setattr(watch, "OFTEN_S", 1e9)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(vae, "BLOCK", 16)


@pytest.fixture
def restorer(stack):
    return Restorer(stack)


def watched(task, *words, **options):
    """(result, what progress was told)"""
    told = []
    made = task(*words, **options, progress=lambda *part: told.append(part))
    return made, told


def test_a_one_step_model_tells_of_every_window_block_and_band(restorer, pixels, small_blocks):
    low, options = pixels(70, 20), {"colour": "wavelet", "steps": 1}
    made, told = watched(restorer.upscale, low, 4, **options)
    assert np.array_equal(made, restorer.upscale(low, 4, **options))
    stages = {what: [(done, of) for done, of, _ in part] for what, part in groupby(told, by_stage)}
    assert list(stages) == STAGES
    for what, parts in stages.items():
        of = parts[0][1]
        assert of > 1, what
        assert parts == [(done, of) for done in range(of + 1)]


def by_stage(part):
    return part[2]


@pytest.mark.parametrize("sampler", ["ddim", "heun"])
def test_the_windows_of_a_walk_count_over_all_its_steps(restorer, pixels, sampler):
    steps = []
    options = {"steps": 3, "strength": 0.8, "guidance": 2, "sampler": sampler}
    _, told = watched(
        restorer.img2img, pixels(70, 80), callback=lambda *step: steps.append(step[:2]), **options
    )
    parts = [(done, of) for done, of, what in told if what == "walk"]
    windows = parts[0][1] / len(steps)
    assert windows == int(windows) > 1
    assert sorted(set(parts)) == [(done, parts[0][1]) for done in range(parts[0][1] + 1)]


def test_every_task_tells(restorer, pixels):
    quick = {"steps": 1, "guidance": 1}
    mask = np.zeros((40, 50), np.uint8)
    mask[8:20, 10:30] = 255
    for task, words, more in (
        (restorer.text2img, ("a",), {"width": 40, "height": 40}),
        (restorer.img2img, (pixels(40, 50),), {"strength": 1}),
        (restorer.inpaint, (pixels(40, 50), mask), {}),
    ):
        _, told = watched(task, *words, **quick, **more)
        assert {"encode", "walk", "decode"} <= {what for _, _, what in told}
        done, of, _ = told[-1]
        assert done == of


def test_the_work_is_ended_at_any_part(restorer, pixels, small_blocks):
    low, options = pixels(16, 20), {"steps": 1, "colour": "adain"}
    _, told = watched(restorer.upscale, low, 2, **options)
    for last in range(1, len(told) + 1, 3):
        met = []

        def enough(*part, met=met, last=last):
            met.append(part)
            return len(met) < last

        done, of, what = told[last - 1]
        with pytest.raises(restore.Cancelled, match=f"by progress at {what}, {done} of {of}"):
            restorer.upscale(low, 2, progress=enough, **options)
        assert met == told[:last]


def test_what_takes_long_is_ended_between_its_layers(restorer, pixels, monkeypatch):
    monkeypatch.setattr(watch, "OFTEN_S", -1)
    low, met = pixels(16, 20), []
    _, told = watched(restorer.upscale, low, 1, steps=1)
    for what in ("encode", "walk", "decode"):
        assert told.count((0, 1, what)) > 3

    def enough(*part):
        met.append(part)
        return met.count((0, 1, "decode")) < 3

    with pytest.raises(restore.Cancelled, match="decode, 0 of 1"):
        restorer.upscale(low, 1, steps=1, progress=enough)
    parts = (restorer.stack.vae, restorer.stack.unet)
    assert not any(module._forward_pre_hooks for part in parts for module in part.modules())


def test_two_threads_each_hear_of_their_own_picture(restorer, pixels):
    heard = {}

    def work(side):
        _, heard[side] = watched(restorer.upscale, pixels(side, side), 2, steps=1)

    alone = {side: watched(restorer.upscale, pixels(side, side), 2, steps=1)[1] for side in (9, 60)}
    threads = [Thread(target=work, args=(side,)) for side in alone]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {side: set(told) for side, told in heard.items()} == {
        side: set(told) for side, told in alone.items()
    }


def test_an_autoencoder_that_sees_the_whole_picture_tells_of_its_windows(monkeypatch):
    coder, told = tiny.autoencoder().requires_grad_(False), []
    monkeypatch.setattr(vae, "grid", lambda *given: Windows(16, 8))
    side = 24 * vae.factor(coder)
    with watch.watching(lambda *part: told.append(part)):
        latent = vae.encode_canvas(
            coder, lambda first, last: torch.zeros(1, 3, last - first, side), (side, side)
        )
        size = side, side - 12 * vae.factor(coder)
        vae.decode_canvas(coder, latent, lambda *part: None, size)
    encoded, decoded = (
        [part[:2] for part in told if part[2] == what] for what in ("encode", "decode")
    )
    assert encoded == [(done, 4) for done in range(5)]
    assert decoded == [(done, 4) for done in range(5)]


def test_nobody_is_told_once_the_block_is_over():
    told, layer = [], nn.Conv2d(1, 1, 1)
    with watch.watching(lambda *part: told.append(part), layer):
        assert [*watch.over("ab", "encode")] == ["a", "b"]
    assert told == [(0, 2, "encode"), (1, 2, "encode"), (2, 2, "encode")]
    watch.report_again()
    watch.walked(1, 2)
    assert [*watch.over("ab", "encode")] == ["a", "b"] and len(told) == 3


def test_a_pixel_upscaler_tells_of_its_windows(pixels, monkeypatch):
    monkeypatch.setattr(model, "LARGEST", 64)
    monkeypatch.setattr(model, "BUDGET", 1)  # windows as small as they may be
    network = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Upsample(scale_factor=2))
    restorer = Restorer(model.PixelModel(network.requires_grad_(False), 2))
    made, told = watched(restorer.upscale, pixels(140, 460), colour="none")
    assert made.shape == (280, 920, 3)
    windows = told[0][1]
    assert told == [(done, windows, "enlarge") for done in range(windows + 1)] and windows > 3
    with pytest.raises(restore.Cancelled, match="by progress at enlarge, 0 of"):
        restorer.upscale(pixels(140, 230), progress=lambda *part: False)
