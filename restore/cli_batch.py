"""What the commands over many pictures share: options, work on files or prompts, progress."""

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from restore import batch, files, jobs, manifest, report
from restore.cli_folder import Folder
from restore.cli_plan import foretell
from restore.cli_progress import Show, progress
from restore.cli_stop import Stop
from restore.errors import OutputError, UsageError, printable
from restore.journal import Journal, Row
from restore.options import Img2imgOptions, InpaintOptions, Text2imgOptions, UpscaleOptions

if TYPE_CHECKING:
    import numpy as np

    from restore.images import Picture
    from restore.maskfiles import Masks
    from restore.stack import Stack

GO_ON = "what is finished is kept; run the same command again to go on"
FileOptions = UpscaleOptions | Img2imgOptions | InpaintOptions
LOSSY = "lossy: {} cannot keep what lies outside the mask byte for byte; --format png can"
LARGEST_SEED = 2**63 - 1

Out = Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.")]
Prompt = Annotated[str | None, typer.Option(help="What the pictures show.")]
Negative = Annotated[str | None, typer.Option(help="What they shall not show.")]
Model = Annotated[str, typer.Option(help="A model's name or folder.")]
Seed = Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Another seed, another picture.")]
Config = Annotated[Path | None, typer.Option(help="YAML with a section of the command's name.")]
Sets = Annotated[list[str] | None, typer.Option("--set", help="COMMAND.KEY=VALUE, for any option.")]
AtOnce = Annotated[int | None, typer.Option(help="Windows at a time: speed for memory.")]
Sampler = Annotated[str | None, typer.Option(help="ddim, euler, euler_a, dpm++_2m, unipc, ...")]
Guidance = Annotated[
    float | None, typer.Option(help="How much the prompt counts; 1 is the model's plain answer.")
]
Format = Annotated[
    Literal["auto", "png", "jpeg", "webp", "tiff"],
    typer.Option(help="auto: JPEG and WebP as they are, others PNG."),
]
Quality = Annotated[int, typer.Option(min=1, max=100, help="Of JPEG and WebP.")]
Background = Annotated[
    str | None, typer.Option(help="A colour to lay under transparency, for JPEG.")
]
Exists = Annotated[
    Literal["skip", "overwrite", "rename", "error"],
    typer.Option(help="skip: finished files stay, foreign ones are never touched."),
]
Device = Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option()]
Dtype = Annotated[
    Literal["auto", "fp32", "fp16", "bf16"], typer.Option(help="auto: fp32 on the CPU, else bf16.")
]
Compiled = Annotated[
    bool, typer.Option("--compile", help="Compile the UNet first: minutes once, quicker steps.")
]
Offload = Annotated[
    bool, typer.Option("--offload", help="Only the part at work is on the accelerator: slower.")
]
Lora = Annotated[
    list[str] | None, typer.Option("--lora", help="FILE or FILE=SCALE, as often as you like.")
]
ConfigFrom = Annotated[
    str | None, typer.Option(help="A diffusers folder with configs for a single .safetensors file.")
]
AllowPickle = Annotated[
    bool, typer.Option("--allow-pickle", help="Read the tensors of .ckpt and .bin files too.")
]
FitMask = Annotated[bool, typer.Option("--fit-mask", help="Resize masks of another size.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")]


@dataclass(frozen=True)
class Run:
    """What a command is told beside its task's options."""

    out: Path
    model: str
    seed: int
    exists: batch.Exists
    device: str
    dtype: str
    compiled: bool
    offload: bool
    lora: tuple[str, ...] = ()  # FILE or FILE=SCALE
    config_from: str | None = None
    allow_pickle: bool = False
    format: str = "png"
    quality: int = 95
    background: str | None = None

    @property
    def precision(self) -> dict[str, object]:
        """What of this decides the pixels, beside the weights."""
        return {"dtype": self.dtype, **({"compiled": True} if self.compiled else {})}

    @property
    def loras(self) -> list[tuple[str, float]]:
        """(file, scale) of each. Raises UsageError."""
        found = []
        for given in self.lora:
            file, equals, scale = given.rpartition("=")
            try:
                found.append((file, float(scale)) if equals else (given, 1.0))
            except ValueError as error:
                mend = "write FILE=SCALE, such as a.safetensors=0.8"
                raise UsageError(f"--lora {given}: {mend}") from error
        return found


