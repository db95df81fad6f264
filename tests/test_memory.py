"""The process that drives a run stays small, however many names are listed."""

import gc
import subprocess
import sys
import tracemalloc
from pathlib import Path

import pytest
from folders import ROOT, posix
from listed import drive, refusing

FEW, MANY = 1_000, 6_000
A_NAME = 100  # bytes that each further name may take


def peak(count: int, out: Path, team) -> int:
    """The most bytes that Python's objects took at a time."""
    gc.freeze()  # or the many objects of other tests make collections of garbage rare
    gc.collect()
    tracemalloc.start()
    try:
        assert drive(count, out, team) == count
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        gc.unfreeze()


@pytest.mark.parametrize("team", [None, refusing], ids=["local", "team"])
def test_a_name_takes_next_to_nothing(tmp_path, team, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda *_: None)  # thousands of rows
    monkeypatch.setattr("restore.batch.report.LINES", 100)  # of the page, which stays as it is
    drive(10, tmp_path / "warm", team)
    few, many = (peak(count, tmp_path / str(count), team) for count in (FEW, MANY))
    assert (many - few) / (MANY - FEW) < A_NAME


@posix
@pytest.mark.stress
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("runner", ["local", "team"])
def test_two_hundred_thousand_names_take_what_fifty_thousand_take(runner):
    told = []
    for count in (50_000, 200_000):
        command = [sys.executable, "tests/listed.py", str(count), runner]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        told.append(int(done.stdout))
    assert (told[1] - told[0]) / 150_000 < A_NAME
