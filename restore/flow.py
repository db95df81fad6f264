"""restore(): the task that the options name, for one picture."""

from restore.images import Picture
from restore.options import Img2imgOptions, Text2imgOptions, UpscaleOptions
from restore.sample import OnStep, ignore
from restore.stack import Stack
from restore.tasks.img2img import img2img
from restore.tasks.text2img import text2img
from restore.tasks.upscale import upscale

TASKS = {UpscaleOptions: upscale, Img2imgOptions: img2img}
TaskOptions = UpscaleOptions | Img2imgOptions | Text2imgOptions


def restore(
    picture: Picture | None,
    options: TaskOptions,
    stack: Stack,
    seed: int,
    on_step: OnStep = ignore,
) -> Picture:
    """The picture as its task makes it; the command, the page and every worker call this.

    picture  None for text to image alone.
    """
    if isinstance(options, Text2imgOptions):
        return text2img(options, stack, seed, on_step)
    assert picture is not None
    return TASKS[type(options)](picture, options, stack, seed, on_step)
