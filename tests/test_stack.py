from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from transformers import CLIPTextModel

from restore.checkpoints.load import load
from restore.checkpoints.save import save
from restore.diffusion import vae
from restore.diffusion.conditioning import guided
from restore.diffusion.layouts import (
    BASE,
    INPAINTING,
    LDM_INPAINT,
    LDM_UPSCALE,
    TRUST,
    X4,
    layout_of,
    require,
)
from restore.diffusion.vae import receptive_field
from restore.errors import ModelError
from restore.images.picture import Picture
from restore.options import Text2imgOptions, UpscaleOptions
from restore.tasks.run import restore


def saved(stack, tmp_path):
    save(stack, tmp_path / "model", card="# tiny\n", dtype=torch.float32)
    return tmp_path / "model"


def test_a_saved_stack_loads_with_every_tensor_equal(stack, tmp_path):
    again = load(str(saved(stack, tmp_path)), device="cpu")
    parts = [(s.vae, s.unet, s.context.module) for s in (stack, again)]
    for one, other in zip(*parts, strict=True):
        old, new = one.state_dict(), other.state_dict()
        assert old.keys() == new.keys()
        assert all(torch.equal(old[key], new[key]) for key in old)
    assert again.windows == stack.windows
    assert torch.equal(again.context.embed("some noise"), stack.context.embed("some noise"))


def test_every_part_loads_with_the_stock_classes(stack, tmp_path):
    folder = saved(stack, tmp_path)
    assert not any("_name_or_path" in path.read_text() for path in folder.rglob("config.json"))
    AutoencoderTiny.from_pretrained(folder / "vae")
    UNet2DConditionModel.from_pretrained(folder / "unet")
    CLIPTextModel.from_pretrained(folder / "text_encoder")


def test_a_flipped_bit_is_refused_before_use(stack, tmp_path):
    folder = saved(stack, tmp_path)
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"diffusion_pytorch_model\.safetensors"):
        load(str(folder), device="cpu")


def test_a_missing_model_names_those_that_ship():
    with pytest.raises(ModelError, match="nano"):
        load("nanoo")


def test_a_layout_is_told_from_the_config():
    text = {"cross_attention_dim": 8}
    assert layout_of({"in_channels": 17, **text}, 8, trust=True) == TRUST
    assert layout_of({"in_channels": 4, **text}, 4) == BASE
    assert layout_of({"in_channels": 9, **text}, 4) == INPAINTING
    assert layout_of({"in_channels": 7, **text}, 4) == X4
    assert layout_of({"in_channels": 6}, 3) == LDM_UPSCALE
    assert layout_of({"in_channels": 7}, 3) == LDM_INPAINT
    with pytest.raises(ModelError, match="11 input channels"):
        layout_of({"in_channels": 11}, 4)


def test_a_task_that_a_layout_cannot_do_names_the_layouts_that_can():
    with pytest.raises(ModelError, match=r"base layout.*not upscale.*trust, x4 upscaler"):
        require(BASE, "upscale")


@torch.inference_mode()
def test_encoding_and_decoding_by_blocks_equals_doing_it_whole(stack, monkeypatch):
    monkeypatch.setattr(
        "restore.diffusion.vae.BLOCK", 16
    )  # latents, so that the canvas takes several
    rgb = torch.rand(1, 3, 240, 176)
    whole = vae.encode(stack.vae, rgb)
    blocked = vae.encode_canvas(stack.vae, lambda first, last: rgb[..., first:last, :], (240, 176))
    torch.testing.assert_close(blocked, whole, rtol=0, atol=1e-5)
    made, out = vae.decode(stack.vae, whole), torch.full((1, 3, 237, 170), torch.nan)

    def write(rows, columns, piece):
        out[..., rows, columns] = piece

    vae.decode_canvas(stack.vae, whole, write, (237, 170))
    torch.testing.assert_close(out, made[..., :237, :170], rtol=0, atol=1e-5)


def test_the_receptive_field_is_as_wide_as_what_a_pixel_reaches(stack):
    latent = torch.zeros(1, 8, 41, 41, requires_grad=True)
    reach = -(-receptive_field(stack.vae.decoder) // stack.factor)
    stack.vae.decoder(latent)[0, :, 82, 82].sum().backward()
    rows = latent.grad.abs().sum((0, 1, 3)).nonzero()
    assert rows.min() >= 20 - reach
    assert rows.max() <= 20 + reach


def test_guidance_one_costs_nothing_and_two_goes_twice_as_far():
    one, zero = (lambda x, t, at, v=v: torch.full_like(x, v) for v in (1.0, 0.0))
    assert guided(one, zero, 1) is one
    assert guided(one, zero, 2)(torch.zeros(1), torch.tensor(0), [(0, 0)]).item() == 2


def test_a_walk_takes_the_steps_that_its_model_is_made_for(stack, picture):
    taken = []
    for model, asked in ((stack, 3), (replace(stack, steps=2), None), (stack, 1)):
        options = UpscaleOptions(scale=1, steps=asked)
        restore(picture(24, 24), options, model, 0, on_step=lambda *at: taken.append(at[1]))
    assert taken == [3] * 3 + [2] * 2 + [1]


def test_words_that_change_nothing_are_told(stack, tmp_path):
    def notes(model, **options):
        asked = Text2imgOptions(height=8, width=8, steps=1, **options)
        return restore(None, asked, model, 0).warnings

    assert notes(stack, negative="blur", rescale=0.5, guidance=3) == notes(stack, prompt="a") == ()
    for guidance in (0, 1):
        (note,) = notes(stack, negative="blur", guidance=guidance)
        assert note == f"the negative is for a guidance above 1 alone; it is {guidance}"
    mute = load(str(tiny.checkpoint(tmp_path / "mute", "ldm")), "cpu")
    low = Picture(np.zeros((8, 8, 3), np.uint8) + 99)
    asked = UpscaleOptions(scale=mute.factor, steps=1)
    assert restore(low, asked, mute, 0).warnings == ()
    asked = asked.model_copy(update={"prompt": "a", "negative": "b"})
    (note,) = restore(low, asked, mute, 0).warnings
    assert note == f"prompt, negative are without effect: {mute.name} has no text encoder"
