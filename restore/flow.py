"""restore(): the task that the options name, for one picture."""

import numpy as np

from restore.errors import UsageError
from restore.images import Picture
from restore.options import Img2imgOptions, InpaintOptions, Text2imgOptions, UpscaleOptions
from restore.sample import OnStep, ignore
from restore.stack import Stack
from restore.tasks.img2img import img2img
from restore.tasks.inpaint import inpaint
from restore.tasks.text2img import text2img
from restore.tasks.upscale import upscale

TaskOptions = UpscaleOptions | Img2imgOptions | InpaintOptions | Text2imgOptions


def restore(
    picture: Picture | None,
    options: TaskOptions,
    stack: Stack,
    seed: int,
    on_step: OnStep = ignore,
    mask: np.ndarray | None = None,
) -> Picture:
    """The picture as its task makes it; the command, the page and every worker call this.

    picture  None for text to image alone.
    mask     uint8 (H, W): the hole of inpaint, the damage of upscale.
    """
    if isinstance(options, Text2imgOptions):
        return text2img(options, stack, seed, on_step)
    if picture is None:
        raise UsageError(f"{options.task} needs a picture")
    if isinstance(options, Img2imgOptions):
        return img2img(picture, options, stack, seed, on_step)
    if mask is not None and mask.shape != picture.size:
        raise UsageError(f"the mask is {mask.shape}, the picture {picture.size} (height, width)")
    if isinstance(options, UpscaleOptions):
        damage = None if mask is None else mask >= 128
        return upscale(picture, options, stack, seed, on_step, damage)
    if mask is None:
        raise UsageError("inpaint needs a mask: white is repainted")
    return inpaint(picture, mask, options, stack, seed, on_step)
