"""End a run over files at each of its calls to the file system, in every way, one after another.

    python tests/sweeper.py HOW FOLDER [STEP]    HOW: kill, ENOSPC or EIO; prints how many calls

Each time over an empty output folder, and over older results. Then the same run once more,
undisturbed: nothing may be wrong, torn, left over or lost. A process of its own, without threads,
so that it can fork.
"""

import errno
import json
import os
import shutil
import signal
import sys
from pathlib import Path

from restore.batch import report
from restore.batch.jobs import plan
from restore.batch.journal import HIDDEN, Journal
from restore.batch.runner import run_all
from restore.errors import RestoreError
from restore.file_search import find
from restore.files import TEMPORARY

EVENTS = {
    *("open", "os.rename", "os.remove", "os.mkdir", "os.chmod", "os.rmdir", "os.link"),
    *("os.truncate", "os.scandir", "os.listdir", "fcntl.flock"),
}
NAMES = ("a.png", "b.png", "c.png", "sub/d.png")
watchers = []  # called at each call, while a run is disturbed


def watch(event: str, args: tuple) -> None:
    if event in EVENTS:
        for meet in watchers:
            meet()


def work(job, path):
    data = job.source.read_bytes()[::-1]
    with path.open("wb") as file:
        file.write(data)
        file.flush()
    return {"size_in": [1, 1], "size_out": [4, 4], "warnings": []}


def run(inputs: Path, out: Path, options: str):
    jobs = plan(find([inputs], out), out, lambda source: ".png")
    journal = Journal(out, options, "w", task="upscale")
    return run_all(jobs, work, journal, publish=report.publisher(out))


def check(inputs: Path, out: Path) -> None:
    """Every result is whole, every row true, nothing is left over."""
    for name in NAMES:
        data = (out / name).read_bytes()
        assert data == (inputs / name).read_bytes()[::-1], name
    rows = [json.loads(line) for line in (out / "report.jsonl").read_text().splitlines()]
    assert sorted(row["key"] for row in rows) == sorted(NAMES), rows
    assert all(row["status"] == "done" and row["options"] == "new" for row in rows), rows
    assert not list(out.rglob(f"{TEMPORARY}*")), list(out.rglob(f"{TEMPORARY}*"))
    results = {p.relative_to(out).as_posix() for p in out.rglob("*.png") if HIDDEN not in p.parts}
    assert results == set(NAMES), results
    assert run(inputs, out, "new").finished == len(NAMES)


def disturbed(inputs: Path, out: Path, how: str, nth: int) -> bool:
    """A child runs, and meets its end at call number `nth`; whether it came so far."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) != 0
    left = nth

    def meet() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            if how == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(getattr(errno, how), os.strerror(getattr(errno, how)))

    real = os.fsync

    def fsync(handle: int) -> None:
        meet()
        real(handle)

    os.fsync = fsync
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    watchers.append(meet)
    try:
        run(inputs, out, "new")
    except (RestoreError, OSError):
        os._exit(3)
    except BaseException:
        os._exit(9)
    os._exit(1 if left <= 0 else 0)


def sweep(how: str, folder: Path, step: int) -> int:
    inputs = folder / "in"
    for number, name in enumerate(NAMES):
        (inputs / name).parent.mkdir(parents=True, exist_ok=True)
        (inputs / name).write_bytes(bytes([number]) * 3000)
    run(inputs, folder / "older", "old")  # and whatever is imported on the way
    check_fresh = folder / "fresh"
    run(inputs, check_fresh, "new")
    check(inputs, check_fresh)
    calls = 0
    for older in (None, folder / "older"):
        nth = 1
        while True:
            out = folder / "out"
            shutil.rmtree(out, ignore_errors=True)
            if older:
                shutil.copytree(older, out)
            if not disturbed(inputs, out, how, nth):
                break
            run(inputs, out, "new")
            check(inputs, out)
            nth += step
            calls += 1
    return calls


if __name__ == "__main__":
    sys.addaudithook(watch)
    print(sweep(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 1))
