"""Jobs on disk, a folder each, so that they survive a restart of the server.

STATE/jobs/ID/job.json  the request and its state, replaced in one step
              in/       the uploads; mask/ and control/ beside it
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

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from restore.files import read_plain, write_text
from restore.web.requests import AnyRequest

log = logging.getLogger(__name__)
Status = Literal["queued", "running", "done", "failed", "cancelled"]
ENDED = ("done", "failed", "cancelled")
ID = re.compile(r"[0-9a-f]{32}")
KEPT = 200  # jobs that have ended; older ones are removed with their files


class Described(BaseModel):
    """Base of what the API answers: its schema has the descriptions of the fields."""

    model_config = ConfigDict(use_attribute_docstrings=True)


class Result(Described):
    """A file that a job made."""

    name: str
    """Path relative to the folder of results."""
    bytes: int
    """Size of the file."""
    sha256: str
    """SHA-256 of the file, in hex."""


class Part(Described):
    """Progress of the current picture."""

    done: int
    """Units that are done."""
    of: int
    """Units in all."""
    what: str
    """The unit: windows, blocks or bands of a stage."""


class Tally(Described):
    """Progress of a run over a folder."""

    total: int
    """Files in all."""
    done: int = 0
    """Files that were worked on, failures included."""
    failed: int = 0
    """Files that failed."""
    last: str = ""
    """The last file."""
    left_s: float | None = None
    """Estimated seconds left."""
    failures: list[str] = []
    """The first failures: file and error."""


class JobFacts(Described):
    """What clients are told of a job as it is kept."""

    id: str
    """Names the job in later requests."""
    status: Status
    created: float
    """Seconds since the epoch."""
    part: Part | None = None
    """Progress of the current picture."""
    preview: int = 0
    """Number of the latest preview of the unfinished result; 0: there is none."""
    tally: Tally | None = None
    """Progress of a run over a folder."""
    code: str = ""
    """Code of the error, if it failed."""
    error: str = ""
    """Text of the error, if it failed."""
    warnings: list[str] = []
    """What was lost or left out."""
    size_in: tuple[int, int] | None = None
    """(height, width) of the input."""
    size_out: tuple[int, int] | None = None
    """(height, width) of the result."""
    results: list[Result] = []
    """Files that it made."""
    views: list[str] = []
    """Copies for the browser: "before", "after"."""


class Job(JobFacts):
    """A request and its state."""

    model_config = ConfigDict(populate_by_name=True)
    status: Status = "queued"
    request: AnyRequest = Field(alias="asked")
    """The request; job.json calls it `asked`."""
    uploads: list[str] = []
    """Names of the uploaded pictures, in the folder in/."""
    mask: str = ""
    """Name of the uploaded mask, in the folder mask/."""
    control: str = ""
    """Name of the uploaded picture for the ControlNet, in the folder control/."""
    started: float | None = None
    """Seconds since the epoch, as is `ended`."""
    ended: float | None = None
    attempts: int = 0
    """How often it was started: a job that ends the server each time is given up."""


class Store:
    """All jobs. They are changed by `update` only, under one lock.

    Args:
        state: The server's state folder; jobs lie in its folder jobs/.
    """

    def __init__(self, state: Path):
        self.folder = state / "jobs"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o700)  # strangers' pictures
        self._lock = threading.RLock()
        self._jobs: dict[str, Job] = {}
        for path in sorted(self.folder.iterdir()):
            self._read(path)

    def _read(self, folder: Path) -> None:
        """Read a job; a folder that was never queued or cannot be read is removed."""
        try:
            job = Job.model_validate_json(read_plain(folder / "job.json", 2**24))
        except (OSError, ValidationError) as error:
            if ID.fullmatch(folder.name) and not folder.is_symlink():
                log.warning("%s: no job; removed: %s", folder, type(error).__name__)
                shutil.rmtree(folder, ignore_errors=True)
            return
        if job.id == folder.name:
            self._jobs[job.id] = job

    def folder_of(self, job_id: str) -> Path:
        """Return the folder of a job."""
        return self.folder / job_id

    def begin(self) -> tuple[str, Path]:
        """Create an unguessable id and its folder, where uploads go."""
        job_id = secrets.token_hex(16)
        place = self.folder_of(job_id)
        (place / "in").mkdir(parents=True)
        return job_id, place

    def drop(self, job_id: str) -> None:
        """Forget a job and delete its files."""
        with self._lock:
            self._jobs.pop(job_id, None)
        shutil.rmtree(self.folder_of(job_id), ignore_errors=True)

    def add(self, job: Job) -> None:
        """Add a new job, and write it to disk."""
        with self._lock:
            self._keep(job)
            self._jobs[job.id] = job

    def get(self, job_id: str) -> Job | None:
        """Return a copy of a job; None if there is no such job."""
        with self._lock:
            job = self._jobs.get(job_id)
            return job.model_copy(deep=True) if job else None

    def update(self, job_id: str, *, keep: bool = True, **values: Any) -> None:
        """Change fields of a job.

        Args:
            job_id: The job; nothing happens if there is none.
            keep: Write it to disk too; not needed for what a restart may forget.
            **values: New values by field.
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
        write_text(
            self.folder_of(job.id) / "job.json",
            job.model_dump_json(by_alias=True, exclude={"part", "preview"}),
        )

    def all(self) -> Iterator[Job]:
        """Iterate over the jobs, oldest first."""
        with self._lock:
            jobs = sorted(self._jobs.values(), key=lambda job: (job.created, job.id))
        yield from jobs

    def tidy(self) -> None:
        """Remove the oldest jobs that have ended, beyond KEPT."""
        ended = [job for job in self.all() if job.status in ENDED]
        for job in ended[: max(0, len(ended) - KEPT)]:
            self.drop(job.id)


def new_job(
    job_id: str, request: Any, uploads: list[str], mask: str = "", control: str = ""
) -> Job:
    """Make a queued job.

    Args:
        job_id: From `Store.begin`.
        request: What is to be done.
        uploads: Names of the uploaded pictures.
        mask: Name of the uploaded mask, if any.
        control: Name of the uploaded picture for the ControlNet, if any.
    """
    uploaded: dict[str, Any] = {"uploads": uploads, "mask": mask, "control": control}
    return Job(id=job_id, request=request, created=time.time(), **uploaded)
