"""Captions of how a picture was degraded, and instructions of what to remove, in users' words."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from degradations import Trace

LEVELS = ("slight", "some", "strong")
Step = dict[str, Any]  # a step of a trace: its kind and what was drawn


class Word(NamedTuple):
    """How captions describe a kind of op; kinds with the same word share its thresholds."""

    word: str
    """The word in captions; ops may share one."""
    strength: Callable[[Step], float]
    """The strength of a step of a trace, in units of the op's own."""
    faint: float
    """Strength below which the caption leaves the damage out."""
    some: float
    """Strength from which on the damage is called "some"."""
    strong: float
    """Strength from which on the damage is called "strong"."""


def _at(name: str, times: float = 1) -> Callable[[Step], float]:
    return lambda step: step[name] * times


def _coarseness(step: Step) -> float:
    return 100 - round(step["quality"])


def _gain(step: Step) -> float:
    """How much stronger one channel is than another."""
    return max(step["gains"]) / max(min(step["gains"]), 1e-3) - 1


def _opacity(step: Step) -> float:
    return step["opacity"] if step["count"] else 0


def _levels_apart(step: Step) -> float:
    return 256 / step["levels"]


def _shift(step: Step) -> float:
    return max(abs(step["x"]), abs(step["y"]))


WORDS = {  # by kind, in the order in which they are said
    "gaussian_noise": Word("noise", _at("sigma_levels"), 1, 5, 15),
    "poisson_noise": Word("noise", _at("scale", 8), 1, 5, 15),
    "compat_poisson_noise": Word("noise", _at("scale", 8), 1, 5, 15),
    "sensor_noise": Word("sensor noise", _at("shot"), 1e-4, 1e-3, 4e-3),
    "speckle": Word("speckle", _at("sigma"), 0.01, 0.05, 0.1),
    "film_grain": Word("film grain", _at("sigma_levels"), 1, 6, 12),
    "jpeg": Word("jpeg", _coarseness, 6, 25, 50),
    "compat_jpeg": Word("jpeg", _coarseness, 6, 25, 50),
    "webp": Word("webp compression", _coarseness, 6, 25, 50),
    "avif": Word("avif compression", _coarseness, 6, 30, 55),
    "h264": Word("video compression", _at("crf"), 15, 25, 32),
    "blur": Word("blur", lambda step: max(step["sigma"]), 0.5, 1, 2),
    "motion_blur": Word("motion blur", _at("length"), 1, 4, 9),
    "defocus": Word("defocus", _at("radius"), 0.5, 1, 2.5),
    "sinc": Word("ringing", lambda step: math.pi - step["cutoff"], 0.3, 1, 1.7),
    "compat_sinc": Word("ringing", lambda step: math.pi - step["cutoff"], 0.3, 1, 1.7),
    "sharpen": Word("halos", _at("amount"), 0.1, 0.5, 1),
    "fade": Word("fading", _at("amount"), 0.05, 0.2, 0.4),
    "cast": Word("colour cast", _gain, 0.05, 0.2, 0.4),
    "chroma_shift": Word("colour shift", _shift, 0.5, 1, 2),
    "banding": Word("banding", _levels_apart, 1.5, 4, 16),
    "halftone": Word("halftone", _at("strength"), 0.05, 0.4, 0.7),
    "scan_lines": Word("scan lines", _at("strength"), 0.03, 0.1, 0.3),
    "scratches": Word("scratches", _opacity, 0.05, 0.4, 0.8),
    "dust": Word("dust", _opacity, 0.05, 0.4, 0.8),
    "folds": Word("folds", _opacity, 0.05, 0.4, 0.8),
    "stains": Word("stains", _opacity, 0.05, 0.3, 0.5),
}
SILENT = ("resize", "compat_resize")  # the scale says it
SHORT = {  # shorter words that instructions use
    "film grain": "grain",
    "sensor noise": "noise",
    "motion blur": "blur",
    "webp compression": "compression",
    "avif compression": "compression",
    "video compression": "compression",
}


def vocabulary() -> list[str]:
    """Every word that a caption may hold; numbers are spelled."""
    said = ["clean", "keep", "remove", *LEVELS, *(word.word for word in WORDS.values())]
    return sorted({word for words in said for word in words.split()})


def level_word(value: float, some: float, strong: float) -> str:
    return LEVELS[(value >= some) + (value >= strong)]


def describe_damage(trace: Trace, keep: Sequence[str] = ()) -> dict[str, str]:
    """Describe the worst of each kind of damage: {"noise": "strong noise"}; ops of users are left
    out.

    Args:
        trace: How the picture was degraded.
        keep: Kinds that are wanted as they are, by their short names.
    """
    worst: dict[str, float] = {}
    for step in trace.steps:
        if wording := WORDS.get(step["kind"]):
            worst[wording.word] = max(wording.strength(step), worst.get(wording.word, 0))
    levels = {wording.word: wording for wording in WORDS.values()}
    described = {}
    for word, wording in levels.items():
        strength = worst.get(word, 0)
        if strength < wording.faint or SHORT.get(word, word) in keep:
            continue
        jpeg = f"jpeg {100 - strength}" if word == "jpeg" else None
        described[word] = jpeg or f"{level_word(strength, wording.some, wording.strong)} {word}"
    return described


def caption(trace: Trace, keep: Sequence[str] = ()) -> str:
    """The trace as a short description: "strong noise, jpeg 42, some blur"; "clean" if there is no
    damage.

    Blur is in pixels of the original. What is kept is not called damage: "strong noise, keep
    grain".

    Args:
        trace: How the picture was degraded.
        keep: Kinds that are wanted as they are, by their short names.
    """
    kept = [f"keep {name}" for name in keep]
    return ", ".join([*describe_damage(trace, keep).values(), *kept]) or "clean"


def instruction(trace: Trace, rng: np.random.Generator, keep: Sequence[str] = ()) -> str:
    """The trace as an instruction: "remove noise, keep grain"; "clean" if there is no damage.

    It names all that is kept, but only some of the damage and no level, because users do not name
    all that they want removed. The order is random.

    Args:
        trace: How the picture was degraded.
        rng: Draws what is named.
        keep: Kinds that are wanted as they are, by their short names.
    """
    kinds = sorted({SHORT.get(word, word) for word in describe_damage(trace, keep)})
    named = rng.permutation(kinds)[: int(rng.integers(1, len(kinds) + 1))] if kinds else []
    said = [*(f"remove {kind}" for kind in named), *(f"keep {name}" for name in keep)]
    return ", ".join(rng.permutation(said)) if said else "clean"
