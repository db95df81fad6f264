"""Standard streams may be lost, full or closed: that changes no work and no exit code."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from restore.errors import printable


class Patient:
    """A text stream that drops what it cannot write, since its reader may be gone."""

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        # RuntimeError: a signal handler prints in the middle of another print
        with suppress(RuntimeError):
            try:
                self._write(text)
            except (OSError, ValueError):
                self._give_up()
        return len(text)

    def flush(self) -> None:
        with suppress(RuntimeError):
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._give_up()

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
        except UnicodeEncodeError:  # a name that the encoding lacks costs no other line
            coding = self._stream.encoding
            self._stream.write(text.encode(coding, "backslashreplace").decode(coding))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _give_up(self) -> None:
        """Send what follows, and what is still in the buffer, to the null device."""
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextmanager
def steady() -> Iterator[None]:
    """Make stdout and stderr drop what they cannot write, while the block runs."""
    _fill_gaps()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(Patient, before)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdout, sys.stderr = before


def _fill_gaps() -> None:
    """Open closed standard streams; else the next file would get their numbers and their text."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it takes the lowest number that is free
    for number, (name, mode) in enumerate([("stdin", "r"), ("stdout", "w"), ("stderr", "w")]):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, encoding="utf-8", closefd=False))


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return "\n".join(map(printable, super().format(record).split("\n")))


def plain_handler() -> logging.Handler:
    """A handler that logs to stderr, with the control characters in file names escaped."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Plain("%(message)s"))
    return handler
