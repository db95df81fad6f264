"""Where masks come from: a picture, a folder of them, outlines in JSON, or the alpha channel."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from restore.batch import outlines
from restore.batch.jobs import DAMAGE, OVERLAY, Job
from restore.batch.journal import HIDDEN
from restore.errors import ImageError, UsageError
from restore.file_search import KNOWN, composed, visible_files
from restore.images import sandbox
from restore.images.masks import flatten
from restore.images.picture import Picture, Reading
from restore.storage.database import TemporaryDatabase, to_bytes, to_text

ALPHA = "alpha"  # instead of a path: what is transparent is the hole
SCHEMA = """
CREATE TABLE met(name BLOB, path BLOB);
CREATE TABLE mask(nth INTEGER PRIMARY KEY, name BLOB UNIQUE, path BLOB, taken INTEGER DEFAULT 0);
"""
TWO_OF_ONE = """
SELECT path, name FROM met
WHERE name = (SELECT name FROM met GROUP BY name HAVING count(*) > 1 ORDER BY name LIMIT 1)
ORDER BY path LIMIT 2
"""


class MaskFolder:
    """The masks of a folder, by name: a picture's relative path without suffix.

    The names are in a temporary file: millions of them take no memory. They do not follow into
    another process, where each job knows its mask.

    Args:
        found: (name, mask), in any order.

    Raises:
        UsageError: Two masks have one name.
    """

    def __init__(self, found: Iterable[tuple[str, Path]] = ()):
        self._kept = TemporaryDatabase(SCHEMA)
        rows = ((to_bytes(composed(name)), to_bytes(str(path))) for name, path in found)
        self._kept.add_all("INSERT INTO met VALUES (?, ?)", rows)
        two = self._kept.all(TWO_OF_ONE)
        if two:
            (first, name), (second, _) = (map(to_text, row) for row in two)
            raise UsageError(f"{first} and {second}: two masks for {name}; remove one")
        self._kept.run("INSERT INTO mask(name, path) SELECT name, path FROM met ORDER BY path")
        self._kept.run("DROP TABLE met")

    def __reduce__(self) -> tuple[Any, ...]:
        return MaskFolder, ()

    @property
    def is_empty(self) -> bool:
        return self._kept.one("SELECT 1 FROM mask") is None

    def of(self, name: str) -> Path | None:
        """The mask of a picture: one that --find-scratches made for it, else one of its name."""
        found = self._row(name)
        return Path(to_text(found[1])) if found else None

    def _row(self, name: str) -> tuple[Any, ...] | None:
        """(number, path) of a picture's mask."""
        return self._named(name + DAMAGE) or (None if self._is_overlay(name) else self._named(name))

    def _named(self, name: str) -> tuple[Any, ...] | None:
        key = to_bytes(composed(name))
        return self._kept.one("SELECT nth, path FROM mask WHERE name = ?", key)

    def _is_shadowed(self, name: str) -> bool:
        """Whether it is a result or an overlay beside the mask that --find-scratches made."""
        return self._is_overlay(name) or self._named(name + DAMAGE) is not None

    def _is_overlay(self, name: str) -> bool:
        of = name.removesuffix(OVERLAY)
        return of != name and self._named(of + DAMAGE) is not None

    @property
    def is_proposed(self) -> bool:
        """Whether all are masks that --find-scratches made, or lie beside these as results do."""
        found = self._kept.pages("SELECT nth, name FROM mask WHERE nth > ? ORDER BY nth")
        names = (to_text(name) for _, name in found)
        return all(name.endswith(DAMAGE) or self._is_shadowed(name) for name in names)

    def unused(self, names: Iterable[str]) -> Iterator[Path]:
        """The masks that no picture of these names takes."""
        self._kept.run("UPDATE mask SET taken = 0")
        for name in names:
            if found := self._row(name):
                self._kept.run("UPDATE mask SET taken = 1 WHERE nth = ?", found[0])
        query = "SELECT nth, name, path FROM mask WHERE NOT taken AND nth > ? ORDER BY nth"
        for _, name, path in self._kept.pages(query):
            if not self._is_shadowed(to_text(name)):
                yield Path(to_text(path))


@dataclass(frozen=True)
class Masks:
    """Masks by the pictures they belong to.

    Attributes:
        folder: Of mask pictures and LabelMe JSONs.
        shapes: The outlines of a COCO JSON.
        single: One file for every picture.
        is_alpha: The transparency of each picture is its mask.
    """

    folder: MaskFolder | None = None
    shapes: outlines.Outlines | None = None
    single: Path | None = None
    is_alpha: bool = False

    def of(self, job: Job) -> Path | None:
        """The file that holds the job's mask: for alpha its own picture; None if there is none."""
        if self.is_alpha:
            return job.source
        if self.shapes:
            return self.single if self.shapes.names(job.key) else None
        return self.single or (self.folder.of(_stem(job)) if self.folder else None)

    def missing(self, job: Job) -> ImageError:
        """The error of a picture without a mask."""
        mend = "name a mask like the picture, or leave the picture out"
        return ImageError("NO_MASK", f"{job.source}: no mask; {mend}")

    def unused(self, jobs: Iterable[Job]) -> Iterator[Path]:
        """Masks of a folder that no job takes."""
        return self.folder.unused(map(_stem, jobs)) if self.folder else iter(())


