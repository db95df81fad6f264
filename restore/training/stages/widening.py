"""Stable Diffusion's UNets in the trust layout: told of the picture, and at first no wiser."""

from dataclasses import replace

import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from torch import nn
from torch.nn import functional as F

from restore.diffusion.contexts.text import TextContext
from restore.diffusion.layouts import BASE, INPAINTING, TRUST
from restore.diffusion.stack import Stack
from restore.errors import ModelError


def widened(stack: Stack) -> Stack:
    """The stack with the trust layout; its UNet is changed in place.

    A base UNet gets input channels for trust and known whose weights are zero, so it answers as
    before whatever they hold. An inpainter has the channels already, and its mask is trust at the
    values that it knew, 0 and 1.

    Raises ModelError if the layout is neither, or if the stack reads no text.
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
