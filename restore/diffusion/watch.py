"""Who looks on while a picture is made is told how far it is, and may stop it.

Told between windows, blocks and bands, and again between the layers of one that takes long.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:  # pictures may be made without torch
    from torch import nn

What = Literal["encode", "walk", "decode", "enlarge", "colour"]
OnStep = Callable[[int, int, Any], None]
"""(steps done, steps of this walk, latent); what it raises ends the walk"""
OnPart = Callable[[int, int, What], None]
"""(done, of, what): so many of the windows, blocks or bands of this part of the work are done.

What it raises ends the work."""

OFTEN_S = 0.2  # between two calls that tell the same
Item = TypeVar("Item")
LAYERS = "Conv2d", "Linear"  # what takes time
_watcher: ContextVar["Watcher | None"] = ContextVar("watcher", default=None)
_timestep: ContextVar[object] = ContextVar("timestep", default=0)


class Watcher:
    """What was told last, and to whom."""

    def __init__(self, on_part: OnPart):
        self.on_part, self.lap = on_part, (0, 1)
        self.last: tuple[int, int, What] | None = None
        self.told = 0.0

    def tell(self, done: int, of: int, what: What) -> None:
        self.last, self.told = (done, of, what), time.monotonic()
        self.on_part(done, of, what)

    def again(self) -> None:
        if self.last and time.monotonic() - self.told > OFTEN_S:
            self.tell(*self.last)


@contextmanager
def watching(on_part: OnPart, *networks: "nn.Module") -> Iterator[None]:
    """Have what this thread makes in the block told to `on_part`.

    networks  between whose layers it is told again. Compiled ones are left alone.
    """
    token = _watcher.set(Watcher(on_part))
    kinds = ()
    if networks:
        from torch import nn

        kinds = tuple(getattr(nn, name) for name in LAYERS)
    eager = [one for one in networks if getattr(one, "_compiled_call_impl", None) is None]
    layers = (layer for one in eager for layer in one.modules() if isinstance(layer, kinds))
    hooks = [layer.register_forward_pre_hook(lambda *_: breathe()) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        _watcher.reset(token)


def ignore(step: int, steps: int, x: Any) -> None:
    """Watch nothing."""


def is_watched() -> bool:
    """Whether somebody is told."""
    return _watcher.get() is not None


def breathe() -> None:
    """Tell once more what was told, if that is some time ago."""
    if watcher := _watcher.get():
        watcher.again()


def counter(of: int, what: What) -> Callable[[], None]:
    """A function to be called after each of so many parts."""
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
    """The parts, each told when the next is asked for."""
    count = counter(len(parts), what)
    for part in parts:
        yield part
        count()


def laps(steps: Sequence[Item]) -> Iterator[tuple[int, Item]]:
    """The steps of a walk, numbered: its windows count over all of them."""
    watcher = _watcher.get()
    for number, step in enumerate(steps):
        if watcher:
            watcher.lap = number, len(steps)
        _timestep.set(step)
        yield number, step
    _timestep.set(0)


def timestep() -> Any:
    """Of the lap in hand, as its scheduler has it; 0 outside a walk."""
    return _timestep.get()


def walked(done: int, windows: int) -> None:
    """So many windows of the step in hand are done."""
    if watcher := _watcher.get():
        step, steps = watcher.lap
        watcher.tell(step * windows + done, steps * windows, "walk")
