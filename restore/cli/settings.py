"""The options of every command that makes pictures: seed, YAML, and what is there already."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import typer

from restore.batch.words import LARGEST_SEED
from restore.config import load_options
from restore.options import WalkOptions

SECTIONS = ("upscale", "text2img", "img2img", "inpaint")  # what a configuration file may hold
Chosen = TypeVar("Chosen", bound=WalkOptions)


def fits(seed: int) -> int:
    """Check that a seed fits. A callback does it, since `max` would put all digits in the help."""
    if seed > LARGEST_SEED:
        raise typer.BadParameter(f"{seed} does not fit 63 bits")
    return seed


Seed = Annotated[
    int, typer.Option(min=0, callback=fits, help="Another seed makes another picture.")
]


@dataclass(frozen=True)
class Settings:
    """The options of every command that makes pictures, for any task; each field is an option."""

    seed: Seed = 0
    config: Annotated[
        Path | None, typer.Option(help="YAML with a section of the command's name.")
    ] = None
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="COMMAND.KEY=VALUE, for any option.")
    ] = None
    windows: Annotated[
        int | None,
        typer.Option(help="Windows that run at once: more is faster, and needs more memory."),
    ] = None
    exists: Annotated[
        Literal["skip", "overwrite", "rename", "error"],
        typer.Option(
            help="What becomes of results that are there: skip, overwrite, rename or error. skip "
            "keeps those that are finished, and files that are not ours."
        ),
    ] = "skip"

    def options(self, kind: type[Chosen], **given: object) -> Chosen:
        """The task's options: the YAML's, then --set's, then those given by name; the last wins.

        Raises:
            ConfigError: There are mistakes; it has a line for each.
        """
        task = kind.model_fields["task"].default
        values = {**given, "windows": self.windows}
        return load_options(kind, task, self.config, self.sets or [], SECTIONS, **values)
