"""Ranges that parameters are drawn from, as frozen values that YAML can spell.

0.4                                  always 0.4                 Uniform(0.4, 0.4)
[0.2, 3]                             uniform                    Uniform(0.2, 3)
{log: [0.01, 1]}                     uniform in the logarithm   LogUniform(0.01, 1)
{choice: [1, [0.3, 0.8]], weights: [1, 2]}   one of these, each a value or a range itself
"""

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Self

from pydantic import GetCoreSchemaHandler, PlainSerializer, PlainValidator, WithJsonSchema
from pydantic_core import core_schema

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


def check_weights(count: int, weights: Any) -> None:
    """Raises ValueError unless these are the weights of so many options; None is always."""
    if not count:
        raise ValueError("a choice needs at least one option")
    if weights is None:
        return
    if not isinstance(weights, list | tuple) or not all(map(is_finite, weights)):
        raise ValueError(f"weights are a list of finite numbers, not {_short(weights)}")
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


def _check_ends(low: Any, high: Any) -> None:
    if not (is_finite(low) and is_finite(high)):
        raise ValueError(f"a range needs finite numbers, not {_short(low)} and {_short(high)}")
    if low > high:
        raise ValueError(f"a range goes from low to high, not from {low:g} to {high:g}")


def is_finite(value: Any) -> bool:
    """Whether it is a number that a float can hold, and neither infinite nor NaN."""
    try:
        return math.isfinite(value)
    except (TypeError, OverflowError):  # no number; a whole one of 400 digits
        return False


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(value: Any) -> str:
    """For messages, without what Python refuses to write: a number of very many digits."""
    try:
        text = repr(list(value) if isinstance(value, tuple) else value)
    except ValueError:
        return "a number of very many digits"
    return text if len(text) <= 80 else f"{text[:77]}..."


_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?\s*", re.IGNORECASE)


