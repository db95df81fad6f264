"""Scores of many pictures: a row each, means with their uncertainty, and paired differences."""

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from restore.errors import ImageError, RestoreError
from restore.images import sandbox
from restore.images.picture import Picture, convert_to_srgb
from restore.metrics.measures import Measure, Pair, levels
from restore.metrics.pairing import Paired

CONFIDENCE = 0.95
Row = dict[str, Any]


@dataclass
class Scored:
    """A folder of restored pictures, measured."""

    name: str
    rows: list[Row]  # one a pair, and one for each that could not be made or measured
    pairs: dict[str, Paired]
    unpaired: list[Path] = field(default_factory=list)
    missing: list[Path] = field(default_factory=list)

    @property
    def done(self) -> dict[str, Row]:
        return {row["key"]: row for row in self.rows if row["status"] == "done"}

    @property
    def failed(self) -> list[Row]:
        return [row for row in self.rows if row["status"] == "failed"]

    def values(self, measure: Measure) -> dict[str, float]:
        """By key, where there is a value."""
        scores = {key: row["scores"][measure.name] for key, row in self.done.items()}
        return {key: value for key, value in scores.items() if value is not None}

    def worst(self, measure: Measure) -> list[str]:
        """Keys, the worst first."""
        values = self.values(measure)
        return sorted(values, key=lambda key: values[key] * (1 if measure.higher else -1))


def score(
    name: str,
    pairs: Sequence[Paired],
    measures: Sequence[Measure],
    border: int = 4,
    watch: Callable[[Row], None] = lambda row: None,
) -> Scored:
    """Measure a folder's pairs: a row each, done with its scores, or failed and why.

    watch  sees each row as it is made.
    """
    rows = []
    for pair in pairs:
        files = {"restored": str(pair.restored), "original": str(pair.original)}
        try:
            row = {"key": pair.key, **files, **_measured(pair, measures, border)}
        except RestoreError as error:
            row = failed(pair.key, error.code, str(error)) | files
        watch(row)
        rows.append(row)
    return Scored(name, rows, {pair.key: pair for pair in pairs})


def failed(key: str, code: str, error: str) -> Row:
    return {"key": key, "status": "failed", "code": code, "error": error}


def _measured(pair: Paired, measures: Sequence[Measure], border: int) -> Row:
    restored, original = sandbox.read(pair.restored), sandbox.read(pair.original)
    profiles = restored.icc, original.icc
    if restored.icc != original.icc:
        restored, original = convert_to_srgb(restored), convert_to_srgb(original)
    if restored.size != original.size:
        (height, width), (tall, wide) = restored.size, original.size
        raise ImageError(
            "SIZE",
            f"{pair.restored}: is {width}x{height}, its original {wide}x{tall}; only pictures of "
            "one size can be compared",
        )
    if min(original.size) <= 2 * border:
        raise ImageError(
            "SIZE", f"{pair.original}: nothing is left within a border of {border} px; --border 0"
        )
    both = Pair(levels(restored), levels(original), border)
    values = {measure.name: measure.of(both) for measure in measures}
    scores = {name: None if math.isnan(value) else value for name, value in values.items()}
    notes = list(_notes(restored, original))
    if profiles[0] != profiles[1]:
        notes.append("compared in sRGB: their colour profiles differ")
    notes += [f"too small for {name}" for name, value in scores.items() if value is None]
    return {"status": "done", "size": original.size, "scores": scores, "warnings": notes}


def _notes(restored: Picture, original: Picture) -> Iterator[str]:
    if restored.grey != original.grey:
        grey, colour = ("restored", "original")[:: 1 if restored.grey else -1]
        yield f"the {grey} is grey, the {colour} has colours"
    if restored.alpha is not None or original.alpha is not None:
        yield "transparency is laid on white"
    if restored.depth != original.depth:
        yield f"{restored.depth} bits against {original.depth}"


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The bootstrap's 95 % interval (BCa, Efron 1987) of the mean, over pictures; None below two.

    It tells how far the mean would move with other pictures of the kind; the draws are seeded.
    """
    array = np.asarray(values, float)
    if array.size < 2:
        return None
    if np.ptp(array) == 0:
        return float(array[0]), float(array[0])
    from scipy.stats import DegenerateDataWarning, bootstrap

    for method in ("BCa", "percentile"):  # BCa has no answer where one picture outweighs all
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DegenerateDataWarning)
            found = bootstrap(
                (array,),
                np.mean,
                confidence_level=CONFIDENCE,
                method=method,
                batch=1000,  # 9999 draws of thousands of pictures would fill the memory
                rng=np.random.default_rng(0),
            ).confidence_interval
        if math.isfinite(found.low) and math.isfinite(found.high):
            break
    return float(found.low), float(found.high)


def mean(scored: Scored, measure: Measure) -> dict[str, Any]:
    """{mean, low, high, pictures} of a measure; None where there is nothing to tell."""
    values = list(scored.values(measure).values())
    low, high = interval(values) or (None, None)
    middle = float(np.mean(values)) if values else None
    return {"mean": middle, "low": low, "high": high, "pictures": len(values)}


def compare(one: Scored, other: Scored, measure: Measure) -> dict[str, Any] | None:
    """How `other` differs from `one` on the pictures that both have; None if there is none.

    {difference, low, high} of the mean of `other` less that of `one`, {wins, ties, losses} of
    `other` by picture; `verdict` better or worse where the interval leaves 0 out, else undecided.
    """
    first, second = one.values(measure), other.values(measure)
    gaps = np.array([second[key] - first[key] for key in first if key in second])
    if not gaps.size:
        return None
    low, high = interval(gaps) or (None, None)
    good = gaps if measure.higher else -gaps
    wins, losses = int((good > 0).sum()), int((good < 0).sum())
    return {
        "measure": measure.name,
        "first": one.name,
        "second": other.name,
        "difference": float(gaps.mean()),
        "low": low,
        "high": high,
        "wins": wins,
        "ties": int(gaps.size) - wins - losses,
        "losses": losses,
        "verdict": _verdict(low, high, measure),
    }


def _verdict(low: float | None, high: float | None, measure: Measure) -> str:
    if low is None or high is None or low <= 0 <= high:
        return "undecided"
    return "better" if (low > 0) == measure.higher else "worse"
