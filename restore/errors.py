"""Errors that a user may see. A message says what, where and how to mend it.

A command returns the error's `exit_code`.
"""

import difflib
from collections.abc import Collection, Iterable
from itertools import islice


class RestoreError(Exception):
    """Base class of all errors that this package raises on purpose.

    Attributes:
        exit_code: What a command returns.
        code: For programs: the `code` of a row in the report.
    """

    exit_code = 1
    code = "FAILED"


class UsageError(RestoreError):
    """The command or call asks for something impossible. It is raised before any work."""

    exit_code = 2
    code = "USAGE"


class ConfigError(UsageError):
    """A configuration file or an option is wrong. The message has one line for each mistake."""

    code = "CONFIG"


class OutputError(RestoreError):
    """The output folder cannot be used: read-only, or another run is writing into it."""

    exit_code = 3
    code = "OUTPUT"


class DiskFullError(OutputError):
    """The disk, a quota or a size limit leaves no room for results."""

    code = "DISK_FULL"


class ModelError(RestoreError):
    """A model folder is missing, damaged, or cannot do the task."""

    exit_code = 3
    code = "MODEL"


class NonFiniteError(RestoreError):
    """A NaN or an infinity appeared where a picture should be."""

    code = "NONFINITE"


class OutOfMemoryError(RestoreError):
    """Not enough memory, even with one window at a time on the CPU."""

    code = "OOM"


class CancelledError(RestoreError):
    """The caller's own callback ended the work."""

    code = "CANCELLED"


class ImageError(RestoreError):
    """One picture cannot be read or written. A run goes on with the others.

    Args:
        code: NOT_IMAGE, TRUNCATED, CORRUPT, UNREADABLE, TOO_LARGE, METADATA, UNSUPPORTED, FRAMES,
            CHANGED, EXISTS, LINK, NO_MASK, MASK_SIZE or MASK. CRASHED, TIMEOUT or OOM if the
            process that read or wrote it crashed, took too long or used too much memory.
        message: What happened, with the file's name, and how to mend it.
    """

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code

    def __reduce__(self):  # the default loses `code` when an error is pickled for another process
        return type(self), (self.code, str(self))


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: 1 picture, 2 pictures."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def first_few(texts: Iterable[str], most: int = 5) -> str:
    """Join the first texts, and say how many more there are; empty if there are none."""
    texts = iter(texts)
    shown = ", ".join(islice(texts, most))
    left = sum(1 for _ in texts)
    return shown + f" and {left} more" * (left > 0)


def printable(text: str) -> str:
    """Escape a file name or message so that it cannot control the terminal or fake a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def sides(size: tuple[int, int]) -> str:
    """Format (height, width) as WIDTHxHEIGHT."""
    return f"{size[1]}x{size[0]}"


def near(name: object, names: Collection[str]) -> str:
    """Return the end of an error message: the nearest known name, or else all of them."""
    return meant(name, names) or f"; there are {', '.join(sorted(names))}"


def meant(name: object, names: Collection[str]) -> str:
    """Return the end of an error message: the nearest known name; empty if none is near."""
    close = difflib.get_close_matches(str(name), names, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
