"""The command line: nothing but parsing. torch loads only after all that can be refused was."""

import logging
import os
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

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
    tasks,
    verify,
)
from restore.cli.aliases import plain
from restore.cli.here import Commands
from restore.cli.panels import Panels
from restore.cli.recipe_options import AllowCode
from restore.cli.shared import stop
from restore.cli.signals import leave_with
from restore.cli.streams import plain_handler, steady
from restore.config import shipped
from restore.errors import ModelError, RestoreError, UsageError, near

EXITS = (
    "Exit codes: 0 all well; 1 some files failed; 2 the command is wrong, nothing was begun; 3 the "
    "model or the output folder cannot be used; 130 stopped by Ctrl-C, 143 by SIGTERM, "
    "129 by SIGHUP."
)

app = typer.Typer(
    cls=Commands,
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


_task = partial(app.command, cls=Panels)
_task(epilog="Example: restore upscale scans -o out -s 2")(tasks.upscale)
_task(epilog="Example: restore inpaint photo.jpg --mask mask.png -o out")(tasks.inpaint)
_task(epilog="Example: restore img2img photo.jpg -o out --strength 0.4 --model FOLDER")(
    tasks.img2img
)
_task(epilog="Example: restore text2img -o out -n 4 --size 512x384 --model FOLDER")(tasks.text2img)


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
    allow_code: AllowCode = False,
) -> None:
    """Train a model as a YAML file says.

    Run the same command again to go on from the last checkpoint.
    """
    if not config.exists():
        names = {Path(key).name: file for key, file in shipped().items() if "train/" in key}
        name = config.as_posix().removeprefix("train/")
        if name not in names:
            problem = f"no such file or configuration{near(config.stem, names)}"
            raise UsageError(f"{config}: {problem}")
        config = names[name]
    from degradations import consent
    from restore.training.loop import run  # torch, seconds

    logging.basicConfig(level=logging.INFO, handlers=[plain_handler()])
    with consent.given(allow_code):
        run(config, overrides or [])


_task(epilog="Example: restore evaluate out --reference originals -o scores")(evaluate.evaluate)
app.command(epilog="Example: restore export nano -o nano_onnx")(export.export)
app.command()(doctor.doctor)
app.command(epilog="Example: restore verify out")(verify.verify)
app.command(epilog="Example: restore serve --root PHOTOS")(serve.serve)
