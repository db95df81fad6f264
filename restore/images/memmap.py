"""Large arrays in memory-mapped files without a name, which vanish when the process ends."""

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

from restore.files import TEMPORARY, temporary_for

if TYPE_CHECKING:  # processes that read and write files do without
    import torch
    from torch import Tensor

ENOUGH = 2**24  # bytes that stay in memory
ROWS = 64  # latents gone over at a time, of a canvas on disk; no result depends on it
_folder: ContextVar[Path | None] = ContextVar("folder", default=None)
_mapped: WeakSet[mmap.mmap] = WeakSet()
_lock = Lock()  # of the set


@contextmanager
def use_folder(folder: Path) -> Iterator[None]:
    """Put large arrays into `folder` while the block runs; outside of it they stay in memory."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


def empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Create an array as np.empty does, on disk if it is large and a folder is in use.

    Raises:
        OSError: The disk has no room.
    """
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
def temporary_file() -> Iterator[Path | None]:
    """Yield an empty file for another process to fill; it is deleted when the block ends.

    Yields None where no folder is in use.
    """
    folder = _folder.get()
    if folder is None:
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = temporary_for(folder / "pixels")  # the next run removes it, should we be killed
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def map_file(file: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Map the array that another process wrote to `file`; it stays readable after deletion."""
    with file.open("r+b") as opened:
        mapped = mmap.mmap(opened.fileno(), 0)
    with _lock:
        _mapped.add(mapped)
    return np.frombuffer(mapped, dtype).reshape(shape)


def empty_tensor(shape: tuple[int, ...], device: "torch.device") -> "Tensor":
    """Create a float32 tensor as torch.empty does; on the CPU a large one lies on disk."""
    import torch

    if device.type != "cpu":
        return torch.empty(shape, device=device)
    return torch.from_numpy(empty(shape, np.dtype(np.float32)))


def is_on_disk(shape: tuple[int, ...], device: "torch.device") -> bool:
    """Whether a float32 tensor of that shape would lie on disk."""
    is_large = math.prod(shape) * 4 > ENOUGH
    return is_large and device.type == "cpu" and _folder.get() is not None


def iter_bands(canvas: "Tensor") -> Iterator[slice]:
    """Iterate over the rows of a (..., H, W) tensor: by bands if it lies on disk, else at once."""
    height = canvas.shape[-2]
    step = ROWS if is_on_disk(tuple(canvas.shape), canvas.device) else height
    for first in range(0, height, step):
        yield slice(first, min(first + step, height))
        release_pages()


def release_pages() -> None:
    """Drop the cached pages of all mapped arrays; the system reads them again when needed."""
    if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows, where the system sees to it
        with _lock:
            all_of_them = list(_mapped)
        for mapped in all_of_them:
            mapped.madvise(mmap.MADV_DONTNEED)


def _reserve(file: IO[bytes], size: int) -> None:
    """Reserve the space now: a disk that fills up under a mapped file kills the process."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
        return
    for first in range(0, size, 2**24):
        file.write(bytes(min(2**24, size - first)))
    file.flush()
