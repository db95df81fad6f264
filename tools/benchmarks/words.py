"""Whether words do anything: the right description of the damage against none and a wrong one."""

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
from restore.images.arrays import picture_of
from restore.images.picture import plain
from restore.metrics import fidelity, figures
from restore.metrics.measures import MEASURES, Pair
from restore.metrics.score import Row, Scored
from restore.options import UpscaleOptions
from restore.tasks.run import restore
from restore.training.data.captions import LEVELS, WORDS, caption, level_word
from restore.training.data.crops import Photos
from restore.training.data.pairs import PairOptions, add_grain, draw_trace

TABLE = [MEASURES[name] for name in ("psnr", "ssim", "pd")]
NONE, RIGHT, WRONG, INPUT = "none", "right", "wrong", "input, bicubic"
BORDER = 4  # px a side that are not measured


@dataclass(frozen=True)
class Asked:
    """What is measured, and how."""

    photos: Path
    model: str = "nano"
    recipe: str = "realesrgan"
    count: int = 24
    crop: int = 256  # px
    scales: tuple[float, ...] = (4, 1)
    steps: int = 0  # 0: the model's default
    guidance: float = 1  # above 1 the right words are tried with it as well
    seed: int = 0


@dataclass
class Case:
    """One damaged picture, its truth, and what is said of it."""

    key: str
    truth: np.ndarray  # uint8 (H, W, 3)
    low: np.ndarray  # uint8 (h, w, 3)
    right: str
    wrong: str = ""
    made: dict[str, np.ndarray] = field(default_factory=dict)  # by whose words, uint8 (H, W, 3)


@dataclass
class Group:
    """Pictures of one kind: all as they are scored by whose words restored them."""

    name: str
    cases: list[Case]
    scored: list[Scored]  # the input, none, right, wrong, and right with guidance

    def of(self, name: str) -> Scored:
        return next(one for one in self.scored if one.name == name)


def measure(asked: Asked) -> Iterator[Group]:
    """For each scale a group of damaged crops, and one whose photos have grain that is kept.

    Crops, damage and the walks' noise depend on the seed and the photos alone.
    Raises ConfigError for photos, RecipeError for the recipe, ModelError for the model.
    """
    stack = devices.load(asked.model)
    stack.require("upscale")
    if stack.context is None or stack.context.kind != "text":
        raise ModelError(f"{asked.model}: reads no words; name a model with a text encoder")
    found = crops(asked)
    for scale in asked.scales:
        yield scored(f"x{scale:g}", damaged(asked, found, scale), asked, stack)
    for scale in asked.scales:
        yield scored(f"x{scale:g}_grain", grainy(asked, found, scale), asked, stack)


def crops(asked: Asked) -> list[np.ndarray]:
    """uint8 (crop, crop, 3): one of each photo, in an order of chance, before any gives two."""
    photos = Photos(asked.photos, asked.crop, memory_gb=0, turns=False)
    order = np.random.default_rng(asked.seed).permutation(len(photos)).tolist()
    made: list[np.ndarray] = []
    unread: set[int] = set()
    for index in cycle(order):
        picture = photos.read(index)
        if picture is not None:
            rng = np.random.default_rng((asked.seed, len(made)))
            top, left = (int(rng.integers(side - asked.crop + 1)) for side in picture.shape[:2])
            made.append(picture[top : top + asked.crop, left : left + asked.crop].copy())
        else:
            unread.add(index)
        if len(unread) == len(order):
            raise ConfigError(f"{asked.photos}: none of its pictures can be read")
        if len(made) == asked.count:
            break
    return made


def damaged(asked: Asked, photos: Sequence[np.ndarray], scale: float) -> list[Case]:
    """As training draws damage, all damaged. Said wrongly: the most unlike of what others have."""
    cases = [
        Case(key, photo, replay(trace, photo), caption(trace))
        for key, photo, trace, _ in traced(asked, photos, scale)
    ]
    said = ["clean", *(case.right for case in cases)]
    for case in cases:
        case.wrong = max(said, key=lambda other, own=case.right: unlike(own, other))
    return cases


def grainy(asked: Asked, photos: Sequence[np.ndarray], scale: float) -> list[Case]:
    """Photos with grain of their own, in the truth too: said to be kept, wrongly to be damage."""
    cases = []
    for key, photo, trace, rng in traced(asked, photos, scale):
        truth, rest, whole = add_grain(photo, trace, rng, key)
        told = caption(whole, ("grain",)), caption(whole)
        cases.append(Case(key, truth, replay(rest, truth), *told))
    return cases


def traced(
    asked: Asked, photos: Sequence[np.ndarray], scale: float
) -> Iterator[tuple[str, np.ndarray, Trace, np.random.Generator]]:
    """(key, photo, what is done to it, its further draws)"""
    recipe = recipes.find(asked.recipe)
    how = {"scales": {scale: 1}, "recipe": asked.recipe, "clean": 0}
    options = PairOptions(photos=asked.photos, **how)
    for number, photo in enumerate(photos):
        rng = np.random.default_rng((asked.seed, number, 1))
        key = f"{number:03d}"
        yield key, photo, draw_trace(recipe, options, rng, key, asked.crop), rng


def heard(said: str) -> dict[str, int]:
    """By word how much of it a caption tells of: 1 slight, 2 some, 3 strong."""
    found = {}
    for part in said.split(", "):
        first, _, rest = part.partition(" ")
        if first == "jpeg":
            coarse = WORDS["jpeg"]
            first, rest = level_word(100 - int(rest), coarse.some, coarse.strong), "jpeg"
        if first in LEVELS:
            found[rest] = 1 + LEVELS.index(first)
    return found


def unlike(one: str, other: str) -> int:
    """How far two captions are apart, by levels summed over words."""
    first, second = heard(one), heard(other)
    return sum(abs(first.get(word, 0) - second.get(word, 0)) for word in first | second)


def scored(name: str, cases: list[Case], asked: Asked, stack: Stack) -> Group:
    """Every picture restored with every wording, from the same noise, and measured."""
    guided = f"{RIGHT}, guidance {asked.guidance:g}"
    rows: dict[str, list[Row]] = {}
    for case in track(cases, name, console=Console(stderr=True)):
        wordings = {NONE: ("", 1.0), RIGHT: (case.right, 1.0), WRONG: (case.wrong, 1.0)}
        if asked.guidance > 1:
            wordings[guided] = (case.right, asked.guidance)
        case.made[INPUT] = figures.enlarged(case.low, case.truth.shape[:2])
        how = {"scale": len(case.truth) / len(case.low), "steps": asked.steps or None}
        seed = seed_of(asked.seed, case.key)
        for who, (prompt, guidance) in wordings.items():
            options = UpscaleOptions(prompt=prompt, guidance=guidance, **how)
            case.made[who] = plain(restore(picture_of(case.low), options, stack, seed))
        for who, made in case.made.items():
            rows.setdefault(who, []).append(row(case, made))
    return Group(name, cases, [Scored(who, found, {}) for who, found in rows.items()])


def row(case: Case, made: np.ndarray) -> Row:
    both = Pair(fidelity.levels(made), fidelity.levels(case.truth), BORDER)
    values = {measure.name: measure.of(both) for measure in TABLE}
    scores = {name: None if np.isnan(value) else value for name, value in values.items()}
    return {"key": case.key, "status": "done", "scores": scores}
