"""One thread does one job at a time, so that one model is in memory."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from restore.batch.ahead import AHEAD
from restore.batch.rows import Row
from restore.errors import CancelledError, RestoreError, printable
from restore.web.store import ENDED, Job, Part, Store, Tally

log = logging.getLogger(__name__)
ATTEMPTS = 3
FAILURES = 20  # told of a run over a folder; its report has all
LAST_S = 5  # that the job in hand has to hear of the end


def words(text: str) -> str:
    """A text that JSON can hold, whatever a file is called; its lines stay lines."""
    return "\n".join(map(printable, text.splitlines()))


class FullError(RestoreError):
    """The queue is full."""

    code = "FULL"


class Watch:
    """Tells the store how far a job is, and ends it where somebody asked for that."""

    def __init__(self, store: Store, job: Job, asked: Callable[[], str]):
        self.store, self.job, self.asked = store, job, asked
        self.rows: list[Row] = []
        self.notes: list[str] = []
        self.tally: Tally | None = None

    def of(self, total: int) -> None:
        """It is a run over so many files."""
        self.tally = Tally(total=total)

    def row(self, row: Row) -> None:
        if self.tally is None:
            self.rows.append(row)
            return
        is_failed = row["status"] == "failed"
        told = [words(f"{row['key']}: {row['error']}")] if is_failed else []
        self.tally = Tally(
            total=self.tally.total,
            done=self.tally.done + 1,
            failed=self.tally.failed + is_failed,
            last=words(row["key"]),
            left_s=row.get("left_s"),
            failures=[*self.tally.failures, *told][:FAILURES],
        )
        self.store.update(self.job.id, tally=self.tally)

    def note(self, text: str) -> None:
        self.notes.append(words(text))

    def part(self, done: int, of: int, what: str) -> None:
        self.check()
        part = Part(done=done, of=of, what=what)
        self.store.update(self.job.id, keep=False, part=part)

    def check(self) -> None:
        if why := self.asked():
            raise CancelledError(why)


class Worker:
    """The queue and the thread that works it off.

    carry_out  does a job and returns what to keep of it.
    prepare    is done before the first one, such as to load a model.
    bound      jobs that may wait.
    """

    def __init__(
        self,
        store: Store,
        carry_out: Callable[[Job, Watch], dict[str, Any]],
        bound: int,
        prepare: Callable[[], None] = lambda: None,
    ):
        self.store, self.carry_out, self.bound, self.prepare = store, carry_out, bound, prepare
        self._is_over = False
        self._cancelled: set[str] = set()
        self._current = ""
        self._change = threading.Condition()
        self._waiting = [job.id for job in store.all() if job.status not in ENDED]
        self._thread = threading.Thread(target=self._work, name=f"{AHEAD}: jobs", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """End; the job in hand and those that wait go on when the server is started again."""
        with self._change:
            self._is_over = True
            self._change.notify_all()
        self._thread.join(LAST_S)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        return self.waiting >= self.bound

    @property
    def is_busy(self) -> bool:
        return bool(self._current)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def submit(self, job: Job) -> None:
        """Queue a job. Raises FullError."""
        with self._change:
            if self.is_full:
                raise FullError(f"{self.bound} jobs wait already; try again later")
            self.store.add(job)
            self._waiting.append(job.id)
            self._change.notify_all()

    def cancel(self, job_id: str) -> None:
        """End a job: at once if it waits, soon if it is in hand."""
        with self._change:
            if job_id in self._waiting:
                self._waiting.remove(job_id)
                self.store.update(job_id, status="cancelled", ended=time.time())
            elif job_id == self._current:
                self._cancelled.add(job_id)

    def position(self, job_id: str) -> int | None:
        """How many jobs are before it; None if it does not wait."""
        with self._change:
            if job_id not in self._waiting:
                return None
            return self._waiting.index(job_id) + bool(self._current)

    def _next(self) -> str | None:
        with self._change:
            while not self._waiting and not self._is_over:
                self._change.wait()
            if self._is_over:
                return None
            self._current = self._waiting.pop(0)
            return self._current

    def _work(self) -> None:
        try:
            self.prepare()
        except Exception:  # the first job will say so to whoever asked for it
            log.exception("the model was not loaded ahead")
        while job_id := self._next():
            try:
                if job := self.store.get(job_id):
                    self._do(job)
            except Exception as error:  # what became of it could not be kept
                log.exception("job %s", job_id)
                told = words(f"the server could not keep it: {error}")
                job = self.store.get(job_id)
                if job and job.status not in ENDED:
                    values = {"status": "failed", "code": "OUTPUT", "error": told}
                    self.store.update(job_id, keep=False, ended=time.time(), **values)
            with self._change:
                self._current = ""
                self._cancelled.discard(job_id)
            self.store.tidy()

    def _do(self, job: Job) -> None:
        def asked() -> str:
            if self._is_over:
                return "STOPPED"
            return "CANCELLED" if job.id in self._cancelled else ""

        if job.attempts >= ATTEMPTS:
            told = f"the server ended {ATTEMPTS} times while it did this; try a smaller picture"
            self._end(job, status="failed", code="CRASHED", error=told)
            return
        now = time.time()
        self.store.update(job.id, status="running", started=now, attempts=job.attempts + 1)
        found = self._outcome(job, Watch(self.store, job, asked))
        if found is None:  # it goes on after the next start; being stopped is no attempt
            self.store.update(job.id, status="queued", attempts=job.attempts, part=None)
        else:
            self._end(job, **found)

    def _outcome(self, job: Job, watch: Watch) -> dict[str, Any] | None:
        """What became of a job; None if the server was stopped meanwhile."""
        try:
            return {"status": "done", **self.carry_out(job, watch)}
        except CancelledError:
            return None if self._is_over else {"status": "cancelled"}
        except RestoreError as error:
            return {"status": "failed", "code": error.code, "error": words(str(error))}
        except Exception as error:  # one bad job costs no other
            log.exception("job %s", job.id)
            code = "OOM" if isinstance(error, MemoryError) else "INTERNAL"
            told = f"{type(error).__name__}; the server's log has more"
            return {"status": "failed", "code": code, "error": told}

    def _end(self, job: Job, **values: Any) -> None:
        self.store.update(job.id, part=None, ended=time.time(), **values)
