"""However a command ends, by whatever streams: the exit code is the README's."""

import io
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from folders import fill, posix, start, tree

from restore.batch.jobs import Job
from restore.batch.prefetch import Prefetcher
from restore.cli.streams import Patient
from restore.errors import CancelledError

ROOT = Path(__file__).resolve().parents[1]
AT_WORK = """
import sys, time
import torch
from restore import cli
from restore.batch.jobs import Job
from restore.batch.prefetch import Prefetcher

def make(job):
    size = 3000
    a = torch.ones(size, size)
    until = time.monotonic() + 200
    while time.monotonic() < until:
        torch.mm(a, a)

def app(**_):
    jobs = [Job(None, key, None) for key in "ab"]
    prefetcher = Prefetcher(jobs, make)
    prefetcher.begin_after(jobs[0], lambda job: True)
    time.sleep(0.5)
    prefetcher.close()
    sys.exit(int(sys.argv[1]))

cli.app = app
sys.exit(cli.main(["upscale"]))
"""
RUN = """
import sys
from contextlib import contextmanager
from pathlib import Path
import typer
from restore import cli
from restore.batch.folder import PreparedRun
from restore.batch.jobs import plan
from restore.batch.journal import Journal
from restore.cli import shared
from restore.cli.model import Model
from restore.cli.console import Console
from restore.file_search import find

@contextmanager
def work(show):
    def make(job, path):
        for step in range(2):
            show.part(step, 2, "walk")
        path.write_bytes(job.source.read_bytes()[::-1])
        return {"size_in": [1, 1], "size_out": [4, 4], "warnings": ["told"]}

    yield make

def app(**_):
    inputs, out = map(Path, sys.argv[1:])
    print("begun", flush=True)
    jobs = plan(find([inputs], out), out, lambda source: ".png")
    journal = Journal(out, "o", "w")
    run = shared.Run(out, 0, "skip", Model(), Console())
    try:
        prepared = PreparedRun(jobs, None, None, journal, "skip", work)
        shared.finish(shared.carry_out(prepared, run), journal, run)
    except typer.Exit as end:
        sys.exit(end.exit_code)

cli.app = app
sys.exit(cli.main(["upscale"]))
"""


@pytest.mark.parametrize("code", [0, 143])
def test_a_thread_inside_torch_does_not_abort_the_process(code):
    began = time.monotonic()
    with start(AT_WORK, code, stderr=subprocess.PIPE) as process:
        said = process.stderr.read()
    assert process.returncode == code and b"terminate" not in said
    assert time.monotonic() - began < 150, "it does not wait for the thread"


@posix
@pytest.mark.parametrize(
    "streams",
    [
        *("> /dev/full", "2> /dev/full", "> /dev/full 2>&1"),
        *(">&-", "2>&-", ">&- 2>&- <&-"),
        "| true",
    ],
)
def test_lost_streams_decide_nothing(tmp_path, streams):
    inputs, out = fill(tmp_path / "in", 5), tmp_path / "out"
    command = f'"$0" -c "$1" "$2" "$3" {streams}; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(
        ["bash", "-c", command, sys.executable, RUN, str(inputs), str(out)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr
    assert len(tree(out)) == 5
    for path in inputs.rglob("*.png"):
        assert path.read_bytes() == tree(out)[path.relative_to(inputs).as_posix()][::-1]


def test_a_name_that_stdout_cannot_encode_costs_no_other_line():
    kept = io.BytesIO()
    patient = Patient(io.TextIOWrapper(kept, encoding="cp1252", write_through=True))
    for text in ("a.png\n", "\u4e2d\xe9.png\n", "c.png\n"):
        assert patient.write(text) == len(text)
    assert kept.getvalue() == b"a.png\n\\u4e2d\xe9.png\nc.png\n"


def test_what_was_asked_of_a_closed_thread_is_never_waited_for():
    jobs = [Job(None, key, Path(key)) for key in "ab"]
    prefetcher = Prefetcher(jobs, lambda job: job.key)
    prefetcher.close()
    with pytest.raises(CancelledError):
        prefetcher.take(jobs[0])
