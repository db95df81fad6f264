"""`restore report`: merge the reports of several runs."""

from pathlib import Path
from typing import Annotated

import typer

from restore.batch import report

app = typer.Typer(no_args_is_help=True, help="Put reports together.")


@app.callback()
def _commands() -> None:  # with it typer keeps `merge` a subcommand, though there is only one
    pass


@app.command(epilog="Example: restore report merge out -o out")
def merge(
    given: Annotated[
        list[Path], typer.Argument(metavar="REPORT", help="Files report.jsonl, or their folders.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the one report.")],
) -> None:
    """Make one report of several: a run's shards, or several runs."""
    summary = report.merge(given, out)
    said = ", ".join(f"{summary[name]} {name}" for name in report.GOOD[::-1] if summary[name])
    print(f"{said}; report in {out / 'report.jsonl'}")
    raise typer.Exit(1 if summary["failed"] else 0)
