"""Distillation: one step of the student replaces several steps of its teacher."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from diffusers import DDIMScheduler, SchedulerMixin
from pydantic import Field
from torch import Tensor, nn

from restore.checkpoints.load import load
from restore.checkpoints.save import save
from restore.config import Options
from restore.diffusion.layouts import TRUST
from restore.diffusion.noise import generator
from restore.diffusion.stack import Stack
from restore.diffusion.tiling import Predict
from restore.errors import ConfigError
from restore.training.data.latent_pairs import open_pairs, prepare_batch
from restore.training.data.pairs import PairOptions
from restore.training.rng import WHOLE, Part
from restore.training.stages.denoiser import digest_of, held_out_batch, move_to, refuse_steps
from restore.training.stages.networks import start_from
from restore.training.stages.prediction import from_clean, to_clean
from restore.training.stages.previews import compare, predictor, sample_latents


class DistilOptions(Options):
    """Which model is distilled, and to how many steps."""

    kind: Literal["distil"] = "distil"
    teacher: str
    """A model folder in the trust layout."""
    student: str | None = None
    """A model folder of the same shapes to start from; None: the teacher."""
    few: int = Field(4, ge=1, le=16)
    """Steps of the student."""
    each: int = Field(10, ge=2)
    """Steps of the teacher that one step of the student replaces."""
    guidance: float = Field(1.0, ge=1)
    """Guidance of the teacher; the student learns its result and needs none."""
    data: PairOptions
    """How training pairs are made."""
    cache: Path = Path("runs/pairs")
    """Folder in which encoded pairs are kept."""


def timestep_grid(schedule: SchedulerMixin, few: int, each: int) -> Tensor:
    """The timesteps of the teacher within each step of the student, (few, each + 1); -1 is clean.

    They are "trailing", as samplers space them: the student takes every `each`th step of the
    teacher.
    """
    plan = DDIMScheduler.from_config(schedule.config, timestep_spacing="trailing")
    plan.set_timesteps(few * each)
    fine = torch.cat([plan.timesteps, torch.tensor([-1])])
    return torch.stack([fine[n * each : (n + 1) * each + 1] for n in range(few)])


def alpha_sigma_at(schedule: SchedulerMixin, t: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma, each (B, 1, 1, 1), at timesteps of which -1 is the clean end."""
    kept = schedule.alphas_cumprod.to(t.device)[t.clamp(min=0)]
    kept = torch.where(t < 0, torch.ones_like(kept), kept).view(-1, 1, 1, 1)
    return kept.sqrt(), (1 - kept).sqrt()


def leap(predict: Predict, schedule: SchedulerMixin, x: Tensor, times: Tensor) -> Tensor:
    """The clean latent with which one step of DDIM reaches the point that several steps reach.

    Salimans and Ho 2022 (Progressive Distillation, algorithm 2), with any number of steps instead
    of two.

    Args:
        predict: Predicts as the schedule says.
        schedule: The noise schedule.
        x: (B, C, h, w) at times[:, 0].
        times: (B, n + 1), falling.
    """
    first = x
    for t, later in zip(times.T[:-1], times.T[1:], strict=True):
        found = to_clean(schedule, predict(x, t), x, t)
        (alpha, sigma), (after, less) = alpha_sigma_at(schedule, t), alpha_sigma_at(schedule, later)
        x = after * found + less * (x - alpha * found) / sigma
    (alpha, sigma), (after, less) = (
        alpha_sigma_at(schedule, times[:, 0]),
        alpha_sigma_at(schedule, times[:, -1]),
    )
    ratio = less / sigma
    return (x - ratio * first) / (after - ratio * alpha)


