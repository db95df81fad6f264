"""What an evaluation says: tables, scores.json and scores.csv."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from restore.files import write_text
from restore.metrics.measures import Measure
from restore.metrics.score import Scored, compare, mean

Table = tuple[list[str], list[list[str]]]  # head, rows


@dataclass(frozen=True)
class Group:
    """Folders that were measured against the same originals; the later ones against the first."""

    name: str
    folders: tuple[Scored, ...]

    def comparisons(self, measures: Sequence[Measure]) -> list[dict[str, Any]]:
        first, *others = self.folders
        found = (compare(first, other, m) for other in others for m in measures)
        return [one for one in found if one]


@dataclass(frozen=True)
class Report:
    """All that was measured, and how."""

    groups: tuple[Group, ...]
    measures: tuple[Measure, ...]
    border: int
    absent: tuple[str, ...] = ()  # measures that could not be had, and why

    @property
    def failures(self) -> int:
        return sum(len(one.failed) for group in self.groups for one in group.folders)

    def titled(self) -> Iterator[tuple[str, Scored]]:
        """Every folder with a name that tells it from the others."""
        for group in self.groups:
            for one in group.folders:
                yield f"{group.name}: {one.name}" if group.name else one.name, one


def means(report: Report, folders: Sequence[tuple[str, Scored]]) -> Table:
    """A row a measure, a column a folder: the mean and its 95 % interval."""
    head = ["", *(f"{name} ({len(one.done)})" for name, one in folders)]
    rows = [
        [measure.label, *(told(mean(one, measure), "mean", measure) for _, one in folders)]
        for measure in report.measures
    ]
    return head, rows


def differences(report: Report, group: Group) -> Iterator[Table]:
    """For each folder but the first how it differs from that one, picture by picture."""
    found = group.comparisons(report.measures)
    for other in group.folders[1:]:
        rows = [
            [
                measure.label,
                told(one, "difference", measure),
                *(str(one[name]) for name in ("wins", "ties", "losses")),
                one["verdict"],
            ]
            for measure in report.measures
            for one in found
            if (one["second"], one["measure"]) == (other.name, measure.name)
        ]
        names = f"{other.name} against {group.folders[0].name}"
        yield [names, "mean difference", "wins", "ties", "losses", "verdict"], rows


def told(value: dict[str, Any], name: str, measure: Measure) -> str:
    """25.69 (25.02 .. 26.40)"""
    middle = measure.shown(value[name])
    if value["low"] is None:
        return middle
    return f"{middle} ({measure.shown(value['low'])} .. {measure.shown(value['high'])})"


def to_json(report: Report) -> dict[str, Any]:
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


def _folder(one: Scored, measures: Sequence[Measure]) -> dict[str, Any]:
    return {
        "name": one.name,
        "means": {measure.name: mean(one, measure) for measure in measures},
        "rows": one.rows,
        "unpaired": [str(path) for path in one.unpaired],
        "missing": [str(path) for path in one.missing],
    }


def cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def write(report: Report, out: Path) -> None:
    """OUT/scores.json and OUT/scores.csv, each replaced in one step."""
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
                head = map(cell, (group.name, one.name, row["key"], row["status"]))
                table.writerow([*head, *values, cell(row.get("error", ""))])
    write_text(out / "scores.csv", file.getvalue())
