"""The commands that make pictures. Each has a record of its own options; the rest they share."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import typer

from restore.batch.holes import Holes
from restore.cli import shared
from restore.cli.console import Console
from restore.cli.executor import ExecutorOptions
from restore.cli.folder import Folder, takes
from restore.cli.model import Enlarger, Model
from restore.cli.pictures import Pictures
from restore.cli.settings import Settings
from restore.cli.shared import Run, run_files, run_prompt
from restore.errors import UsageError
from restore.options import Img2imgOptions, InpaintOptions, Text2imgOptions, UpscaleOptions

UPSCALE, TEXT2IMG, IMG2IMG, INPAINT = (
    SimpleNamespace(**{name: field.default for name, field in kind.model_fields.items()})
    for kind in (UpscaleOptions, Text2imgOptions, Img2imgOptions, InpaintOptions)
)  # the defaults that the help shows; making real options would take a tenth of a second
Command = Callable[..., None]


def over_files(task: type, model: type[Model] = Model) -> Callable[[Command], Command]:
    """Give a command over files the fields of records as its options.

    The command gets the files as `folder`, all that a run needs as `where`, and `settings`.

    Args:
        task: The record of the command's own options, which the command gets as `task`.
        model: The record of its options on the model.
    """
    records: dict[str, type] = {"task": task, "console": Console, "settings": Settings}
    records |= {"model": model, "pictures": Pictures, "executor": ExecutorOptions, "folder": Folder}

    def changed(command: Command) -> Command:
        def whole(
            out: shared.Out,
            folder: Folder,
            executor: ExecutorOptions,
            pictures: Pictures,
            model: Model,
            settings: Settings,
            console: Console,
            task: Any,
        ) -> None:
            where = Run(out, settings.seed, settings.exists, model, console, pictures, executor)
            command(folder, where, settings, task)

        whole.__name__, whole.__doc__ = command.__name__, command.__doc__
        extended: Command = whole
        for name, kind in records.items():
            extended = takes(name, kind)(extended)
        return extended

    return changed


@dataclass(frozen=True)
class Upscale:
    """The options of `upscale` alone; each field is an option."""

    scale: Annotated[
        float | None,
        typer.Option(
            "-s", "--scale", help=f"Times larger, 1 to 16; 1 restores only. [{UPSCALE.scale:g}]"
        ),
    ] = None
    steps: Annotated[
        int | None,
        typer.Option(
            help="Sampling steps after the first stage. [what the model is made for; nano: 0]"
        ),
    ] = None
    fidelity: Annotated[
        float | None,
        typer.Option(
            help="0 is sharp, 1 is faithful: closest to the truth on average. Other people's "
            "upscalers are blended with nano. [0]"
        ),
    ] = None
    unfade: Annotated[
        float | None,
        typer.Option(help="Share of a noisy picture's fading to undo, below -s 2; 0: none. [0.5]"),
    ] = None
    prompt: Annotated[
        str | None,
        typer.Option(
            help="What was done to the pictures, or what you want: 'remove noise, keep grain'."
        ),
    ] = None
    colour: Annotated[
        str | None,
        typer.Option(
            help=f"Take the input's colours: none, wavelet, adain, lowpass. [{UPSCALE.colour}]"
        ),
    ] = None
    damage: Annotated[
        str | None,
        typer.Option(help="Masks of scratches, which are filled in the same pass."),
    ] = None
    find_scratches: Annotated[
        Literal["propose", "apply"] | None,
        typer.Option(
            metavar="[propose|apply]",
            help="Mark scratches: NAME_damage.png is a mask to correct and give by --damage, "
            "NAME_overlay.jpg shows it. `apply` fills them at once. [propose]",
        ),
    ] = None
    fit_mask: shared.FitMask = False
    dry_run: shared.DryRun = False

    def options(self, settings: Settings) -> UpscaleOptions:
        """The task's options. Raises UsageError or ConfigError."""
        if self.damage and self.find_scratches:
            raise UsageError("--damage gives the scratches, --find-scratches looks for them")
        return settings.options(
            UpscaleOptions,
            scale=self.scale,
            steps=self.steps,
            fidelity=self.fidelity,
            unfade=self.unfade,
            prompt=self.prompt,
            colour=self.colour,
        )


@over_files(Upscale, Enlarger)
def upscale(folder: Folder, where: Run, settings: Settings, task: Upscale) -> None:
    """Enlarge or restore pictures. Run the same command again to go on where it stopped."""
    options = task.options(settings)
    holes = Holes(task.damage or "", task.fit_mask, task.find_scratches or "")
    run_files(folder, options, where, task.dry_run, holes)


