"""Where masks come from: a picture, a folder of them, polygons in JSON, or the alpha channel."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from restore.batch.jobs import DAMAGE, OVERLAY, Job
from restore.batch.journal import HIDDEN
from restore.errors import ImageError, UsageError
from restore.file_search import KNOWN, visible
from restore.images import sandbox
from restore.images.picture import Picture

ALPHA = "alpha"  # instead of a path: what is transparent is the hole


@dataclass(frozen=True)
class Shape:
    """A polygon (x, y), ... in pixels of a picture that measures `size` (height, width)."""

    points: tuple[tuple[float, float], ...]
    size: tuple[int, int] | None = None  # None: the file does not say


@dataclass(frozen=True)
class Masks:
    """Masks by the pictures they belong to.

    files   stem or relative path without suffix -> a picture, or a LabelMe JSON.
    shapes  from a COCO JSON: file name -> polygons.
    single  one mask for every picture.
    """

    files: dict[str, Path]
    shapes: dict[str, tuple[Shape, ...]]
    single: Path | None = None
    is_alpha: bool = False

    def of(self, job: Job) -> Path | None:
        """The file that holds the job's mask; its own picture for alpha. None: unpaired."""
        if self.is_alpha:
            return job.source
        name = Path(job.key)
        if self.shapes:
            return None if _named(self.shapes, name) is None else self.single
        return self.single or self.files.get(name.with_suffix("").as_posix())

    def unused(self, jobs: Iterable[Job]) -> list[Path]:
        """Masks of a folder that no job takes."""
        taken = {self.of(job) for job in jobs}
        return [path for path in dict.fromkeys(self.files.values()) if path not in taken]


def _named(shapes: dict[str, tuple[Shape, ...]], name: Path) -> tuple[Shape, ...] | None:
    """By the relative path, else by the file's name alone."""
    return shapes.get(name.as_posix(), shapes.get(name.name))


def open_masks(given: str) -> Masks:
    """The masks that `--mask` names. Raises UsageError if there are none, or two for a picture."""
    if given == ALPHA:
        return Masks({}, {}, is_alpha=True)
    path = Path(given)
    if path.is_dir():
        return Masks(_folder(path), {})
    if not path.is_file():
        raise UsageError(f"--mask {given}: no such file or folder; {ALPHA} takes the transparency")
    shapes = coco(path) if path.suffix.casefold() == ".json" else {}
    return Masks({}, shapes, path)


