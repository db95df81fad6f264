"""The process that drives a run stays small, however many names are listed."""

import subprocess
import sys

import pytest
from folders import ROOT, posix

FEW, MANY = 1_000, 6_000
A_NAME = 100  # bytes that each further name may take


def peak(count: int, runner: str) -> int:
    """The most bytes that Python's objects took at a time, in a process of their own."""
    command = [sys.executable, "tests/listed.py", str(count), runner, "objects"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return int(done.stdout)


@posix
@pytest.mark.parametrize("runner", ["local", "team"])
def test_a_name_takes_next_to_nothing(runner):
    few, many = (peak(count, runner) for count in (FEW, MANY))
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
