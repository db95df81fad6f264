"""Make a picture from another one and words: nothing is known, the walk starts part of the way."""

from collections.abc import Iterator

import torch

from restore.canvas import nothing, render, shown, trust_map
from restore.images import Picture
from restore.layouts import REPAINT
from restore.noise import seed_of
from restore.options import Img2imgOptions
from restore.predict import Condition
from restore.sample import OnStep, ignore
from restore.stack import Stack
from restore.walk import Start, walk


@torch.inference_mode()
def img2img(
    picture: Picture, options: Img2imgOptions, stack: Stack, seed: int, on_step: OnStep = ignore
) -> Picture:
    """The picture made anew at its own size, fed back `loopback` times; the last frame.

    Raises ModelError if the layout cannot, NonFiniteError if the walk leaves the finite numbers.
    """
    *_, last = frames(picture, options, stack, seed, on_step)
    return last


@torch.inference_mode()
def frames(
    picture: Picture, options: Img2imgOptions, stack: Stack, seed: int, on_step: OnStep = ignore
) -> Iterator[Picture]:
    """Every result on the way, each made from the one before with noise of its own."""
    stack.require("img2img")
    known = nothing(picture.size, stack)
    condition = Condition(known, trust_map(None, picture.size, stack, REPAINT))
    for lap in range(options.loopback):
        clean = shown(picture, picture.size, stack)
        own = seed if lap == 0 else seed_of(seed, lap)
        begin = Start(clean, options.strength)
        latent = walk(stack, condition, options, own, on_step, begin)
        picture = render(latent, picture.size, picture, stack)
        yield picture
