"""Keyword arguments of the Python interface, typed for editors; diffusers' names are included.

The options themselves are in restore.options. A test compares the two.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, SupportsIndex, TypedDict, TypeVar

import torch
from pydantic import ValidationError

from restore.config import Options
from restore.config_errors import explain
from restore.errors import ConfigError, UsageError
from restore.options import Colour, Sampler

Some = TypeVar("Some", bound=Options)
Seeds = int | Sequence[int]
Generators = torch.Generator | Sequence[torch.Generator]
OnStepEnd = Callable[[Any, int, Any, dict[str, Any]], Any]
"""As diffusers': (pipeline, number of the step from 0, timestep, {"latents": ...})"""

SAME = {  # diffusers' name -> ours
    "num_inference_steps": "steps",
    "guidance_scale": "guidance",
    "negative_prompt": "negative",
}


class Diffusers(TypedDict, total=False):
    """diffusers' names for arguments that have another name here.

    Attributes:
        generator: Gives each picture its seed. It advances, so the next call differs.
        num_inference_steps: Our `steps`.
        guidance_scale: Our `guidance`. As in diffusers, 1 and below turn guidance off.
        negative_prompt: Our `negative`.
        callback_on_step_end: Called after each step. It may return False to end the work, but it
            must not change the latents.
    """

    generator: Generators | None
    num_inference_steps: int | None
    guidance_scale: float
    negative_prompt: str | None
    callback_on_step_end: OnStepEnd | None


class Sampling(Diffusers, total=False):
    """Options of every task; restore.options.WalkOptions describes them."""

    steps: int | None
    sampler: Sampler
    sampler_options: dict[str, Any]
    eta: float
    guidance: float
    rescale: float
    negative: str
    clip_skip: int
    windows: int


class Upscale(Sampling, total=False):
    """Options of UpscaleOptions."""

    prompt: str
    fidelity: float | None
    unfade: float
    strength: float
    noise_level: int
    colour: Colour


class Text2img(Sampling, total=False):
    """Options of Text2imgOptions."""

    height: int
    width: int


class Img2img(Sampling, total=False):
    """Options of Img2imgOptions."""

    strength: float
    loopback: int
    colour: Literal["none", "wavelet", "adain"]


class Inpaint(Sampling, total=False):
    """Options of InpaintOptions."""

    strength: float
    threshold: int
    invert: bool
    extend: tuple[int, int, int, int]
    aspect: str
    grow: int
    feather: int
    context: float
    engine: Literal["auto", "model", "patchmatch", "telea", "navier_stokes"]


@dataclass(frozen=True)
class Arguments:
    """Keyword arguments of a call, sorted.

    Attributes:
        options: Options of the task, by our names.
        generators: diffusers' `generator`.
        on_step_end: diffusers' `callback_on_step_end`.
    """

    options: dict[str, Any]
    generators: Generators | None = None
    on_step_end: OnStepEnd | None = None

    def seeds(self, seed: Seeds, count: int) -> list[int]:
        """Return a seed for each of `count` pictures: the given ones, or one from each generator.

        Raises:
            UsageError: If the counts differ, or both a seed and a generator are given.
        """
        if self.generators is None:
            return seeds_for(seed, count)
        if seed != 0:
            raise UsageError("a seed and a generator are given; one of them decides")
        given = self.generators
        each = [given] * count if isinstance(given, torch.Generator) else list(given)
        if len(each) != count:
            raise UsageError(f"{len(each)} generators for {count} pictures; one, or one for each")
        return [int(torch.randint(2**63 - 1, (), generator=one, device=one.device)) for one in each]


def translate(given: Any) -> Arguments:
    """Translate diffusers' names to ours.

    Args:
        given: The keyword arguments of a call, by either name.

    Raises:
        UsageError: If one option is given by both names.
    """
    options = dict(given)
    generators = options.pop("generator", None)
    on_step_end = options.pop("callback_on_step_end", None)
    for theirs, name in SAME.items():
        if theirs not in options:
            continue
        if name in options:
            raise UsageError(f"{name} and {theirs} are one thing; give one of them")
        value = options.pop(theirs)
        if value is None:  # diffusers' value for an argument that is not given
            continue
        # in diffusers any scale up to 1 means off, negative ones too
        off = name == "guidance" and isinstance(value, int | float) and value < 1
        options[name] = 1 if off else value
    return Arguments(options, generators, on_step_end)


def seeds_for(seed: Seeds, count: int) -> list[int]:
    """Return a seed for each of `count` pictures.

    Raises:
        UsageError: If the counts differ, or a seed is no integer from 0 to 2^63 - 1.
    """
    given = [seed] * count if isinstance(seed, SupportsIndex) else seed
    try:
        seeds = [operator.index(one) for one in given]
    except TypeError as error:
        raise UsageError(f"seed {seed!r}: a seed is an integer, or a list of them") from error
    if len(seeds) != count:
        raise UsageError(f"{len(seeds)} seeds for {count} pictures; give one, or one for each")
    if any(not 0 <= one < 2**63 for one in seeds):
        raise UsageError("a seed is 0 to 2^63 - 1")
    return seeds


def build_options(kind: type[Some], task: str, arguments: Arguments, **given: object) -> Some:
    """Make a task's options from keyword arguments. ConfigError suggests the nearest name."""
    try:
        return kind.model_validate({**arguments.options, **given})
    except ValidationError as error:
        lines = explain(error, kind, (), lambda way: task)
        raise ConfigError("\n".join(lines)) from error
