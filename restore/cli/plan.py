"""What a run will do, take and need, told before it begins."""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from restore.batch import SKIPPED
from restore.cli.progress import sides
from restore.errors import RestoreError, printable
from restore.jobs import Job
from restore.journal import Journal, Row

if TYPE_CHECKING:
    from restore.maskfiles import Masks
    from restore.options import Img2imgOptions, InpaintOptions, UpscaleOptions

# A pixel of photos, 8 bits, quality 95:
BYTES = {"png": 1.9, "jpeg": 0.7, "webp": 0.5, "avif": 0.4, "tiff": 2.2}
# Bytes, with nano on a CPU: the program and its blocks; or, of large results, the program and
# what each pixel adds. Measured at 3 and 12 (1.3 GB) and at 48 megapixels (2.1 GB).
BLOCKS, PROGRAM, PIXEL = 1.3e9, 0.7e9, 30


def foretell(
    jobs: Sequence[Job],
    options: "UpscaleOptions | Img2imgOptions | InpaintOptions",
    masks: "Masks | None",
    journal: Journal,
) -> None:
    """Print a line for each file, and what all of them take."""
    from restore import codecs

    if masks:
        for path in masks.unused(jobs):
            print(f"unpaired {printable(str(path))}: a mask without its picture")
    pixels: dict[Job, tuple[int, int]] = {}  # in, out
    for job in jobs:
        name = printable(str(job.source))
        if job.skip:
            print(f"skipped  {name}: {SKIPPED[job.skip]}")
            continue
        assert job.source
        try:
            size = codecs.look(job.source).size
        except RestoreError as error:
            print(f"failing  {printable(str(error))}")
            continue
        there = " (there already)" if job.target.exists() else ""
        target = printable(str(job.target))
        if masks:
            found = masks.of(job)
            name += f" + {printable(str(found))}" if found else " (no mask: it will fail)"
        made = options.output_size(size)
        print(f"{sides(size)} -> {sides(made)}  {name} -> {target}{there}")
        pixels[job] = size[0] * size[1], made[0] * made[1]
    for line in totals(pixels, journal):
        print(line)


def totals(pixels: dict[Job, tuple[int, int]], journal: Journal) -> Iterable[str]:
    """What the files take together: pixels, disk, memory, time."""
    if not pixels:
        return
    before, after = (sum(counts) for counts in zip(*pixels.values(), strict=True))
    yield f"{len(pixels)} pictures, {before / 1e6:.1f} -> {after / 1e6:.1f} megapixels"
    needed = sum(
        size * _bytes_a_pixel(job.target) * max(1, len(job.frames))
        for job, (_, size) in pixels.items()
    )
    there = next(
        folder for folder in (journal.out, *journal.out.absolute().parents) if folder.exists()
    )
    free = shutil.disk_usage(there).free
    few = ": TOO LITTLE" if free < needed else ""
    yield f"disk: about {gigabytes(needed)}; {gigabytes(free)} are free{few}"
    largest, (_, most) = max(pixels.items(), key=lambda item: item[1][1])
    name = printable(largest.key)
    yield f"memory: about {gigabytes(max(BLOCKS, PROGRAM + PIXEL * most))} at its peak, for {name}"
    pace = seconds_a_pixel(journal.rows.values())
    if pace is None:
        yield "time: told once the first files are done"
    else:
        yield f"time: about {pace * after:.0f} s if all are done, by the files in {journal.out}"


def seconds_a_pixel(rows: Iterable[Row]) -> float | None:
    """Of results, as earlier runs measured it; None if there were none."""
    done = [row for row in rows if row["status"] == "done" and "size_out" in row]
    pixels = sum(row["size_out"][0] * row["size_out"][1] for row in done)
    return sum(row["seconds"] for row in done) / pixels if pixels else None


def _bytes_a_pixel(target: Path) -> float:
    suffix = target.suffix.removeprefix(".")
    return BYTES[{"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix)]


def gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
