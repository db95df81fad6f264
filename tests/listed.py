"""A run over names that are only listed, and the memory that the process which drives it takes.

Run as a program it prints bytes: python tests/listed.py COUNT RUNNER [objects]
With `objects` they are those of Python's objects alone.
"""

import os
import resource
import sys
import tempfile
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

from restore.batch import folder, report
from restore.batch.destination import Destination
from restore.batch.models import OpenedModel
from restore.batch.runner import run_by
from restore.batch.step import make_failed_row
from restore.errors import ImageError
from restore.options import UpscaleOptions
from restore.storage.listing import Found, Listing


def names(count: int) -> Listing:
    """So many names in folders of a thousand; no file has them."""
    keys = (f"{nth % (count // 1000 + 1):04}/photo_{nth:08}.jpg" for nth in range(count))
    return Listing((key, Found(Path("/nowhere/photos", key), key)) for key in keys)


def refusing(offered, journal):
    """A team that fails with every other job, and then finds that the run must end."""
    for nth, job in enumerate(offered):
        if nth % 2:
            yield job, make_failed_row(job, ImageError("UNREADABLE", "no such file"), 0)


def drive(count: int, out: Path, team=None) -> int:
    """Plan and do a run over so many names; return the number of rows in its report.

    Args:
        team: Does the work; None: the local runner, with a picture that cannot be read for each.
    """
    stack = SimpleNamespace(parts=(), device="cpu")
    model = OpenedModel("none", lambda: stack, "weights", {})
    prepared = folder.prepare(
        names(count), UpscaleOptions(scale=2), Destination(out), lambda: model
    )
    if team is None:
        prepared.run()
    else:
        run_by(team, prepared.jobs, prepared.journal, workers=2)
    with (out / "report.jsonl").open() as file:
        return sum(1 for _ in file)


if __name__ == "__main__":
    count, runner, *what = int(sys.argv[1]), *sys.argv[2:]
    os.fsync = lambda *_: None  # of two hundred thousand rows it takes minutes
    report.LINES = 100  # of the page, which stays as it is
    team = refusing if runner == "team" else None
    with tempfile.TemporaryDirectory() as place:
        if what:
            drive(10, Path(place, "warm"), team)
            # pathlib interns names, and that table grows by megabytes at a time: let it grow now
            [sys.intern(f"name {nth}") for nth in range(200_000)]
            tracemalloc.start()
        assert drive(count, Path(place, "out"), team) == count
    peak = tracemalloc.get_traced_memory()[1] if what else 0
    print(peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
