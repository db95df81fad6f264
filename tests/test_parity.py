"""The same weights, the same noise: every step and the picture equal the stock pipelines'."""

import inspect
import os
from contextlib import contextmanager
from functools import cache
from itertools import product

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from tiny import WINDOW, checkpoint

from restore.flow import restore
from restore.images import Picture
from restore.loading import load
from restore.noise import canvas_noise, generator, seed_of
from restore.options import Img2imgOptions, InpaintOptions, Text2imgOptions, UpscaleOptions
from restore.stack import SCHEDULERS

SEED, CLOSE = 7, 1e-4
WORDS = {"prompt": "a red bird", "negative": "blurry"}
SAMPLERS = ["ddim", "euler", "euler_a", "dpm++_2m", "dpm++_2m_karras", "pndm", "heun", "unipc"]
FEW = ["ddim", "euler", "dpm++_2m"]
UNSCALED = ["ddim", "dpm++_2m", "pndm", "unipc"]  # they give the UNet the latent as it is


@pytest.fixture(scope="module", autouse=True)
def quiet_bars():
    diffusers.utils.logging.disable_progress_bar()


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}

    def folder(kind: str, **more):
        key = (kind, *more.items())
        if key not in made:
            made[key] = checkpoint(tmp_path_factory.mktemp(kind) / "model", kind, **more)
        return made[key]

    return folder


@pytest.fixture(scope="module")
def stacks(folders):
    loaded = cache(lambda folder: load(str(folder), device="cpu"))
    return lambda kind, **more: loaded(folders(kind, **more))


@cache
def pipeline(kind: type, folder):
    pipe = kind.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe, pipe.scheduler.config


def stock(kind: type, folder, sampler: str):
    """The stock pipeline with the sampler, and the list that its latents will be put into."""
    pipe, config = pipeline(kind, folder)
    name, own = SCHEDULERS[sampler]
    pipe.scheduler = getattr(diffusers, name).from_config(config, **own)
    return pipe, watch(pipe.scheduler)


def watch(scheduler) -> list[torch.Tensor]:
    """What each of its steps will return, half steps as well."""
    seen, step = [], scheduler.step

    # diffusers asks for the names of the arguments before it gives them
    def watched(*args, **more):
        made = step(*args, **more)
        seen.append(made[0] if isinstance(made, tuple) else made.prev_sample)
        return made

    watched.__signature__ = inspect.signature(step)
    scheduler.step = watched
    return seen


@contextmanager
def drawing(monkeypatch, kind: type, *noises: torch.Tensor):
    """Where the stock pipeline draws noise of its own, it gets these in turn; its VAE's are none."""
    left = list(noises)
    with monkeypatch.context() as patch:
        patch.setattr(inspect.getmodule(kind), "randn_tensor", lambda *_, **__: left.pop(0))
        patch.setattr(
            "diffusers.models.autoencoders.vae.randn_tensor", lambda shape, **_: torch.zeros(shape)
        )
        yield
    assert not left, "the pipeline drew less often than expected"


def ours(picture, options, stack, hole=None) -> tuple[list[torch.Tensor], np.ndarray]:
    seen = []
    made = restore(picture, options, stack, SEED, lambda step, x: seen.append(x.clone()), hole)
    return seen, made.pixels


def agree(mine, theirs: list[torch.Tensor], image: Image.Image) -> None:
    """Latents to 1e-4 at every step; the pictures to a rounding of the last of 8 bits."""
    steps, pixels = mine
    assert len(steps) == len(theirs)
    for step, (one, other) in enumerate(zip(steps, theirs, strict=True)):
        worst = (one - other).abs().max().item()
        assert worst < CLOSE, f"step {step + 1} of {len(steps)} is off by {worst:.2g}"
    assert np.ptp(pixels) > 8, "a flat picture proves nothing"
    assert np.abs(pixels.astype(int) - np.asarray(image)).max() <= 1


def steps_noise(channels: int = 4) -> torch.Tensor:
    return canvas_noise((1, channels, WINDOW, WINDOW), SEED)


def walked(options) -> dict:
    """The options of a walk by the stock pipelines' names."""
    return {
        "prompt": options.prompt,
        "negative_prompt": options.negative,
        "num_inference_steps": options.steps,
        "guidance_scale": options.guidance,
        "eta": options.eta,
        "generator": generator("cpu", SEED, "steps", (0, 0)),
    }


def text2img_agrees(stack, folder, options):
    pipe, theirs = stock(diffusers.StableDiffusionPipeline, folder, options.sampler)
    size = {"height": options.height, "width": options.width}
    image = pipe(
        **walked(options), **size, latents=steps_noise(), guidance_rescale=options.rescale
    ).images[0]
    agree(ours(None, options, stack), theirs, image)


def of_side(side: int, **more) -> Text2imgOptions:
    return Text2imgOptions(height=side, width=side, **{**WORDS, "steps": 4, **more})


