"""One VAE, one UNet and one context encoder for every task."""

import inspect
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import diffusers
import torch
from diffusers import SchedulerMixin, UNet2DConditionModel, UNet2DModel
from torch import Tensor, nn

from restore.diffusion import rehearsal, vae
from restore.diffusion.conditioning import Condition, as_velocity, conditioned
from restore.diffusion.contexts import Context
from restore.diffusion.contexts.two_texts import TwoTextContext
from restore.diffusion.control import Control, Hint
from restore.diffusion.layouts import Layout, Task, require
from restore.diffusion.lazy_stack import Stage
from restore.diffusion.tiling import WindowPredict, Windows
from restore.diffusion.vae import Vae
from restore.errors import ConfigError, ModelError, near
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
    """The parts of a model, where they compute, and what they were trained for.

    Attributes:
        vae: The autoencoder.
        unet: The denoising network.
        context: Encodes the prompt. None if the UNet has no cross-attention.
        schedule: The checkpoint's own scheduler; every sampler takes its config.
        layout: What the UNet's input channels mean.
        windows: The grid of the UNet's windows.
        residual_scale: Our models sample (z - conditioning) / residual_scale, so a clean picture is
            the start and need not be learnt. None: they sample the latent z itself.
        low_schedule: For SD's x4 upscaler: how noise is added to its input picture.
        fills: Whether it was trained to fill holes that are continued from their rims. If not, that
            continuation is restored, which looks better than what the model would paint.
        steps: Sampling steps by default.
        restorer: The first stage. The conditioning is then the latent of its result.
        fidelity: Default of the first stage: 0 rich to 1 faithful.
        restore_steps: Default sampling steps after the first stage; 0: its result is the picture.
        enlarger: A pixel upscaler that replaces the first stage.
        prompts_describe: What its training prompts describe: the subjects of pictures or damage.
        control: A ControlNet that steers the UNet. With it, the stack can upscale.
        name: Its name in messages.
        digest: Tells weights apart in reports.
        origin: The folder it was loaded from, if any.
        offload_device: The device on which parts take turns, if they are kept elsewhere.
        engine: What computes the networks: torch or onnx, whose parts hold no weights.
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
    prompts_describe: Literal["subjects", "damage"] = "subjects"
    control: Control | None = None
    name: str = "this model"
    digest: str = ""
    origin: Path | None = None
    offload_device: torch.device | None = None
    engine: str = "torch"

    @property
    def device(self) -> torch.device:
        return self.offload_device or self.unet.device

    @property
    def parts(self) -> list[nn.Module]:
        """All modules that hold weights."""
        modules = [self.vae, self.unet, *([self.context.module] if self.context else [])]
        # a first stage of another engine has no torch weights
        modules += [self.restorer] if isinstance(self.restorer, nn.Module) else []
        modules += self.enlarger.parts if self.enlarger else []
        return modules + ([self.control.net] if self.control else [])

    @property
    def reader(self) -> Context:
        """The context encoder. Raises ModelError if there is none."""
        if self.context is None:
            raise ModelError(f"{self.name} reads no prompt; take a model that does")
        return self.context

    @property
    def is_half(self) -> bool:
        is_enlarger_half = self.enlarger is not None and self.enlarger.is_half
        return self.unet.dtype != torch.float32 or is_enlarger_half

    @contextmanager
    def in_fp32(self) -> Iterator[None]:
        """Compute in fp32 in the block. Converting the weights back loses nothing."""
        half = self.unet.dtype
        walking = [self.unet, *([self.control.net] if self.control else [])]
        for part in walking:
            nn.Module.to(part, dtype=torch.float32)
        try:
            with ExitStack() as stages:
                if self.restorer is not None:
                    stages.enter_context(self.restorer.in_fp32())
                if self.enlarger is not None and self.enlarger.is_half:
                    stages.enter_context(self.enlarger.in_fp32())
                yield
        finally:
            for part in walking:
                nn.Module.to(part, dtype=half)

    @contextmanager
    def on_cpu(self) -> Iterator[None]:
        """Move every part to the CPU for the block. A compiled UNet runs uncompiled there."""
        homes = [(part, next(part.parameters()).device) for part in self.parts]
        device = self.offload_device
        if device is not None:  # a part moves to this device when it is called
            self.offload_device, homes = torch.device("cpu"), []
        is_compiled = getattr(self.unet, "_compiled_call_impl", None) is not None
        try:
            for part in self.parts:
                part.to("cpu")
            with torch.compiler.set_stance("force_eager") if is_compiled else nullcontext():
                yield
        finally:
            self.offload_device = device
            for part, home in homes:
                part.to(home)

    @property
    def factor(self) -> int:
        """Pixels per latent on a side."""
        return vae.factor(self.vae)

    @property
    def span(self) -> tuple[int, int]:
        """Size and stride of the UNet's windows in pixels."""
        return self.windows.size * self.factor, self.windows.stride * self.factor

    @property
    def channels(self) -> int:
        """Channels of the latent."""
        return vae.channels(self.vae)

    def require(self, task: Task) -> None:
        """Raise ModelError if neither the layout nor a ControlNet can do the task."""
        if not (self.control and task == "upscale"):
            require(self.layout, task, self.name)

    def hint(
        self, size: tuple[int, int], picture: Picture | None = None, box: Box | None = None
    ) -> Hint | None:
        """As Control.hint; None if there is no ControlNet."""
        return self.control.hint(size, picture, box) if self.control else None

    def canvas(self, size: tuple[int, int]) -> tuple[int, int]:
        """Return (h, w) in latents of the canvas for `size` pixels."""
        height, width = (self.windows.canvas(-(-n // self.factor)) for n in size)
        return height, width

    def predict(
        self, condition: Condition, prompt: str, clip_skip: int = 0, *, is_wanted: bool = True
    ) -> WindowPredict:
        """Make a predict function for a condition and a prompt.

        Args:
            condition: For the whole canvas.
            prompt: The prompt, positive or negative.
            clip_skip: Last layers of the text encoder to skip.
            is_wanted: False for a negative prompt.

        Returns:
            Predictions for windows, with the schedule's prediction type or v.
        """
        tokens = pooled = None
        if isinstance(self.context, TwoTextContext):
            tokens, pooled = self.context.embed_pooled(prompt, clip_skip, is_wanted)
        elif self.context:
            tokens = self.context.embed(prompt, clip_skip)
        more = {"pooled": pooled, "control": self.control, "factor": self.factor}
        predict = conditioned(self.unet, self.layout, condition, tokens, **more)
        return as_velocity(predict, self.schedule)

    def tells_apart(self, prompt: str, negative: str) -> bool:
        """Whether a prompt and a negative one are embedded differently, so that guidance matters.

        Without either, SDXL is guided from zeros to the embedding of "".
        """
        is_zeroed = isinstance(self.context, TwoTextContext) and self.context.zeroes
        return prompt != negative or (is_zeroed and not negative)

    def scheduler(
        self, sampler: Sampler, steps: int, options: dict[str, Any] | None = None
    ) -> SchedulerMixin:
        """Return a diffusers scheduler with the checkpoint's config and its timesteps set.

        Args:
            sampler: Its name here; see SCHEDULERS.
            steps: Sampling steps.
            options: Further fields of its config, by diffusers' names.

        Raises:
            ConfigError: If it has no such option, or cannot take so many steps.
        """
        return scheduler_of(self.schedule, sampler, steps, options, self.device)

    def to_residual(self, latent: Tensor, conditioning: Tensor) -> Tensor:
        """Convert a scaled latent to the quantity that is sampled; see `residual_scale`."""
        return (
            latent if self.residual_scale is None else (latent - conditioning) / self.residual_scale
        )

    def from_residual(self, x: Tensor, conditioning: Tensor) -> Tensor:
        """Convert the result of sampling to a scaled latent; see `residual_scale`."""
        return x if self.residual_scale is None else conditioning + self.residual_scale * x


def scheduler_of(
    schedule: SchedulerMixin,
    sampler: Sampler,
    steps: int,
    options: dict[str, Any] | None = None,
    device: torch.device | str = "cpu",
) -> SchedulerMixin:
    """Return a sampler with a checkpoint's config and its timesteps set.

    Args:
        schedule: The checkpoint's own scheduler.
        sampler: Its name here; see SCHEDULERS.
        steps: Sampling steps.
        options: Further fields of its config, by diffusers' names.
        device: Where its timesteps are.

    Raises:
        ConfigError: If it has no such option, or cannot take so many steps.
        ModelError: If it cannot take even one step.
    """
    name, changes = SCHEDULERS[sampler]
    kind = getattr(diffusers, name)
    known = list(inspect.signature(kind).parameters)
    for key in options or {}:
        if key not in known:
            raise ConfigError(f"sampler_options: {sampler} has no {key!r}{near(key, known)}")
    if "clip_sample" in known:  # latents are not in [-1, 1], whatever the class takes for granted
        changes = {"clip_sample": False} | changes
    # As keywords: inside the config, diffusers would drop what the checkpoint leaves to defaults.
    if schedule.config.prediction_type == "sample":
        changes = changes | {"prediction_type": "v_prediction"}  # as_velocity

    def make(steps: int, device: torch.device | str = "cpu") -> SchedulerMixin:
        scheduler = kind.from_config(schedule.config, **{**changes, **(options or {})})
        scheduler.set_timesteps(steps, device=device)
        return scheduler

    asked = json.dumps([sampler, options, dict(schedule.config)], sort_keys=True, default=str)
    if (asked, steps) not in _REHEARSED:
        _rehearse(make, sampler, steps, bool(options))
        _REHEARSED.add((asked, steps))
    return make(steps, device)


_REHEARSED: set[tuple[str, int]] = set()  # samplers and steps that are known to work


def _rehearse(
    make: Callable[[int], SchedulerMixin], sampler: Sampler, steps: int, is_told: bool
) -> None:
    try:
        why = rehearsal.find_failure(make(steps))
    except MemoryError:
        raise
    except Exception as error:  # diffusers' schedulers check their options each in its own way
        why = f"{type(error).__name__}: {error}"
    if not why:
        return
    most = rehearsal.most_steps(make, steps)
    if most:
        problem = f"sampler {sampler} takes {most} steps at the most here, not {steps}"
        raise ConfigError(f"steps: {problem} ({why}); take fewer, or another sampler")
    if is_told:
        raise ConfigError(f"sampler_options: {sampler} cannot sample with these: {why}")
    raise ModelError(f"its scheduler's config does not allow {sampler}: {why}")