def _folder(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    # the masks of --find-scratches lie among its results
    told = {*folder.glob("summary*.json")} if (folder / HIDDEN).is_dir() else set()
    for path in visible(folder):
        if path in told or path.suffix.casefold() not in KNOWN | {".json"} or not path.is_file():
            continue
        key = path.relative_to(folder).with_suffix("").as_posix()
        if key in found:
            raise UsageError(f"{found[key]} and {path}: two masks for {key}; remove one")
        found[key] = path
    if not found:
        raise UsageError(f"{folder}: no masks here; name them like the pictures")
    kept = {k.removesuffix(DAMAGE): path for k, path in found.items() if k.endswith(DAMAGE)}
    shows = {key + OVERLAY for key in kept}
    return {key: path for key, path in found.items() if key not in shows} | kept


def read(masks: Masks, job: Job, picture: Picture, fit: bool = False) -> np.ndarray:
    """The job's mask, uint8 (H, W) of the picture's size; 255 is repainted.

    fit  resize a mask of another size by the nearest pixel, instead of refusing it.
    Raises ImageError if it is missing, cannot be read or has another size.
    """
    path = masks.of(job)
    if path is None:
        mend = "name a mask like the picture, or leave the picture out"
        raise ImageError("NO_MASK", f"{job.source}: no mask; {mend}")
    if masks.is_alpha:
        if picture.alpha is None:
            raise ImageError("NO_MASK", f"{job.source}: has no alpha channel to take the hole from")
        return np.where(picture.alpha < np.iinfo(picture.alpha.dtype).max, 255, 0).astype(np.uint8)
    if path.suffix.casefold() == ".json":
        shapes = _named(masks.shapes, Path(job.key)) if masks.shapes else labelme(path)
        return drawn(shapes, picture.size, path, fit)
    mask = flat(sandbox.read(path))
    if mask.shape == picture.size:
        return mask
    if not fit:
        sides = (f"{w}x{h}" for h, w in (mask.shape, picture.size))
        mend = "--fit-mask resizes it"
        told = " px, but the picture has ".join(sides)
        raise ImageError("MASK_SIZE", f"{path}: {told} px; {mend}")
    return cv2.resize(mask, picture.size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def flat(mask: Picture) -> np.ndarray:
    """A mask's picture -> uint8 (H, W): its brightness, black where it is transparent."""
    grey = mask.pixels.max(2).astype(np.float32) / np.iinfo(mask.pixels.dtype).max
    if mask.alpha is not None:
        grey = grey * (mask.alpha.astype(np.float32) / np.iinfo(mask.alpha.dtype).max)
    return np.rint(grey * 255).astype(np.uint8)


def drawn(
    shapes: Iterable[Shape], size: tuple[int, int], path: Path, fit: bool = False
) -> np.ndarray:
    """Polygons -> uint8 (*size), 255 inside."""
    mask = np.zeros(size, np.uint8)
    for shape in shapes:
        if shape.size not in (None, size) and not fit:
            sides = f"{shape.size[1]}x{shape.size[0]}"
            raise ImageError(
                "MASK_SIZE",
                f"{path}: drawn on {sides} px, but the picture has {size[1]}x{size[0]} px; "
                "--fit-mask scales it",
            )
        ratio = np.divide(size[::-1], (shape.size or size)[::-1])
        points = np.rint(np.array(shape.points) * ratio).astype(np.int32)
        cv2.fillPoly(mask, [points], 255)
    return mask


def labelme(path: Path) -> tuple[Shape, ...]:
    """The polygons, rectangles and circles of a LabelMe file."""
    tree = _json(path)
    try:
        size = (tree["imageHeight"], tree["imageWidth"]) if tree.get("imageHeight") else None
        return tuple(
            Shape(_outline(shape.get("shape_type", "polygon"), shape["points"]), size)
            for shape in tree["shapes"]
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ImageError("MASK", f"{path}: neither LabelMe nor COCO: {error!r}") from error


def _outline(kind: str, points: list) -> tuple[tuple[float, float], ...]:
    pairs = [(float(x), float(y)) for x, y in points]
    if kind == "rectangle":
        (left, top), (right, bottom) = pairs
        return (left, top), (right, top), (right, bottom), (left, bottom)
    if kind == "circle":  # the centre, and a point on the rim
        centre, rim = map(np.array, pairs)
        turns = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        ring = centre + np.hypot(*(rim - centre)) * np.stack([np.cos(turns), np.sin(turns)], 1)
        return tuple(map(tuple, ring.tolist()))
    if kind != "polygon":
        raise ValueError(f"a shape of type {kind!r}; polygon, rectangle and circle are read")
    return tuple(pairs)


def coco(path: Path) -> dict[str, tuple[Shape, ...]]:
    """A COCO file's polygons by file name; {} if it is no COCO file."""
    tree = _json(path)
    if not isinstance(tree, dict) or "annotations" not in tree:
        return {}
    try:
        about = {image["id"]: image for image in tree["images"]}
        found: dict[str, tuple[Shape, ...]] = {image["file_name"]: () for image in about.values()}
        for note in tree["annotations"]:
            image = about[note["image_id"]]
            size = (image["height"], image["width"])
            shapes = tuple(Shape(points, size) for points in _polygons(note))
            found[image["file_name"]] += shapes
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{path}: a COCO file that is broken at {error!r}") from error
    return found


def _polygons(note: dict[str, Any]) -> list[tuple[tuple[float, float], ...]]:
    outlines = note.get("segmentation")
    if isinstance(outlines, dict):
        raise ValueError("run-length masks; export polygons")
    if not outlines:
        left, top, width, height = note["bbox"]
        corners = [left, top, left + width, top, left + width, top + height, left, top + height]
        outlines = [corners]
    return [tuple(zip(flat[::2], flat[1::2], strict=True)) for flat in outlines]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ImageError("MASK", f"{path}: cannot be read as JSON: {error}") from error
