"""What every task shares: from a condition to a clean latent, by the options that all have."""

from torch import Tensor

from restore.noise import canvas_noise, generator
from restore.options import WalkOptions
from restore.predict import Condition, guided
from restore.sample import OnStep, ignore, sample, start
from restore.stack import Stack
from restore.windows import windowed


def walk(
    stack: Stack,
    condition: Condition,
    options: WalkOptions,
    seed: int,
    on_step: OnStep = ignore,
    clean: Tensor | None = None,
    strength: float = 1,
) -> Tensor:
    """The scaled latent (1, C, h, w) that a walk over the condition's canvas ends at.

    clean     a scaled latent to start from, noised by `strength`; None starts from pure noise.
    Raises NonFiniteError if the walk leaves the finite numbers.
    """
    wanted, unwanted = (
        stack.predict(condition, prompt, options.clip_skip)
        for prompt in (options.prompt, options.negative)
    )
    predict = guided(wanted, unwanted, options.guidance, options.rescale)
    scheduler = stack.scheduler(options.sampler, options.steps, options.sampler_options)
    shape = (1, stack.channels, *condition.trust.shape[-2:])
    noise = canvas_noise(shape, seed).to(stack.device)
    begin = None if clean is None else stack.to_walk(clean, condition.known)
    x = sample(
        windowed(predict, stack.windows, options.windows),
        start(scheduler, noise, begin, strength),
        scheduler,
        on_step,
        generator("cpu", seed, "steps"),
        options.eta,
    )
    return stack.from_walk(x, condition.known)
