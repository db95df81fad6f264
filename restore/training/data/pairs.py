"""Training pairs for the denoiser: conditioning, trust map and truth, before they are encoded."""

from dataclasses import dataclass
from typing import Any, Literal, Self, TypeVar

import cv2
import numpy as np
from pydantic import Field, model_validator

from degradations import Recipe, Trace, recipes, replay, sharpen
from degradations.ops import FilmGrain
from degradations.ranges import Uniform
from restore.diffusion.layouts import KEEP, REPAINT, RESTORE
from restore.images.masks import fill_smoothly
from restore.training.data import sources
from restore.training.data.captions import caption, instruction
from restore.training.data.crops import PhotoOptions, Photos
from restore.training.data.enlarging import Enlarge, bicubic
from restore.training.data.paired import PairedPhotos

GREY = 128
GRAIN = Recipe(  # what a photo may have of its own; pixels of the photo, before it is made smaller
    name="grain",
    paper="Newson et al. 2017, A Stochastic Film Grain Model, Computer Graphics Forum 36",
    steps=(FilmGrain(sigma_levels=Uniform(4, 20), size=Uniform(0.4, 2.5)),),
)
Key = TypeVar("Key")
Task = Literal["restore", "fill", "both", "nothing"]


class PairOptions(PhotoOptions):
    """How pairs are made from photos, and how many are kept."""

    crop: int = Field(256, ge=32, multiple_of=4)
    """Side of a stored pair, pixels."""
    low: sources.Place | None = None
    """A place with the degraded partners of `photos`, of the same names; then no recipe is applied.
    """
    low_name: str = Field("{}", pattern=r"^[^{}/]*\{\}[^{}/]*$")
    """Name of a degraded partner, where {} is the name of the good picture, such as {}x4."""
    recipe: str = "realesrgan"
    """A named recipe of `degradations`, or a YAML file."""
    scales: dict[float, float] = {4: 0.6, 2: 0.2, 1: 0.2}
    """Weight of each scale."""
    tasks: dict[Task, float] = {"restore": 0.7, "fill": 0.15, "both": 0.1, "nothing": 0.05}
    """Weight of each task: restore, fill holes, both, or paint from nothing."""
    clean: float = Field(0.15, ge=0, le=1)
    """Share of the pairs that is only made smaller, not degraded."""
    severity: tuple[float, float] | None = None
    """Range of the recipe's severity, drawn uniformly; None: from nearly 0 to 1, or to less at
    scales below 4.
    """
    described: float = Field(0.5, ge=0, le=1)
    """Share of the pairs that keeps its caption."""
    keeps: float = Field(0.0, ge=0, le=1)
    """Share of the pairs whose photo gets film grain of its own. The truth keeps that grain only
    where the caption says "keep grain". Above 0, half of all captions are instructions: "remove
    noise".
    """
    mode: Literal["cached", "live", "device"] = "cached"
    """cached: pairs are encoded once and kept on disk; live and device: new pairs all the time,
    degraded by the workers or by the device.
    """
    count: int = Field(12_000, ge=1)
    """Number of pairs kept on disk."""
    workers: int = Field(2, ge=0)
    """Processes that make the pairs for the disk."""
    window: int = Field(32, ge=8)
    """Side of a training sample, latents."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if 4 * self.window > self.crop and self.mode == "cached":
            need = f"a window of {self.window} latents is {4 * self.window} px"
            raise ValueError(f"{need}, a crop only {self.crop}; make crop larger or window smaller")
        for name in ("scales", "tasks"):
            weights = getattr(self, name).values()
            if not sum(weights) > 0 or min(weights) < 0:
                raise ValueError(f"the weights of {name} must be 0 or more, and not all 0")
        low, high = self.severity or (0, 1)
        if not 0 <= low <= high <= 1:
            raise ValueError(f"severity is from 0 to 1, the milder first, not {low:g} to {high:g}")
        if self.low is None:
            recipes.find(self.recipe)  # refused before anything is read
        idle = {"recipe", "scales", "clean", "severity", "described", "keeps", "geometry", "drawn"}
        idle &= self.model_fields_set
        if self.low is not None and idle:
            message = f"low gives the bad pictures, so {', '.join(sorted(idle))} would do nothing"
            raise ValueError(f"{message}; leave out the one or the other")
        if self.low is None and self.low_name != "{}":
            raise ValueError("low_name says how the pictures of low are named, which is not set")
        if self.low is not None and (self.mode == "device" or self.small == "reflect"):
            raise ValueError("low goes with mode cached or live, and with small: skip")
        return self

    def pictures(self, crop: int, held_out: bool = False) -> Photos:
        """The photos that crops of this size are cut from.

        Args:
            crop: Side of the crops, pixels.
            held_out: Use the photos that training does not see, if there are any. These are never
                drawn, so previews stay the same whatever is drawn for training.

        Raises:
            ConfigError: If these are among those that are trained on.
        """
        place = self.held_out if held_out and self.held_out else self.photos
        if self.low is None:  # previews have photos only
            return self.open(place, crop, only_photos=held_out)
        if held_out and self.held_out:
            sources.refuse_shared(self.photos, self.held_out)
        return PairedPhotos(
            place, self.low, crop, self.low_name, memory_gb=self.memory_gb, turns=self.turns
        )


def check_captions(stage: Any) -> Any:
    """Refuse options that leave out captions which decide what the truth is."""
    if stage.dropped and stage.data.keeps:
        message = "dropped would leave out words that decide what the truth keeps (data.keeps)"
        raise ValueError(f"{message}; set data.described instead")
    return stage


def draw_weighted(weights: dict[Key, float], rng: np.random.Generator) -> Key:
    """One of the keys, drawn by weight.

    Args:
        weights: Weight of each key, 0 or more, not all 0.
        rng: Draws it.
    """
    odds = np.array(list(weights.values()), np.float64)
    return list(weights)[rng.choice(len(odds), p=odds / odds.sum())]


def draw_hole(size: int, rng: np.random.Generator) -> np.ndarray:
    """A random mask of scratches, blobs or both: uint8 (size, size), 255 in the hole."""
    mask = np.zeros((size, size), np.uint8)
    kind = rng.integers(3)
    if kind != 0:  # blobs
        for _ in range(rng.integers(1, 4)):
            centre, axes = rng.integers(0, size, 2), rng.integers(size // 24, size // 4, 2)
            angle = float(rng.uniform(0, 180))
            cv2.ellipse(mask, centre.tolist(), axes.tolist(), angle, 0, 360, 255, -1)
    if kind != 1:  # scratches
        for _ in range(rng.integers(1, 7)):
            point, heading = rng.uniform(0, size, 2), rng.uniform(0, 2 * np.pi)
            points = [point]
            for _ in range(rng.integers(2, 7)):
                heading += rng.normal(0, 0.3)
                point = point + size / 6 * np.array([np.cos(heading), np.sin(heading)])
                points.append(point)
            line = np.rint(points).astype(np.int32)
            cv2.polylines(mask, [line], False, 255, int(rng.integers(1, 7)))
    return mask


@dataclass(frozen=True)
class Pair:
    """One training pair, in pixels."""

    truth: np.ndarray
    """uint8 (S, S, 3)."""
    conditioning: np.ndarray
    """uint8 (S, S, 3): what the picture shows, the hole filled in."""
    trust: np.ndarray
    """uint8 (S / factor, S / factor): 0 keep, 128 restore, 255 repaint."""
    caption: str
    """The words that belong to the pair, or ""."""
    trace: Trace | None
    """How the picture was degraded, if it was by a recipe."""
    hole: np.ndarray
    """uint8 (S, S): 255 where the picture was filled in."""
    original: np.ndarray
    """uint8 (S, S, 3): what the trace replays on; not sharpened, with all of its grain."""


def draw_pair(
    photos: Photos,
    recipe: Recipe,
    options: PairOptions,
    rng: np.random.Generator,
    key: str,
    crop: int,
    *,
    apply: bool = True,
    factor: int = 4,
    enlarge: Enlarge = bicubic,
) -> Pair:
    """Draw a pair. A latent that the hole touches at all is repainted.

    Args:
        photos: What it is cut from.
        recipe: How pictures are degraded.
        options: Shares and weights.
        rng: Draws all but the parameters of the recipe.
        key: Key of the pair, for the recipe's draws.
        crop: Side, pixels.
        apply: False leaves degradation and filling to a caller that has a whole batch; the
            conditioning is then what the trace and the hole have yet to be applied to.
        factor: Pixels a latent, on a side.
        enlarge: Gives the degraded picture its size.
    """
    low, trace, words = None, None, ""
    if isinstance(photos, PairedPhotos):
        original, low, _ = photos.cut(crop, options.detail, rng)
    else:
        original = photos.picture(crop, options.detail, rng)
    task = draw_weighted(options.tasks, rng)
    conditioning, truth = original, original
    trust = np.full(truth.shape[:2], round(KEEP * 255), np.uint8)
    if task in ("restore", "both"):
        if low is None:
            trace = draw_trace(recipe, options, rng, key, crop)
            original, truth, trace, words = draw_caption(original, trace, options, rng, key)
            truth = sharpen(truth) if trace.sharpen else truth
            low = replay(trace, original) if apply else None
        conditioning = original if low is None else enlarge(low, crop)
        trust = np.full_like(trust, round(RESTORE * 255))
    mask = np.zeros_like(trust)
    if task in ("fill", "both"):
        mask = draw_hole(crop, rng)  # at full size: its rim is sharp in use too
        conditioning = fill_smoothly(conditioning, mask > 0) if apply else conditioning
        trust = np.where(mask > 0, np.uint8(REPAINT * 255), trust)
    if task == "nothing":
        conditioning, trust = (
            np.full_like(conditioning, GREY),
            np.full_like(trust, round(REPAINT * 255)),
        )
    blocks = trust.reshape(crop // factor, factor, crop // factor, factor)
    return Pair(truth, conditioning, blocks.max((1, 3)), words, trace, mask, original)


def draw_trace(recipe: Recipe, options: PairOptions, rng, key: str, crop: int) -> Trace:
    """Draw the scale, the severity and the parameters of one pair's degradation.

    Args:
        recipe: The recipe at full severity.
        options: Weights of scales, range of severity.
        rng: Draws scale, severity and the seed.
        key: Key of the pair.
        crop: Side, pixels.
    """
    scale = draw_weighted(options.scales, rng)
    # Recipes are written for x4; the same damage on a picture that keeps its size is harsher.
    mildest, worst = options.severity or (0.02, min(1, scale**0.5 / 2))
    severity = 0.0 if rng.random() < options.clean else rng.uniform(mildest, worst)
    seed = int(rng.integers(2**62))
    return recipe.at(severity).draw((crop, crop), scale, seed, key)


def draw_caption(
    photo: np.ndarray, trace: Trace, options: PairOptions, rng: np.random.Generator, key: str
) -> tuple[np.ndarray, np.ndarray, Trace, str]:
    """Draw the caption of a pair, and film grain where the options ask for it.

    Args:
        photo: uint8 (S, S, 3).
        trace: How it will be degraded.
        options: Shares of captions and of grain.
        rng: Draws both.
        key: Key of the pair.

    Returns:
        What the trace replays on, the truth, the trace, and the caption, or "".
    """
    is_said = rng.random() < options.described
    if not options.keeps:
        return photo, photo, trace, caption(trace) if is_said else ""
    truth, whole, keep = photo, trace, ()
    if rng.random() < options.keeps:
        photo, trace, whole = add_grain(photo, trace, rng, key)
        if is_said and rng.random() < 0.5:
            truth, keep = photo, ("grain",)
    if not is_said:  # without a caption the grain is removed
        return photo, truth, trace, ""
    words = instruction(whole, rng, keep) if rng.random() < 0.5 else caption(whole, keep)
    return photo, truth, trace, words


def add_grain(
    photo: np.ndarray, trace: Trace, rng: np.random.Generator, key: str
) -> tuple[np.ndarray, Trace, Trace]:
    """Give a photo film grain of its own.

    Grain that stays in the truth must be the grain that is seen. So it is added before all else,
    and the recipe's own grain, of another size and added later, is taken out of the trace.

    Args:
        photo: uint8 (S, S, 3).
        trace: How it will be degraded.
        rng: Seeds the grain.
        key: Key of the pair.

    Returns:
        The photo with grain, the trace without any, and a trace of both, for the caption.
    """
    grain = GRAIN.draw(photo.shape[:2], 1, int(rng.integers(2**62)), key)
    rest = [step for step in trace.steps if step["kind"] != "film_grain"]
    trace = trace.model_copy(update={"steps": rest})
    return replay(grain, photo), trace, trace.model_copy(update={"steps": [*grain.steps, *rest]})


def make_pair(
    photos: Photos,
    recipe: Recipe,
    options: PairOptions,
    rng: np.random.Generator,
    key: str,
    factor: int = 4,
    enlarge: Enlarge = bicubic,
) -> dict:
    """Make the parts of a pair that are stored.

    Args:
        photos: Where crops come from.
        recipe: What degrades them.
        options: Size of the crop, and shares of tasks.
        rng: Draws the crop and the task.
        key: Names the pair; the recipe draws from it.
        factor: Pixels per latent on a side.
        enlarge: Gives the degraded picture its size.

    Returns:
        `truth` and `conditioning`, uint8 (H, W, 3), `trust`, uint8, and `caption`.
    """
    more = {"factor": factor, "enlarge": enlarge}
    pair = draw_pair(photos, recipe, options, rng, key, options.crop, **more)
    return {name: getattr(pair, name) for name in ("truth", "conditioning", "trust", "caption")}
