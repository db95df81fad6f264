"""What a UNet's input channels mean, told from the configs of UNet and VAE alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from restore.errors import ModelError

KEEP, RESTORE, REPAINT = 0.0, 0.5, 1.0
"""Values of the trust map: what the picture shows is kept, restored, or made anew."""

GREY = 0.5  # what is unknown looks like this before it is encoded

Task = Literal["text2img", "img2img", "upscale", "inpaint"]
Part = Literal["x", "known", "trust", "mask", "signed_mask"]


@dataclass(frozen=True)
class Layout:
    """How a UNet is told about the picture.

    parts    what is concatenated, in this order; x is the walk's latent.
    tasks    what the layout does natively.
    known    whether `known` is a latent, or the picture itself at the latent's size in [-1, 1].
    hole     what a hole shows before it is encoded: mid grey, or a smooth continuation of what is
             round it, which is a better place to start from.
    """

    name: str
    parts: tuple[Part, ...]
    tasks: tuple[Task, ...]
    known: Literal["nothing", "latent", "rgb"] = "latent"
    hole: Literal["grey", "smooth"] = "grey"

    def unet_input(self, x: Tensor, known: Tensor, trust: Tensor) -> Tensor:
        """x (B, C, h, w), known (B, K, h, w) and trust (B, 1, h, w) -> (B, channels, h, w)"""
        mask = (trust == REPAINT).to(x)
        parts = {"x": x, "known": known, "trust": trust, "mask": mask, "signed_mask": 2 * mask - 1}
        return torch.cat([parts[name].to(x) for name in self.parts], 1)


ALL: tuple[Task, ...] = ("text2img", "img2img", "upscale", "inpaint")
TRUST = Layout("trust", ("x", "trust", "known"), ALL, hole="smooth")
BASE = Layout("base", ("x",), ("text2img", "img2img"), "nothing")
INPAINTING = Layout("inpainting", ("x", "mask", "known"), ("text2img", "img2img", "inpaint"))
X4 = Layout("x4 upscaler", ("x", "known"), ("upscale",), "rgb")
LDM_UPSCALE = Layout("latent diffusion upscaler", ("x", "known"), ("upscale",), "rgb")
LDM_INPAINT = Layout("latent diffusion inpainter", ("x", "known", "signed_mask"), ("inpaint",))
LAYOUTS = (TRUST, BASE, INPAINTING, X4, LDM_UPSCALE, LDM_INPAINT)


def layout_of(unet: Mapping[str, Any], latent_channels: int, trust: bool = False) -> Layout:
    """The layout of a UNet with this config.

    trust  whether the folder's stack.json claims the trust layout; the same channel count without
           the claim is Stable Diffusion's inpainting UNet, whose mask is 0 or 1 only.
    Raises ModelError if it is none that is known.
    """
    channels, latents = unet["in_channels"], latent_channels
    has_text = unet.get("cross_attention_dim") is not None
    if trust and channels == 2 * latents + 1:
        return TRUST
    if channels == latents:
        return BASE
    if channels == 2 * latents + 1:
        return INPAINTING if has_text else LDM_INPAINT
    if channels == latents + 3:
        return X4 if has_text else LDM_UPSCALE
    raise ModelError(
        f"a UNet of {channels} input channels over {latents} latent channels has no known layout: "
        f"base has {latents}, inpainting and trust {2 * latents + 1}, upscalers {latents + 3}"
    )


def require(layout: Layout, task: Task, name: str = "this model") -> None:
    """Raises ModelError, with the layouts that can, if the layout cannot do the task."""
    if task in layout.tasks:
        return
    able = ", ".join(other.name for other in LAYOUTS if task in other.tasks)
    mend = ""
    if task == "upscale" and layout in (BASE, INPAINTING):
        mend = "; or give it a tile ControlNet (--controlnet)"
    raise ModelError(
        f"{name} has the {layout.name} layout: {', '.join(layout.tasks)}, but not {task}; "
        f"choose a model of one of these layouts: {able}{mend}"
    )
