"""What the routes stand on: uploads are kept, checked and queued; jobs are told to clients."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import UploadFile
from pydantic import BaseModel

from restore.batch.journal import as_output_error
from restore.errors import ImageError, RestoreError
from restore.options import WalkOptions
from restore.web import asked, store
from restore.web.models import Models
from restore.web.roots import Roots
from restore.web.store import Job, Store
from restore.web.worker import Worker


class JobTold(BaseModel):
    """A job as a client sees it."""

    id: str
    kind: str
    name: str
    status: store.Status
    position: int | None = None
    """Jobs before it, while it waits."""
    created: float
    seconds: float | None = None
    part: store.Part | None = None
    tally: store.Tally | None = None
    code: str = ""
    error: str = ""
    warnings: list[str] = []
    size_in: tuple[int, int] | None = None
    size_out: tuple[int, int] | None = None
    results: list[store.Result] = []
    views: list[str] = []


class Told(BaseModel):
    """An answer of refusal."""

    code: str
    error: str


@dataclass(frozen=True)
class Limits:
    """What one server takes.

    jobs        that may wait.
    body        bytes of a request.
    megapixels  of a result.
    """

    jobs: int = 32
    body: int = 2**28
    megapixels: int = 400


@dataclass
class Server:
    """What the routes stand on."""

    store: Store
    worker: Worker
    models: Models
    roots: Roots
    limits: Limits

    def told(self, job: Job) -> JobTold:
        values = {name: getattr(job, name) for name in JobTold.model_fields if hasattr(job, name)}
        seconds = job.ended - job.started if job.ended and job.started else None
        name = job.uploads[0] if job.uploads else ""
        more = {"kind": job.asked.kind, "name": name, "seconds": seconds}
        return JobTold(**{**values, **more, "position": self.worker.position(job.id)})

    def find(self, job_id: str) -> Job:
        job = self.store.get(job_id)
        if job is None:
            raise MissingError(f"there is no job {job_id[:64]!r}; it may have been removed")
        return job

    def queue(self, given: Any, images: Sequence[UploadFile], mask: UploadFile | None) -> JobTold:
        """Keep the uploads and queue the job; what can be refused is refused here."""
        if isinstance(given, asked.Asked):
            self.models.require(given.model, given.task)
        with as_output_error(self.store.folder):
            return self.told(self.find(self._queue(given, images, mask)))

    def _queue(self, given: Any, images: Sequence[UploadFile], mask: UploadFile | None) -> str:
        job_id, place = self.store.begin()
        try:
            names = [keep(image, place / "in", taken=number) for number, image in enumerate(images)]
            for name in names:
                self.check(place / "in" / name, given)
            masked = keep(mask, place / "mask", fallback="mask.png") if mask else ""
            if masked and not masked.casefold().endswith(".json"):
                look(place / "mask" / masked)
            self.worker.submit(store.new(job_id, given, names, masked))
        except BaseException:
            self.store.drop(job_id)
            raise
        return job_id

    def check(self, path: Path, given: Any) -> None:
        """Raises ImageError for a picture that cannot be, or whose result would be too large."""
        size = look(path)
        options = getattr(given, given.kind, None)
        if not isinstance(options, WalkOptions):
            return
        height, width = options.output_size(size)
        copies = getattr(given, "count", 1) * getattr(options, "loopback", 1)
        self.check_size(height * copies, width)

    def check_size(self, height: int, width: int) -> None:
        if height * width > self.limits.megapixels * 10**6:
            told = f"{width}x{height} pixels; this server makes at most {self.limits.megapixels}"
            raise ImageError("TOO_LARGE", f"the result would have {told} million")


class MissingError(RestoreError):
    """What was asked for is not there."""

    code = "MISSING"


def look(path: Path) -> tuple[int, int]:
    """The size that the header says; in a process of its own. Raises ImageError."""
    from restore.images import sandbox

    try:
        return sandbox.probe(path).size
    except ImageError as error:
        raise ImageError(error.code, str(error).replace(f"{path}: ", f"{path.name}: ")) from error


def keep(upload: UploadFile, folder: Path, taken: int = 0, fallback: str = "picture") -> str:
    """Write an upload under its own name, made safe; returns that."""
    folder.mkdir(exist_ok=True)
    name = asked.safe_name(upload.filename, fallback)
    if (folder / name).exists():  # two photos of one name from two folders
        name = f"{taken}_{name}"
    with (folder / name).open("xb") as file:
        shutil.copyfileobj(upload.file, file, 2**20)
    return name
