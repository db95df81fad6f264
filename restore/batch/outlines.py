"""Outlines of what is to be repainted, as LabelMe and COCO files hold them; drawn as masks."""

import base64
import binascii
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np

from restore.batch import run_lengths
from restore.errors import ImageError, UsageError, counted, sides
from restore.file_search import composed
from restore.files import read_plain
from restore.images import sandbox
from restore.images.picture import Encoded

MAX_BYTES = 2**27  # of a file
MAX_SHAPES = 20_000  # for one picture
MAX_POINTS = 1_000_000  # for one picture
MAX_LAYERS = 100  # times that the shapes may cover the picture
MAX_MASK = 2**28  # px of a run-length mask that is larger than the picture
FARTHEST = 10**6  # px that a point may lie from the corner
LINE = 300  # the longer side divided by this is the width of a line
THINNEST = 3  # px
Point = tuple[float, float]  # (x, y), px


@dataclass(frozen=True)
class Shape:
    """An outline; or a mask, as pixels or as run lengths.

    Attributes:
        points: (x, y) in px of a picture of that size.
        size: (height, width) in px; None: the file does not say.
        is_line: The outline is drawn with a width, not filled.
        filled: A mask, uint8 (h, w), 255 inside; its top left corner is at the first point.
        runs: The run lengths of a mask of the whole size, see `run_lengths.read`.
    """

    points: tuple[Point, ...]
    size: tuple[int, int] | None = None
    is_line: bool = False
    filled: np.ndarray | None = None
    runs: np.ndarray | None = None


class Outlines:
    """The shapes of a COCO file by its file names, with /."""

    def __init__(self, shapes: Mapping[str, tuple[Shape, ...]]):
        self.shapes = shapes
        self._alike: dict[str, list[str]] = {}  # name without folders -> file names
        for name in shapes:
            self._alike.setdefault(PurePosixPath(name).name, []).append(name)

    def names(self, key: str) -> list[str]:
        """The file names that match a key: the same path, else a common end, else the same name."""
        key = composed(key)
        if key in self.shapes:
            return [key]
        alike = self._alike.get(PurePosixPath(key).name, [])
        return [name for name in alike if _ends(name, key) or _ends(key, name)] or alike

    def of(self, key: str) -> tuple[Shape, ...]:
        """The shapes of a picture. Raises ImageError if no file name matches, or two do."""
        names = self.names(key)
        if len(names) == 1:
            return self.shapes[names[0]]
        problem = (
            f"{names[0]} and {names[1]} could both be meant" if names else "is not in the file"
        )
        raise ImageError("MASK", f"{key}: {problem}; name pictures and folders as the file does")


def _ends(whole: str, part: str) -> bool:
    return whole.endswith(f"/{part}")


def draw(
    shapes: Iterable[Shape], size: tuple[int, int], path: Path, fit: bool = False
) -> np.ndarray:
    """Draw shapes as a mask, uint8 (*size), 255 inside.

    Args:
        shapes: The shapes of one picture.
        size: (height, width) of the picture in px.
        path: Their file, for error messages.
        fit: Scale shapes that were drawn on a picture of another size, instead of refusing them.

    Raises:
        ImageError: The shapes are of another size, or too many or too large.
    """
    shapes = tuple(shapes)
    _refuse_many(shapes, path)
    mask = np.zeros(size, np.uint8)
    room = MAX_LAYERS * max(size[0] * size[1], 2**20)
    for shape in shapes:
        if shape.size not in (None, size) and not fit:
            problem = f"drawn on {sides(shape.size)} px, but the picture has {sides(size)} px"
            raise ImageError("MASK_SIZE", f"{path}: {problem}; --fit-mask scales it")
        ratio = np.divide(size[::-1], (shape.size or size)[::-1])
        if shape.runs is not None:
            height = (shape.size or size)[0]
            within = run_lengths.columns(shape.runs, height)
            room -= len(within) * height
            _refuse_layers(room, path)
            if len(within) * height > max(mask.size, MAX_MASK):
                problem = f"a run-length mask of {sides(shape.size or size)} px"
                raise ImageError("MASK", f"{path}: {problem}; the limit is {MAX_MASK:,} px")
            if within:
                filled = run_lengths.draw(shape.runs, height, within)
                _lay(mask, Shape(((within.start, 0),), filled=filled), ratio)
            continue
        if shape.filled is not None:
            _lay(mask, shape, ratio)
            continue
        points = np.rint(np.array(shape.points) * ratio).astype(np.int32)
        room -= _covered(points, size)
        _refuse_layers(room, path)
        if shape.is_line:
            _stroke(mask, points)
        else:
            cv2.fillPoly(mask, [points], 255)
    return mask


