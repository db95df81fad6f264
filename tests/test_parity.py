"""The same weights, the same noise: every step and the picture equal the stock pipelines'."""

import inspect
import json
import os
import shutil
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from itertools import product

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from tiny import BETAS, checkpoint

from restore.checkpoints.load import load
from restore.diffusion.contexts.two_texts import TwoTextContext
from restore.diffusion.noise import canvas_noise, generator, seed_of
from restore.diffusion.stack import SCHEDULERS
from restore.options import Img2imgOptions, InpaintOptions, Text2imgOptions, UpscaleOptions
from restore.tasks.run import restore

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
    return pipe, pipe.scheduler


def stock(kind: type, folder, sampler: str):
    """The stock pipeline with the sampler, and the list that its latents will be put into."""
    pipe, first = pipeline(kind, folder)
    name, own = SCHEDULERS[sampler]
    if type(first).__name__ == name and not own:
        pipe.scheduler = deepcopy(first)  # from_config drops what the pipeline corrected
    else:
        pipe.scheduler = getattr(diffusers, name).from_config(first.config, **own)
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
    """Where the stock pipeline draws noise, it gets these in turn; its VAE's samples are modes."""
    left = list(noises)
    with monkeypatch.context() as patch:
        patch.setattr(inspect.getmodule(kind), "randn_tensor", lambda *_, **__: left.pop(0))
        patch.setattr(
            "diffusers.models.autoencoders.vae.randn_tensor", lambda shape, **_: torch.zeros(shape)
        )
        yield
    assert not left, "the pipeline drew less often than expected"


def walked(options) -> dict:
    """The options of a walk by the stock pipelines' names."""
    return {
        "prompt": options.prompt,
        "negative_prompt": options.negative or None,
        "num_inference_steps": options.steps,
        "guidance_scale": options.guidance,
        "eta": options.eta,
        "generator": generator("cpu", SEED, "steps", (0, 0)),
    }


