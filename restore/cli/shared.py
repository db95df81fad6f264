"""What the commands over many pictures share: options, work on files or prompts, progress."""

import os
import sys
import time
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from restore.batch.destination import Destination
from restore.batch.folder import PreparedRun, prepare
from restore.batch.holes import Holes
from restore.batch.journal import Journal
from restore.batch.models import OpenedModel
from restore.batch.planning import say_without_effect
from restore.batch.runner import Exists, Summary
from restore.batch.words import prepare_words
from restore.batch.work import FileOptions
from restore.cli.console import Console
from restore.cli.executor import ExecutorOptions
from restore.cli.folder import Folder
from restore.cli.hint import first_use
from restore.cli.model import Model
from restore.cli.pictures import SHORT, Pictures
from restore.cli.progress import progress
from restore.cli.signals import Stop
from restore.errors import OutputError, UsageError, printable
from restore.options import Text2imgOptions

if TYPE_CHECKING:
    from restore.checkpoints.arguments import Model as Loaded

GO_ON = "what is finished is kept; run the same command again to go on"
Out = Annotated[
    str,
    typer.Option("-o", "--out", help="A folder or a URL, or for one input a file as big.jpg."),
]
WRITTEN = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".tif", ".tiff")  # as -o may end
Prompt = Annotated[str | None, typer.Option(help="What the pictures show.")]
Negative = Annotated[str | None, typer.Option(help="What the pictures should not show.")]
Sampler = Annotated[str | None, typer.Option(help="ddim, euler, euler_a, dpm++_2m, unipc, ...")]
Guidance = Annotated[float | None, typer.Option(help="How much the prompt counts; 0 to 1 is off.")]
FitMask = Annotated[bool, typer.Option("--fit-mask", help="Resize masks of another size.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")]


@dataclass(frozen=True)
class Run:
    """What a command is told beside its task's options."""

    out: str
    seed: int
    exists: Exists
    model: Model
    console: Console
    pictures: Pictures = Pictures()
    executor: ExecutorOptions = ExecutorOptions()

    @cached_property
    def destination(self) -> Destination:
        """Where the results go. Raises UsageError or OutputError."""
        destination = Destination.parse(self.out)
        if destination.file and destination.path.suffix.casefold() not in WRITTEN:
            problem = f"{self.out}: is not a format that is written; use {', '.join(WRITTEN)}"
            raise UsageError(f"{problem}, or name a folder")
        _check_writable(destination.out)
        return destination

    @property
    def format(self) -> str:
        """Of the results, as options or the name of their file say it. Raises UsageError."""
        wanted = self.pictures.format
        if not self.destination.file:
            return wanted
        suffix = self.destination.path.suffix.casefold().removeprefix(".")
        named = SHORT.get(suffix, suffix)
        if wanted not in ("auto", named):
            raise UsageError(f"{self.out}: is a {named} by its name, and --format says {wanted}")
        return named

    def open(self, options: FileOptions | Text2imgOptions) -> OpenedModel:
        """As Model.open; the loader tells those who want to know where the model is."""
        model = self.model.open(options)

        @cache
        def stack() -> "Loaded":
            began = time.monotonic()
            made = model.stack()
            if self.console.verbose:
                taken = time.monotonic() - began
                self.console.detail(f"model loaded in {taken:.1f} s, on {made.device}")
            return made

        return replace(model, stack=stack)

    def tell(self, prepared: PreparedRun) -> None:
        """Tell those who want to know what was settled before the work."""
        options, model = prepared.options, prepared.model
        values = options.model_dump(mode="json", exclude_defaults=True, exclude={"task"})
        message = " ".join(f"{name}={value}" for name, value in values.items())
        self.console.detail(f"{options.task}: {message or 'all options as they are by default'}")
        precision = ", ".join(f"{name} {value}" for name, value in model.precision.items())
        message = f"model {model.name}, weights {model.weights[:12]}, {precision}"
        self.console.detail(f"{message}, seed {self.seed}")


