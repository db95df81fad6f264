"""A model whose first stage is at hand, the rest of which is loaded when a task asks for it.

Free of torch: enlarging takes no walk by default, and a start without torch and diffusers takes a
quarter of the time.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from restore.options import UpscaleOptions, WalkOptions

SCALE = 4  # of a first stage's network


class Answers(Protocol):
    """A network of a first stage."""

    @property
    def halo(self) -> int:
        """How many pixels of the input a pixel sees to each side."""
        ...

    def answer(self, *rgb: np.ndarray) -> np.ndarray:
        """rgb float32 (1, 3, H, W) in [0, 1], one or two -> rgb, not clamped"""
        ...


class Stage(Protocol):
    """A first stage, whatever computes it: see restore.diffusion.compact.FirstStage."""

    fusion: Any

    def at(self, fidelity: float) -> Any:
        """The network at a fidelity, 0 rich to 1 faithful: Answers."""
        ...


@dataclass
class Light:
    """What a run without a walk needs of a stack; the fields are those of Stack.

    span      pixels that a window of the UNet measures, and from one to the next.
    load      the whole stack, of the same weights.
    engine    what computes it.
    """

    restorer: Stage
    fidelity: float
    restore_steps: int
    span: tuple[int, int]
    load: Callable[[], Any]  # of Stack, which imports this
    steps: int = 20
    hears: Literal["subjects", "damage"] = "subjects"
    name: str = "this model"
    digest: str = ""
    engine: str = "torch"
    device: Any = "cpu"
    is_half: bool = False
    parts: list[Any] = field(default_factory=list)  # torch's modules that hold weights

    def suffices(self, options: WalkOptions, has_hole: bool) -> bool:
        """Whether the first stage does all that is asked for."""
        if not isinstance(options, UpscaleOptions) or has_hole:
            return False
        return not (self.restore_steps if options.steps is None else options.steps)

    @contextmanager
    def on_cpu(self) -> Iterator[None]:
        """Every part on the CPU for a while."""
        try:
            for part in self.parts:
                part.to("cpu")
            yield
        finally:
            for part in self.parts:
                part.to(self.device)

    @contextmanager
    def in_fp32(self) -> Iterator[None]:
        """It computes in nothing else."""
        yield