def _refuse_layers(room: int, path: Path) -> None:
    if room < 0:
        problem = f"its shapes cover the picture more than {MAX_LAYERS} times"
        raise ImageError("MASK", f"{path}: {problem}; join them into fewer")


def _refuse_many(shapes: tuple[Shape, ...], path: Path) -> None:
    points = sum(len(s.points) if s.runs is None else len(s.runs) for s in shapes)
    for count, most, noun in (
        (len(shapes), MAX_SHAPES, "shape"),
        (points, MAX_POINTS, "point"),
    ):
        if count > most:
            problem = f"{counted(count, noun)} for one picture; the limit is {most:,}"
            raise ImageError("MASK", f"{path}: {problem}; give a mask that is a picture")


def _covered(points: np.ndarray, size: tuple[int, int]) -> int:
    """The pixels of the box round some points, as far as it is in the picture."""
    low = np.clip(points.min(0), 0, size[::-1])
    high = np.clip(points.max(0) + 1, 0, size[::-1])
    return int(np.prod((high - low).astype(np.int64)))


def _stroke(mask: np.ndarray, points: np.ndarray) -> None:
    width = max(THINNEST, round(max(mask.shape) / LINE))
    if len(points) == 1:
        cv2.circle(mask, points[0].tolist(), width, 255, -1)
    else:
        cv2.polylines(mask, [points], False, 255, width)


def _lay(mask: np.ndarray, shape: Shape, ratio: np.ndarray) -> None:
    assert shape.filled is not None
    filled = shape.filled
    if (ratio != 1).any():
        wide, tall = (
            max(1, round(side * r)) for side, r in zip(filled.shape[::-1], ratio, strict=True)
        )
        filled = cv2.resize(filled, (wide, tall), interpolation=cv2.INTER_NEAREST_EXACT)
    left, top = (round(value * r) for value, r in zip(shape.points[0], ratio, strict=True))
    rows = slice(max(0, top), max(0, min(mask.shape[0], top + filled.shape[0])))
    columns = slice(max(0, left), max(0, min(mask.shape[1], left + filled.shape[1])))
    part = filled[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    mask[rows, columns] = np.maximum(mask[rows, columns], part)


def labelme(path: Path) -> tuple[Shape, ...]:
    """Read the shapes of a LabelMe file; lines and points are scratches, which have a width.

    Raises:
        ImageError: The file cannot be read, or a shape in it is not valid.
    """
    tree = _json(path)
    if not isinstance(tree, dict) or not isinstance(tree.get("shapes"), list):
        raise ImageError("MASK", f"{path}: neither LabelMe nor COCO: it has no list of shapes")
    if len(tree["shapes"]) > MAX_SHAPES:
        problem = f"{len(tree['shapes']):,} shapes; the limit is {MAX_SHAPES:,}"
        raise ImageError("MASK", f"{path}: {problem}; give a mask that is a picture")
    found: list[Shape] = []
    where = "imageHeight"
    try:
        size = None
        if tree.get("imageHeight"):
            size = _side(tree["imageHeight"]), _side(tree["imageWidth"])
        for number, shape in enumerate(tree["shapes"]):
            where = f"shapes[{number}]"
            found.append(_labelled(shape, size))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ImageError("MASK", f"{path}: {where}: {_reason(error)}") from error
    return tuple(found)


def _labelled(shape: Mapping[str, Any], size: tuple[int, int] | None) -> Shape:
    kind = shape.get("shape_type", "polygon")
    pairs = tuple(_point(x, y) for x, y in shape["points"])
    if not pairs:
        raise ValueError("it has no points")
    if kind in ("line", "linestrip", "point", "points"):
        return Shape(pairs, size, is_line=True)
    if kind == "rectangle":
        (left, top), (right, bottom) = pairs
        return Shape(((left, top), (right, top), (right, bottom), (left, bottom)), size)
    if kind == "circle":  # the centre, and a point on the rim
        return Shape(_ring(*pairs), size)
    if kind == "mask":
        return Shape(pairs[:1], size, filled=_inked(shape["mask"]))
    if kind != "polygon":
        problem = "polygon, rectangle, circle, line, linestrip, point and mask are read"
        raise ValueError(f"a shape of type {kind!r}; {problem}")
    return Shape(pairs, size)


def _ring(centre: Point, rim: Point) -> tuple[Point, ...]:
    turns = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    away = math.dist(centre, rim)
    ring = np.array(centre) + away * np.stack([np.cos(turns), np.sin(turns)], 1)
    return tuple(_point(x, y) for x, y in ring.tolist())


def _inked(text: str) -> np.ndarray:
    """Decode a mask in a LabelMe file: a PNG in base 64."""
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError) as error:
        raise ValueError("its mask is no base 64") from error
    try:
        found = sandbox.read(Encoded(data, ".png"))
    except ImageError as error:
        raise ValueError(f"its mask is no picture: {error}") from error
    return np.where(found.pixels.max(2) > 0, 255, 0).astype(np.uint8)


