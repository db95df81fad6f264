"""restore(): the task that the options name, for one picture."""

from restore.images import Picture
from restore.options import UpscaleOptions
from restore.sample import OnStep, ignore
from restore.stack import Stack
from restore.tasks.upscale import upscale

TASKS = {UpscaleOptions: upscale}


def restore(
    picture: Picture, options: UpscaleOptions, stack: Stack, seed: int, on_step: OnStep = ignore
) -> Picture:
    """The picture as its task makes it; the command, the page and every worker call this."""
    return TASKS[type(options)](picture, options, stack, seed, on_step)
