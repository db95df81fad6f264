"""What the input channels of a UNet mean, according to the configs of UNet and VAE."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from restore.errors import ModelError

KEEP, RESTORE, REPAINT = 0.0, 0.5, 1.0
"""Values of the trust map: the picture is kept, restored, or repainted."""

GREY = 0.5  # what is encoded where nothing is known

Task = Literal["text2img", "img2img", "upscale", "inpaint"]
Part = Literal["x", "conditioning", "trust", "mask", "signed_mask"]


@dataclass(frozen=True)
class Layout:
    """What is concatenated to a UNet's input, and which tasks it was trained for.

    Attributes:
        name: Its name in messages.
        parts: What is concatenated, in this order; x is the noisy latent.
        tasks: The tasks that a UNet of this layout does.
        conditioning: nothing, a latent, or rgb in [-1, 1] at the latent's size.
        hole: What is encoded in place of a hole: mid grey, or a smooth continuation of its
            surroundings, which is a better start.
    """

    name: str
    parts: tuple[Part, ...]
    tasks: tuple[Task, ...]
    conditioning: Literal["nothing", "latent", "rgb"] = "latent"
    hole: Literal["grey", "smooth"] = "grey"

    def unet_input(self, x: Tensor, conditioning: Tensor, trust: Tensor) -> Tensor:
        """Concatenate the parts of the UNet's input.

        Args:
            x: (B, C, h, w): the noisy latent.
            conditioning: (B, K, h, w); see Condition.
            trust: (B, 1, h, w); see Condition.

        Returns:
            (B, in_channels, h, w).
        """
        mask = (trust == REPAINT).to(x)
        parts = {
            "x": x,
            "conditioning": conditioning,
            "trust": trust,
            "mask": mask,
            "signed_mask": 2 * mask - 1,
        }
        return torch.cat([parts[name].to(x) for name in self.parts], 1)


ALL: tuple[Task, ...] = ("text2img", "img2img", "upscale", "inpaint")
TRUST = Layout("trust", ("x", "trust", "conditioning"), ALL, hole="smooth")
BASE = Layout("base", ("x",), ("text2img", "img2img"), "nothing")
INPAINTING = Layout("inpainting", ("x", "mask", "conditioning"), ("text2img", "img2img", "inpaint"))
X4 = Layout("x4 upscaler", ("x", "conditioning"), ("upscale",), "rgb")
LDM_UPSCALE = Layout("latent diffusion upscaler", ("x", "conditioning"), ("upscale",), "rgb")
LDM_INPAINT = Layout(
    "latent diffusion inpainter", ("x", "conditioning", "signed_mask"), ("inpaint",)
)
LAYOUTS = (TRUST, BASE, INPAINTING, X4, LDM_UPSCALE, LDM_INPAINT)


def layout_of(unet: Mapping[str, Any], latent_channels: int, trust: bool = False) -> Layout:
    """Return the layout of a UNet.

    Args:
        unet: Its config.
        latent_channels: Channels of the VAE's latent.
        trust: Whether stack.json says that it is the trust layout. Stable Diffusion's inpainting
            UNet has the same number of channels, but its mask is 0 or 1 only.

    Raises:
        ModelError: If no layout has this number of channels.
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
    """Check that a layout can do a task.

    Raises:
        ModelError: If it cannot; the message lists the layouts that can.
    """
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