def _point(x: Any, y: Any) -> Point:
    pair = float(x), float(y)
    if not all(math.isfinite(value) and abs(value) <= FARTHEST for value in pair):
        raise ValueError(f"a point at {x}, {y}; points lie within {FARTHEST:,} px")
    return pair


def _side(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= FARTHEST:
        raise ValueError(f"a picture of {value!r} px on a side")
    return value


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"lacks {error}"
    return str(error) if isinstance(error, ValueError) else f"is no shape: {error}"


def coco(path: Path) -> Outlines | None:
    """Read a COCO file's shapes by file name; None if it is not a COCO file.

    Raises:
        ImageError: The file cannot be read as JSON.
        UsageError: An image or annotation in it is not valid.
    """
    tree = _json(path)
    if not isinstance(tree, dict) or "annotations" not in tree:
        return None
    where = "images"
    try:
        about = {image["id"]: (_path(image["file_name"]), image) for image in tree["images"]}
        found: dict[str, list[Shape]] = {name: [] for name, _ in about.values()}
        for number, note in enumerate(tree["annotations"]):
            where = f"annotations[{number}]"
            if note["image_id"] not in about:
                raise ValueError(f"its image_id, {note['image_id']!r}, is not among the images")
            name, image = about[note["image_id"]]
            size = _side(image["height"]), _side(image["width"])
            found[name] += _annotated(note, size)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"{path}: {where}: {_reason(error)}") from error
    return Outlines({name: tuple(shapes) for name, shapes in found.items()})


def _path(name: Any) -> str:
    """A file name of a COCO file, with / also if Windows wrote it."""
    if not isinstance(name, str):
        raise ValueError(f"a file_name of {name!r}")
    return PurePosixPath(composed(name).replace("\\", "/")).as_posix()


def _annotated(note: Mapping[str, Any], size: tuple[int, int]) -> list[Shape]:
    outlines = note.get("segmentation")
    if isinstance(outlines, dict):
        return [Shape((), size, runs=run_lengths.read(outlines, size))]
    return [Shape(points, size) for points in _polygons(note, outlines)]


def _polygons(note: Mapping[str, Any], outlines: Any) -> list[tuple[Point, ...]]:
    if not outlines:
        left, top, width, height = map(float, note["bbox"])
        if not (width >= 0 and height >= 0):
            raise ValueError(f"a box of {width:g}x{height:g} px")
        corners = [left, top, left + width, top, left + width, top + height, left, top + height]
        outlines = [corners]
    return [
        tuple(_point(x, y) for x, y in zip(flat[::2], flat[1::2], strict=True))
        for flat in outlines
        if flat
    ]


def _json(path: Path) -> Any:
    try:
        return json.loads(read_plain(path, MAX_BYTES))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ImageError("MASK", f"{path}: cannot be read as JSON: {reason}") from error
    except RecursionError as error:
        raise ImageError("MASK", f"{path}: is nested too deeply for a list of shapes") from error
