"""Do one input, in any process: read it, make the result, record it and put it in its place.

The caller gives the rows of earlier runs, and the function that records the new one.
"""

import errno
import hashlib
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from restore.batch import downloads
from restore.batch.folder_lock import full, is_full
from restore.batch.jobs import Job, fitting
from restore.batch.result_index import ResultIndex
from restore.batch.rows import Row
from restore.errors import (
    CancelledError,
    ConfigError,
    DiskFullError,
    ImageError,
    ModelError,
    OutputError,
    RestoreError,
)
from restore.files import md5, sha256

# Errors of the run, not of this file. After CancelledError it is left for the next run.
OF_THE_RUN = ConfigError, ModelError, OutputError, CancelledError
Exists = Literal["skip", "overwrite", "rename", "error"]
Work = Callable[..., Row]
"""(job, path, *paths of its frames) -> facts for the report's row"""


def attempt(
    job: Job, work: Work, index: ResultIndex, exists: Exists, note: Callable[[Row], object]
) -> Row:
    """Do a job by `do_job`; an error of this one file becomes a row, which `note` does not get.

    Raises:
        ConfigError, ModelError, OutputError: No other file of the run would do better.
        CancelledError: The run is over; the file is left for the next one.
    """
    return begin(job, work, index, exists, note)()


def begin(
    job: Job, work: Work, index: ResultIndex, exists: Exists, note: Callable[[Row], object]
) -> Callable[[], Row]:
    """Make the result, as the first part of `attempt`; return a function that does the rest.

    That one gives the result its name, which may wait for a network while the next one is made.
    """
    started = time.monotonic()

    def fail(error: Exception) -> Row:
        if is_full(error):
            error = DiskFullError(full(index.store.out))
        return make_failed_row(job, error, time.monotonic() - started)

    try:
        commit = do_job(job, work, index, exists, note)
    except OF_THE_RUN:
        raise
    except Exception as error:  # the one broad except: a bad file must not cost the others
        row = fail(error)
        return lambda: row
    finally:
        downloads.release(job)

    def end() -> Row:
        try:
            return commit()
        except OF_THE_RUN:
            raise
        except Exception as error:  # as above
            return fail(error)

    return end


def do_job(
    job: Job, work: Work, index: ResultIndex, exists: Exists, note: Callable[[Row], object]
) -> Callable[[], Row]:
    """Do a job, unless an earlier run finished it.

    Args:
        work: Makes the pictures at the paths that it gets; returns facts for the row.
        index: The rows of earlier runs.
        exists: What to do with an output that is there already; `runner.run_by` explains it.
        note: Records the row of a new result, before the result gets its name.

    Returns:
        A function that gives the new result its name, and returns the new row; or the row of the
        finished result, with "finished": true.
    """
    keeps = exists != "overwrite"
    if keeps and (finished := index.finished_unread(job)):
        return partial(dict, finished, finished=True)
    digests, store = _digests(job), index.store
    if keeps and (finished := index.finished(job, digests.together)):
        return partial(dict, finished, finished=True)
    started = time.monotonic()
    store.make_way(store.name(job.target))
    job = _placed(job, index, exists, digests.source)
    outdated = _outdated(job, index) if exists == "skip" else []
    names = [store.name(target) for target in (job.target, *job.frames)]
    with ExitStack() as making:
        path, *frames = (making.enter_context(store.making(name)) for name in names)
        facts = work(job, path, *frames)
        if _digests(job) != digests:
            raise ImageError("CHANGED", "the file changed while it was read; run again")
        row = {
            **head(job, "done"),
            "output": names[0],
            "seconds": round(time.monotonic() - started, 3),
            **facts,
            "warnings": [*facts.get("warnings", []), *outdated],
            "task": index.task,
            "source_sha256": digests.together,
            "picture_sha256": digests.source,
            **({"source_md5": md5(downloads.fetch(job))} if job.url else {}),
            "options": index.options,
            "weights": index.weights,
            "words": index.words,
            "output_sha256": sha256(path),
        }
        if frames:
            row["frames"] = dict(zip(names[1:], map(sha256, frames), strict=True))
        kept = making.pop_all()

    def commit() -> Row:
        # The row is recorded before the result gets its name. If we are killed in between, the next
        # run finds no result and makes it again. In the other order it would find a file without a
        # row.
        with kept:
            note(row)
        return row

    return commit


def foresee(job: Job, index: ResultIndex, exists: Exists) -> Job | Row:
    """The job as `do_job` would do it, or the row of its finished result; nothing is changed.

    A source is read only if an earlier run knows it or something has its result's name, and never
    downloaded for this.

    Raises:
        ImageError: A file is there that may not be replaced, or the source cannot be read.
    """
    keeps = exists != "overwrite"
    if not index.about(job) and not _taken(job, index):
        return job
    if keeps and (finished := index.finished_unread(job)):
        return {**finished, "finished": True}
    if job.url:
        return job
    digests = _digests(job)
    if keeps and (finished := index.finished(job, digests.together)):
        return {**finished, "finished": True}
    return _placed(job, index, exists, digests.source)


