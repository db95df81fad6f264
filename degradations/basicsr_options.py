"""Training option files of BasicSR and Real-ESRGAN (Wang et al. 2021) -> a recipe."""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import pi
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from degradations import plain_yaml
from degradations.errors import RecipeError, mend
from degradations.ops import (
    Blur,
    CompatJpeg,
    CompatPoissonNoise,
    CompatResize,
    CompatSinc,
    GaussianNoise,
    Jpeg,
    Maybe,
    OneOf,
    PoissonNoise,
    Resize,
    Sequence,
    Sinc,
    Step,
)
from degradations.ops.blur import SHAPES
from degradations.pipeline import Recipe
from degradations.ranges import Choice, Uniform, is_finite

_SMALL, _LARGE = (7, 9, 11), (13, 15, 17, 19, 21)  # sinc kernels with the high and low cutoff
_KERNELS = dict(
    zip(
        ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"),
        SHAPES,
        strict=True,
    )
)
_FIRST = {  # x4plus as published: what is assumed where a file is silent
    "blur_kernel_size": 21,
    "kernel_list": list(_KERNELS),
    "kernel_prob": [0.45, 0.25, 0.12, 0.03, 0.12, 0.03],
    "sinc_prob": 0.1,
    "blur_sigma": [0.2, 3],
    "betag_range": [0.5, 4],
    "betap_range": [1, 2],
    "resize_prob": [0.2, 0.7, 0.1],  # up, down, keep
    "resize_range": [0.15, 1.5],
    "gaussian_noise_prob": 0.5,
    "noise_range": [1, 30],
    "poisson_scale_range": [0.05, 3],
    "gray_noise_prob": 0.4,
    "jpeg_range": [30, 95],
}
_SECOND = _FIRST | {
    "blur_sigma": [0.2, 1.5],
    "resize_prob": [0.3, 0.4, 0.3],
    "resize_range": [0.3, 1.2],
    "noise_range": [1, 25],
    "poisson_scale_range": [0.05, 2.5],
}
PUBLISHED: dict[str, Any] = {
    **_FIRST,
    **{f"{key}2": value for key, value in _SECOND.items()},
    "second_blur_prob": 0.8,
    "final_sinc_prob": 0.8,
}
_USM = ("gt_usm", "l1_gt_usm", "percep_gt_usm", "gan_gt_usm")
_VALIDATION = re.compile("val|test")  # sections that do not train
_DEGRADES = re.compile(  # ours, and those of GFPGAN, KAIR and videos
    "blur|kernel|sinc|noise|poisson|resize|downsampl|jpeg|webp|codec|usm|degrad|beta[gp]|jitter"
    "|gr[ae]y"
)


@dataclass(frozen=True)
class Imported:
    """The recipe, the scale that the file trains for, and what a user should know."""

    recipe: Recipe
    scale: float | None
    """The scale that the file trains for, if it says so."""
    notes: tuple[str, ...]
    """What was assumed or left out, one line each."""


def load(path: Path, compat: bool = False) -> Imported:
    """Read an option file; the keys of the degradation may stand in any section.

    Args:
        path: The YAML file.
        compat: Reproduce the faults of the published code, see `recipes.realesrgan_compat`.

    Raises:
        RecipeError: If the file has no key of a degradation, or a value that is not possible.
    """
    options = _Options(path, *_found(path))
    sharpens = [key for key in _USM if key in options.found]
    for key in sharpens:
        if not isinstance(options.found[key], bool):
            raise options.wrong(key, options.found[key], "give true or false, without quotes")
    recipe = Recipe(
        name=path.stem,
        paper="Wang et al. 2021, Real-ESRGAN, arXiv:2107.10833, with the values of " + path.name,
        sharpen=any(options.found[key] for key in sharpens),
        steps=_steps(options, compat),
    )
    if not sharpens:
        options.notes.append(f"{path}: no {' or '.join(_USM[:2])}: assumed false")
    for key in ("blur_kernel_size", "blur_kernel_size2"):
        if options.found.get(key, 21) != 21:
            message = "left out: the published code draws 7, 9 .. 21 whatever it says"
            options.notes.append(f"{path}: {key} {options.found[key]} is {message}")
    return Imported(recipe, options.scale, tuple(options.notes))


def _found(path: Path) -> tuple[dict[str, Any], float | None, list[str]]:
    """The values of the known keys, the scale, and a note for each unknown key beside them."""
    values = plain_yaml.read(path)
    values_found: dict[str, Any] = {}
    notes = []
    for section, prefix in _sections(values, ""):
        ours = {key: value for key, value in section.items() if key in PUBLISHED or key in _USM}
        for key, value in ours.items():
            if values_found.setdefault(key, value) != value:
                raise RecipeError(
                    f"{path}: {prefix}{key} is {value} here and {values_found[key]} above"
                )
        others = [str(key) for key in section if key not in ours] if ours else []
        notes += [
            f"{path}: {prefix}{key} is left out: not a known option; {mend(key, PUBLISHED)}"
            for key in others
            if _DEGRADES.search(key) or difflib.get_close_matches(key, PUBLISHED, 1, 0.8)
        ]
    if not values_found:
        some = ", ".join(list(PUBLISHED)[1:4])
        raise RecipeError(f"{path}: no option of a degradation here, such as {some}")
    scale = values.get("scale")
    return values_found, float(scale) if _is_number(scale) else None, notes


