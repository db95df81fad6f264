"""Stage two: what the UNet is asked for, how answers are weighed, over any autoencoder."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel, VQModel
from PIL import Image

from restore.checkpoints.load import load
from restore.config import load_config
from restore.errors import ConfigError
from restore.training import loop
from restore.training.data.captions import WORDS, vocabulary
from restore.training.stages.autoencoder import KlOptions, VqOptions
from restore.training.stages.autoencoder import build as build_autoencoder
from restore.training.stages.denoiser import load_trained
from restore.training.stages.denoising_loss import DenoisingOptions, train_step
from restore.training.stages.networks import ShapeOptions, build, schedule
from restore.training.stages.prediction import min_snr, prediction_target, to_clean
from restore.training.stages.previews import drop_captions
from restore.training.stages.vocabulary import letters

SHAPE = {"channels": [8, 16], "layers": 1, "groups": 4, "text_width": 16, "text_layers": 1}
QUICK = {"batch": 2, "steps": 2, "log_every": 1, "show_every": 2, "save_every": 2}
KINDS = ["v_prediction", "sample", "epsilon"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory, pixels):
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(2):
        Image.fromarray(pixels(72, 80, seed)).save(folder / f"{seed}.png")
    return folder


def train(folder, stage, **more):
    path = folder.with_suffix(".yaml")
    path.write_text(yaml.safe_dump({**QUICK, "stage": stage, "output": str(folder), **more}))
    return loop.run(path, [])


def stage(photos, autoencoder, **more):
    data = {"photos": str(photos), "crop": 32, "count": 4, "window": 8, "workers": 0}
    data["recipe"] = "clean_bicubic"
    common = {"kind": "denoiser", "autoencoder": str(autoencoder), "data": data}
    common["cache"] = str(photos.with_name("pairs"))  # encoded once for all tests
    return {**common, **SHAPE, "pixel_weight": 1.0, "pixel_samples": 1, **more}


def stage_one(folder, kind, **more):
    """The folder of an untrained autoencoder of factor 2."""
    shape = {"widths": [8, 16], "layers": 1, "groups": 4, "data": {"photos": "."}}
    torch.manual_seed(0)
    build_autoencoder(kind.model_validate({**shape, **more})).save_pretrained(folder / "vae")
    return folder


@pytest.mark.parametrize(
    ("kind", "zero"), [*((kind, False) for kind in KINDS), *((kind, True) for kind in KINDS[:2])]
)
def test_a_perfect_answer_gives_the_clean_latent_back(kind, zero):
    plan, t = schedule(kind, zero), torch.tensor([0, 300, 999])
    latent, noise = torch.randn(2, 3, 4, 8, 8).unbind()
    x = plan.add_noise(latent, noise, t)
    made = to_clean(plan, prediction_target(plan, latent, noise, t), x, t)
    torch.testing.assert_close(made, latent, rtol=1e-3, atol=1e-3)


def test_the_walk_begins_at_pure_noise_unless_told():
    assert schedule("v_prediction").alphas_cumprod[-1] == 0
    assert schedule("v_prediction", False).alphas_cumprod[-1] > 0


@pytest.mark.parametrize("kind", KINDS)
def test_min_snr_weighs_the_error_of_the_clean_latent_alike(kind):
    """Whatever the UNet answers with, an error is worth min(SNR, gamma) in the clean latent."""
    plan, t = schedule(kind, False), torch.tensor([10, 300, 600, 990])
    latent, noise, error = torch.randn(3, 4, 4, 8, 8).unbind()
    x = plan.add_noise(latent, noise, t)
    wanted = prediction_target(plan, latent, noise, t)
    lost = (to_clean(plan, wanted + error, x, t) - latent).square().sum((1, 2, 3))
    snr = plan.alphas_cumprod[t] / (1 - plan.alphas_cumprod[t])
    weighed = min_snr(plan, t, 5.0) * error.square().sum((1, 2, 3))
    torch.testing.assert_close(weighed, snr.clamp(max=5) * lost, rtol=0.02, atol=1e-3)


def batch(stack, size=4):
    shape = (size, stack.channels, 8, 8)
    known, target = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).unbind()
    tokens = torch.stack([stack.context.inputs("noise")] * size)
    trust = torch.full((size, 1, 8, 8), 0.5)
    return {"conditioning": known, "target": target, "trust": trust, "tokens": tokens}


def loss(stack, **more):
    given, rng = DenoisingOptions.model_validate(more), torch.Generator().manual_seed(0)
    return train_step(stack, batch(stack), given, 0, rng)["latent"]


def test_min_snr_leaves_the_last_timestep_its_weight(stack):
    """v weighs nothing at SNR 0, and one step of sampling is learnt there."""
    assert loss(stack, last_share=1, min_snr=5) == loss(stack, last_share=1) > 0
    assert loss(stack, last_share=0, min_snr=5) < loss(stack, last_share=0)


def test_offset_noise_moves_whole_channels(stack, monkeypatch):
    seen = []
    noised = stack.schedule.add_noise
    monkeypatch.setattr(
        stack.schedule, "add_noise", lambda *a: seen.append(a[1]) or noised(*a), raising=False
    )
    loss(stack)
    loss(stack, offset_noise=0.5)
    plain, offset = seen
    away = offset - plain
    torch.testing.assert_close(away, away[..., :1, :1].expand_as(away), rtol=0, atol=1e-5)
    assert 0.2 < away.std() < 1


def test_words_are_left_out_by_share(stack):
    given = batch(stack, 1000)
    rng = torch.Generator().manual_seed(0)
    made = drop_captions(stack, given, 0.3, rng)["tokens"]
    is_silent = (made == stack.context.inputs("")).all(1)
    assert 0.25 < is_silent.float().mean() < 0.35
    assert torch.equal(made[~is_silent], given["tokens"][~is_silent])


@pytest.mark.parametrize(
    "more",
    [
        {"prediction": "epsilon", "zero_terminal_snr": False, "min_snr": 5, "shown_steps": 2},
        {"prediction": "sample", "offset_noise": 0.1, "dropped": 0.5, "min_snr": 5},
        {"prediction": "v_prediction", "zero_terminal_snr": False, "words": "captions"},
    ],
)
def test_every_target_trains_and_loads_with_stock_classes(photos, autoencoder, tmp_path, more):
    folder = train(tmp_path / "run", stage(photos, autoencoder, **more))
    unet = UNet2DConditionModel.from_pretrained(folder / "unet", local_files_only=True)
    plan = DDIMScheduler.from_pretrained(folder / "scheduler", local_files_only=True)
    assert unet.config.in_channels == 17
    assert plan.config.prediction_type == more["prediction"]
    assert plan.config.rescale_betas_zero_snr == more.get("zero_terminal_snr", True)
    rows = (tmp_path / "run" / "log.csv").read_text()
    assert all(np.isfinite(float(row.split(",")[2])) for row in rows.splitlines())


@pytest.mark.parametrize(
    ("kind", "stock", "more"),
    [(KlOptions, AutoencoderKL, {"latent_channels": 3}), (VqOptions, VQModel, {"codes": 16})],
)
def test_a_denoiser_learns_over_any_autoencoder(photos, tmp_path, kind, stock, more):
    first = stage_one(tmp_path, kind, **more)
    made = load(str(train(tmp_path / "second", stage(photos, first))), "cpu")
    assert isinstance(made.vae, stock)
    assert (made.factor, made.unet.config.in_channels) == (2, 7)


@pytest.mark.parametrize("data", [{"crop": 36, "window": 8}, {"crop": 32, "window": 8}])
def test_crops_that_the_autoencoder_cannot_cut_are_refused(photos, tmp_path, data):
    wrong = stage(photos, stage_one(tmp_path, KlOptions, widths=[8] * 4))
    wrong["data"] |= data
    with pytest.raises(ConfigError, match=r"data\.crop"):
        train(tmp_path / "second", wrong)


def test_noise_cannot_be_asked_for_where_there_is_nothing_else(autoencoder):
    given = {"autoencoder": autoencoder, "prediction": "epsilon"}
    with pytest.raises(ConfigError, match="zero_terminal_snr=false"):
        build(ShapeOptions.model_validate(given))


def test_captions_read_few_tokens():
    said = "strong sensor noise, jpeg 42, slight video compression"
    assert len(letters(vocabulary()).tokenize(said)) == 11
    assert {"strong", "clean", "jpeg"} < set(vocabulary())
    assert all(set(word.word.split()) <= set(vocabulary()) for word in WORDS.values())


def test_an_unknown_target_is_named(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("output: x\nstage: {kind: denoiser, autoencoder: a, data: {photos: y}}\n")
    with pytest.raises(ConfigError, match="epsilon"):
        load_config(loop.TrainOptions, path, ["stage.prediction=epsilom"])


def test_a_model_that_ships_is_gone_on_from_by_its_name(photos, tmp_path):
    of_nano = {"channels": [32, 64, 96, 128], "groups": 8, "layers": 2}
    of_nano |= {"text_width": 64, "text_layers": 2, "words": "captions", "pooled": True}
    of_nano |= {"prediction": "sample"}
    told = stage(photos, "nano", start="nano", pixel_weight=0.0) | of_nano
    train(tmp_path / "run", told, steps=1, learning_rate=1e-9, show_every=1, save_every=1)
    began, ended = load("nano", "cpu", "fp32"), load(str(tmp_path / "run" / "export"))
    assert ended.prompts_describe == "damage"
    for part in ("vae", "unet"):
        for ours, theirs in zip(
            getattr(ended, part).parameters(), getattr(began, part).parameters(), strict=True
        ):
            torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)


def test_from_v_to_the_sample_the_first_step_says_the_same(stack):
    """The walk begins at pure noise, where v is the clean latent's negative."""
    stack = replace(stack, unet=deepcopy(stack.unet), context=deepcopy(stack.context))
    other = replace(stack, unet=deepcopy(stack.unet), schedule=schedule("sample"))
    load_trained(stack, other)
    inputs = torch.randn(1, stack.unet.config.in_channels, 16, 16), torch.tensor(999)
    words = stack.context.embed("")
    with torch.inference_mode():
        v, clean_latent = (one.unet(*inputs, words).sample for one in (stack, other))
    assert torch.equal(v, -clean_latent)


