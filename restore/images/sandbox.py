"""Files read and written in worker processes, so that no decoder can end or stop the run."""

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
from restore.images.picture import Head, Picture, Reading
from restore.images.tiff_rows import LARGE
from restore.images.worker_pool import shared

Made = TypeVar("Made")
PATIENCE_S = 30  # for a file of any size
BYTES_S = 10**7  # read a second, from a slow disk
SPOOLED_S = 5 * 10**6  # pixels read a second into a file
PIXELS_S = 5 * 10**4  # written a second, by a slow codec on a busy machine


def read(path: Path, how: Reading = Reading()) -> Picture:
    """As images.read; ImageError too if the decoder dies, hangs or takes too much memory."""
    return read_frames(path, how)[0][0]


def read_frames(path: Path, how: Reading = Reading()) -> tuple[list[Picture], int]:
    """As images.read_frames, and as read."""
    with _named(path) as there:
        return _call(_patience_s(path), images.read_frames, there, how)


def read_by_rows(path: Path, how: Reading = Reading()) -> tuple[list[Picture], int]:
    """As read_frames; of a large TIFF the pixels stay in the file until they are asked for.

    A JPEG or PNG above MAX_PIXELS is decoded into a file of the folder that memmap lends.
    """
    with _named(path) as there:
        found = _call(PATIENCE_S, tiff_rows.read, there, how) if _may_be_giant(path) else None
    if found:
        return [found[0]], found[1]
    giant = _spooled(path, how)
    return ([giant], 1) if giant else read_frames(path, how)


def _spooled(path: Path, how: Reading) -> Picture | None:
    """A picture too large to be held, its pixels in a file; None: it is not so large."""
    if how.max_pixels <= MAX_PIXELS:
        return None
    with _named(path) as there, memmap.room() as room:
        if room is None:
            return None
        limit_s = _patience_s(path) + how.max_pixels / SPOOLED_S
        found = _call(limit_s, spooled.read, there, how, room)
        if found is None:
            return None
        picture, shape = found
        return replace(picture, pixels=memmap.filled(room, shape, np.dtype(np.uint8)))


def decode(data: bytes, suffix: str) -> Picture:
    """As images.decode, and as read."""
    return _call(PATIENCE_S + len(data) / BYTES_S, images.decode, data, suffix)


def look_at(data: bytes, suffix: str) -> Head:
    """As images.look_at, and as read."""
    return _call(PATIENCE_S + len(data) / BYTES_S, images.look_at, data, suffix)


def look(path: Path, how: Reading = Reading()) -> Head:
    """As images.look, and as read."""
    with _named(path) as there:
        found = None
        if _may_be_giant(path):
            found = _call(PATIENCE_S, tiff_rows.look, there, how)
        elif how.max_pixels > MAX_PIXELS:
            found = _call(_patience_s(path), spooled.look, there, how)
        return found or _call(_patience_s(path), images.look, there)


def encode(
    picture: Picture,
    path: Path,
    format: str = "png",
    how: Writing = Writing(),
    about: str = "",
) -> list[str]:
    """As encoding.encode; ImageError too if the encoder dies or hangs."""
    if picture.pixels.size > 3 * LARGE:  # a second copy of them would cost too much
        return encoding.encode(picture, path, format, how, about)
    limit_s = PATIENCE_S + picture.pixels.size / 3 / PIXELS_S
    return _call(limit_s, encoding.encode, picture, path.absolute(), format, how, about)


def _call(limit_s: float, function: Callable[..., Made], *args: Any) -> Made:
    if current_process().daemon:  # such as another's DataLoader's: it may have no children
        return function(*args)
    return shared().call(limit_s, function, *args)


def _may_be_giant(path: Path) -> bool:
    return path.suffix.casefold() in tiff_rows.SUFFIXES


def _patience_s(path: Path) -> float:
    with suppress(OSError):  # reading it will say so
        return PATIENCE_S + path.stat().st_size / BYTES_S
    return PATIENCE_S


@contextmanager
def _named(path: Path) -> Iterator[Path]:
    """The path as a worker knows it; errors speak of it as the caller does."""
    there = path.absolute()
    try:
        yield there
    except ImageError as error:
        told = str(error).removeprefix(f"{there}: ")
        raise ImageError(error.code, f"{path}: {told}") from error.__cause__
