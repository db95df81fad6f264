"""The training loop: when to step, log, show and save. What a step does belongs to its stage."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from itertools import cycle
from pathlib import Path
from typing import Any, Literal, Self

import torch
import yaml
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.utils import broadcast_object_list, gather_object
from diffusers.training_utils import EMAModel
from pydantic import Field, model_validator
from torch import Tensor, nn

from degradations.errors import RecipeError
from restore.checkpoints import manifest
from restore.checkpoints.load import quiet
from restore.config import Options, load_config
from restore.errors import ConfigError, NonFiniteError, RestoreError
from restore.files import held, write_text
from restore.training import checkpoint, failed_batch, model_card, optim
from restore.training.data.crops import Rows, loader
from restore.training.logs import Clock, Record, Scalars, bar
from restore.training.ours import MADE_BY, refuse_foreign
from restore.training.registry import STAGES, StageOptions
from restore.training.resume import go_on
from restore.training.rng import Part, reseed

log = logging.getLogger(__name__)
PATIENCE = timedelta(hours=12)  # other processes wait while the first encodes pairs


class TrainOptions(Options):
    """One training run: a stage and the loop's own settings."""

    output: Path
    """Folder of the run: log, previews, checkpoints, export."""
    stage: StageOptions
    """What is trained, and on what."""
    seed: int = Field(0, ge=0)
    """Seed of all that is random."""
    steps: int = Field(10_000, ge=1)
    """Number of updates."""
    seconds: float | None = Field(None, gt=0)
    """Seconds of training after which the run ends before `steps`. The schedule then follows the
    clock, so no two such runs are equal.
    """
    batch: int = Field(16, ge=1)
    """Samples of a step, over all processes."""
    accumulate: int = Field(1, ge=1)
    """Parts of a step's samples that a process takes one after another."""
    learning_rate: float = Field(5e-4, gt=0)
    """Peak learning rate of AdamW."""
    warmup: int = Field(200, ge=0)
    """Steps of linear warm-up."""
    schedule: optim.Schedule = "cosine"
    """Learning rate after the warm-up: a cosine down to zero at the last step, or constant."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight decay of AdamW."""
    clip: float = Field(1.0, gt=0)
    """Norm at which gradients are clipped."""
    ema: float = Field(0.999, ge=0, lt=1)
    """Decay of the averaged weights, which are what is exported."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Precision of the arithmetic; fp16 needs a CUDA device."""
    checkpointing: bool = False
    """Compute activations twice to keep fewer of them in memory."""
    compile: bool = False
    """Compile the networks with torch.compile."""
    channels_last: bool | Literal["auto"] = "auto"
    """Memory format of the weights; auto: channels last where that is faster."""
    workers: int = Field(0, ge=0)
    """Processes, for each training process, that make samples ahead of time."""
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    """auto, cpu, mps, cuda or cuda:N."""
    log_every: int = Field(50, ge=1)
    """Steps between two entries of the log."""
    tensorboard: bool = True
    """Write a TensorBoard log, where TensorBoard is installed."""
    show_every: int = Field(1000, ge=1)
    """Steps between two previews."""
    save_every: int = Field(1000, ge=1)
    """Steps between two checkpoints."""
    keep: int = Field(2, ge=1)
    """Number of checkpoints kept."""
    export_every_s: float | None = Field(None, gt=0)
    """Seconds between exports while training goes on; None: one export at the end."""
    resume: bool | Literal["latest"] | Path = "latest"
    """latest: go on from the newest valid checkpoint of `output`, if there is one; or the folder of
    a checkpoint; false: refuse a folder that holds checkpoints.
    """

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.batch % self.accumulate:
            raise ValueError(f"batch {self.batch} cannot be cut into {self.accumulate} equal parts")
        if self.precision == "fp16" and self.device in ("cpu", "mps"):
            raise ValueError("precision fp16 needs a CUDA device; bf16 serves a CPU")
        return self


