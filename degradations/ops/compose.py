"""Steps made of steps. They only choose; a trace holds what was chosen, as a flat list."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from degradations.ops.op import Frozen, Op
from degradations.ranges import Range, Uniform, check_weights, pick, within
from degradations.rng import Rng

if TYPE_CHECKING:
    from degradations.ops import Step

_ALWAYS_FROM = 0.25  # severity; below it what cannot fade comes less often


class Steps(Frozen):
    """Several steps; a subclass says which of them come, and in what order."""

    kind: Any
    steps: tuple["Step", ...]
    """The steps."""

    def at(self, severity: float) -> Self:
        return self.model_copy(update={"steps": weaken(self.steps, severity)})


class Sequence(Steps):
    """All of them, in this order."""

    kind: Literal["sequence"] = "sequence"

    def choose(self, rng: Rng) -> tuple["Step", ...]:
        return self.steps


class Shuffle(Steps):
    """All of them, in a random order (BSRGAN, Zhang et al. 2021)."""

    kind: Literal["shuffle"] = "shuffle"
    keep: tuple[int, ...] = ()
    """Numbers of steps, from 0, whose order among themselves stays."""

    @model_validator(mode="after")
    def _numbers_exist(self) -> Self:
        if len(set(self.keep) & set(range(len(self.steps)))) < len(self.keep):
            raise ValueError(f"keep has {list(self.keep)}, each once, from 0 to the last step")
        return self

    def choose(self, rng: Rng) -> tuple["Step", ...]:
        left, order = list(range(len(self.steps))), []
        while left:
            order.append(left.pop(pick(len(left), None, rng)))
        kept = iter(sorted(self.keep))
        return tuple(self.steps[next(kept) if n in self.keep else n] for n in order)


class Repeat(Steps):
    """All of them in this order, n times over; each pass is milder by `scale` than the last."""

    kind: Literal["repeat"] = "repeat"
    n: Annotated[Range, within(1, 100)] = Uniform(2, 2)
    """Number of passes, rounded."""
    scale: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Pass i, from 0, is at severity scale^i."""

    def choose(self, rng: Rng) -> tuple["Step", ...]:
        steps = self.steps
        for i in range(1, round(self.n.draw(rng))):
            again = self.steps if self.scale == 1 else weaken(self.steps, self.scale**i)
            steps = (*steps, *again)
        return steps


class Maybe(Frozen):
    """The step, with probability p."""

    kind: Literal["maybe"] = "maybe"
    p: Annotated[float, Field(ge=0, le=1)]
    """Probability of the step."""
    step: "Step"
    """The step."""

    def choose(self, rng: Rng) -> tuple["Step", ...]:
        return (self.step,) if rng.uniform() < self.p else ()

    def at(self, severity: float) -> Self:
        return self.model_copy(update={"step": _weaken(self.step, severity)})


class OneOf(Frozen):
    """One of the steps, by weight; without weights each is as likely."""

    kind: Literal["one_of"] = "one_of"
    steps: tuple["Step", ...] = Field(json_schema_extra={"minItems": 1})
    """The steps to choose from."""
    weights: tuple[float, ...] | None = None
    """One weight a step; None: all are equally likely."""

    @model_validator(mode="after")
    def _weights_fit(self) -> Self:
        check_weights(len(self.steps), self.weights)
        return self

    def choose(self, rng: Rng) -> tuple["Step", ...]:
        return (self.steps[pick(len(self.steps), self.weights, rng)],)

    def at(self, severity: float) -> Self:
        return self.model_copy(update={"steps": weaken(self.steps, severity)})


def weaken(steps: tuple["Step", ...], severity: float) -> tuple["Step", ...]:
    """The steps at a severity; each keeps its place, so a key draws the same at any severity."""
    return tuple(_weaken(step, severity) for step in steps)


def _weaken(step: "Step", severity: float) -> "Step":
    moved = step.at(severity)
    if moved is None:
        return Sequence(steps=())
    share = severity / _ALWAYS_FROM
    if isinstance(step, Op) and not step.fades and 0 < share < 1:
        return Maybe(p=share, step=moved)
    return moved


def iterate_ops(steps: Iterable["Step"]) -> Iterator[Op]:
    """Each op in the steps, however deep, in the order it is written."""
    for step in steps:
        if isinstance(step, Op):
            yield step
        else:
            yield from iterate_ops((step.step,) if isinstance(step, Maybe) else step.steps)
