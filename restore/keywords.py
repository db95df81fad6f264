"""What the Python face takes by name, typed so that editors complete it; diffusers' names as well.

The options themselves are restore.options; a test holds these to them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch

from restore.errors import UsageError
from restore.options import Colour, Sampler

Seeds = int | Sequence[int]
Generators = torch.Generator | Sequence[torch.Generator]
OnStepEnd = Callable[[Any, int, Any, dict[str, Any]], Any]
"""(who makes the picture, number of the step from 0, timestep, {"latents": ...}), as diffusers'"""

SAME = {  # diffusers' name -> ours
    "num_inference_steps": "steps",
    "guidance_scale": "guidance",
    "negative_prompt": "negative",
}


class Loading(TypedDict, total=False):
    """Of restore.checkpoints.load.load."""

    revision: str | None
    offline: bool
    allow_pickle: bool
    config: str | None
    loras: Sequence[tuple[str, float]]
    controlnet: str | None
    controlnet_scale: float
    control_image: str | Path | None


class Diffusers(TypedDict, total=False):
    """diffusers' names for what has another name here.

    generator             gives each picture its seed, and moves on, so the next call differs.
    guidance_scale        1 and below is off, as there.
    callback_on_step_end  may look on, and end the work by returning False; not change the latents.
    """

    generator: Generators | None
    num_inference_steps: int | None
    guidance_scale: float
    negative_prompt: str | None
    callback_on_step_end: OnStepEnd | None


class Walk(Diffusers, total=False):
    """Of every task; restore.options.WalkOptions says what each means."""

    steps: int | None
    sampler: Sampler
    sampler_options: dict[str, Any]
    eta: float
    guidance: float
    rescale: float
    negative: str
    clip_skip: int
    windows: int


class Upscale(Walk, total=False):
    """Of UpscaleOptions."""

    prompt: str
    fidelity: float | None
    unfade: float
    strength: float
    noise_level: int
    colour: Colour


class Text2img(Walk, total=False):
    """Of Text2imgOptions."""

    height: int
    width: int


class Img2img(Walk, total=False):
    """Of Img2imgOptions."""

    strength: float
    loopback: int
    colour: Literal["none", "wavelet", "adain"]


class Inpaint(Walk, total=False):
    """Of InpaintOptions."""

    strength: float
    threshold: int
    invert: bool
    extend: tuple[int, int, int, int]
    aspect: str
    grow: int
    feather: int
    context: float
    engine: Literal["model", "telea", "navier_stokes"]


@dataclass(frozen=True)
class Asked:
    """Keyword arguments by our names, and what of diffusers' has no option here."""

    options: dict[str, Any]
    generators: Generators | None = None
    on_step_end: OnStepEnd | None = None

    def seeds(self, seed: Seeds, count: int) -> list[int]:
        """A seed for each picture: those given, or the next number of its generator."""
        if self.generators is None:
            return seeds_for(seed, count)
        if seed != 0:
            raise UsageError("a seed and a generator are given; one of them decides")
        given = self.generators
        each = [given] * count if isinstance(given, torch.Generator) else list(given)
        if len(each) != count:
            raise UsageError(f"{len(each)} generators for {count} pictures; one, or one for each")
        return [int(torch.randint(2**63 - 1, (), generator=one, device=one.device)) for one in each]


def ours(given: Any) -> Asked:
    """What was given by either name. Raises UsageError if one thing was given by both."""
    options = dict(given)
    generators = options.pop("generator", None)
    on_step_end = options.pop("callback_on_step_end", None)
    for theirs, name in SAME.items():
        if theirs not in options:
            continue
        if name in options:
            raise UsageError(f"{name} and {theirs} are one thing; give one of them")
        value = options.pop(theirs)
        if value is None:  # theirs for what was not said
            continue
        # there every scale up to 1 is off, and some pass 0; here 0 would leave the prompt out
        off = name == "guidance" and isinstance(value, int | float) and value < 1
        options[name] = 1 if off else value
    return Asked(options, generators, on_step_end)


def seeds_for(seed: Seeds, count: int) -> list[int]:
    """A seed for each of so many pictures. Raises UsageError."""
    seeds = [seed] * count if isinstance(seed, int) else [int(one) for one in seed]
    if len(seeds) != count:
        raise UsageError(f"{len(seeds)} seeds for {count} pictures; give one, or one for each")
    if any(not 0 <= one < 2**63 for one in seeds):
        raise UsageError("a seed is 0 to 2^63 - 1")
    return seeds