@dataclass(frozen=True)
class Holes:
    """Where the pictures have holes: the mask of inpaint, the damage of upscale."""

    given: str = ""  # a file, a folder, or alpha
    fit: bool = False  # resize a mask of another size
    find: bool = False  # propose one where an old photo is scratched, and keep it beside the result

    @property
    def told(self) -> dict[str, object]:
        """What of this decides the pixels, beside the masks themselves."""
        return {f"hole_{name}": True for name, is_so in vars(self).items() if is_so}

    def open(self, given: list[jobs.Job]) -> tuple["Masks | None", list[jobs.Job]]:
        """The masks, and the jobs that know theirs."""
        if not self.given:
            return None, given
        from restore.maskfiles import open_masks

        masks = open_masks(self.given)
        paths = {job: masks.of(job) for job in given}
        knowing = [replace(job, others=(path,) if path else ()) for job, path in paths.items()]
        return masks, knowing

    def read(self, masks: "Masks | None", job: jobs.Job, picture: "Picture") -> "np.ndarray | None":
        """uint8 (H, W) of the picture's size, or None where there is no talk of holes."""
        if self.find:
            from restore import scratches

            return scratches.find(picture)
        if masks is None:
            return None
        from restore import maskfiles

        return maskfiles.read(masks, job, picture, self.fit)


def run_files(
    folder: Folder,
    options: FileOptions,
    run: Run,
    dry_run: bool,
    holes: Holes = Holes(),
    count: int = 1,
) -> None:
    """Do the options' task with every picture that the folder's options name, and exit.

    count  candidates of each, kept beside a sheet of them all.
    """
    check_output(run.out)
    from restore import encoding

    under = _colour(run.background)
    form = run.format
    if count > 1 or (form == "auto" and isinstance(options, InpaintOptions)):
        form = "png"  # the sheet's; and what is outside the mask stays
    planned = jobs.plan(
        folder.find(run.out),
        run.out,
        lambda source: encoding.FORMATS[encoding.format_for(source, form)].suffix,
        kept_beside(options, holes, count),
        folder.on_collision,
    )
    masks, planned = holes.open([job for job in planned if folder.share.holds(job.key)])
    if run.exists == "error":
        batch.refuse_existing(planned)
    stack, weights = opener(run)
    work = FileWork(options, run, holes, masks, count, form, under, stack, weights)
    pixels = options.digest(
        seed=run.seed,
        format=run.format,
        quality=run.quality,
        background=under,
        **run.precision,
        **({"count": count} if count > 1 else {}),
        **holes.told,
    )
    journal = Journal(run.out, pixels, weights, folder.share.ending)
    if dry_run:
        foretell(planned, options, masks, journal)
        return
    finish(carry_out(planned, work, run, journal, folder.most_failures), journal)


@dataclass(frozen=True)
class FileWork:
    """What is done with one picture of a run over files."""

    options: FileOptions
    run: Run
    holes: Holes
    masks: "Masks | None"
    count: int
    form: str
    under: tuple[int, int, int] | None
    stack: Callable[[], "Stack"]
    weights: str

    def __call__(self, job: jobs.Job, show: Show, path: Path, *frames: Path) -> Row:
        from restore import encoding, images
        from restore.flow import restore
        from restore.grid import write_sheet

        assert job.source
        picture = images.read(job.source)
        mask = self.holes.read(self.masks, job, picture)
        kind = encoding.format_for(job.source, self.form)
        encoding.refuse(picture, kind, self.options.output_size(picture.size), self.under)
        notes: list[str] = []

        def make(path: Path, seed: int) -> "Picture":
            def keep(lap: int, frame: "Picture") -> None:
                if frames:  # of a loopback
                    self.put(frame, frames[lap - 1], kind, seed)

            made = restore(picture, self.options, self.stack(), seed, show.step, mask, keep)
            notes.extend((*made.warnings, *self.put(made, path, kind, seed)))
            return made

        if self.holes.find:
            found = images.Picture(images.threefold(mask), grey=True)
            encoding.encode(found, frames[0], kind)
        seeds = [jobs.file_seed(self.run.seed + nth, job.key) for nth in range(self.count)]
        targets = [path] if self.count == 1 else frames
        made = [make(*each) for each in zip(targets, seeds, strict=True)]
        if self.count > 1:
            write_sheet(frames, path)
        report.keep_thumbs(self.run.out, job.key, *map(shown, (picture, made[0])))
        if kind in ("jpeg", "webp") and isinstance(self.options, InpaintOptions):
            notes.append(LOSSY.format(kind))
        told_once = list(dict.fromkeys(notes))
        return {"size_in": picture.size, "size_out": made[0].size, "warnings": told_once}

    def put(self, picture: "Picture", path: Path, kind: str, seed: int) -> list[str]:
        from restore import encoding

        is_plain = isinstance(self.options, UpscaleOptions)
        about = "" if is_plain else told(self.options, seed, self.run, self.weights)
        return encoding.encode(picture, path, kind, self.run.quality, self.under, about)


def shown(picture: "Picture") -> "tuple[np.ndarray, np.ndarray | None]":
    """Of a picture, what a thumbnail is made of."""
    return picture.pixels, picture.alpha


