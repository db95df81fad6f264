"""Generate the documents: `python tools/docs.py` lists the parts."""

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
    """Write the pages that come from the code: parts of docs/reference, and configs/schemas."""
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
def notebooks() -> None:
    """Make and run docs/notebooks, with nbclient and ipykernel, a minute."""
    from documents import notebooks

    notebooks.write()


@app.command()
def site(out: Annotated[Path, typer.Option("-o", "--out", help="A new folder.")]) -> None:
    """Build the site with zensical; a broken link is an error."""
    from documents import site

    raise typer.Exit(site.build(out))


if __name__ == "__main__":
    app()
