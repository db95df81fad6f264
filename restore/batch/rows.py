"""Read the rows of a report back, and check each against a schema."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from restore.errors import OutputError, counted
from restore.files import read_lines

log = logging.getLogger(__name__)
Row = dict[str, Any]
Name = tuple[str, str]  # of an input: its key and its source
Sides = Annotated[list[int], Field(min_length=2, max_length=2)]


class _Row(BaseModel):
    """The fields that the program relies on; a row may have more."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False, defer_build=True)

    key: str
    status: Literal["done", "failed", "skipped", "left"]
    source: str = ""
    task: str = ""
    output: str = ""
    output_sha256: str = ""
    source_sha256: str = ""
    picture_sha256: str = ""
    source_md5: str = ""
    options: str = ""
    weights: str = ""
    code: str = ""
    error: str = ""
    trace: str = ""
    frames: dict[str, str] = {}
    words: dict[str, str] = {}
    warnings: list[str] = []
    size_in: Sides = [0, 0]
    size_out: Sides = [0, 0]
    place: Annotated[list[int], Field(min_length=4, max_length=4)] = [0, 0, 0, 0]
    seconds: float = Field(0, ge=0)
    load_s: float = Field(0, ge=0)


NEEDED = {  # status -> the fields that a row must have, beside key and status
    "done": ("output", "output_sha256", "seconds", "warnings"),
    "failed": ("code", "error"),
    "skipped": ("code", "error"),
    "left": ("error",),
}


def name_of(row: Row) -> Name:
    return row["key"], row.get("source", "")


def results(row: Row) -> dict[str, str]:
    """The files of a row that is done: name relative to the report -> sha256.

    Empty for any other row, and if a file is outside the report's folder, as in a merged report.
    """
    if row["status"] != "done":
        return {}
    made = {row["output"]: row["output_sha256"], **row.get("frames", {})}
    return made if all(map(is_inside, made)) else {}


def is_inside(name: str) -> bool:
    """Whether a path, with /, is relative and never leads up."""
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def parsed(line: bytes) -> Row | None:
    """The row of a line; None if the line is torn or is no row of ours."""
    try:
        row = json.loads(line)
        _Row.model_validate(row)
    except (ValueError, RecursionError):  # pydantic's are ValueErrors
        return None
    return row if all(name in row for name in NEEDED[row["status"]]) else None


def read_rows(path: Path) -> Iterator[Row]:
    """Read the rows of a report; other lines are left out, with a warning in the log.

    Raises:
        OutputError: The file exists but cannot be read.
    """
    dropped = 0
    try:
        for line in filter(bytes.strip, read_lines(path)):
            row = parsed(line)
            if row is None:
                dropped += 1
            else:
                yield row
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise OutputError(f"{path}: cannot be read: {error.strerror}") from error
    if dropped:
        log.warning("%s: left out %s, no row of ours", path, counted(dropped, "line"))
