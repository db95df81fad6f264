import pytest
import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from transformers import CLIPTextModel

from restore.errors import ModelError
from restore.layouts import TrustLayout, layout_of
from restore.predict import guided
from restore.stack import load, receptive_field


def saved(stack, tmp_path):
    stack.save(tmp_path / "model", card="# tiny\n", dtype=torch.float32)
    return tmp_path / "model"


def test_a_saved_stack_loads_with_every_tensor_equal(stack, tmp_path):
    again = load(str(saved(stack, tmp_path)), device="cpu")
    for name in ("vae", "unet", "text_encoder"):
        old, new = getattr(stack, name).state_dict(), getattr(again, name).state_dict()
        assert old.keys() == new.keys()
        assert all(torch.equal(old[key], new[key]) for key in old)
    assert again.windows == stack.windows
    assert torch.equal(again.embed("some noise"), stack.embed("some noise"))


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
    assert layout_of({"in_channels": 17}, 8, trust=True) == TrustLayout(8)
    with pytest.raises(ModelError, match="9 input channels"):
        layout_of({"in_channels": 9}, 4, trust=False)


@torch.inference_mode()
def test_encoding_and_decoding_by_blocks_equals_doing_it_whole(stack, monkeypatch):
    monkeypatch.setattr("restore.stack.BLOCK", 16)  # latents, so that the canvas takes several
    rgb = torch.rand(1, 3, 240, 176)
    whole = stack.encode(rgb)
    blocked = stack.encode_canvas(lambda first, last: rgb[..., first:last, :], (240, 176))
    torch.testing.assert_close(blocked, whole, rtol=0, atol=1e-5)
    made, out = stack.decode(whole), torch.full((1, 3, 237, 170), torch.nan)

    def write(rows, columns, piece):
        out[..., rows, columns] = piece

    stack.decode_canvas(whole, write, (237, 170))
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
