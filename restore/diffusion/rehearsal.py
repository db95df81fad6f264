"""How many steps a sampler can take over a schedule: tried without a network.

Each diffusers scheduler has limits that are not documented: some raise an IndexError, some produce
NaN, some refuse. A trial with a single number finds them before any weights are read.
"""

import inspect
import warnings
from collections.abc import Callable
from functools import cache

import torch
from diffusers import SchedulerMixin

TRIED = 1000  # the most steps that the options allow


def find_failure(scheduler: SchedulerMixin) -> str:
    """Return why sampling over the scheduler's timesteps fails; empty if it does not."""
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
    except (
        Exception
    ) as error:  # a scheduler raises anything: ValueError, IndexError, RuntimeError ...
        return f"{type(error).__name__}: {error}"
    return ""


@cache
def _draws(kind: type) -> bool:
    return "generator" in inspect.signature(kind.step).parameters


def most_steps(make: Callable[[int], SchedulerMixin], wanted: int) -> int:
    """Return the most steps below `wanted` that work; 0 if none do.

    Args:
        make: Makes a scheduler with that many timesteps; it may raise.
        wanted: The number of steps that failed.
    """

    def can(steps: int) -> bool:
        try:
            return not find_failure(make(steps))
        except MemoryError:
            raise
        except Exception:  # to make a scheduler may raise anything too
            return False

    low, high = 0, min(wanted, TRIED)
    if not can(1) and not can(2):
        return 0
    low = 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if can(middle) else (low, middle)
    return low
