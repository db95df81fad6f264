"""The queue and the thread that does one job at a time, so that one model is in memory."""

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from restore.batch.folder_lock import is_full
from restore.batch.prefetch import THREAD_NAME
from restore.batch.rows import Row
from restore.errors import (
    CancelledError,
    DiskFullError,
    OutOfMemoryError,
    RestoreError,
    printable,
)
from restore.web.previews import Previews
from restore.web.store import ENDED, Job, Part, Store, Tally

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger(__name__)
ATTEMPTS = 3
SHORT_OF_MEMORY = ("out of memory", "can't allocate memory")  # torch's words, on GPU and CPU
FAILURES = 20  # listed of a run over a folder; its report has all
LAST_S = 5  # that the current job has to stop when the server ends


def to_printable(text: str) -> str:
    """Replace characters that JSON cannot hold, such as those of odd file names; keep lines."""
    return "\n".join(map(printable, text.splitlines()))


class FullError(RestoreError):
    """The queue is full."""

    code = "FULL"


class Watch:
    """Reports progress of a job to the store, and stops it on request.

    It is the `show` of restore.batch.folder.run.

    Args:
        store: The store.
        job: The job.
        stop_reason: Returns why the job should stop; "" if it should not.
        previews: Where pictures of the unfinished result go.
    """

    def __init__(self, store: Store, job: Job, stop_reason: Callable[[], str], previews: Previews):
        self.store, self.job, self.stop_reason = store, job, stop_reason
        self.previews = previews
        self.rows: list[Row] = []
        self.notes: list[str] = []
        self.tally: Tally | None = None

    def start_tally(self, total: int) -> None:
        """Count rows from now on, as the job is a run over `total` files."""
        self.tally = Tally(total=total)

    def row(self, row: Row) -> None:
        """Take a row of the report: keep it, or count it in a run over a folder."""
        if self.tally is None:
            self.rows.append(row)
            return
        is_failed = row["status"] == "failed"
        failures = [to_printable(f"{row['key']}: {row['error']}")] if is_failed else []
        self.tally = Tally(
            total=self.tally.total,
            done=self.tally.done + 1,
            failed=self.tally.failed + is_failed,
            last=to_printable(row["key"]),
            left_s=row.get("left_s"),
            failures=[*self.tally.failures, *failures][:FAILURES],
        )
        self.store.update(self.job.id, tally=self.tally)

    def note(self, text: str) -> None:
        """Keep a warning of the job."""
        self.notes.append(to_printable(text))

    def part(self, done: int, of: int, what: str) -> None:
        """Report progress of the current picture, and stop here on request."""
        self.check()
        part = Part(done=done, of=of, what=what)
        self.store.update(self.job.id, keep=False, part=part)

    def look(self, sketch: "Callable[[], np.ndarray]") -> None:
        """Keep a preview of the unfinished result, if a client waits for one."""
        if number := self.previews.take(sketch):
            self.store.update(self.job.id, keep=False, preview=number)

    def check(self) -> None:
        """Stop here on request.

        Raises:
            CancelledError: The job was cancelled, or the server stops.
        """
        if why := self.stop_reason():
            raise CancelledError(why)


