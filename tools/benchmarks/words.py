"""Effect of words: the right description of the damage against none and a wrong one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from degradations import Trace, recipes, replay
from restore.checkpoints import devices
from restore.diffusion.noise import seed_of
from restore.diffusion.stack import Stack
from restore.errors import ConfigError, ModelError
from restore.images.arrays import to_picture
from restore.images.picture import to_rgb8
from restore.metrics import fidelity, figures
from restore.metrics.measures import MEASURES, Pair
from restore.metrics.score import Row, ScoredFolder
from restore.options import UpscaleOptions
from restore.tasks.run import restore
from restore.training.data.captions import LEVELS, WORDS, caption, level_word
from restore.training.data.crops import Photos
from restore.training.data.pairs import PairOptions, add_grain, draw_trace

TABLE = [MEASURES[name] for name in ("psnr", "ssim", "pd")]
NONE, RIGHT, WRONG, INPUT = "none", "right", "wrong", "input, bicubic"
BORDER = 4  # px a side that are not measured


@dataclass(frozen=True)
class Settings:
    """Settings of the benchmark.

    Attributes:
        photos: Folder of photos.
        model: A model that reads words.
        recipe: Name or file of the recipe that damages.
        count: Number of crops.
        crop: Side of a crop in pixels.
        scales: Scales to enlarge by; 1 restores.
        steps: Sampling steps, 1 or more: words are heard by them alone.
        guidance: Above 1, the right words are also measured with this guidance.
        seed: Seed of crops, damage and sampling.
    """

    photos: Path
    model: str = "nano"
    recipe: str = "realesrgan"
    count: int = 24
    crop: int = 256
    scales: tuple[float, ...] = (4, 1)
    steps: int = 2
    guidance: float = 1
    seed: int = 0


@dataclass
class Case:
    """A damaged picture with its original and descriptions.

    Attributes:
        key: Name of the case.
        truth: The original, uint8 (H, W, 3).
        low: The damaged picture, uint8 (h, w, 3).
        right: The right description.
        wrong: A wrong description.
        results: Results by wording, uint8 (H, W, 3).
    """

    key: str
    truth: np.ndarray
    low: np.ndarray
    right: str
    wrong: str = ""
    results: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass
class Group:
    """Pictures of one kind, with scores for each wording.

    Attributes:
        name: Name of the group.
        cases: Its pictures.
        scored: Scores of the input, and with no, right and wrong words, and right ones with
            guidance.
    """

    name: str
    cases: list[Case]
    scored: list[ScoredFolder]

    def of(self, name: str) -> ScoredFolder:
        """Return the scores of a wording."""
        return next(one for one in self.scored if one.name == name)


def measure(settings: Settings) -> Iterator[Group]:
    """For each scale a group of damaged crops, and one whose photos have grain that is kept.

    Crops, damage and the walks' noise depend on the seed and the photos alone.
    Raises ConfigError for photos, RecipeError for the recipe, ModelError for the model.
    """
    stack = devices.load(settings.model)
    stack.require("upscale")
    if stack.context is None or stack.context.kind != "text":
        raise ModelError(f"{settings.model}: reads no words; name a model with a text encoder")
    found = load_crops(settings)
    for scale in settings.scales:
        yield score_wordings(f"x{scale:g}", make_damaged(settings, found, scale), settings, stack)
    for scale in settings.scales:
        yield score_wordings(
            f"x{scale:g}_grain", make_grainy(settings, found, scale), settings, stack
        )


def load_crops(settings: Settings) -> list[np.ndarray]:
    """Cut uint8 (crop, crop, 3) from photos in random order, one from each before a second."""
    photos = Photos(settings.photos, settings.crop, memory_gb=0, turns=False)
    order = np.random.default_rng(settings.seed).permutation(len(photos)).tolist()
    crops: list[np.ndarray] = []
    unread: set[int] = set()
    for index in cycle(order):
        picture = photos.read(index)
        if picture is not None:
            rng = np.random.default_rng((settings.seed, len(crops)))
            top, left = (int(rng.integers(side - settings.crop + 1)) for side in picture.shape[:2])
            crops.append(picture[top : top + settings.crop, left : left + settings.crop].copy())
        else:
            unread.add(index)
        if len(unread) == len(order):
            raise ConfigError(f"{settings.photos}: none of its pictures can be read")
        if len(crops) == settings.count:
            break
    return crops


def make_damaged(settings: Settings, photos: Sequence[np.ndarray], scale: float) -> list[Case]:
    """Damage all photos as training does; the wrong caption is the most different of the others."""
    cases = [
        Case(key, photo, replay(trace, photo), caption(trace))
        for key, photo, trace, _ in draw_traces(settings, photos, scale)
    ]
    said = ["clean", *(case.right for case in cases)]
    for case in cases:
        case.wrong = max(said, key=lambda other, own=case.right: caption_distance(own, other))
    return cases


def make_grainy(settings: Settings, photos: Sequence[np.ndarray], scale: float) -> list[Case]:
    """Add grain that the original has too: the right caption keeps it, the wrong one removes it."""
    cases = []
    for key, photo, trace, rng in draw_traces(settings, photos, scale):
        truth, rest, whole = add_grain(photo, trace, rng, key)
        captions = caption(whole, ("grain",)), caption(whole)
        cases.append(Case(key, truth, replay(rest, truth), *captions))
    return cases


def draw_traces(
    settings: Settings, photos: Sequence[np.ndarray], scale: float
) -> Iterator[tuple[str, np.ndarray, Trace, np.random.Generator]]:
    """Iterate over (key, photo, its damage, a generator for further draws)."""
    recipe = recipes.find(settings.recipe)
    how = {"scales": {scale: 1}, "recipe": settings.recipe, "clean": 0}
    options = PairOptions(photos=settings.photos, **how)
    for number, photo in enumerate(photos):
        rng = np.random.default_rng((settings.seed, number, 1))
        key = f"{number:03d}"
        yield key, photo, draw_trace(recipe, options, rng, key, settings.crop), rng


def parse_caption(caption: str) -> dict[str, int]:
    """Parse a caption to strengths by word: 1 slight, 2 some, 3 strong."""
    found = {}
    for part in caption.split(", "):
        first, _, rest = part.partition(" ")
        if first == "jpeg":
            coarse = WORDS["jpeg"]
            first, rest = level_word(100 - int(rest), coarse.some, coarse.strong), "jpeg"
        if first in LEVELS:
            found[rest] = 1 + LEVELS.index(first)
    return found


def caption_distance(one: str, other: str) -> int:
    """Sum the differences of two captions' strengths over all words."""
    first, second = parse_caption(one), parse_caption(other)
    return sum(abs(first.get(word, 0) - second.get(word, 0)) for word in first | second)


