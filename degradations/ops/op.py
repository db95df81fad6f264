"""What every degradation is: a frozen record; chance in `draw`, arithmetic in `apply`."""

from collections.abc import Callable
from typing import Any, ClassVar, Self

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

from degradations.rng import Rng

Params = dict[str, Any]  # numbers and words: what JSON holds
Size = tuple[int, int]  # (height, width)


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Op(Frozen):
    """One degradation. A subclass adds its ranges."""

    kind: Any = ""
    """Name of the op: a literal in our classes; a class without one gets module.Class."""
    neutral: ClassVar[dict[str, float]] = {}
    """Values of its ranges at which it is mildest."""
    is_filter: ClassVar[bool] = False
    """Whether it is linear and shift-invariant."""
    fades: ClassVar[bool] = True
    """Whether it does nothing at the neutral values. If not, low severities apply it less often."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, values: Any) -> Any:
        if not isinstance(values, dict) or cls.model_fields["kind"].default:
            return values
        return {"kind": f"{cls.__module__}.{cls.__name__}"} | values

    def draw(self, rng: Rng) -> Params:
        """The parameters of one image; the only place of chance."""
        raise NotImplementedError

    apply: ClassVar[Callable[[np.ndarray, Params, Size], np.ndarray]]
    """(rgb, params, target) -> rgb, on the class; the same params give the same pixels.

    rgb     float32 (H, W, 3), nominal range [0, 1]; clipped to it for an op that is not ours. It is
            never written to, but may be returned.
    target  the size the whole recipe ends at.
    """

    @classmethod
    def spread(cls, share: np.ndarray, params: Params, target: Size) -> np.ndarray:
        """Where marks on the picture lie after the op: where they were, or as a filter has them.

        Args:
            share: float32 (H, W), how much of each pixel is of a mark, [0, 1]. An op that mixes
                pixels without being a filter overrides this; codecs do not tell of their blocks.
        """
        if not cls.is_filter:
            return share
        share = cls.apply(np.repeat(share[..., None], 3, 2), params, target)[..., 0]
        if share.min() >= 0:
            return share
        # Where a kernel's negative lobes cancel the shares, light beside dark need not cancel: some
        # of the neighbour's share, as found by trial, is told as well.
        share = np.abs(share)
        return np.maximum(share, cv2.dilate(share, np.ones((3, 3), np.uint8)) * np.float32(0.25))

    def at(self, severity: float) -> Self | None:
        """The op with its ranges moved towards neutral; None at 0, where nothing is left of it."""
        if severity == 0:
            return None
        moved = {n: getattr(self, n).towards(value, severity) for n, value in self.neutral.items()}
        return self.model_copy(update=moved)
