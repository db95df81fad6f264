"""Contact sheets: what a recipe does to a few pictures, with all that was drawn written below."""

import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from degradations import ops
from degradations.ops.op import Params
from degradations.page import Cell, Page, plain
from degradations.pipeline import Degraded, Recipe

_KERNELS = {"blur", "sinc", "compat_sinc", "motion_blur", "defocus"}
_FIELD = 25  # pixels of a kernel that are shown, the same for all, so that they compare
_SIDE = 2 * _FIELD  # pixels it is shown on
_GAP = 4
_INCH, _LINE = 1.45, 0.092  # of the PNG: a cell's width, and the height of a line below it
_LETTERS = 35  # that fit below a cell


@dataclass(frozen=True)
class Row:
    """A picture, and what the recipe made of it."""

    name: str
    """Name of the picture."""
    hr: np.ndarray
    """uint8 (H, W, 3): the good picture."""
    degraded: tuple[Degraded, ...]
    """What the recipe made of it, one for each seed."""


def rows(
    pictures: dict[str, np.ndarray],
    recipe: Recipe,
    seeds: Sequence[int],
    scale: float,
    crop: int,
    check: Callable[[], object] = lambda: None,
) -> list[Row]:
    """Degrade the middle of each picture once a seed.

    Args:
        pictures: uint8 (H, W, 3) by name.
        recipe: The recipe.
        seeds: Seeds of the draws.
        scale: HR size over LR size.
        crop: Side of the part that is taken, pixels; of a smaller picture, all of it.
        check: Called before each draw; what it raises ends the work.
    """

    def degraded(hr: np.ndarray, seed: int, name: str) -> Degraded:
        check()
        return recipe.degrade(hr, scale, seed, name)

    result = []
    for name, picture in pictures.items():
        hr = middle(picture, crop)
        result.append(Row(name, hr, tuple(degraded(hr, s, name) for s in seeds)))
    return result


def middle(picture: np.ndarray, crop: int) -> np.ndarray:
    """Copy the middle of a picture, `crop` pixels a side; many whole ones would fill the memory."""
    height, width = (min(side, crop) for side in picture.shape[:2])
    y, x = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    return np.ascontiguousarray(picture[y : y + height, x : x + width])


def write_page(rows: Sequence[Row], recipe: Recipe, path: Path) -> None:
    """The sheet as one HTML file: a row for each picture, the good one first."""
    sheet = Page(f"What {recipe.name} does")
    if recipe.paper:
        sheet.text(recipe.paper)
    cells = []
    for row in rows:
        shown = max(96, min(row.hr.shape[1], 168))
        cells += [Cell(picture, label, shown) for picture, label in _columns(row)]
    sheet.grid(cells, 1 + len(rows[0].degraded), _caption(rows))
    sheet.write(path)


def write_png(rows: Sequence[Row], recipe: Recipe, path: Path, dpi: int = 200) -> None:
    """Write the sheet as one picture.

    Args:
        rows: What `rows` returns.
        recipe: Its name and paper are the title.
        path: The file.
        dpi: Dots per inch.
    """
    from matplotlib.figure import Figure

    columns = [[(cell, _wrapped(label)) for cell, label in _columns(row)] for row in rows]
    tall = [
        _INCH * line[0][0].shape[0] / line[0][0].shape[1]
        + _LINE * (2 + max(label.count("\n") for _, label in line))
        for line in columns
    ]
    title = recipe.name + (f"   {recipe.paper}" if recipe.paper else "")
    width, height = len(columns[0]) * (_INCH + 0.05) + 0.15, sum(tall) + 0.35
    figure = Figure((width, height))
    figure.text(0.1 / width, 1 - 0.08 / height, plain(title), va="top", fontsize=7)
    top = height - 0.3
    for line, down in zip(columns, tall, strict=True):
        for number, (picture, label) in enumerate(line):
            left, deep = 0.1 + number * (_INCH + 0.05), _INCH * picture.shape[0] / picture.shape[1]
            place = (left / width, (top - deep) / height, _INCH / width, deep / height)
            axis = figure.add_axes(place)
            axis.imshow(picture, interpolation="antialiased", aspect="auto")
            axis.set_axis_off()
            style: dict[str, Any] = {"va": "top", "family": "monospace", "linespacing": 1.25}
            where = left / width, (top - deep - 0.03) / height
            figure.text(*where, plain(label), fontsize=4.8, color="0.3", **style)
        top -= down
    figure.savefig(path, dpi=dpi, metadata={"Software": "restore-toolkit"})  # says whose it is


def describe(steps: Sequence[Params]) -> list[str]:
    """Each step in a few words: blur aniso 1.3 x 0.6, noise 12, jpeg 43."""
    return [_DESCRIBE.get(step["kind"], _describe_any)(step) for step in steps]


