"""Say what a run will do, and how much disk, memory and time it needs, before it begins."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from restore.batch import downloads, rates
from restore.batch.jobs import Job
from restore.batch.journal import Journal, Row
from restore.batch.runner import SKIPPED
from restore.batch.step import Exists, foresee, make_failed_row
from restore.errors import RestoreError, counted, printable, sides

if TYPE_CHECKING:
    from restore.batch.mask_files import Masks
    from restore.images.picture import Header, Reading
    from restore.options import Img2imgOptions, InpaintOptions, UpscaleOptions
    from restore.pixel.model import PixelModel

    TaskOptions = UpscaleOptions | Img2imgOptions | InpaintOptions

# Bytes for each pixel of a photo, at 8 bits and quality 95.
BYTES = {"png": 1.9, "jpeg": 0.7, "webp": 0.5, "avif": 0.4, "tiff": 2.2}
# Bytes of memory for the program and for sampling. Measured with nano on a CPU: 1.68 GB for a
# result of 6 megapixels. Models without a first stage always sample; a tiny one took 1.1 GB.
PROGRAM, SAMPLING = 0.45e9, 1.35e9
# Bytes of memory for a first stage without sampling: STRIP for each column that its network reads
# (measured: 0.54 GB in all for a result of 5760x4096 at scale 4, 0.61 and 0.94 GB for 4000 and 9000
# columns at scale 1), beyond WIDTH columns for each row of a band; or BLOCKS for ONNX Runtime
# (0.54 and 0.85 GB for 6 and 24 megapixels).
STRIP, BLOCKS = 110e3, 0.5e9
WIDTH, BAND = 2048, 256  # px: of a strip, and of what is resized at a time
# Bytes of memory for what is not on disk. For each pixel of the result: CANVASES, if the sampler
# needs whole canvases, and CODEC, if the codec needs the whole picture. For each pixel of the
# input: INPUT, if it cannot be read by rows, and LOWPASS, for the error of that colour match. For
# each column of the result: COLUMN, for bands of rows.
CANVASES, CODEC, INPUT, LOWPASS, COLUMN = 30, 9, 6, 40, 11e3
ANSWER = 6  # bytes of a pixel upscaler's answer, 16 bits
REST = 0.85e9  # bytes of a pixel upscaler's window, as integers and as floats, and of its kernels
RGB = 3
SHOWN = 3  # names beside a result
CELL = 512  # px, the side of a picture on a sheet
SPILLED = 8  # bytes on disk for each pixel while a picture is processed


@dataclass(frozen=True)
class Planned:
    """A picture and the size of its result."""

    head: "Header"
    size: tuple[int, int]  # (height, width) of the result

    @property
    def before(self) -> int:
        """Pixels of the picture."""
        return self.head.size[0] * self.head.size[1]

    @property
    def after(self) -> int:
        """Pixels of the result."""
        return self.size[0] * self.size[1]


@dataclass
class Totals:
    """What the files seen so far need together.

    Attributes:
        candidates: Results of each picture, beside a sheet of them.
        is_each_frame: Every frame of a file has a result.
        count: Files that can be done.
        results: Pictures that are made of them: frames, candidates and laps too.
        before: Pixels of the pictures.
        after: Pixels of the results.
        timed: Pixels as a rate counts them: of all frames, but of one candidate or lap.
        disk: Bytes of the results.
        spilled: Bytes of temporary files, of the picture that needs most.
        peak: Bytes of memory, of the picture that needs most.
        hungry: The key of that picture.
        large: Pictures whose results are large.
        largest: (key, picture) of the largest of them.
    """

    options: "TaskOptions"
    model: "PixelModel | None" = None
    engine: str = "torch"
    candidates: int = 1
    is_each_frame: bool = False
    count: int = 0
    results: int = 0
    before: int = 0
    after: int = 0
    timed: int = 0
    disk: float = 0
    spilled: float = 0
    peak: float = -1
    hungry: str = ""
    large: int = 0
    largest: tuple[str, Planned] | None = None

    def add(self, job: Job, one: Planned) -> None:
        """Count one more picture."""
        masks = [ending for ending in job.beside if Path(ending).suffix]  # of damage, as the input
        has_sheet = self.candidates > 1
        results = len(job.frames) - len(masks) + (not has_sheet)
        self.count += 1
        self.results += results
        self.before += one.before
        self.after += one.after * results
        self.timed += one.after * (results if self.is_each_frame else 1)
        shrunk = min(one.after, CELL**2) * results * has_sheet
        self.disk += (one.after * results + shrunk) * _bytes_a_pixel(job.target)
        self.disk += sum(one.before * _bytes_a_pixel(Path(mark)) for mark in masks)
        self.spilled = max(self.spilled, spilled(one, self.options, self.model))
        needed = peak(one, job.target, self.options, self.model, self.engine)
        if needed > self.peak:
            self.peak, self.hungry = needed, job.key
        if rates.is_large(one.size):
            self.large += 1
            if self.largest is None or one.after > self.largest[1].after:
                self.largest = job.key, one

    def describe(self, journal: Journal, rate: rates.Rate) -> Iterator[str]:
        """Lines on pixels, disk, memory and time."""
        if not self.count:
            return
        sizes = f"{self.before / 1e6:.1f} -> {self.after / 1e6:.1f} megapixels"
        if self.results != self.count:
            sizes = f"{counted(self.results, 'result')}, {sizes}"
        yield f"{counted(self.count, 'picture')}, {sizes}"
        needed = self.disk + self.spilled
        there = next(
            folder for folder in (journal.out, *journal.out.absolute().parents) if folder.exists()
        )
        free = shutil.disk_usage(there).free
        few = ": TOO LITTLE" if free < needed else ""
        yield f"disk: about {gigabytes(needed)}; {gigabytes(free)} are free{few}"
        yield f"memory: about {gigabytes(self.peak)} at its peak, for {printable(self.hungry)}"
        seconds = seconds_a_megapixel(journal.latest_rows(), self.is_each_frame)
        by = f"by the files in {journal.out}"
        if seconds is None:
            seconds, by = rate.get(), "by the rate of this machine"
        if seconds is None:
            yield "time: known once the first files are done"
        else:
            needed = rates.format_duration(seconds * self.timed / 1e6)
            yield f"time: about {needed} if all are done, {by}"
        if self.largest:
            key, one = self.largest
            others = self.large - 1
            yield rates.warning(printable(key), one.head.size, self.options, seconds, others)


def forecast(
    jobs: Iterable[Job],
    options: "TaskOptions",
    masks: "Masks | None",
    unpaired: Iterable[Path],
    journal: Journal,
    how: "Reading",
    *,
    exists: Exists,
    rate: rates.Rate,
    model: "PixelModel | None" = None,
    engine: str = "torch",
    say: Callable[[str], None] = print,
) -> Iterator[Row]:
    """Say one line for each file, then the totals.

    Args:
        unpaired: Masks that belong to no picture of any shard.
        exists: What the run would do with an output that is there already.
        rate: Seconds for a megapixel, used if no earlier run into this folder measured them.
        model: A pixel upscaler, for the memory of its windows; None counts the memory of nano.
        engine: What computes the networks: torch or onnx.
        say: Called with each line.

    Yields:
        A row for each file.
    """
    for path in unpaired:
        say(f"unpaired {printable(str(path))}: a mask without its picture")
    totals = Totals(options, model, engine, rate.count, how.frames == "all")
    for job in downloads.ahead(jobs):
        yield _forecast_job(job, masks, journal, how, exists, totals, say)
    for line in totals.describe(journal, rate):
        say(line)


def _forecast_job(
    job: Job,
    masks: "Masks | None",
    journal: Journal,
    how: "Reading",
    exists: Exists,
    totals: Totals,
    say: Callable[[str], None],
) -> Row:
    """Say what becomes of a job and count it; return its row."""
    from restore.images.picture import refuse_frames

    name = printable(str(job.source))
    row = {"key": job.key, "source": job.origin}
    if job.skip:
        say(f"skipped  {name}: {SKIPPED[job.skip]}")
        return {**row, "status": "skipped", "code": job.skip, "error": SKIPPED[job.skip]}
    assert job.source
    try:
        planned = foresee(job, journal, exists)
        if isinstance(planned, dict):
            say(f"finished {name}")
            return planned
        job, head = planned, downloads.probe(job, how)
        refuse_frames(head.frames, how)
    except RestoreError as error:
        failed = make_failed_row(job, error, 0)
        say(f"failing  {name}: {printable(failed['error'])}")
        return failed
    names = [path.name for path in job.frames]
    note = " (there already)" if any(path.exists() for path in (job.target, *job.frames)) else ""
    more = [f"and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    target = printable(", ".join([str(job.target), *names[:SHOWN], *more]))
    mask = masks.of(job) if masks else None
    if masks:
        name += f" + {printable(str(mask))}" if mask else " (no mask: it will fail)"
    size = totals.options.output_size(head.size)
    say(f"{sides(head.size)} -> {sides(size)}  {name} -> {target}{note}")
    if masks and not mask:
        return make_failed_row(job, masks.missing(job), 0)
    totals.add(job, Planned(head, size))
    output, *others = (
        path.relative_to(journal.out).as_posix() for path in (job.target, *job.frames)
    )
    planned = {**row, "status": "planned", "output": output, "size_in": head.size, "size_out": size}
    return {**planned, "frames": others} if others else planned


def spilled(one: Planned, options: "TaskOptions", model: "PixelModel | None") -> float:
    """Bytes of temporary files while a picture is processed."""
    itself = RGB * one.before if one.head.is_spooled else 0
    if model is None:
        return SPILLED * one.after + itself
    native = one.before * model.scale**2  # px of its answer, which may then be resized
    # what it is blended with is made in 16 bits, and so is the answer then
    beside = 2 * SPILLED * one.after if getattr(options, "fidelity", None) else 0
    return ANSWER * native + (0 if native == one.after else ANSWER * one.after) + itself + beside


def peak(
    one: Planned,
    target: Path,
    options: "TaskOptions",
    model: "PixelModel | None" = None,
    engine: str = "torch",
) -> float:
    """Peak memory for a picture in bytes, with nano or a pixel upscaler on a CPU."""
    is_whole = options.sampler != "ddim" or options.eta > 0 or options.task == "inpaint"
    is_whole = is_whole and model is None
    banded = min(1, one.size[0] / BAND)  # share of a band that a result of few rows fills
    if model is not None:
        network = REST + model.window_bytes(one.head.size)
    elif options.steps or options.task != "upscale":
        network = SAMPLING
    else:  # the network enlarges four times, and at smaller scales what it made is shrunk
        read = min(one.head.size[1], one.size[1] / 2)
        columns = min(read, WIDTH) + max(0, read - WIDTH) * banded
        network = BLOCKS if engine == "onnx" else STRIP * columns
    is_lowpass = getattr(options, "colour", "none") == "lowpass"
    whole = (CANVASES if is_whole else 0) * one.after + (LOWPASS if is_lowpass else 0) * one.before
    whole += 0 if one.head.by_rows else INPUT * one.before
    codec = 0 if target.suffix.casefold() in (".png", ".tif", ".tiff") else CODEC * one.after
    return PROGRAM + max(network, codec) + whole + COLUMN * one.size[1] * banded


def seconds_a_megapixel(rows: Iterable[Row], is_each_frame: bool = False) -> float | None:
    """Seconds for a megapixel of results in these rows; None if none of them has a result.

    Args:
        is_each_frame: What lies beside a result is another frame of its source, done in that time.
    """
    pixels = seconds = 0.0
    for row in rows:
        if row["status"] == "done" and "size_out" in row:
            frames = 1 + len(row.get("frames", {})) if is_each_frame else 1
            pixels += row["size_out"][0] * row["size_out"][1] * frames
            seconds += row["seconds"]
    return seconds / pixels * 1e6 if pixels else None


def _bytes_a_pixel(target: Path) -> float:
    suffix = target.suffix.casefold().removeprefix(".")
    return BYTES[{"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix)]


def gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
