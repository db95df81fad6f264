"""Where masks come from: a picture, a folder of them, outlines in JSON, or the alpha channel."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from restore.batch import outlines
from restore.batch.jobs import DAMAGE, OVERLAY, Job
from restore.batch.journal import HIDDEN
from restore.errors import ImageError, UsageError
from restore.file_search import KNOWN, visible
from restore.images import sandbox
from restore.images.picture import Picture

ALPHA = "alpha"  # instead of a path: what is transparent is the hole


@dataclass(frozen=True)
class Masks:
    """Masks by the pictures they belong to.

    Attributes:
        files: A picture's relative path without suffix -> a mask picture, or a LabelMe JSON.
        shapes: The outlines of a COCO JSON.
        single: One file for every picture.
        is_alpha: The transparency of each picture is its mask.
    """

    files: dict[str, Path]
    shapes: outlines.Outlines | None = None
    single: Path | None = None
    is_alpha: bool = False

    def of(self, job: Job) -> Path | None:
        """The file that holds the job's mask: for alpha its own picture; None if there is none."""
        if self.is_alpha:
            return job.source
        name = Path(job.key)
        if self.shapes:
            return self.single if self.shapes.names(job.key) else None
        return self.single or self.files.get(name.with_suffix("").as_posix())

    def unused(self, jobs: Iterable[Job]) -> list[Path]:
        """Masks of a folder that no job takes."""
        if not self.files:
            return []
        taken = {self.of(job) for job in jobs}
        return [path for path in dict.fromkeys(self.files.values()) if path not in taken]


def open_masks(given: str) -> Masks:
    """Find the masks that `--mask` names.

    Args:
        given: A picture, a folder of them, a JSON, or alpha.

    Raises:
        UsageError: There are none, or two for one picture.
    """
    if given == ALPHA:
        return Masks({}, is_alpha=True)
    path = Path(given)
    if path.is_dir():
        return Masks(_folder(path))
    if not path.is_file():
        raise UsageError(f"--mask {given}: no such file or folder; {ALPHA} takes the transparency")
    shapes = outlines.coco(path) if path.suffix.casefold() == ".json" else None
    return Masks({}, shapes, path)


def _folder(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    # the folder may be an output of --find-scratches, which holds summaries too
    summaries = {*folder.glob("summary*.json")} if (folder / HIDDEN).is_dir() else set()
    for path in visible(folder):
        if (
            path in summaries
            or path.suffix.casefold() not in KNOWN | {".json"}
            or not path.is_file()
        ):
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

    Args:
        fit: Resize a mask of another size by the nearest pixel, instead of refusing it.

    Raises:
        ImageError: The mask is missing, cannot be read or has another size.
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
        shapes = masks.shapes.of(job.key) if masks.shapes else outlines.labelme(path)
        return outlines.draw(shapes, picture.size, path, fit)
    mask = flat(sandbox.read(path))
    if mask.shape == picture.size:
        return mask
    if not fit:
        sides = (f"{w}x{h}" for h, w in (mask.shape, picture.size))
        mend = "--fit-mask resizes it"
        problem = " px, but the picture has ".join(sides)
        raise ImageError("MASK_SIZE", f"{path}: {problem} px; {mend}")
    return cv2.resize(mask, picture.size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def flat(mask: Picture) -> np.ndarray:
    """A mask's picture -> uint8 (H, W): its brightness, black where it is transparent."""
    grey = mask.pixels.max(2).astype(np.float32) / np.iinfo(mask.pixels.dtype).max
    if mask.alpha is not None:
        grey = grey * (mask.alpha.astype(np.float32) / np.iinfo(mask.alpha.dtype).max)
    return np.rint(grey * 255).astype(np.uint8)