@dataclass(frozen=True)
class Inpaint:
    """The options of `inpaint` alone; each field is an option."""

    mask: Annotated[
        str | None,
        typer.Option(
            help="White repaints: a picture for all, a folder paired by path and stem, LabelMe or "
            "COCO JSON, or `alpha` for what is transparent."
        ),
    ] = None
    prompt: shared.Prompt = None
    negative: shared.Negative = None
    invert: Annotated[bool, typer.Option("--invert", help="Black repaints.")] = False
    grow: Annotated[
        int | None, typer.Option(help=f"px by which the mask grows. [{INPAINT.grow}]")
    ] = None
    feather: Annotated[
        int | None, typer.Option(help=f"px in which old and painted blend. [{INPAINT.feather}]")
    ] = None
    extend: Annotated[
        str | None,
        typer.Option(
            help="LEFT,TOP,RIGHT,BOTTOM in px: paint beyond the edges. nano goes on with the "
            "picture's own patches."
        ),
    ] = None
    aspect: Annotated[
        str | None, typer.Option(help="Paint beyond the edges up to this shape, such as 16:9.")
    ] = None
    count: Annotated[
        int,
        typer.Option(
            "-n",
            "--count",
            min=1,
            max=99,
            help="Candidates of each picture, and a sheet that shows them.",
        ),
    ] = 1
    steps: Annotated[
        int | None, typer.Option(help="Sampling steps. [what the model is made for]")
    ] = None
    strength: Annotated[
        float | None,
        typer.Option(help=f"Below 1, what is in the hole is used too. [{INPAINT.strength}]"),
    ] = None
    sampler: shared.Sampler = None
    guidance: shared.Guidance = None
    engine: Annotated[
        str | None,
        typer.Option(
            help="auto, model, patchmatch, telea, navier_stokes; onnx: the model by ONNX Runtime. "
            f"[{INPAINT.engine}]"
        ),
    ] = None
    fit_mask: shared.FitMask = False
    dry_run: shared.DryRun = False

    def options(self, settings: Settings) -> InpaintOptions:
        """The task's options. Raises UsageError or ConfigError."""
        options = settings.options(
            InpaintOptions,
            prompt=self.prompt,
            negative=self.negative,
            invert=self.invert or None,
            grow=self.grow,
            feather=self.feather,
            extend=self.extend and _numbers(self.extend),
            aspect=self.aspect,
            steps=self.steps,
            strength=self.strength,
            sampler=self.sampler,
            guidance=self.guidance,
            engine=None if self.is_model_engine else self.engine,
        )
        if not self.mask and not (options.aspect or any(options.extend)):
            raise UsageError("inpaint needs --mask; or --extend or --aspect, to paint on")
        return options

    @property
    def is_model_engine(self) -> bool:
        """Whether --engine names what computes the model's networks, as in other commands."""
        return self.engine in ("torch", "onnx")


@over_files(Inpaint)
def inpaint(folder: Folder, where: Run, settings: Settings, task: Inpaint) -> None:
    """Fill holes, or paint beyond the edges; nothing else changes."""
    options = task.options(settings)
    if task.is_model_engine:
        engine: Any = task.engine
        where = replace(where, model=replace(where.model, engine=engine))
    run_files(
        folder, options, where, task.dry_run, Holes(task.mask or "", task.fit_mask), task.count
    )


def _numbers(sides: str) -> tuple[int, int, int, int]:
    try:
        left, top, right, bottom = map(int, sides.split(","))
    except ValueError as error:
        mend = "write LEFT,TOP,RIGHT,BOTTOM in pixels, such as 0,0,200,0"
        raise UsageError(f"--extend {sides}: {mend}") from error
    return left, top, right, bottom


@dataclass(frozen=True)
class Img2img:
    """The options of `img2img` alone; each field is an option."""

    prompt: shared.Prompt = None
    strength: Annotated[
        float | None,
        typer.Option(help=f"Near 0 keeps the picture, 1 forgets it. [{IMG2IMG.strength}]"),
    ] = None
    loopback: Annotated[
        int | None,
        typer.Option(help="How often the result is fed back; all are kept: NAME_001.png ..."),
    ] = None
    steps: Annotated[
        int | None, typer.Option(help="Sampling steps at strength 1. [what the model is made for]")
    ] = None
    sampler: shared.Sampler = None
    guidance: shared.Guidance = None
    negative: shared.Negative = None
    colour: Annotated[
        str | None,
        typer.Option(help=f"Take the input's colours: none, wavelet, adain. [{IMG2IMG.colour}]"),
    ] = None

    dry_run: shared.DryRun = False

    def options(self, settings: Settings) -> Img2imgOptions:
        """The task's options. Raises ConfigError."""
        given = {name: value for name, value in vars(self).items() if name != "dry_run"}
        return settings.options(Img2imgOptions, **given)


@over_files(Img2img)
def img2img(folder: Folder, where: Run, settings: Settings, task: Img2img) -> None:
    """Change pictures by words, at their own size."""
    options = task.options(settings)
    run_files(folder, options, where, task.dry_run)


@takes("model", Model)
@takes("settings", Settings)
@takes("console", Console)
def text2img(
    out: shared.Out,
    model: Model,
    settings: Settings,
    console: Console,
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
    where = Run(out, settings.seed, settings.exists, model, console)
    run_prompt(options, where, count, grid)


def _sides(size: str) -> tuple[int, int]:
    """(width, height)"""
    sides = re.fullmatch(r"(\d{1,5})x(\d{1,5})", size, re.ASCII)
    width, height = map(int, sides.groups()) if sides else (0, 0)
    if not (1 <= width <= 32768 and 1 <= height <= 32768):
        raise UsageError(f"--size {size}: write WIDTHxHEIGHT, such as 512x384, each 1 to 32768")
    return width, height