def kernels(steps: Sequence[Params]) -> Iterator[np.ndarray]:
    """The kernel of each blur among the steps: (25, 25) float32, its response to one pixel."""
    size = 4 * _FIELD + 1
    middle = slice(size // 2 - _FIELD // 2, size // 2 + _FIELD // 2 + 1)
    for step in steps:
        if step["kind"] in _KERNELS:
            impulse = np.zeros((size, size, 3), np.float32)
            impulse[size // 2, size // 2] = 1
            spread = ops.OPS[step["kind"]].apply(impulse, step, (size, size))
            yield spread[middle, middle, 0]


def _wrapped(label: str) -> str:
    lines = (textwrap.fill(line, _LETTERS, subsequent_indent="  ") for line in label.splitlines())
    return "\n".join(lines)


def _caption(rows: Sequence[Row]) -> str:
    text = "First the good picture, then one column a seed: the result enlarged without smoothing"
    if any(_bands(row) for row in rows):
        text += (
            ", its blur kernels on "
            f"{_FIELD} x {_FIELD} pixels (grey is the root of the weight), and what was drawn"
        )
    else:
        text += ", and what was drawn"
    return text + ", in order. Noise is in levels of 255, blur in pixels where it acts."


def _columns(row: Row) -> list[tuple[np.ndarray, str]]:
    """The pictures of a row, all of one shape, and what is below them."""
    height, width = row.hr.shape[:2]
    bands = _bands(row)
    cells = [(_over(row.hr, [], bands), f"{row.name}\n{width} x {height}")]
    for degraded in row.degraded:
        lr, steps = degraded.lr, degraded.trace.steps
        large = cv2.resize(lr, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        size = f"seed {degraded.trace.seed}, {lr.shape[1]} x {lr.shape[0]}"
        cells.append(
            (_over(large, list(kernels(steps)), bands), "\n".join([size, *describe(steps)]))
        )
    return cells


def _bands(row: Row) -> int:
    """Rows of kernels that have to fit below each picture."""
    most = max(sum(s["kind"] in _KERNELS for s in d.trace.steps) for d in row.degraded)
    return math.ceil(most / _fitting(row.hr.shape[1]))


def _fitting(width: int) -> int:
    return max(1, (width + _GAP) // (_SIDE + _GAP))


def _over(picture: np.ndarray, kernels: Sequence[np.ndarray], bands: int) -> np.ndarray:
    """The picture above its kernels, on white."""
    width = picture.shape[1]
    below = np.full((bands * (_SIDE + _GAP), max(width, _SIDE), 3), 255, np.uint8)
    for number, kernel in enumerate(kernels):
        band, place = divmod(number, _fitting(width))
        y, x = _GAP + band * (_SIDE + _GAP), place * (_SIDE + _GAP)
        size = np.sqrt(np.abs(kernel))
        grey = np.rint(255 * size / max(float(size.max()), 1e-6)).astype(np.uint8)
        below[y : y + _SIDE, x : x + _SIDE] = grey.repeat(2, 0).repeat(2, 1)[..., None]
    side = cv2.copyMakeBorder(
        picture, 0, 0, 0, below.shape[1] - width, cv2.BORDER_CONSTANT, value=(255, 255, 255)
    )
    return np.concatenate([side, below])


def _number(value: float) -> str:
    if isinstance(value, int) or abs(value) >= 10:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 1 else f"{value:.2g}"


def _grey(step: Params) -> str:
    return " grey" if step["grey"] else ""


def _blur(step: Params) -> str:
    shape = step["shape"].replace("generalised", "gen").replace("_", " ")
    shape = shape.replace("anisotropic", "aniso").replace("isotropic", "iso")
    sigmas = step["sigma"] if "aniso" in shape else step["sigma"][:1]
    beta = f" β {_number(step['beta'])}" if "beta" in step else ""
    return f"blur {shape} {' x '.join(map(_number, sigmas))}{beta}"


def _resize(step: Params) -> str:
    factor = f" x{step['factor']:.2f}" if step["factor"] != 1 else ""
    if step["of"] == "target":
        return f"to LR{factor} {step['mode']}"
    return f"resize{factor} {step['mode']}" if factor else "keep size"


def _coded(step: Params) -> str:
    chroma = step.get("chroma", "4:2:0")
    return f"{step['kind']} {_number(step['quality'])}" + (f" {chroma}" * (chroma != "4:2:0"))


def _describe_any(step: Params) -> str:
    """A step of any kind: its first number alone, the others with their names."""
    words = [step["kind"].replace("_", " ")]
    for name, value in step.items():
        if name in ("kind", "seed") or isinstance(value, dict):
            continue
        if isinstance(value, bool):
            words += [name] * value
        elif isinstance(value, str):
            words.append(value)
        else:
            numbers = value if isinstance(value, list) else [value]
            title = "" if len(words) == 1 else f"{name} "
            words.append(title + "/".join(map(_number, numbers)))
    return " ".join(words)


def _damage(step: Params) -> str:
    return f"{step['count']} {step['kind']}, {step['opacity']:.0%}"


_DESCRIBE = {
    "blur": _blur,
    "sinc": lambda step: f"sinc {step['cutoff'] / math.pi:.2f}π on {step['size']}",
    "compat_sinc": lambda step: f"sinc {step['cutoff'] / math.pi:.2f}π on {step['size']}",
    "resize": _resize,
    "compat_resize": _resize,
    "gaussian_noise": lambda step: f"noise {_number(step['sigma_levels'])}{_grey(step)}",
    "poisson_noise": lambda step: f"poisson {_number(step['scale'])}{_grey(step)}",
    "compat_poisson_noise": lambda step: f"poisson {_number(step['scale'])}{_grey(step)}",
    "jpeg": _coded,
    "webp": _coded,
    "avif": _coded,
    "compat_jpeg": lambda step: f"jpeg {_number(step['quality'])} as published",
    **dict.fromkeys(("scratches", "dust", "folds", "stains"), _damage),
    "h264": lambda step: f"h264 crf {_number(step['crf'])} {step['preset']}",
}
