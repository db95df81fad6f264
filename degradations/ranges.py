"""Ranges that parameters are drawn from, as frozen values that YAML can spell.

0.4                                  always 0.4                 Uniform(0.4, 0.4)
[0.2, 3]                             uniform                    Uniform(0.2, 3)
{log: [0.01, 1]}                     uniform in the logarithm   LogUniform(0.01, 1)
{choice: [1, [0.3, 0.8]], weights: [1, 2]}   one of these, each a value or a range itself
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Self

from pydantic import AfterValidator, PlainSerializer, PlainValidator

from degradations.rng import Rng


@dataclass(frozen=True)
class Uniform:
    """Uniform in [low, high).

    Attributes:
        low: The lower end.
        high: The upper end.
    """

    low: float
    high: float

    def __post_init__(self):
        _check_ends(self.low, self.high)

    def draw(self, rng: Rng) -> float:
        """Draw a value."""
        return self.low + (self.high - self.low) * rng.uniform()

    def towards(self, neutral: float, severity: float) -> Self:
        """The range with every value moved to neutral + severity x (value - neutral)."""
        return type(self)(
            neutral + severity * (self.low - neutral), neutral + severity * (self.high - neutral)
        )

    def values(self) -> tuple[float, ...]:
        """The ends of the range."""
        return self.low, self.high


@dataclass(frozen=True)
class LogUniform(Uniform):
    """Uniform in the logarithm, in [low, high); both above 0."""

    def __post_init__(self):
        _check_ends(self.low, self.high)
        if self.low <= 0:
            raise ValueError(f"a log range needs values above 0, not {self.low:g}")

    def draw(self, rng: Rng) -> float:
        """Draw a value."""
        return self.low * (self.high / self.low) ** rng.uniform()


@dataclass(frozen=True)
class Choice:
    """One of some options.

    Attributes:
        options: Numbers, words or ranges.
        weights: One for each option; None: each is as likely.
    """

    options: tuple[Any, ...]
    weights: tuple[float, ...] | None = None

    def __post_init__(self):
        check_weights(len(self.options), self.weights)

    def draw(self, rng: Rng) -> Any:
        """Draw an option, and a value if the option is a range."""
        picked = self.options[pick(len(self.options), self.weights, rng)]
        return picked.draw(rng) if isinstance(picked, _RANGES) else picked

    def towards(self, neutral: float, severity: float) -> Self:
        """As Uniform.towards, for each option."""
        moved = (
            option.towards(neutral, severity)
            if isinstance(option, _RANGES)
            else neutral + severity * (option - neutral)
            for option in self.options
        )
        return type(self)(tuple(moved), self.weights)

    def values(self) -> tuple[Any, ...]:
        """Every word, number and end of a range that stands in the choice."""
        nested = (o.values() if isinstance(o, _RANGES) else (o,) for o in self.options)
        return tuple(value for values in nested for value in values)


_RANGES = Uniform, Choice


def check_weights(count: int, weights: tuple[float, ...] | None) -> None:
    if not count:
        raise ValueError("a choice needs at least one option")
    if weights is None:
        return
    if len(weights) != count:
        raise ValueError(f"{len(weights)} weights for {count} options; give one weight each")
    if min(weights) < 0 or not 0 < sum(weights) < math.inf:
        raise ValueError(f"weights must be 0 or more with a sum above 0, not {list(weights)}")


def pick(count: int, weights: tuple[float, ...] | None, rng: Rng) -> int:
    """An index below `count`, drawn by weight."""
    u = rng.uniform()
    if weights is None:
        return int(u * count)
    u *= _total(tuple(weights))
    for index, weight in enumerate(weights):
        u -= weight
        if u < 0:
            return index
    return max(i for i, weight in enumerate(weights) if weight > 0)  # the sum was rounded


@lru_cache(1024)
def _total(weights: tuple[float, ...]) -> float:
    return sum(weights)


def _check_ends(low: float, high: float) -> None:
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ValueError(f"a range needs finite numbers, not {low} and {high}")
    if low > high:
        raise ValueError(f"a range goes from low to high, not from {low:g} to {high:g}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_SPELLINGS = "0.4, [0.2, 3], {log: [0.01, 1]} or {choice: [1, 2], weights: [1, 3]}"


def parse(value: Any) -> Uniform | Choice:
    """A range from what YAML holds; the head of this file lists the spellings.

    Raises:
        ValueError: If it is no range.
    """
    if isinstance(value, Uniform | Choice):
        return value
    if _is_number(value):
        return Uniform(value, value)
    if isinstance(value, str):
        return Choice((value,))
    if isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value)):
        return Uniform(*value)
    if isinstance(value, dict):
        ends = value.get("log")
        if set(value) == {"log"} and isinstance(ends, list) and len(ends) == 2:
            return LogUniform(*ends)
        if set(value) in ({"choice"}, {"choice", "weights"}) and isinstance(value["choice"], list):
            options = (
                o if _is_number(o) or isinstance(o, str) else parse(o) for o in value["choice"]
            )
            weights = value.get("weights")
            return Choice(tuple(options), None if weights is None else tuple(weights))
    raise ValueError(f"{value!r} is not a range; write it as {_SPELLINGS}")


def spell(value: Any) -> Any:
    """What YAML holds for a range; parse(spell(x)) == x."""
    if isinstance(value, Choice):
        spelt: dict[str, Any] = {"choice": [spell(option) for option in value.options]}
        return spelt if value.weights is None else spelt | {"weights": list(value.weights)}
    if isinstance(value, LogUniform):
        return {"log": [value.low, value.high]}
    if isinstance(value, Uniform):
        return value.low if value.low == value.high else [value.low, value.high]
    return value


Range = Annotated[Uniform | Choice, PlainValidator(parse), PlainSerializer(spell)]  # of numbers
Words = Annotated[Choice, PlainValidator(parse), PlainSerializer(spell)]


def within(low: float, high: float = math.inf) -> AfterValidator:
    """A validator: a range yields only numbers in [low, high]."""

    def check(value: Uniform | Choice) -> Uniform | Choice:
        for end in value.values():
            if not _is_number(end) or not low <= end <= high:
                raise ValueError(f"{end!r} is outside {low:g} to {high:g}")
        return value

    return AfterValidator(check)


def among(allowed: tuple) -> AfterValidator:
    """A validator: a choice yields only what is in `allowed`."""

    def check(value: Uniform | Choice) -> Uniform | Choice:
        for option in value.values():
            if option not in allowed:
                raise ValueError(f"{option!r} is not one of {', '.join(map(str, allowed))}")
        return value

    return AfterValidator(check)
