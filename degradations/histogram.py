"""What a recipe draws: how often each op comes, where in the order, and with which values."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from degradations.errors import counted
from degradations.ops.op import Params
from degradations.page import Page
from degradations.pipeline import Recipe

_BINS = 40
_MOST_BINS = 128  # of whole numbers, where each has its own
_ATOM = 0.02  # a number that comes more often than this is no part of a density
_POOLED = {"sigma"}  # lists whose values mean the same; of others each place is one parameter
_LIKELY = 8  # orders that are listed
_MAP = "viridis"


@dataclass
class Pass:
    """One op at one place of the recipe: the second blur, say."""

    kind: str
    """The kind of op."""
    number: int = 0
    """1, 2 and so on where the kind stands in several places, else 0."""
    count: int = 0
    """Pictures in which it came."""
    positions: Counter[int] = field(default_factory=Counter)
    """How often it came at each position of the chain, from 0."""
    values: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    """The drawn values of each parameter."""

    @property
    def label(self) -> str:
        return self.kind + (f" {self.number}" if self.number else "")


@dataclass(frozen=True)
class Draws:
    """What `n` pictures drew: the passes in the order they come, and the orders of ops."""

    n: int
    """Number of pictures."""
    passes: list[Pass]
    """The passes in the order in which they come on average."""
    orders: Counter[tuple[str, ...]]
    """How often each order of ops came."""


def draw(recipe: Recipe, n: int, seed: int = 0) -> Draws:
    """Draw a recipe's parameters for n pictures; no picture is needed.

    Args:
        recipe: The recipe.
        n: Number of pictures.
        seed: Seed of the draws.
    """
    entries: dict[tuple[str, int, int], Pass] = {}  # by kind, step of the recipe, and time in it
    orders: Counter[tuple[str, ...]] = Counter()
    for index in range(n):
        order: list[str] = []
        for slot, steps in enumerate(recipe.draw_by_step(seed, str(index))):
            times: Counter[str] = Counter()
            for params in steps:
                kind = params["kind"]
                entry = entries.setdefault((kind, slot, times[kind]), Pass(kind))
                times[kind] += 1
                entry.count += 1
                entry.positions[len(order)] += 1
                _add_values(entry.values, params)
                order.append(kind)
        orders[tuple(order)] += 1
    by_kind: dict[str, list[Pass]] = defaultdict(list)
    for place in sorted(entries, key=lambda place: place[1:]):
        by_kind[place[0]].append(entries[place])
    for several in by_kind.values():
        for number, entry in enumerate(several, 1):
            entry.number = number if len(several) > 1 else 0
    passes = sorted(entries.values(), key=lambda entry: (_mean(entry.positions), entry.label))
    return Draws(n, passes, orders)


def _add_values(values: dict[str, list[Any]], params: Params) -> None:
    for name, value in params.items():
        if name in ("kind", "seed") or isinstance(value, dict):
            continue
        if name == "angle" and params["kind"] == "blur" and not _is_turned(params):
            continue
        if not isinstance(value, list):
            values[name].append(value)
        elif name in _POOLED:
            values[name] += value
        else:
            for place, part in enumerate(value, 1):
                values[f"{name} {place}"].append(part)


def _mean(positions: Counter[int]) -> float:
    return sum(at * count for at, count in positions.items()) / positions.total()


def _is_turned(blur: Params) -> bool:
    return blur["shape"].endswith("anisotropic")


def summarise(values: Sequence[Any]) -> str:
    """Values in a few words: shares of words, or the 5 %, 50 % and 95 % quantiles of numbers."""
    if _are_words(values):
        counts = Counter(values).most_common()
        return ", ".join(f"{_word(value)} {count / len(values):.0%}" for value, count in counts)
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    return f"{low:.3g} .. {middle:.3g} .. {high:.3g}"


def table(draws: Draws) -> Iterator[tuple[str, str, str, str]]:
    """(op, share of pictures, parameter, its values) for each parameter that varies."""
    for one in draws.passes:
        share = f"{one.count / draws.n:.0%}" if one.count > draws.n / 200 else "<1%"
        names = _varied([one])
        if not names:
            yield one.label, share, "", ""
        for name in names:
            first = name == names[0]
            yield one.label * first, share * first, name, summarise(one.values[name])


def write_page(draws: Draws, recipe: Recipe, path: Path) -> None:
    """The page: small multiples of all parameters, the order as a map, and the numbers."""
    page = Page(f"What {recipe.name} draws")
    page.text(f"{counted(draws.n, 'sample')}. {recipe.paper}".strip())
    if not draws.passes:
        page.text("It has no step that was ever drawn.")
        page.write(path)
        return
    page.heading("Values")
    caption = (
        "One row for each kind of op; its passes, where there are several, lie over one another. "
        "Each pass has the area 1, or its bars add up to 100 %; a line is a single value that so "
        "many draws take. Below the kind: in how many pictures it comes."
    )
    page.figure(_multiples(draws), caption)
    page.heading("Order")
    caption = "Percentage of pictures in which the op comes at that place of the chain."
    page.figure(_order(draws), caption)
    likely = draws.orders.most_common(_LIKELY)
    rows = [(f"{count / draws.n:.1%}", _chain(order)) for order, count in likely]
    page.table(("share", "order"), rows, f"The likeliest of {counted(len(draws.orders), 'order')}.")
    page.heading("Numbers")
    caption = "Shares of words; 5 %, 50 % and 95 % quantiles of numbers."
    page.table(("op", "in", "parameter", "values"), list(table(draws)), caption)
    page.write(path)


def _chain(order: Sequence[str]) -> str:
    return " → ".join(order).replace("_", " ") or "nothing"


def _multiples(draws: Draws) -> Any:
    """A matplotlib figure: a row for each kind, a column for each of its parameters."""
    from matplotlib.figure import Figure

    kinds: dict[str, list[Pass]] = defaultdict(list)
    for one in sorted(draws.passes, key=lambda one: one.number):
        kinds[one.kind].append(one)
    order = dict.fromkeys(one.kind for one in draws.passes)
    varied = {kind: _varied(kinds[kind]) for kind in order}
    columns = max([1, *map(len, varied.values())])
    figure = Figure((2.1 * columns + 1.6, 1.35 * len(order)), layout="constrained")
    axes = figure.subplots(len(order), columns, squeeze=False)
    for kind, line in zip(order, axes, strict=True):
        for axis in line[len(varied[kind]) :]:
            axis.set_axis_off()
        for name, axis in zip(varied[kind], line, strict=False):
            _panel(axis, name, [one.values.get(name, []) for one in kinds[kind]])
        _row_title(line[0], kind, kinds[kind], draws.n)
    return figure


def _row_title(axis: Any, kind: str, passes: list[Pass], n: int) -> None:
    style = {"xycoords": "axes fraction", "ha": "right", "va": "top", "annotation_clip": False}
    axis.annotate(kind.replace("_", " "), (-0.62, 1), fontsize=8, fontweight="bold", **style)
    for number, one in enumerate(passes):
        text = f"pass {one.number}: {one.count / n:.0%}" if one.number else f"{one.count / n:.0%}"
        place = (-0.62, 0.8 - 0.16 * number)
        axis.annotate(text, place, fontsize=7, color=_colour(number, len(passes)), **style)


def _varied(passes: list[Pass]) -> list[str]:
    """The parameters that take more than one value in some pass."""
    names = dict.fromkeys(name for one in passes for name in one.values)
    return [name for name in names if any(len(set(one.values.get(name, ()))) > 1 for one in passes)]


def _panel(axis: Any, name: str, passes: list[list[Any]]) -> None:
    """One parameter: a density for each pass, or bars where it takes few values."""
    everything = [value for values in passes for value in values]
    axis.set_title(name.replace("_", " "), fontsize=7, loc="left", pad=3)
    axis.tick_params(labelsize=6, length=2, pad=2)
    axis.spines[["top", "right", "left"]].set_visible(False)
    if _are_words(everything):
        _bars(axis, passes)
        return
    bins = _bins(everything)
    for number, values in enumerate(passes):
        colour = _colour(number, len(passes))
        atoms = _atoms(values)
        rest = [value for value in values if value not in atoms]
        if rest:
            heights = np.histogram(rest, bins, density=True)[0]
            axis.stairs(heights, bins, fill=True, color=colour, alpha=0.25)
            axis.stairs(heights, bins, color=colour, linewidth=0.9)
        for value, share in atoms.items():
            axis.axvline(value, color=colour, linewidth=1.5)
            axis.annotate(
                f"{share:.0%} ",
                (value, 0.92 - 0.15 * number),
                xycoords=("data", "axes fraction"),
                fontsize=6,
                color=colour,
                ha="right",
            )
    axis.set_yticks([])
    axis.set_ylim(bottom=0)


def _bars(axis: Any, passes: list[list[Any]]) -> None:
    words = [word for word, _ in Counter(v for values in passes for v in values).most_common()]
    width = 0.8 / len(passes)
    for number, values in enumerate(passes):
        shares = [100 * values.count(word) / max(1, len(values)) for word in words]
        places = np.arange(len(words)) + (number - (len(passes) - 1) / 2) * width
        axis.barh(places, shares, width, color=_colour(number, len(passes)))
    axis.set_yticks(np.arange(len(words)), [_word(word, short=True) for word in words])
    axis.invert_yaxis()
    axis.tick_params(axis="y", length=0, labelsize=6)
    axis.xaxis.set_major_formatter("{x:g}%")


def _bins(values: Sequence[Any]) -> np.ndarray:
    """Edges; whole numbers have a bin each, or they would fall into some bins twice."""
    found = np.unique(values)
    if np.issubdtype(found.dtype, np.integer) and len(found) > 1:
        step = np.diff(found).min()
        if np.ptp(found) <= _MOST_BINS * step:
            return np.arange(found[0] - step / 2, found[-1] + step, step)
    return np.linspace(found[0], found[-1], _BINS + 1)


def _atoms(values: Sequence[Any]) -> dict[float, float]:
    """Single values of a continuous range that come often, and their shares."""
    if all(isinstance(value, int) for value in values):
        return {}
    often = (item for item in Counter(values).items() if item[1] > _ATOM * len(values))
    return {value: count / len(values) for value, count in often}


def _order(draws: Draws) -> Any:
    """A matplotlib figure: ops by places in the chain, darker where the op comes more often."""
    from matplotlib.figure import Figure

    places = 1 + max((place for op in draws.passes for place in op.positions), default=0)
    shares = np.zeros((len(draws.passes), places))
    for row, op in enumerate(draws.passes):
        for place, count in op.positions.items():
            shares[row, place] = 100 * count / draws.n
    figure = Figure((0.42 * places + 2, 0.24 * len(shares) + 0.6), layout="constrained")
    axis = figure.subplots()
    axis.imshow(shares, cmap="Greys", vmin=0, vmax=130, aspect="auto")
    for (row, place), share in np.ndenumerate(shares):
        if share:
            colour = "white" if share > 65 else "black"
            text = f"{share:.0f}" if share >= 0.5 else "<1"
            axis.text(place, row, text, ha="center", va="center", fontsize=6, color=colour)
    axis.set_yticks(range(len(shares)), [op.label.replace("_", " ") for op in draws.passes])
    axis.set_xticks(range(places), [str(place + 1) for place in range(places)])
    axis.set_xlabel("place in the chain", fontsize=7)
    axis.tick_params(labelsize=7, length=0)
    axis.spines[:].set_visible(False)
    return figure


def _colour(number: int, count: int) -> Any:
    from matplotlib import colormaps

    return colormaps[_MAP](0.25 if count == 1 else 0.1 + 0.65 * number / (count - 1))


def _are_words(values: Sequence[Any]) -> bool:
    return any(isinstance(value, str | bool) for value in values)


def _word(value: Any, short: bool = False) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if short:
        value = str(value).replace("generalised", "gen").replace("anisotropic", "aniso")
        return value.replace("isotropic", "iso").replace("_", " ")
    return f"{value:g}" if isinstance(value, int | float) else str(value)
