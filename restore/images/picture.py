"""Pictures: files become upright integer arrays, with alpha, depth and what else is told."""

import stat
import warnings as python_warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image

from restore.errors import ImageError
from restore.images import carried, colours, metadata, sniff
from restore.images import decode as decoding
from restore.images.decode import threefold
from restore.images.tiff_samples import upright

MAX_BYTES = 2**30


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture as its file holds it, upright."""

    pixels: np.ndarray  # (H, W, 3) RGB, uint8 or uint16, full range
    alpha: np.ndarray | None = None  # (H, W), the dtype of pixels; not premultiplied
    grey: bool = False  # the file was grey, so it is written grey again; the three channels agree
    icc: bytes | None = None  # a profile that parses and suits the channels
    exif: bytes | None = None  # orientation applied, the tag set to 1
    format: str = "PNG"  # of the source, in Pillow's words
    warnings: tuple[str, ...] = ()  # what was lost or left out on the way in
    xmp: bytes | None = None  # the packet, its orientation set to 1
    iptc: bytes | None = None  # its records
    dpi: tuple[float, float] | None = None  # across and down
    texts: tuple[tuple[str, str], ...] = ()  # by name: those of a PNG, or a comment

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)"""
        return self.pixels.shape[0], self.pixels.shape[1]

    @property
    def depth(self) -> int:
        """8 or 16 bits a channel."""
        return self.pixels.dtype.itemsize * 8


@dataclass(frozen=True)
class Reading:
    """How files are read."""

    frames: Literal["first", "all", "refuse"] = "first"  # refuse: those with more than one
    icc: Literal["keep", "srgb"] = "keep"  # srgb: colours converted, the profile dropped
    strip: metadata.Strip = "nothing"  # gps: where it was taken; all: EXIF, XMP, IPTC and texts
    allow_truncated: bool = False
    max_pixels: int = decoding.MAX_PIXELS  # of what is read by rows or into a file; 0: all is whole


@dataclass(frozen=True)
class Head:
    """What the header of a picture file says."""

    size: tuple[int, int]  # (height, width), upright
    frames: int
    has_alpha: bool
    by_rows: bool = False  # read so, as restore.images.tiff_rows does
    is_spooled: bool = False  # read into a file, as restore.images.spooled does


def read(path: Path, how: Reading = Reading()) -> Picture:
    """Read a picture file; of several frames, the first. Raises ImageError."""
    return read_frames(path, how)[0][0]


def decode(data: bytes, suffix: str) -> Picture:
    """The picture in the bytes of a file whose name ends so; as `read`. Raises ImageError."""
    return decode_frames(data, suffix)[0][0]


def read_frames(path: Path, how: Reading = Reading()) -> tuple[list[Picture], int]:
    """(the frames asked for, how many there are). Raises ImageError."""
    with _named(path):
        return decode_frames(file_bytes(path), path.suffix, how)


def decode_frames(data: bytes, suffix: str, how: Reading = Reading()) -> tuple[list[Picture], int]:
    """As read_frames, of the bytes of a file whose name ends so."""
    notes: list[str] = []
    with noting(notes):
        image = decoding.opened(data, suffix)
        sniff.inspect(data, notes)
        count = decoding.count_frames(image, data, suffix)
    if misnamed := sniff.misnamed(suffix, image.format or ""):
        notes.append(misnamed)
    if count > 1 and how.frames == "refuse":
        raise ImageError("FRAMES", f"{count} frames; --frames first takes one, all keeps all")
    if count > 1 and how.frames == "first":
        notes.append(decoding.FIRST_ALONE.format(count))
    wanted = count if how.frames == "all" else 1
    pictures, total = [], 0
    for frame in range(wanted):
        if frame:
            decoding.seek(image, data, suffix, frame)
        total += image.width * image.height
        if total > decoding.MAX_PIXELS:
            mend = "--frames first takes one"
            raise ImageError("TOO_LARGE", f"{count} frames have too many pixels; {mend}")
        pictures.append(_frame(image, data, suffix, frame, how, notes))
    return pictures, count


def _frame(
    image: Image.Image, data: bytes, suffix: str, frame: int, how: Reading, told: list[str]
) -> Picture:
    """The frame in hand. `told` is of the whole file."""
    notes = list(told)
    with noting(notes):
        image = decoding.load(image, data, suffix, how.allow_truncated, notes)
        orientation, facts = metadata.facts(image, how.strip, notes)
        profile = image.info.get("icc_profile")
        with decoding.judged(data, suffix):
            pixels, alpha, grey, icc = decoding.pixels(image, data, frame, profile, notes)
        pixels = upright(pixels, orientation)
        alpha = None if alpha is None else upright(alpha, orientation)
        icc = metadata.profile(icc, grey, notes)
        icc = colours.profile(data, image.info, icc, grey, notes)
        notes += [note for note in carried.lost(image, data) if note not in notes]
    told, form = tuple(notes), image.format or ""
    made = Picture(pixels, alpha, grey, icc, format=form, warnings=told, **vars(facts))
    return in_srgb(made) if how.icc == "srgb" else made


