"""Results of an evaluation as tables, scores.json and scores.csv."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from restore.files import write_text
from restore.metrics.measures import Measure
from restore.metrics.score import ScoredFolder, compare, estimate_mean

Table = tuple[list[str], list[list[str]]]  # head, rows


@dataclass(frozen=True)
class Group:
    """Folders measured against the same originals.

    Attributes:
        name: Name of the set.
        folders: The folders; the first is the baseline that the others are compared with.
    """

    name: str
    folders: tuple[ScoredFolder, ...]

    def comparisons(self, measures: Sequence[Measure]) -> list[dict[str, Any]]:
        """Compare each folder with the first, by each measure; see score.compare."""
        first, *others = self.folders
        found = (compare(first, other, m) for other in others for m in measures)
        return [one for one in found if one]


@dataclass(frozen=True)
class Report:
    """The result of an evaluation.

    Attributes:
        groups: One for each set.
        measures: The measures that were computed.
        border: Pixels left out on each side.
        absent: Measures that could not be computed, and why.
    """

    groups: tuple[Group, ...]
    measures: tuple[Measure, ...]
    border: int
    absent: tuple[str, ...] = ()

    @property
    def failures(self) -> int:
        """Number of pictures that could not be made or measured."""
        return sum(len(one.failed) for group in self.groups for one in group.folders)

    def titled(self) -> Iterator[tuple[str, ScoredFolder]]:
        """Iterate over all folders with names that are unique in the report."""
        for group in self.groups:
            for one in group.folders:
                yield f"{group.name}: {one.name}" if group.name else one.name, one


def mean_table(report: Report, folders: Sequence[tuple[str, ScoredFolder]]) -> Table:
    """Build a table of means with 95 % intervals: a row per measure, a column per folder."""
    head = ["", *(f"{name} ({len(one.done)})" for name, one in folders)]
    rows = [
        [
            measure.label,
            *(format_interval(estimate_mean(one, measure), "mean", measure) for _, one in folders),
        ]
        for measure in report.measures
    ]
    return head, rows


def difference_tables(report: Report, group: Group) -> Iterator[Table]:
    """Build a table for each folder but the first: how it differs from the first one."""
    comparisons = group.comparisons(report.measures)
    for folder in group.folders[1:]:
        rows = [
            [
                measure.label,
                format_interval(comparison, "difference", measure),
                *(str(comparison[name]) for name in ("wins", "ties", "losses")),
                comparison["verdict"],
            ]
            for measure in report.measures
            for comparison in comparisons
            if (comparison["second"], comparison["measure"]) == (folder.name, measure.name)
        ]
        names = f"{folder.name} against {group.folders[0].name}"
        yield [names, "mean difference", "wins", "ties", "losses", "verdict"], rows


def format_interval(value: dict[str, Any], name: str, measure: Measure) -> str:
    """Format the value called `name` and its interval, as in "25.69 (25.02 .. 26.40)"."""
    middle = measure.format(value[name])
    if value["low"] is None:
        return middle
    return f"{middle} ({measure.format(value['low'])} .. {measure.format(value['high'])})"


def to_json(report: Report) -> dict[str, Any]:
    """Convert a report to the content of scores.json."""
    return {
        "measures": {
            m.name: {"label": m.label, "better": "higher" if m.higher else "lower"}
            for m in report.measures
        },
        "border": report.border,
        "absent": list(report.absent),
        "sets": [
            {
                "name": group.name,
                "folders": [_folder(one, report.measures) for one in group.folders],
                "comparisons": group.comparisons(report.measures),
            }
            for group in report.groups
        ],
    }


def _folder(one: ScoredFolder, measures: Sequence[Measure]) -> dict[str, Any]:
    return {
        "name": one.name,
        "means": {measure.name: estimate_mean(one, measure) for measure in measures},
        "rows": one.rows,
        "unpaired": [str(path) for path in one.unpaired],
        "missing": [str(path) for path in one.missing],
    }


def escape_cell(text: str) -> str:
    """Quote a text that a spreadsheet would take for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def write(report: Report, out: Path) -> None:
    """Write OUT/scores.json and OUT/scores.csv, each in one step."""
    write_text(out / "scores.json", json.dumps(to_json(report), indent=1) + "\n")
    file = io.StringIO()
    names = [measure.name for measure in report.measures]
    table = csv.writer(file, lineterminator="\n")
    table.writerow(["set", "folder", "key", "status", *names, "error"])
    for group in report.groups:
        for one in group.folders:
            for row in one.rows:
                scores = row.get("scores", {})
                values = (scores.get(name) for name in names)
                head = map(escape_cell, (group.name, one.name, row["key"], row["status"]))
                table.writerow([*head, *values, escape_cell(row.get("error", ""))])
    write_text(out / "scores.csv", file.getvalue())
