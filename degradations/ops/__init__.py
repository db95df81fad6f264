"""The degradations. A `Step` is one of them, chosen by `kind`, or an op that is not ours."""

from typing import Annotated, Any

from pydantic import (
    Field,
    SerializeAsAny,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from degradations.ops import plugins
from degradations.ops.blur import Blur, Defocus, MotionBlur, Sinc
from degradations.ops.codec import H264, Avif, WebP
from degradations.ops.compat import CompatJpeg, CompatPoissonNoise, CompatResize, CompatSinc
from degradations.ops.compose import Maybe, OneOf, Repeat, Sequence, Shuffle
from degradations.ops.damage import Damage, Dust, Folds, Scratches, Stains
from degradations.ops.jpeg import Jpeg
from degradations.ops.noise import FilmGrain, GaussianNoise, PoissonNoise, Speckle
from degradations.ops.op import Frozen, Op
from degradations.ops.photo import Cast, ChromaShift, Fade, SensorNoise
from degradations.ops.resize import Resize
from degradations.ops.screen import Banding, Halftone, ScanLines
from degradations.ops.sharpen import Sharpen

_Ours = (
    (Blur | Sinc | MotionBlur | Defocus | Sharpen | Resize)
    | (GaussianNoise | PoissonNoise | Speckle | FilmGrain | SensorNoise)
    | (Jpeg | WebP | Avif | H264 | Fade | Cast | ChromaShift | Banding | Halftone | ScanLines)
    | (Scratches | Dust | Folds | Stains)
    | (CompatSinc | CompatResize | CompatPoissonNoise | CompatJpeg)
)
_Group = Sequence | Shuffle | Repeat | Maybe | OneOf


def _by_kind(models: Any) -> dict:
    return {model.model_fields["kind"].default: model for model in models.__args__}


OPS: dict[str, type[Op]] = _by_kind(_Ours)
GROUPS: dict[str, type[Frozen]] = _by_kind(_Group)


def _or_plugin(value: Any, ours: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    kind = value.get("kind") if isinstance(value, dict) else getattr(value, "kind", None)
    if not isinstance(kind, str) or kind in OPS or kind in GROUPS:
        return ours(value)
    return plugins.read(value, kind, info.context) or ours(value)  # ours refuses it, with the mend


Step = Annotated[
    _Ours | _Group, Field(discriminator="kind"), WrapValidator(_or_plugin), SerializeAsAny()
]
for _group in GROUPS.values():
    _group.model_rebuild(_types_namespace={"Step": Step})

__all__ = [
    "GROUPS",
    "H264",
    "OPS",
    "Avif",
    "Banding",
    "Blur",
    "Cast",
    "ChromaShift",
    "CompatJpeg",
    "CompatPoissonNoise",
    "CompatResize",
    "CompatSinc",
    "Damage",
    "Defocus",
    "Dust",
    "Fade",
    "FilmGrain",
    "Folds",
    "GaussianNoise",
    "Halftone",
    "Jpeg",
    "Maybe",
    "MotionBlur",
    "OneOf",
    "Op",
    "PoissonNoise",
    "Repeat",
    "Resize",
    "ScanLines",
    "Scratches",
    "SensorNoise",
    "Sequence",
    "Sharpen",
    "Shuffle",
    "Sinc",
    "Speckle",
    "Stains",
    "Step",
    "WebP",
]
