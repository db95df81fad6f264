"""Where results are kept: a folder of this machine, or one that an object store serves."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Protocol

from restore.batch.jobs import short_digest
from restore.batch.rows import Row, read_rows
from restore.errors import ImageError
from restore.files import ABSENT, STRANGE, replacing, sha256, write_text

HIDDEN = ".restore"  # the folder in the output folder for what its user need not see
NOTES = "rows"  # the folder in it for rows of workers, one file each, until the report has them


def output_folder(reports: Path) -> Path:
    """The output folder of a folder of reports.

    They are in the output folder itself; those of `-o FILE` in `.restore/FILE` below it. Either has
    a `.restore` with a copy of them.
    """
    whole = Path(os.path.abspath(reports))
    top = whole.parent if whole.name == HIDDEN else whole
    top = top.parent.parent if top.parent.name == HIDDEN else top
    return reports if top == whole else top  # as it was spelt


def reports_of(file: Path) -> Path:
    """The folder of the reports of a result that `-o FILE` named."""
    return file.parent / HIDDEN / file.name


class Store(Protocol):
    """The place of a run's results. A name is the path of a file relative to it, with /.

    Attributes:
        out: The folder on this machine that stands for it: the targets of jobs are below.
        at_once: Results that may be on their way to it at a time; 1: it takes no time.
    """

    out: Path
    at_once: int

    def name(self, path: Path) -> str:
        """The name of a target."""
        ...

    def where(self, name: str) -> str:
        """The place of a result, for messages."""
        ...

    def has(self, name: str) -> bool:
        """Whether there is anything of that name."""
        ...

    def digest(self, name: str) -> str | None:
        """sha256 of a result as it lies there; None if there is none.

        Raises OSError if it cannot be read.
        """
        ...

    def make_way(self, name: str) -> None:
        """Make the folder of a result. Raises ImageError if a link leads out of the place."""
        ...

    def refuse_link(self, name: str) -> None:
        """Raise ImageError if the file of that name is only a link to another one."""
        ...

    def making(self, name: str) -> AbstractContextManager[Path]:
        """Lend a file to write to; without an error it then gets the name, in one step."""
        ...

    def remember(self, row: Row) -> None:
        """Keep a row that is in a journal on this machine, if other machines need it too."""
        ...

    def note(self, row: Row) -> None:
        """Keep a row before its result gets its name."""
        ...

    def noted(self, key: str) -> list[Row]:
        """The rows of a key that `note` kept; their worker may have died before it sent them."""
        ...

    def notes(self) -> Iterator[Row]:
        """All rows that `note` kept."""
        ...

    def drop_notes(self, keys: Iterable[str]) -> None:
        """Forget the rows of these keys, since a report has them."""
        ...

    def begin(self, home: Path) -> None:
        """Called before a run; `home` is the folder of its reports."""
        ...

    def end(self, home: Path, ending: str = "") -> None:
        """Called after the run; `ending` is that of its reports' names, such as ".2-of-3"."""
        ...


class Folder:
    """A folder on a disk, which several machines may share."""

    def __init__(self, out: Path):
        self.out, self.at_once = out, 1

    def where(self, name: str) -> str:
        return str(self.out / name)

    def remember(self, row: Row) -> None: ...

    def begin(self, home: Path) -> None: ...

    def end(self, home: Path, ending: str = "") -> None: ...

    def name(self, path: Path) -> str:
        return path.relative_to(self.out).as_posix()

    def has(self, name: str) -> bool:
        return os.path.lexists(self.out / name)

    def digest(self, name: str) -> str | None:
        try:
            return sha256(self.out / name)
        except OSError as error:
            if error.errno in ABSENT | STRANGE:
                return None
            raise

    def make_way(self, name: str) -> None:
        folder = (self.out / name).parent
        if not folder.resolve().is_relative_to(self.out.resolve()):
            problem = f"{folder} is a link that leads out of {self.out}; remove it"
            raise ImageError("LINK", problem)
        folder.mkdir(parents=True, exist_ok=True)

    def refuse_link(self, name: str) -> None:
        path = self.out / name
        if path.is_symlink():
            raise ImageError("LINK", f"{path} is a link, and no result of ours; remove it")

    def making(self, name: str) -> AbstractContextManager[Path]:
        return replacing(self.out / name)

    def note(self, row: Row) -> None:
        path = self._note(row["key"])
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(row) + "\n")

    def noted(self, key: str) -> list[Row]:
        return list(read_rows(self._note(key)))

    def notes(self) -> Iterator[Row]:
        for path in self._notes():
            yield from read_rows(path)

    def drop_notes(self, keys: Iterable[str]) -> None:
        folder = self.out / HIDDEN / NOTES
        if not folder.is_dir():
            return
        for key in keys:
            self._note(key).unlink(missing_ok=True)
        for kept in list(folder.iterdir()):
            with suppress(OSError):  # it holds other rows
                kept.rmdir()

    def _notes(self) -> list[Path]:
        return sorted((self.out / HIDDEN / NOTES).glob("*/*.json"))

    def _note(self, key: str) -> Path:
        return self.out / HIDDEN / note_name(key)


def note_name(key: str) -> str:
    """The path of a key's row, relative to the hidden folder."""
    digest = short_digest(key)
    return f"{NOTES}/{digest[:2]}/{digest}.json"
