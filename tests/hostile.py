"""Functions for worker processes that end them in every way, for the tests."""

import ctypes
import os
import signal
import time
from pathlib import Path

import numpy as np

from restore.images import picture


def segfault() -> None:
    ctypes.string_at(0)


def leave() -> None:
    os._exit(7)


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hang() -> None:
    while True:
        time.sleep(1)


def hoard() -> int:
    return len([np.ones(2**21) for _ in range(10**5)])  # 16 MiB each


def stumble() -> None:
    raise ZeroDivisionError("of ours")


def fill_disk(path: Path) -> None:
    raise OSError(28, "No space left on device", str(path))


def identity() -> int:
    return os.getpid()


def double(array: np.ndarray) -> np.ndarray:
    return array * 2


def read_frames(path: Path, how: picture.Reading) -> tuple[list[picture.Picture], int]:
    """images.read_frames that dies by the file's name, as a broken codec does by its bytes."""
    {"crash": segfault, "exit-": leave, "hang-": hang, "hoard": hoard}.get(path.stem[:5], int)()
    return picture.read_frames(path, how)


def peak_of(function, *args) -> tuple[object, float]:
    """(what the function returns or raises, MB by which it raised this process's memory)."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from now on
    before = _kilobytes("VmRSS")
    try:
        answer = function(*args)
    except Exception as error:
        answer = error
    return answer, (_kilobytes("VmHWM") - before) / 1000


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def encode(*_: object) -> None:
    segfault()


def peak() -> float:
    """The most memory, in MB, that this process ever held."""
    return _kilobytes("VmHWM") / 1000
