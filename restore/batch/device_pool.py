"""Several processes on this machine do a run's jobs, each with its own model and device.

Only this process writes the journal: a worker waits for it before a result gets its name. A worker
that dies is replaced, and its file is tried again. A worker whose parent dies ends too.
"""

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from typing import Any

from restore.batch.jobs import Job
from restore.batch.journal import Journal
from restore.batch.models import PinnedModel
from restore.batch.prefetch import THREAD_NAME
from restore.batch.rows import Row
from restore.batch.runner import Offered
from restore.batch.step import make_failed_row
from restore.batch.work import Progress
from restore.batch.worker import RunSpec, Worker
from restore.errors import CancelledError, ImageError, ModelError
from restore.images.worker_pool import hidden_script

SPAWN = get_context("spawn")  # a fork would share what torch and CUDA hold
LISTEN_S = 0.2
LAST_S = 5  # that a worker gets to clean up
TRIES = 3  # of one file, before the file itself fails
STILLBORN = TRIES + 1  # workers in a row that die without a model: no one file alone makes so many


@dataclass
class DeviceWorker:
    """A worker, as this process sees it."""

    device: str
    process: Any
    pipe: Connection
    job: Job | None = None
    following: Job | None = None  # reserved for it, but an idle worker may take it
    has_model: bool = False

    def send(self, thing: object) -> None:
        with suppress(OSError):  # it died; `_receive` finds the pipe closed
            self.pipe.send(thing)

    def stop(self) -> None:
        """Ask an idle worker to end; terminate a busy one."""
        if self.job:
            self.process.terminate()
        else:
            self.send(None)

    def end(self) -> None:
        """Give it LAST_S seconds to clean up, then kill it."""
        self.process.join(LAST_S)
        self.process.kill()
        self.process.join()
        self.pipe.close()


@dataclass
class DevicePool:
    """An executor: a worker process on each device; a call yields each job with its row.

    Attributes:
        spec: What the run does.
        pinned: How a worker opens the model.
        devices: One for each worker.
        show: Receives the notes of all workers, and the progress of the first.
    """

    spec: RunSpec
    pinned: PinnedModel
    devices: Sequence[str]
    show: Progress
    _workers: list[DeviceWorker] = field(default_factory=list)
    _again: deque[Job] = field(default_factory=deque)
    _tries: dict[str, int] = field(default_factory=dict)
    _stillborn: int = 0

    def __call__(self, offered: Offered, journal: Journal) -> Iterator[tuple[Job, Row]]:
        self._workers = [self._start(device) for device in self.devices]
        try:
            while True:
                for worker in self._workers:
                    self._assign(worker, offered, journal)
                busy = [worker for worker in self._workers if worker.job]
                if not busy:
                    return
                ready = connection.wait([worker.pipe for worker in busy], LISTEN_S)
                for worker in [worker for worker in busy if worker.pipe in ready]:
                    yield from self._receive(worker, journal)
        finally:
            for worker in self._workers:
                worker.stop()
            for worker in self._workers:
                worker.end()

    def _start(self, device: str) -> DeviceWorker:
        mine, theirs = SPAWN.Pipe()
        arguments = theirs, self.spec, self.pinned.on(device), len(self.devices)
        # not a daemon: it starts processes of its own, which decode
        process = SPAWN.Process(target=_serve, args=arguments, name=f"restore worker {device}")
        with hidden_script():
            process.start()
        theirs.close()
        return DeviceWorker(device, process, mine)

    def _assign(self, worker: DeviceWorker, offered: Offered, journal: Journal) -> None:
        """Give an idle worker a job, and the job after it, so that it reads ahead."""
        if worker.job:
            return
        worker.job = self._next(worker, offered)
        if worker.job is None:
            return
        worker.following = None if self._again else next(offered, None)
        worker.send((worker.job, journal.about(worker.job), worker.following))

    def _next(self, worker: DeviceWorker, offered: Offered) -> Job | None:
        kept, worker.following = worker.following, None
        if offered.is_over():
            return None
        if kept:
            return kept
        if self._again:
            return self._again.popleft()
        if job := next(offered, None):
            return job
        for other in self._workers:  # at the end, take a job reserved for another worker
            if other.following:
                job, other.following = other.following, None
                return job
        return None

    def _receive(self, worker: DeviceWorker, journal: Journal) -> Iterator[tuple[Job, Row]]:
        try:
            what, thing = worker.pipe.recv()
        except (EOFError, OSError):
            yield from self._replace(worker)
            return
        if what == "note":
            journal.note(thing)
            worker.send("noted")
        elif what == "row":
            assert worker.job
            job, worker.job, self._stillborn = worker.job, None, 0
            yield job, thing
        elif what == "loaded":
            worker.has_model, self._stillborn = True, 0
        elif what == "error":
            raise thing
        elif what == "say":
            self.show.note(thing)
        elif what == "part" and worker is self._workers[0]:
            self.show.part(*thing)

    def _replace(self, worker: DeviceWorker) -> Iterator[tuple[Job, Row]]:
        """Replace a worker that died; its file is tried again, up to TRIES times."""
        worker.end()
        self._stillborn += not worker.has_model
        how = worker.process.exitcode or 0
        ended = signal.Signals(-how).name if how < 0 else f"exit code {how}"
        if self._stillborn == STILLBORN:
            problem = f"workers on {worker.device} end before they have a model ({ended})"
            raise ModelError(f"{problem}; try one, --device")
        assert worker.job
        job, tries = worker.job, self._tries.get(worker.job.key, 0) + 1
        self._tries[job.key] = tries
        if worker.following:
            self._again.append(worker.following)
        fresh = self._start(worker.device)
        self._workers[self._workers.index(worker)] = fresh
        if tries < TRIES:
            self._again.appendleft(job)
            return
        mend = "leave it out, or do it alone"
        yield (
            job,
            make_failed_row(
                job, ImageError("CRASHED", f"its worker died {TRIES} times ({ended}); {mend}"), 0
            ),
        )


