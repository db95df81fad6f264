"""The degradations. `Step` is one of them, told apart by `kind`."""

from typing import Annotated

from pydantic import Field

from degradations.ops.blur import Blur, Sinc
from degradations.ops.compose import Maybe, OneOf, Sequence
from degradations.ops.jpeg import Jpeg
from degradations.ops.noise import GaussianNoise, PoissonNoise
from degradations.ops.op import Frozen, Op
from degradations.ops.resize import Resize

Step = Annotated[
    Blur | Sinc | Resize | GaussianNoise | PoissonNoise | Jpeg | Sequence | Maybe | OneOf,
    Field(discriminator="kind"),
]


def _by_kind(*models: type[Frozen]) -> dict:
    return {model.model_fields["kind"].default: model for model in models}


OPS: dict[str, type[Op]] = _by_kind(Blur, Sinc, Resize, GaussianNoise, PoissonNoise, Jpeg)
GROUPS: dict[str, type[Frozen]] = _by_kind(Sequence, Maybe, OneOf)
for _group in GROUPS.values():
    _group.model_rebuild(_types_namespace={"Step": Step})

__all__ = [
    "GROUPS",
    "OPS",
    "Blur",
    "GaussianNoise",
    "Jpeg",
    "Maybe",
    "OneOf",
    "Op",
    "PoissonNoise",
    "Resize",
    "Sequence",
    "Sinc",
    "Step",
]
