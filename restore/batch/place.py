"""Where a run's results go: a folder, or one file."""

from dataclasses import dataclass
from pathlib import Path

from restore.batch.store import HIDDEN, Folder, Store
from restore.errors import UsageError
from restore.file_search import KNOWN


@dataclass(frozen=True)
class Place:
    """The folder of the results, and their name where there is one result.

    file  empty: results keep the names of their sources.
    """

    out: Path
    file: str = ""

    @classmethod
    def of(cls, given: Path) -> "Place":
        """As `-o` says it: a picture's name is a file, unless a folder is called so.

        Raises UsageError for another file.
        """
        if given.suffix.casefold() in KNOWN and not given.is_dir():
            return cls(given.parent, given.name)
        if given.exists() and not given.is_dir():
            raise UsageError(f"{given}: is a file; -o takes a folder, or a picture's name")
        return cls(given)

    @property
    def store(self) -> Store:
        return Folder(self.out)

    @property
    def home(self) -> Path:
        """Where reports are: of one file in a hidden folder beside it, as its folder is not ours.

        Two files in one folder thus never share a report.
        """
        return self.out / HIDDEN / self.file if self.file else self.out

    @property
    def path(self) -> Path:
        return self.out / self.file
