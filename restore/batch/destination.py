"""Where a run's results go: a folder, or one file."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import urlsplit

from restore.batch.bucket import Bucket, mirror
from restore.batch.remote import refuse_local
from restore.batch.store import Folder, Store, reports_of
from restore.errors import UsageError
from restore.file_search import KNOWN
from restore.storage.urls import is_url, redact_url


@dataclass(frozen=True)
class Destination:
    """The folder of the results, and the name if there is only one result.

    Attributes:
        out: The folder; for an object store, the folder on this machine that stands for it.
        file: The name of the one result; empty: results keep the names of their sources.
        url: Of the object store; empty: results go to `out`.
    """

    out: Path
    file: str = ""
    url: str = field(default="", repr=False)  # it may hold a password

    @classmethod
    def parse(cls, given: Path | str) -> "Destination":
        """What `-o` names: a picture's name is a file, unless a folder has this name.

        Raises:
            UsageError: It is any other file, or -.
        """
        if given == "-":
            raise UsageError("-: results are files; name a folder, or ./- for one of this name")
        if is_url(given):
            refuse_local(str(given))
            if not urlsplit(str(given)).path.rpartition("/")[2].count("."):
                return cls(mirror(str(given)), "", str(given))
            told = "is a file by its name; -o takes a folder of an object store, without a dot"
            raise UsageError(f"{redact_url(str(given))}: {told}")
        given = Path(given)
        if given.suffix.casefold() in KNOWN and not given.is_dir():
            return cls(given.parent, given.name)
        if given.exists() and not given.is_dir():
            raise UsageError(f"{given}: is a file; -o takes a folder, or a picture's name")
        return cls(given)

    @cached_property
    def store(self) -> Store:
        return Bucket(self.out, self.url) if self.url else Folder(self.out)

    @property
    def home(self) -> Path:
        """The folder of the reports. A single result has them in a hidden folder beside it.

        So two results in one folder never share a report.
        """
        return reports_of(self.path) if self.file else self.out

    @property
    def path(self) -> Path:
        return self.out / self.file
