"""Enlarging trained networks so that their output stays the same at first."""

import re
from dataclasses import replace

import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from torch import Tensor, nn
from torch.nn import functional as F

from restore.diffusion.contexts.text import TextContext
from restore.diffusion.layouts import BASE, INPAINTING, TRUST
from restore.diffusion.restorer import Restorer
from restore.diffusion.stack import Stack
from restore.errors import ModelError

KINDS = ("weight", "bias")  # of a convolution
NAME = re.compile(rf"body\.\d{{1,4}}\.({'|'.join(KINDS)})")  # basicsr's, of an SRVGGNetCompact


def widen_stack(stack: Stack) -> Stack:
    """The stack in the trust layout; its UNet is changed in place.

    A base UNet gets input channels for trust and conditioning with zero weights, so its predictions
    stay the same at first. An inpainting UNet has these channels already; its mask is trust with
    the values 0 and 1.

    Args:
        stack: A stack of Stable Diffusion or of ours.

    Raises:
        ModelError: If it has another layout, or no text context.
    """
    if stack.layout not in (TRUST, BASE, INPAINTING) or not isinstance(stack.context, TextContext):
        raise ModelError(
            f"{stack.name} has the {stack.layout.name} layout; what can be tuned has trust, base "
            "or inpainting, and one text encoder: SD 1.x, 2.x, their inpainters, and our own"
        )
    if stack.layout == BASE:
        widen(stack.unet, stack.channels + 1)
    return replace(stack, layout=TRUST)


@torch.no_grad()
def widen(unet: UNet2DConditionModel | UNet2DModel, more: int) -> None:
    """Add input channels to the first convolution, after its own, with zero weights."""
    conv = unet.conv_in
    wider = nn.Conv2d(
        conv.in_channels + more, conv.out_channels, conv.kernel_size, conv.stride, conv.padding
    ).to(conv.weight)
    weight = F.pad(conv.weight, (0, 0, 0, 0, 0, more))
    wider.load_state_dict(conv.state_dict() | {"weight": weight})
    unet.conv_in = wider
    unet.register_to_config(in_channels=wider.in_channels)


@torch.no_grad()
def grow(small: dict[str, Tensor], network: Restorer) -> None:
    """Copy the weights of a narrower or shallower restorer, which keeps its outputs (Chen et al.
    2016, Net2Net).

    No old channel reads a new one at first, but new ones learn from the first step on: new channels
    keep their random weights, new layers pass their input on.

    Args:
        small: Weights of the smaller one, by basicsr's names.
        network: What they are copied into.

    Raises:
        KeyError: If they are of another network, or of a larger one.
        RuntimeError: If a tensor has another shape.
    """
    if not small or not all(NAME.fullmatch(name) for name in small):
        raise KeyError("it holds another network; a restorer is an SRVGGNetCompact by its keys")
    numbers = sorted({int(name.split(".")[1]) for name in small})
    depth, new_depth = numbers[-1] // 2, len(network.body) // 2  # convolutions before the last
    if (
        missing := {f"body.{2 * index}.{kind}" for index in range(depth + 1) for kind in KINDS}
        - small.keys()
    ):
        raise KeyError(f"it has no {min(missing)}")
    width = len(small["body.0.weight"])
    if depth > new_depth or width > network.config["channels"]:
        raise KeyError(f"{width} channels and {depth - 1} layers do not fit into it")
    for index in range(new_depth):
        conv, slope = network.body[2 * index], network.body[2 * index + 1]
        assert isinstance(conv, nn.Conv2d) and isinstance(slope, nn.PReLU)
        assert conv.bias is not None
        if index < depth:
            kernel = small[f"body.{2 * index}.weight"]
            conv.weight[:width, : kernel.shape[1]] = kernel
            conv.weight[:width, kernel.shape[1] :] = 0
            conv.bias[:width] = small[f"body.{2 * index}.bias"]
            slope.weight[:width] = small[f"body.{2 * index + 1}.weight"]
        else:
            nn.init.dirac_(conv.weight)
            conv.bias.zero_()
            slope.weight.fill_(1)
    output = network.body[-1]
    assert isinstance(output, nn.Conv2d) and output.bias is not None
    output.weight[:, :width] = small[f"body.{2 * depth}.weight"]
    output.weight[:, width:] = 0
    output.bias.copy_(small[f"body.{2 * depth}.bias"])
