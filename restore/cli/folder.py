"""The options of a run over files: which files, in what shares, and what ends it early."""

import inspect
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from restore import file_search
from restore.batch.destination import Destination
from restore.batch.inputs import find
from restore.batch.jobs import OnCollision, Shard
from restore.errors import UsageError
from restore.storage.listing import Listing

STDIN = Path("-")


@dataclass(frozen=True)
class Folder:
    """The options of every command over files that choose the files; each field is an option."""

    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="IN", help="Pictures, folders or URLs; - reads a list from stdin."),
    ] = None
    listed: Annotated[
        Path | None,
        typer.Option(
            "--list", help="A file with a path or URL on each line, or NUL-ended ones; - is stdin."
        ),
    ] = None
    include: Annotated[
        list[str] | None, typer.Option(help="Only these: a glob over names, or with / over paths.")
    ] = None
    exclude: Annotated[
        list[str] | None, typer.Option(help="Leave out these, or whole folders; globs too.")
    ] = None
    links: Annotated[
        file_search.Links,
        typer.Option(
            help="inside: take those to files of the same folder; skip: none; follow: all."
        ),
    ] = "inside"
    on_collision: Annotated[
        OnCollision,
        typer.Option(
            help="If two files want one result: error, or keep-ext for names like scan.jpg.png."
        ),
    ] = "error"
    max_failures: Annotated[
        int, typer.Option(min=0, help="End after so many failed files; 0 is no limit.")
    ] = 0
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="End at the first failed file.")
    ] = False
    shard: Annotated[
        str, typer.Option(metavar="I/N", help="Do the I-th of N shares; other runs do the others.")
    ] = "1/1"

    @property
    def most_failures(self) -> int:
        return 1 if self.fail_fast else self.max_failures

    @property
    def share(self) -> Shard:
        return Shard.parse(self.shard)

    def find(self, destination: Destination) -> Listing:
        """The files of this run. Raises UsageError."""
        inputs = list(self.inputs or [])
        listed = [STDIN] if str(STDIN) in inputs else []
        listed += [self.listed] if self.listed else []
        inputs = [given for given in inputs if given != str(STDIN)]
        if not inputs and not listed:
            raise UsageError("nothing to work on: name pictures or folders, or give a --list")
        choice = file_search.Choice(
            tuple(self.include or ()), tuple(self.exclude or ()), self.links
        )
        return find(
            inputs, destination, choice, (name for given in listed for name in _named(given))
        )


def _named(path: Path) -> Iterator[str]:
    """The names in a list. Raises UsageError."""
    try:
        with nullcontext(sys.stdin.buffer) if path == STDIN else path.open("rb") as file:
            if stat.S_ISCHR(os.fstat(file.fileno()).st_mode) and not file.isatty():
                raise UsageError(f"--list {path}: is a device, which may never end")
            yield from file_search.read_list(file)
    except OSError as error:
        raise UsageError(f"--list {path}: {error.strerror or error}") from error


def takes(name: str, kind: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the fields of a dataclass as options.

    Args:
        name: The parameter of the command that gets the dataclass.
        kind: The dataclass. The command's own options win over fields of the same name.
    """
    fields = dict(inspect.signature(kind).parameters)

    def changed(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command)
        for field in signature.parameters.keys() - {name}:  # the command's own option wins
            fields.pop(field, None)

        @wraps(command)
        def called(**given: Any) -> None:
            record = kind(**{field: given.pop(field) for field in fields})
            command(**given, **{name: record})

        kept = [p for field, p in signature.parameters.items() if field != name]
        parameters = [*kept, *fields.values()]
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
        called.__signature__ = signature.replace(parameters=parameters)
        called.__annotations__ = {p.name: p.annotation for p in parameters}
        return called

    return changed