def _sections(values: Any, prefix: str) -> Iterator[tuple[dict, str]]:
    """Each mapping of the file, outermost first, with the dotted way to it."""
    if not isinstance(values, dict):
        return
    yield values, prefix
    for key, value in values.items():
        if not _VALIDATION.match(str(key)):
            yield from _sections(value, f"{prefix}{key}.")


@dataclass
class _Options:
    """Values by key, checked; a note is added for each that is assumed."""

    path: Path
    found: dict[str, Any]
    scale: float | None
    notes: list[str] = field(default_factory=list)

    def get(self, key: str) -> Any:
        if key not in self.found:
            self.notes.append(f"{self.path}: no {key}: assumed {PUBLISHED[key]}, as in x4plus")
        return self.found.get(key, PUBLISHED[key])

    def share(self, key: str) -> float:
        value = self.get(key)
        if not _is_number(value) or not 0 <= value <= 1:
            raise self.wrong(key, value, "give a share from 0 to 1")
        return value

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        values = self.get(key)
        if not isinstance(values, list) or len(values) != count or not all(map(_is_number, values)):
            raise self.wrong(key, values, f"give {count} numbers")
        return tuple(values)

    def range(self, key: str) -> Uniform:
        low, high = self.numbers(key, 2)
        if low > high:
            raise self.wrong(key, [low, high], "give the lower end first")
        return Uniform(low, high)

    def halves(self, key: str) -> tuple[Uniform | int, Uniform | int]:
        """The range below 1 and the range above it."""
        ends = self.range(key)
        if not ends.low <= 1 <= ends.high:
            raise self.wrong(key, [ends.low, ends.high], "give a range with 1 in it")
        below, above = Uniform(ends.low, 1), Uniform(1, ends.high)
        return (1 if below.low == 1 else below), (1 if above.high == 1 else above)

    def make(self, key: str, op: type, **values: Any) -> Any:
        """An op; its errors name the option that the value comes from."""
        try:
            return op(**values)
        except ValidationError as error:
            message = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise self.wrong(key, self.found.get(key), message) from error

    def wrong(self, key: str, value: Any, message: str) -> RecipeError:
        return RecipeError(f"{self.path}: {key}: {value} cannot be; {message}")


def _steps(options: _Options, compat: bool) -> tuple[Step, ...]:
    resized, sinc, jpeg = (CompatResize, CompatSinc, CompatJpeg) if compat else (Resize, Sinc, Jpeg)
    coded = [
        options.make(key, jpeg, quality=options.range(key)) for key in ("jpeg_range", "jpeg_range2")
    ]
    final = (resized(of="target"), Maybe(p=options.share("final_sinc_prob"), step=sinc()))
    orders = (*final, coded[1]), (coded[1], *final)
    second = options.share("second_blur_prob")
    return (
        _blur(options, "", sinc),
        options.make("resize_range", resized, factor=_factor(options, "")),
        _noise(options, "", compat),
        coded[0],
        Maybe(p=second, step=_blur(options, "2", sinc)),
        options.make("resize_range2", resized, of="target", factor=_factor(options, "2")),
        _noise(options, "2", compat),
        OneOf(steps=tuple(Sequence(steps=order) for order in orders)),
    )


def _blur(options: _Options, two: str, sinc: type[Sinc] | type[CompatSinc]) -> OneOf:
    names = options.get(f"kernel_list{two}")
    if not isinstance(names, list) or not names:
        raise options.wrong(f"kernel_list{two}", names, f"give some of {', '.join(_KERNELS)}")
    for name in names:
        if name not in _KERNELS:
            raise options.wrong(f"kernel_list{two}", name, mend(name, _KERNELS))
    weights = options.numbers(f"kernel_prob{two}", len(names))
    if min(weights) < 0 or not sum(weights) > 0:
        raise options.wrong(f"kernel_prob{two}", list(weights), "give shares, not all 0")
    blur = options.make(
        f"blur_sigma{two}",
        Blur,
        shape=Choice(tuple(_KERNELS[name] for name in names), weights),
        sigma=options.range(f"blur_sigma{two}"),
        beta_generalised=Choice(options.halves(f"betag_range{two}")),
        beta_plateau=Choice(options.halves(f"betap_range{two}")),
    )
    p = options.share(f"sinc_prob{two}")
    sharp = (
        sinc(size=Choice(_SMALL), cutoff=Uniform(pi / 3, pi)),
        sinc(size=Choice(_LARGE), cutoff=Uniform(pi / 5, pi)),
    )
    odds = [1 - p, *(p * len(sizes) / 8 for sizes in (_SMALL, _LARGE))]
    return OneOf(steps=(blur, *sharp), weights=tuple(round(share, 10) for share in odds))


def _factor(options: _Options, two: str) -> Choice:
    down, up = options.halves(f"resize_range{two}")
    weights = options.numbers(f"resize_prob{two}", 3)
    if min(weights) < 0 or not sum(weights) > 0:
        raise options.wrong(f"resize_prob{two}", list(weights), "give shares, not all 0")
    return Choice((up, down, 1), weights)


def _noise(options: _Options, two: str, compat: bool) -> OneOf:
    grey, p = options.share(f"gray_noise_prob{two}"), options.share(f"gaussian_noise_prob{two}")
    sigma, scale = f"noise_range{two}", f"poisson_scale_range{two}"
    poisson = CompatPoissonNoise if compat else PoissonNoise
    steps = (
        options.make(sigma, GaussianNoise, sigma_levels=options.range(sigma), grey=grey),
        options.make(scale, poisson, scale=options.range(scale), grey=grey),
    )
    return OneOf(steps=steps, weights=None if p == 0.5 else (p, round(1 - p, 10)))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and is_finite(value)
