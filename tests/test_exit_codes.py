"""Every way in which a run ends has the README's exit code, whatever becomes of its streams."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from folders import posix
from PIL import Image
from test_faults import SLOW

ROOT = Path(__file__).resolve().parents[1]
ENDS = {"whole": 0, "broken": 1, "first": 1, "nothing": 2, "full": 3, "int": 130, "term": 143}
SIGNALS = {"int": signal.SIGINT, "term": signal.SIGTERM}
STREAMS = ["", ">&-", "2>&-", ">&- 2>&-", "> /dev/full 2>&1"]


def ended(folder: Path, how: str, streams: str) -> tuple[int, str]:
    """(exit code, what it said on stderr, if that was open)."""
    inputs, out = folder / "in", folder / "out"
    inputs.mkdir(parents=True)
    for number in range(40 if how in SIGNALS else 3):
        rgb = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(rgb).save(inputs / f"{number:02}.png")
    if how in ("broken", "first"):
        (inputs / "00.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    words = [str(folder / "gone") if how == "nothing" else str(inputs), "-o", str(out)]
    words += ["--fail-fast"] if how == "first" else []
    limit = "ulimit -f 1; " if how == "full" else ""
    command = f'{limit}exec "$0" -c "$1" upscale "${{@:2}}" {streams}'
    process = subprocess.Popen(
        ["bash", "-c", command, sys.executable, SLOW, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if how in SIGNALS:
        report, until = out / "report.jsonl", time.monotonic() + 60
        while not (report.exists() and report.stat().st_size) and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(SIGNALS[how])
    _, said = process.communicate(timeout=120)
    return process.returncode, said


def check(folder: Path, how: str, streams: str) -> None:
    code, said = ended(folder, how, streams)
    assert code == ENDS[how], (code, said)
    assert "Traceback" not in said and "terminate called" not in said and "Exception" not in said


@posix
@pytest.mark.parametrize("how", ["first", "full", "term"])
def test_an_end_has_its_exit_code(tmp_path, how):
    check(tmp_path, how, "")


@posix
@pytest.mark.slow
@pytest.mark.timeout(1200)  # twenty processes, on a machine that is busy
@pytest.mark.parametrize("streams", STREAMS)
@pytest.mark.parametrize("how", ENDS)
def test_an_end_has_its_exit_code_twenty_times(tmp_path, how, streams):
    for number in range(20):
        check(tmp_path / str(number), how, streams)