@pytest.mark.parametrize(("sampler", "guidance"), [*product(SAMPLERS, [5]), ("ddim", 1)])
def test_text_to_image_equals_the_stock_pipeline(stacks, folders, sampler, guidance):
    options = of_side(32, sampler=sampler, guidance=guidance)
    text2img_agrees(stacks("base"), folders("base"), options)


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
@pytest.mark.parametrize("sampler", FEW)
def test_other_predictions_equal_the_stock_pipeline(stacks, folders, sampler, prediction):
    which = {"prediction": prediction}
    options = of_side(32, sampler=sampler)
    text2img_agrees(stacks("base", **which), folders("base", **which), options)


@pytest.mark.parametrize("more", [{"rescale": 0.7}, {"eta": 0.6}, {"rescale": 1, "eta": 1}])
def test_rescaled_guidance_and_eta_equal_the_stock_pipeline(stacks, folders, more):
    text2img_agrees(stacks("base"), folders("base"), of_side(32, **more))


@pytest.mark.parametrize(
    ("sampler", "strength", "guidance"),
    [*product(SAMPLERS, [0.5], [5]), *product(FEW, [1], [5]), ("ddim", 0.5, 1)],
)
def test_image_to_image_equals_the_stock_pipeline(
    stacks, folders, picture, monkeypatch, sampler, strength, guidance
):
    shown = picture(32, 32)
    options = Img2imgOptions(
        **WORDS, sampler=sampler, strength=strength, steps=4, guidance=guidance
    )
    kind = diffusers.StableDiffusionImg2ImgPipeline
    pipe, theirs = stock(kind, folders("base"), sampler)
    with drawing(monkeypatch, kind, steps_noise()):
        image = pipe(
            **walked(options), strength=strength, image=Image.fromarray(shown.pixels)
        ).images[0]
    agree(ours(shown, options, stacks("base")), theirs, image)


@pytest.mark.parametrize(
    ("sampler", "guidance"), [*product([*FEW, "euler_a", "pndm"], [5]), ("ddim", 1)]
)
def test_the_x4_upscaler_equals_the_stock_pipeline(
    stacks, folders, picture, monkeypatch, sampler, guidance
):
    low = picture(WINDOW, WINDOW)
    options = UpscaleOptions(**WORDS, sampler=sampler, steps=4, guidance=guidance, noise_level=60)
    kind = diffusers.StableDiffusionUpscalePipeline
    pipe, theirs = stock(kind, folders("x4"), sampler)
    with drawing(monkeypatch, kind, canvas_noise((1, 3, WINDOW, WINDOW), seed_of(SEED, "low"))):
        image = pipe(
            **walked(options),
            image=Image.fromarray(low.pixels),
            noise_level=60,
            latents=steps_noise(),
        ).images[0]
    agree(ours(low, options, stacks("x4")), theirs, image)


@pytest.mark.parametrize("sampler", UNSCALED)
def test_latent_diffusions_upscaler_equals_the_stock_pipeline(
    stacks, folders, picture, monkeypatch, sampler
):
    """With samplers that scale the UNet's input, the stock pipeline scales the picture as well."""
    low = picture(WINDOW, WINDOW)
    options = UpscaleOptions(sampler=sampler, steps=4)
    kind = diffusers.LDMSuperResolutionPipeline
    pipe, theirs = stock(kind, folders("ldm"), sampler)
    rgb = torch.from_numpy(low.pixels).permute(2, 0, 1)[None] / 127.5 - 1
    with drawing(monkeypatch, kind, steps_noise(3)):
        image = pipe(rgb, num_inference_steps=4).images[0]
    agree(ours(low, options, stacks("ldm")), theirs, image)


@pytest.mark.parametrize(
    ("kind", "sampler", "strength", "guidance"),
    [
        *product(["inpainting"], [*FEW, "euler_a", "heun"], [0.5, 1], [5]),
        *product(["base"], FEW, [0.5, 1], [5]),
        *product(["inpainting", "base"], ["pndm"], [1], [1]),
    ],
)
def test_inpainting_equals_the_stock_pipeline(
    stacks, folders, picture, monkeypatch, kind, sampler, strength, guidance
):
    """The inpainting UNet, and the base one by blending latents, as diffusers does it too."""
    shown = picture(32, 32)
    hole = np.zeros((32, 32), np.uint8)
    hole[8:20, 10:26] = 255
    options = InpaintOptions(
        **WORDS, sampler=sampler, strength=strength, steps=4, guidance=guidance, feather=0
    )
    theirs = []
    pipe, _ = stock(diffusers.StableDiffusionInpaintPipeline, folders(kind), sampler)

    def after(pipe, step, t, held):
        theirs.append(held["latents"])
        return {}

    with drawing(monkeypatch, type(pipe), steps_noise()):
        image = pipe(
            **walked(options),
            strength=strength,
            image=Image.fromarray(shown.pixels),
            mask_image=Image.fromarray(hole),
            callback_on_step_end=after,
        ).images[0]
    image = np.where(hole[..., None] > 0, np.asarray(image), shown.pixels)  # ours is pasted back
    agree(ours(shown, options, stacks(kind), hole), theirs, image)
