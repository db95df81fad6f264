"""Where a stack computes. An accelerator is stood in for by parts that note where they are."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import nn

from restore.checkpoints import accelerators, devices, load, save
from restore.errors import ConfigError, ModelError
from restore.options import Img2imgOptions, Text2imgOptions, UpscaleOptions
from restore.tasks.run import restore

CPU = torch.device("cpu")


def moves(stack):
    """Which part goes where, as it happens."""
    seen = []
    names = {id(stack.vae): "vae", id(stack.unet): "unet", id(stack.context.module): "text"}
    for part in stack.parts:

        def to(device, part=part):
            seen.append(("on" if device is CPU else "off", names[id(part)]))
            return part

        part.to = to
    return seen


def test_parts_take_turns_on_the_device(stack, picture):
    turning = deepcopy(stack)
    seen = moves(turning)
    devices.Turns(turning, CPU)
    restore(picture(20, 24), Img2imgOptions(steps=2, prompt="a"), turning, seed=0)
    here = []
    for way, part in seen:
        if way == "on":
            assert here == [], "the one before went back first"
            here.append(part)
        else:
            here.remove(part)
    assert [part for way, part in seen if way == "on"] == ["vae", "text", "unet", "vae"]


@pytest.mark.parametrize(
    "options",
    [UpscaleOptions(scale=2), Img2imgOptions(steps=2), Text2imgOptions(steps=2, width=9, height=9)],
    ids=lambda options: options.task,
)
def test_taking_turns_changes_no_byte(stack, picture, options):
    turning = deepcopy(stack)
    devices.Turns(turning, CPU)
    assert turning.device == CPU
    one, other = (restore(picture(20, 24), options, which, 1) for which in (stack, turning))
    assert np.array_equal(one.pixels, other.pixels)


def test_what_a_part_is_called_with_comes_along():
    place = torch.device("meta")
    part = nn.Linear(2, 2)
    stack = type(
        "Stack", (), {"parts": [part], "vae": None, "offload_device": None, "control": None}
    )()
    devices.Turns(stack, place)
    assert part(torch.zeros(1, 2)).device == place
    assert part.weight.device == place
    assert stack.offload_device == place


def test_a_device_that_is_not_there_is_told():
    with pytest.raises(ModelError, match=r"no such device.*there are cpu"):
        devices.find("tpu")
    assert devices.find("cpu") == CPU
    with pytest.raises(ConfigError, match="not both"):
        devices.load("nano", compiled=True, offload=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="speaks of machines without one")
def test_cuda_where_there_is_none_is_refused_before_loading(monkeypatch):
    monkeypatch.delattr(load, "load")
    with pytest.raises(ModelError, match="cuda: no such device"):
        devices.load("nano", "cuda")


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_the_vae_stays_in_fp32(stack, tmp_path, dtype):
    save.save(stack, tmp_path / "model", card="# tiny\n", dtype=torch.float32)
    made = devices.load(str(tmp_path / "model"), "cpu", dtype, offload=True)
    assert made.unet.dtype == accelerators.DTYPES[dtype]
    assert made.vae.dtype == torch.float32
    assert made.offload_device == CPU


def compiling(stack, monkeypatch, backend):
    """A copy whose UNet compiles with another backend, which takes no C++ compiler."""
    copy = deepcopy(stack)
    monkeypatch.setattr(copy.unet, "compile", lambda: nn.Module.compile(copy.unet, backend=backend))
    return copy


@pytest.mark.slow
def test_a_compiled_unet_gives_the_same_picture(stack, picture, monkeypatch):
    compiled = compiling(stack, monkeypatch, "eager")
    devices.compile_unet(compiled)
    options = UpscaleOptions(scale=2)
    one, other = (restore(picture(20, 24), options, which, 1) for which in (stack, compiled))
    assert np.abs(one.pixels.astype(int) - other.pixels).max() <= 1


def test_what_cannot_be_compiled_says_so_at_once(stack, monkeypatch):
    def refuse(graph, inputs):
        raise ValueError("no compiler here")

    with pytest.raises(ModelError, match=r"cannot be compiled here.*leave --compile out"):
        devices.compile_unet(compiling(stack, monkeypatch, refuse))
