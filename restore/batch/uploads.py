"""Results on their way to where they are kept, while the run makes the next ones."""

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait

from restore.batch.background import LISTEN_S, Threads
from restore.batch.jobs import Job
from restore.batch.rows import Row

LAST_S = 5  # that uploads get to end, if the run ends by an error or Ctrl-C


class Uploads:
    """Calls the functions that give results their names, some at a time.

    Args:
        at_once: 1: each is called at once, and waited for, as by a folder on a disk.
    """

    def __init__(self, at_once: int):
        self.at_once = at_once
        self._threads = Threads(at_once, "restore upload")
        self._pending: dict[Future[Row], Job] = {}

    def __enter__(self) -> "Uploads":
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.close(LAST_S if self._pending else 0)

    def add(self, job: Job, commit: Callable[[], Row]) -> Iterator[tuple[Job, Row]]:
        """Call `commit` for a job; yield the jobs that are done by now, with their rows."""
        if self.at_once == 1:
            yield job, commit()
            return
        self._pending[self._threads.submit(commit)] = job
        yield from self._done(self.at_once)

    def rest(self) -> Iterator[tuple[Job, Row]]:
        """Wait for all others."""
        yield from self._done(0)

    def _done(self, most: int) -> Iterator[tuple[Job, Row]]:
        """Yield what is done; wait until at most `most` are not."""
        while self._pending:
            is_full = len(self._pending) > most
            done, _ = wait(self._pending, LISTEN_S if is_full else 0, FIRST_COMPLETED)
            for future in done:
                job = self._pending.pop(future)
                yield job, future.result()
            if not is_full:
                return
