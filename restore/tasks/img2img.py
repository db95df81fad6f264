"""Make a picture from another one and words: nothing is known, the walk starts part of the way."""

from collections.abc import Callable

import torch

from restore.diffusion.canvas import nothing, render, shown, trust_map
from restore.diffusion.conditioning import Condition
from restore.diffusion.layouts import REPAINT
from restore.diffusion.noise import seed_of
from restore.diffusion.sampling import Start, walk
from restore.diffusion.stack import Stack
from restore.diffusion.watch import OnStep, ignore
from restore.images.picture import Picture
from restore.options import Img2imgOptions
from restore.tasks.colour import match

OnFrame = Callable[[int, Picture], None]


@torch.inference_mode()
def img2img(
    picture: Picture,
    options: Img2imgOptions,
    stack: Stack,
    seed: int,
    on_step: OnStep = ignore,
    on_frame: OnFrame = lambda lap, frame: None,
) -> Picture:
    """The picture made anew at its own size, fed back `loopback` times; the last frame.

    on_frame  (lap from 1, frame) of every lap; each has noise of its own.
    Raises ModelError if the layout cannot, NonFiniteError if the walk leaves the finite numbers.
    """
    stack.require("img2img")
    known = nothing(picture.size, stack)
    hint = stack.hint(picture.size, picture)
    condition = Condition(known, trust_map(None, picture.size, stack, REPAINT), hint=hint)
    frame = picture
    for lap in range(options.loopback):
        begin = Start(shown(frame, frame.size, stack), options.strength)
        own = seed if lap == 0 else seed_of(seed, lap)
        latent = walk(stack, condition, options, own, on_step, begin)
        frame = match(render(latent, frame.size, frame, stack), picture, options.colour)
        on_frame(lap + 1, frame)
    return frame
