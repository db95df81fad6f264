"""What reads names stays small, however many there are."""

import subprocess
import sys

import pytest
from folders import ROOT, posix

FEW, MANY = 1_000, 6_000
WHAT = ["local", "team", "masks", "merge"]
A_NAME = 100  # bytes that each further name may take


def peak(count: int, what: str) -> int:
    """The most bytes that Python's objects took at a time, in a process of their own."""
    command = [sys.executable, "tests/listed.py", str(count), what, "objects"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return int(done.stdout)


@posix
@pytest.mark.parametrize("what", WHAT)
def test_a_name_takes_next_to_nothing(what):
    few, many = (peak(count, what) for count in (FEW, MANY))
    assert (many - few) / (MANY - FEW) < A_NAME


@posix
@pytest.mark.stress
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("what", WHAT)
def test_two_hundred_thousand_names_take_what_fifty_thousand_take(what):
    told = []
    for count in (50_000, 200_000):
        command = [sys.executable, "tests/listed.py", str(count), what]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        told.append(int(done.stdout))
    assert (told[1] - told[0]) / 150_000 < A_NAME
