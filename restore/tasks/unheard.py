"""Options that were given and do not apply: to sampling where there is none, or to other models."""

from dataclasses import replace

from restore.errors import ConfigError
from restore.images.picture import Picture
from restore.options import UpscaleOptions, WalkOptions

OF_A_WALK = WalkOptions.model_fields.keys() - {"steps", "windows"}
OF_THE_START = {"strength"}


def warn(result: Picture, options: UpscaleOptions, is_painted: bool = False) -> Picture:
    """Warn of what a result without sampling steps did not hear.

    Args:
        result: The result.
        options: Those that differ from their defaults are named.
        is_painted: Whether its damage was then filled by sampling.
    """
    names = OF_THE_START if is_painted else OF_THE_START | OF_A_WALK
    fields = UpscaleOptions.model_fields
    given = [name for name in fields if name in names and _is_set(options, name)]
    if not given:
        return result
    what = f"the {given[0]} is" if len(given) == 1 else f"{', '.join(given)} are"
    steps = 2 if "strength" in given else 1  # one step begins at pure noise
    note = f"{what} for sampling alone, which this model leaves out; add --steps {steps}"
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


def _is_set(options: UpscaleOptions, name: str) -> bool:
    return getattr(options, name) != UpscaleOptions.model_fields[name].get_default()
