"""Looks at unfinished results: what they show, and that looking changes nothing."""

from itertools import pairwise

import cv2
import diffusers
import numpy as np
import pytest
import tiny
import torch
from torch import nn

from restore.api import Restorer
from restore.checkpoints.load import load
from restore.diffusion import sampling, stack, watch
from restore.images import sketches
from restore.images.picture import Picture
from restore.images.resample import resize_band
from restore.pixel import model
from restore.tasks import first_stage


def looked(task, *words, **options):
    """(result, the sketches that were offered)"""
    seen = []
    with watch.watching(lambda *part: None, on_look=lambda sketch: seen.append(sketch())):
        made = task(*words, **options)
    return made, seen


def hole_in(pixels, rows=slice(8, 24), columns=slice(30, 50)):
    mask = np.zeros(pixels.shape[:2], np.uint8)
    mask[rows, columns] = 255
    return mask


@pytest.mark.parametrize("task", ["upscale", "img2img", "text2img", "inpaint"])
def test_looking_changes_no_byte_and_shows_each_step(stack, pixels, task):
    restorer, picture = Restorer(stack), pixels(40, 60)
    words = {
        "upscale": ([picture, 2], {"steps": 3}),
        "img2img": ([picture, "x"], {"steps": 4, "strength": 0.8}),
        "text2img": (["x"], {"steps": 3, "width": 60, "height": 40, "output_type": "np"}),
        "inpaint": ([picture, hole_in(picture)], {"steps": 3}),
    }
    given, options = words[task]
    run = getattr(restorer, task)
    made, seen = looked(run, *given, **options)
    assert np.array_equal(made, run(*given, **options))
    assert len(seen) == 3
    for one in seen:
        assert one.dtype == np.uint8 and one.ndim == 3 and max(one.shape) <= sketches.SIDE
        assert one.shape[1] / one.shape[0] == pytest.approx(1.5, rel=0.1)


def test_a_sketch_that_nobody_wants_is_not_made(stack, pixels, monkeypatch):
    monkeypatch.setattr(sampling, "sketch", lambda *_: pytest.fail("made for nobody"))
    offered = []
    with watch.watching(lambda *part: None, on_look=offered.append):
        Restorer(stack).upscale(pixels(20, 20), 2, steps=2)
    assert len(offered) == 2
    with watch.watching(lambda *part: None):
        Restorer(stack).upscale(pixels(20, 20), 2, steps=2)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("sampler", sorted(stack.SCHEDULERS))
def test_the_estimate_of_an_exact_prediction_is_the_clean_latent(sampler, prediction):
    """Whatever space a scheduler walks in, what the network sees has unit variance."""
    schedule = tiny.schedule(prediction)
    scheduler = stack.scheduler_of(schedule, sampler, 8)
    rng = torch.Generator().manual_seed(0)
    clean, noise = (torch.randn(1, 4, 8, 8, generator=rng) for _ in range(2))
    for t in sampling.remaining(scheduler)[1:6]:
        kept = scheduler.alphas_cumprod[t.round().long()]
        x = kept.sqrt() * clean + (1 - kept).sqrt() * noise
        made = noise if prediction == "epsilon" else kept.sqrt() * noise - (1 - kept).sqrt() * clean
        found = sampling.clean_estimate(x, made, t, scheduler)
        assert torch.allclose(found, clean, atol=1e-3)


@pytest.mark.parametrize("sampler", sorted(stack.SCHEDULERS))
def test_the_last_look_is_the_result(sampler, pixels, tmp_path):
    """A network that knows the answer: every look shows it, by every sampler."""
    made = load(str(tiny.checkpoint(tmp_path, "base")), device="cpu")
    answer = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))

    def predict(condition, prompt, clip_skip=0, *, is_wanted=True):
        def exact(x, t, corners):
            kept = made.schedule.alphas_cumprod[torch.as_tensor(t).round().long()]
            return (x - kept.sqrt() * answer) / (1 - kept).sqrt()

        return exact

    made.predict = predict
    side = 16 * made.factor
    shape = {"width": side, "height": side, "steps": 6, "sampler": sampler, "output_type": "np"}
    picture, seen = looked(Restorer(made).text2img, "x", **shape)
    pixels = np.rint(np.asarray(picture, np.float32) * (255 if picture.max() <= 1 else 1))
    for one in (seen[1], seen[-1]):  # the last step leaves a little noise by some samplers
        assert np.abs(one.astype(int) - pixels).mean() < 3


