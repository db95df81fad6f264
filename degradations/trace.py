"""What was done to one picture, as JSON: enough to do it again, whoever wrote it."""

import json
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from degradations import plain_yaml
from degradations.errors import RecipeError, mend
from degradations.ops.op import Frozen, Params, Size

MAX_BYTES = 2**30  # of a file of traces
MAX_SIDE, MAX_SCALE = 65_535, 1000  # of what a trace is of
MAX_STEPS, MAX_DEPTH, MAX_LENGTH, LARGEST = 1000, 4, 10_000, 100_000  # and of what it holds


class Trace(Frozen):
    """What was done to one picture: enough to do it again, without the recipe."""

    recipe: str
    """Name of the recipe."""
    digest: str
    """Digest of all of the recipe's values."""
    seed: int
    """Seed of the draws."""
    key: str
    """Key of the picture."""
    scale: float
    """HR size over LR size."""
    hr_size: Size
    """(height, width) of the good picture."""
    sharpen: bool
    """Whether the input is sharpened first."""
    steps: list[Params]
    """The steps that were drawn, in order, each with its kind and parameters."""

    def to_json(self) -> str:
        return json.dumps(self.model_dump())

    @classmethod
    def load(cls, path: Path, key: str = "") -> Self:
        """Read a trace from a file that holds one trace, or one a line (.jsonl).

        Args:
            path: The file.
            key: Key of the wanted trace; needed if the file holds several.

        Raises:
            RecipeError: If there is no such trace, or the file cannot be read.
        """
        try:
            text = plain_yaml.plain_bytes(path, MAX_BYTES).decode()
        except UnicodeDecodeError as error:
            raise RecipeError(f"{path}: is no text: {error}") from error
        try:
            many = path.suffix == ".jsonl"
            lines = text.splitlines() if many else [text]
            traces = {trace.key: trace for trace in map(cls.from_json, filter(str.strip, lines))}
        except RecipeError as error:
            raise RecipeError(f"{path}: {error}") from error
        if key in traces:
            return traces[key]
        if key or len(traces) != 1:
            message = f"has no trace of {key!r}" if key else f"holds {len(traces)} traces"
            raise RecipeError(f"{path}: {message}; give a key: {mend(key, list(traces)[:10])}")
        return next(iter(traces.values()))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """A trace from its JSON.

        Raises:
            RecipeError: If the text is no trace, or holds values that no recipe draws.
        """
        try:
            made = cls.model_validate_json(text)
            _check_trace(made)
            return made
        except ValueError as error:
            first = error.errors()[0] if isinstance(error, ValidationError) else None
            place = ".".join(map(str, first["loc"])) if first else ""
            message = f"{place}: {first['msg']}".removeprefix(": ") if first else str(error)
            raise RecipeError(f"not a trace of a degradation: {message}") from error


def _check_trace(trace: Trace) -> None:
    """Raises ValueError for one that no recipe draws."""
    if not (1 <= trace.scale <= MAX_SCALE and all(1 <= s <= MAX_SIDE for s in trace.hr_size)):
        raise ValueError(f"a scale of {trace.scale:g} and a size of {trace.hr_size} cannot be")
    if len(trace.steps) > MAX_STEPS:
        raise ValueError(f"{len(trace.steps):,} steps; the limit is {MAX_STEPS:,}")
    for number, params in enumerate(trace.steps):
        if not isinstance(params.get("kind"), str):
            raise ValueError(f"steps[{number}] names no kind")
        _check_values(f"steps[{number}]", params)


def _check_values(where: str, value: Any, depth: int = 0) -> None:
    """Raises ValueError for numbers that no op draws: what they ask for might never end."""
    if isinstance(value, dict | list | tuple):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        if depth > MAX_DEPTH or len(value) > MAX_LENGTH:
            raise ValueError(f"{where} is too long or too deep")
        for name, one in inner:
            if name != "seed":
                _check_values(f"{where}.{name}", one, depth + 1)
    elif isinstance(value, int | float) and not abs(value) <= LARGEST:
        raise ValueError(
            f"{where} is {value!r:.40}; the largest number that is drawn is {LARGEST:,}"
        )
