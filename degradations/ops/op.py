"""What every degradation is: a frozen record; randomness in `draw`, arithmetic in `apply`."""

from collections.abc import Callable
from typing import Any, ClassVar, Self

import cv2
import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

from degradations.errors import RecipeError
from degradations.rng import Rng

Params = dict[str, Any]  # numbers and words: what JSON holds
Size = tuple[int, int]  # (height, width)


def refuse_longer(kind: str, rgb: np.ndarray, most: int) -> None:
    """Raises RecipeError if a side of the picture is longer than a file format can hold."""
    height, width = rgb.shape[:2]
    if max(height, width) > most:
        raise RecipeError(
            f"{kind}: {width}x{height} px exceeds the format's {most} px a side; put a resize "
            "before it or give smaller crops"
        )


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Op(Frozen):
    """One degradation. A subclass adds its ranges as fields, `draw`, and a static `apply`."""

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
        name = cls.model_fields["kind"].default
        for base in cls.__mro__[1:] if name else ():
            if issubclass(base, Op) and base.model_fields["kind"].default == name:
                raise ValueError(  # a trace knows it by its kind alone, and would apply the base
                    f"{cls.__name__} has the kind of {base.__name__}, {name!r}; give it its own: "
                    'write kind: Any = "" in the class'
                )
        if not isinstance(values, dict) or name:
            return values
        return {"kind": f"{cls.__module__}.{cls.__name__}"} | values

    def draw(self, rng: Rng) -> Params:
        """Draw the parameters of one image; nothing else is random."""
        raise NotImplementedError

    apply: ClassVar[Callable[[np.ndarray, Params, Size], np.ndarray]]
    """The arithmetic, as a static method; the same params give the same pixels.

    Args:
        rgb: float32 (H, W, 3), nominal range [0, 1]; for an op that is not ours it is clipped to
            that range. It must not be written to, but may be returned.
        params: What `draw` returned.
        target: (height, width) that the whole recipe ends at.

    Returns:
        float32 (H, W, 3); only a resize may change H and W.
    """

    @classmethod
    def spread(cls, share: np.ndarray, params: Params, target: Size) -> np.ndarray:
        """Where marks on the picture are after the op.

        By default a filter spreads them as it spreads the pixels, and other ops leave them where
        they are. An op that mixes pixels without being a filter overrides this. What codecs spread
        within their blocks is left out.

        Args:
            share: float32 (H, W), the share of each pixel that belongs to a mark, [0, 1].
            params: What `draw` returned.
            target: (height, width) that the whole recipe ends at.
        """
        if not cls.is_filter:
            return share
        share = cls.apply(np.repeat(share[..., None], 3, 2), params, target)[..., 0]
        if share.min() >= 0:
            return share
        # A kernel's negative lobes may cancel shares where they do not cancel light beside dark. So
        # some of the neighbours' share is added; how much was found by trial.
        share = np.abs(share)
        return np.maximum(share, cv2.dilate(share, np.ones((3, 3), np.uint8)) * np.float32(0.25))

    def at(self, severity: float) -> Self | None:
        """The op with its ranges moved towards neutral; None at severity 0, by default."""
        if severity == 0:
            return None
        moved = {}
        for name, value in self.neutral.items():
            try:
                moved[name] = getattr(self, name).towards(value, severity)
            except (AttributeError, TypeError) as error:
                raise RecipeError(
                    f"{self.kind}: `neutral` names {name}, which is no range of numbers; declare "
                    f"it as `{name}: Range = Uniform({value}, ...)`, or leave it out of `neutral`"
                ) from error
        return self.model_copy(update=moved)
