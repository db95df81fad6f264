"""How much a command says, and to whom: people read stderr, programs read rows on stdout."""

import json
import logging
import sys
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from restore.errors import UsageError, printable

UNTOLD = {"left_s"}  # not printed: it belongs to the moment, not to the picture


@dataclass(frozen=True)
class Console:
    """The options of every command that makes pictures on its output; each field is an option."""

    quiet: Annotated[
        bool, typer.Option("-q", "--quiet", help="Say nothing but errors and failed files.")
    ] = False
    verbose: Annotated[
        bool,
        typer.Option(
            "-v", "--verbose", help="Say too what was settled, and where an error came from."
        ),
    ] = False
    rows: Annotated[
        bool,
        typer.Option(
            "--json", help="Rows of the report on stdout, a JSON object a line; nothing else there."
        ),
    ] = False

    def begin(self) -> None:
        """Set up the logs. Raises UsageError if -q and -v are both given."""
        if self.quiet and self.verbose:
            raise UsageError("-q says less and -v says more; give one of them")
        if self.verbose:
            for name in ("restore", "degradations"):
                logging.getLogger(name).setLevel(logging.INFO)
            logging.basicConfig(format="restore: %(message)s", stream=sys.stderr)

    def line(self, text: str) -> None:
        """Print the outcome of a run: on stdout, or on stderr if rows go to stdout."""
        if not self.quiet:
            print(text, file=sys.stderr if self.rows else sys.stdout)

    def note(self, text: str) -> None:
        if not self.quiet:
            print(f"restore: {printable(text)}", file=sys.stderr)

    def detail(self, text: str) -> None:
        if self.verbose:
            print(f"restore: {printable(text)}", file=sys.stderr)

    def row(self, row: dict[str, Any]) -> None:
        """Print a row as the report has it; one of an earlier run also has "finished": true."""
        if self.rows:
            printed = {name: value for name, value in row.items() if name not in UNTOLD}
            print(json.dumps(printed), flush=True)
