"""The options of commands that use recipes, and recipes' errors as a user's."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from restore.errors import UsageError


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise typer.BadParameter(f"{value} is no finite number")
    return value


RecipeOption = Annotated[
    str,
    typer.Option("-r", "--recipe", help="A name, see `restore degrade list`, or a YAML file."),
]
Scale = Annotated[
    float,
    typer.Option(
        "-s", "--scale", min=1, callback=_finite, help="How many times smaller the result is."
    ),
]
Crop = Annotated[int, typer.Option(min=1, help="Pixels a side that are cut from a photo.")]
Severity = Annotated[
    float,
    typer.Option(min=0, max=1, callback=_finite, help="1: the recipe; 0: only made smaller."),
]
Workers = Annotated[int, typer.Option(min=0, help="Processes; 0 works in this one.")]
AllowCode = Annotated[
    bool,
    typer.Option(
        "--allow-code",
        help="Run the code of ops of your own that the recipe names; kept until a file changes.",
    ),
]


@contextmanager
def refusals(allow_code: bool = False) -> Iterator[None]:
    """Turn the errors of recipes and traces into UsageErrors."""
    from degradations import RecipeError, consent

    try:
        with consent.given(allow_code):
            yield
    except RecipeError as error:
        raise UsageError(str(error)) from error