class Worker:
    """The queue and its thread.

    Args:
        store: The store of jobs; those that have not ended are queued again.
        carry_out: Does a job and returns the fields of Job to set.
        bound: Jobs that may wait.
        prepare: Called once before the first job, such as to load a model.
    """

    def __init__(
        self,
        store: Store,
        carry_out: Callable[[Job, Watch], dict[str, Any]],
        bound: int,
        prepare: Callable[[], None] = lambda: None,
    ):
        self.store, self.carry_out, self.bound, self.prepare = store, carry_out, bound, prepare
        self.previews = Previews()
        self._is_over = False
        self._cancelled: set[str] = set()
        self._current = ""
        self._change = threading.Condition()
        self._waiting = [job.id for job in store.all() if job.status not in ENDED]
        self._thread = threading.Thread(target=self._work, name=f"{THREAD_NAME}: jobs", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop; the current job and those that wait continue after the next start."""
        with self._change:
            self._is_over = True
            self._change.notify_all()
        self._thread.join(LAST_S)
        job = self.store.get(self._current)
        if job and job.status == "running":  # it ends with the process: that is no attempt
            self.store.update(job.id, status="queued", attempts=job.attempts - 1)

    @property
    def waiting(self) -> int:
        """Number of jobs that wait."""
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether no further job may wait."""
        return self.waiting >= self.bound

    @property
    def is_busy(self) -> bool:
        """Whether a job is running."""
        return bool(self._current)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def submit(self, job: Job) -> None:
        """Queue a job.

        Raises:
            FullError: Too many jobs wait.
        """
        with self._change:
            if self.is_full:
                raise FullError(f"{self.bound} jobs wait already; try again later")
            self.store.add(job)
            self._waiting.append(job.id)
            self._change.notify_all()

    def cancel(self, job_id: str) -> None:
        """Cancel a job: at once if it waits, soon if it is running."""
        with self._change:
            if job_id in self._waiting:
                self._waiting.remove(job_id)
                self.store.update(job_id, status="cancelled", ended=time.time())
            elif job_id == self._current:
                self._cancelled.add(job_id)

    def position(self, job_id: str) -> int | None:
        """Return the number of jobs before it; None if it does not wait."""
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
        except Exception:  # the first job fails in the same way, and its client is told
            if not self._is_over:
                log.exception("the model was not loaded ahead")
        while job_id := self._next():
            try:
                if job := self.store.get(job_id):
                    self._do(job)
            except (
                Exception
            ) as error:  # whatever the store raises: the thread must go on with the next job
                log.exception("job %s", job_id)
                text = to_printable(f"the server could not keep it: {error}")
                job = self.store.get(job_id)
                if job and job.status not in ENDED:
                    values = {"status": "failed", "code": "OUTPUT", "error": text}
                    self.store.update(job_id, keep=False, ended=time.time(), **values)
            with self._change:
                self._current = ""
                self._cancelled.discard(job_id)
            self.store.tidy()

    def _do(self, job: Job) -> None:
        def stop_reason() -> str:
            if self._is_over:
                return "STOPPED"
            return "CANCELLED" if job.id in self._cancelled else ""

        if job.attempts >= ATTEMPTS:
            text = f"the server ended {ATTEMPTS} times while it did this; try a smaller picture"
            self._end(job, status="failed", code="CRASHED", error=text)
            return
        now = time.time()
        self.store.update(job.id, status="running", started=now, attempts=job.attempts + 1)
        self.previews.begin(job.id)
        found = self._outcome(job, Watch(self.store, job, stop_reason, self.previews))
        self.previews.begin("")
        if found is None:  # it goes on after the next start; being stopped is no attempt
            self.store.update(job.id, status="queued", attempts=job.attempts, part=None, preview=0)
        else:
            self._end(job, **found)

    def _outcome(self, job: Job, watch: Watch) -> dict[str, Any] | None:
        """Do a job and return its final fields; None if the server stops meanwhile."""
        try:
            return {"status": "done", **self.carry_out(job, watch)}
        except Exception as error:  # whatever a job raises: it costs no other job
            if self._is_over:  # what a job needs, such as its decoders, ends with the process
                return None
            if isinstance(error, CancelledError):
                return {"status": "cancelled"}
            if isinstance(error, RestoreError):
                return {"status": "failed", "code": error.code, "error": to_printable(str(error))}
            log.exception("job %s", job.id)
            code, text = "INTERNAL", f"{type(error).__name__}; the server's log has more"
            is_short = any(words in str(error) for words in SHORT_OF_MEMORY)
            if isinstance(error, MemoryError) or is_short:
                mend = "take a smaller picture, scale or model"
                code, text = OutOfMemoryError.code, f"the server has too little memory; {mend}"
            if is_full(error):
                code, text = DiskFullError.code, "no room left on the server's disk; make some"
            return {"status": "failed", "code": code, "error": text}

    def _end(self, job: Job, **values: Any) -> None:
        self.store.update(job.id, part=None, preview=0, ended=time.time(), **values)
