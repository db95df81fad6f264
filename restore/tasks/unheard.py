"""Options that were given and do not apply: to sampling where there is none, or to other models."""

from collections.abc import Collection
from dataclasses import replace

from restore.errors import ConfigError
from restore.images.picture import Picture
from restore.options import InpaintOptions, UpscaleOptions, WalkOptions

OF_A_WALK = WalkOptions.model_fields.keys() - {"steps", "windows"}
BY_SAMPLING = "for sampling alone"
OF_THE_START = {"strength"}
OF_A_MODEL = WalkOptions.model_fields.keys() - {"windows"} | {"strength", "context"}
OF_GUIDANCE = ("negative", "rescale")
OF_WORDS = ("prompt", "negative", "clip_skip")


def warn(result: Picture, options: UpscaleOptions, is_painted: bool = False) -> Picture:
    """Warn of what a result without sampling steps did not hear.

    Args:
        result: The result.
        options: Those that differ from their defaults are named.
        is_painted: Whether its damage was then filled by sampling.
    """
    given = _given(options, OF_THE_START if is_painted else OF_THE_START | OF_A_WALK)
    if not given:
        return result
    steps = 2 if "strength" in given else 1  # one step begins at pure noise
    note = f"{BY_SAMPLING}, which this model leaves out; add --steps {steps}"
    return replace(result, warnings=(*result.warnings, f"{_are(given)} {note}"))


def warn_of_filling(result: Picture, options: InpaintOptions) -> Picture:
    """Warn of what a hole that was filled without a model did not hear."""
    if not (given := _given(options, OF_A_MODEL)):
        return result
    note = f"{_are(given)} for a model alone, not for this filling; add --engine model"
    return replace(result, warnings=(*result.warnings, note))


def warn_of_words(result: Picture, options: WalkOptions, name: str, *, has_words: bool) -> Picture:
    """Warn of words, and what belongs to them, that changed nothing.

    Args:
        result: The result.
        options: Those that differ from their defaults were given.
        name: Of the model.
        has_words: Whether the model has an encoder of prompts.
    """
    if any(BY_SAMPLING in note for note in result.warnings):  # told already
        return result
    words, guided = _given(options, OF_WORDS), _given(options, OF_GUIDANCE)
    if words and not has_words:
        note = f"{_are(words)} without effect: {name} has no text encoder"
    elif guided and options.guidance <= 1:
        note = f"{_are(guided)} for a guidance above 1 alone; it is {options.guidance:g}"
    else:
        return result
    return replace(result, warnings=(*result.warnings, note))


def refuse(
    options: UpscaleOptions, name: str, *, has_first_stage: bool, has_noise_levels: bool
) -> None:
    """Refuse options of other models than this one.

    Args:
        options: Those that differ from their defaults were given.
        name: Of the model.
        has_first_stage: Whether it is enlarged by a first stage of ours.
        has_noise_levels: Whether it is told how much noise its input has.

    Raises:
        ConfigError: Names the option.
    """
    if _is_set(options, "noise_level") and not has_noise_levels:
        raise ConfigError(f"noise_level is for SD's x4 upscaler; {name} reads none: leave it out")
    if has_first_stage:
        return
    if options.fidelity is not None:
        raise ConfigError(f"fidelity is for models with a first stage; {name} has none")
    if _is_set(options, "unfade"):
        raise ConfigError(f"unfade is for models with a first stage; {name} has none")
    if options.steps == 0:
        raise ConfigError(f"0 steps are for models with a first stage; {name} has none")


def _given(options: WalkOptions, names: Collection[str]) -> list[str]:
    return [name for name in type(options).model_fields if name in names and _is_set(options, name)]


def _are(names: list[str]) -> str:
    if len(names) > 1:
        return f"{', '.join(names)} are"
    return f"the {names[0]} {'are' if names[0].endswith('s') else 'is'}"


def _is_set(options: WalkOptions, name: str) -> bool:
    return getattr(options, name) != type(options).model_fields[name].get_default()
