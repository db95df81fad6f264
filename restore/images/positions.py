"""What EXIF tells of places in a picture and of its pixels: turned and scaled with it."""

from collections.abc import Callable
from typing import Any

from PIL import Image
from PIL.ExifTags import IFD, TAGS

AREA, LOCATION = 0x9214, 0xA214
SUBJECTS = (AREA, LOCATION)  # x, y; x, y, diameter; or x, y, width, height
FOCAL_X, FOCAL_Y = 0xA20E, 0xA20F  # pixels per unit on the sensor
MOST = 65535  # that the tags hold
Size = tuple[int, int]
Tags = dict[int, Any]


def turn_exif(data: bytes, size: Size, turn: int, notes: list[str]) -> bytes:
    """Turn what an EXIF block tells of places in a picture.

    Args:
        data: The block.
        size: (height, width) of the upright picture.
        turn: The orientation by which it became upright, 1 to 8.
        notes: Notes on what was dropped are appended here.
    """
    if turn == 1:
        return data

    def turned(tags: Tags) -> Tags:
        moved = {tag: _turned(tags[tag], size, turn) for tag in SUBJECTS if tag in tags}
        focal = {FOCAL_X: tags.get(FOCAL_Y), FOCAL_Y: tags.get(FOCAL_X)} if turn > 4 else {}
        return moved | (focal if any(tag in tags for tag in focal) else {})

    return _changed(data, turned, notes)


def scale_exif(data: bytes, old: Size | None, size: Size, notes: list[str]) -> bytes:
    """Scale what an EXIF block tells of places in a picture and of its pixels.

    Args:
        data: The block.
        old: (height, width) that it speaks of; None if it holds no more.
        size: (height, width) of the picture.
        notes: Notes on what was dropped are appended here.
    """
    if old == size:
        return data

    def scaled(tags: Tags) -> Tags:
        wide, tall = (size[1] / old[1], size[0] / old[0]) if old else (0, 0)
        moved = {tag: _scaled(tags[tag], wide, tall) for tag in SUBJECTS if tag in tags}
        focal = {FOCAL_X: wide, FOCAL_Y: tall}
        return moved | {tag: _times(tags[tag], by) for tag, by in focal.items() if tag in tags}

    return _changed(data, scaled, notes)


def name_dropped(where: str, names: list[str]) -> list[str]:
    """A note on positions that were dropped, if there are any."""
    told = ", ".join(dict.fromkeys(names))
    return [f"{where}'s {told} dropped: true of the old picture alone"] if names else []


def _changed(data: bytes, change: Callable[[Tags], Tags], notes: list[str]) -> bytes:
    """The block with other values; those that are None are dropped, and named."""
    exif = Image.Exif()
    exif.load(data)
    inner = exif.get_ifd(IFD.Exif)
    values = change(dict(inner))
    if not values:
        return data
    lost = [tag for tag, value in values.items() if value is None and tag in inner]
    notes += name_dropped("EXIF", [TAGS[tag] for tag in lost])
    for tag, value in values.items():
        inner.pop(tag, None)
        if value is not None:
            inner[tag] = value
    return exif.tobytes()


def _numbers(value: Any) -> list[int] | None:
    is_sound = isinstance(value, tuple) and len(value) in (2, 3, 4)
    return list(value) if is_sound and all(isinstance(side, int) for side in value) else None


def _turned(value: Any, size: Size, turn: int) -> tuple[int, ...] | None:
    numbers = _numbers(value)
    if numbers is None:
        return None
    x, y, *extent = numbers
    if turn > 4:  # as restore.images.tiff_samples.apply_orientation turns the pixels
        x, y, extent = y, x, extent[::-1]
    if turn in (3, 4, 7, 8):
        y = size[0] - 1 - y
    if turn in (2, 3, 6, 7):
        x = size[1] - 1 - x
    return _held([x, y, *extent])


def _scaled(value: Any, wide: float, tall: float) -> tuple[int, ...] | None:
    numbers = _numbers(value)
    if numbers is None or not wide:
        return None
    x, y, *extent = numbers
    ratios = (wide, tall) if len(extent) == 2 else ((wide + tall) / 2,)
    centre = ((x + 0.5) * wide - 0.5, (y + 0.5) * tall - 0.5)
    sizes = (side * by for side, by in zip(extent, ratios, strict=False))
    return _held([round(side) for side in (*centre, *sizes)])


def _held(numbers: list[int]) -> tuple[int, ...] | None:
    return tuple(numbers) if all(0 <= number <= MOST for number in numbers) else None


def _times(value: Any, by: float) -> float | None:
    try:
        made = float(value) * by
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return made if 0 < made < MOST**2 else None
