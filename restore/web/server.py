"""The server behind the routes: it stores, checks and queues requests, and describes jobs."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import UploadFile

from restore.batch.folder_lock import as_output_error
from restore.batch.work import refuse_large
from restore.errors import ImageError, RestoreError
from restore.images import sandbox
from restore.images.picture import Reading
from restore.options import UpscaleOptions, WalkOptions
from restore.web import requests, store
from restore.web.models import Models
from restore.web.roots import Roots
from restore.web.store import Job, Store
from restore.web.worker import Worker


class JobResponse(store.JobFacts):
    """A job as clients see it."""

    kind: str
    """The kind of request, such as "upscale"."""
    name: str
    """Name of the first upload."""
    position: int | None = None
    """Jobs before it, while it waits."""
    seconds: float | None = None
    """How long it took, once it has ended."""


class ErrorResponse(store.Described):
    """The body of every error."""

    code: str
    """What went wrong, for programs, such as "TOO_LARGE"."""
    error: str
    """What went wrong and how to mend it, for people."""


REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse}
    for status in (400, 401, 403, 404, 408, 413, 422, 429, 500, 507)
}


@dataclass(frozen=True)
class Limits:
    """Limits of one server.

    Attributes:
        jobs: Jobs that may wait.
        body: Bytes of a request.
        megapixels: Megapixels of a result.
    """

    jobs: int = 32
    body: int = 2**28
    megapixels: int = 400

    @property
    def most_pixels(self) -> int:
        """Pixels of a result."""
        return self.megapixels * 10**6


@dataclass
class Server:
    """State that the routes share.

    Attributes:
        store: Keeps jobs and their files.
        worker: Does the jobs, one after another.
        models: Models that clients may name.
        roots: Folders that clients may work on.
        limits: Limits of requests.
    """

    store: Store
    worker: Worker
    models: Models
    roots: Roots
    limits: Limits

    def describe(self, job: Job) -> JobResponse:
        """Describe a job for clients."""
        return JobResponse(
            **{name: getattr(job, name) for name in store.JobFacts.model_fields},
            kind=job.request.kind,
            name=job.uploads[0] if job.uploads else "",
            position=self.worker.position(job.id),
            seconds=job.ended - job.started if job.ended and job.started else None,
        )

    def find(self, job_id: str) -> Job:
        """Return a job.

        Raises:
            MissingError: There is no such job.
        """
        job = self.store.get(job_id)
        if job is None:
            raise MissingError(f"there is no job {job_id[:64]!r}; it may have been removed")
        return job

    def queue(
        self,
        given: Any,
        images: Sequence[UploadFile],
        mask: UploadFile | None = None,
        control: UploadFile | None = None,
    ) -> JobResponse:
        """Store the uploads and queue the job, after all checks that need no model.

        Args:
            given: The request.
            images: Uploaded pictures.
            mask: Uploaded mask.
            control: Uploaded picture for the ControlNet.

        Raises:
            RestoreError: The request is refused; its `code` says why.
        """
        if isinstance(given, requests.TaskRequest):
            # after a restart another model may be the first
            given = given.model_copy(update={"model": given.model or self.models.first})
            self.models.require(given.model, given.task)
        with as_output_error(self.store.folder):
            return self.describe(self.find(self._queue(given, images, mask, control)))

    def _queue(
        self,
        given: Any,
        images: Sequence[UploadFile],
        mask: UploadFile | None,
        control: UploadFile | None,
    ) -> str:
        job_id, folder = self.store.begin()
        try:
            names = [
                save_upload(image, folder / "in", number=number)
                for number, image in enumerate(images)
            ]
            with self.models.hiding_paths():
                for name in names:
                    self.check(folder / "in" / name, given)
            mask_name = save_upload(mask, folder / "mask", fallback="mask.png") if mask else ""
            if mask_name and not mask_name.casefold().endswith(".json"):
                probe_size(folder / "mask" / mask_name)
            control_name = save_upload(control, folder / "control") if control else ""
            if control_name:
                probe_size(folder / "control" / control_name)
            if isinstance(given, requests.TaskRequest):
                shown = folder / "control" / control_name if control_name else None
                self.models.check(given, shown)
            self.worker.submit(store.new_job(job_id, given, names, mask_name, control_name))
        except BaseException:
            self.store.drop(job_id)
            raise
        return job_id

    def check(self, path: Path, given: Any) -> None:
        """Check an uploaded picture and the size of its result, as far as its header tells it.

        The job checks every frame, and with the scale of the loaded model.

        Raises:
            ImageError: It cannot be read, or the result would be too large.
        """
        pictures = getattr(given, "pictures", None)
        size = probe_size(path, pictures.reading if pictures else Reading())
        options = getattr(given, given.kind, None)
        if isinstance(given, requests.ScratchesRequest):
            self.check_size(size)
        if not isinstance(options, WalkOptions):
            return
        if isinstance(options, UpscaleOptions) and "scale" not in options.model_fields_set:
            options = options.model_copy(update={"scale": self.models.scale_of(given.model)})
        copies = getattr(given, "count", 1) * getattr(options, "loopback", 1)
        self.check_size(options.output_size(size), copies)

    def check_size(self, size: tuple[int, int], copies: int = 1) -> None:
        """Raise ImageError if results of (height, width) are larger than is allowed."""
        refuse_large(size, copies, self.limits.most_pixels)


class MissingError(RestoreError):
    """A job or file that a client names does not exist."""

    code = "MISSING"


def probe_size(path: Path, how: Reading = Reading()) -> tuple[int, int]:
    """Read (height, width) from the header, in a worker process.

    Raises:
        ImageError: It cannot be read; the text names the file without its folder.
    """
    try:
        return sandbox.probe(path, how).size
    except ImageError as error:
        raise ImageError(error.code, str(error).replace(f"{path}: ", f"{path.name}: ")) from error


def save_upload(
    upload: UploadFile, folder: Path, number: int = 0, fallback: str = "picture"
) -> str:
    """Write an upload to a folder.

    Args:
        upload: The upload.
        folder: Where to write it.
        number: Prefix for the name if there is a file of that name already; counted on from there
            if there is one of that name too.
        fallback: Name for an upload that has none.

    Returns:
        The file name: that of the upload, made safe.
    """
    folder.mkdir(exist_ok=True)
    name = given = requests.safe_name(upload.filename, fallback)
    while (folder / name).exists():  # two photos of one name from two folders
        name = f"{number}_{given}"
        number += 1
    with (folder / name).open("xb") as file:
        shutil.copyfileobj(upload.file, file, 2**20)
    return name
