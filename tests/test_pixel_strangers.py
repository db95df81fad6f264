"""Upscalers as strangers share them: each file works, or is refused in one line."""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pixel_nets
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from restore import cli
from restore.checkpoints import pixel

pytestmark = pytest.mark.skipif(not find_spec("spandrel"), reason="the extra pixel")
CPU = torch.device("cpu")


def state(kind: str, seed: int = 0) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in pixel_nets.network(kind, seed).state_dict().items()}


def answer(path: Path) -> torch.Tensor:
    with torch.inference_mode():
        return pixel.load(path, path.name, "digest", CPU, "auto")(rgb(9, 11))


def rgb(height: int, width: int) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def saved(tmp_path):
    """The path of a checkpoint that torch.save wrote."""

    def save(held: object, name: str = "4x-net.pth") -> Path:
        torch.save(held, tmp_path / name)
        return tmp_path / name

    return save


def training(weights: dict[str, torch.Tensor]) -> dict[str, object]:
    """What lies beside the weights in a checkpoint that training goes on from."""
    moments = {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(4)}, 1: {"step": 3}}
    groups = [{"lr": 1e-4, "betas": (0.9, 0.99), "params": [0, 1]}]
    discriminator = {"conv0.weight": torch.zeros(4, 3, 3, 3), "conv0.bias": torch.zeros(4)}
    return {
        "epoch": 7,
        "iter": 1000,
        "optimizer": {"state": moments, "param_groups": groups},
        "discriminator": discriminator,
        "schedulers": [],
        **weights,
    }


WRAPPED = {
    "params_ema": lambda old, new: {"params": old, "params_ema": new},
    "state_dict": lambda old, new: {"state_dict": new, "meta": {"epoch": 3}},
    "training": lambda old, new: training({"state_dict": new}),
    "a name of its own": lambda old, new: training({"net_g": old, "net_g_ema": new}),
    "deep": lambda old, new: training({"models": {"generator": {"module.net": 0}, "ema": new}}),
    "deep and parallel": lambda old, new: training(
        {"g": {f"module.{key}": value for key, value in new.items()}}
    ),
    "parallel": lambda old, new: {"params": {f"module.{key}": v for key, v in new.items()}},
}


@pytest.mark.parametrize("how", WRAPPED)
def test_the_network_is_found_in_a_checkpoint(saved, how):
    """With a mean of weights beside them, the mean is taken."""
    old, new = state("SRVGGNetCompact", 1), state("SRVGGNetCompact", 2)
    plain = saved({"params": new}, "plain.pth")
    assert torch.equal(answer(saved(WRAPPED[how](old, new))), answer(plain))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_precision_compute_in_fp32(saved, tmp_path, suffix, dtype):
    short = {key: value.to(dtype) for key, value in state("SPAN").items()}
    path = tmp_path / f"short{suffix}"
    save_file(short, path) if suffix == ".safetensors" else saved({"params": short}, path.name)
    long = saved({key: value.float() for key, value in short.items()}, "long.pth")
    assert torch.equal(answer(path), answer(long))


def esrgan(**how) -> torch.nn.Module:
    pixel.import_spandrel()
    from spandrel.architectures import ESRGAN

    torch.manual_seed(0)
    return ESRGAN.ESRGAN(num_filters=4, num_blocks=1, **how)


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_scale_is_the_networks_whatever_the_file_is_called(saved, channels, scale):
    net = esrgan(in_nc=channels, out_nc=channels, scale=scale)
    path = saved({"params_ema": net.state_dict()}, "8x_denoise_x3.pth")
    model = pixel.load(path, path.name, "digest", CPU, "auto")
    assert model.scale == scale
    assert model.about["purpose"] == ("restores" if scale == 1 else "enlarges")
    with torch.inference_mode():
        made = model(rgb(9, 11))
        assert made.shape == (1, 3, 9 * scale, 11 * scale)
        if channels == 1:  # a grey picture is grey
            assert model(rgb(9, 11)[:, :1].expand(-1, 3, -1, -1)).std(1).max() < 1e-6


@pytest.mark.parametrize("kind", ["SwinIR", "HAT", "DAT", "OmniSR", "DRUNet", "RRDBNet"])
def test_a_picture_smaller_than_a_network_asks_for_is_padded(tmp_path, kind):
    path = pixel_nets.save(tmp_path, kind)
    model = pixel.load(path, kind, "digest", CPU, "auto")
    for size in ((1, 1), (3, 17)):
        with torch.inference_mode():
            made = model(rgb(*size))
        assert made.shape[-2:] == tuple(side * model.scale for side in size)


@pytest.fixture
def told(tmp_path, capsys):
    """The one line that refuses a model, after the command's name."""

    def told(path: Path) -> str:
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
        words = ["upscale", tmp_path / "a.png", "-o", tmp_path / "out", "--device", "cpu"]
        code = cli.main([str(word) for word in (*words, "--model", path)])
        lines = capsys.readouterr().err.strip().splitlines()
        assert code in (2, 3) and len(lines) == 1 and not (tmp_path / "out").exists(), lines
        assert path.name in lines[0]
        return lines[0]

    return told


def test_what_is_no_network_is_refused_in_one_line(saved, told, tmp_path):
    weights = state("SRVGGNetCompact")
    assert "of no upscaler" in told(saved(training({})))
    assert "of no upscaler" in told(saved({"params": {}}))
    assert "no tensors by name" in told(saved([1, 2]))
    assert "more than tensors" in told(saved(torch.nn.Conv2d(3, 3, 1)))
    assert "more than tensors" in told(saved({"params": weights, "opt": Path("x")}))
    short = dict(list(weights.items())[:5])
    assert told(saved({"params": short}))


def test_a_file_of_another_kind_is_named(saved, told, tmp_path):
    weights = {key: value.contiguous() for key, value in state("SPAN").items()}
    save_file(weights, tmp_path / "renamed.pth")
    assert "is a .safetensors file; rename it" in told(tmp_path / "renamed.pth")
    saved({"params": weights}, "renamed.safetensors")
    assert "call it .pth" in told(tmp_path / "renamed.safetensors")
    for suffix in (".onnx", ".param", ".zip", ".pkl"):
        (tmp_path / f"net{suffix}").write_bytes(b"anything")
        assert ".pth or .safetensors" in told(tmp_path / f"net{suffix}")


def test_a_report_says_the_scale_that_was_made(saved, tmp_path, capsys):
    path = saved({"params": esrgan(scale=2).state_dict()}, "4x-liar.pth")
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    words = ["upscale", tmp_path / "a.png", "-o", tmp_path / "out", "--model", path]
    assert cli.main([str(word) for word in (*words, "--device", "cpu")]) == 0
    row = json.loads((tmp_path / "out" / "report.jsonl").read_text().splitlines()[0])
    assert row["size_out"] == [16, 16]
    capsys.readouterr()
