"""The training loop: when to step, log, show and save. What a step does belongs to its stage."""

import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from diffusers.training_utils import EMAModel
from torch import Tensor, nn

from restore.checkpoints import manifest
from restore.checkpoints.load import silence_libraries
from restore.config import load_config
from restore.errors import NonFiniteError
from restore.files import locked, write_text
from restore.images.allocator import keep_freed_memory
from restore.training import checkpoint, failed_batch, model_card, optim, sharding, trackers
from restore.training.data.loading import Rows, build_loader
from restore.training.logs import Clock, Record, Scalars, average_losses, progress_bar
from restore.training.options import TrainOptions
from restore.training.ownership import MADE_BY, refuse_foreign
from restore.training.processes import settle_precision, setup_accelerator, user_errors
from restore.training.registry import STAGES
from restore.training.resume import choose, resume_run
from restore.training.rng import Part, reseed
from restore.training.stage import PhotoSamples, PreparedSamples, Stage

log = logging.getLogger(__name__)


def run(config: Path, overrides: list[str]) -> Path:
    """Train as the config says.

    Args:
        config: The YAML file.
        overrides: `key=value` pairs, with dots within keys.

    Returns:
        The folder of the exported EMA weights.

    Raises:
        ConfigError: If an option is unknown, options contradict each other, or a recipe cannot be
            applied.
        NonFiniteError: If a loss is not finite.
        OutputError: If a checkpoint, or another file of the run, cannot be written.
    """
    silence_libraries()
    options = load_config(TrainOptions, config, overrides)
    accelerator = setup_accelerator(options)
    options = settle_precision(options, accelerator)
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    alone = locked(options.output) if accelerator.is_main_process else nullcontext()
    try:
        with alone, user_errors(options.output):
            refuse_foreign(options.output, TrainOptions.model_fields)
            Training(options, accelerator).run()
    finally:
        trackers.end(accelerator)
        accelerator.end_training()
    return options.output / "export"


class Losses(nn.Module):
    """A stage's loss as a module, which can be distributed over processes."""

    def __init__(self, stage: Stage):
        super().__init__()
        self.model, self.loss = stage.model, stage.loss

    def forward(self, batch: Any, step: int, part: Part) -> dict[str, Tensor]:
        losses = self.loss(batch, step, part)
        if sharding.is_sharded(self):
            name = next(iter(losses))
            losses[name] = sharding.use_all(losses[name], self.model)
        return losses


