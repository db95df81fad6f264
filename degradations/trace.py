"""What was done to one picture, as JSON: enough to do it again, whoever wrote it."""

import json
import math
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError

from degradations import plain_yaml
from degradations.errors import RecipeError, mend
from degradations.ops import OPS
from degradations.ops.op import Frozen, Params, Size
from degradations.ops.plugins import ALBUMENTATIONS

MAX_BYTES = 2**30  # of a file of traces
MAX_SIDE = MAX_SCALE = 2**20  # of what a trace is of; OpenCV reads no longer side
MAX_STEPS, MAX_DEPTH, MAX_LENGTH, LARGEST = 1000, 4, 10_000, 100_000  # and of what it holds
OWN_DEPTH, OWN_VALUES = 40, 1_000_000  # of a step whose class is the user's
_LIMITED = frozenset((*OPS, ALBUMENTATIONS))  # kinds that a stranger's trace can name


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
            text = plain_yaml.plain_bytes(path, MAX_BYTES).decode("utf-8-sig")
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
            made.check()
            return made
        except ValueError as error:
            first = error.errors()[0] if isinstance(error, ValidationError) else None
            place = ".".join(map(str, first["loc"])) if first else ""
            message = f"{place}: {first['msg']}".removeprefix(": ") if first else str(error)
            raise RecipeError(f"not a trace of a degradation: {message}") from error

    def check(self) -> None:
        """Refuse what cannot be written and read back, or what no recipe of ours draws.

        Raises:
            ValueError: Says what, and the limit.
        """
        if not 1 <= self.scale <= MAX_SCALE:
            raise ValueError(f"scale must be 1 or more, up to {MAX_SCALE:,}, not {self.scale:g}")
        if not all(1 <= side <= MAX_SIDE for side in self.hr_size):
            raise ValueError(f"a picture of {self.hr_size} px; a side is from 1 to {MAX_SIDE:,}")
        if len(self.steps) > MAX_STEPS:
            raise ValueError(f"{len(self.steps):,} steps; the limit is {MAX_STEPS:,}")
        for number, params in enumerate(self.steps):
            kind = params.get("kind")
            if not isinstance(kind, str):
                raise ValueError(f"steps[{number}] names no kind")
            if kind not in _LIMITED:
                _check_own(f"steps[{number}]", params)
            elif not _is_plain(params):
                _check_values(f"steps[{number}]", params)


def plain_text(key: str) -> str:
    r"""A key as JSON holds it, which is Unicode alone: of other bytes of a file name \udce9."""
    if not isinstance(key, str):
        raise TypeError(f"a key is text, not {key!r}; give str({key!r})")
    return key.encode("utf-8", "backslashreplace").decode()


def _is_plain(params: Params) -> bool:
    """Whether these are words and small numbers: as _check_values, but fast, for most steps."""
    for name, value in params.items():
        kind = type(value)
        if kind is not str and name != "seed":
            if kind is list and len(value) < 4:
                if not all(type(one) is float and abs(one) <= LARGEST for one in value):
                    return False
            elif not ((kind is float or kind is int or kind is bool) and abs(value) <= LARGEST):
                return False
    return True


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


def _check_own(where: str, params: Params) -> None:
    """Raises ValueError for what JSON cannot hold, and for more than a trace should."""
    level, count, depth = list(params.values()), 0, 0
    words = list(params)
    while level:
        count, depth, below = count + len(level), depth + 1, []
        if count > OWN_VALUES or depth > OWN_DEPTH:
            raise ValueError(f"{where} is too long or too deep")
        for value in level:
            if isinstance(value, dict):
                words += value
                below += value.values()
            elif isinstance(value, list | tuple):
                below += value
            elif isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{where} holds {value}; give finite numbers")
            elif isinstance(value, str):
                words.append(value)
        level = below
    try:
        "".join(words).encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{where} holds text that is no Unicode: {error}") from error