class Case:
    """One checkpoint read by us and by the stock pipelines, over a canvas of exactly one window."""

    def __init__(self, stack, folder, picture, monkeypatch, close: float = CLOSE):
        self.stack, self.folder, self.close = stack, folder, close
        self.picture, self.monkeypatch = picture, monkeypatch
        window = stack.windows.size
        self.low, self.side = picture(window, window), window * stack.factor
        self.noise = canvas_noise((1, stack.channels, window, window), SEED)

    def family(self, kind: type) -> type:
        """The stock pipeline of the same task for SDXL, if that is what this is."""
        if not isinstance(self.stack.context, TwoTextContext):
            return kind
        return getattr(diffusers, kind.__name__.replace("Diffusion", "DiffusionXL"))

    def agrees(self, options, image: Image.Image | np.ndarray, theirs, picture=None, hole=None):
        """Latents at every step; the pictures to a rounding of the last of 8 bits."""
        seen = []
        made = restore(
            picture, options, self.stack, SEED, lambda _, __, x: seen.append(x.clone()), hole
        )
        assert len(seen) == len(theirs)
        for step, (one, other) in enumerate(zip(seen, theirs, strict=True)):
            worst = (one - other).abs().max().item()
            assert worst < self.close, f"step {step + 1} of {len(seen)} is off by {worst:.2g}"
        assert np.ptp(made.pixels) > 8, "a flat picture proves nothing"
        assert np.abs(made.pixels.astype(int) - np.asarray(image)).max() <= 1

    def text2img(self, **more) -> None:
        options = Text2imgOptions(
            **{**WORDS, "height": self.side, "width": self.side, "steps": 4, **more}
        )
        kind = self.family(diffusers.StableDiffusionPipeline)
        pipe, theirs = stock(kind, self.folder, options.sampler)
        size = {"height": self.side, "width": self.side}
        image = pipe(
            **walked(options), **size, latents=self.noise, guidance_rescale=options.rescale
        ).images[0]
        self.agrees(options, image, theirs)

    def img2img(self, **more) -> None:
        shown = self.picture(self.side, self.side)
        options = Img2imgOptions(**WORDS, steps=4, **more)
        kind = self.family(diffusers.StableDiffusionImg2ImgPipeline)
        pipe, theirs = stock(kind, self.folder, options.sampler)
        with drawing(self.monkeypatch, kind, self.noise):
            image = pipe(
                **walked(options), strength=options.strength, image=Image.fromarray(shown.pixels)
            ).images[0]
        self.agrees(options, image, theirs, shown)

    def x4(self, **more) -> None:
        options = UpscaleOptions(**WORDS, steps=4, noise_level=60, **more)
        kind = diffusers.StableDiffusionUpscalePipeline
        pipe, theirs = stock(kind, self.folder, options.sampler)
        shape = (1, 3, *self.low.size)
        with drawing(self.monkeypatch, kind, canvas_noise(shape, seed_of(SEED, "low"))):
            image = pipe(
                **walked(options),
                image=Image.fromarray(self.low.pixels),
                noise_level=options.noise_level,
                latents=self.noise,
            ).images[0]
        self.agrees(options, image, theirs, self.low)

    def ldm(self, **more) -> None:
        options = UpscaleOptions(steps=4, **more)
        kind = diffusers.LDMSuperResolutionPipeline
        pipe, theirs = stock(kind, self.folder, options.sampler)
        rgb = torch.from_numpy(self.low.pixels).permute(2, 0, 1)[None] / 127.5 - 1
        with drawing(self.monkeypatch, kind, self.noise):
            image = pipe(rgb, num_inference_steps=options.steps, eta=options.eta).images[0]
        self.agrees(options, image, theirs, self.low)

    def inpaint(self, **more) -> None:
        shown = self.picture(self.side, self.side)
        hole = np.zeros(shown.size, np.uint8)
        # Of whole latents: of those that a hole cuts, we repaint all, the stock pipeline some.
        hole[self.side // 4 : self.side // 2, self.side // 2 : self.side * 3 // 4] = 255
        options = InpaintOptions(**WORDS, steps=4, feather=0, **more)
        kind, theirs = self.family(diffusers.StableDiffusionInpaintPipeline), []
        pipe, _ = stock(kind, self.folder, options.sampler)

        def after(pipe, step, t, held):
            theirs.append(held["latents"])  # once what is outside the hole was put back
            return {}

        with drawing(self.monkeypatch, kind, self.noise):
            image = pipe(
                **walked(options),
                strength=options.strength,
                image=Image.fromarray(shown.pixels),
                mask_image=Image.fromarray(hole),
                height=self.side,
                width=self.side,
                callback_on_step_end=after,
            ).images[0]
        pasted = np.where(hole[..., None] > 0, np.asarray(image), shown.pixels)
        self.agrees(options, pasted, theirs, shown, hole)


@pytest.fixture
def case(stacks, folders, picture, monkeypatch):
    return lambda kind, **more: Case(
        stacks(kind, **more), folders(kind, **more), picture, monkeypatch
    )


@pytest.mark.parametrize(
    ("sampler", "guidance"), [*product(SAMPLERS, [5]), ("ddim", 1), ("euler_a", 0)]
)
def test_text_to_image_equals_the_stock_pipeline(case, sampler, guidance):
    case("base").text2img(sampler=sampler, guidance=guidance)


@pytest.mark.parametrize("prediction", ["v_prediction", "sample"])
@pytest.mark.parametrize("sampler", FEW)
def test_other_predictions_equal_the_stock_pipeline(case, sampler, prediction):
    case("base", prediction=prediction).text2img(sampler=sampler)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "euler", "pndm"])
def test_a_folder_as_published_with_pndm_equals_the_stock_pipeline(
    folders, picture, monkeypatch, tmp_path, sampler
):
    """Its scheduler's file has fields for other classes, such as that latents are not clipped."""
    folder = tmp_path / "model"
    shutil.copytree(folders("base"), folder)
    published = {
        **{"_class_name": "PNDMScheduler", "_diffusers_version": "0.6.0", **BETAS},
        **{"clip_sample": False, "set_alpha_to_one": False, "skip_prk_steps": True},
        **{"num_train_timesteps": 1000, "steps_offset": 1, "trained_betas": None},
    }
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(published))
    stack = load(str(folder), device="cpu")
    Case(stack, folder, picture, monkeypatch).text2img(sampler=sampler, guidance=7.5)


