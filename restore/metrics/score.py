"""Scores of many pictures: a row each, means with intervals, and paired differences."""

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
from restore.metrics.measures import Measure, Pair, picture_levels
from restore.metrics.pairing import PicturePair

CONFIDENCE = 0.95
Row = dict[str, Any]


@dataclass
class ScoredFolder:
    """A folder of restored pictures with their scores.

    Attributes:
        name: Name of the folder.
        rows: One for each pair, and one for each picture that could not be made or measured.
        pairs: The pairs by key.
        unpaired: Restored pictures without an original.
        missing: Originals without a restored picture.
    """

    name: str
    rows: list[Row]
    pairs: dict[str, PicturePair]
    unpaired: list[Path] = field(default_factory=list)
    missing: list[Path] = field(default_factory=list)

    @property
    def done(self) -> dict[str, Row]:
        """Rows with scores, by key."""
        return {row["key"]: row for row in self.rows if row["status"] == "done"}

    @property
    def failed(self) -> list[Row]:
        """Rows without scores."""
        return [row for row in self.rows if row["status"] == "failed"]

    def values(self, measure: Measure) -> dict[str, float]:
        """Return the values of a measure by key, of the pictures that have one."""
        scores = {key: row["scores"][measure.name] for key, row in self.done.items()}
        return {key: value for key, value in scores.items() if value is not None}

    def worst(self, measure: Measure) -> list[str]:
        """Return the keys, the worst picture first."""
        values = self.values(measure)
        return sorted(values, key=lambda key: values[key] * (1 if measure.higher else -1))


def score(
    name: str,
    pairs: Sequence[PicturePair],
    measures: Sequence[Measure],
    border: int = 4,
    watch: Callable[[Row], None] = lambda row: None,
) -> ScoredFolder:
    """Measure the pairs of a folder.

    Args:
        name: Name of the folder.
        pairs: Restored pictures and their originals.
        measures: What to compute.
        border: Pixels to leave out on each side.
        watch: Called with each row as it is made.

    Returns:
        A row for each pair, with its scores or the reason why it failed.
    """
    rows = []
    for pair in pairs:
        files = {"restored": str(pair.restored), "original": str(pair.original)}
        try:
            row = {"key": pair.key, **files, **_measured(pair, measures, border)}
        except RestoreError as error:
            row = failed_row(pair.key, error.code, str(error)) | files
        watch(row)
        rows.append(row)
    return ScoredFolder(name, rows, {pair.key: pair for pair in pairs})


def failed_row(key: str, code: str, error: str) -> Row:
    """Build the row of a picture that could not be made or measured."""
    return {"key": key, "status": "failed", "code": code, "error": error}


def _measured(pair: PicturePair, measures: Sequence[Measure], border: int) -> Row:
    (restored, frames), (original, wanted) = map(_first, (pair.restored, pair.original))
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
    both = Pair(picture_levels(restored), picture_levels(original), border)
    values = {measure.name: measure.of(both) for measure in measures}
    scores = {name: None if math.isnan(value) else value for name, value in values.items()}
    notes = list(_notes(restored, original))
    if profiles[0] != profiles[1]:
        notes.append("compared in sRGB: their colour profiles differ")
    if max(frames, wanted) > 1:
        notes.append("only the first frame is measured")
    notes += [f"{m.nan} for {m.name}" for m in measures if scores[m.name] is None]
    return {"status": "done", "size": original.size, "scores": scores, "warnings": notes}


def _first(path: Path) -> tuple[Picture, int]:
    """The first frame of a file, and how many it has."""
    [picture], count = sandbox.read_frames(path)
    return picture, count


def _notes(restored: Picture, original: Picture) -> Iterator[str]:
    if restored.grey != original.grey:
        grey, colour = ("restored", "original")[:: 1 if restored.grey else -1]
        yield f"the {grey} is grey, the {colour} has colours"
    if restored.alpha is not None or original.alpha is not None:
        yield "transparency is laid on white"
    if restored.depth != original.depth:
        yield f"{restored.depth} bits against {original.depth}"


def bootstrap_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Compute the 95 % bootstrap interval (BCa, Efron 1987) of a mean over pictures.

    It says how far the mean would move with other pictures of the same kind. The draws are seeded.

    Returns:
        (low, high), or None for fewer than two values.
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


def estimate_mean(scored: ScoredFolder, measure: Measure) -> dict[str, Any]:
    """Compute {mean, low, high, pictures} of a measure; None where there are too few values."""
    values = list(scored.values(measure).values())
    low, high = bootstrap_interval(values) or (None, None)
    middle = float(np.mean(values)) if values else None
    return {"mean": middle, "low": low, "high": high, "pictures": len(values)}


def compare(one: ScoredFolder, other: ScoredFolder, measure: Measure) -> dict[str, Any] | None:
    """Compare two folders on the pictures that both have.

    Returns:
        None if there is no such picture; else a dict with `difference`, `low`, `high` (the mean of
        `other` minus that of `one`, and its interval), `wins`, `ties`, `losses` (pictures where
        `other` is better, equal, worse), and `verdict`: better or worse if the interval excludes
        0, else undecided.
    """
    first, second = one.values(measure), other.values(measure)
    gaps = np.array([second[key] - first[key] for key in first if key in second])
    if not gaps.size:
        return None
    low, high = bootstrap_interval(gaps) or (None, None)
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
