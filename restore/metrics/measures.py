"""The measures by name: what is compared, which way is better, and what is missing here.

One convention for all: upright sRGB values as the files store them, transparency laid on white,
`border` pixels left out on each side (4, as papers do for x4) by all but the perceptual ones, which
see the whole picture.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from restore.errors import UsageError
from restore.images.picture import Picture
from restore.metrics import fidelity, perceptual
from restore.metrics.niqe import niqe, niqe_absent


@dataclass(frozen=True)
class Pair:
    """A restored picture and its original, levels (H, W, 3) in 0 to 255 of one size."""

    restored: np.ndarray
    original: np.ndarray
    border: int = 4

    @cached_property
    def inner(self) -> tuple[np.ndarray, np.ndarray]:
        return (
            fidelity.trimmed(self.restored, self.border),
            fidelity.trimmed(self.original, self.border),
        )

    @cached_property
    def luma(self) -> tuple[np.ndarray, np.ndarray]:
        one, other = self.inner
        return fidelity.luma(one), fidelity.luma(other)


@dataclass(frozen=True)
class Measure:
    """A number that says how good a restored picture is."""

    name: str
    label: str
    digits: int  # worth printing after the point
    higher: bool  # is better
    of: Callable[[Pair], float]  # NaN where the picture is too small for it
    absent: Callable[[], str] = str  # why it cannot be had here, with the mend; empty if it can

    def shown(self, value: float | None) -> str:
        return "-" if value is None or math.isnan(value) else f"{value:.{self.digits}f}"


MEASURES = {
    measure.name: measure
    for measure in (
        Measure("psnr", "PSNR Y, dB", 2, True, lambda pair: fidelity.psnr(*pair.luma)),
        Measure("ssim", "SSIM Y", 4, True, lambda pair: fidelity.ssim(*pair.luma)),
        Measure("psnr_rgb", "PSNR RGB, dB", 2, True, lambda pair: fidelity.psnr(*pair.inner)),
        Measure("ssim_rgb", "SSIM RGB", 4, True, lambda pair: fidelity.ssim(*pair.inner)),
        Measure("ms_ssim", "MS-SSIM Y", 4, True, lambda pair: fidelity.ms_ssim(*pair.luma)),
        Measure("gmsd", "GMSD", 4, False, lambda pair: fidelity.gmsd(*pair.luma)),
        Measure("detail", "detail", 3, True, lambda pair: fidelity.detail(*pair.luma)),
        Measure("pd", "pd", 3, False, lambda pair: perceptual.pd(pair.restored, pair.original)),
        Measure(
            "lpips",
            "LPIPS",
            4,
            False,
            lambda pair: perceptual.lpips(pair.restored, pair.original),
            perceptual.lpips_absent,
        ),
        Measure("niqe", "NIQE", 2, False, lambda pair: niqe(pair.luma[0]), niqe_absent),
    )
}


def choose(names: Sequence[str]) -> tuple[list[Measure], list[str]]:
    """The measures of those names, or without any all that can be had here; and what cannot, why.

    Raises UsageError for a name that does not exist, or one that was asked for and is absent.
    """
    wrong = [name for name in names if name not in MEASURES]
    if wrong:
        raise UsageError(f"no measure {', '.join(wrong)}; there are {', '.join(MEASURES)}")
    wanted = [MEASURES[name] for name in names or MEASURES]
    reasons = {measure.name: measure.absent() for measure in wanted}
    absent = [f"{name} {reason}" for name, reason in reasons.items() if reason]
    if names and absent:
        raise UsageError("\n".join(absent))
    return [measure for measure in wanted if not reasons[measure.name]], absent


def levels(picture: Picture) -> np.ndarray:
    """float64 (H, W, 3) in 0 to 255, transparency laid on white."""
    rgb = fidelity.levels(picture.pixels)
    if picture.alpha is None:
        return rgb
    share = fidelity.levels(picture.alpha)[..., None] / 255
    return rgb * share + 255 * (1 - share)
