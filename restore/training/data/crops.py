"""Photos for training, and crops of them."""

import logging
import warnings
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from restore.config import Options
from restore.errors import ConfigError, ImageError
from restore.training.data import sources
from restore.training.data.geometry import Geometry, move
from restore.training.data.procedural import lettering, pictures
from restore.training.logs import track

log = logging.getLogger(__name__)
PATIENCE = 1000  # draws in a row that give no readable picture
UNREADABLE = f"{PATIENCE} pictures in a row cannot be read; the list says why"


class PhotoOptions(Options):
    """Where training photos come from and how crops are cut from them."""

    photos: sources.Place
    """A folder of pictures or of WebDataset shards, a .tar, a list file, or a dataset's name."""
    held_out: sources.Place | None = None
    """Pictures for previews, of the same kinds of places; None: other crops of `photos`."""
    crop: int = Field(64, ge=16, multiple_of=4)
    """Side of a crop, pixels."""
    detail: int = Field(2, ge=1, le=16)
    """Number of candidates for each crop, of which the most detailed is taken."""
    small: Literal["skip", "reflect"] = "skip"
    """Pictures smaller than the crop are left out ("skip") or continued by reflection ("reflect").
    """
    turns: bool = True
    """Rotate by quarter turns and mirror at random."""
    geometry: tuple[Geometry, ...] = ()
    """Transforms of albumentations that move pixels."""
    memory_gb: float = Field(4, ge=0)
    """Photos stay decoded in memory up to this size; beyond it, each is read anew."""
    drawn: float = Field(0, ge=0, le=1)
    """Share of the pictures that is drawn, not cut from photos: text, line art, screens, shapes."""
    fonts: Path | None = None
    """A folder of .ttf and .otf files in which text is drawn as well."""

    @model_validator(mode="after")
    def _has_use_for_fonts(self) -> Self:
        if self.fonts and not self.drawn:
            raise ValueError("fonts are for drawn pictures, of which there are none; set drawn=0.1")
        return self

    @model_validator(mode="after")
    def _is_left_whole(self) -> Self:
        if not self.geometry:
            return self
        side = 2 * self.crop
        try:  # what a transform leaves may depend on chance: such are met later
            move(
                np.zeros((side, side, 3), np.uint8), (0, 0), self.crop, self.geometry,
                np.random.default_rng(0),
            )  # fmt: skip
        except ConfigError as error:
            raise ValueError(str(error).removeprefix("stage.data.geometry: ")) from error
        return self

    def open(
        self,
        photos: sources.Place | None = None,
        crop: int | None = None,
        only_photos: bool = False,
    ) -> "Photos":
        """Open the photos, or those of another place.

        Args:
            photos: Another place; None: that of the options.
            crop: Side of the crops that must fit, pixels; None: `crop`.
            only_photos: Leave out pictures that are drawn.

        Raises:
            ConfigError: If held-out pictures are among those that are trained on.
        """
        if photos is not None and photos == self.held_out:
            sources.refuse_shared(self.photos, self.held_out)
        where = self.photos if photos is None else photos
        return Photos(
            where, crop or self.crop, small=self.small, memory_gb=self.memory_gb,
            turns=self.turns, geometry=self.geometry,
            drawn=0 if only_photos else self.drawn, fonts=self.fonts,
        )  # fmt: skip


