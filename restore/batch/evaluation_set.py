"""Restore a set's inputs with a model, so that they can be scored."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from restore import file_search
from restore.batch import runner
from restore.batch.jobs import Job, file_seed, plan
from restore.batch.journal import Journal, Row
from restore.diffusion.stack import Stack
from restore.errors import ImageError
from restore.images import encode
from restore.images.picture import probe, read
from restore.metrics.pairing import PicturePair
from restore.options import UpscaleOptions
from restore.tasks.run import restore

Failures = dict[str, tuple[str, str]]
"""key -> (code, why) of what could not be restored"""


def restore_set(
    pairs: Sequence[PicturePair],
    stack: Callable[[], Stack],
    weights: str,
    options: UpscaleOptions,
    out: Path,
    seed: int = 0,
    watch: Callable[[Row], None] = lambda row: None,
    **precision: object,
) -> tuple[list[PicturePair], Failures]:
    """Enlarge each input to the size of its original, as PNG in `out`; keep finished results.

    A result has the name and the bytes that `restore upscale` gives it with the same options and
    seed. If two inputs differ only in their extensions, all results keep theirs, as with keep-ext.

    Args:
        pairs: The inputs, as `restored`, and their originals.
        stack: Returns the model; called at the first picture to restore.
        weights: The digest of the model's weights.
        options: The scale in them is replaced for each picture.
        watch: Called with the row of each picture.
        **precision: What else decides the pixels, as the report records it.

    Returns:
        The restored pictures with their originals, and the failures.
    """
    found = [file_search.Found(pair.restored, pair.file_key) for pair in pairs]
    is_doubled = any(pair.key == pair.file_key for pair in pairs)  # a.png beside a.jpg
    planned = plan(
        found, out, lambda source: ".png", on_collision="keep-ext" if is_doubled else "error"
    )
    jobs = [
        Job(job.source, job.key, job.target, others=(pair.original,))
        for pair, job in zip(pairs, planned, strict=True)
    ]

    def work(job: Job, path: Path, *frames: Path) -> Row:
        assert job.source
        picture = read(job.source)
        chosen = scaled(options, picture.size, probe(job.others[0]).size)
        result = restore(picture, chosen, stack(), file_seed(seed, job.key))
        encode.encode(result, path)
        return {"size_in": picture.size, "size_out": result.size, "warnings": list(result.warnings)}

    journal = Journal(out, options.digest(seed=seed, **precision), weights, task=options.task)
    runner.run_all(jobs, work, journal, progress=watch)
    rows = [(pair, journal.row(job)) for pair, job in zip(pairs, jobs, strict=True)]
    failures = {
        pair.key: (row["code"], row["error"]) for pair, row in rows if row["status"] == "failed"
    }
    results = [
        PicturePair(pair.key, journal.output(row), pair.original, pair.restored)
        for pair, row in rows
        if row["status"] == "done"
    ]
    return results, failures


def scaled(
    options: UpscaleOptions, size: tuple[int, int], wanted: tuple[int, int]
) -> UpscaleOptions:
    """The options with the scale that enlarges `size` to `wanted`, both (height, width) in px.

    Raises:
        ImageError: No scale does.
    """
    # only what was set: a model refuses options that are not its own
    values: dict[str, Any] = options.model_dump(exclude_unset=True)
    values |= {"scale": wanted[0] / size[0]}
    try:
        chosen = UpscaleOptions.model_validate(values)
    except ValidationError:
        chosen = None
    if chosen is None or chosen.output_size(size) != wanted:
        raise ImageError(
            "SIZE",
            f"{size[1]}x{size[0]} is its original's {wanted[1]}x{wanted[0]} at no scale of 1 to "
            "16; cut the original to a multiple",
        )
    return chosen
