"""A thread that makes what a run will need next, while the run is at something else."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from itertools import pairwise
from queue import SimpleQueue
from typing import Generic, TypeVar

from restore.batch.jobs import Job
from restore.errors import CancelledError

LISTEN_S = 0.2
LAST_S = 2  # that a thread has to hear of the end
AHEAD = "restore ahead"  # the name of such a thread

Made = TypeVar("Made")


class Ahead(Generic[Made]):
    """A thread of its own makes one thing a job, in the order asked.

    jobs  in the order in which they are taken.
    make  is called in the thread. What it raises, `take` raises.
    """

    def __init__(self, jobs: Iterable[Job], make: Callable[[Job], Made]):
        self._after = {job.key: following for job, following in pairwise(jobs)}
        self._make = make
        self._begun: dict[str, Future[Made]] = {}
        self._asked: SimpleQueue[tuple[Job, Future[Made]] | None] = SimpleQueue()
        self._is_closed = False
        # Ctrl-C does not wait for what nobody will take
        self.thread = threading.Thread(target=self._work, name=AHEAD, daemon=True)
        self.thread.start()

    def take(self, job: Job) -> Made:
        """What is made of this job; waits for it."""
        future = self._begun.pop(job.key, None)
        self._begun.clear()  # what was begun and is passed over: its file needs no work
        future = future or self._ask(job)
        while not future.done():  # waiting without an end would not hear of Ctrl-C everywhere
            wait([future], LISTEN_S)
            if self._is_closed and not future.done():
                raise CancelledError("the run is over")
        return future.result()

    def begin_after(self, job: Job, may: Callable[[Job], bool]) -> None:
        """Begin the job that follows, if it may be."""
        following = self._after.get(job.key)
        if following and may(following):
            self._begun[following.key] = self._ask(following)

    def follow(self, job: Job, following: Job | None) -> None:
        """Tell what comes after a job, where it was not known before."""
        self._after = {job.key: following} if following else {}

    def close(self) -> None:
        """Let the thread end when it has done what it is at; what else was asked is not made."""
        self._is_closed = True
        self._asked.put(None)

    def _ask(self, job: Job) -> "Future[Made]":
        future: Future[Made] = Future()
        self._asked.put((job, future))
        return future

    def _work(self) -> None:
        while asked := self._asked.get():
            job, future = asked
            try:
                if self._is_closed:
                    raise CancelledError("the run is over")
                future.set_result(self._make(job))
            except BaseException as error:  # of whoever takes it
                future.set_exception(error)
            del asked, job, future  # what was made belongs to whoever takes it
