"""Networks with more room than they were trained with, that answer as before at first."""

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


def widen_stack(stack: Stack) -> Stack:
    """The stack with the trust layout; its UNet is changed in place.

    A base UNet gets input channels for trust and known whose weights are zero, so it answers as
    before whatever they hold. An inpainter has the channels already, and its mask is trust at the
    values that it knew, 0 and 1.

    Raises:
        ModelError: If the layout is neither, or if the stack reads no text.
    """
    if stack.layout not in (TRUST, BASE, INPAINTING) or not isinstance(stack.context, TextContext):
        raise ModelError(
            f"{stack.name} has the {stack.layout.name} layout; what can be tuned has trust, base "
            "or inpainting, and reads text: SD 1.x, 2.x, their inpainters, and our own"
        )
    if stack.layout == BASE:
        widen(stack.unet, stack.channels + 1)
    return replace(stack, layout=TRUST)


@torch.no_grad()
def widen(unet: UNet2DConditionModel | UNet2DModel, more: int) -> None:
    """Let the first convolution read so many more channels, after its own; they weigh nothing."""
    old = unet.conv_in
    new = nn.Conv2d(
        old.in_channels + more, old.out_channels, old.kernel_size, old.stride, old.padding
    ).to(old.weight)
    weight = F.pad(old.weight, (0, 0, 0, 0, 0, more))
    new.load_state_dict(old.state_dict() | {"weight": weight})
    unet.conv_in = new
    unet.register_to_config(in_channels=new.in_channels)


@torch.no_grad()
def grow(small: dict[str, Tensor], network: Restorer) -> None:
    """Give a restorer the answers of a narrower or shallower one (Chen et al. 2016, Net2Net).

    What is new is read by nothing old at first, but learns from the first step on: new channels are
    drawn at random, new layers pass on what they get.

    Args:
        small: Its weights, by basicsr's names. Raises KeyError if they are no such network's, or of
            a larger one.
    """
    numbers = sorted({int(name.split(".")[1]) for name in small})
    old, new = numbers[-1] // 2, len(network.body) // 2  # convolutions before the last
    width = len(small["body.0.weight"])
    if old > new or width > network.config["channels"]:
        raise KeyError(f"{width} channels and {old - 1} layers do not fit into it")
    for at in range(new):
        conv, slope = network.body[2 * at], network.body[2 * at + 1]
        if at < old:
            kernel = small[f"body.{2 * at}.weight"]
            conv.weight[:width, : kernel.shape[1]] = kernel
            conv.weight[:width, kernel.shape[1] :] = 0
            conv.bias[:width] = small[f"body.{2 * at}.bias"]
            slope.weight[:width] = small[f"body.{2 * at + 1}.weight"]
        else:
            nn.init.dirac_(conv.weight)
            conv.bias.zero_()
            slope.weight.fill_(1)
    last = small[f"body.{2 * old}.weight"]
    network.body[-1].weight[:, :width] = last
    network.body[-1].weight[:, width:] = 0
    network.body[-1].bias.copy_(small[f"body.{2 * old}.bias"])
