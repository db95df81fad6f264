"""Keys for transforms, which see a picture but not its number."""

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
    """Within the block, the transforms of this thread draw for `key`: the same key, the same draws.

    The first call has this key; further calls have "key/1", "key/2" and so on.

    Args:
        key: Names the picture, such as "EPOCH/INDEX".
    """
    token = _names.set(key if n == 0 else f"{key}/{n}" for n in count())
    try:
        yield
    finally:
        _names.reset(token)


def key_of(given: object) -> str:
    """The key that a caller gave, or else the next one.

    Raises:
        TypeError: If it is no text.
        RecipeError: As `next_key`.
    """
    if given is None:
        return next_key()
    if not isinstance(given, str):
        raise TypeError(f"a key is text, not {given!r}; give str({given!r})")
    return given


def next_key() -> str:
    """The key of the next draw; without `keyed` it is the number of the call in this process.

    Raises:
        RecipeError: Without `keyed` in a worker or a rank, where other processes count the same
            numbers.
    """
    names = _names.get()
    if names is not None:
        return next(names)
    if multiprocessing.parent_process() or _ranks() > 1:
        raise RecipeError(
            "several processes draw, and none knows which picture is whose: their draws would be "
            "the same. Wrap the dataset in degradations.torch.Keyed, pass a key of your own, or "
            "draw within degradations.keyed('EPOCH/INDEX')"
        )
    return next(_calls)


def _ranks() -> int:
    told = os.environ.get("WORLD_SIZE", "").strip() or "1"
    try:
        return int(told)
    except ValueError as error:
        raise RecipeError(f"WORLD_SIZE is {told!r}; set it to the number of ranks") from error
