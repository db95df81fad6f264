"""One thread at a time builds networks."""

from collections.abc import Callable
from functools import wraps
from threading import RLock
from typing import ParamSpec, TypeVar

Asked = ParamSpec("Asked")
Made = TypeVar("Made")
_LOCK = RLock()


def one_at_a_time(function: Callable[Asked, Made]) -> Callable[Asked, Made]:
    """Let one thread in: a module built without weights changes torch for all of them meanwhile."""

    @wraps(function)
    def alone(*args: Asked.args, **named: Asked.kwargs) -> Made:
        with _LOCK:
            return function(*args, **named)

    return alone
