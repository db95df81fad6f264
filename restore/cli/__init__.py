"""The command line: nothing but parsing. torch loads only after all that can be refused was."""

import logging
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Literal

import typer

from restore.batch.holes import Holes
from restore.cli import (
    configs,
    data,
    degrade,
    doctor,
    evaluate,
    export,
    models,
    report,
    serve,
    shared,
    verify,
)
from restore.cli.folder import Folder, takes
from restore.cli.habits import plain
from restore.cli.model import Enlarger, Model
from restore.cli.panels import Panels
from restore.cli.pictures import Pictures
from restore.cli.said import Said
from restore.cli.settings import Settings
from restore.cli.shared import Run, run_files, run_prompt, stop
from restore.cli.signals import leave_with
from restore.cli.streams import plain_handler, steady
from restore.cli.team import Team
from restore.config import shipped
from restore.errors import ModelError, RestoreError, UsageError
from restore.options import Img2imgOptions, InpaintOptions, Text2imgOptions, UpscaleOptions

UPSCALE, TEXT2IMG, IMG2IMG, INPAINT = (
    SimpleNamespace(**{name: field.default for name, field in kind.model_fields.items()})
    for kind in (UpscaleOptions, Text2imgOptions, Img2imgOptions, InpaintOptions)
)  # the defaults that the help tells: to make options would take a tenth of a second

EXITS = (
    "Exit codes: 0 all well; 1 some files failed; 2 the command is wrong, nothing was begun; 3 the "
    "model or the output folder cannot be used; 130 stopped by Ctrl-C, 143 by SIGTERM."
)

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,  # plain lines: they end up in logs
    pretty_exceptions_enable=False,
    help="Enlarge, restore and make pictures by the folder, and train the model that does it.",
    epilog=EXITS,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(degrade.app, name="degrade")
app.add_typer(configs.app, name="configs")
app.add_typer(data.app, name="data")
app.add_typer(report.app, name="report")
app.add_typer(models.app, name="models")


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit code that EXITS tells."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch takes huge pages: fewer page faults
    leave_with(1)  # so early that all else which ends with the process ends before
    with steady():
        code = _run(sys.argv[1:] if argv is None else argv)
    leave_with(code)
    return code


def _run(argv: list[str]) -> int:
    try:
        app(args=spelt(plain(argv)), prog_name="restore")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except RestoreError as error:
        return stop(str(error), error.exit_code)
    except (OSError, ImportError) as error:
        return stop(str(error), ModelError.exit_code)
    except KeyboardInterrupt:
        return stop("stopped", 130)
    return 0


def spelt(argv: list[str]) -> list[str]:
    """The words with `--find-scratches` given its value where it stands alone: typer cannot."""
    following = [*argv[1:], ""]
    return [
        "--find-scratches=propose"
        if word == "--find-scratches" and after not in ("propose", "apply")
        else word
        for word, after in zip(argv, following, strict=False)
    ]


def _tell_version(is_asked: bool) -> None:
    if not is_asked:
        return
    from importlib import metadata

    try:
        print(f"restore-toolkit {metadata.version('restore-toolkit')}")
    except metadata.PackageNotFoundError:
        print("restore-toolkit, not installed: run from its folder")
    raise typer.Exit()


