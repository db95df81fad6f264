"""Refuse a run in which two results would get one name, or one the name of an input."""

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from restore.database import TemporaryDatabase, to_bytes, to_text
from restore.errors import UsageError

if TYPE_CHECKING:
    from restore.batch.jobs import Job

SHOWN = 5  # clashes in an error
SCHEMA = """
CREATE TABLE input(real BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE wanted(name BLOB PRIMARY KEY, nth INTEGER, source BLOB) WITHOUT ROWID;
"""


def refuse_collisions(jobs: "Iterable[Job]") -> None:
    """Raise UsageError if two jobs want one file, or one wants the place of an input.

    Args:
        jobs: They are gone through twice.
    """
    names = TemporaryDatabase(SCHEMA)
    names.add_all(
        "INSERT OR IGNORE INTO input VALUES (?)",
        ((to_bytes(os.path.realpath(job.source)),) for job in jobs if job.source),
    )
    clashes, count = [], 0
    for nth, job in enumerate(jobs):
        for path in [] if job.skip else [job.target, *job.frames]:
            wanted = to_bytes(_folded(path)), nth, to_bytes(str(job.source))
            if not names.run("INSERT OR IGNORE INTO wanted VALUES (?, ?, ?)", *wanted):
                first = names.one("SELECT nth, source FROM wanted WHERE name = ?", wanted[0])
                assert first
                if first[0] != nth:
                    count += 1
                    told = f"{to_text(first[1])} and {job.source} would both become {path}"
                    clashes = [*clashes, told][:SHOWN]
            if names.one("SELECT 1 FROM input WHERE real = ?", to_bytes(os.path.realpath(path))):
                raise UsageError(f"{path}: a result would replace it; give another -o")
    if clashes:
        more = f"\nand {count - SHOWN} more" if count > SHOWN else ""
        mend = (
            "rename one of each pair, or give them -o folders of their own; where only the "
            "extensions differ, --on-collision keep-ext keeps them in the results' names"
        )
        raise UsageError("\n".join(clashes) + more + f"\n{mend}")


def _folded(path: Path) -> str:
    """A name as disks compare it that ignore case and Unicode form."""
    return unicodedata.normalize("NFC", str(path)).casefold()
