"""Which files become which results: all that is settled before any picture is decoded."""

from array import array
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from restore.batch import downloads, jobs
from restore.batch.destination import Destination
from restore.batch.holes import Holes
from restore.batch.jobs import Job, Jobs, OnCollision, Shard, refuse_collisions
from restore.batch.picture_options import PictureOptions
from restore.batch.runner import Exists, refuse_existing
from restore.batch.work import FileOptions
from restore.errors import ImageError, UsageError, first_few
from restore.file_search import Found
from restore.options import Img2imgOptions, InpaintOptions

if TYPE_CHECKING:
    from restore.batch.mask_files import Masks
    from restore.images.picture import Reading


@dataclass(frozen=True)
class Plan:
    """What a run over files has to do.

    Attributes:
        jobs: One for each input of the share.
        reading: How the files are read.
        masks: The masks that the jobs know by path; None: there are none.
        unpaired: Finds the masks without a picture.
    """

    jobs: Jobs
    reading: "Reading"
    masks: "Masks | None"
    unpaired: Callable[[], Iterable[Path]]


def plan_files(
    files: Sequence[Found],
    options: FileOptions,
    destination: Destination,
    pictures: PictureOptions,
    holes: Holes,
    count: int,
    *,
    exists: Exists,
    share: Shard,
    on_collision: OnCollision,
) -> Plan:
    """Settle which file becomes which result; see `folder.prepare` for the arguments.

    Raises UsageError if the options, files and masks do not fit together.
    """
    from restore.images import encode

    kind = choose_format(options, pictures.format, pictures.lossless, count)
    reading = reading_for(options, holes, pictures.reading)
    planned = jobs.plan(
        files,
        destination.out,
        lambda source: encode.FORMATS[kind(source)].suffix,
        list_endings(options, holes, count),
        on_collision,
        destination.file,
    )
    masks, planned = holes.open(planned, destination.out)
    unpaired = partial(masks.unused, planned) if masks else tuple
    if share.count > 1:
        planned = planned.only(share.holds)
    if pictures.frames == "all":
        planned = with_frames(planned, reading)
    if exists == "error":
        store = destination.store
        refuse_existing(planned, lambda path: store.has(store.name(path)))
    if pictures.background is None:
        refuse_transparent(planned, kind, reading)
    return Plan(planned, reading, masks, unpaired)


def with_frames(planned: Jobs, reading: "Reading") -> Jobs:
    """The jobs; a file with several frames has the second and later ones beside its target.

    Raises:
        UsageError: A job has something else beside its target already, or two want one name.
    """
    if any(job.beside for job in planned):
        raise UsageError("--frames all: each picture keeps others beside it already; take first")
    counts = array("L")  # a few bytes for each file
    for job in downloads.ahead(planned):
        counts.append(1)
        if job.source and not job.skip:
            with suppress(ImageError):  # its row will say so
                counts[-1] = downloads.probe(job, reading).frames

    def knowing(nth: int, job: Job) -> Job:
        beside = tuple(f"_{frame:03}" for frame in range(2, counts[nth] + 1))
        return replace(job, beside=beside)

    known = planned.changed(knowing)
    refuse_collisions(known)
    return known


def refuse_transparent(
    planned: Iterable[Job], kind: Callable[[Path], str], reading: "Reading"
) -> None:
    """Raise UsageError if a picture is transparent but the format of its result cannot be."""
    from restore.images import encode

    def is_refused(job: Job) -> bool:
        if job.skip or not job.source or encode.FORMATS[kind(job.source)].alpha:
            return False
        if job.source.suffix.casefold() in encode.OPAQUE:
            return False  # the rare one with a wrong suffix is refused when it is read
        if job.url:
            return False  # so is a remote one: to download all of them first would double the run
        with suppress(ImageError):  # its row will say so
            return downloads.probe(job, reading).has_alpha
        return False

    if names := first_few(str(job.source) for job in planned if is_refused(job)):
        problem = f"{names}: transparent, which jpeg cannot hold"
        raise UsageError(f"{problem}; give a --background such as white, or use --format png")


def choose_format(
    options: FileOptions, form: str, lossless: bool, count: int
) -> Callable[[Path], str]:
    """A function: source -> format of its result. Raises UsageError if that cannot be written.

    Args:
        form: auto, or the name of a format.
    """
    from restore.images import encode

    if form == "tiff" and find_spec("tifffile") is None:
        mend = "pip install 'restore-toolkit[formats]', or use --format png"
        raise UsageError(f"TIFF is written by tifffile, which is missing; {mend}")
    if count > 1 and form not in ("auto", "png"):
        raise UsageError(f"-n {count}: candidates and their sheet are PNG, not {form}")
    form = settled_format(options, form, count)
    return lambda source: encode.choose_format(source, form, lossless)


def settled_format(options: FileOptions, form: str, count: int) -> str:
    """The format of all results; auto if it differs from one to the next."""
    if count > 1 or (form == "auto" and isinstance(options, InpaintOptions)):
        return "png"  # what is outside the mask stays
    return form


def say_without_effect(options: FileOptions, pictures: PictureOptions, count: int) -> str:
    """Say which options on pictures change nothing in the format of the results; or be empty."""
    form = settled_format(options, pictures.format, count)
    names = [f"--{name}" for name in pictures.without_effect(form)]
    return f"{', '.join(names)}: of no effect on {form}, which is written" if names else ""


def reading_for(options: FileOptions, holes: Holes, reading: "Reading") -> "Reading":
    """How files are read: as a whole if there may be holes in them."""
    whole = holes.given or holes.find or isinstance(options, InpaintOptions)
    return replace(reading, max_pixels=0) if whole else reading


def list_endings(options: FileOptions, holes: Holes, count: int) -> tuple[str, ...]:
    """The name endings of what is saved beside a result."""
    if holes.find:
        return f"{jobs.DAMAGE}.png", f"{jobs.OVERLAY}.jpg"
    laps = options.loopback if isinstance(options, Img2imgOptions) else count
    return tuple(f"_{lap:03}" for lap in range(1, laps + 1)) if laps > 1 else ()
