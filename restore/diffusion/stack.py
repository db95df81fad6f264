"""One VAE, one UNet and one context encoder for every task."""

import inspect
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import diffusers
import torch
from diffusers import SchedulerMixin, UNet2DConditionModel, UNet2DModel
from torch import Tensor, nn

from restore.config import near
from restore.diffusion import rehearsal, vae
from restore.diffusion.conditioning import Condition, as_velocity, conditioned
from restore.diffusion.contexts import Context
from restore.diffusion.contexts.two_texts import TwoTextContext
from restore.diffusion.control import Control, Hint
from restore.diffusion.layouts import Layout, Task, require
from restore.diffusion.light import Stage
from restore.diffusion.tiling import WindowPredict, Windows
from restore.diffusion.vae import Vae
from restore.errors import ConfigError, ModelError
from restore.images.masks import Box
from restore.images.picture import Picture
from restore.options import Sampler

if TYPE_CHECKING:
    from restore.pixel.model import PixelModel

SCHEDULERS: dict[Sampler, tuple[str, dict[str, Any]]] = {  # diffusers' class, and its options
    "ddim": ("DDIMScheduler", {}),
    "ddpm": ("DDPMScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
    "euler": ("EulerDiscreteScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "dpm++_2m": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "dpm++_2m_karras": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "dpmsolver++", "use_karras_sigmas": True},
    ),
    "dpm++_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "lcm": ("LCMScheduler", {}),
}


@dataclass
class Stack:
    """The parts, where they run, and what they were trained for.

    context         reads the prompt; None where the UNet has no cross-attention.
    schedule        the checkpoint's own scheduler; every sampler takes its numbers from it.
    low_schedule    SD's x4 upscaler: how noise is added to the picture it reads.
    residual_scale  our walk goes over (z - known) / residual_scale, so that a trusted picture is
                    where it starts instead of something to be learnt; None: it goes over z.
    fills           whether it was taught to fill holes that are continued from their rims; where
                    not, that continuation is restored, which is better than what it would paint.
    steps           of a walk whose options name none: what the model is made for.
    restorer        the first stage: what `known` shows is its answer to the picture.
    fidelity        of the first stage, where the options name none: 0 rich to 1 faithful.
    restore_steps   of the walk that goes on from the first stage's answer; 0: that is the picture.
    enlarger        a pixel upscaler whose answer takes the place of the first stage's.
    hears           what its prompts were about: what pictures show, or what was done to them.
    control         a ControlNet that steers the UNet; with it, it can enlarge.
    digest          tells weights apart in reports.
    origin          the folder that it was read from, if it was one.
    place           where the parts compute, if that is not where they are kept.
    """

    vae: Vae
    unet: UNet2DConditionModel | UNet2DModel
    context: Context | None
    schedule: SchedulerMixin
    layout: Layout
    windows: Windows
    residual_scale: float | None = None
    low_schedule: SchedulerMixin | None = None
    fills: bool = True
    steps: int = 20
    restorer: Stage | None = None
    fidelity: float = 0.0
    restore_steps: int = 0
    enlarger: "PixelModel | None" = None
    hears: Literal["subjects", "damage"] = "subjects"
    control: Control | None = None
    name: str = "this model"
    digest: str = ""
    origin: Path | None = None
    place: torch.device | None = None

    @property
    def device(self) -> torch.device:
        return self.place or self.unet.device

    @property
    def parts(self) -> list[nn.Module]:
        """Everything that holds weights."""
        held = [self.vae, self.unet, *([self.context.module] if self.context else [])]
        # a first stage of another engine holds none that torch knows
        held += [self.restorer] if isinstance(self.restorer, nn.Module) else []
        held += self.enlarger.parts if self.enlarger else []
        return held + ([self.control.net] if self.control else [])

    @property
    def reader(self) -> Context:
        """The context, where one is needed. Raises ModelError if there is none."""
        if self.context is None:
            raise ModelError(f"{self.name} reads no prompt; take a model that does")
        return self.context

    @property
    def is_half(self) -> bool:
        return self.unet.dtype != torch.float32

    @contextmanager
    def in_fp32(self) -> Iterator[None]:
        """The UNet's weights, as they are, in fp32 for a while; back in half they are the same."""
        half = self.unet.dtype
        walking = [self.unet, *([self.control.net] if self.control else [])]
        for part in walking:
            nn.Module.to(part, dtype=torch.float32)
        try:
            yield
        finally:
            for part in walking:
                nn.Module.to(part, dtype=half)

    @contextmanager
    def on_cpu(self) -> Iterator[None]:
        """Every part on the CPU for a while; a compiled UNet runs as it was written there."""
        homes = [(part, next(part.parameters()).device) for part in self.parts]
        place, self.place = self.place, self.place and torch.device("cpu")
        if place is not None:  # they take turns there, and are brought again when they are called
            homes = []
        is_compiled = getattr(self.unet, "_compiled_call_impl", None) is not None
        try:
            for part in self.parts:
                part.to("cpu")
            with torch.compiler.set_stance("force_eager") if is_compiled else nullcontext():
                yield
        finally:
            self.place = place
            for part, home in homes:
                part.to(home)

    @property
    def factor(self) -> int:
        """Pixels a latent, on a side."""
        return vae.factor(self.vae)

    @property
    def span(self) -> tuple[int, int]:
        """Pixels that a window of the UNet measures, and from one to the next."""
        return self.windows.size * self.factor, self.windows.stride * self.factor

    @property
    def channels(self) -> int:
        """Of the latent."""
        return vae.channels(self.vae)

    def require(self, task: Task) -> None:
        """Raises ModelError if the layout cannot do the task, with a ControlNet if there is one."""
        if not (self.control and task == "upscale"):
            require(self.layout, task, self.name)

    def hint(
        self, size: tuple[int, int], shown: Picture | None = None, box: Box | None = None
    ) -> Hint | None:
        """As Control.hint; None where there is no ControlNet."""
        return self.control.hint(size, shown, box) if self.control else None

    def canvas(self, size: tuple[int, int]) -> tuple[int, int]:
        """(h, w) in latents of the smallest canvas of whole windows that holds `size` pixels."""
        height, width = (self.windows.canvas(-(-n // self.factor)) for n in size)
        return height, width

    def predict(
        self, condition: Condition, prompt: str, clip_skip: int = 0, *, is_wanted: bool = True
    ) -> WindowPredict:
        """The UNet's answers under a condition and a prompt, a negative one if not `is_wanted`."""
        tokens = pooled = None
        if isinstance(self.context, TwoTextContext):
            tokens, pooled = self.context.hear(prompt, clip_skip, is_wanted)
        elif self.context:
            tokens = self.context.embed(prompt, clip_skip)
        more = {"pooled": pooled, "control": self.control, "factor": self.factor}
        predict = conditioned(self.unet, self.layout, condition, tokens, **more)
        return as_velocity(predict, self.schedule)

    def scheduler(
        self, sampler: Sampler, steps: int, options: dict[str, Any] | None = None
    ) -> SchedulerMixin:
        """A diffusers scheduler over the checkpoint's schedule, its timesteps set.

        options  the scheduler's own, by diffusers' names; ConfigError where it has none such.
        """
        return scheduler_of(self.schedule, sampler, steps, options, self.device)

    def to_walk(self, latent: Tensor, known: Tensor) -> Tensor:
        """A scaled latent -> what the walk goes over."""
        return latent if self.residual_scale is None else (latent - known) / self.residual_scale

    def from_walk(self, x: Tensor, known: Tensor) -> Tensor:
        """What the walk ended at -> a scaled latent."""
        return x if self.residual_scale is None else known + self.residual_scale * x


def scheduler_of(
    schedule: SchedulerMixin,
    sampler: Sampler,
    steps: int,
    options: dict[str, Any] | None = None,
    device: torch.device | str = "cpu",
) -> SchedulerMixin:
    """A sampler over a checkpoint's schedule, its timesteps set.

    Raises ConfigError for options that it has not, or more steps than it can take; ModelError if
    it can take none.
    """
    name, own = SCHEDULERS[sampler]
    kind = getattr(diffusers, name)
    known = list(inspect.signature(kind).parameters)
    for key in options or {}:
        if key not in known:
            raise ConfigError(f"sampler_options: {sampler} has no {key!r}{near(key, known)}")
    # As keywords: in the config, diffusers would drop what the checkpoint had left to defaults.
    if schedule.config.prediction_type == "sample":
        own = own | {"prediction_type": "v_prediction"}  # as_velocity

    def make(steps: int, device: torch.device | str = "cpu") -> SchedulerMixin:
        scheduler = kind.from_config(schedule.config, **{**own, **(options or {})})
        scheduler.set_timesteps(steps, device=device)
        return scheduler

    asked = json.dumps([sampler, options, dict(schedule.config)], sort_keys=True, default=str)
    if (asked, steps) not in _REHEARSED:
        _rehearse(make, sampler, steps, bool(options))
        _REHEARSED.add((asked, steps))
    return make(steps, device)


_REHEARSED: set[tuple[str, int]] = set()  # walks that are known to come to their end


def _rehearse(
    make: Callable[[int], SchedulerMixin], sampler: Sampler, steps: int, is_told: bool
) -> None:
    try:
        why = rehearsal.trouble(make(steps))
    except Exception as error:  # of a library, whose classes raise anything
        why = f"{type(error).__name__}: {error}"
    if not why:
        return
    most = rehearsal.most(make, steps)
    if most:
        told = f"sampler {sampler} takes {most} steps at the most here, not {steps}"
        raise ConfigError(f"steps: {told} ({why}); take fewer, or another sampler")
    if is_told:
        raise ConfigError(f"sampler_options: {sampler} cannot walk with these: {why}")
    raise ModelError(f"its scheduler's config allows no walk by {sampler}: {why}")
