"""Results of the benchmark of words: tables, contact sheets and JSON."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.words import INPUT, NONE, RIGHT, TABLE, WRONG, Case, Group, Settings
from restore.files import replacing, write_text
from restore.metrics import figures
from restore.metrics.measures import Measure
from restore.metrics.score import ScoredFolder, bootstrap_interval, compare, estimate_mean

SHOWN = 6  # pictures of a sheet
LEGEND = """right: what was done, in training's words; wrong: another picture's words, the most
unlike, or clean. In the _grain tables photos have film grain, which the truth keeps: right says
so, wrong tells of it as damage. Rows with words: the mean difference to none, its 95 % interval.
"""


def measure_change(group: Group, name: str) -> dict[str, Any]:
    """Measure how far a wording changes the result: {mean, low, high, most} in levels of 255."""
    apart = [
        float(np.abs(case.results[name].astype(float) - case.results[NONE]).mean())
        for case in group.cases
    ]
    low, high = bootstrap_interval(apart) or (None, None)
    return {"mean": float(np.mean(apart)), "low": low, "high": high, "most": max(apart)}


def markdown(groups: Sequence[Group]) -> str:
    """Build a table per group: scores without words, and the differences of other wordings."""
    lines = [LEGEND]
    for group in groups:
        heads = [group.name, *(measure.label for measure in TABLE), "moves it by, of 255"]
        lines += [_line(heads), _line(["---"] * len(heads))]
        for one in group.scored:
            cells = [format_cell(group, one, measure) for measure in TABLE]
            is_worded = one.name not in (INPUT, NONE)
            apart = measure_change(group, one.name) if is_worded else None
            lines.append(_line([one.name, *cells, _span(apart, "mean", ".2g") if apart else ""]))
        lines.append("")
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def format_cell(group: Group, one: ScoredFolder, measure: Measure) -> str:
    """Format a score, or the gain of a wording, with a verdict if the digits show a difference."""
    digits = measure.digits + 1  # words move little
    gap = compare(group.of(NONE), one, measure)
    if one.name in (INPUT, NONE) or gap is None:
        value = estimate_mean(one, measure)["mean"]
        return "-" if value is None else f"{value:.{digits}f}"
    is_visible = gap["verdict"] != "undecided" and round(gap["difference"], digits)
    return _span(gap, "difference", f"+.{digits}f") + f" {gap['verdict']}" * bool(is_visible)


def _span(value: dict[str, Any], name: str, form: str) -> str:
    """Format a value and its interval, as in "+0.012 (-0.003 .. +0.030)"."""
    ends = [value[name], value["low"], value["high"]]
    middle, *span = ("-" if end is None else f"{end:{form}}" for end in ends)
    return f"{middle} ({' .. '.join(span)})"


def write(groups: Sequence[Group], settings: Settings, out: Path) -> str:
    """Write table.md, words.json and a contact sheet per group to OUT; return the table."""
    out.mkdir(parents=True, exist_ok=True)
    table = markdown(groups)
    write_text(out / "table.md", table)
    result = {
        "asked": {**vars(settings), "photos": str(settings.photos)},
        "groups": {group.name: _to_json(group) for group in groups},
    }
    write_text(out / "words.json", json.dumps(result, indent=1) + "\n")
    for group in groups:
        with replacing(out / f"sheet_{group.name}.png") as path:
            draw_sheet(group).save(path)
    return table


def _to_json(group: Group) -> dict[str, Any]:
    worded = [one for one in group.scored if one.name not in (INPUT, NONE)]
    return {
        "means": {one.name: {m.name: estimate_mean(one, m) for m in TABLE} for one in group.scored},
        "against_none": [compare(group.of(NONE), one, m) for one in worded for m in TABLE],
        "moved": {one.name: measure_change(group, one.name) for one in worded},
        "pictures": [
            {
                "key": case.key,
                "right": case.right,
                "wrong": case.wrong,
                "scores": {one.name: one.done[case.key]["scores"] for one in group.scored},
            }
            for case in group.cases
        ],
    }


def draw_sheet(group: Group) -> Any:
    """Draw the pictures that words change most: input, wrong, none, right, original."""

    def apart(case: Case) -> float:
        return float(np.abs(case.results[RIGHT].astype(float) - case.results[WRONG]).mean())

    order = (INPUT, WRONG, NONE, RIGHT)
    rows = [
        (
            f"{case.key}  right: {case.right}  |  wrong: {case.wrong}",
            [*(case.results[who] for who in order), case.truth],
        )
        for case in sorted(group.cases, key=apart, reverse=True)[:SHOWN]
    ]
    return figures.draw_sheet([*order, "truth"], rows)
