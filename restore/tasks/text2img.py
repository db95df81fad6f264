"""Make a picture from a prompt: trust is 1 everywhere."""

import numpy as np
import torch

from restore.diffusion.canvas import encode_nothing, render, trust_map
from restore.diffusion.conditioning import Condition
from restore.diffusion.layouts import REPAINT
from restore.diffusion.sampling import run_sampling
from restore.diffusion.stack import Stack
from restore.diffusion.watch import OnStep, ignore
from restore.images.picture import Picture
from restore.options import Text2imgOptions


@torch.inference_mode()
def text2img(
    options: Text2imgOptions, stack: Stack, seed: int, on_step: OnStep = ignore
) -> Picture:
    """Make a picture of exactly height x width; the rest of its canvas is cut off.

    Args:
        options: Size, prompt, steps and the rest.
        stack: The model.
        seed: Seed of the noise.
        on_step: Called after each sampling step.

    Raises:
        ModelError: If the layout cannot do it.
        NonFiniteError: If sampling produces NaN or infinity.
    """
    stack.require("text2img")
    size = options.height, options.width
    condition = Condition(
        encode_nothing(size, stack), trust_map(None, size, stack, REPAINT), hint=stack.hint(size)
    )
    latent = run_sampling(stack, condition, options, seed, on_step, size=size)
    return render(latent, size, Picture(np.empty((1, 1, 3), np.uint8)), stack)
