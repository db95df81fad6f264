"""The documents: `python tools/docs.py` lists what can be made."""

import sys
from pathlib import Path
from typing import Annotated

import typer

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help=__doc__,
)


@app.command()
def reference() -> None:
    """Write what is read off the code: pages of docs/reference, and configs/schemas."""
    from documents import reference, schemas

    reference.write(ROOT / "docs" / "reference")
    schemas.write(ROOT / "configs" / "schemas")


@app.command()
def gallery(
    out: Annotated[Path, typer.Option("-o", "--out")] = ROOT / "docs" / "images",
) -> None:
    """Make the pictures of docs/gallery.md and docs/concepts.md with nano, a minute of CPU time."""
    from documents import gallery

    gallery.write(out)


@app.command()
def site(out: Annotated[Path, typer.Option("-o", "--out", help="A new folder.")]) -> None:
    """Build the pages strictly, with zensical: a broken link ends it."""
    from documents import site

    raise typer.Exit(site.build(out))


if __name__ == "__main__":
    app()
