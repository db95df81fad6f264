"""Checks of a plan that need the headers of files, before any picture is decoded."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from restore.batch import remote
from restore.batch.jobs import Job, refuse_collisions
from restore.errors import ImageError, UsageError

if TYPE_CHECKING:
    from restore.images.picture import Reading

SHOWN = 5  # names in an error


def with_frames(planned: Sequence[Job], reading: "Reading") -> list[Job]:
    """The jobs; a file with several frames has the second and later ones beside its target.

    Raises:
        UsageError: A job has something else beside its target already, or two want one name.
    """
    from restore.images import sandbox

    if any(job.beside for job in planned):
        raise UsageError("--frames all: each picture keeps others beside it already; take first")
    knowing = []
    for job in planned:
        count = 1
        if job.source and not job.skip:
            with suppress(ImageError):  # its row will say so
                count = sandbox.probe(remote.here(job), reading).frames
        beside = tuple(f"_{frame:03}" for frame in range(2, count + 1))
        knowing.append(replace(job, beside=beside))
    refuse_collisions(knowing)
    return knowing


def refuse_transparent(
    planned: Sequence[Job], kind: Callable[[Path], str], reading: "Reading"
) -> None:
    """Raise UsageError if a picture is transparent but the format of its result cannot be."""
    from restore.images import encode, sandbox

    seen = []
    for job in planned:
        if job.skip or not job.source or encode.FORMATS[kind(job.source)].alpha:
            continue
        if job.source.suffix.casefold() in encode.OPAQUE:
            continue  # the rare one with a wrong suffix is refused when it is read
        with suppress(ImageError):  # its row will say so
            if sandbox.probe(remote.here(job), reading).has_alpha:
                seen.append(str(job.source))
    if seen:
        more = f" and {len(seen) - SHOWN} more" if len(seen) > SHOWN else ""
        told = f"{', '.join(seen[:SHOWN])}{more}: transparent, which jpeg cannot hold"
        raise UsageError(f"{told}; give a --background such as white, or use --format png")