@pytest.mark.parametrize("offset", [{}, {"steps_offset": 0}])
@pytest.mark.parametrize("task", ["text2img", "img2img", "inpaint"])
def test_an_old_folder_without_an_offset_equals_the_stock_pipeline(
    folders, picture, monkeypatch, tmp_path, task, offset
):
    """Its pipelines correct the offset of timesteps to 1, where it is missing or 0."""
    folder = tmp_path / "model"
    shutil.copytree(folders("inpainting" if task == "inpaint" else "base"), folder)
    old = {"_class_name": "DDIMScheduler", **BETAS, "clip_sample": False, **offset}
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(old))
    with pytest.warns(FutureWarning, match="steps_offset"):
        getattr(Case(load(str(folder), device="cpu"), folder, picture, monkeypatch), task)()


@pytest.mark.parametrize("more", [{"rescale": 0.7}, {"eta": 0.6}, {"rescale": 1, "eta": 1}])
def test_rescaled_guidance_and_eta_equal_the_stock_pipeline(case, more):
    case("base").text2img(**more)


@pytest.mark.parametrize(
    ("sampler", "strength", "guidance"),
    [*product(SAMPLERS, [0.5], [5]), *product(FEW, [1], [5]), ("ddim", 0.5, 1)],
)
def test_image_to_image_equals_the_stock_pipeline(case, sampler, strength, guidance):
    case("base").img2img(sampler=sampler, strength=strength, guidance=guidance)


@pytest.mark.parametrize(
    ("sampler", "guidance"), [*product([*FEW, "euler_a", "pndm"], [5]), ("ddim", 1)]
)
def test_the_x4_upscaler_equals_the_stock_pipeline(case, sampler, guidance):
    case("x4").x4(sampler=sampler, guidance=guidance)


@pytest.mark.parametrize("sampler", UNSCALED)
def test_latent_diffusions_upscaler_equals_the_stock_pipeline(case, sampler):
    """With samplers that scale the UNet's input, the stock pipeline scales the picture as well."""
    case("ldm").ldm(sampler=sampler)


@pytest.mark.parametrize(
    ("kind", "sampler", "strength", "guidance"),
    [
        *product(["inpainting"], [*FEW, "euler_a", "heun"], [0.5, 1], [5]),
        *product(["base"], FEW, [0.5, 1], [5]),
        *product(["inpainting", "base"], ["pndm"], [1], [1]),
    ],
)
def test_inpainting_equals_the_stock_pipeline(case, kind, sampler, strength, guidance):
    """The inpainting UNet, and the base one by blending latents, as diffusers does it too."""
    case(kind).inpaint(sampler=sampler, strength=strength, guidance=guidance)


@pytest.mark.parametrize(("sampler", "guidance"), [*product([*FEW, "euler_a"], [5]), ("ddim", 1)])
def test_sdxls_text_to_image_equals_the_stock_pipeline(case, sampler, guidance):
    case("xl").text2img(sampler=sampler, guidance=guidance)


@pytest.mark.parametrize("prompt", [WORDS["prompt"], ""])
def test_sdxl_without_a_negative_prompt_is_guided_away_from_zeros_as_the_stock_pipeline(
    case, prompt
):
    case("xl").text2img(prompt=prompt, negative="")


@pytest.mark.parametrize(("sampler", "strength"), [*product(FEW, [0.5]), ("ddim", 1)])
def test_sdxls_image_to_image_equals_the_stock_pipeline(case, sampler, strength):
    case("xl").img2img(sampler=sampler, strength=strength, guidance=5)


@pytest.mark.parametrize(
    ("kind", "sampler", "strength"),
    [*product(["xl inpainting", "xl"], ["ddim", "euler"], [0.5, 1])],
)
def test_sdxls_inpainting_equals_the_stock_pipeline(case, kind, sampler, strength):
    case(kind).inpaint(sampler=sampler, strength=strength, guidance=5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "variable"),
    [
        ("text2img", "RESTORE_SD_FOLDER"),
        ("img2img", "RESTORE_SD_FOLDER"),
        ("inpaint", "RESTORE_SD_INPAINT_FOLDER"),
        ("x4", "RESTORE_SD_X4_FOLDER"),
        ("ldm", "RESTORE_LDM_SR_FOLDER"),
        ("text2img", "RESTORE_SDXL_FOLDER"),
    ],
)
def test_real_checkpoints_equal_the_stock_pipeline(picture, monkeypatch, task, variable):
    """Each of a diffusers folder that the environment names."""
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"set {variable} to a diffusers folder")
    case = Case(load(folder, device="cpu"), folder, picture, monkeypatch, close=1e-3)
    getattr(case, task)(sampler="ddim")