class _PipeProgress:
    """Sends the progress of a worker to the process that started it."""

    def __init__(self, pipe: Connection):
        self.pipe, self.lock, self.last = pipe, threading.Lock(), 0.0

    def send(self, what: str, thing: object) -> None:
        with self.lock:  # the model runs in another thread, which sends progress
            self.pipe.send((what, thing))

    def row(self, row: Row) -> None: ...

    def note(self, text: str) -> None:
        self.send("say", text)

    def part(self, done: int, of: int, what: str) -> None:
        if time.monotonic() - self.last < LISTEN_S:
            return
        self.last = time.monotonic()
        try:
            self.send("part", (done, of, what))
        except OSError as error:
            raise CancelledError("nobody waits for this any more") from error


def _serve(pipe: Connection, spec: RunSpec, pinned: PinnedModel, workers: int) -> None:
    """Do jobs until the parent process sends None or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent decides
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    progress = _PipeProgress(pipe)

    def note(row: Row) -> None:
        progress.send("note", row)
        pipe.recv()  # the answer: it is in the journal

    # EOFError, OSError: the parent is gone
    with suppress(EOFError, OSError, KeyboardInterrupt, CancelledError):
        if pinned.choice.device == "cpu":
            _share_cores(workers)
        worker = Worker(spec, pinned, progress, lambda: progress.send("loaded", None))
        with worker.work:
            while asked := pipe.recv():
                try:
                    row = worker(*asked, note)
                except (EOFError, OSError, CancelledError):
                    raise
                except Exception as error:  # the driver raises it again
                    progress.send("error", error)
                    return
                progress.send("row", row)
    if any(thread.name == THREAD_NAME and thread.is_alive() for thread in threading.enumerate()):
        os._exit(0)  # a thread inside torch at interpreter exit would abort the process


def _share_cores(workers: int) -> None:
    """Give each of the models on one CPU an equal part of the cores."""
    import torch

    torch.set_num_threads(max(1, torch.get_num_threads() // workers))
