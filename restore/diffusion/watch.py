"""Report the progress of a picture, show it unfinished, and let the caller stop the work.

Progress is reported between windows, blocks and bands, and repeated between the layers of a network
that takes long.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:  # pictures may be made without torch
    import numpy as np
    from torch import nn

What = Literal["encode", "walk", "decode", "enlarge", "colour"]
OnStep = Callable[[int, int, Any], None]
"""(steps done, all steps, latent); an exception from it ends the sampling"""
OnPart = Callable[[int, int, What], None]
"""(done, of, what): `done` of `of` windows, blocks or bands of the stage `what` are finished.

An exception from it ends the work."""
Sketch = Callable[[], "np.ndarray"]
"""Makes a small picture of the unfinished result, uint8 (h, w, 3)"""
OnLook = Callable[[Sketch], None]
"""Gets a sketch at each chance to look; one that it does not call costs nothing"""

OFTEN_S = 0.2  # at least, between two reports of the same values
Item = TypeVar("Item")
LAYERS = "Conv2d", "Linear"  # layers that take time
_watcher: ContextVar["Watcher | None"] = ContextVar("watcher", default=None)
_timestep: ContextVar[object] = ContextVar("timestep", default=0)


class Watcher:
    """The functions that progress is reported to, and the last report.

    Args:
        on_part: Called with (done, of, what).
        on_look: Called with a function that makes a sketch, if anyone may look.
    """

    def __init__(self, on_part: OnPart, on_look: OnLook | None = None):
        self.on_part, self.on_look, self.lap = on_part, on_look, (0, 1)
        self.last: tuple[int, int, What] | None = None
        self.reported_s = 0.0

    def tell(self, done: int, of: int, what: What) -> None:
        self.last, self.reported_s = (done, of, what), time.monotonic()
        self.on_part(done, of, what)

    def again(self) -> None:
        if self.last and time.monotonic() - self.reported_s > OFTEN_S:
            self.tell(*self.last)


@contextmanager
def watching(
    on_part: OnPart, *networks: "nn.Module", on_look: OnLook | None = None
) -> Iterator[None]:
    """Report what this thread makes inside the block to `on_part`.

    Args:
        on_part: Called with (done, of, what). An exception from it ends the work.
        networks: The last report is repeated between their layers; except for compiled ones.
        on_look: Called with a function that makes a sketch of the unfinished result.
    """
    token = _watcher.set(Watcher(on_part, on_look))
    kinds = ()
    if networks:
        from torch import nn

        kinds = tuple(getattr(nn, name) for name in LAYERS)
    eager = [one for one in networks if getattr(one, "_compiled_call_impl", None) is None]
    layers = (layer for one in eager for layer in one.modules() if isinstance(layer, kinds))
    hooks = [layer.register_forward_pre_hook(lambda *_: report_again()) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        _watcher.reset(token)


def ignore(step: int, steps: int, x: Any) -> None:
    """Do nothing."""


def is_watched() -> bool:
    """Whether anyone receives reports."""
    return _watcher.get() is not None


def offer(sketch: Sketch) -> None:
    """Offer a look at the unfinished result. What is looked at changes no result."""
    watcher = _watcher.get()
    if watcher and watcher.on_look:
        watcher.on_look(sketch)


@contextmanager
def framed(frame: "Callable[[np.ndarray], np.ndarray]") -> Iterator[None]:
    """Put the sketches of the block, which makes a part of a picture, into the whole.

    Args:
        frame: Takes the sketch of the part, returns that of the whole.
    """
    watcher = _watcher.get()
    if watcher is None or watcher.on_look is None:
        yield
        return
    on_look = watcher.on_look
    watcher.on_look = lambda sketch: on_look(lambda: frame(sketch()))
    try:
        yield
    finally:
        watcher.on_look = on_look


def report_again() -> None:
    """Repeat the last report if it was some time ago."""
    if watcher := _watcher.get():
        watcher.again()


def counter(of: int, what: What) -> Callable[[], None]:
    """Return a function to call after each of `of` parts."""
    watcher, done = _watcher.get(), 0
    if watcher is None:
        return lambda: None
    watcher.tell(0, of, what)

    def count() -> None:
        nonlocal done
        done += 1
        watcher.tell(done, of, what)

    return count


def over(parts: Sequence[Item], what: What) -> Iterator[Item]:
    """Yield the parts, and report each one when the next is asked for."""
    count = counter(len(parts), what)
    for part in parts:
        yield part
        count()


def laps(steps: Sequence[Item]) -> Iterator[tuple[int, Item]]:
    """Yield the numbered steps of a sampling loop. Its windows are counted over all steps."""
    watcher = _watcher.get()
    for number, step in enumerate(steps):
        if watcher:
            watcher.lap = number, len(steps)
        _timestep.set(step)
        yield number, step
    _timestep.set(0)


@contextmanager
def own_timestep() -> Iterator[None]:
    """Keep the steps of the block, even of one that an error ended, from what surrounds it."""
    token = _timestep.set(0)
    try:
        yield
    finally:
        _timestep.reset(token)


def timestep() -> Any:
    """Return the scheduler's timestep of the current step; 0 outside a sampling loop."""
    return _timestep.get()


def walked(done: int, windows: int) -> None:
    """Report how many windows of the current step are done."""
    if watcher := _watcher.get():
        step, steps = watcher.lap
        watcher.tell(step * windows + done, steps * windows, "walk")
