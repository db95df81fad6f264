"""Lists of the named recipes and of all kinds of ops, for people."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from degradations import ops, recipes
from degradations.ops import plugins
from degradations.ranges import Choice, LogUniform, Uniform


@dataclass(frozen=True)
class Entry:
    """A recipe or a kind of op, for a list."""

    name: str
    line: str
    """One line that says what it is."""
    more: str
    """The paper of a recipe, or the options of an op, one a line."""


def named_recipes() -> list[Entry]:
    """Each named recipe with its paper."""
    return [Entry(name, _line(make), make().paper) for name, make in recipes.NAMED.items()]


def kinds() -> Iterator[Entry]:
    """Each kind of step with its options: our ops, groups of steps, and what is installed."""
    for kind, model in (ops.OPS | ops.GROUPS).items():
        yield Entry(kind, _line(model), _options(model))
    line = "Any pixel transform of albumentations by its name."
    yield Entry("albumentations", line, "transform: needed; params: its arguments")
    for point in sorted(entry_points(group=plugins.ENTRY_POINTS), key=lambda point: point.name):
        try:
            model = point.load()
        except Exception as error:  # another package's import may raise anything
            yield Entry(point.name, f"cannot be loaded: {error!r}", point.value)
        else:
            yield Entry(point.name, _line(model), _options(model))


def _line(operation: Any) -> str:
    """The first line of its docstring."""
    return (inspect.getdoc(operation) or "").partition("\n")[0]


def _options(model: Any) -> str:
    fields = {name: field for name, field in model.model_fields.items() if name != "kind"}
    return "\n".join(
        f"{name}: {'needed' if field.is_required() else spell(field.default)}"
        for name, field in fields.items()
    )


def spell(value: Any) -> str:
    """A range or another default value, in words."""
    if isinstance(value, Choice):
        return " | ".join(spell(option) for option in value.options)
    if isinstance(value, Uniform):
        if value.low == value.high:
            return f"{value.low:.4g}"
        how = " (log)" if isinstance(value, LogUniform) else ""
        return f"{value.low:.4g} to {value.high:.4g}{how}"
    return "none" if value is None or value == () else str(value)
