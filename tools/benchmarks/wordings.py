"""What the words' benchmark says: a table and a sheet a group, and all of it as JSON."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.words import INPUT, NONE, RIGHT, TABLE, WRONG, Asked, Case, Group
from restore.files import replacing, write_text
from restore.metrics import figures
from restore.metrics.measures import Measure
from restore.metrics.score import Scored, compare, interval, mean

SHOWN = 6  # pictures of a sheet
LEGEND = """right: what was done, in training's words; wrong: another picture's words, the most
unlike, or clean. In the _grain tables photos have film grain, which the truth keeps: right says
so, wrong tells of it as damage. Rows with words: the mean difference to none, its 95 % interval.
"""


def moved(group: Group, name: str) -> dict[str, Any]:
    """{mean, low, high, most}: by how many levels of 255 a wording moves the unworded answer."""
    apart = [
        float(np.abs(case.made[name].astype(float) - case.made[NONE]).mean())
        for case in group.cases
    ]
    low, high = interval(apart) or (None, None)
    return {"mean": float(np.mean(apart)), "low": low, "high": high, "most": max(apart)}


def markdown(groups: Sequence[Group]) -> str:
    """A table a group: the scores of no words, and how other wordings differ from those."""
    lines = [LEGEND]
    for group in groups:
        heads = [group.name, *(measure.label for measure in TABLE), "moves it by, of 255"]
        lines += [_line(heads), _line(["---"] * len(heads))]
        for one in group.scored:
            cells = [cell(group, one, measure) for measure in TABLE]
            is_worded = one.name not in (INPUT, NONE)
            apart = moved(group, one.name) if is_worded else None
            lines.append(_line([one.name, *cells, _span(apart, "mean", ".2g") if apart else ""]))
        lines.append("")
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def cell(group: Group, one: Scored, measure: Measure) -> str:
    """A score, or for words what they gain, with a verdict where the digits show it."""
    digits = measure.digits + 1  # words move little
    gap = compare(group.of(NONE), one, measure)
    if one.name in (INPUT, NONE) or gap is None:
        value = mean(one, measure)["mean"]
        return "-" if value is None else f"{value:.{digits}f}"
    is_told = gap["verdict"] != "undecided" and round(gap["difference"], digits)
    return _span(gap, "difference", f"+.{digits}f") + f" {gap['verdict']}" * bool(is_told)


def _span(value: dict[str, Any], name: str, form: str) -> str:
    """+0.012 (-0.003 .. +0.030)"""
    ends = [value[name], value["low"], value["high"]]
    middle, *span = ("-" if end is None else f"{end:{form}}" for end in ends)
    return f"{middle} ({' .. '.join(span)})"


def write(groups: Sequence[Group], asked: Asked, out: Path) -> str:
    """OUT/table.md, words.json and a sheet a group. Returns the table."""
    out.mkdir(parents=True, exist_ok=True)
    table = markdown(groups)
    write_text(out / "table.md", table)
    told = {
        "asked": {**vars(asked), "photos": str(asked.photos)},
        "groups": {group.name: _told(group) for group in groups},
    }
    write_text(out / "words.json", json.dumps(told, indent=1) + "\n")
    for group in groups:
        with replacing(out / f"sheet_{group.name}.png") as path:
            sheet(group).save(path)
    return table


def _told(group: Group) -> dict[str, Any]:
    worded = [one for one in group.scored if one.name not in (INPUT, NONE)]
    return {
        "means": {one.name: {m.name: mean(one, m) for m in TABLE} for one in group.scored},
        "against_none": [compare(group.of(NONE), one, m) for one in worded for m in TABLE],
        "moved": {one.name: moved(group, one.name) for one in worded},
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


def sheet(group: Group) -> Any:
    """At full size the pictures that the words move most: input, wrong, none, right, truth."""

    def apart(case: Case) -> float:
        return float(np.abs(case.made[RIGHT].astype(float) - case.made[WRONG]).mean())

    order = (INPUT, WRONG, NONE, RIGHT)
    rows = [
        (
            f"{case.key}  right: {case.right}  |  wrong: {case.wrong}",
            [*(case.made[who] for who in order), case.truth],
        )
        for case in sorted(group.cases, key=apart, reverse=True)[:SHOWN]
    ]
    return figures.sheet([*order, "truth"], rows)
