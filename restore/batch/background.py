"""Threads that work beside a run, and that never keep the process from ending."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from queue import SimpleQueue
from typing import TypeVar

LISTEN_S = 0.2
LAST_S = 2  # that threads get to end
Made = TypeVar("Made")


def wait_for(future: "Future[Made]") -> Made:
    """The result of a future; Ctrl-C ends the wait on every system."""
    while not future.done():  # on some systems Ctrl-C does not end a wait without a timeout
        wait([future], LISTEN_S)
    return future.result()


class Threads:
    """A few threads, which call functions in the order in which they were given.

    They are daemons, unlike those of ThreadPoolExecutor: Ctrl-C does not wait for a network.

    Args:
        count: Of the threads; they start with the first function.
        name: Of each thread.
    """

    def __init__(self, count: int, name: str):
        self._asked: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=name, daemon=True) for _ in range(count)
        ]
        self._is_closed = False

    def submit(self, what: Callable[[], Made]) -> "Future[Made]":
        """Call `what` in a thread."""
        future: Future[Made] = Future()

        def called() -> None:
            if self._is_closed:
                future.cancel()
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(what())
            except BaseException as error:  # who waits for the result gets it
                future.set_exception(error)

        self._asked.put(called)
        for thread in self._threads:
            if thread.ident is None:
                thread.start()
        return future

    def close(self, last_s: float = LAST_S) -> None:
        """Cancel what has not begun; wait at most so many seconds for the rest."""
        self._is_closed = True
        until = time.monotonic() + last_s
        for _ in self._threads:
            self._asked.put(None)
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0, until - time.monotonic()))

    def _work(self) -> None:
        while called := self._asked.get():
            called()
            del called  # hold no result that its taker has dropped
