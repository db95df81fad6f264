"""The commands of `restore data`: training pictures on their way to a training run."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from restore import file_search
from restore.cli.settings import Seed
from restore.errors import ImageError, UsageError, counted, printable

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Prepare training pictures.",
)


@app.command()
def scenes(
    out: Annotated[Path, typer.Option("-o", "--out", help="An empty or new folder.")],
    count: Annotated[int, typer.Option("-n", min=1, max=1_000_000, help="How many.")] = 4000,
    seed: Seed = 0,
) -> None:
    """Draw coloured shapes: 32 px, each with its caption, class and boxes in a JSON."""
    from restore.training.toys import scenes

    vacant(out)
    scenes.write(out, seed, count)
    typer.echo(f"{counted(count, 'scene')} in {printable(str(out))}")


@app.command()
def pack(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Pictures.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="An empty or new folder of shards.")],
    size: Annotated[int, typer.Option(min=1, max=100_000, help="MB of a shard, about.")] = 256,
) -> None:
    """Pack a folder of pictures into WebDataset shards.

    `restore train` takes them as `stage.data.photos=SHARDS` and cuts the crops of the folder.
    Pictures are kept byte for byte, each beside a JSON with its path. What cannot be read is
    reported and left out, and the exit code is 1; a CSV of sources beside the photos is copied.
    """
    vacant(out)
    from restore.images import sandbox
    from restore.training import model_card
    from restore.training.data import shards, sources

    found = {file.path for file in file_search.met([folder], out, "inside") if not file.skip}
    found |= {*sources.pictures(folder)}  # all that training would read of the folder
    if not found:
        raise UsageError(f"{folder}: no picture here")
    pictures, broken = [], 0
    for path in sorted(found):  # in the order of training
        try:
            if path.suffix.lower() not in sources.SUFFIXES:
                raise ImageError("UNSUPPORTED", f"{path}: training reads no such pictures")
            sandbox.read(path)
        except ImageError as error:
            typer.echo(f"restore: left out: {printable(str(error))}", err=True)
            broken += 1
            continue
        key = path.name if path == folder else path.relative_to(folder).as_posix()
        pictures.append((key, path))
    made = shards.pack(pictures, out, size * 1_000_000)
    if notes := model_card.find_notes(str(folder)):
        shutil.copyfile(notes, out / "photos.csv")
    message = f"{counted(made.pictures, 'picture')} in {counted(len(made.shards), 'shard')}"
    typer.echo(f"{message}, {broken} left out; in {printable(str(out))}")
    raise typer.Exit(1 if broken else 0)


def vacant(folder: Path) -> None:
    """Raise UsageError if anything is there already."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: is not an empty folder; give a new one")
