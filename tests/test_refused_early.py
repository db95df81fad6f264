"""What would fail hours later is refused, in words, before training begins."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from restore.checkpoints.save import save
from restore.errors import ConfigError
from restore.training.data.geometry import Geometry, move
from restore.training.losses import sizes
from restore.training.losses.discriminator import AdversaryOptions, Patches
from restore.training.losses.perceptual import LpipsOptions, SqueezeNetOptions, squeezenet
from restore.training.registry import StageOptions
from restore.training.stages.autoencoder import AutoencoderOptions, AutoencoderStage
from restore.training.stages.denoiser import EveryTaskOptions, refuse_impossible
from restore.training.stages.distil import DistilOptions, DistilStage

CPU = torch.device("cpu")


def gan(layers):
    return {"start": 10**6, "channels": 16, "layers": layers}


@pytest.mark.parametrize(
    ("kind", "data", "more", "told"),
    [
        ("autoencoder", {"crop": 16}, {"adversary": gan(3)}, "needs pictures of 24 px.*layers 2"),
        ("autoencoder_kl", {"crop": 32}, {"adversary": gan(4)}, "needs pictures of 48 px"),
        ("restorer", {"crop": 32}, {"adversary": gan(4)}, "needs pictures of 48 px"),
        ("autoencoder", {"crop": 16}, {"perceptual": {"kind": "squeezenet"}}, "of 20 px"),
        ("autoencoder", {"crop": 24}, {"perceptual": {"kind": "lpips", "net": "alex"}}, "32 px"),
        ("scratches", {"widths": [0, 5]}, {}, "widths are above 0"),
        ("scratches", {"widths": [5, 0.7]}, {}, "thinner first, not 5 to 0.7"),
        ("scratches", {"enlarged": [2, 0.2]}, {}, r"not \[2, 0.2\]"),
        ("scratches", {"enlarged": [0.5, 0.9]}, {}, "a factor of 1 or more"),
        ("scratches", {}, {"overlap": -1}, "greater than or equal to 0"),
        ("scenes", None, {"pixel_weight": 1, "texture": {"adversary": gan(2)}}, "no discriminator"),
        ("scenes", None, {"context": "boxes", "text_layers": 3}, "text_layers is for context text"),
        ("scenes", None, {"perceptual": {"kind": "squeezenet"}}, "set pixel_weight above 0"),
        ("pixels", None, {"timesteps": 10, "steps": 11}, "at most timesteps, 10, not 11"),
    ],
)
def test_options_that_cannot_work_are_refused_before_anything_is_read(kind, data, more, told):
    given = {} if data is None else {"data": {"photos": "nowhere", **data}}
    with pytest.raises(ValidationError, match=told):
        TypeAdapter(StageOptions).validate_python({"kind": kind, **given, **more})


def test_a_perceptual_loss_that_texture_leaves_no_picture_to_is_refused():
    given = {"data": {"photos": "nowhere"}, "perceptual": {"kind": "squeezenet"}, "pixel_weight": 1}
    for kind in ("denoiser", "finetune"):
        more = {"autoencoder": "nano"} if kind == "denoiser" else {"model": "nano"}
        whole = {"kind": kind, **given, **more, "texture": {"every_step": True}}
        with pytest.raises(ValidationError, match=r"give texture.perceptual instead"):
            TypeAdapter(StageOptions).validate_python(whole)
        TypeAdapter(StageOptions).validate_python({**whole, "texture": {}})


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_the_least_side_of_a_discriminator_is_one_that_it_reads(layers):
    judge, least = Patches(16, layers), 3 * 2**layers
    options = AdversaryOptions.model_validate(gan(layers))
    assert judge(torch.zeros(1, 3, least, least)).numel() == 1
    assert not sizes.complaint(least, None, options)
    with pytest.raises(RuntimeError):
        judge(torch.zeros(1, 3, least - 1, least - 1))
    assert sizes.complaint(least - 1, None, options)


def test_the_least_side_of_a_perceptual_loss_is_one_that_it_reads():
    for side, is_read in ((16, False), (20, True)):
        assert bool(sizes.complaint(side, SqueezeNetOptions(), None)) != is_read
    assert squeezenet(*torch.rand(2, 1, 3, 20, 20)) > 0
    assert not sizes.complaint(16, LpipsOptions(net="vgg"), None)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"texture": {"adversary": gan(4)}}, "window 8: a discriminator of 4 layers"),
        ({"shown_steps": 1001}, "1001 steps of sampling are more than the 1000"),
    ],
)
def test_a_denoiser_refuses_windows_and_steps_that_fail_later(stack, more, told):
    given = {"data": {"photos": "nowhere", "crop": 32, "window": 8}, "pixel_weight": 1, **more}
    with pytest.raises(ConfigError, match=told):
        refuse_impossible(EveryTaskOptions.model_validate(given), stack)


def test_a_teacher_takes_no_more_steps_than_its_schedule_has(stack, tmp_path):
    plan = type(stack.schedule).from_config(stack.schedule.config, num_train_timesteps=100)
    save(replace(stack, schedule=plan), tmp_path / "teacher", "# test\n", torch.float32)
    given = {"teacher": str(tmp_path / "teacher"), "data": {"photos": "nowhere"}}
    asked = DistilOptions.model_validate({**given, "few": 4, "each": 26})
    with pytest.raises(ConfigError, match="104 steps of sampling are more than the 100"):
        DistilStage(asked, 0, CPU)


def test_a_crop_that_is_no_whole_number_of_latents_is_refused():
    blocks = {"encoder_blocks": (0,) * 4, "decoder_blocks": (0,) * 4, "channels": 8}
    asked = AutoencoderOptions.model_validate({"data": {"photos": "nowhere", "crop": 20}, **blocks})
    with pytest.raises(ConfigError, match=r"data.crop 20: a latent is 8 px"):
        AutoencoderStage(asked, 0, CPU)


def test_geometry_that_leaves_less_than_a_crop_is_refused_with_the_options_or_in_words():
    small = {"transform": "Resize", "params": {"height": 16, "width": 20}}
    data = {"photos": "nowhere", "geometry": [small]}
    with pytest.raises(ValidationError, match="leaves 20x16 px of a crop of 64"):
        TypeAdapter(StageOptions).validate_python(
            {"kind": "scratches", "data": data | {"crop": 64}}
        )
    photo, rng = np.zeros((99, 99, 3), np.uint8), np.random.default_rng(0)
    with pytest.raises(ConfigError, match="Resize: leaves 20x16 px"):
        move(photo, (0, 0), 64, (Geometry.model_validate(small),), rng)


def test_a_discriminator_is_refused_where_none_is_trained():
    asked = {"kind": "scenes", "pixel_weight": 1, "texture": {"adversary": gan(1)}}
    with pytest.raises(ValidationError, match=r"texture\.adversary: scenes train no discriminator"):
        TypeAdapter(StageOptions).validate_python(asked)
