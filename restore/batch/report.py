"""The report as a page: failed files first, then each picture before and after.

All text in it is escaped. The page stays small for any run: it has pictures of the first few
hundred files and a line for each of the first thousands; report.jsonl has all rows.
"""

import base64
import json
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from heapq import nsmallest
from pathlib import Path

from restore.batch import ownership, template, views
from restore.batch.folder_lock import alone_in, as_output_error
from restore.batch.journal import Reported, reports
from restore.batch.rows import Row, read_rows
from restore.batch.store import output_folder
from restore.errors import UsageError, printable
from restore.files import write_lines, write_text
from restore.storage.database import TemporaryDatabase, to_bytes

BYTES = 8_000_000  # of pictures in a page
LINES = 5000
ORDER = ("failed", "left", "done", "skipped")  # of the page
GOOD = ("left", "skipped", "failed", "done")  # worst first: the better of two rows on a file counts
# row    the best row of each input so far, as JSON; worth: its status in GOOD
# lined  these rows in the order of the report
MERGED = """
CREATE TABLE row(id INTEGER PRIMARY KEY, key BLOB, source BLOB, worth INTEGER, data TEXT,
                 UNIQUE(key, source));
CREATE TABLE lined(place INTEGER PRIMARY KEY, id INTEGER);
"""


def publisher(out: Path, ending: str = "") -> Callable[[Collection[Row], Row], None]:
    """Return a function that writes the page of a run into its folder."""

    def publish(rows: Collection[Row], summary: Row) -> None:
        write_page(out / f"report{ending}.html", rows, summary, [out])

    return publish


def write_page(path: Path, rows: Collection[Row], summary: Row, homes: Sequence[Path]) -> None:
    """Write the page of these rows in one step.

    Args:
        path: Of the page.
        rows: Of the report.
        summary: The counts and the time of the run.
        homes: Folders of reports, which may hold the small pictures that the page shows.
    """
    from jinja2 import Environment  # only pages need it
    from markupsafe import Markup

    counted = Counter(row["status"] for row in rows)
    ranked = nsmallest(  # as the first of all rows, sorted
        LINES, rows, key=lambda row: (ORDER.index(row["status"]), not row.get("warnings"))
    )
    page_rows = [_make_page_row(row) for row in ranked]
    left = BYTES
    for row, line in zip(ranked, page_rows, strict=False):
        if left > 0 and row["status"] == "done":
            pictures = _pictures(row, homes)
            line.update(pictures)
            left -= sum(len(data) for data in pictures.values() if isinstance(data, str))
    parts = [
        (f"{status} ({count})", [line for line in page_rows if line["status"] == status])
        for status in ORDER
        if (count := counted[status])
    ]
    counts = ", ".join(f"{count} {name}" for name, count in _counts(summary).items() if count)
    summary_line = f"{counts or 'nothing to do'}; {summary['seconds']:.0f} s" + (
        f"; stopped early: {summary['stopped']}" if summary.get("stopped") else ""
    )
    html = (
        Environment(autoescape=True)
        .from_string(template.PAGE)
        .render(
            title=printable(f"Report of {path.parent.name or path.parent}"),
            summary=summary_line,
            parts=parts,
            more=len(rows) - len(page_rows),
            has_pairs=any("crops" in line for line in page_rows),
            policy=template.POLICY,
            script=Markup(template.SCRIPT),  # ours; it contains no text of a row
        )
    )
    with as_output_error(path):
        write_text(path, html)


def _counts(summary: Row) -> dict[str, int]:
    names = ("failed", "left", "done", "finished", "skipped")
    return {name: summary[name] for name in names if name in summary}


def _make_page_row(row: Row) -> dict[str, object]:
    """The text that the page shows for a row."""
    sizes = [f"{row[size][1]}x{row[size][0]}" for size in ("size_in", "size_out") if size in row]
    facts = [row["code"]] if row.get("code") else []
    if row["status"] == "done":
        facts = [" → ".join(sizes), f"{row['seconds']:.1f} s"]
        if "load_s" in row:
            facts.append(f"{row['load_s']:.1f} s of it to load the model")
    texts = [row["error"]] if "error" in row else row.get("warnings", [])
    return {
        "status": row["status"],
        "name": printable(row["key"]),
        "is_bad": row["status"] == "failed",
        "facts": [printable(str(fact)) for fact in facts if fact],
        "notes": [printable(text) for text in texts],
    }


