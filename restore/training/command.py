"""Commands that `python -m` starts; they print errors in one line, as `restore` does."""

import sys
from collections.abc import Callable

import typer

from restore.errors import RestoreError, printable


def run(main: Callable[..., None]) -> None:
    """Parse the command line for `main`, call it and exit."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(main)
    try:
        app()
    except RestoreError as error:
        for line in str(error).splitlines():
            print(f"restore: {printable(line)}", file=sys.stderr)
        sys.exit(error.exit_code)
