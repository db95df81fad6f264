"""Make a picture from words: nothing is known, trust is 1 everywhere."""

import numpy as np
import torch

from restore.canvas import nothing, render, trust_map
from restore.images import Picture
from restore.layouts import REPAINT
from restore.options import Text2imgOptions
from restore.predict import Condition
from restore.sample import OnStep, ignore
from restore.stack import Stack
from restore.walk import walk


@torch.inference_mode()
def text2img(
    options: Text2imgOptions, stack: Stack, seed: int, on_step: OnStep = ignore
) -> Picture:
    """A picture of exactly height x width; what its canvas has beyond that is cut off.

    Raises ModelError if the layout cannot, NonFiniteError if the walk leaves the finite numbers.
    """
    stack.require("text2img")
    size = options.height, options.width
    condition = Condition(nothing(size, stack), trust_map(None, size, stack, REPAINT))
    latent = walk(stack, condition, options, seed, on_step)
    return render(latent, size, Picture(np.empty((1, 1, 3), np.uint8)), stack)