def _pictures(row: Row, homes: Sequence[Path]) -> dict[str, object]:
    """The small pictures that the page shows for a row, if they exist."""
    found: dict[str, object] = {}
    thumb = _data(row["key"], homes, "thumbs")
    if not thumb:
        return found
    found["thumb"] = thumb
    _, _, height, width = row.get("place", (0, 0, 0, 0))
    if 0 < height <= views.CROP[0] and 0 < width <= views.CROP[1]:
        crops = _data(row["key"], homes, "crops")
        found |= {"crops": crops, "height": height, "width": width} if crops else {}
    return found


def _data(key: str, homes: Sequence[Path], what: str) -> str:
    for home in homes:
        try:
            data = views.path_of(home, key, what).read_bytes()
        except OSError:
            continue
        return "data:image/jpeg;base64," + base64.b64encode(data).decode()
    return ""


def merge(given: Sequence[Path], out: Path) -> Row:
    """Merge several reports, such as those of shards, into one in `out`; return its summary.

    Args:
        given: Reports, or folders that hold some.
        out: A folder; the merged report names outputs relative to it.

    Raises:
        UsageError: There is no report with a row, or `out` holds one that is not among `given`.
    """
    files = [path for one in given for path in (sorted(reports(one)) if one.is_dir() else [one])]
    missing = [str(path) for path in given if not path.exists()]
    if missing or not files:
        raise UsageError(f"{', '.join(missing or map(str, given))}: no report.jsonl there")
    merged = {path.resolve() for path in files}
    ownership.refuse_reports(out)
    foreign = [path for path in reports(out) if path.resolve() not in merged]
    if foreign:
        raise UsageError(f"{foreign[0]}: would be lost; merge it too, or give another -o")
    rows = _best(
        row for path in files for row in _moved(read_rows(path), output_folder(path.parent), out)
    )
    if not len(rows):
        raise UsageError(
            f"{', '.join(map(str, files[:5]))}: no row of a run there; nothing to merge"
        )
    counts: Counter[str] = Counter()
    seconds = 0.0
    for row in rows:
        counts[row["status"]] += 1
        seconds += row.get("seconds", 0)
    summary = {**{name: counts[name] for name in GOOD}, "seconds": round(seconds, 3)}
    homes = dict.fromkeys(path.parent for path in files)
    with alone_in(out):
        with as_output_error(out):
            write_lines(out / "report.jsonl", rows.lines())
            write_text(out / "summary.json", json.dumps(summary, indent=2) + "\n")
        write_page(out / "report.html", rows, summary, list(homes))
    return summary


def _best(rows: Iterable[Row]) -> Reported:
    """The best row of each input, the latest of equals, sorted by key; they are in a file."""
    kept = TemporaryDatabase(MERGED)
    kept.add_all(
        "INSERT INTO row(key, source, worth, data) VALUES (?, ?, ?, ?)"
        " ON CONFLICT(key, source) DO UPDATE SET worth = excluded.worth, data = excluded.data"
        " WHERE excluded.worth >= worth",
        (
            (
                *(to_bytes(row["key"]), to_bytes(row.get("source", ""))),
                *(GOOD.index(row["status"]), json.dumps(row)),
            )
            for row in rows
        ),
    )
    kept.run("INSERT INTO lined(id) SELECT id FROM row ORDER BY key, id")
    return Reported(kept, "lined JOIN row USING (id)")


def _moved(rows: Iterable[Row], old: Path, new: Path) -> Iterator[Row]:
    """The rows, with the paths of their outputs relative to `new` instead of `old`."""

    def path(name: str) -> str:
        return Path(os.path.relpath(old / name, new)).as_posix()

    for row in rows:
        if "output" in row:
            row["output"] = path(row["output"])
        if "frames" in row:
            row["frames"] = {path(name): digest for name, digest in row["frames"].items()}
        yield row