def kept_beside(options: FileOptions, holes: Holes, count: int) -> tuple[str, ...]:
    """What is kept beside a result, as endings of its name."""
    if holes.find:
        return ("_damage",)
    laps = options.loopback if isinstance(options, Img2imgOptions) else count
    return tuple(f"_{lap:03}" for lap in range(1, laps + 1)) if laps > 1 else ()


def run_prompt(options: Text2imgOptions, run: Run, count: int, grid: bool) -> None:
    """Make `count` pictures from words, of the seeds from run.seed on, and exit."""
    if run.seed + count - 1 > LARGEST_SEED:
        raise UsageError(f"--seed {run.seed}: {count} seeds from there on do not fit 63 bits")
    check_output(run.out)
    seeds = {f"{seed:010}.png": seed for seed in range(run.seed, run.seed + count)}
    planned = [jobs.Job(None, name, run.out / name) for name in seeds]
    if run.exists == "error":
        batch.refuse_existing(planned)
    stack, weights = opener(run)

    def work(job: jobs.Job, show: Show, path: Path) -> Row:
        from restore import encoding
        from restore.flow import restore

        seed = seeds[job.key]
        result = restore(None, options, stack(), seed, show.step)
        encoding.encode(result, path, about=told(options, seed, run, weights))
        report.keep_thumbs(run.out, job.key, shown(result))
        return {"seed": seed, "size_out": result.size, "warnings": list(result.warnings)}

    pixels = options.digest(**run.precision)  # a picture's seed is in its key
    journal = Journal(run.out, pixels, weights)
    summary = carry_out(planned, work, run, journal)
    if grid and not summary.failed and not summary.left:
        from restore.grid import write_grid

        rows = [journal.rows[job.key] for job in planned]
        write_grid([journal.output(row) for row in rows], run.out / "grid.png")
    finish(summary, journal)


def told(options: Any, seed: int, run: Run, weights: str) -> str:
    """How a picture is made again, as JSON: `--set` takes each line of the task's section."""
    values = options.model_dump(mode="json", exclude={"task", *options.run_only})
    made = {options.task: values, "seed": seed, "model": run.model, "weights": weights}
    return json.dumps({**made, **run.precision})


def opener(run: Run) -> tuple[Callable[[], "Stack"], str]:
    """Loads the model at the first call, since torch takes seconds; and the weights' digest."""
    _, weights = manifest.find_model(run.model, allow_pickle=run.allow_pickle)
    weights = manifest.with_loras(weights, run.loras)

    @cache
    def stack() -> "Stack":
        from restore.devices import load

        return load(
            run.model,
            run.device,
            run.dtype,
            compiled=run.compiled,
            offload=run.offload,
            config=run.config_from,
            loras=run.loras,
            allow_pickle=run.allow_pickle,
        )

    return stack, weights


def carry_out(
    planned: Sequence[jobs.Job],
    work: Callable[..., Row],
    run: Run,
    journal: Journal,
    max_failures: int = 0,
) -> batch.Summary:
    """Do the jobs under the eyes of the user, who may stop it."""
    with progress(len(planned)) as show, Stop() as halt:
        try:
            summary = batch.run_all(
                planned,
                lambda job, *paths: work(job, show, *paths),
                journal,
                run.exists,
                show.row,
                batch.Limits(max_failures, lambda: halt.asked),
                report.publisher(run.out, journal.ending),
            )
        except KeyboardInterrupt:
            raise typer.Exit(stop(f"stopped; {GO_ON}", halt.exit_code)) from None
    if halt.asked and summary.left:
        tell(summary, journal)
        raise typer.Exit(stop(f"stopped; {GO_ON}", halt.exit_code))
    return summary


def finish(summary: batch.Summary, journal: Journal) -> None:
    tell(summary, journal)
    if summary.left:
        stop(f"ended after {summary.failed} failed; {GO_ON}", 1)
    raise typer.Exit(1 if summary.failed else 0)


def tell(summary: batch.Summary, journal: Journal) -> None:
    names = ("done", "finished", "failed", "skipped", "left")
    counts = {name: getattr(summary, name) for name in names}
    said = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    print(f"{said} in {summary.seconds:.1f} s; report in {journal.path}")


def stop(message: str, code: int) -> int:
    for line in message.splitlines():
        print(f"restore: {printable(line)}", file=sys.stderr)
    return code


def check_output(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file; -o takes a folder")
    if not out.exists() and out.suffix.casefold() in files.KNOWN:
        raise UsageError(f"{out}: -o takes a folder; the results keep the names of the inputs")
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise OutputError(f"{out}: cannot be written: {there} is read-only or no folder")


def _colour(name: str | None) -> tuple[int, int, int] | None:
    from PIL import ImageColor

    try:
        return ImageColor.getrgb(name)[:3] if name else None
    except ValueError as error:
        mend = "write a name such as white, or #rrggbb"
        raise UsageError(f"--background {name}: is no colour; {mend}") from error
