"""From the latents of a batch to the pictures that its losses and previews are about."""

import torch
from torch import Tensor

from restore.diffusion import vae
from restore.diffusion.stack import Stack
from restore.training.data.loading import to_rgb


def decode_result(
    stack: Stack, latents: Tensor, batch: dict[str, Tensor], rows: Tensor | slice = slice(None)
) -> Tensor:
    """Decode as `upscale` does: after a first stage, what sampling changed is added to its result.

    Args:
        stack: Decodes the latents.
        latents: Scaled latents (B, C, h, w) of these rows.
        batch: conditioning and, where the stack has a first stage, shown.
        rows: The rows of the batch.

    Returns:
        rgb (B, 3, H, W), not clamped.
    """
    made = vae.decode_freely(stack.vae, latents).float()
    if "shown" not in batch:
        return made
    with torch.no_grad():
        before = vae.decode(stack.vae, batch["conditioning"][rows])
    return made + (to_rgb(batch["shown"][rows]) - before)
