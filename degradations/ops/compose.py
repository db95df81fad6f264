"""Steps made of steps. They only choose; a trace holds what was chosen, as a flat list."""

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from degradations.ops.op import Frozen
from degradations.ranges import check_weights, pick
from degradations.rng import Rng

if TYPE_CHECKING:
    from degradations.ops import Step


class Sequence(Frozen):
    """All of them, in this order."""

    kind: Literal["sequence"] = "sequence"
    steps: tuple["Step", ...]

    def choose(self, rng: Rng) -> tuple["Step", ...]:
        return self.steps

    def at(self, severity: float) -> Self:
        return self.model_copy(update={"steps": milder(self.steps, severity)})


class Maybe(Frozen):
    """The step, with probability p."""

    kind: Literal["maybe"] = "maybe"
    p: Annotated[float, Field(ge=0, le=1)]
    step: "Step"

    def choose(self, rng: Rng) -> tuple["Step", ...]:
        return (self.step,) if rng.uniform() < self.p else ()

    def at(self, severity: float) -> Self | None:
        step = self.step.at(severity)
        return step and self.model_copy(update={"step": step})


class OneOf(Frozen):
    """One of the steps, by weight; without weights each is as likely."""

    kind: Literal["one_of"] = "one_of"
    steps: tuple["Step", ...]
    weights: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _weights_fit(self) -> Self:
        check_weights(len(self.steps), self.weights)
        return self

    def choose(self, rng: Rng) -> tuple["Step", ...]:
        return (self.steps[pick(len(self.steps), self.weights, rng)],)

    def at(self, severity: float) -> Self:
        steps = tuple(step.at(severity) or Sequence(steps=()) for step in self.steps)
        return self.model_copy(update={"steps": steps})


def milder(steps: tuple["Step", ...], severity: float) -> tuple["Step", ...]:
    """The steps at a severity, without those of which nothing is left."""
    return tuple(step for step in (s.at(severity) for s in steps) if step is not None)
