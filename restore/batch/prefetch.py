"""A thread that prepares the next job of a run while the run works on the current one."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from functools import partial
from itertools import pairwise
from typing import Generic, TypeVar

from restore.batch.background import LISTEN_S, Threads
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
        self._thread = Threads(1, THREAD_NAME)
        self._is_closed = False

    def take(self, job: Job) -> Made:
        """Wait for what `make` returns for this job, and return it.

        Raises:
            CancelledError: `close` was called before it was made.
        """
        future = self._begun.pop(job.key, None)
        self._begun.clear()  # begun but not taken: its file needs no work
        future = future or self._ask(job)
        while not (future.done() or self._is_closed):  # with a timeout Ctrl-C ends it everywhere
            wait([future], LISTEN_S)
        if future.cancelled() or not future.done():
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

    def close(self, last_s: float = 0) -> None:
        """Give the current job so many seconds to end; other requests are cancelled."""
        self._is_closed = True
        self._thread.close(last_s)

    def _ask(self, job: Job) -> "Future[Made]":
        return self._thread.submit(partial(self._make, job))
