"""A run that ends at any of its calls to the file system leaves nothing wrong behind.

`pytest -m stress tests/test_sweep.py` ends each run at each of its calls; here it is some of them.
"""

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from folders import posix

SCRIPT = Path(__file__).with_name("sweeper.py")
ERRORS = ["ENOSPC", "EIO"]
WAYS = ["kill", *ERRORS, "full"]
CALLS = {"copies": 150, "upscale": 400, "apply": 60, "merge": 20, "evaluate": 100}  # at the least


def swept(what: str, how: str, folder: Path, step: int) -> int:
    """How many calls of a run met their end."""
    command = [sys.executable, SCRIPT, what, how, folder, step]
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(
        list(map(str, command)),
        env=environment,
        capture_output=True,
        text=True,
        cwd=SCRIPT.parents[1],
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1])


@posix
@pytest.mark.parametrize("how", WAYS)
def test_some_calls_of_a_run_may_be_its_last(tmp_path, how):
    assert swept("copies", how, tmp_path, 23) >= 4


@posix
@pytest.mark.parametrize(
    ("what", "how", "step"),
    [("upscale", "EIO", 61), ("apply", "full", 61), ("apply", "EIO", 8)],  # 9: of pairs.json
)
def test_some_calls_of_a_command_may_be_its_last(tmp_path, what, how, step):
    assert swept(what, how, tmp_path, step) >= 2


@posix
@pytest.mark.stress
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("what", "how"),
    # a picture that an evaluation cannot read once is a failed row, so its scores differ
    [pair for pair in product(CALLS, WAYS) if pair not in {("evaluate", e) for e in ERRORS}],
)
def test_any_call_may_be_the_last(tmp_path, what, how):
    calls = swept(what, how, tmp_path, 1)
    assert calls >= CALLS[what] // (4 if how == "full" else 1)  # those that need room are fewer
