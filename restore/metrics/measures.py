"""The measures by name, with their direction and what they need to be installed.

All compare upright sRGB values as the files store them, with transparency laid on white. All but
the perceptual ones leave out `border` pixels on each side (4, as papers do for x4).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from restore.errors import UsageError
from restore.images.picture import Picture
from restore.metrics import fidelity, perceptual
from restore.metrics.niqe import explain_niqe_absence, niqe


@dataclass(frozen=True)
class Pair:
    """A restored picture and its original.

    Attributes:
        restored: Levels (H, W, 3) in 0 to 255.
        original: The same shape.
        border: Pixels that `inner` and `luma` leave out on each side.
    """

    restored: np.ndarray
    original: np.ndarray
    border: int = 4

    @cached_property
    def inner(self) -> tuple[np.ndarray, np.ndarray]:
        """Both without their border."""
        return (
            fidelity.crop_border(self.restored, self.border),
            fidelity.crop_border(self.original, self.border),
        )

    @cached_property
    def luma(self) -> tuple[np.ndarray, np.ndarray]:
        """BT.601 luma of both without their border, (H, W)."""
        one, other = self.inner
        return fidelity.to_luma(one), fidelity.to_luma(other)


@dataclass(frozen=True)
class Measure:
    """A number that says how good a restored picture is.

    Attributes:
        name: Name on the command line and in scores.json.
        label: Name in tables.
        digits: Digits printed after the decimal point.
        higher: Whether higher is better.
        of: Computes it; NaN for a picture that it says nothing of.
        absent: Says why it cannot be computed here, and how to mend that; "" if it can.
        nan: What a picture is that it says nothing of.
    """

    name: str
    label: str
    digits: int
    higher: bool
    of: Callable[[Pair], float]
    absent: Callable[[], str] = str
    nan: str = "too small"

    def format(self, value: float | None) -> str:
        """Format a value for tables; "-" for none."""
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
        Measure(
            "detail",
            "detail",
            3,
            True,
            lambda pair: fidelity.detail(*pair.luma),
            nan="too flat",
        ),
        Measure("pd", "pd", 3, False, lambda pair: perceptual.pd(pair.restored, pair.original)),
        Measure(
            "lpips",
            "LPIPS",
            4,
            False,
            lambda pair: perceptual.lpips(pair.restored, pair.original),
            perceptual.explain_lpips_absence,
        ),
        Measure(
            "niqe",
            "NIQE",
            2,
            False,
            lambda pair: niqe(pair.luma[0]),
            explain_niqe_absence,
            nan="too small or too flat",
        ),
    )
}


def choose(names: Sequence[str]) -> tuple[list[Measure], list[str]]:
    """Choose measures by name.

    Args:
        names: Their names; none means all that can be computed here.

    Returns:
        The measures, and for each that cannot be computed a line with the reason.

    Raises:
        UsageError: A name does not exist, or a named measure cannot be computed here.
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


def picture_levels(picture: Picture) -> np.ndarray:
    """Convert to float64 (H, W, 3) in 0 to 255, transparency laid on white."""
    rgb = fidelity.to_levels(picture.pixels)
    if picture.alpha is None:
        return rgb
    share = fidelity.to_levels(picture.alpha)[..., None] / 255
    return rgb * share + 255 * (1 - share)
