"""Folders of stand-in pictures, work on them that takes no time, and what is left of it."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from restore.batch.jobs import plan
from restore.batch.journal import HIDDEN, Journal
from restore.batch.runner import run_all
from restore.file_search import find
from restore.files import TEMPORARY, UMASK

ROOT = Path(__file__).resolve().parents[1]
posix = pytest.mark.skipif(os.name != "posix", reason="speaks of POSIX")
WORKER = """
import sys, time
from pathlib import Path
from restore.batch.jobs import plan
from restore.batch.journal import Journal
from restore.batch.runner import run_all
from restore.file_search import find
inputs, out, log = map(Path, sys.argv[1:4])
def work(job, path):
    with log.open("a") as file:
        file.write(job.key + "\\n")
    data = job.source.read_bytes()[::-1]
    with path.open("wb") as file:
        file.write(data[:1000])
        file.flush()
        time.sleep(float(sys.argv[4]))
        file.write(data[1000:])
    return {"size_in": [1, 1], "size_out": [4, 4], "warnings": []}
jobs = plan(find([inputs], out), out, lambda source: ".png")
print("begun", flush=True)
run_all(jobs, work, Journal(out, "o", "w"))
"""


def counts(few, many):
    """Two sets of counts for parametrize, the second for `-m stress`."""
    return [few, pytest.param(*many, marks=pytest.mark.stress)]


def fill(folder: Path, count: int) -> Path:
    """`count` files that pass for pictures, in seven folders."""
    for index in range(count):
        path = folder / f"{index % 7}" / f"{index:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(index).randbytes(2000))
    return folder


def copying(job, path):
    """Work: the bytes from last to first."""
    path.write_bytes(job.source.read_bytes()[::-1])
    return {"size_in": [1, 1], "size_out": [4, 4], "warnings": []}


def run(inputs, out, work=copying, exists="skip", **more):
    jobs = plan(find([inputs], out), out, lambda source: ".png")
    return run_all(jobs, work, Journal(out, "o", "w"), exists, **more)


def start(code, *words, **more):
    """A Python process of this checkout."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.Popen(command, env=environment, **more)


def killed_at_random(command, kills, span_s, rng):
    """Start a command so often, killed each time; returns how many kills met it at work."""
    met = 0
    for _ in range(kills):
        with start(*command, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(rng.uniform(0, span_s))
            process.kill()
            met += process.wait() == -9
    return met


def rows(out):
    """The report's rows, by key."""
    lines = (out / "report.jsonl").read_text().splitlines()
    return {row["key"]: row for row in map(json.loads, lines)}


def tree(out):
    """Every result, by name."""
    files = (path for path in out.rglob("*.png") if HIDDEN not in path.parts)
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def check_all(inputs, out):
    """A row for every input, every result whole, nothing in the making."""
    wanted = {p.relative_to(inputs).as_posix(): p.read_bytes()[::-1] for p in inputs.rglob("*.png")}
    assert rows(out).keys() == wanted.keys()
    assert tree(out) == {key: wanted[key] for key in tree(out)}
    assert not list(out.rglob(f"{TEMPORARY}*"))


def closed(folder: Path) -> list[str]:
    """Files of ours that fewer may read or write than the umask says."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [str(path) for path in files if (path.stat().st_mode & 0o777) != 0o666 & ~UMASK]


def all_pairs(folder: Path, options, stack) -> Path:
    """Encode all pairs that the options ask for; returns where they lie."""
    from restore.training.data.stored import PairStore

    return PairStore(options, stack, folder, "digest", 5).fill(range(options.count))