def score_wordings(name: str, cases: list[Case], settings: Settings, stack: Stack) -> Group:
    """Restore and measure every picture with every wording, from the same noise."""
    guided = f"{RIGHT}, guidance {settings.guidance:g}"
    rows: dict[str, list[Row]] = {}
    for case in track(cases, name, console=Console(stderr=True)):
        wordings = {NONE: ("", 1.0), RIGHT: (case.right, 1.0), WRONG: (case.wrong, 1.0)}
        if settings.guidance > 1:
            wordings[guided] = (case.right, settings.guidance)
        case.results[INPUT] = figures.enlarge(case.low, case.truth.shape[:2])
        how = {"scale": len(case.truth) / len(case.low), "steps": settings.steps}
        seed = seed_of(settings.seed, case.key)
        for who, (prompt, guidance) in wordings.items():
            options = UpscaleOptions(prompt=prompt, guidance=guidance, **how)
            case.results[who] = to_rgb8(restore(to_picture(case.low), options, stack, seed))
        for who, made in case.results.items():
            rows.setdefault(who, []).append(make_row(case, made))
    return Group(name, cases, [ScoredFolder(who, found, {}) for who, found in rows.items()])


def make_row(case: Case, result: np.ndarray) -> Row:
    both = Pair(fidelity.to_levels(result), fidelity.to_levels(case.truth), BORDER)
    values = {measure.name: measure.of(both) for measure in TABLE}
    scores = {name: None if np.isnan(value) else value for name, value in values.items()}
    return {"key": case.key, "status": "done", "scores": scores}
