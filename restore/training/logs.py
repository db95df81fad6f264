"""Output of a run: a progress bar or plain lines, a CSV, trackers, grids of samples."""

import csv
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from restore.files import replacing
from restore.training import trackers

log = logging.getLogger(__name__)
SOON_S, LATER_S = 5, 20  # till the first line on the progress, and between later ones
Part = TypeVar("Part")
Scalars = dict[str, float]


class Clock:
    """Measures images a second, and the share of the time spent waiting for data."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Start a new measurement."""
        self.images, self.waited, self.began, self.paused = 0, 0.0, time.perf_counter(), 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time of the block as waiting for data."""
        asked = time.perf_counter()
        yield
        self.waited += time.perf_counter() - asked

    @contextmanager
    def pausing(self) -> Iterator[None]:
        """Time that is not training: previews, checkpoints."""
        began = time.perf_counter()
        yield
        self.paused += time.perf_counter() - began

    def read(self) -> Scalars:
        """Return images a second and the share of waiting since the last call, and start anew."""
        elapsed = time.perf_counter() - self.began - self.paused
        speed = {"images_per_s": self.images / elapsed, "data_wait": self.waited / elapsed}
        self.restart()
        return speed


class Record:
    """OUT/log.csv with (step, name, value) lines, OUT/preview_*.png, and both for the trackers.

    Args:
        folder: The run's folder.
        first: Step from which the run continues; later lines, of a run that was killed, are
            dropped.
        accelerator: Its trackers have begun.
    """

    def __init__(self, folder: Path, first: int, accelerator: Accelerator):
        self.folder, self.file, self.accelerator = folder, folder / "log.csv", accelerator
        # a run that was done already measures its last step once more, for its export's card
        self.told = _drop_after(self.file, first) if self.file.exists() else set()

    def scalars(self, step: int, values: Scalars) -> None:
        """Append a step's values to log.csv, and give them to the trackers, unless an earlier run
        has.
        """
        values = {name: x for name, x in values.items() if (step, name) not in self.told}
        if not values:
            return
        with self.file.open("a", newline="") as file:
            csv.writer(file).writerows((step, name, f"{x:.6g}") for name, x in values.items())
        trackers.log_scalars(self.accelerator, step, values)

    def pictures(self, step: int, rows: list[Tensor]) -> None:
        """rgb batches, one under another, as one picture; no picture if there are none."""
        if not rows:
            return
        made = image_grid(rows)
        file = self.folder / f"preview_{step:08d}.png"
        with replacing(file) as path:
            made.save(path)
        trackers.log_picture(self.accelerator, step, made, file)


def _drop_after(file: Path, step: int) -> set[tuple[int, str]]:
    """Drop the lines after a step; returns the names of the values that the step itself has."""
    with file.open(newline="") as lines:
        rows = list(csv.reader(lines))
    kept = [row for row in rows if len(row) == 3 and row[0].isdigit() and int(row[0]) <= step]
    if kept != rows:
        with replacing(file) as path, path.open("w", newline="") as lines:
            csv.writer(lines).writerows(kept)
    return {(step, name) for at, name, _ in kept if int(at) == step}


def average_losses(found: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """What is minimised: the mean of each loss over parts of a batch, 0 where one lacks it."""
    names = {name: None for losses in found for name in losses}
    parts = {name: [losses[name] for losses in found if name in losses] for name in names}
    return {name: torch.stack(some).sum().detach() / len(found) for name, some in parts.items()}


def image_grid(rows: list[Tensor]) -> Image.Image:
    """One picture of rows of pictures.

    Args:
        rows: rgb (B, 3, H, W) each.
    """
    lines = [torch.cat(list(rgb), -1) for rgb in rows]
    pixels = (torch.cat(lines, 1).clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    return Image.fromarray(np.ascontiguousarray(pixels.cpu().numpy()))


def track(parts: Iterable[Part], total: int, what: str, each: int = 1) -> Iterator[Part]:
    """Yield the parts and show the progress: a bar on a terminal, elsewhere a line now and then.

    Args:
        parts: What is iterated over.
        total: Number of items in all parts.
        what: What is done, for the display.
        each: Items in one part.
    """
    console = Console()
    if console.is_terminal:
        columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as progress:
            task = progress.add_task(what, total=total)
            for part in parts:
                yield part
                progress.advance(task, each)
        return
    began = shown_at = time.monotonic()
    pause = SOON_S
    for number, part in enumerate(parts, 1):
        yield part
        done, now = min(total, number * each), time.monotonic()
        if now - shown_at > pause and done < total:
            shown_at, pause = now, LATER_S
            speed = done / (now - began)
            left = (total - done) / speed
            print(f"{what}: {done:,} of {total:,}, {speed:.1f} a second, {left:.0f} s left")


@contextmanager
def progress_bar(steps: int, first: int, is_shown: bool = True):
    """A progress bar with losses, images a second and the time left; yields the function that
    updates it.

    Args:
        steps: Number of all steps.
        first: Steps done before.
        is_shown: Whether this process shows it.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), disable=not is_shown) as progress:
        task = progress.add_task("training", total=steps, completed=first)

        def advance(done: int, losses: Scalars, speed: Scalars) -> None:
            values = {k: f"{v:.4f}" for k, v in losses.items()}
            values |= {k: f"{v:.2f}" for k, v in speed.items()}
            line = "  ".join(f"{k} {v}" for k, v in values.items())
            progress.update(task, completed=done, description=line)
            if is_shown and not progress.console.is_terminal:
                text = f"{time.strftime('%H:%M:%S')} step {done}  {line}"
                progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

        yield advance
        progress.update(task, completed=steps)