@dataclass(frozen=True)
class Digests:
    """Digests of what a picture is made of.

    Attributes:
        source: sha256 of the source; empty if there is none.
        together: sha256 of that and of the other files, such as a mask.
    """

    source: str
    together: str


def head(job: Job, status: str) -> Row:
    return {"key": job.key, "status": status, "source": job.origin}


def _digests(job: Job) -> Digests:
    if not job.source:
        return Digests("", "")
    first, *others = downloads.digests_of(job)
    if not others:
        return Digests(first, first)
    return Digests(first, hashlib.sha256(" ".join([first, *others]).encode()).hexdigest())


def _placed(job: Job, index: ResultIndex, exists: Exists, source: str) -> Job:
    """The job with a target that may be written.

    Args:
        source: sha256 of the job's picture.

    Raises:
        ImageError: A file is there that may not be replaced.
    """
    store, taken = index.store, partial(_taken, index=index)
    if exists == "rename" and taken(job):
        own = job.target
        endings = (f"_{count}{own.suffix}" for count in range(1, 10_000))
        names = (own.with_name(fitting(own.stem, own.name, end) + end) for end in endings)
        free = next((name for name in names if not taken(replace(job, target=name))), None)
        if free:
            return replace(job, target=free)
    for path in taken(job):
        store.refuse_link(store.name(path))
        if exists != "overwrite" and (why := _foreign(job, index, path, source)):
            mend = "--exists overwrite replaces it, --exists rename keeps both"
            raise ImageError("EXISTS", f"{store.where(store.name(path))} {why}; {mend}")
    return job


def _taken(job: Job, index: ResultIndex) -> list[Path]:
    """The files of a job's result whose names are in use."""
    store = index.store
    return [path for path in (job.target, *job.frames) if store.has(store.name(path))]


def _foreign(job: Job, index: ResultIndex, path: Path, source: str) -> str:
    """Why the file at a job's target may not be replaced; empty if it may.

    It may if a run of ours made it from the same picture, by the same task.
    """
    row = index.maker(index.store.name(path))
    if row is None:
        return "was there before, or changed since"
    if row.get("task", "") != index.task:
        return f"was made by {row.get('task') or 'an earlier version'}, not by {index.task}"
    if row.get("picture_sha256", row.get("source_sha256")) != source:
        return f"was made of {row.get('source') or 'words'}, another picture of that name"
    if job.source is None:  # its key is a seed, which says nothing of the words
        is_same = (row.get("options"), row.get("weights")) == (index.options, index.weights)
        return "" if is_same else "was made of other words or options"
    return _other_words(row, index)


def _other_words(row: Row, index: ResultIndex) -> str:
    """How the words of a result of ours differ from this run's; empty if they do not."""
    words = row.get("words")
    if words == index.words or row.get("options") == index.options:
        return ""
    if words is None:  # by an old release, which did not record them
        return "was made of other options, perhaps of other words"
    said = " and ".join(f"{name} {what!r}" for name, what in words.items())
    return f"was made of other words: {said}" if said else "was made without words"


def _outdated(job: Job, index: ResultIndex) -> list[str]:
    """The warnings for a result of ours that is about to be replaced."""
    row = index.maker(index.store.name(job.target))
    if row is None:
        return []
    ways = {
        "other options": ("options", index.options),
        "another model": ("weights", index.weights),
    }
    changed = [what for what, (name, now) in ways.items() if row.get(name) != now]
    return [f"it replaces a result of {' and of '.join(changed)}"] if changed else []


def make_failed_row(job: Job, error: Exception, seconds: float) -> Row:
    """The row of a job that failed with this error after so many seconds."""
    code, text = "INTERNAL", f"{type(error).__name__}: {error}"
    if isinstance(error, RestoreError):
        code, text = error.code, str(error).removeprefix(f"{job.source}: ")
        if job.url:
            text = text.removeprefix(f"{downloads.cached_file(job)}: ")
    elif isinstance(error, MemoryError):
        code, text = "OOM", "not enough memory; use fewer windows at a time or a smaller scale"
    elif isinstance(error, OSError) and error.errno:
        code = errno.errorcode.get(error.errno, "OS")
        text = f"{error.filename}: {error.strerror}" if error.filename else text
    row = {**head(job, "failed"), "code": code, "error": text, "seconds": round(seconds, 3)}
    if code == "INTERNAL":  # a bug of ours: a bug report needs the traceback
        row["trace"] = "".join(traceback.format_exception(error))
    return row
