"""Whose draw it is, for code that cannot be told: a transform sees a picture, not its number."""

import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count

from degradations.errors import RecipeError

_names: ContextVar[Iterator[str] | None] = ContextVar("names", default=None)
_calls = (f"call/{n}" for n in count())


@contextmanager
def keyed(key: str) -> Iterator[None]:
    """Within, the transforms of this thread draw for `key`: the same key, the same draws.

    Where several are called, or one several times, each call has a key of its own.
    """
    token = _names.set(key if n == 0 else f"{key}/{n}" for n in count())
    try:
        yield
    finally:
        _names.reset(token)


def next_key() -> str:
    """The key of the next draw. Without `keyed` it is the number of the call in this process.

    Raises RecipeError in a worker or one of several ranks, where others have the same numbers.
    """
    names = _names.get()
    if names is not None:
        return next(names)
    if multiprocessing.parent_process() or int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise RecipeError(
            "several processes draw, and none knows which picture is whose: their draws would be "
            "the same. Wrap the dataset in degradations.torch.Keyed, pass a key of your own, or "
            "draw within degradations.keyed('EPOCH/INDEX')"
        )
    return next(_calls)
