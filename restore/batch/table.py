"""The rows of a run as a Parquet table, for queries over millions of them."""

import json
import sys
from typing import Any

from restore.batch.folder_lock import as_output_error
from restore.batch.journal import Journal
from restore.batch.rows import Row
from restore.files import replacing

NAME = "report{}.parquet"
GROUP = 10_000  # rows in memory
TEXTS = ("key", "status", "source", "output", "code", "error", "task", "options", "weights")
SUMS = ("source_sha256", "output_sha256")


class Table:
    """Rows in the order in which they were done; the file is complete once the run has ended.

    Fields without a column are in `row`, as JSON. An input that several runs did is in the table of
    each of them; report.jsonl has its latest row.
    """

    def __init__(self, journal: Journal):
        self.path = journal.home / NAME.format(journal.ending)
        self.rows: list[Row] = []

    def __enter__(self) -> "Table":
        import pyarrow as pa
        from pyarrow import parquet

        texts = [(name, pa.string()) for name in (*TEXTS, *SUMS)]
        sides = [(name, pa.int32()) for name in ("height_in", "width_in", "height", "width")]
        self._schema = pa.schema([*texts, *sides, ("seconds", pa.float64()), ("row", pa.string())])
        self._lent = replacing(self.path)
        with as_output_error(self.path):
            self._writer = parquet.ParquetWriter(self._lent.__enter__(), self._schema)
        return self

    def add(self, row: Row) -> None:
        self.rows.append(row)
        if len(self.rows) == GROUP:
            self._write()

    def _write(self) -> None:
        import pyarrow as pa

        if self.rows:
            lines = [_line(row) for row in self.rows]
            self._writer.write_table(pa.Table.from_pylist(lines, self._schema))
            self.rows.clear()

    def __exit__(self, *error: Any) -> None:
        """Give the table its name; after an error the old one stays, rather than half of this."""
        try:
            with as_output_error(self.path):
                if error[0] is None:
                    self._write()
                self._writer.close()
        except BaseException:
            self._lent.__exit__(*sys.exc_info())
            raise
        with as_output_error(self.path):
            self._lent.__exit__(*error)


def _line(row: Row) -> dict[str, Any]:
    texts = {name: _spelt(row[name]) for name in (*TEXTS, *SUMS) if name in row}
    height_in, width_in = row.get("size_in", (None, None))
    height, width = row.get("size_out", (None, None))
    sizes = {"height_in": height_in, "width_in": width_in, "height": height, "width": width}
    return {**texts, **sizes, "seconds": row.get("seconds"), "row": json.dumps(row)}


def _spelt(text: str) -> str:
    """Escape names that are not UTF-8: an Arrow string cannot hold a lone surrogate."""
    return text.encode("utf-8", "backslashreplace").decode()