def in_srgb(picture: Picture) -> Picture:
    """The picture's colours through its profile to sRGB, and no profile."""
    if picture.icc is None:
        return picture
    if metadata.is_srgb(picture.icc, picture.grey):
        return replace(picture, icc=None)
    notes = list(picture.warnings)
    pixels = picture.pixels
    if picture.depth == 16:  # LittleCMS by Pillow knows no 16-bit colour
        notes.append("depth reduced to 8 bits: the colour profile was converted")
        pixels = eight(pixels)
    alpha = picture.alpha
    alpha = eight(alpha) if alpha is not None and picture.depth == 16 else alpha
    image = Image.fromarray(pixels[..., 0] if picture.grey else pixels)
    pixels = np.asarray(metadata.to_srgb(image, picture.icc, notes))
    if picture.grey:
        pixels = threefold(pixels[..., 1])
    return replace(picture, pixels=pixels, alpha=alpha, icc=None, warnings=tuple(notes))


def eight(array: np.ndarray) -> np.ndarray:
    """uint16 to uint8, rounded."""
    return ((array.astype(np.uint32) + 128) // 257).astype(np.uint8)


def look(path: Path) -> Head:
    """What the header says; no pixel is decoded. Raises ImageError."""
    with _named(path):
        return look_at(file_bytes(path), path.suffix)


def look_at(data: bytes, suffix: str) -> Head:
    """As `look`, of the bytes of a file whose name ends so."""
    with noting([]):
        image = decoding.opened(data, suffix)
        orientation, _ = metadata.exif(image, "all", [])
        orientation = 1 if decoding.own_turn(image) > 1 else orientation  # its size is turned
        size = (image.height, image.width)
        frames = decoding.count_frames(image, data, suffix)
        return Head(size[::-1] if orientation > 4 else size, frames, decoding.has_alpha(image))


def plain(picture: Picture) -> np.ndarray:
    """uint8 (H, W, 3) in sRGB: 16 bits are rounded, transparency lies on white."""
    picture = in_srgb(picture)
    pixels, alpha = (
        eight(array) if array is not None and array.dtype == np.uint16 else array
        for array in (picture.pixels, picture.alpha)
    )
    assert pixels is not None
    if alpha is None:
        return pixels
    share = alpha[..., None].astype(np.float32) / 255
    return np.rint(pixels * share + 255 * (1 - share)).astype(np.uint8)


def peek(path: Path) -> tuple[int, int]:
    """The upright (height, width) of a picture file, from its header. Raises ImageError."""
    return look(path).size


def peek_at(data: bytes, suffix: str) -> tuple[int, int]:
    """As `peek`, of the bytes of a file whose name ends so."""
    return look_at(data, suffix).size


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except ImageError as error:
        raise ImageError(error.code, f"{path}: {error}") from error.__cause__


@contextmanager
def noting(notes: list[str]) -> Iterator[None]:
    """Turn Pillow's warnings into notes of the picture they speak of."""
    with python_warnings.catch_warnings(record=True) as caught:
        python_warnings.simplefilter("always")
        yield
    texts = (str(w.message) for w in caught if w.category is not Image.DecompressionBombWarning)
    notes.extend(text.strip()[:200] for text in texts)


def file_bytes(path: Path) -> bytes:
    """What a file holds. Raises ImageError."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("UNREADABLE", "is not a regular file")
        if status.st_size > MAX_BYTES:
            raise ImageError("TOO_LARGE", f"{status.st_size >> 20} MiB; the limit is 1024")
        with path.open("rb") as file:
            return file.read(status.st_size)  # room is taken for as much as is asked for
    except OSError as error:
        why = error.strerror or str(error)
        raise ImageError("UNREADABLE", f"{why}; check the file and its permissions") from error


def bleed(picture: Picture) -> Picture:
    """Give each fully transparent pixel the nearest colour that shows: enlarged without a halo."""
    if picture.alpha is None:
        return picture
    shown = picture.alpha > 0
    if shown.all() or not shown.any():
        return picture
    _, labels = cv2.distanceTransformWithLabels(
        (~shown).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    nearest = np.asarray(labels, np.int32)
    pixels = picture.pixels.copy()
    owner = np.zeros(nearest.max() + 1, np.intp)  # label -> the pixel that carries it
    owner[nearest[shown]] = np.flatnonzero(shown)
    pixels[~shown] = picture.pixels.reshape(-1, 3)[owner[nearest[~shown]]]
    return replace(picture, pixels=pixels)
