"""A database in a temporary file: what a run must remember of millions of names, off the memory."""

import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from restore.errors import OutputError

PAGE = 500  # rows that are read at a time


class TemporaryDatabase:
    """An SQLite database that nobody else can open, and that is gone with its last user.

    Its memory is SQLite's page cache, 2 MB; the rest is in the folder for temporary files. Any
    thread may use it. Texts are kept as bytes, since file names may hold bytes that are no UTF-8.

    Args:
        schema: The statements that make its tables.
    """

    def __init__(self, schema: str):
        self._lock = threading.Lock()
        self._is_broken = False
        self._connection = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = OFF")  # nobody needs it after a crash
        self._connection.executescript(schema)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other threads out.

        Raises:
            OutputError: There is no room for the file, or there was none before: without a journal
                the tables may lack anything since then, so nothing may be made of them.
        """
        with self._lock:
            try:
                if self._is_broken:
                    raise sqlite3.DatabaseError("it could not be written")
                yield
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
                    raise  # a mistake of ours
                self._is_broken = True
                where = "the folder for temporary files"
                mend = "make room there, or name another one by TMPDIR"
                raise OutputError(f"{where} cannot be used: {error}; {mend}") from error

    def run(self, statement: str, *values: Any) -> int:
        """Change something; return the number of changed rows."""
        with self._alone():
            return self._connection.execute(statement, values).rowcount

    def add(self, statement: str, *values: Any) -> int:
        """Insert one row; return its number."""
        with self._alone():
            number = self._connection.execute(statement, values).lastrowid
        assert number is not None
        return number

    def add_all(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        """Insert rows as they come. They may not come from this database."""
        with self._alone():
            self._connection.execute("BEGIN")
            self._connection.executemany(statement, rows)
            self._connection.execute("COMMIT")

    def all(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a query, which are few."""
        with self._alone():
            return self._connection.execute(query, values).fetchall()

    def one(self, query: str, *values: Any) -> tuple[Any, ...] | None:
        """The first row of a query; None if there is none."""
        with self._alone():
            return self._connection.execute(query, values).fetchone()

    def pages(self, query: str) -> Iterator[tuple[Any, ...]]:
        """The rows of a query of any length; the tables may change meanwhile.

        Args:
            query: Its first column is a positive number by which it is ordered. It ends with
                `> ? ORDER BY` that number.
        """
        last = 0
        while rows := self.all(f"{query} LIMIT {PAGE}", last):
            yield from rows
            last = rows[-1][0]


def to_bytes(text: str) -> bytes:
    """A text as it is kept. Bytes are in the order of the texts."""
    return text.encode("utf-8", "surrogatepass")


def to_text(data: bytes) -> str:
    """A text that was kept."""
    return data.decode("utf-8", "surrogatepass")
