"""Large arrays lie on disk, in files without a name: gone with the process, however it ends."""

import math
import mmap
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from threading import Lock
from typing import IO, TYPE_CHECKING
from weakref import WeakSet

import numpy as np

from restore.files import TEMPORARY

if TYPE_CHECKING:  # processes that read and write files do without
    import torch
    from torch import Tensor

ENOUGH = 2**24  # bytes that stay in memory
ROWS = 64  # latents gone over at a time, of a canvas on disk; no result depends on it
_folder: ContextVar[Path | None] = ContextVar("folder", default=None)
_mapped: WeakSet[mmap.mmap] = WeakSet()
_lock = Lock()  # of the set


@contextmanager
def into(folder: Path) -> Iterator[None]:
    """Lend a folder for what is large; without one all stays in memory."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """As np.empty. Raises OSError if the disk has no room."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    folder = _folder.get()
    if folder is None or size <= ENOUGH:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile(prefix=TEMPORARY, dir=folder) as file:
        _reserve(file, size)
        mapped = mmap.mmap(file.fileno(), size)
    with _lock:
        _mapped.add(mapped)
    return np.frombuffer(mapped, dtype).reshape(shape)


@contextmanager
def room() -> Iterator[Path | None]:
    """A file for another process to fill, gone when the block ends; None without a folder."""
    folder = _folder.get()
    if folder is None:
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=TEMPORARY, dir=folder)
    os.close(handle)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def filled(file: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """What another process wrote there; the array outlives the file's name."""
    with file.open("r+b") as opened:
        mapped = mmap.mmap(opened.fileno(), 0)
    with _lock:
        _mapped.add(mapped)
    return np.frombuffer(mapped, dtype).reshape(shape)


def canvas(shape: tuple[int, ...], device: "torch.device") -> "Tensor":
    """float32, as torch.empty. What belongs on an accelerator stays there."""
    import torch

    if device.type != "cpu":
        return torch.empty(shape, device=device)
    return torch.from_numpy(empty(shape, np.dtype(np.float32)))


def takes(shape: tuple[int, ...], device: "torch.device") -> bool:
    """Whether a canvas of that shape lies on disk."""
    is_large = math.prod(shape) * 4 > ENOUGH
    return is_large and device.type == "cpu" and _folder.get() is not None


def bands(canvas: "Tensor") -> Iterator[slice]:
    """Rows to go over a canvas by: all at once where it is in memory."""
    height = canvas.shape[-2]
    step = ROWS if takes(tuple(canvas.shape), canvas.device) else height
    for first in range(0, height, step):
        yield slice(first, min(first + step, height))
        let_go()


def let_go() -> None:
    """Hold nothing on disk in memory too; it is read again when it is asked for."""
    if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows, where the system sees to it
        with _lock:
            all_of_them = list(_mapped)
        for mapped in all_of_them:
            mapped.madvise(mmap.MADV_DONTNEED)


def _reserve(file: IO[bytes], size: int) -> None:
    """Have the room now: a disk that fills up under a mapped file kills the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    for first in range(0, size, 2**24):
        file.write(bytes(min(2**24, size - first)))
    file.flush()
