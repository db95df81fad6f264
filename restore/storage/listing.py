"""Files that were found, in the order of their keys. A list of any length takes the same memory."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from restore.storage.database import TemporaryDatabase, to_bytes, to_text

SCHEMA = """
CREATE TABLE met(nth INTEGER PRIMARY KEY, place BLOB UNIQUE, taken INTEGER,
                 key BLOB, path BLOB, skip TEXT, url BLOB, size INTEGER, md5 TEXT);
"""
IN_ORDER = """
CREATE TABLE file AS SELECT key, path, skip, url, size, md5 FROM met WHERE taken ORDER BY key, nth
"""


@dataclass(frozen=True)
class Found:
    """A file to work on, or one that is skipped.

    Attributes:
        path: Where it is.
        key: The path relative to the input folder, with /.
        skip: Why it is skipped: JUNK, NOT_A_PICTURE, NOT_A_FILE or LINK. Empty if it is not.
        url: Its URL, if it is not on a disk.
        size: Bytes, for a URL.
        md5: MD5 of the file, if a store lists it; else empty.
    """

    path: Path
    key: str
    skip: str = ""
    url: str = ""
    size: int = 0
    md5: str = ""


class Listing(Sequence[Found]):
    """Files, sorted by their keys, and each once.

    Args:
        met: (what tells a file from all others, the file); the first of the same counts.
        takes: Whether a file of this key is taken.

    Attributes:
        met: How many there were, taken or not.
        has_pictures: Whether any of them is taken and not skipped.
    """

    def __init__(
        self, met: Iterable[tuple[str, Found]], takes: Callable[[str], bool] = lambda key: True
    ):
        self._kept = TemporaryDatabase(SCHEMA)
        self._kept.add_all(
            "INSERT OR IGNORE INTO met(place, taken, key, path, skip, url, size, md5)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (
                    *(to_bytes(place), takes(file.key), to_bytes(file.key)),
                    *(to_bytes(str(file.path)), file.skip, to_bytes(file.url), file.size, file.md5),
                )
                for place, file in met
            ),
        )
        self.met = self._count("SELECT count(*) FROM met")
        self._kept.run(IN_ORDER)
        self._kept.run("DROP TABLE met")
        self._length = self._count("SELECT count(*) FROM file")
        self.has_pictures = bool(self._count("SELECT count(*) FROM file WHERE skip = ''"))

    def _count(self, query: str) -> int:
        counted = self._kept.one(query)
        assert counted
        return counted[0]

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Found]:
        query = (
            "SELECT rowid, key, path, skip, url, size, md5 FROM file WHERE rowid > ? ORDER BY rowid"
        )
        return (_file(row) for row in self._kept.pages(query))

    @overload
    def __getitem__(self, index: int) -> Found: ...

    @overload
    def __getitem__(self, index: slice) -> list[Found]: ...

    def __getitem__(self, index: int | slice) -> Found | list[Found]:
        if isinstance(index, slice):
            return [self[nth] for nth in range(*index.indices(len(self)))]
        query = "SELECT rowid, key, path, skip, url, size, md5 FROM file WHERE rowid = ?"
        row = self._kept.one(query, 1 + index + (len(self) if index < 0 else 0))
        if row is None:
            raise IndexError(index)
        return _file(row)


def kept(files: Sequence[Found], takes: Callable[[str], bool]) -> Sequence[Found]:
    """The files whose keys are taken, in their order."""
    if not isinstance(files, Listing):
        return [file for file in files if takes(file.key)]
    return Listing((str(nth), file) for nth, file in enumerate(files) if takes(file.key))


def _file(row: tuple[Any, ...]) -> Found:
    _, key, path, skip, url, size, md5 = row
    return Found(Path(to_text(path)), to_text(key), skip, to_text(url), size, md5)