@app.callback()
def _commands(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_tell_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    pass


@app.command(
    cls=Panels,
    epilog="Example: restore upscale scans -o out -s 2",
)
@takes("folder", Folder)
@takes("team", Team)
@takes("pictures", Pictures)
@takes("model", Enlarger)
@takes("settings", Settings)
@takes("said", Said)
def upscale(
    out: shared.Out,
    folder: Folder,
    team: Team,
    pictures: Pictures,
    model: Enlarger,
    settings: Settings,
    said: Said,
    scale: Annotated[
        float | None,
        typer.Option("-s", "--scale", help=f"1 to 16; 1 restores only. [{UPSCALE.scale:g}]"),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(
            help="Sampling steps after the first stage. [what the model is made for; nano: 0]"
        ),
    ] = None,
    fidelity: Annotated[
        float | None,
        typer.Option(help="0 is sharp, 1 is faithful: closest to the truth on average. [0]"),
    ] = None,
    unfade: Annotated[
        float | None,
        typer.Option(help="Share of a noisy picture's fading to undo, below -s 2; 0: none. [0.5]"),
    ] = None,
    prompt: Annotated[
        str | None,
        typer.Option(
            help="What was done to the pictures, or what you want: 'remove noise, keep grain'."
        ),
    ] = None,
    colour: Annotated[
        str | None,
        typer.Option(
            help=f"Take the input's colours: none, wavelet, adain, lowpass. [{UPSCALE.colour}]"
        ),
    ] = None,
    damage: Annotated[
        str | None,
        typer.Option(help="Masks of scratches, which are filled in the same pass."),
    ] = None,
    find_scratches: Annotated[
        Literal["propose", "apply"] | None,
        typer.Option(
            metavar="[propose|apply]",
            help="Mark scratches: NAME_damage.png is a mask to correct and give by --damage, "
            "NAME_overlay.jpg shows it. `apply` fills them at once. [propose]",
        ),
    ] = None,
    fit_mask: shared.FitMask = False,
    dry_run: shared.DryRun = False,
) -> None:
    """Enlarge or restore pictures. Run the same command again to go on where it stopped."""
    if damage and find_scratches:
        raise UsageError("--damage gives the scratches, --find-scratches looks for them")
    options = settings.options(
        UpscaleOptions,
        scale=scale,
        steps=steps,
        fidelity=fidelity,
        unfade=unfade,
        prompt=prompt,
        colour=colour,
    )
    where = Run(out, settings.seed, settings.exists, model, said, pictures, team)
    run_files(folder, options, where, dry_run, Holes(damage or "", fit_mask, find_scratches or ""))


@app.command(
    cls=Panels,
    epilog="Example: restore inpaint photo.jpg --mask mask.png -o out",
)
@takes("folder", Folder)
@takes("team", Team)
@takes("pictures", Pictures)
@takes("model", Model)
@takes("settings", Settings)
@takes("said", Said)
def inpaint(
    out: shared.Out,
    folder: Folder,
    team: Team,
    pictures: Pictures,
    model: Model,
    settings: Settings,
    said: Said,
    mask: Annotated[
        str | None,
        typer.Option(
            help="White repaints: a picture for all, a folder paired by path and stem, LabelMe or "
            "COCO JSON, or `alpha` for what is transparent."
        ),
    ] = None,
    prompt: shared.Prompt = None,
    negative: shared.Negative = None,
    invert: Annotated[bool, typer.Option("--invert", help="Black repaints.")] = False,
    grow: Annotated[
        int | None, typer.Option(help=f"px by which the mask grows. [{INPAINT.grow}]")
    ] = None,
    feather: Annotated[
        int | None, typer.Option(help=f"px in which old and new blend. [{INPAINT.feather}]")
    ] = None,
    extend: Annotated[
        str | None,
        typer.Option(
            help="LEFT,TOP,RIGHT,BOTTOM in px: paint beyond the edges. nano adds flat bands."
        ),
    ] = None,
    aspect: Annotated[
        str | None, typer.Option(help="Paint beyond the edges up to this shape, such as 16:9.")
    ] = None,
    count: Annotated[
        int,
        typer.Option(
            "-n", "--count", min=1, max=99, help="So many candidates, and a sheet that shows them."
        ),
    ] = 1,
    steps: Annotated[
        int | None, typer.Option(help="Sampling steps. [what the model is made for]")
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(help=f"Below 1, what is in the hole is used too. [{INPAINT.strength}]"),
    ] = None,
    sampler: shared.Sampler = None,
    guidance: shared.Guidance = None,
    engine: Annotated[
        str | None,
        typer.Option(
            help=f"model; onnx: the model by ONNX Runtime; telea, navier_stokes. [{INPAINT.engine}]"
        ),
    ] = None,
    fit_mask: shared.FitMask = False,
    dry_run: shared.DryRun = False,
) -> None:
    """Fill holes, or paint beyond the edges; nothing else changes."""
    if engine in ("torch", "onnx"):  # of the model, which other commands are told alike
        model, engine = replace(model, engine=engine), None
    options = settings.options(
        InpaintOptions,
        prompt=prompt,
        negative=negative,
        invert=invert or None,
        grow=grow,
        feather=feather,
        extend=extend and _numbers(extend),
        aspect=aspect,
        steps=steps,
        strength=strength,
        sampler=sampler,
        guidance=guidance,
        engine=engine,
    )
    if not mask and not (options.aspect or any(options.extend)):
        raise UsageError("inpaint needs --mask; or --extend or --aspect, to paint on")
    where = Run(out, settings.seed, settings.exists, model, said, pictures, team)
    run_files(folder, options, where, dry_run, Holes(mask or "", fit_mask), count)


def _numbers(sides: str) -> tuple[int, int, int, int]:
    try:
        left, top, right, bottom = map(int, sides.split(","))
    except ValueError as error:
        mend = "write LEFT,TOP,RIGHT,BOTTOM in pixels, such as 0,0,200,0"
        raise UsageError(f"--extend {sides}: {mend}") from error
    return left, top, right, bottom


@app.command(
    cls=Panels, epilog="Example: restore img2img photo.jpg -o out --strength 0.4 --model FOLDER"
)
@takes("folder", Folder)
@takes("team", Team)
@takes("pictures", Pictures)
@takes("model", Model)
@takes("settings", Settings)
@takes("said", Said)
def img2img(
    out: shared.Out,
    folder: Folder,
    team: Team,
    pictures: Pictures,
    model: Model,
    settings: Settings,
    said: Said,
    prompt: shared.Prompt = None,
    strength: Annotated[
        float | None,
        typer.Option(help=f"Near 0 keeps the picture, 1 forgets it. [{IMG2IMG.strength}]"),
    ] = None,
    loopback: Annotated[
        int | None,
        typer.Option(help="Feed the result back so many times, and keep all: NAME_001.png ..."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Sampling steps at strength 1. [what the model is made for]")
    ] = None,
    sampler: shared.Sampler = None,
    guidance: shared.Guidance = None,
    negative: shared.Negative = None,
    colour: Annotated[
        str | None,
        typer.Option(help=f"Take the input's colours: none, wavelet, adain. [{IMG2IMG.colour}]"),
    ] = None,
    dry_run: shared.DryRun = False,
) -> None:
    """Change pictures by words, at their own size."""
    options = settings.options(
        Img2imgOptions,
        prompt=prompt,
        strength=strength,
        loopback=loopback,
        steps=steps,
        sampler=sampler,
        guidance=guidance,
        negative=negative,
        colour=colour,
    )
    where = Run(out, settings.seed, settings.exists, model, said, pictures, team)
    run_files(folder, options, where, dry_run)


@app.command(
    cls=Panels, epilog="Example: restore text2img -o out -n 4 --size 512x384 --model FOLDER"
)
@takes("model", Model)
@takes("settings", Settings)
@takes("said", Said)
def text2img(
    out: shared.Out,
    model: Model,
    settings: Settings,
    said: Said,
    prompt: Annotated[str | None, typer.Option(help="What the pictures show.")] = None,
    count: Annotated[
        int,
        typer.Option(
            "-n", "--count", min=1, max=10**6, help="How many pictures; each has the next seed."
        ),
    ] = 1,
    size: Annotated[
        str | None, typer.Option(help=f"WIDTHxHEIGHT. [{TEXT2IMG.width}x{TEXT2IMG.height}]")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Sampling steps. [what the model is made for]")
    ] = None,
    sampler: shared.Sampler = None,
    guidance: shared.Guidance = None,
    negative: shared.Negative = None,
    grid: Annotated[
        bool, typer.Option("--grid", help="Also make grid.png, which shows them all.")
    ] = False,
) -> None:
    """Make pictures from words."""
    width, height = _sides(size) if size else (None, None)
    options = settings.options(
        Text2imgOptions,
        prompt=prompt,
        width=width,
        height=height,
        steps=steps,
        sampler=sampler,
        guidance=guidance,
        negative=negative,
    )
    where = Run(out, settings.seed, settings.exists, model, said)
    run_prompt(options, where, count, grid)


def _sides(size: str) -> tuple[int, int]:
    """(width, height)"""
    sides = re.fullmatch(r"(\d{1,5})x(\d{1,5})", size, re.ASCII)
    width, height = map(int, sides.groups()) if sides else (0, 0)
    if not (1 <= width <= 32768 and 1 <= height <= 32768):
        raise UsageError(f"--size {size}: write WIDTHxHEIGHT, such as 512x384, each 1 to 32768")
    return width, height


@app.command(
    epilog="Example: restore train configs/train/nano_autoencoder.yaml stage.data.photos=PHOTOS"
)
def train(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG", help="A YAML, or a name of `restore configs list`.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="On top of the YAML.")
    ] = None,
    allow_code: degrade.AllowCode = False,
) -> None:
    """Train a model as a YAML file says.

    Run the same command again to go on from the last checkpoint.
    """
    from degradations import consent
    from restore.training.loop import run  # torch, seconds

    logging.basicConfig(level=logging.INFO, handlers=[plain_handler()])
    if not config.exists():
        config = shipped().get(f"train/{config.as_posix().removeprefix('train/')}", config)
    with consent.given(allow_code):
        run(config, overrides or [])


app.command(cls=Panels)(evaluate.evaluate)
app.command(epilog="Example: restore export nano -o nano_onnx")(export.export)
app.command()(doctor.doctor)
app.command()(verify.verify)
app.command(epilog="Example: restore serve --root PHOTOS")(serve.serve)
