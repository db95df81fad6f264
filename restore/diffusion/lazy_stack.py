"""A model with only its first stage loaded; the rest is loaded when a task needs it.

This module does not import torch. Upscaling takes no sampling steps by default, and a start without
torch and diffusers takes a quarter of the time.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from restore.options import UpscaleOptions, WalkOptions

SCALE = 4  # a first stage's network enlarges by this


class Answers(Protocol):
    """A network of a first stage."""

    @property
    def halo(self) -> int:
        """How many input pixels to each side an output pixel depends on."""
        ...

    def answer(self, *rgb: np.ndarray) -> np.ndarray:
        """One or two rgb float32 (1, 3, H, W) in [0, 1] -> rgb, not clamped."""
        ...


@runtime_checkable
class Streaming(Answers, Protocol):
    """A network that takes a picture strip by strip, and computes nothing twice."""

    def cut(self, height: int, width: int) -> list[int]:
        """Cut a picture into strips for `by_strips`; returns their heights."""
        ...

    def by_strips(self, strips: Iterable[np.ndarray], height: int) -> Iterator[np.ndarray]:
        """As `answer`, for the strips of a picture; yields the next rows of the result."""
        ...


class Stage(Protocol):
    """A first stage of any engine; see restore.diffusion.compact.FirstStage."""

    fusion: Any

    def in_fp32(self) -> AbstractContextManager[None]:
        """Compute in fp32 in the block."""
        ...

    def at(self, fidelity: float) -> Any:
        """Return the network (Answers) for a fidelity from 0, rich, to 1, faithful."""
        ...


@dataclass
class LazyStack:
    """The part of a stack that a run without sampling needs.

    Attributes:
        restorer: The first stage.
        fidelity: Default of the first stage: 0 rich to 1 faithful.
        restore_steps: Default sampling steps after the first stage.
        span: Size and stride of the UNet's windows in pixels.
        rest: Loads the whole stack, of the same weights.
        steps: Sampling steps by default.
        prompts_describe: What its training prompts describe: the subjects of pictures or damage.
        name: Its name in messages.
        digest: Tells weights apart in reports.
        engine: What computes the networks: torch or onnx.
        device: Where the first stage computes.
        is_half: Whether it computes in 16 bits.
        parts: torch modules that hold weights.
        whole: The whole stack, once it is loaded. It then does every task.
    """

    restorer: Stage
    fidelity: float
    restore_steps: int
    span: tuple[int, int]
    rest: Callable[[], Any]  # returns a Stack, whose module imports this one
    steps: int = 20
    prompts_describe: Literal["subjects", "damage"] = "subjects"
    name: str = "this model"
    digest: str = ""
    engine: str = "torch"
    device: Any = "cpu"
    is_half: bool = False
    parts: list[Any] = field(default_factory=list)
    whole: Any = None
    _loading: Any = field(default_factory=Lock, repr=False, compare=False)

    def load(self) -> Any:
        """Return the whole stack, loaded at the first call. Raises ModelError."""
        with self._loading:
            if self.whole is None:
                self.whole = self.rest()
        return self.whole

    def suffices(self, options: WalkOptions, has_hole: bool) -> bool:
        """Whether the first stage alone can do the task."""
        if not isinstance(options, UpscaleOptions) or has_hole:
            return False
        return not (self.restore_steps if options.steps is None else options.steps)

    @contextmanager
    def on_cpu(self) -> Iterator[None]:
        """Move every part to the CPU for the block."""
        try:
            for part in self.parts:
                part.to("cpu")
            yield
        finally:
            for part in self.parts:
                part.to(self.device)

    @contextmanager
    def in_fp32(self) -> Iterator[None]:
        """Compute in fp32 in the block."""
        with self.restorer.in_fp32():
            yield