def test_with_pooled_words_the_model_says_at_first_what_it_said(stack):
    told = dict(stack.unet.config) | {"addition_embed_type": "text"}
    told |= {"addition_embed_type_num_heads": 4}
    pooled = replace(stack, unet=UNet2DConditionModel.from_config(told))
    load_trained(stack, pooled)
    inputs = torch.randn(1, stack.unet.config.in_channels, 16, 16), torch.tensor(999)
    for words in ("", "strong noise"):
        heard = stack.context.embed(words)
        with torch.inference_mode():
            before, now = (one.unet(*inputs, heard).sample for one in (stack, pooled))
        assert torch.equal(before, now)
    pooled.unet(*inputs, heard).sample.sum().backward()
    assert pooled.unet.add_embedding.norm2.weight.grad.any()  # it can learn to hear


def test_a_model_of_another_shape_is_not_gone_on_from(stack):
    told = dict(stack.unet.config) | {"addition_embed_type": "text"}
    told |= {"addition_embed_type_num_heads": 4}
    pooled = replace(stack, unet=UNet2DConditionModel.from_config(told))
    with pytest.raises(ConfigError, match="of another shape, in add_embedding"):
        load_trained(pooled, stack)


def test_from_v_to_noise_nothing_is_gone_on(stack):
    with pytest.raises(ConfigError, match="was taught v_prediction"):
        load_trained(stack, replace(stack, schedule=schedule("epsilon", False)))
