"""Jobs on disk, a folder each: asked for once, they outlive the server.

STATE/jobs/ID/job.json  what was asked and what became of it, replaced in one step
              in/       the uploads
              out/      the results and their report, as a run of the command line writes them
              view/     smaller copies for a browser
"""

import logging
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from restore.files import read_plain, write_text
from restore.web.asked import AnyAsked

log = logging.getLogger(__name__)
Status = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED = ("done", "failed", "cancelled")
ID = re.compile(r"[0-9a-f]{32}")
KEPT = 200  # jobs that have ended; older ones are removed with their files


class Result(BaseModel):
    """A file that a job made; `name` is told from its folder out/."""

    name: str
    bytes: int
    sha256: str


class Part(BaseModel):
    """How far the picture in hand is: so many windows, blocks or bands of a stage."""

    done: int
    of: int
    what: str


class Tally(BaseModel):
    """How far a run over a folder is."""

    total: int
    done: int = 0
    failed: int = 0
    last: str = ""
    left_s: float | None = None
    failures: list[str] = []


class Job(BaseModel):
    """One request, and what became of it."""

    id: str
    asked: AnyAsked
    uploads: list[str] = []
    mask: str = ""
    status: Status = "queued"
    created: float
    started: float | None = None
    ended: float | None = None
    attempts: int = 0
    """Times that it was begun: one that ends the server each time is given up."""
    code: str = ""
    error: str = ""
    warnings: list[str] = []
    size_in: tuple[int, int] | None = None
    size_out: tuple[int, int] | None = None
    results: list[Result] = []
    views: list[str] = []
    tally: Tally | None = None
    part: Part | None = None


class Store:
    """All jobs. Whoever changes one does so through `update`, under one lock."""

    def __init__(self, state: Path):
        self.folder = state / "jobs"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)  # strangers' pictures
        self._lock = threading.RLock()
        self._jobs: dict[str, Job] = {}
        for path in sorted(self.folder.iterdir()):
            self._read(path)

    def _read(self, folder: Path) -> None:
        """One that was never queued, or that cannot be read, is no job."""
        try:
            job = Job.model_validate_json(read_plain(folder / "job.json", 2**24))
        except (OSError, ValidationError) as error:
            if ID.fullmatch(folder.name) and not folder.is_symlink():
                log.warning("%s: no job; removed: %s", folder, type(error).__name__)
                shutil.rmtree(folder, ignore_errors=True)
            return
        if job.id == folder.name:
            self._jobs[job.id] = job

    def place(self, job_id: str) -> Path:
        return self.folder / job_id

    def begin(self) -> tuple[str, Path]:
        """An id that nobody guesses, and its folder, where uploads go first."""
        job_id = secrets.token_hex(16)
        place = self.place(job_id)
        (place / "in").mkdir(parents=True)
        return job_id, place

    def drop(self, job_id: str) -> None:
        """Forget a job and delete its files."""
        with self._lock:
            self._jobs.pop(job_id, None)
        shutil.rmtree(self.place(job_id), ignore_errors=True)

    def add(self, job: Job) -> None:
        with self._lock:
            self._keep(job)
            self._jobs[job.id] = job

    def get(self, job_id: str) -> Job | None:
        """A copy, which nobody changes."""
        with self._lock:
            job = self._jobs.get(job_id)
            return job.model_copy(deep=True) if job else None

    def update(self, job_id: str, *, keep: bool = True, **values: Any) -> None:
        """Change a job's fields.

        keep  on disk as well: not for what a restart may forget.
        """
        with self._lock:
            job = self._jobs.get(job_id)
            if job is None:
                return
            job = job.model_copy(update=values)
            self._jobs[job_id] = job
            if keep:
                self._keep(job)

    def _keep(self, job: Job) -> None:
        write_text(self.place(job.id) / "job.json", job.model_dump_json(exclude={"part"}))

    def all(self) -> Iterator[Job]:
        """In the order in which they came."""
        with self._lock:
            jobs = sorted(self._jobs.values(), key=lambda job: (job.created, job.id))
        yield from jobs

    def tidy(self) -> None:
        """Remove the oldest of those that have ended, beyond KEPT."""
        ended = [job for job in self.all() if job.status in ENDED]
        for job in ended[: max(0, len(ended) - KEPT)]:
            self.drop(job.id)


def new(job_id: str, asked: Any, uploads: list[str], mask: str = "") -> Job:
    return Job(id=job_id, asked=asked, uploads=uploads, mask=mask, created=time.time())