def _refuse_numbers_as_text(value: Any) -> None:
    """Raises ValueError where YAML took a number for text: 1e-4 has no point."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        written = value.strip().lower()
        if "e" in written:  # YAML 1.1 wants a point, and a sign of the exponent
            mantissa, exponent = written.split("e")
            mantissa += "" if "." in mantissa else ".0"
            written = f"{mantissa}e{exponent if exponent[0] in '+-' else '+' + exponent}"
        told = "write" if "e" in written else "without quotes write"
        raise ValueError(f"YAML reads {value} as text; {told} {written}")
    if isinstance(value, dict | list | tuple):
        for one in value.values() if isinstance(value, dict) else value:
            _refuse_numbers_as_text(one)


_SPELLINGS = "0.4, [0.2, 3], {log: [0.01, 1]} or {choice: [1, 2], weights: [1, 3]}"


def parse(value: Any) -> Uniform | Choice:
    """A range from what YAML holds; the head of this file lists the spellings.

    Raises:
        ValueError: If it is no range.
    """
    if isinstance(value, Uniform | Choice):
        return value
    _refuse_numbers_as_text(value)
    if _is_number(value):
        return Uniform(value, value)
    if isinstance(value, str):
        return Choice((value,))
    if _is_pair(value):
        return Uniform(*value)
    if isinstance(value, dict):
        if set(value) == {"log"} and _is_pair(value["log"]):
            return LogUniform(*value["log"])
        if set(value) in ({"choice"}, {"choice", "weights"}) and isinstance(value["choice"], list):
            options = (
                o if _is_number(o) or isinstance(o, str) else parse(o) for o in value["choice"]
            )
            weights = value.get("weights")
            return Choice(tuple(options), tuple(weights) if isinstance(weights, list) else weights)
    raise ValueError(f"{_short(value)} is not a range; write it as {_SPELLINGS}")


def _is_pair(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(_is_number, value))


def _parse_words(value: Any) -> Choice:
    """A choice of words or sizes; nothing between two of them can be drawn."""
    if isinstance(value, list | tuple):
        raise ValueError(f"{_short(value)} is no choice; {_list_them(value)}")
    parsed = parse(value)
    return parsed if isinstance(parsed, Choice) else Choice((_only(parsed),))


def _list_them(values: Any) -> str:
    if _is_pair(values):
        return f"write {{choice: [{values[0]:g}, {values[0] + 2:g}, ...]}}"
    return "write {choice: [...]}"


def _only(spread: Uniform) -> float:
    """The one value of a range. Raises ValueError if it has others."""
    if spread.low != spread.high:
        ends = spread.low, spread.high
        raise ValueError(f"{list(ends)} would draw what lies between; {_list_them(ends)}")
    return spread.low


def spell(value: Any) -> Any:
    """What YAML holds for a range; parse(spell(x)) == x."""
    if isinstance(value, Choice):
        spelt: dict[str, Any] = {"choice": [_spell_option(option) for option in value.options]}
        return spelt if value.weights is None else spelt | {"weights": list(value.weights)}
    if isinstance(value, LogUniform):
        return {"log": [value.low, value.high]}
    if isinstance(value, Uniform):
        return value.low if value.low == value.high else [value.low, value.high]
    return value


def _spell_option(option: Any) -> Any:
    # 1 would not do for [1, 1]: a range takes a draw, a number none, and later draws would move
    return [option.low, option.high] if type(option) is Uniform else spell(option)


def _json_schema(one: dict[str, Any], spread: bool) -> dict[str, Any]:
    """The spellings of a range as a JSON schema.

    Args:
        one: Schema of a value.
        spread: Whether what lies between two values can be drawn.
    """
    ways = [one]
    if spread:
        pair = {"type": "array", "items": one, "minItems": 2, "maxItems": 2}
        ways += [pair, _only_key("log", pair)]
    nested = {"type": "object", "required": ["choice"]}
    options = {"type": "array", "minItems": 1, "items": {"anyOf": [*ways, nested]}}
    weights = {"type": "array", "minItems": 1, "items": {"type": "number", "minimum": 0}}
    choice = _only_key("choice", options)
    choice["properties"]["weights"] = {"anyOf": [weights, {"type": "null"}]}
    return {"anyOf": [*ways, choice]}


def _only_key(name: str, value: dict[str, Any]) -> dict[str, Any]:
    held = {"type": "object", "required": [name], "additionalProperties": False}
    return held | {"properties": {name: value}}


_ANY = {"anyOf": [{"type": "number"}, {"type": "string"}]}
Range = Annotated[  # of numbers
    Uniform | Choice,
    PlainValidator(parse),
    PlainSerializer(spell),
    WithJsonSchema(_json_schema(_ANY, spread=True)),
]
Words = Annotated[
    Choice,
    PlainValidator(_parse_words),
    PlainSerializer(spell),
    WithJsonSchema(_json_schema(_ANY, spread=False)),
]


@dataclass(frozen=True)
class within:  # noqa: N801 - it is read as a word of an annotation
    """A validator: a range yields only numbers in [low, high]."""

    low: float
    high: float = math.inf

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        bounds = {"minimum": self.low} | ({"maximum": self.high} if self.high < math.inf else {})
        return _json_schema({"type": "number"} | bounds, spread=True)

    def check(self, value: Uniform | Choice) -> Uniform | Choice:
        for end in value.values():
            if not _is_number(end):
                raise ValueError(f"{_short(end)} is no number")
            if not (is_finite(end) and self.low <= end <= self.high):
                raise ValueError(f"{_short(end)} is outside {self.low:g} to {self.high:g}")
        return value


@dataclass(frozen=True)
class among:  # noqa: N801 - as above
    """A validator: a choice yields only what is in `allowed`, as it is spelt there."""

    allowed: tuple

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> Any:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        return _json_schema({"enum": list(self.allowed)}, spread=False)

    def check(self, value: Choice) -> Choice:
        options = tuple(map(self._allowed, value.options))
        return Choice(options, value.weights)

    def _allowed(self, option: Any) -> Any:
        if isinstance(option, Choice):
            return self.check(option)
        option = _only(option) if isinstance(option, Uniform) else option
        if option not in self.allowed:
            told = ", ".join(map(str, self.allowed))
            raise ValueError(f"{_short(option)} is not one of {told}")
        return self.allowed[self.allowed.index(option)]