def run_files(
    folder: Folder,
    options: FileOptions,
    run: Run,
    dry_run: bool,
    holes: Holes = Holes(),
    count: int = 1,
) -> None:
    """Do the options' task with every picture that the folder's options name, and exit.

    Args:
        dry_run: Only say what would be done.
        count: Candidates of each picture, kept beside a sheet of them all.
    """
    run.console.begin()
    destination = run.destination
    pictures = replace(run.pictures, format=run.format).chosen
    if moot := say_without_effect(options, pictures, count):
        run.console.note(moot)
    prepared = prepare(
        folder.find(destination),
        options,
        destination,
        lambda: run.open(options),
        pictures=pictures,
        holes=holes,
        seed=run.seed,
        count=count,
        exists=run.exists,
        share=folder.share,
        on_collision=folder.on_collision,
        devices=run.executor.named,
        cluster=run.executor.cluster,
    )
    if dry_run:
        for row in prepared.dry_run(run.console.line, run.console.note):
            run.console.row(row)
        return
    run.tell(prepared)
    summary = carry_out(prepared, run, folder.most_failures)
    if holes.find == "propose":
        message = "nothing was filled: look at NAME_overlay.jpg, correct NAME_damage.png, then run"
        masked = prepared.jobs[0].frames[0] if destination.file else destination.out
        run.console.line(f"{message} with --damage {printable(str(masked))} and another -o")
    finish(summary, prepared.journal, run)


def run_prompt(options: Text2imgOptions, run: Run, count: int, grid: bool) -> None:
    """Make `count` pictures from words, of the seeds from run.seed on, and exit."""
    run.console.begin()
    destination = run.destination
    if destination.file and count + grid > 1:
        raise UsageError(f"{run.out}: is one file; -n and --grid make more, give -o a folder")
    if destination.url and grid:
        raise UsageError("--grid: shows pictures of this machine; give -o a folder here")
    prepared = prepare_words(
        options,
        destination,
        lambda: run.open(options),
        form="png" if run.format == "auto" else run.format,
        seed=run.seed,
        count=count,
        exists=run.exists,
    )
    run.tell(prepared)
    summary = carry_out(prepared, run)
    if grid and not summary.failed and not summary.left:
        from restore.images.contact_sheet import write_grid

        journal = prepared.journal
        rows = [journal.row(job) for job in prepared.jobs]
        write_grid([journal.output(row) for row in rows], destination.out / "grid.png")
    finish(summary, prepared.journal, run)


def carry_out(prepared: PreparedRun, run: Run, max_failures: int = 0) -> Summary:
    """Do a run under the eyes of the user, who may stop it."""
    with progress(len(prepared.jobs), run.console) as show, Stop() as halt:
        try:
            summary = prepared.run(show, lambda: halt.signal_name, max_failures)
        except KeyboardInterrupt:
            raise typer.Exit(stop(f"stopped; {GO_ON}", halt.exit_code)) from None
    if halt.signal_name and summary.left:
        tell(summary, prepared.journal, run)
        raise typer.Exit(stop(f"stopped; {GO_ON}", halt.exit_code))
    return summary


def finish(summary: Summary, journal: Journal, run: Run) -> None:
    tell(summary, journal, run)
    if summary.left:
        stop(f"ended after {summary.failed} failed; {GO_ON}", 1)
    raise typer.Exit(1 if summary.failed else 0)


def tell(summary: Summary, journal: Journal, run: Run) -> None:
    names = ("done", "finished", "failed", "skipped", "left")
    counts = {name: getattr(summary, name) for name in names}
    ended = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    path = journal.path.with_suffix(".html")
    run.console.line(f"{ended} in {summary.seconds:.1f} s; report in {printable(str(path))}")
    if summary.done:
        first_use(path, run.console)


def stop(message: str, code: int) -> int:
    for line in message.splitlines():
        print(f"restore: {printable(line)}", file=sys.stderr)
    return code


def check_output(out: Path) -> None:
    """Raise UsageError or OutputError if `-o` is no folder that may be written."""
    destination = Destination.parse(out)
    if destination.file:
        raise UsageError(f"{out}: -o takes a folder here")
    _check_writable(out)


def _check_writable(out: Path) -> None:
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise OutputError(f"{out}: cannot be written: {there} is read-only or no folder")
