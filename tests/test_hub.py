"""Models by diffusers' names: to a folder, the hub and back, as a pipeline; their cards."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import get_type_hints

import diffusers
import huggingface_hub
import numpy as np
import pytest
import tiny
import torch
import transformers
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file

import restore
from restore import options
from restore.api import Restorer
from restore.checkpoints import arguments, card, hub, load, manifest, model_paths
from restore.errors import ConfigError, ModelError, OutputError, UsageError
from restore.tasks import keywords

QUICK = {"steps": 2, "guidance": 1}


@pytest.fixture
def restorer(stack):
    return Restorer(stack)


@pytest.fixture(scope="module")
def nano():
    return Restorer.from_pretrained("nano", device="cpu")


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{path.relative_to(folder)}:{name}": tensor
        for path in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def differing(one: Path, other: Path) -> list[str]:
    first, second = tensors(one), tensors(other)
    assert first and first.keys() == second.keys()
    return [
        name
        for name, tensor in first.items()
        if tensor.dtype != second[name].dtype or not torch.equal(tensor, second[name])
    ]


# from a folder and back


def test_nano_is_saved_as_it_was_loaded(nano, tmp_path):
    nano.save_pretrained(tmp_path / "again")
    shipped = model_paths.find_path("nano")
    assert differing(shipped, tmp_path / "again") == []
    index, again = (
        json.loads((folder / "model_index.json").read_text())
        for folder in (shipped, tmp_path / "again")
    )
    assert {**again, "_diffusers_version": index["_diffusers_version"]} == index
    for name in ("README.md", "LICENSE-realesrgan.txt", "photos.csv"):
        assert (tmp_path / "again" / name).read_bytes() == (shipped / name).read_bytes()
    again = Restorer.from_pretrained(tmp_path / "again", device="cpu")
    image = Image.fromarray(np.arange(27 * 30, dtype=np.uint8).reshape(18, 15, 3))
    assert again.upscale(image, 2).tobytes() == nano.upscale(image, 2).tobytes()


@pytest.mark.parametrize("short", [False, True])
def test_weights_keep_every_bit_in_either_precision(tmp_path, short):
    made = tiny.checkpoint(tmp_path / "base", "base")
    given = load.load(str(made), device="cpu")
    for part in given.parts:
        for weight in part.parameters():
            weight.data = weight.data.half().float() if short else weight.data + 1e-7
    Restorer(given).save_pretrained(tmp_path / "saved")
    again = Restorer.from_pretrained(tmp_path / "saved", device="cpu")
    for one, other in zip(given.parts, again.stack.parts, strict=True):
        held = other.state_dict()
        assert all(torch.equal(held[name], t) for name, t in one.state_dict().items())
    kinds = {tensor.dtype for tensor in tensors(tmp_path / "saved").values()}
    assert kinds == {torch.float16 if short else torch.float32}
    pipe = diffusers.StableDiffusionPipeline.from_pretrained(
        tmp_path / "saved", dtype=torch.float32
    )
    assert torch.equal(pipe.unet.conv_in.weight, given.unet.conv_in.weight)


def test_what_is_not_ours_is_not_replaced(nano, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"diary\.txt|mine"):
        nano.save_pretrained(tmp_path / "mine")
    assert (tmp_path / "mine" / "diary.txt").read_text() == "mine"
    with pytest.raises(UsageError, match="was read from"):
        nano.save_pretrained(model_paths.find_path("nano"))


# the hub


class Hub:
    """Takes what is pushed, as HfApi does."""

    def __init__(self, place: Path):
        self.place, self.calls = place, []

    def __call__(self, token=None):
        self.calls.append(("token", token))
        return self

    def create_repo(self, repo_id, **how):
        self.calls.append(("create_repo", repo_id, how))
        return SimpleNamespace(repo_id=repo_id)

    def upload_folder(self, *, repo_id, folder_path, **how):
        self.calls.append(("upload_folder", repo_id, how))
        shutil.copytree(folder_path, self.place)
        return SimpleNamespace(commit_url=f"https://hub.example/{repo_id}/commit/1")


def test_what_is_pushed_is_the_model_and_a_card(nano, tmp_path, monkeypatch):
    api = Hub(tmp_path / "there")
    monkeypatch.setattr(huggingface_hub, "HfApi", api)
    url = nano.push_to_hub("org/mine", private=True, token="secret", revision="v2")
    assert url == "https://hub.example/org/mine/commit/1"
    assert api.calls[:2] == [
        ("token", "secret"),
        ("create_repo", "org/mine", {"private": True, "exist_ok": True}),
    ]
    how = api.calls[2][2]
    assert (how["revision"], how["create_pr"]) == ("v2", False)
    # what of an older model would lie beside its manifest goes, what is the user's stays
    assert {pattern.removesuffix("/*") for pattern in how["delete_patterns"]} == {*hub.PARTS}
    assert differing(model_paths.find_path("nano"), api.place) == []
    assert ModelCard.load(api.place / "README.md").data.license == "other"
    manifest.check(api.place)
    assert Restorer.from_pretrained(api.place, device="cpu").stack.prompts_describe == "damage"


def test_a_hub_that_refuses_is_told_in_one_line(nano, monkeypatch, tmp_path):
    class Refusing(Hub):
        def create_repo(self, repo_id, **how):
            raise huggingface_hub.errors.OfflineModeIsEnabled("no network\nand more")

    monkeypatch.setattr(huggingface_hub, "HfApi", Refusing(tmp_path))
    with pytest.raises(OutputError, match=r"^org/mine: the hub did not take it: no network; log"):
        nano.push_to_hub("org/mine")
    for name in ("mine", "org/mine@v2", "a/b/c"):
        with pytest.raises(UsageError, match="org/name"):
            nano.push_to_hub(name)


# cards


def test_nanos_card_is_read_by_the_hub():
    data = ModelCard.load(model_paths.find_path("nano") / "README.md").data
    assert (data.license, data.license_link) == ("other", "LICENSE-realesrgan.txt")
    assert data.metrics == ["psnr", "ssim", "pd"] and "super-resolution" in data.tags
    told = {(one.dataset_config, one.metric_type): one.metric_value for one in data.eval_results}
    assert len(told) == 9
    text = (model_paths.find_path("nano") / "README.md").read_text()
    for damage, measures in (("blind", ".4g"), ("heavy", ".4g")):
        assert f"{told[damage, 'psnr']:{measures}}" in text


def test_a_card_gets_one_head():
    text = card.headed("# mine\n", "mine", scores={"psnr": 25.123456789, "odd: name": 1})
    data = ModelCard(text).data
    assert data.license == "unknown" and data.metrics == ["psnr", "odd: name"]
    assert [one.metric_value for one in data.eval_results] == [25.12346, 1.0]
    assert ModelCard(text).text.strip() == "# mine"
    assert card.headed(text, "other") == text


# diffusers' names


def test_diffusers_names_mean_what_ours_do(restorer, pixels):
    image = pixels(20, 26)
    ours = restorer.img2img(image, seed=7, steps=3, guidance=2, negative="bad")
    theirs = {"num_inference_steps": 3, "guidance_scale": 2, "negative_prompt": "bad"}
    assert np.array_equal(restorer.img2img(image, seed=7, **theirs), ours)
    off = restorer.img2img(image, steps=3, guidance=1, negative="bad")
    for scale in (0, 0.0, 0.5, 1):
        theirs = {"guidance_scale": scale, "negative_prompt": "bad", "num_inference_steps": 3}
        assert np.array_equal(restorer.img2img(image, **theirs), off), "off, as in diffusers"
    nothing = {"num_inference_steps": None, "negative_prompt": None, "generator": None}
    assert np.array_equal(restorer.upscale(image, 1, **nothing), restorer.upscale(image, 1))
    with pytest.raises(UsageError, match="steps and num_inference_steps are one thing"):
        restorer.upscale(image, steps=3, num_inference_steps=3)
    with pytest.raises(ConfigError, match="guidance must be"):
        restorer.upscale(image, guidance_scale="much")


def test_a_generator_gives_seeds_and_moves_on(restorer):
    size = {"width": 20, "height": 20, **QUICK}

    def one():
        return torch.Generator().manual_seed(5)

    generator = one()
    first, second = (restorer.text2img(generator=generator, **size) for _ in range(2))
    assert first.tobytes() != second.tobytes()
    both = restorer.text2img(n=2, generator=one(), **size)
    assert [image.tobytes() for image in both] == [first.tobytes(), second.tobytes()]
    alike = restorer.text2img(["", ""], generator=[one(), one()], **size)
    assert {image.tobytes() for image in alike} == {first.tobytes()}
    with pytest.raises(UsageError, match="3 generators for 2 pictures"):
        restorer.text2img(["", ""], generator=[one()] * 3, **size)
    with pytest.raises(UsageError, match="one of them decides"):
        restorer.text2img(seed=3, generator=one(), **size)


def test_the_callback_of_diffusers_looks_on_and_stops(restorer, pixels):
    seen = []

    def look(who, step, timestep, held):
        seen.append((who, step, int(timestep), held["latents"].shape[:2]))
        return held

    restorer.img2img(pixels(20, 26), callback_on_step_end=look, strength=1, **QUICK)
    assert [step[:2] for step in seen] == [(restorer, 0), (restorer, 1)]
    assert seen[0][2] > seen[1][2] >= 0 and seen[0][3] == (1, 8)
    with pytest.raises(restore.Cancelled, match="after step 1 of 9"):
        restorer.text2img(width=20, height=20, steps=9, callback_on_step_end=lambda *_: False)
    with pytest.raises(UsageError, match="other latents"):
        restorer.text2img(
            width=20, height=20, callback_on_step_end=lambda *a: {"latents": a[3]["latents"] + 1}
        )


@pytest.mark.parametrize("output_type", ["pil", "np", "pt"])
def test_any_kind_comes_out_if_it_is_asked_for(restorer, pixels, output_type):
    kinds = {"pil": Image.Image, "np": np.ndarray, "pt": torch.Tensor}
    images = [Image.fromarray(pixels(9, 7)), pixels(9, 7)]
    made = restorer.upscale(images, 1, output_type=output_type)
    assert [isinstance(one, kinds[output_type]) for one in made] == [True, True]
    assert isinstance(restorer.upscale(images[0], 1, output_type=output_type), kinds[output_type])
    with pytest.raises(UsageError, match="there are pil, np, pt"):
        restorer.upscale(images, output_type="latent")


def test_it_moves_as_torchs_modules_do():
    nano = Restorer.from_pretrained("nano", device="cpu")
    assert nano.to("cpu") is nano
    nano.to(torch.bfloat16)
    assert nano.stack.unet.dtype == torch.bfloat16
    assert next(nano.stack.vae.parameters()).dtype == torch.float32
    nano.to(device="cpu", dtype=torch.float32)
    assert (nano.device, nano.stack.unet.dtype) == (torch.device("cpu"), torch.float32)
    with pytest.raises(ConfigError, match=r"dtype torch\.int8: there are auto, fp32"):
        nano.to(torch.int8)
    with pytest.raises(ModelError, match="no such device"):
        nano.to("mps" if not torch.backends.mps.is_available() else "cuda")


def test_precision_is_told_in_torchs_words():
    for how in ({"dtype": torch.float32}, {"torch_dtype": torch.float32}, {"torch_dtype": "fp32"}):
        made = Restorer.from_pretrained("nano", device="cpu", local_files_only=True, **how)
        assert made.stack.unet.dtype == torch.float32


# types


@pytest.mark.parametrize(
    ("task", "kind", "told"),
    [
        ("upscale", options.UpscaleOptions, keywords.Upscale),
        ("inpaint", options.InpaintOptions, keywords.Inpaint),
        ("img2img", options.Img2imgOptions, keywords.Img2img),
        ("text2img", options.Text2imgOptions, keywords.Text2img),
    ],
)
def test_keywords_are_the_options(task, kind, told):
    method = get_type_hints(getattr(Restorer, task))
    said = get_type_hints(told)
    fields = {name: of for name, of in get_type_hints(kind).items() if name in kind.model_fields}
    theirs = get_type_hints(keywords.Diffusers).keys()
    assert {*said} - theirs == fields.keys() - method.keys() - {"task"}
    assert {name: said[name] for name in said.keys() - theirs} == {
        name: fields[name] for name in said.keys() - theirs
    }
    for theirs_name, name in keywords.SAME.items():
        assert theirs_name in said and name in said


def test_what_loading_takes_is_typed_alike():
    said = get_type_hints(arguments.Loading)
    taken = get_type_hints(load.load)
    assert {*said} == taken.keys() - {"name", "device", "dtype", "return"}
    assert said == {name: taken[name] for name in said}


# the pipeline


@pytest.fixture(scope="module")
def pipe():
    return restore.RestorationPipeline.from_pretrained("nano", device="cpu")


def test_nano_is_a_pipeline_of_diffusers(pipe, nano, pixels):
    assert isinstance(pipe, diffusers.DiffusionPipeline)
    assert {*pipe.components} == {
        *("vae", "unet", "text_encoder", "tokenizer", "scheduler", "restorer")
    }
    assert type(pipe.unet) is diffusers.UNet2DConditionModel
    image = Image.fromarray(pixels(12, 16))
    made = pipe(image=image, scale=2)
    assert made.images[0].tobytes() == nano.upscale(image, 2).tobytes()
    (images,) = pipe("", [image] * 2, scale=2, output_type="np", return_dict=False)
    assert images.shape == (2, 24, 32, 3) and images.dtype == np.float32
    assert np.array_equal(np.rint(images[0] * 255), np.asarray(made.images[0]))
    assert pipe.tasks.upscale(image, 2).size == (32, 24)


def test_each_task_is_reached_through_the_call(stack, pixels):
    pipe = restore.RestorationPipeline(Restorer(stack))
    image, mask = Image.fromarray(pixels(20, 26)), Image.new("L", (26, 20), 255)
    few = {"num_inference_steps": 2, "guidance_scale": 1.0}
    made = pipe("a", num_images_per_prompt=2, height=20, width=30, output_type="pt", **few).images
    assert made.shape == (2, 3, 20, 30)
    filled = pipe("a", image, mask, **few).images[0]
    assert filled.tobytes() == pipe.tasks.inpaint(image, mask, "a", **QUICK).tobytes()
    again = pipe("a", image, task="img2img", strength=0.9, **few).images[0]
    assert again.tobytes() == pipe.tasks.img2img(image, "a", strength=0.9, **QUICK).tobytes()
    assert pipe(image=image, mask_image=mask, task="upscale", **few).images[0].size == (104, 80)
    with pytest.raises(UsageError, match="of text2img"):
        pipe(image=image, num_images_per_prompt=2)
    with pytest.raises(UsageError, match="one prompt"):
        pipe(["a", "b"], image)


@pytest.mark.parametrize("kind", [lambda a: a, Image.fromarray, torch.from_numpy, lambda a: [a]])
def test_a_picture_in_the_place_of_the_prompt_is_told(stack, pixels, kind):
    with pytest.raises(UsageError, match=r"write pipe\(image="):
        restore.RestorationPipeline(Restorer(stack))(kind(pixels(12, 16)))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_arrays_of_any_depth_are_answered_as_diffusers_does(pipe, kind):
    top = 1 if kind == np.float32 else np.iinfo(kind).max
    image = (np.linspace(0, 1, 12 * 14 * 3).reshape(12, 14, 3) * top).astype(kind)
    floats = pipe(image=image, scale=1, output_type="np").images
    assert floats.shape == (1, 12, 14, 3) and floats.dtype == np.float32
    assert 0.9 < floats.max() <= 1
    (shown,) = pipe(image=image, scale=1).images
    assert shown.mode == "RGB"
    assert np.abs(np.asarray(shown) / 255 - floats[0]).max() <= 0.5 / 255 + 1e-6


def test_each_prompt_of_a_list_has_its_pictures(stack):
    pipe = restore.RestorationPipeline(Restorer(stack))
    few = {"num_inference_steps": 1, "height": 16, "width": 16}
    made = pipe(["a", "b"], num_images_per_prompt=2, seed=np.int64(3), **few).images
    alone = [
        pipe.tasks.text2img(words, seed=3 + nth, steps=1, width=16, height=16)
        for nth, words in enumerate("aabb")
    ]
    assert [one.tobytes() for one in made] == [one.tobytes() for one in alone]


def test_another_scheduler_is_the_sampler_of_its_class(stack, pixels):
    pipe = restore.RestorationPipeline(Restorer(stack))
    image = Image.fromarray(pixels(20, 26))
    kind = diffusers.DPMSolverMultistepScheduler
    for more, sampler in (({}, "dpm++_2m"), ({"use_karras_sigmas": True}, "dpm++_2m_karras")):
        pipe.scheduler = kind.from_config(stack.schedule.config, **more)
        made = pipe("a", image, task="img2img", num_inference_steps=4).images[0]
        ours = pipe.tasks.img2img(image, "a", steps=4, sampler=sampler)
        assert made.tobytes() == ours.tobytes()
    pipe.scheduler = kind.from_config(stack.schedule.config, solver_order=1)
    made = pipe("a", image, task="img2img", num_inference_steps=4).images[0]
    ours = {"sampler": "dpm++_2m", "sampler_options": {"solver_order": 1}}
    assert made.tobytes() == pipe.tasks.img2img(image, "a", steps=4, **ours).tobytes()
    pipe.scheduler = diffusers.LMSDiscreteScheduler.from_config(stack.schedule.config)
    with pytest.raises(ConfigError, match="LMSDiscreteScheduler is not supported"):
        pipe("a", image)


def test_a_pipelines_callback_stops_it_as_in_diffusers(stack):
    pipe, seen = restore.RestorationPipeline(Restorer(stack)), []

    def stop(who, step, timestep, held):
        seen.append(who is pipe)
        who._interrupt = step == 1
        return held

    few = {"height": 20, "width": 20, "num_inference_steps": 5}
    with pytest.raises(restore.Cancelled, match="after step 2 of 5"):
        pipe("a", callback_on_step_end=stop, **few)
    assert seen == [True, True]


def test_an_exchanged_part_is_refused_not_ignored(stack, tmp_path):
    pipe = restore.RestorationPipeline(Restorer(stack))
    pipe.unet = tiny.unet(4)
    for call in (lambda: pipe("a"), lambda: pipe.save_pretrained(tmp_path / "x")):
        with pytest.raises(ConfigError, match="unet was exchanged"):
            call()


def test_a_saved_pipeline_comes_back(pipe, tmp_path):
    pipe.save_pretrained(tmp_path / "saved")
    again = restore.RestorationPipeline.from_pretrained(tmp_path / "saved", device="cpu")
    assert differing(model_paths.find_path("nano"), tmp_path / "saved") == []
    again.to(torch_device="cpu", torch_dtype=torch.bfloat16, silence_dtype_warnings=True)
    assert again.dtype == torch.bfloat16 and again.device == torch.device("cpu")


@pytest.mark.parametrize(
    ("library", "kind", "part"),
    [
        (diffusers, "UNet2DConditionModel", "unet"),
        (diffusers, "AutoencoderTiny", "vae"),
        (diffusers, "DDIMScheduler", "scheduler"),
        (transformers, "CLIPTextModel", "text_encoder"),
        (transformers, "CLIPTokenizer", "tokenizer"),
    ],
)
def test_its_parts_load_by_the_stock_classes(library, kind, part, nano):
    made = getattr(library, kind).from_pretrained(model_paths.find_path("nano"), subfolder=part)
    index = diffusers.DiffusionPipeline.load_config(model_paths.find_path("nano"))
    assert index["_class_name"] == "RestorationPipeline"
    assert index[part] == [library.__name__, kind]
    if isinstance(made, torch.nn.Module):
        of = {"unet": nano.stack.unet, "vae": nano.stack.vae}
        ours = of.get(part, nano.stack.context.module).state_dict()
        theirs = made.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], tensor.float()) for name, tensor in theirs.items())
