"""What a user may meet. A message says what, where and the mend; a command returns `exit_code`."""


class RestoreError(Exception):
    """Anything this package refuses or fails at on purpose."""

    exit_code = 1
    code = "FAILED"  # for machines: the `code` of a report row


class UsageError(RestoreError):
    """The command asks for something that cannot be; raised before any work."""

    exit_code = 2
    code = "USAGE"


class ConfigError(UsageError):
    """A configuration file or an option is wrong; one line for each mistake."""

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
    """Not enough memory, even with one window at a time and on the CPU."""

    code = "OOM"


class CancelledError(RestoreError):
    """The caller's own callback ended the work."""

    code = "CANCELLED"


class ImageError(RestoreError):
    """One picture cannot be read or written; the others can go on.

    `code` is one of NOT_IMAGE, TRUNCATED, CORRUPT, UNREADABLE, TOO_LARGE, METADATA, UNSUPPORTED,
    FRAMES, CHANGED, EXISTS, LINK, NO_MASK, MASK_SIZE and MASK; CRASHED, TIMEOUT and OOM if the
    process that read or wrote it died, took too long or too much memory.
    """

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code

    def __reduce__(self):  # the default forgets `code`, and errors cross process borders
        return type(self), (self.code, str(self))


def counted(number: int, noun: str) -> str:
    """1 picture, 2 pictures"""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def printable(text: str) -> str:
    """A file name or message that cannot move the cursor, colour the terminal or fake a line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def sides(size: tuple[int, int]) -> str:
    """(height, width) as people write it."""
    return f"{size[1]}x{size[0]}"
