"""A run over a folder by several workers, next to the same run by one process."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from folders import tree
from PIL import Image

from restore import batch, file_search
from restore.batch.worker import RunSpec
from restore.checkpoints import save
from restore.options import UpscaleOptions

TIMES = {"seconds", "load_s"}  # no two runs take the same


@pytest.fixture(scope="session")
def model(stack, tmp_path_factory) -> Path:
    """The tiny stack as a folder, which other processes load."""
    place = tmp_path_factory.mktemp("models") / "tiny"
    save.save(stack, place, "A stack of tests.", torch.float32)
    return place


@pytest.fixture
def photos(tmp_path, pixels):
    """Makes so many small pictures; every hundredth is broken, and so is the third."""

    def make(count: int, side: int = 8) -> Path:
        place = tmp_path / "in"
        for index in range(count):
            path = place / str(index % 7) / f"{index:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if index % 100 == 3:
                path.write_bytes(b"\x89PNG\r\n\x1a\nbroken")
            else:
                Image.fromarray(pixels(side, side + index % 3, index)).save(path)
        return place

    return make


def run(photos: Path, out: Path, model: Path | str, device: str = "cpu", **more):
    """A walk of one step; by nano none, so that a worker starts without diffusers, far sooner."""
    files = file_search.find([photos], out)
    options = UpscaleOptions(scale=1, steps=None if model == "nano" else 1)
    return batch.run(files, options, out, batch.open_model(str(model), device), **more)


class Watch:
    """Looks on, and is told of rows."""

    def __init__(self, on_row=lambda row: None):
        self.keys, self.on_row = [], on_row

    def row(self, row):
        self.keys.append(row["key"])
        self.on_row(row)

    def note(self, text): ...

    def part(self, done, of, what): ...


class Deadly(RunSpec):
    """A run in which one file ends whoever works on it."""

    key = "4/0004.png"

    def open_work(self, *given, **more):
        work = super().open_work(*given, **more)
        make = work.make_next

        def made(job):
            if job.key == self.key:
                os.kill(os.getpid(), signal.SIGKILL)
            return make(job)

        work.making._make = made
        return work


class DeadlyAtOnce(Deadly):
    """A run in which the first file ends whoever works on it, before there is a model."""

    key = "0/0000.png"


def report(out: Path, **same) -> list[dict]:
    """Its rows in their order, without what differs from run to run."""
    rows = [json.loads(line) for line in (out / "report.jsonl").read_text().splitlines()]
    return [{name: row[name] for name in row if name not in TIMES} | same for row in rows]


def check_equal(out: Path, other: Path) -> None:
    assert tree(out) == tree(other)
    assert report(out) == report(other)
