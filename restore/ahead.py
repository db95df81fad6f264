"""One stage of a run over many files, working on the next file before it is asked for."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, wait
from itertools import pairwise
from queue import SimpleQueue
from typing import Generic, TypeVar

from restore.jobs import Job

LISTEN_S = 0.2

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
        # Ctrl-C does not wait for what nobody will take
        threading.Thread(target=self._work, daemon=True).start()

    def take(self, job: Job) -> Made:
        """What is made of this job; waits for it."""
        future = self._begun.pop(job.key, None)
        self._begun.clear()  # what was begun and is passed over: its file needs no work
        future = future or self._ask(job)
        while not future.done():  # waiting without an end would not hear of Ctrl-C everywhere
            wait([future], LISTEN_S)
        return future.result()

    def begin_after(self, job: Job, may: Callable[[Job], bool]) -> None:
        """Begin the job that follows, if it may be."""
        following = self._after.get(job.key)
        if following and may(following):
            self._begun[following.key] = self._ask(following)

    def close(self) -> None:
        """Let the thread end when it has done what it is at."""
        self._asked.put(None)

    def _ask(self, job: Job) -> "Future[Made]":
        future: Future[Made] = Future()
        self._asked.put((job, future))
        return future

    def _work(self) -> None:
        while asked := self._asked.get():
            job, future = asked
            try:
                future.set_result(self._make(job))
            except BaseException as error:  # of whoever takes it
                future.set_exception(error)
            del asked, job, future  # what was made belongs to whoever takes it