class Training:
    """A run that is set up: stage, optimiser, EMA, and what an earlier run left of them.

    Args:
        options: The options of the run.
        accelerator: Device and processes.
    """

    def __init__(self, options: TrainOptions, accelerator: Accelerator):
        self.options, self.accelerator = options, accelerator
        self.is_main = accelerator.is_main_process
        with accelerator.main_process_first():  # it puts damaged ones aside
            chosen = choose(options, self.is_main)
        with accelerator.main_process_first():
            torch.manual_seed(options.seed)  # the initial weights
            build = STAGES[options.stage.kind]
            self.stage: Stage = build(options.stage, options.seed, accelerator.device)
        model = self.stage.model
        is_cut = options.shard and accelerator.num_processes > 1
        optim.set_memory_format(model, not is_cut and options.channels_last, accelerator.device)
        if options.checkpointing:
            optim.enable_checkpointing(model)
        self.losses: nn.Module = Losses(self.stage)
        if is_cut:
            sharding.shard(self.losses, accelerator)
        self.lends = is_cut or self.is_main  # weights to what the first process shows and writes
        groups = optim.parameter_groups(self.stage, options.learning_rate)
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
        self.start = resume_run(options, self.state, chosen)
        self.first = self.ema.optimization_step = self.start.step
        self.last = self.first if self._is_done() else options.steps
        with accelerator.main_process_first():  # what it encodes, the others find
            self._prepare()
        self.began = time.monotonic()
        self.passed = self._share_of_time()
        if options.compile:
            optim.compile_networks(model)
        if not is_cut:
            self.losses = accelerator.prepare_model(self.losses)

    def _is_done(self) -> bool:
        """Whether an earlier run took all the steps, or all the time."""
        steps, seconds = self.options.steps, self.options.seconds
        is_over = seconds is not None and self.start.seconds >= seconds
        return self.first >= steps or (self.first > 0 and is_over)

    def _prepare(self) -> None:
        """Have the samples made that this run will ask for, where they are made ahead."""
        if isinstance(self.stage.samples, PreparedSamples):
            first, steps = self.start.position, self.last - self.first
            self.stage.samples.prepare(first, first + steps * self.options.batch)

    def run(self) -> None:
        o = self.options
        record = self._begin_record() if self.is_main else None
        scores: Scalars = {}
        clock, feed = Clock(), self.feed(self.first, self.last)
        exported = self.began
        with progress_bar(o.steps, self.first, self.is_main) as advance:
            for step in range(self.first, self.last):
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
                    if self.lends and (done % o.show_every == 0 or is_last):
                        scores = self._show(record, done)
                    if self.lends and (done % o.save_every == 0 or is_last):
                        self._save(done)
                    if self._is_time_to_export(exported):
                        if self.lends and not is_last:
                            self._export(scores)
                        exported = time.monotonic()
                    self.accelerator.wait_for_everyone()
                if is_last:
                    break
        if self.lends and self.first == self.last:  # it was done before, and is exported once more
            scores = self._show(record, self.first)
        if self.lends:
            self._export(scores)
        if record:
            log.info("exported to %s", o.output / "export")
        self.accelerator.wait_for_everyone()

    def _share_of_time(self) -> float:
        """That is spent, by the first process's clock for all; 0 where a run may take any."""
        if self.options.seconds is None:
            return 0.0
        return broadcast_object_list([self._seconds() / self.options.seconds])[0]

    def _is_time_to_export(self, exported: float) -> bool:
        """Whether that time is long past, by the first process's clock for all."""
        if self.options.export_every_s is None:
            return False
        is_time = time.monotonic() - exported > self.options.export_every_s
        return broadcast_object_list([is_time])[0]

    def _export(self, scores: Scalars) -> None:
        """The averaged weights and their card, in the place of an earlier export."""
        o = self.options
        with sharding.average_weights(self.losses, self.ema, self.parameters):
            if not self.is_main:
                return
            values = o.model_dump(mode="json")
            about = model_card.About(values, scores, self._seconds(), self.accelerator)
            with manifest.replacing(o.output / "export") as folder:
                self.stage.export(folder)
                model_card.write(folder, about)

    def _begin_record(self) -> Record:
        out = self.options.output
        write_text(out / "options.json", self.options.model_dump_json(indent=1))
        text = yaml.safe_dump(self.options.model_dump(mode="json"), sort_keys=False)
        write_text(out / "config.yaml", MADE_BY + text)
        samples = self.stage.samples
        if isinstance(samples, PhotoSamples) and samples.photos is not None:
            samples.photos.refused.keep_in(out / "unreadable.jsonl")
        values = self.options.model_dump(mode="json")
        trackers.begin(self.accelerator, out, self.options.project, values, self.first)
        return Record(out, self.first, self.accelerator)

    def feed(self, first: int, last: int) -> Iterator[tuple[Part, list[int], Any]]:
        """The parts that this process takes of the steps from `first` to before `last`.

        Yields:
            Which part it is, its sample numbers, and its batch.
        """
        o, ranks = self.options, self.accelerator.num_processes
        position = self.start.position + (first - self.first) * o.batch
        rank = self.accelerator.process_index
        rows = Rows(position, o.batch, last - first, rank, ranks, o.accumulate)
        pinned = self.accelerator.device.type == "cuda"
        made = build_loader(self.stage.samples, rows, o.workers, pinned)
        yield from zip(cycle(rows.parts), rows, made, strict=False)

    def step(self, step: int, feed: Iterator, clock: Clock) -> dict[str, Tensor]:
        """One update.

        Args:
            step: Number of the update, from 0.
            feed: What `feed` returns.
            clock: Counts images and the time of waiting.

        Returns:
            The losses, averaged over the parts.

        Raises:
            NonFiniteError: If a loss or gradient is not finite; no weight has changed then.
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
            with nullcontext() if is_last else self._no_sync():
                with self._autocast():
                    losses = self.losses(batch, step, part)
                    total = torch.stack(list(losses.values())).sum()
                self.scaler.scale(total / o.accumulate).backward()
            found.append(losses)
            parts.append((part, total.detach(), kept, numbers))
        self.scaler.unscale_(self.optimizer)
        norm = torch.stack(
            [self._clip(group["params"]) for group in self.optimizer.param_groups]
        ).norm()
        self._refuse_nonfinite(step, parts, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.ema.step(self.parameters)
        clock.images += o.batch
        return average_losses(found)

    def _clip(self, parameters: list[Tensor]) -> Tensor:
        """Clip their gradients; returns the norm that they had."""
        norm = torch.nn.utils.clip_grad_norm_(parameters, self.options.clip)
        return sharding.gather(norm).to(self.accelerator.device)

    def _no_sync(self) -> AbstractContextManager:
        if sharding.is_sharded(self.losses):
            return sharding.no_sync(self.losses)
        return self.accelerator.no_sync(self.losses)

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
        found = []
        for part, total, batch, numbers in parts:
            if not torch.isfinite(total) or torch.isfinite(totals).all():
                place = folder / f"part_{part.at}" if part.of > 1 else folder
                failed_batch.keep(place, batch, numbers, self.stage.samples)
                found.append(
                    f"{failed_batch.describe_numbers(numbers)}: {total.item()}, see {place}"
                )
        what = "; ".join(found) or "in another process"
        raise NonFiniteError(
            f"step {step}: the loss or its gradient is not finite ({what}). No weight has moved: "
            "look at that batch, lower learning_rate, or set precision to fp32, then run again to "
            "go on from the last checkpoint"
        )

    def _values(self, losses: dict[str, Tensor]) -> Scalars:
        """The losses as all processes have them."""
        found = {name: loss.cpu() for name, loss in losses.items()}
        return {name: loss.item() for name, loss in average_losses(gather_object([found])).items()}

    def _show(self, record: Record | None, done: int) -> Scalars:
        """A grid of samples and their scores, by the averaged weights, in the first process."""
        with sharding.average_weights(self.losses, self.ema, self.parameters):
            if record is None:
                return {}
            rows, scores = self.stage.preview()
        record.scalars(done, scores)
        record.pictures(done, rows)
        if scores:
            log.info("step %d: %s", done, ", ".join(f"{k} {v:.4g}" for k, v in scores.items()))
        return scores

    def _save(self, done: int) -> None:
        o = self.options
        position = self.start.position + (done - self.first) * o.batch
        about = o.model_dump(mode="json"), self.start.contents
        progress = checkpoint.Progress(done, position, self._seconds(), *about)
        checkpoint.save(o.output, progress, self.state, o.keep, is_writer=self.is_main)

    def _seconds(self) -> float:
        """That training took, earlier runs included."""
        return self.start.seconds + time.monotonic() - self.began
