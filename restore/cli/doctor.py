"""`restore doctor`: what works here, what does not, and the mend."""

from pathlib import Path
from typing import Annotated

import typer

from restore.errors import ModelError, printable


def doctor(
    out: Annotated[
        Path, typer.Option("-o", "--out", help="Where results would go: its disk is looked at.")
    ] = Path(),
) -> None:
    """Look at Python, packages, devices, codecs, models and room; exit 3 if something is broken."""
    from restore.batch.environment import examine

    is_broken = False
    for one in examine(out):
        print(f"{one.state:7} {printable(one.message)}")
        if one.mend:
            print(f"{'':7} mend: {printable(one.mend)}")
        is_broken |= one.state == "broken"
    raise typer.Exit(ModelError.exit_code if is_broken else 0)