def refuse_output(masks: Masks, given: Path, out: Path) -> None:
    """Raise UsageError if results would lie among the masks: the next run takes them for masks."""
    if masks.folder is None or not out.resolve().is_relative_to(given.resolve()):
        return
    if not masks.folder.is_proposed:
        problem = f"is in the folder of masks, {given}: results there would be taken for masks"
        raise UsageError(f"{out}: {problem}; give another -o")


def _stem(job: Job) -> str:
    return Path(job.key).with_suffix("").as_posix()


def open_masks(given: str) -> Masks:
    """Find the masks that `--mask` names.

    Args:
        given: A picture, a folder of them, a JSON, or alpha.

    Raises:
        UsageError: There are none, or two for one picture.
    """
    if given == ALPHA:
        return Masks(is_alpha=True)
    path = Path(given)
    if path.is_dir():
        folder = MaskFolder(_found(path))
        if folder.is_empty:
            raise UsageError(f"{path}: no masks here; name them like the pictures")
        return Masks(folder)
    if not path.is_file():
        raise UsageError(f"--mask {given}: no such file or folder; {ALPHA} takes the transparency")
    shapes = outlines.coco(path) if path.suffix.casefold() == ".json" else None
    return Masks(None, shapes, path)


def _found(folder: Path) -> Iterator[tuple[str, Path]]:
    """(name, file) of each mask below a folder."""
    # the folder may be an output of --find-scratches, which holds summaries too
    told = {*folder.glob("summary*.json")} if (folder / HIDDEN).is_dir() else set()
    for path in visible_files(folder):
        if path not in told and path.suffix.casefold() in KNOWN | {".json"}:
            yield path.relative_to(folder).with_suffix("").as_posix(), path


def read(
    masks: Masks, job: Job, pictures: Sequence[Picture], fit: bool = False
) -> list[np.ndarray]:
    """The masks of a job's pictures, each uint8 (H, W) of its picture's size; 255 is repainted.

    A mask of one picture is the mask of every frame; one of several gives each frame its own.

    Args:
        pictures: The frames asked for.
        fit: Resize a mask of another size by the nearest pixel, instead of refusing it.

    Raises:
        ImageError: The mask is missing, cannot be read, or has another size or number of frames.
    """
    path = job.others[0] if job.others else masks.of(job)
    if path is None:
        raise masks.missing(job)
    if masks.is_alpha:
        if all(picture.alpha is None for picture in pictures):
            raise ImageError("NO_MASK", f"{job.source}: has no alpha channel to take the hole from")
        return [_transparent(picture) for picture in pictures]
    if path.suffix.casefold() == ".json":
        shapes = tuple(masks.shapes.of(job.key) if masks.shapes else outlines.labelme(path))
        return [outlines.draw(shapes, picture.size, path, fit) for picture in pictures]
    frames = "all" if len(pictures) > 1 else "first"
    found = [flatten(frame) for frame in sandbox.read_frames(path, Reading(frames=frames))[0]]
    if len(found) not in (1, len(pictures)):
        problem = f"it has {len(found)} frames, but the picture has {len(pictures)}"
        raise ImageError("MASK_SIZE", f"{path}: {problem}; give one mask for all, or one for each")
    found = found * len(pictures) if len(found) == 1 else found
    return [
        _fitting(mask, picture, fit, f"{path}: " if nth == 1 else f"{path}: for frame {nth}, ")
        for nth, (mask, picture) in enumerate(zip(found, pictures, strict=True), 1)
    ]


def _transparent(picture: Picture) -> np.ndarray:
    """Where a picture is not opaque; nowhere in one without alpha, such as one frame of several."""
    if picture.alpha is None:
        return np.zeros(picture.size, np.uint8)
    return np.where(picture.alpha < np.iinfo(picture.alpha.dtype).max, 255, 0).astype(np.uint8)


def _fitting(mask: np.ndarray, picture: Picture, fit: bool, name: str) -> np.ndarray:
    """A mask of the picture's size. Raises ImageError, which begins with `name`."""
    if mask.shape == picture.size:
        return mask
    if not fit:
        sides = (f"{w}x{h}" for h, w in (mask.shape, picture.size))
        problem = " px, but the picture has ".join(sides)
        raise ImageError("MASK_SIZE", f"{name}{problem} px; --fit-mask resizes it")
    return cv2.resize(mask, picture.size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