def test_a_look_at_a_filled_hole_shows_the_whole_picture(stack, pixels):
    picture = pixels(200, 300)
    mask = hole_in(picture, slice(150, 180), slice(200, 260))
    _, seen = looked(Restorer(stack).inpaint, picture, mask, steps=2)
    assert seen[0].shape == picture.shape
    moved = (seen[0] != picture).any(2)
    assert moved[150:180, 200:260].mean() > 0.5
    assert not moved[:130].any() and not moved[:, :180].any()


def test_what_is_finished_is_shown_over_the_input(monkeypatch, pixels):
    """By blocks of a first stage: the blocks so far, and the input elsewhere."""

    class White:
        halo = 4

        def answer(self, rgb):
            return np.ones((1, 3, 4 * rgb.shape[2], 4 * rgb.shape[3]), np.float32)

    monkeypatch.setattr(first_stage, "BLOCK", 32)
    low = Picture(np.zeros((64, 96, 3), np.uint8))
    made, seen = looked(first_stage.enlarged, low, White())
    assert (made == 255).all() and len(seen) == 6
    shares = [(one == 255).mean() for one in seen]
    assert shares == pytest.approx([n / 6 for n in range(1, 7)], abs=0.02)
    assert (seen[0][:120, :120] == 255).all() and (seen[0][140:] == 0).all()


def test_windows_of_a_pixel_upscaler_are_shown(monkeypatch, pixels):
    monkeypatch.setattr(model, "LARGEST", 64)
    monkeypatch.setattr(model, "BUDGET", 1)
    network = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Upsample(scale_factor=2))
    upscaler = Restorer(model.PixelModel(network.requires_grad_(False), 2))
    picture = pixels(140, 460)
    made, seen = looked(upscaler.upscale, picture, colour="none")
    assert len(seen) > 3
    assert np.abs(seen[-1].astype(int) - sketches.small(made)).max() <= 1
    low = cv2.resize(sketches.small(picture), seen[0].shape[1::-1]).astype(int)
    assert np.abs(seen[0][-40:, -40:] - low[-40:, -40:]).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (3, 5000), (384, 200), (1000, 1600), (2, 3)])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_sketch_is_small_and_looks_like_its_picture(size, depth):
    top = np.iinfo(depth).max
    ramp = np.linspace(0, top, size[1]).astype(depth)
    pixels = np.broadcast_to(ramp[None, :, None], (*size, 3))
    made = sketches.small(pixels)
    assert made.dtype == np.uint8 and max(made.shape[:2]) <= sketches.SIDE
    assert made.shape[:2] == sketches.fitting(size)
    like = resize_band(np.ascontiguousarray(pixels), made.shape[:2], (0, made.shape[0])) * 255
    assert np.abs(made - like).max() <= 255 / made.shape[1] + 2


def test_boxes_that_tile_a_picture_tile_its_sketch():
    rng = np.random.default_rng(0)
    for _ in range(200):
        size = tuple(int(n) for n in rng.integers(1, 2000, 2))
        to = sketches.fitting(size)
        rows, columns = (sorted({0, length, *rng.integers(0, length, 5)}) for length in size)
        count = np.zeros(to, int)
        for top, bottom in pairwise(map(int, rows)):
            for left, right in pairwise(map(int, columns)):
                box = sketches.scaled((slice(top, bottom), slice(left, right)), size, to)
                assert all(
                    0 <= cut.start < cut.stop <= most for cut, most in zip(box, to, strict=True)
                )
                count[box] += 1
        assert (count > 0).all()


def test_diffusers_own_estimate_is_the_same():
    """Of the scheduler that tells it."""
    scheduler = diffusers.EulerDiscreteScheduler.from_config(tiny.schedule().config)
    scheduler.set_timesteps(6)
    x = torch.randn(1, 4, 8, 8) * scheduler.init_noise_sigma
    t = scheduler.timesteps[2]
    scheduler._init_step_index(t)
    seen, made = scheduler.scale_model_input(x, t), torch.randn(1, 4, 8, 8)
    ours = sampling.clean_estimate(seen, made, t, scheduler)
    theirs = scheduler.step(made, t, x).pred_original_sample
    assert torch.allclose(ours, theirs, rtol=0.02, atol=0.05)
