"""Where pictures have holes: the masks that a command names, and pictures that show them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from restore.batch import jobs

if TYPE_CHECKING:
    import numpy as np

    from restore.batch.mask_files import Masks
    from restore.images.picture import Picture

Find = Literal["", "propose", "apply"]


@dataclass(frozen=True)
class Holes:
    """Where the pictures have holes: the mask of inpaint, the damage of upscale.

    Attributes:
        given: A mask, a folder of masks, or alpha; empty: none.
        fit: Resize a mask of another size.
        find: Find the scratches of old photos and save a mask of them beside the result.
            propose: only that; apply: also fill them; empty: do not look.
    """

    given: str = ""
    fit: bool = False
    find: Find = ""

    def digest_fields(self, frames: str = "first") -> dict[str, object]:
        """The options that decide the pixels; each mask's digest is in its job's row.

        Args:
            frames: Which frames of a file are read. Before version 0.2 the hole of the first one
                was that of all, so such results are made again.
        """
        fields = {
            "hole_given": bool(self.given),
            "hole_fit": self.fit,
            "hole_find": self.find,
            "hole_frames": "own" if self.given and frames == "all" else "",
        }
        return {name: value for name, value in fields.items() if value}

    def open(self, given: jobs.Jobs, out: Path) -> tuple["Masks | None", jobs.Jobs]:
        """Open the masks; return them, and the jobs with their masks among `others`.

        Args:
            given: The jobs.
            out: The output folder.

        Raises:
            UsageError: There are no masks, two for one picture, `out` is in their folder, or a
                result would replace one.
        """
        if not self.given:
            return None, given
        from restore.batch.mask_files import open_masks, refuse_output

        masks = open_masks(self.given)
        refuse_output(masks, Path(self.given), out)

        def knowing(nth: int, job: jobs.Job) -> jobs.Job:
            path = masks.of(job)
            return replace(job, others=(path,) if path else ())

        known = given.changed(knowing)
        jobs.refuse_collisions(known)
        return masks, known

    def read(
        self, masks: "Masks | None", job: jobs.Job, pictures: "Sequence[Picture]"
    ) -> "Sequence[np.ndarray | None]":
        """The mask of each of a job's pictures, uint8 (H, W); None if no holes are asked for."""
        if self.find:
            from restore.images import scratches

            return [scratches.find(picture) for picture in pictures]
        if masks is None:
            return [None] * len(pictures)
        from restore.batch import mask_files

        return mask_files.read(masks, job, pictures, self.fit)


def make_opaque(picture: "Picture") -> "Picture":
    """The picture with its alpha channel, if it has one, fully opaque."""
    if picture.alpha is None:
        return picture
    import numpy as np

    alpha = np.full_like(picture.alpha, np.iinfo(picture.alpha.dtype).max)
    return replace(picture, alpha=alpha)


def draw_overlay(picture: "Picture", mask: "np.ndarray") -> "Picture":
    """The picture without its transparency, darker, and red where the mask is."""
    from restore.images.picture import Picture, to_uint8

    eight = to_uint8(picture.pixels)
    rgb = eight - eight // 3
    rgb[mask > 0] = (255, 0, 0)
    return Picture(rgb, icc=None if picture.grey else picture.icc)