def run(config: Path, overrides: list[str]) -> Path:
    """Train as the config says; returns the folder of the exported EMA weights.

    Raises:
        ConfigError: On an unknown option, options that contradict each other or a recipe that
            cannot be applied, NonFiniteError if a loss leaves the finite numbers, OutputError if a
            checkpoint cannot be written.
    """
    quiet()
    options = load_config(TrainOptions, config, overrides)
    accelerator = machine(options)
    if accelerator.device.type == "cpu":
        optim.keep_freed_memory()
    alone = held(options.output) if accelerator.is_main_process else nullcontext()
    try:
        with alone, plainly():
            refuse_foreign(options.output, TrainOptions.model_fields)
            Training(options, accelerator).run()
    finally:
        accelerator.end_training()
    return options.output / "export"


@contextmanager
def plainly() -> Iterator[None]:
    """Raise as ours, which a command tells in a line, what others raise for the user to mend."""
    try:
        yield
    except RecipeError as error:
        raise ConfigError(str(error)) from error
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        raise RestoreError(
            "a process that makes samples was ended from outside, perhaps for want of memory; set "
            "workers lower, or 0, and run again to go on from the last checkpoint"
        ) from error


def machine(options: TrainOptions) -> Accelerator:
    """The device, and the processes that `accelerate launch` started. Raises ConfigError."""
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        raise ConfigError(f"device {options.device}: torch finds no CUDA device; try device=cpu")
    if ":" in options.device:
        torch.cuda.set_device(options.device)
    is_cpu = options.device == "auto" and not torch.accelerator.is_available()
    accelerator = Accelerator(
        cpu=is_cpu or options.device == "cpu",
        mixed_precision="no",  # autocast and the scaler of fp16 are the loop's
        kwargs_handlers=[
            DistributedDataParallelKwargs(find_unused_parameters=True),
            InitProcessGroupKwargs(timeout=PATIENCE),
        ],
    )
    if options.precision == "fp16" and accelerator.device.type != "cuda":
        raise ConfigError("precision fp16 needs a CUDA device; bf16 serves a CPU")
    if accelerator.device.type == "cuda":  # a step's shapes are those of the step before
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    parts = accelerator.num_processes * options.accumulate
    if options.batch % parts:
        raise ConfigError(
            f"batch {options.batch} cannot be shared by {accelerator.num_processes} processes in "
            f"{options.accumulate} parts each; make it a multiple of {parts}"
        )
    return accelerator


