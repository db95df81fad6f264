"""What a user of the degradations may meet and want to catch, and the words it comes in."""

import difflib
from collections.abc import Iterable
from typing import Any


class RecipeError(ValueError):
    """A recipe or trace that cannot be used; the message says what, where, and the mend."""


def counted(number: int, noun: str) -> str:
    """1 photo, 2 photos"""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def mend(word: Any, choices: Iterable[str]) -> str:
    """The near word, or all of them."""
    choices = list(choices)
    near = difflib.get_close_matches(str(word), choices, 1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(choices)}"
