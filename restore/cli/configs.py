"""`restore configs`: the YAML files that come with the package."""

from pathlib import Path
from typing import Annotated

import typer

from restore import files
from restore.config import shipped
from restore.errors import UsageError, printable

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List and copy the configurations that come with the package.",
)


@app.command("list")
def list_all() -> None:
    """Their names, as `restore train` and `restore configs copy` take them."""
    for name in shipped():
        print(name)


@app.command()
def copy(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `restore configs list` says.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="A new file, to be edited.")],
) -> None:
    """Write one of them to a file of your own."""
    there = shipped()
    if name not in there:
        raise UsageError(f"{name}: there is no such configuration; see `restore configs list`")
    if out.exists():
        raise UsageError(f"{out}: is there already; give another name")
    if not out.parent.is_dir():
        raise UsageError(f"{out}: there is no folder {out.parent}; make it first")
    files.write_text(out, at_home(there[name]))
    print(printable(str(out)))


def at_home(path: Path) -> str:
    """The text of a configuration, with an absolute path to its schema, which editors read."""
    text = path.read_text(encoding="utf-8")
    before, named, schema = text.partition("\n")[0].partition("$schema=")
    if not named:
        return text
    return text.replace(
        before + named + schema, before + named + (path.parent / schema).resolve().as_posix(), 1
    )
