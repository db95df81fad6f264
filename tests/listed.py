"""A run over names that are only listed, and the memory that the process which drives it takes.

Run as a program it prints bytes: python tests/listed.py COUNT WHAT [objects]
WHAT is local or team, a run by this process or by workers; masks, a plan with a folder of masks; or
merge, one report of two. With `objects` the bytes are those of Python's objects alone.
"""

import json
import os
import resource
import sys
import tempfile
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

from restore.batch import folder, report
from restore.batch.destination import Destination
from restore.batch.holes import Holes
from restore.batch.models import OpenedModel
from restore.batch.runner import run_by
from restore.batch.step import make_failed_row
from restore.errors import ImageError
from restore.options import InpaintOptions, UpscaleOptions
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


def masks(count: int, place: Path) -> Path:
    """A folder of masks for every second of the names, and for as many that nobody has."""
    for nth, file in enumerate(names(count)):
        mask = place / file.key if nth % 2 else place / "none" / file.key
        mask.parent.mkdir(parents=True, exist_ok=True)
        mask.touch()
    return place


def prepare(count: int, out: Path, options, holes=Holes()) -> folder.PreparedFiles:
    stack = SimpleNamespace(parts=(), device="cpu")
    model = OpenedModel("none", lambda: stack, "weights", {})
    return folder.prepare(names(count), options, Destination(out), lambda: model, holes=holes)


def pair(count: int, place: Path) -> int:
    """Plan a run with a folder of masks; return the number of names."""
    given = masks(count, place / "masks")
    prepared = prepare(count, place / "out", InpaintOptions(), Holes(str(given)))
    assert sum(1 for _ in prepared.unpaired()) == (count + 1) // 2
    assert sum(bool(job.others) for job in prepared.jobs) == count // 2
    return len(prepared.jobs)


def drive(count: int, out: Path, team=None) -> int:
    """Plan and do a run over so many names; return the number of rows in its report.

    Args:
        team: Does the work; None: the local runner, with a picture that cannot be read for each.
    """
    prepared = prepare(count, out, UpscaleOptions(scale=2))
    if team is None:
        prepared.run()
    else:
        run_by(team, prepared.jobs, prepared.journal, workers=2)
    return lines(out)


def lines(out: Path) -> int:
    with (out / "report.jsonl").open() as file:
        return sum(1 for _ in file)


def merge(count: int, place: Path) -> int:
    """Merge two reports, of which each has most of the names; return the rows of the one."""
    for part in ("a", "b"):
        (place / part).mkdir(parents=True)
        with (place / part / "report.jsonl").open("w") as file:
            for nth, one in enumerate(names(count)):
                if nth % 10 != ord(part) % 10:
                    row = {"key": one.key, "source": str(one.path), "code": "OOM", "error": part}
                    file.write(json.dumps({**row, "status": "failed"}) + "\n")
    report.merge([place / "a", place / "b"], place / "out")
    return lines(place / "out")


def do(what: str, count: int, place: Path) -> int:
    place.mkdir()
    if what == "merge":
        return merge(count, place)
    if what == "masks":
        return pair(count, place)
    return drive(count, place / "out", refusing if what == "team" else None)


if __name__ == "__main__":
    count, what, *objects = int(sys.argv[1]), *sys.argv[2:]
    os.fsync = lambda *_: None  # of two hundred thousand rows it takes minutes
    report.LINES = 100  # of the page, which stays as it is
    with tempfile.TemporaryDirectory() as place:
        if objects:
            do(what, 10, Path(place, "warm"))
            # pathlib interns names, and that table grows by megabytes at a time: let it grow now
            [sys.intern(f"name {nth}") for nth in range(1_000_000)]
            tracemalloc.start()
        assert do(what, count, Path(place, "all")) == count
    peak = tracemalloc.get_traced_memory()[1] if objects else 0
    print(peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
