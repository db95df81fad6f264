"""Which files of an output folder are ours, so that we may replace them: content decides."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from restore.batch.rows import parsed
from restore.errors import UsageError
from restore.files import is_missing, is_ours_or_absent, read_lines

REPORT = re.compile(r"report(\.\d+-of-\d+)?\.jsonl")
PAGE = re.compile(
    rb'<meta name="generator" content="restore-toolkit">'
    rb"|:root \{ color-scheme: light; --ink: #1a1a1a; --dim: #666; --line: #d8d8d8; \}"  # before
)
SHEET = re.compile(rb"\x89PNG\r\n\x1a\n.*tEXtSoftware\0restore-toolkit", re.DOTALL)
HEAD = 4096  # bytes at the start of a page or sheet, which name its maker
SUMMARY = {"done", "failed", "skipped", "seconds"}
SCORES = {"measures", "border", "sets"}


def refuse_reports(out: Path, ending: str = "") -> None:
    """Raise UsageError if a run's report would replace a file that is not a report of ours.

    Args:
        ending: Of the names of a shard's reports, such as ".2-of-3".
    """
    _refuse(path for path in reports_in(out, ending) if not _is_report(path))
    if not _is_json(out / f"summary{ending}.json", SUMMARY):
        _refuse([out / f"summary{ending}.json"])
    refuse_page(out / f"report{ending}.html")


def reports_in(out: Path, ending: str) -> list[Path]:
    return [folder / f"report{ending}.jsonl" for folder in (out, out / ".restore")]


def refuse_scores(out: Path) -> None:
    """Raise UsageError if the scores of an evaluation would replace files that are not ours."""
    if not _is_json(out / "scores.json", SCORES):
        _refuse([out / "scores.json"])
    table = out / "scores.csv"
    if not is_ours_or_absent(table, lambda data: data.startswith(b"set,folder,key,status")):
        _refuse([table])
    refuse_page(out / "report.html")


def refuse_page(path: Path) -> None:
    """Raise UsageError if a file is there that is not a page of ours."""
    if not is_ours_or_absent(path, lambda data: PAGE.search(data[:HEAD]) is not None):
        _refuse([path])


def refuse_sheet(path: Path) -> None:
    """Raise UsageError if a file is there that is not a PNG of a preview of ours."""
    if not is_ours_or_absent(path, lambda data: SHEET.match(data[:HEAD]) is not None):
        _refuse([path])


def _refuse(paths: Iterable[Path]) -> None:
    for path in paths:
        raise UsageError(
            f"{path}: is no report of ours and would be replaced; move it away, or give another -o"
        )


def _is_report(path: Path) -> bool:
    """One of our rows is enough: other lines may be torn."""
    count, is_torn = 0, False
    try:
        for line in () if path.is_symlink() else read_lines(path):
            if line.strip(b" \0"):
                if parsed(line):
                    return True
                count, is_torn = count + 1, line.startswith(b'{"key": "')
    except OSError as error:
        return is_missing(path, error)
    return not path.is_symlink() and (count == 0 or (count == 1 and is_torn))


def _is_json(path: Path, keys: set[str]) -> bool:
    def is_ours(data: bytes) -> bool:
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            return False
        return isinstance(value, dict) and value.keys() >= keys

    return is_ours_or_absent(path, is_ours)
