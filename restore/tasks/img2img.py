"""Make a picture from another one and a prompt: sampling starts from its noised latent."""

from collections.abc import Callable

import torch

from restore.diffusion.canvas import encode_nothing, encode_picture, render, trust_map
from restore.diffusion.conditioning import Condition
from restore.diffusion.layouts import REPAINT
from restore.diffusion.noise import seed_of
from restore.diffusion.sampling import Start, run_sampling
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
    """Make a picture again at its own size, and repeat this `loopback` times.

    Args:
        picture: The picture.
        options: Prompt, strength, loopback and so on.
        stack: The model.
        seed: Of the noise; each lap has its own noise.
        on_step: Called after each sampling step.
        on_frame: Called with (lap from 1, frame) after each lap.

    Returns:
        The last frame.

    Raises:
        ModelError: If the layout cannot do it.
        NonFiniteError: If sampling produces NaN or infinity.
    """
    stack.require("img2img")
    conditioning = encode_nothing(picture.size, stack)
    hint = stack.hint(picture.size, picture)
    condition = Condition(conditioning, trust_map(None, picture.size, stack, REPAINT), hint=hint)
    frame = picture
    for lap in range(options.loopback):
        begin = Start(encode_picture(frame, frame.size, stack), options.strength)
        own = seed if lap == 0 else seed_of(seed, lap)
        latent = run_sampling(stack, condition, options, own, on_step, begin)
        frame = match(render(latent, frame.size, frame, stack), picture, options.colour)
        on_frame(lap + 1, frame)
    return frame