def means(found: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Of parts of a batch; a part may lack a loss, where none of its samples has it."""
    names = {name: None for losses in found for name in losses}
    parts = {name: [losses[name] for losses in found if name in losses] for name in names}
    return {name: torch.stack(some).mean().detach() for name, some in parts.items()}


def spoken(numbers: list[int]) -> str:
    """The sample numbers of a part, which are evenly apart."""
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
    return f"samples {numbers[0]} to {numbers[-1]}" + (f" in steps of {step}" if step > 1 else "")


class Losses(nn.Module):
    """A stage's loss as a module, which is what can be spread over processes."""

    def __init__(self, stage: Any):
        super().__init__()
        self.model, self.loss = stage.model, stage.loss

    def forward(self, batch: Any, step: int, part: Part) -> dict[str, Tensor]:
        return self.loss(batch, step, part)


class Training:
    """A run that is set up: stage, optimiser, average, and what an earlier run left of them."""

    def __init__(self, options: TrainOptions, accelerator: Accelerator):
        self.options, self.accelerator = options, accelerator
        self.is_main = accelerator.is_main_process
        with accelerator.main_process_first():
            torch.manual_seed(options.seed)  # the initial weights
            kind = STAGES[options.stage.kind]
            self.stage = kind(options.stage, options.seed, accelerator.device)
        model = self.stage.model
        optim.lay_out(model, options.channels_last, accelerator.device)
        if options.checkpointing:
            optim.save_memory(model)
        groups = optim.groups(self.stage, options.learning_rate)
        self.parameters = [p for group in groups for p in group["params"]]
        self.optimizer = torch.optim.AdamW(
            groups,
            options.learning_rate,
            betas=(0.9, 0.99),
            weight_decay=options.weight_decay,
            fused=accelerator.device.type in ("cpu", "cuda"),
        )
        self.ema = EMAModel(
            self.parameters, decay=options.ema, use_ema_warmup=True, power=0.75, foreach=True
        )
        self.scaler = torch.amp.GradScaler("cuda", enabled=options.precision == "fp16")
        self.state = checkpoint.State(model, self.ema.shadow_params, self.optimizer, self.scaler)
        with accelerator.main_process_first():  # it puts damaged ones aside
            self.start = go_on(options, self.state, self.is_main)
        self.first = self.ema.optimization_step = self.start.step
        with accelerator.main_process_first():  # what it encodes, the others find
            self._prepare()
        self.began = time.monotonic()
        self.passed = self._share_of_time()
        if options.compile:
            optim.compile_networks(model)
        self.losses = accelerator.prepare_model(Losses(self.stage))

    def _prepare(self) -> None:
        """Have the samples made that this run will ask for, where they are made ahead."""
        if prepare := getattr(self.stage.samples, "prepare", None):
            steps = max(0, self.options.steps - self.first)
            prepare(self.start.position, self.start.position + steps * self.options.batch)

    def run(self) -> None:
        o = self.options
        record = self._begin_record() if self.is_main else None
        scores: Scalars = {}
        clock, feed = Clock(), self.feed(self.first, o.steps)
        exported = self.began
        with bar(o.steps, self.first, self.is_main) as advance:
            for step in range(self.first, o.steps):
                losses = self.step(step, feed, clock)
                done = step + 1
                self.passed = self._share_of_time()
                is_last = done == o.steps or self.passed >= 1
                if done % o.log_every == 0 or is_last:
                    values, speed = self._values(losses), clock.read()
                    rate = {"learning_rate": self.optimizer.param_groups[0]["lr"]}
                    if record:
                        record.scalars(done, values | rate | speed)
                    advance(done, values, speed)
                with clock.pausing():
                    if record and (done % o.show_every == 0 or is_last):
                        scores = self._show(record, done)
                    if record and (done % o.save_every == 0 or is_last):
                        self._save(done)
                    if o.export_every_s and time.monotonic() - exported > o.export_every_s:
                        if record and not is_last:
                            self._export(scores)
                        exported = time.monotonic()
                    self.accelerator.wait_for_everyone()
                if is_last:
                    break
        if record and self.first >= o.steps:  # it was done before, and is exported once more
            scores = self._show(record, self.first)
        if record:
            record.close()
            self._export(scores)
            log.info("exported to %s", o.output / "export")
        self.accelerator.wait_for_everyone()

    def _share_of_time(self) -> float:
        """That is spent, by the first process's clock for all; 0 where a run may take any."""
        if self.options.seconds is None:
            return 0.0
        return broadcast_object_list([self._seconds() / self.options.seconds])[0]

    def _export(self, scores: Scalars) -> None:
        """The averaged weights and their card, in the place of an earlier export."""
        o = self.options
        about = model_card.About(
            o.model_dump(mode="json"), scores, self._seconds(), self.accelerator
        )
        with manifest.replacing(o.output / "export") as folder:
            with optim.averaged(self.ema, self.parameters):
                self.stage.export(folder)
            model_card.write(folder, about)

    def _begin_record(self) -> Record:
        out = self.options.output
        write_text(out / "options.json", self.options.model_dump_json(indent=1))
        told = yaml.safe_dump(self.options.model_dump(mode="json"), sort_keys=False)
        write_text(out / "config.yaml", MADE_BY + told)
        if photos := getattr(self.stage.samples, "photos", None):
            photos.refused.keep_in(out / "unreadable.jsonl")
        return Record(out, self.first, self.options.tensorboard)

    def feed(self, first: int, last: int) -> Iterator[tuple[Part, list[int], Any]]:
        """What this process takes of the steps from `first` to before `last`, part by part.

        Gives which part it is, its sample numbers and its batch.
        """
        o, ranks = self.options, self.accelerator.num_processes
        position = self.start.position + (first - self.first) * o.batch
        rank = self.accelerator.process_index
        rows = Rows(position, o.batch, last - first, rank, ranks, o.accumulate)
        pinned = self.accelerator.device.type == "cuda"
        made = loader(self.stage.samples, rows, o.workers, pinned)
        yield from zip(cycle(rows.parts), rows, made, strict=False)

    def step(self, step: int, feed: Iterator, clock: Clock) -> dict[str, Tensor]:
        """One update; returns the losses.

        Raises:
            NonFiniteError: Before any weight has moved.
        """
        o, found, parts = self.options, [], []
        self.optimizer.zero_grad(set_to_none=True)
        rate = optim.rate_at(step, o.steps, o.warmup, o.schedule, self.passed)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * rate
        for count in range(o.accumulate):
            with clock.waiting():
                part, numbers, batch = next(feed)
            reseed(o.seed, step, part)
            kept = dict(batch) if isinstance(batch, dict) else batch
            is_last = count + 1 == o.accumulate
            with nullcontext() if is_last else self.accelerator.no_sync(self.losses):
                with self._autocast():
                    losses = self.losses(batch, step, part)
                    total = torch.stack(list(losses.values())).sum()
                self.scaler.scale(total / o.accumulate).backward()
            found.append(losses)
            parts.append((part, total.detach(), kept, numbers))
        self.scaler.unscale_(self.optimizer)
        norm = torch.stack(
            [
                torch.nn.utils.clip_grad_norm_(group["params"], o.clip).to(total)
                for group in self.optimizer.param_groups
            ]
        ).norm()
        self._refuse_nonfinite(step, parts, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.ema.step(self.parameters)
        clock.images += o.batch
        return means(found)

    def _autocast(self) -> torch.autocast:
        dtype = torch.float16 if self.options.precision == "fp16" else torch.bfloat16
        return torch.autocast(self.accelerator.device.type, dtype, self.options.precision != "fp32")

    def _refuse_nonfinite(self, step: int, parts: list[tuple], norm: Tensor) -> None:
        totals = torch.stack([total for _, total, _, _ in parts])
        # with fp16 a gradient may overflow: its scaler then leaves out the step and scales less
        checked = totals if self.scaler.is_enabled() else torch.cat([totals, norm.reshape(1)])
        is_fine = torch.isfinite(checked).all()
        if self.accelerator.num_processes > 1:  # all stop, or none
            is_fine = self.accelerator.reduce(is_fine.float(), "mean") == 1
        if is_fine:
            return
        folder = self.options.output / f"failed_{step:08d}"
        told = []
        for part, total, batch, numbers in parts:
            if not torch.isfinite(total) or torch.isfinite(totals).all():
                place = folder / f"part_{part.at}" if part.of > 1 else folder
                failed_batch.keep(place, batch, numbers, self.stage.samples)
                told.append(f"{spoken(numbers)}: {total.item()}, see {place}")
        what = "; ".join(told) or "in another process"
        raise NonFiniteError(
            f"step {step}: the loss or its gradient is not finite ({what}). No weight has moved: "
            "look at that batch, lower learning_rate, or set precision to fp32, then run again to "
            "go on from the last checkpoint"
        )

    def _values(self, losses: dict[str, Tensor]) -> Scalars:
        """The losses as all processes have them, each over those where there was one."""
        found = {name: loss.cpu() for name, loss in losses.items()}
        return {name: loss.item() for name, loss in means(gather_object([found])).items()}

    def _show(self, record: Record, done: int) -> Scalars:
        """A grid of samples and their scores, by the averaged weights."""
        with optim.averaged(self.ema, self.parameters):
            rows, scores = self.stage.preview()
        record.scalars(done, scores)
        record.pictures(done, rows)
        log.info("step %d: %s", done, ", ".join(f"{k} {v:.4g}" for k, v in scores.items()))
        return scores

    def _save(self, done: int) -> None:
        o = self.options
        position = self.start.position + (done - self.first) * o.batch
        options = o.model_dump(mode="json")
        progress = checkpoint.Progress(done, position, self._seconds(), options)
        checkpoint.save(o.output, progress, self.state, o.keep)

    def _seconds(self) -> float:
        """That training took, earlier runs included."""
        return self.start.seconds + time.monotonic() - self.began
