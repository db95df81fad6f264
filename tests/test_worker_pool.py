"""What dies in a worker costs one call: crashes, exits, hangs and memory bombs that are real."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import hostile
import numpy as np
import pytest

from restore.errors import ImageError
from restore.images.worker_pool import Workers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="signals and memory limits")
MANY = pytest.mark.slow


@pytest.fixture(scope="module")
def workers():
    made = Workers(2, memory=2**28)
    yield made
    made.close()


def code_of(workers, function, limit_s=30.0):
    with pytest.raises(ImageError) as caught:
        workers.call(limit_s, function)
    return caught.value.code, str(caught.value)


def test_arrays_cross_whole_and_can_be_written_to(workers):
    array = np.arange(10**6, dtype=np.uint16).reshape(100, -1)
    back = workers.call(30, hostile.double, array)
    assert (back == array * 2).all() and back.flags.writeable
    assert workers.call(30, hostile.double, np.zeros((0, 3))).shape == (0, 3)


@pytest.mark.parametrize("times", [2, pytest.param(10, marks=MANY)])
@pytest.mark.parametrize(
    ("how", "code", "told"),
    [
        (hostile.segfault, "CRASHED", "SIGSEGV"),
        (hostile.leave, "CRASHED", "exit code 7"),
        (hostile.hang, "TIMEOUT", "longer than 0.5 s"),
        (hostile.hoard, "OOM", "more than 256 MiB"),
    ],
)
def test_a_worker_that_dies_costs_its_call_and_no_other(workers, how, code, told, times):
    for _ in range(times):
        before = time.monotonic()
        found, text = code_of(workers, how, 0.5 if code == "TIMEOUT" else 30)
        assert found == code and told in text
        assert time.monotonic() - before < 20
        assert workers.call(30, hostile.double, np.ones(3)).sum() == 6


def test_what_a_function_raises_comes_back_as_it_was(workers, tmp_path):
    before = workers.call(30, hostile.identity)
    with pytest.raises(OSError, match="No space") as caught:
        workers.call(30, hostile.fill_disk, tmp_path)
    assert caught.value.errno == 28 and caught.value.filename == str(tmp_path)
    with pytest.raises(ZeroDivisionError) as caught:
        workers.call(30, hostile.stumble)
    assert "in stumble" in caught.value.__notes__[0]
    assert workers.call(30, hostile.identity) == before


def test_no_more_than_so_many_work_at_once_and_one_is_enough_for_calls_in_turn():
    workers = Workers(2)
    assert len({workers.call(30, hostile.identity) for _ in range(3)}) == 1
    found = []
    calls = [
        threading.Thread(target=lambda: found.append(workers.call(30, hostile.identity)))
        for _ in range(6)
    ]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert len(found) == 6 and len(set(found)) <= 2
    workers.close()
    for number in set(found):
        with pytest.raises(ProcessLookupError):
            os.kill(number, 0)


def test_a_worker_starts_without_torch_and_ends_with_its_caller():
    code = (
        "import pathlib; from restore.images import sandbox\n"
        "from restore.images.worker_pool import shared_workers\n"
        "sandbox.probe(pathlib.Path('tests/samples/portrait.jpg'))\n"
        "import hostile; print(shared_workers().call(30, hostile.identity))\n"
        "has_torch = \"'torch' in __import__('sys').modules\"\n"
        "print(shared_workers().call(30, eval, has_torch), flush=True)\n"
        "import os; os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": "tests"},
        capture_output=True,
        text=True,
        check=False,
    )
    number, has_torch = done.stdout.split()
    assert has_torch == "False", done.stderr
    for _ in range(600):
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("the worker outlives its caller")


SCRIPT = """
from pathlib import Path
from restore import batch, file_search
from restore.options import UpscaleOptions

print("once")
out = Path("out")
files = file_search.find([Path({photo!r})], out)
summary = batch.run(files, UpscaleOptions(scale=2), out, batch.open_model("nano"){devices})
print(summary.done)
"""


@pytest.mark.parametrize("devices", ["", ', devices=["cpu"]'])
def test_processes_do_not_run_the_script_again(tmp_path, devices):
    photo = Path(__file__).parent / "samples" / "portrait.jpg"
    script = tmp_path / "plain.py"
    script.write_text(SCRIPT.format(photo=str(photo), devices=devices))
    command = [sys.executable, script]
    told = subprocess.check_output(command, cwd=tmp_path, text=True, timeout=300)
    assert told.split() == ["once", "1"]
