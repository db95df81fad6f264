"""What the first run of a user ends with: three lines, once."""

import sys
from pathlib import Path

from restore.cli.said import Said
from restore.errors import printable
from restore.files import cache

LINES = (
    "open {page}: it shows each picture before and after",
    "run the same command again to go on after a stop: finished files are skipped",
    "-s 1 restores without enlarging; `restore upscale --help` shows more (this is said once)",
)


def first_use(page: Path, said: Said) -> None:
    """Tell it on a terminal, if it was not told before; nobody is told twice."""
    if said.quiet or said.rows or not sys.stderr.isatty():
        return
    told = cache() / "first_use"
    try:
        told.parent.mkdir(parents=True, exist_ok=True)
        told.touch(exist_ok=False)
    except OSError:  # told before, or it cannot be remembered that it was
        return
    for line in LINES:
        said.note(line.format(page=printable(str(page))))
