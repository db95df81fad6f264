"""The training loop: when to step, log, show and save. What a step does belongs to its stage."""

import csv
import logging
import math
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from diffusers.training_utils import EMAModel
from PIL import Image
from pydantic import Field
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from restore.config import Options, load_config
from restore.errors import NonFiniteError
from restore.training import checkpoint
from restore.training.data import batches
from restore.training.stages import STAGES, StageOptions

log = logging.getLogger(__name__)


class TrainOptions(Options):
    """One training run: a stage and the loop's own settings."""

    output: Path
    stage: StageOptions
    seed: int = 0
    steps: int = Field(10_000, ge=1)
    batch: int = Field(16, ge=1)
    learning_rate: float = Field(5e-4, gt=0)
    warmup: int = Field(200, ge=0)  # steps of linear warm-up; a cosine to zero follows
    weight_decay: float = Field(0.0, ge=0)
    clip: float = Field(1.0, gt=0)  # norm at which gradients are clipped
    ema: float = Field(0.999, ge=0, lt=1)
    precision: Literal["fp32", "bf16"] = "fp32"
    workers: int = Field(0, ge=0)
    device: str = "cpu"
    log_every: int = Field(50, ge=1)
    show_every: int = Field(1000, ge=1)
    save_every: int = Field(1000, ge=1)
    keep: int = Field(2, ge=1)  # checkpoints kept
    resume: bool = True  # from the newest valid checkpoint of `output`, if there is one


def run(config: Path, overrides: list[str]) -> Path:
    """Train as the config says; returns the folder of the exported EMA weights.

    Raises ConfigError on an unknown option, NonFiniteError if a loss leaves the finite numbers.
    """
    options = load_config(TrainOptions, config, overrides)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "options.json").write_text(options.model_dump_json(indent=1))
    device = torch.device(options.device)
    torch.manual_seed(options.seed)  # the initial weights
    stage = STAGES[options.stage.kind](options.stage, options.seed, device)
    parameters = [p for p in stage.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, options.learning_rate, betas=(0.9, 0.99), weight_decay=options.weight_decay
    )
    ema = EMAModel(parameters, decay=options.ema, use_ema_warmup=True, power=0.75, foreach=True)
    state = checkpoint.State(stage.model, ema.shadow_params, optimizer)
    saved = checkpoint.latest(options.output) if options.resume else None
    first = checkpoint.resume(saved, state) if saved else 0
    ema.optimization_step = first
    record = options.output / "log.csv"
    with bar(options.steps, first) as advance:
        waited, since = 0.0, time.perf_counter()
        feed = iter(batches(stage.samples, options.batch, first, options.steps, options.workers))
        for step in range(first, options.steps):
            asked = time.perf_counter()
            batch = next(feed)
            waited += time.perf_counter() - asked
            set_rate(optimizer, options, step)
            with torch.autocast(device.type, torch.bfloat16, options.precision == "bf16"):
                losses = stage.loss(batch, step)
            update(parameters, optimizer, losses, step, options.clip)
            ema.step(parameters)
            done = step + 1
            if done % options.log_every == 0:
                elapsed = time.perf_counter() - since
                speed = {"images_per_s": options.batch * options.log_every / elapsed}
                speed["data_wait"] = waited / elapsed
                write_row(record, done, {k: v.item() for k, v in losses.items()} | speed)
                advance(done, losses, speed)
                waited, since = 0.0, time.perf_counter()
            if done % options.show_every == 0 or done == options.steps:
                with averaged(ema, parameters):
                    rows, scores = stage.preview()
                write_row(record, done, scores)
                log.info("step %d: %s", done, scores)
                grid(rows).save(options.output / f"preview_{done:08d}.png")
                since = time.perf_counter()
            if done % options.save_every == 0 or done == options.steps:
                checkpoint.save(options.output, done, state, options.keep)
    with averaged(ema, parameters):
        stage.export(options.output / "export")
    return options.output / "export"


def set_rate(optimizer: torch.optim.Optimizer, options: TrainOptions, step: int) -> None:
    """Linear warm-up, then a cosine down to zero at the last step."""
    warm = min(1.0, (step + 1) / max(1, options.warmup))
    rate = options.learning_rate * warm * (1 + math.cos(math.pi * step / options.steps)) / 2
    for group in optimizer.param_groups:
        group["lr"] = rate


def update(parameters, optimizer, losses: dict[str, Tensor], step: int, clip: float) -> None:
    """One step down the gradient of the losses' sum, or NonFiniteError before any weight moves."""
    total = torch.stack(list(losses.values())).sum()
    if not torch.isfinite(total):
        raise NonFiniteError(f"step {step}: the loss is {total.item()}; lower learning_rate")
    optimizer.zero_grad(set_to_none=True)
    total.backward()
    torch.nn.utils.clip_grad_norm_(parameters, clip)
    optimizer.step()


@contextmanager
def averaged(ema: EMAModel, parameters: list[Tensor]):
    """The EMA's weights in the model's place."""
    ema.store(parameters)
    ema.copy_to(parameters)
    try:
        yield
    finally:
        ema.restore(parameters)


def grid(rows: list[Tensor]) -> Image.Image:
    """rgb batches, one under another, as one picture."""
    lines = [torch.cat(list(rgb), -1) for rgb in rows]
    pixels = (torch.cat(lines, 1).clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(pixels.cpu().numpy()))


def write_row(record: Path, step: int, scalars: dict[str, float]) -> None:
    """Append step, name, value lines to a CSV file."""
    with record.open("a", newline="") as file:
        csv.writer(file).writerows((step, name, f"{x:.6g}") for name, x in scalars.items())


@contextmanager
def bar(steps: int, first: int):
    """A progress bar with the losses, images a second and time left; yields its update."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn()) as progress:
        task = progress.add_task("training", total=steps, completed=first)

        def advance(done: int, losses: dict[str, Tensor], speed: dict[str, float]) -> None:
            values = {k: f"{v.item():.4f}" for k, v in losses.items()}
            values |= {k: f"{v:.2f}" for k, v in speed.items()}
            line = "  ".join(f"{k} {v}" for k, v in values.items())
            progress.update(task, completed=done, description=line)
            if not progress.console.is_terminal:
                progress.console.print(f"{time.strftime('%H:%M:%S')} step {done}  {line}")

        yield advance
