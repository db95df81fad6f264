"""A run that ends at any of its calls to the file system leaves nothing wrong behind."""

import subprocess
import sys
from pathlib import Path

import pytest
from folders import posix

SCRIPT = Path(__file__).with_name("sweeper.py")


def swept(how: str, folder: Path, step: int) -> int:
    command = [sys.executable, str(SCRIPT), how, str(folder), str(step)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=SCRIPT.parents[1], check=False
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@posix
@pytest.mark.parametrize("how", ["kill", "ENOSPC", "EIO"])
def test_some_calls_of_a_run_may_be_its_last(tmp_path, how):
    assert swept(how, tmp_path, 23) >= 6


@posix
@pytest.mark.slow
@pytest.mark.parametrize("how", ["kill", "ENOSPC", "EIO"])
def test_any_call_of_a_run_may_be_its_last(tmp_path, how):
    assert swept(how, tmp_path, 1) >= 150
