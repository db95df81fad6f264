"""Ten thousand small files: a run that has nothing to do is quick, and memory stays flat."""

import hashlib
import json
import os
import sys

import pytest
from folders import ROOT, posix, rows
from PIL import Image

pytestmark = [posix, pytest.mark.stress, pytest.mark.timeout(3600)]
COUNT = 10_000
BAR_S = 10  # of processor time
STAND_IN = """
import sys
from swept import stand_in
from restore import cli
stand_in(in_process=False)
sys.exit(cli.main(sys.argv[1:]))
"""
REAL = "import sys; from restore import cli; sys.exit(cli.main(sys.argv[1:]))"


def ran(code, *words):
    """(exit code, seconds of processor time, the most MB in memory) of a command of its own."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(ROOT / "tools")])
    command = [sys.executable, "-c", code, *map(str, words)]
    child = os.fork()
    if not child:
        out = os.open(os.devnull, os.O_WRONLY)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.execve(sys.executable, command, {**os.environ, "PYTHONPATH": path})
    _, status, used = os.wait4(child, 0)
    return os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def pictures(folder, count):
    folder.mkdir()
    for number in range(count):
        Image.new("RGB", (8, 8), (number % 256, number // 256, 9)).save(folder / f"{number:05}.png")
    return folder


def pretend(inputs, out):
    """Finish the folder as the row of one finished file says that a run would."""
    [row] = rows(out).values()
    made = (out / row["output"]).read_bytes()
    with (out / "report.jsonl").open("a") as report:
        for path in sorted(inputs.glob("*.png"))[1:]:
            (out / path.name).write_bytes(made)
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            told = {"key": path.name, "output": path.name, "source": str(path)}
            told |= {"source_sha256": digest, "picture_sha256": digest}
            report.write(json.dumps({**row, **told}) + "\n")


def test_a_run_over_what_is_finished_is_quick(tmp_path):
    inputs, out = pictures(tmp_path / "in", COUNT), tmp_path / "out"
    words = ["upscale", "-s", 1, "-o", out]
    assert ran(REAL, *words, inputs, "--include", "00000.png")[0] == 0
    pretend(inputs, out)
    code, seconds, peak = ran(REAL, *words, inputs)
    summary = json.loads((out / "summary.json").read_text())
    print(f"\n{seconds:.1f} s of processor time, {summary['seconds']} s, {peak:.0f} MB")
    assert code == 0 and summary["finished"] == COUNT
    assert seconds < BAR_S


def test_a_run_over_what_is_skipped_is_quick(tmp_path):
    inputs, out = pictures(tmp_path / "in", 1), tmp_path / "out"
    for number in range(COUNT):
        (inputs / f"{number:05}.txt").write_text("mine")
    words = ["upscale", "-s", 1, "-o", out, inputs]
    for first in (True, False):
        code, seconds, peak = ran(REAL, *words)
        summary = json.loads((out / "summary.json").read_text())
        print(f"\n{seconds:.1f} s of processor time, {summary['seconds']} s, {peak:.0f} MB")
        assert code == 0 and summary["skipped"] == COUNT and summary["done"] == first
        assert seconds < BAR_S


def test_memory_does_not_grow_with_the_number_of_files(tmp_path):
    peaks = []
    for count in (300, 1500):
        inputs = pictures(tmp_path / f"in{count}", count)
        code, seconds, peak = ran(STAND_IN, "upscale", inputs, "-o", tmp_path / f"out{count}")
        print(f"\n{count} files: {seconds:.1f} s of processor time, {peak:.1f} MB")
        assert code == 0
        peaks.append(peak)
    assert (peaks[1] - peaks[0]) / 1200 * COUNT < 30, "MB for ten thousand"
