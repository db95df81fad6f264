"""Say which options were given that apply to sampling alone, where there is none."""

from dataclasses import replace

from restore.images.picture import Picture
from restore.options import UpscaleOptions, WalkOptions

OF_A_WALK = WalkOptions.model_fields.keys() - {"steps", "windows"}
OF_THE_START = {"strength", "noise_level"}


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
    note = f"{what} heard by the walk alone, which this model leaves out; add --steps {steps}"
    return replace(result, warnings=(*result.warnings, note))


def _is_set(options: UpscaleOptions, name: str) -> bool:
    return getattr(options, name) != UpscaleOptions.model_fields[name].get_default()
