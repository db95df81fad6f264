"""The command line: nothing but parsing. torch loads only after all that can be refused was."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from restore import batch, cli_degrade, files, manifest
from restore.config import load_options
from restore.errors import ModelError, OutputError, RestoreError, UsageError, printable
from restore.options import UpscaleOptions

INTERRUPTED = 130
DEFAULT = UpscaleOptions()
SECTIONS = ("upscale",)  # the task names that a configuration file may hold

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,  # plain lines: they end up in logs
    pretty_exceptions_enable=False,
    help="Enlarge and restore pictures by the folder, and train the model that does it.",
)


app.add_typer(cli_degrade.app, name="degrade")


def main(argv: list[str] | None = None) -> int:
    """Run a command. 0 all well, 1 some files failed, 2 usage, 3 environment, 130 stopped."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch takes huge pages: fewer page faults
    try:
        app(args=argv, prog_name="restore")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except RestoreError as error:
        return _stop(str(error), error.exit_code)
    except (OSError, ImportError) as error:
        return _stop(str(error), ModelError.exit_code)
    except KeyboardInterrupt:
        return _stop("stopped", INTERRUPTED)
    return 0


def _stop(message: str, code: int) -> int:
    for line in message.splitlines():
        print(f"restore: {printable(line)}", file=sys.stderr)
    return code


@app.callback()
def _commands() -> None:  # with it typer keeps `upscale` and `train` as words of their own
    pass


@app.command()
def upscale(
    inputs: Annotated[list[Path], typer.Argument(metavar="IN...", help="Pictures or folders.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the results.")],
    scale: Annotated[
        float | None,
        typer.Option("-s", "--scale", help=f"1 to 16; 1 restores only. [{DEFAULT.scale:g}]"),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(help=f"1 is the faithful average, what nano is made for. [{DEFAULT.steps}]"),
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="What the pictures show.")] = None,
    model: Annotated[str, typer.Option(help="A model's name or folder.")] = "nano",
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1)] = 0,
    config: Annotated[Path | None, typer.Option(help="YAML with a section `upscale:`.")] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="upscale.KEY=VALUE, for any option.")
    ] = None,
    windows: Annotated[
        int | None, typer.Option(help=f"Windows at a time: speed for memory. [{DEFAULT.windows}]")
    ] = None,
    format: Annotated[
        Literal["auto", "png", "jpeg", "webp", "tiff"],
        typer.Option(help="auto: JPEG and WebP as they are, others PNG."),
    ] = "auto",
    quality: Annotated[int, typer.Option(min=1, max=100, help="Of JPEG and WebP.")] = 95,
    background: Annotated[
        str | None, typer.Option(help="A colour to lay under transparency, for JPEG.")
    ] = None,
    exists: Annotated[
        Literal["skip", "overwrite", "rename", "error"],
        typer.Option(help="skip: finished files stay, foreign ones are never touched."),
    ] = "skip",
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option()] = "auto",
    dtype: Annotated[Literal["auto", "fp32", "fp16", "bf16"], typer.Option()] = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
) -> None:
    """Enlarge or restore pictures. Run the same command again to go on where it stopped."""
    options = load_options(
        UpscaleOptions,
        "upscale",
        config,
        sets or [],
        SECTIONS,
        scale=scale,
        steps=steps,
        prompt=prompt,
        windows=windows,
    )
    _check_output(out)
    from restore import encoding, images

    under = _colour(background)
    jobs = batch.plan(
        files.find(inputs, out),
        out,
        lambda source: encoding.FORMATS[encoding.format_for(source, format)].suffix,
    )
    if exists == "error":
        batch.refuse_existing(jobs)
    if dry_run:
        _foretell(jobs, options)
        return

    _, weights = manifest.find_model(model)

    @cache
    def stack():  # not before the first file that needs it: torch takes seconds
        from restore.loading import load

        return load(model, device, dtype)

    def work(job: batch.Job, path: Path) -> batch.Row:
        from restore.flow import restore

        picture = images.read(job.source)
        kind = encoding.format_for(job.source, format)
        size_out = options.output_size(picture.size)
        encoding.refuse(picture, kind, size_out, under)
        result = restore(picture, options, stack(), batch.file_seed(seed, job.key))
        notes = encoding.encode(result, path, kind, quality, under)
        told = list(dict.fromkeys((*result.warnings, *notes)))
        return {"size_in": picture.size, "size_out": result.size, "warnings": told}

    pixels = options.digest(
        seed=seed, format=format, quality=quality, background=under, dtype=dtype
    )
    journal = batch.Journal(out, pixels, weights)
    with _progress(len(jobs)) as show:
        try:
            summary = batch.run_all(jobs, work, journal, exists, show)
        except KeyboardInterrupt:
            go_on = "what is finished is kept; run the same command again to go on"
            raise typer.Exit(_stop(f"stopped; {go_on}", INTERRUPTED)) from None
    counts = {name: count for name, count in vars(summary).items() if name != "seconds"}
    told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    print(f"{told} in {summary.seconds:.1f} s; report in {out / 'report.jsonl'}")
    raise typer.Exit(1 if summary.failed else 0)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="A YAML of configs/train.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="On top of the YAML.")
    ] = None,
) -> None:
    """Train a model as a configuration says; run again, it goes on from its last checkpoint."""
    from restore.training.loop import run  # torch, seconds

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    run(config, overrides or [])


def _check_output(out: Path) -> None:
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


def _foretell(jobs: list[batch.Job], options: UpscaleOptions) -> None:
    from restore import images

    for job in jobs:
        name = printable(str(job.source))
        if job.skip:
            print(f"skipped  {name}: {batch.SKIPPED[job.skip]}")
            continue
        try:
            size = images.peek(job.source)
        except RestoreError as error:
            print(f"failing  {printable(str(error))}")
            continue
        there = " (there already)" if job.target.exists() else ""
        target = printable(str(job.target))
        print(f"{_sides(size)} -> {_sides(options.output_size(size))}  {name} -> {target}{there}")


def _sides(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"


@contextmanager
def _progress(total: int) -> Iterator[Callable[[batch.Row], None]]:
    """Lend a function that shows a row: over a bar with the time left, or as plain lines."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    if not sys.stderr.isatty():
        began = time.monotonic()
        count = 0

        def line(row: batch.Row) -> None:
            nonlocal count
            count += 1
            left = (time.monotonic() - began) / count * (total - count)
            print(f"[{count}/{total}] {describe(row)}, {left:.0f} s left", file=sys.stderr)

        yield line
        return

    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("left"))
    with Progress(*columns, console=Console(stderr=True), redirect_stdout=False) as bar:
        task = bar.add_task("", total=total)

        def over_bar(row: batch.Row) -> None:
            bar.console.print(describe(row), markup=False, highlight=False, soft_wrap=True)
            bar.advance(task)

        yield over_bar


def describe(row: dict[str, Any]) -> str:
    """A report row as one line."""
    key = printable(row["key"])
    if row["status"] in ("failed", "skipped"):
        return f"{row['status']:8} {key}: {row['code']}: {printable(row['error'])}"
    if "finished" in row:
        return f"finished {key}"
    sides = f"{_sides(row['size_in'])} -> {_sides(row['size_out'])}"
    notes = "".join(f"; {printable(note)}" for note in row["warnings"])
    return f"done     {key}: {sides} in {row['seconds']:.1f} s{notes}"


if __name__ == "__main__":
    sys.exit(main())
