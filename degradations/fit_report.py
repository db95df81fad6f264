"""Compares a fitted recipe's pictures with the measured photos: figures for one page."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from PIL import Image

from degradations.errors import counted
from degradations.measure import Measured, measure_pixels
from degradations.measure.photo import FORMATS, part
from degradations.page import Cell, Page
from degradations.pipeline import Recipe

_AT_MOST = 60  # pictures simulated
_SIDE = 192  # pixels a clean stand-in keeps at least, where the photo has them
_LARGEST = 4096  # pixels of a photo that are read into a stand-in
_SHOWN, _CROP = 6, 180
_SHARES = ("5 %", "median", "95 %")
_REAL, _SIMULATED = "#1f4e79", "#d1711b"
Value = TypeVar("Value")
QUANTITIES: dict[str, tuple[str, Callable[[Measured], float | None]]] = {
    "JPEG quality": ("last JPEG", lambda photo: photo.last_quality),
    "noise": ("sigma of luma, levels", lambda photo: photo.noise),
    "blur": ("Gaussian sigma, px", lambda photo: photo.blur),
    "black": ("darkest luma", lambda photo: photo.black),
    "white": ("lightest luma", lambda photo: photo.white),
}


@dataclass(frozen=True)
class Simulated:
    """A simulated picture: a clean one that the recipe degraded, and its measurements."""

    photo: Measured
    """The measurements of the simulated picture."""
    crop: np.ndarray
    """uint8 (h, w, 3): the middle of it."""


def simulate(
    photos: Sequence[Measured], recipe: Recipe, seed: int, clean: Sequence[Path] = ()
) -> list[Simulated]:
    """Degrade clean pictures and measure the results: as many as there are photos, at most 60.

    Args:
        photos: The measured photos.
        recipe: The recipe that was fitted to them.
        seed: Seed of the draws.
        clean: Good photos, used again and again. Without them the measured photos are used, shrunk
            2 to 8 times; what is left of their own noise then adds to that of the recipe.
    """
    sources = _spread([str(path) for path in clean] or [photo.path for photo in photos], _AT_MOST)
    simulated = []
    for number in range(min(_AT_MOST, len(photos))):
        path = sources[number % len(sources)]
        hr = _stand_in(path, 1 if clean else 0)
        if min(hr.shape[:2]) < 64:
            continue
        lr = recipe.degrade(hr, 1, seed, f"{number} {path}").lr
        simulated.append(Simulated(measure_pixels(lr, path), _crop(lr)))
    return simulated


def compare(photos: Sequence[Measured], simulated: Sequence[Simulated]) -> dict[str, Any]:
    """Compare photos and simulated pictures by each quantity that was measured in both.

    Returns:
        By quantity: the values of both ("real", "simulated"), the Kolmogorov-Smirnov distance "ks"
            and the Wasserstein distance "moved".
    """
    from scipy.stats import ks_2samp, wasserstein_distance  # slow to import; a worker needs none

    compared = {}
    for name, (_, of) in QUANTITIES.items():
        real = [float(v) for photo in photos if (v := of(photo)) is not None]
        made = [float(v) for one in simulated if (v := of(one.photo)) is not None]
        if real and made:
            ks = float(ks_2samp(real, made, method="asymp").statistic)  # no p, which may warn
            moved = float(wasserstein_distance(real, made))
            compared[name] = {"real": real, "simulated": made, "ks": ks, "moved": moved}
    return compared


def page(
    photos: Sequence[Measured],
    refused: Sequence[tuple[str, str]],
    recipe: Recipe,
    simulated: Sequence[Simulated],
) -> Page:
    """The page with the comparison, the noise curves, some pictures and the recipe.

    Args:
        photos: Measured photos.
        refused: File and reason of each that could not be measured.
        recipe: The fitted recipe.
        simulated: Clean pictures that the recipe degraded, measured in the same way.
    """
    compared = compare(photos, simulated)
    report = Page(f"{recipe.name}: {counted(len(photos), 'photo')} and the recipe fitted to them")
    report.table(
        ("", "unit", *("photos", *_SHARES), *("simulated", *_SHARES), "KS", "Wasserstein"),
        _rows(compared),
        "What could be told of the photos, and of clean pictures degraded by the recipe and "
        "measured the same way. KS: largest distance of the two distribution functions, 0 to 1; "
        "Wasserstein: mean distance of their quantiles, in the unit.",
    )
    report.table(("of the photos", ""), _counts(photos), "")
    if compared:
        report.figure(
            _distributions(compared),
            "Above: photos (blue) and simulated (orange). Below: quantile against quantile; on the "
            "diagonal both are distributed alike.",
        )
    if any(photo.noise_curve for photo in photos):
        report.figure(
            _noise_figure(photos),
            "Noise of the luma in the flattest blocks of each photo; the line is the median of the "
            "fits variance = read + shot x luma; it runs low, for what lies above may be texture.",
        )
    report.heading("Photos and simulated pictures")
    report.grid(
        _cells(photos, simulated), _SHOWN, "Above: photos. Below: simulated. One pixel each."
    )
    if refused:
        report.heading("Files that could not be used")
        report.table(("file", "why"), refused[:50], f"{len(refused)} in all.")
    report.heading("Recipe")
    report.code(recipe.to_yaml())
    return report


def _spread(values: Sequence[Value], most: int) -> list[Value]:
    at = np.linspace(0, len(values) - 1, min(most, len(values))).round().astype(int)
    return [values[index] for index in at.tolist()]


def _stand_in(path: str, factor: int) -> np.ndarray:
    """The middle of a photo, shrunk by averaging; by as much as leaves enough where factor is 0."""
    with Image.open(path, formats=FORMATS) as image:
        width, height = image.size
        left, top = max(0, (width - _LARGEST) // 2), max(0, (height - _LARGEST) // 2)
        box = left, top, min(width, left + _LARGEST), min(height, top + _LARGEST)
        rgb = part(image, box)
    factor = factor or int(np.clip(min(rgb.shape[:2]) // _SIDE, 2, 8))
    size = max(1, rgb.shape[1] // factor), max(1, rgb.shape[0] // factor)
    return cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)


def _crop(rgb: np.ndarray) -> np.ndarray:
    top, left = (max(0, (side - _CROP) // 2) for side in rgb.shape[:2])
    return rgb[top : top + _CROP, left : left + _CROP].copy()


def _rows(compared: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    for name, values in compared.items():
        cells: list[Any] = [name, QUANTITIES[name][0]]
        for side in ("real", "simulated"):
            low, middle, high = np.quantile(values[side], (0.05, 0.5, 0.95))
            cells += [len(values[side]), f"{low:.3g}", f"{middle:.3g}", f"{high:.3g}"]
        yield (*cells, f"{values['ks']:.2f}", f"{values['moved']:.3g}")


def _counts(photos: Sequence[Measured]) -> Iterator[tuple[str, str]]:
    jpegs = [photo for photo in photos if photo.quality is not None]
    measured = [photo for photo in photos if photo.colour_noise is not None]
    chroma = Counter(photo.chroma for photo in jpegs)
    yield "JPEG files", str(len(jpegs))
    yield "their chroma", ", ".join(f"{name}: {n}" for name, n in chroma.most_common())
    yield "with an encoder's own tables", str(sum(photo.tables == "own" for photo in jpegs))
    yield "a JPEG before", str(sum(photo.earlier_quality is not None for photo in photos))
    yield "enlarged", str(sum(photo.enlarged is not None for photo in photos))
    yield (
        "colour noise",
        f"{sum(map(_is_coloured, measured))} of {len(measured)} where it can be told",
    )


def _is_coloured(photo: Measured) -> bool:
    return bool(photo.colour_noise)


def _distributions(compared: dict[str, Any]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.6 * len(compared), 4.6), layout="constrained")
    axes = figure.subplots(2, len(compared), squeeze=False)
    for (name, values), above, below in zip(compared.items(), *axes, strict=True):
        real, simulated = values["real"], values["simulated"]
        bins = np.histogram_bin_edges(real + simulated, min(20, max(5, len(real) // 3)))
        for side, colour in ((real, _REAL), (simulated, _SIMULATED)):
            shares = np.full(len(side), 1 / len(side))
            above.hist(side, bins, weights=shares, color=colour, alpha=0.25)
            above.hist(side, bins, weights=shares, color=colour, histtype="step", lw=1.2)
        above.set(title=name, xlabel=QUANTITIES[name][0], yticks=[])
        level = (np.arange(25) + 0.5) / 25
        x, y = np.quantile(real, level), np.quantile(simulated, level)
        ends = [min(x[0], y[0]), max(x[-1], y[-1])]
        below.plot(ends, ends, color="#999", lw=0.8)
        below.plot(x, y, "o", ms=3.5, color=_SIMULATED)
        below.set(xlabel="photos", ylabel="simulated")
        for axis in (above, below):
            axis.spines[["top", "right"]].set_visible(False)
            axis.tick_params(labelsize=8)
    return figure


def _noise_figure(photos: Sequence[Measured]) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axis = figure.subplots()
    for photo in photos:
        if photo.noise_curve:
            luma, sigma = np.array(photo.noise_curve).T
            axis.plot(luma, sigma, "-o", ms=2.5, lw=0.5, alpha=0.3, color=_REAL)
    fitted = np.array([(p.noise_read, p.noise_shot) for p in photos if p.noise is not None], float)
    if len(fitted):
        at = np.linspace(0, 255, 100)
        fits = np.sqrt(fitted[:, :1] + fitted[:, 1:] * at)
        axis.plot(at, np.median(fits, 0), color=_SIMULATED, lw=2, label="median fit")
        low, high = np.quantile(fits, (0.1, 0.9), 0)
        axis.fill_between(at, low, high, color=_SIMULATED, alpha=0.15, lw=0, label="10 to 90 %")
        axis.legend(frameon=False, ncols=2)
    axis.set(xlabel="luma, levels", ylabel="sigma, levels", xlim=(0, 255), ylim=(0, None))
    axis.spines[["top", "right"]].set_visible(False)
    return figure


def _cells(photos: Sequence[Measured], simulated: Sequence[Simulated]) -> Iterator[Cell]:
    by_path = {photo.path: photo for photo in photos}
    for path in _padded(_spread(list(by_path), _SHOWN)):
        if path is None:
            yield Cell(np.full((1, 1, 3), 255, np.uint8), "", _CROP)
            continue
        with Image.open(path, formats=FORMATS) as image:
            left, top = (max(0, (side - _CROP) // 2) for side in image.size)
            crop = part(image, (left, top, left + _CROP, top + _CROP))
        yield Cell(crop, f"{Path(path).name}\n{_caption(by_path[path])}", _CROP)
    for one in _spread(simulated, _SHOWN):
        yield Cell(one.crop, _caption(one.photo), one.crop.shape[1])


def _padded(paths: list[str]) -> list[str | None]:
    return [*paths, *[None] * (_SHOWN - len(paths))]


def _caption(photo: Measured) -> str:
    quality, noise, blur = photo.last_quality, photo.noise, photo.blur
    parts = [
        f"JPEG {quality}" if quality else "no JPEG",
        "noise -" if noise is None else f"noise {noise:.1f}",
        "blur -" if blur is None else f"blur {blur:.2f}",
    ]
    return ", ".join(parts)
