"""A thread that prepares the next job of a run while the run works on the current one."""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from itertools import pairwise
from queue import SimpleQueue
from typing import Generic, TypeVar

from restore.batch.background import LISTEN_S
from restore.batch.jobs import Job
from restore.errors import CancelledError

THREAD_NAME = "restore ahead"  # the name of these threads

Made = TypeVar("Made")


class Prefetcher(Generic[Made]):
    """Makes one thing for each job in a thread of its own, in the order of the requests.

    Args:
        jobs: In the order in which they are taken.
        make: Called in the thread. `take` raises what it raises.
    """

    def __init__(self, jobs: Iterable[Job], make: Callable[[Job], Made]):
        self._following: Iterator[tuple[Job, Job]] = pairwise(jobs)
        self._make = make
        self._begun: dict[str, Future[Made]] = {}
        self._queue: SimpleQueue[tuple[Job, Future[Made]] | None] = SimpleQueue()
        self._is_closed = False
        # a daemon, so that Ctrl-C does not wait for results that nobody will take
        self.thread = threading.Thread(target=self._work, name=THREAD_NAME, daemon=True)
        self.thread.start()

    def take(self, job: Job) -> Made:
        """Wait for what `make` returns for this job, and return it.

        Raises:
            CancelledError: `close` was called before it was made.
        """
        future = self._begun.pop(job.key, None)
        self._begun.clear()  # begun but not taken: its file needs no work
        future = future or self._ask(job)
        while not future.done():  # on some systems Ctrl-C does not end a wait without a timeout
            wait([future], LISTEN_S)
            if self._is_closed and not future.done():
                raise CancelledError("the run is over")
        return future.result()

    def begin_after(self, job: Job, may: Callable[[Job], bool]) -> None:
        """Begin the job that follows `job`, if `may` allows it."""
        for passed, following in self._following:  # goes on where it was: jobs come in order
            if passed.key == job.key:
                if may(following):
                    self._begun[following.key] = self._ask(following)
                return

    def follow(self, job: Job, following: Job | None) -> None:
        """Set the job that comes after this one, where the order was not known at the start."""
        self._following = iter([(job, following)] if following else [])

    def close(self) -> None:
        """Let the thread finish its current job and end; other requests are cancelled."""
        self._is_closed = True
        self._queue.put(None)

    def _ask(self, job: Job) -> "Future[Made]":
        future: Future[Made] = Future()
        self._queue.put((job, future))
        return future

    def _work(self) -> None:
        while request := self._queue.get():
            job, future = request
            try:
                if self._is_closed:
                    raise CancelledError("the run is over")
                future.set_result(self._make(job))
            except BaseException as error:  # `take` raises it
                future.set_exception(error)
            del request, job, future  # hold no result that its taker has dropped
