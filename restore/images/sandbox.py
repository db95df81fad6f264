"""Picture files read and written in worker processes, so that no codec can crash the run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing import current_process
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from restore.errors import ImageError
from restore.images import encode as encoding
from restore.images import memmap, spooled, tiff_rows
from restore.images import picture as images
from restore.images.decode import MAX_PIXELS
from restore.images.encode import Writing
from restore.images.picture import Header, Picture, Reading, Source
from restore.images.tiff_rows import LARGE
from restore.images.worker_pool import shared_workers

Made = TypeVar("Made")
PATIENCE_S = 30  # for a file of any size
BYTES_S = 10**7  # read a second, from a slow disk
SPOOLED_S = 5 * 10**6  # pixels read a second into a file
PIXELS_S = 5 * 10**4  # written a second, by a slow codec on a busy machine


def read(source: Source, how: Reading = Reading()) -> Picture:
    """Read a picture in a worker process; see picture.read.

    Raises:
        ImageError: As picture.read, and if the decoder dies, hangs or takes too much memory.
    """
    return read_frames(source, how)[0][0]


def read_frames(source: Source, how: Reading = Reading()) -> tuple[list[Picture], int]:
    """Read frames in a worker process; see picture.read_frames, and `read` for errors."""
    with _absolute(source) as there:
        return _call(_patience_s(source), images.read_frames, there, how)


def read_by_rows(path: Path, how: Reading = Reading()) -> tuple[list[Picture], int]:
    """Read frames as `read_frames` does, but do not hold large pictures in memory.

    The pixels of a large TIFF stay in its file and are read on access. A JPEG or PNG above
    MAX_PIXELS is decoded into a file of the folder that memmap uses.
    """
    with _absolute(path) as there:
        found = _call(PATIENCE_S, tiff_rows.read, there, how) if _may_be_giant(path) else None
    if found:
        return [found[0]], found[1]
    giant = _spooled(path, how)
    return ([giant], 1) if giant else read_frames(path, how)


def _spooled(path: Path, how: Reading) -> Picture | None:
    """Read a picture that is too large for memory into a file; None if it is not so large."""
    if how.max_pixels <= MAX_PIXELS:
        return None
    with _absolute(path) as there, memmap.temporary_file() as file:
        if file is None:
            return None
        limit_s = _patience_s(path) + how.max_pixels / SPOOLED_S
        found = _call(limit_s, spooled.read, there, how, file)
        if found is None:
            return None
        picture, shape = found
        return replace(picture, pixels=memmap.map_file(file, shape, np.dtype(np.uint8)))


def probe(source: Source, how: Reading = Reading()) -> Header:
    """Read the header in a worker process; see picture.probe, and `read` for errors."""
    with _absolute(source) as there:
        found = None
        if not isinstance(source, Path):
            pass  # what is in memory is read whole
        elif _may_be_giant(source):
            found = _call(PATIENCE_S, tiff_rows.probe, there, how)
        elif how.max_pixels > MAX_PIXELS:
            found = _call(_patience_s(source), spooled.probe, there, how)
        return found or _call(_patience_s(source), images.probe, there)


def encode(
    picture: Picture,
    path: Path,
    format: str = "png",
    how: Writing = Writing(),
    about: str = "",
) -> list[str]:
    """Write a picture in a worker process; see restore.images.encode.encode.

    Raises:
        ImageError: As encode, and if the encoder dies or hangs.
    """
    if picture.pixels.size > 3 * LARGE:  # a second copy of them would cost too much
        return encoding.encode(picture, path, format, how, about)
    limit_s = PATIENCE_S + picture.pixels.size / 3 / PIXELS_S
    return _call(limit_s, encoding.encode, picture, path.absolute(), format, how, about)


def _call(limit_s: float, function: Callable[..., Made], *args: Any) -> Made:
    if current_process().daemon:  # such as another's DataLoader's: it may have no children
        return function(*args)
    return shared_workers().call(limit_s, function, *args)


def _may_be_giant(path: Path) -> bool:
    return path.suffix.casefold() in tiff_rows.SUFFIXES


def _patience_s(source: Source) -> float:
    if not isinstance(source, Path):
        return PATIENCE_S + len(source.data) / BYTES_S
    with suppress(OSError):  # reading it will say so
        return PATIENCE_S + source.stat().st_size / BYTES_S
    return PATIENCE_S


@contextmanager
def _absolute(source: Source) -> Iterator[Source]:
    """Make a path absolute for the worker; errors still name it as the caller does."""
    if not isinstance(source, Path):
        yield source
        return
    there = source.absolute()
    try:
        yield there
    except ImageError as error:
        reason = str(error).removeprefix(f"{there}: ")
        raise ImageError(error.code, f"{source}: {reason}") from error.__cause__