class Photos:
    """The pictures of a place that are large enough for crops. Those that cannot be read are left
    out and listed.

    Args:
        photos: A folder, a shard, a list file or a dataset.
        smallest: Pixels that a picture needs on both sides.
        small: Leave smaller pictures out, or continue them by reflection up to that size.
        memory_gb: Photos stay decoded up to this size; it only changes the speed.
        turns: Turn and mirror crops at random.
        geometry: Transforms of albumentations that move pixels.
        drawn: Share of `picture` that is drawn, not cut from a photo.
        fonts: A folder of fonts for text in drawn pictures, besides the bundled ones.

    Raises:
        ConfigError: If no picture is left.
    """

    def __init__(
        self,
        photos: sources.Place,
        smallest: int,
        *,
        small: Literal["skip", "reflect"] = "skip",
        memory_gb: float = 4,
        turns: bool = True,
        geometry: tuple[Geometry, ...] = (),
        drawn: float = 0,
        fonts: Path | None = None,
    ):
        self.drawn, self.faces = drawn, lettering.faces(fonts) if drawn else ()
        self.source, self.refused = sources.find(photos), sources.Refused()
        self.smallest, self.turns, self.geometry = smallest, turns, geometry
        # Reading turns warnings into notes, which in threads would leave the filters in disorder.
        with warnings.catch_warnings(), ThreadPoolExecutor(cpu_count()) as pool:
            found = pool.map(self._size, range(len(self.source.names)))
            sizes = {n: size for n, size in enumerate(found) if size}
            self.small = [n for n, size in sizes.items() if min(size) < smallest]
            left_out = set(self.small) if small == "skip" else set()
            self.numbers = [n for n in sizes if n not in left_out]
            self._tell(photos, small)
            self.sizes = [tuple(max(side, smallest) for side in sizes[n]) for n in self.numbers]
            area = np.array([height * width for height, width in self.sizes], np.float64)
            self.cache: list[np.ndarray | None] | None = None
            if memory_gb and (needed := 3e-9 * area.sum()) > memory_gb:
                message = f"are read anew for each crop; decoded they take {needed:.1f} GB"
                log.warning("photos %s: set data.memory_gb to keep them", message)
            elif memory_gb:
                decoded = pool.map(self.read, range(len(self.numbers)))
                self.cache = list(track(decoded, len(self.numbers), "reading photos"))
        # The more crops a photo has room for, the more often it is drawn: by the square root.
        self.odds = np.sqrt(area) / np.sqrt(area).sum()

    def _size(self, number: int) -> tuple[int, int] | None:
        try:
            return self.source.size(number)
        except ImageError as error:
            self.refused.add(self.source.names[number], str(error))
            return None

    def _tell(self, photos: sources.Place, small: str) -> None:
        count, name = len(self.source.names), getattr(photos, "dataset", photos)
        if not self.numbers:
            raise ConfigError(
                f"{name}: none of its {count} pictures is {self.smallest} px or more on both "
                "sides; give other stage.data.photos, make stage.data.crop smaller, "
                "or set stage.data.small=reflect"
            )
        if self.small:
            shown = ", ".join(self.source.names[n] for n in self.small[:5])
            done = "left out" if small == "skip" else "continued by reflection"
            log.warning(
                "%d of %d pictures are smaller than %d px and %s (data.small): %s%s",
                *(len(self.small), count, self.smallest, done, shown),
                ", ..." if len(self.small) > 5 else "",
            )

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, index: int) -> np.ndarray | None:
        """Read one of the usable pictures.

        Args:
            index: Number among the usable pictures.

        Returns:
            uint8 (H, W, 3); None if it cannot be read, which is listed.
        """
        number = self.numbers[index]
        try:
            rgb = self.source.read(number)
        except ImageError as error:
            self.refused.add(self.source.names[number], str(error))
            return None
        more = [(0, max(0, self.smallest - side)) for side in rgb.shape[:2]]
        if any(after for _, after in more):
            rgb = np.pad(rgb, (*more, (0, 0)), "reflect" if min(rgb.shape[:2]) > 1 else "edge")
        return rgb

    def draw(self, rng: np.random.Generator) -> tuple[int, np.ndarray]:
        """A random picture and its number; larger photos are more likely.

        Raises:
            ConfigError: If very many pictures in a row cannot be read.
        """
        for _ in range(PATIENCE):
            index = int(rng.choice(len(self.numbers), p=self.odds))
            picture = self.cache[index] if self.cache else self.read(index)
            if picture is not None:
                return index, picture
        raise ConfigError(UNREADABLE)

    def picture(self, size: int, detail: int, rng: np.random.Generator) -> np.ndarray:
        """A crop, or a drawn picture.

        Args:
            size: Side, pixels.
            detail: Number of candidates, see `crop`.
            rng: Draws it.

        Returns:
            uint8 (size, size, 3).
        """
        if self.drawn and rng.random() < self.drawn:
            return pictures.draw(rng, size, self.faces)
        return self.crop(size, detail, rng)

    def crop(self, size: int, detail: int, rng: np.random.Generator) -> np.ndarray:
        """A random crop, moved, turned and mirrored at random.

        Args:
            size: Side, pixels.
            detail: Number of candidates. The one with the strongest gradients is taken, because
                most of any photo is sky and wall.
            rng: Draws it.

        Returns:
            uint8 (size, size, 3).
        """
        best, most = None, -1.0
        for _ in range(detail):
            _, picture = self.draw(rng)
            y = rng.integers(picture.shape[0] - size + 1)
            x = rng.integers(picture.shape[1] - size + 1)
            crop = picture[y : y + size, x : x + size]
            if (strength := gradient_strength(crop)) > most:
                best, most = (picture, int(y), int(x)), strength
        assert best
        picture, y, x = best
        made = picture[y : y + size, x : x + size]
        if self.geometry:
            made = move(picture, (y, x), size, self.geometry, rng)
        return apply_turn(made, *draw_turn(rng)) if self.turns else made.copy()


def gradient_strength(crop: np.ndarray) -> float:
    """Mean absolute gradient of the green channel."""
    green = crop[..., 1].astype(np.float32)
    return np.abs(np.diff(green, axis=0)).mean() + np.abs(np.diff(green, axis=1)).mean()


def draw_turn(rng: np.random.Generator) -> tuple[int, bool]:
    """One of the eight orientations of a square: quarter turns, then whether it is mirrored."""
    return int(rng.integers(4)), bool(rng.random() < 0.5)


def apply_turn(rgb: np.ndarray, quarters: int, mirrored: bool) -> np.ndarray:
    rgb = np.rot90(rgb, quarters)
    return (rgb[:, ::-1] if mirrored else rgb).copy()