def distil_step(
    student: Stack,
    teacher: Stack,
    batch: dict[str, Tensor],
    options: DistilOptions,
    rng: torch.Generator,
    part: Part = WHOLE,
) -> dict[str, Tensor]:
    """The loss of one batch: the student's prediction against the one that leaps as far as the
    teacher.

    The error is that of the prediction. For v this weighs an error of the clean latent by SNR + 1,
    one of the weights that Salimans and Ho found to work.

    Args:
        student: The stack that is trained.
        teacher: The stack that it learns from.
        batch: As for `denoising_loss.train_step`, without pixels.
        options: Numbers of steps, and guidance.
        rng: The generator of all draws.
        part: Which part of the step's samples the batch is.
    """
    conditioning, schedule = batch["conditioning"], student.schedule
    residual = student.to_residual(batch["target"], conditioning)
    times = timestep_grid(schedule, options.few, options.each).to(conditioning.device)
    count = (part.of * len(conditioning),)
    times = times[
        part.cut(torch.randint(options.few, count, generator=rng, device=conditioning.device))
    ]
    noise = part.normal(conditioning, rng)
    x = schedule.add_noise(residual, noise, times[:, 0])
    with torch.no_grad():
        end = leap(predictor(teacher, batch, options.guidance), schedule, x, times)
    wanted = from_clean(schedule, end, x, times[:, 0])
    made = predictor(student, batch)(x, times[:, 0])
    return {"leap": (made - wanted).square().mean()}


class DistilStage:
    """Trains a student to take few steps instead of its teacher's many."""

    def __init__(self, options: DistilOptions, seed: int, device: torch.device):
        self.options, self.seed, self.device = options, seed, device
        self.teacher = load(options.teacher, "cpu", "fp32")
        if self.teacher.layout != TRUST:
            has = f"{options.teacher} has the {self.teacher.layout.name} layout"
            raise ConfigError(f"stage.teacher {has}; tune it to trust first (kind: finetune)")
        config = self.teacher.schedule.config
        self.teacher.schedule = DDIMScheduler.from_config(config, timestep_spacing="trailing")
        refuse_steps("stage.few times stage.each", options.few * options.each, self.teacher)
        unet = deepcopy(self.teacher.unet)
        if options.student:
            start_from(unet, load(options.student, "cpu", "fp32").unet, "stage.student")
        self.student = replace(
            self.teacher, unet=unet.requires_grad_(True).train(), steps=options.few
        )
        for stack in (self.teacher, self.student):
            move_to(stack, device)
        self.model = nn.ModuleDict({"unet": unet})
        digest = digest_of(self.teacher)
        self.samples = open_pairs(options.data, self.teacher, options.cache, digest, seed)
        self.preview_batch = held_out_batch(self.teacher, options.data, options.cache, digest, seed)
        self.goal: Tensor | None = None

    def loss(self, batch: dict, step: int, part: Part = WHOLE) -> dict[str, Tensor]:
        batch = prepare_batch(batch, self.teacher, self.device)
        rng = generator(self.device, self.seed, step)
        return distil_step(self.student, self.teacher, batch, self.options, rng, part)

    @torch.inference_mode()
    def preview(self) -> tuple[list[Tensor], dict[str, float]]:
        """Results of the student's few steps, and of the teacher's few and many.

        The scores off_student and off_teacher are the root mean square distance of few steps from
        the teacher's many, in scaled latents.
        """
        few, many = self.options.few, self.options.few * self.options.each
        batch = prepare_batch(dict(self.preview_batch), self.teacher, self.device)
        teaching = self.seed, self.options.guidance
        if self.goal is None:
            self.goal = sample_latents(self.teacher, batch, many, *teaching)
        made = sample_latents(self.student, batch, few, self.seed)
        hasty = sample_latents(self.teacher, batch, few, *teaching)
        latents = {"psnr": made, "teacher_few_psnr": hasty, "teacher_many_psnr": self.goal}
        rows, scores = compare(self.student, batch, latents)
        for name, latent in (("off_student", made), ("off_teacher", hasty)):
            scores[name] = (latent - self.goal).square().mean().sqrt().item()
        return rows, scores

    def export(self, folder: Path) -> None:
        """Save the student as `restore.checkpoints.load.load` reads it."""
        o = self.options
        card = f"# {folder}\nMade for {o.few} steps, from {o.teacher}, with:\n\n```\n{o}\n```\n"
        save(self.student, folder, card)
