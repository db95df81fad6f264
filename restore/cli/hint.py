"""Three lines of advice after a user's first run, printed only once."""

import sys
from pathlib import Path

from restore.cli.console import Console
from restore.errors import printable
from restore.files import home_folder

LINES = (
    "open {page}: it shows each picture before and after",
    "run the same command again to go on after a stop: finished files are skipped",
    "-s 1 restores without enlarging; `restore upscale --help` shows more (this is said once)",
)


def first_use(page: Path, console: Console) -> None:
    """Print the advice on a terminal, unless it was printed before."""
    if console.quiet or console.rows or not sys.stderr.isatty():
        return
    try:
        marker = home_folder("cache") / "first_use"
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch(exist_ok=False)
    except OSError:  # printed before, or we could not record it
        return
    for line in LINES:
        console.note(line.format(page=printable(str(page))))
