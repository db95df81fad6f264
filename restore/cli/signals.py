"""Ctrl-C, SIGTERM, SIGHUP: the current file is finished if that is quick, else dropped cleanly."""

import _thread
import atexit
import os
import signal
import sys
import threading
from contextlib import suppress
from types import FrameType

from restore.batch.prefetch import THREAD_NAME

GRACE_S = 5  # for the current file
LAST_S = 2  # that a thread of `ahead` gets to end, when the process ends
_codes: list[int] = []  # exit codes of this process; the last one counts


def leave_with(code: int) -> None:
    """Set the exit code, so that a thread that is still at work cannot change it.

    A thread that is inside torch when the interpreter exits would abort the process.
    """
    if not _codes:
        atexit.register(_leave)
    _codes.append(code)


def _leave() -> None:
    busy = [thread for thread in threading.enumerate() if thread.name.startswith(THREAD_NAME)]
    for thread in busy:
        thread.join(LAST_S)
    if any(thread.is_alive() for thread in busy):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(_codes[-1])


class Stop:
    """Handles the signals while it is entered.

    The first one asks the run to end. A second one, or the end of GRACE_S, raises
    KeyboardInterrupt in the main thread.
    """

    def __init__(self) -> None:
        self.number = 0  # of the signal that came
        self._timer: threading.Timer | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():  # no others may set handlers
            for number in _heeded():
                self._before[number] = signal.signal(number, self._came)
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer:
            self._timer.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _came(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            raise KeyboardInterrupt
        self.number = number
        self._timer = threading.Timer(GRACE_S, _interrupt, [number])
        self._timer.daemon = True
        self._timer.start()
        message = f"restore: stopping; the file in hand has {GRACE_S} s, Ctrl-C again drops it"
        print(message, file=sys.stderr, flush=True)

    @property
    def signal_name(self) -> str:
        """The signal's name; empty if none came."""
        return signal.Signals(self.number).name if self.number else ""

    @property
    def exit_code(self) -> int:
        """The exit code, as in a shell: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP."""
        return 128 + (self.number or signal.SIGINT)


def _heeded() -> list[signal.Signals]:
    """The signals that ask a run to end; not SIGHUP where `nohup` has it ignored."""
    asking = [signal.SIGINT, signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        asking.append(signal.SIGHUP)  # Windows has none
    return asking


def _interrupt(number: int) -> None:
    """Send the signal again; it also reaches a main thread that waits for another thread."""
    if hasattr(signal, "pthread_kill"):
        signal.pthread_kill(threading.main_thread().ident or 0, number)
    else:  # on Windows, where a waiting thread gets it later
        _thread.interrupt_main(number)
