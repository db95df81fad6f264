"""How many steps a sampler can take over a schedule: found by walking it without a network.

Each kind of diffusers' schedulers has bounds of its own, told nowhere: some end in an IndexError,
some leave the finite numbers, some refuse. A walk over one number shows which, before any weight is
read.
"""

import inspect
import warnings
from collections.abc import Callable
from functools import cache

import torch
from diffusers import SchedulerMixin

TRIED = 1000  # the most steps that the options allow


def trouble(scheduler: SchedulerMixin) -> str:
    """Why a walk over the timesteps that are set goes wrong; nothing if it does not."""
    x = torch.full((1, 1, 1, 1), 0.5) * scheduler.init_noise_sigma
    rng = torch.Generator("cpu").manual_seed(0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for t in scheduler.timesteps:
                scaled = scheduler.scale_model_input(x, t)
                more = {"generator": rng} if _draws(type(scheduler)) else {}
                x = scheduler.step(0.1 * scaled, t, x, **more).prev_sample
                if not torch.isfinite(x).all():
                    return "it leaves the finite numbers"
    except Exception as error:  # of a library, which has no class of its own for this
        return f"{type(error).__name__}: {error}"
    return ""


@cache
def _draws(kind: type) -> bool:
    return "generator" in inspect.signature(kind.step).parameters


def most(make: Callable[[int], SchedulerMixin], asked: int) -> int:
    """The most steps below `asked` that can be walked; 0 if none can.

    make  a scheduler whose timesteps are set to so many; it may raise.
    """

    def can(steps: int) -> bool:
        try:
            return not trouble(make(steps))
        except Exception:  # as above
            return False

    low, high = 0, min(asked, TRIED)
    if not can(1) and not can(2):
        return 0
    low = 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if can(middle) else (low, middle)
    return low
