"""The arguments of loading, and what it returns; checked before anything is read, without torch."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, get_args

from restore.checkpoints import controlnet, model_paths
from restore.errors import ConfigError, UsageError, near

if TYPE_CHECKING:  # torch loads where it is needed
    from restore.diffusion.lazy_stack import LazyStack
    from restore.diffusion.stack import Stack
    from restore.pixel.model import PixelModel

    Model = Stack | PixelModel | LazyStack

Engine = Literal["torch", "onnx"]
PATHS = ("config", "controlnet", "control_image")


class Loading(TypedDict, total=False):
    """Arguments of restore.checkpoints.load.load."""

    revision: str | None
    offline: bool
    allow_pickle: bool
    config: str | Path | None
    loras: Sequence[tuple[str | Path, float] | str | Path]
    controlnet: str | Path | None
    controlnet_scale: float
    control_image: str | Path | None


class Placing(TypedDict, total=False):
    """Arguments that restore.checkpoints.devices.load has beside those of Loading."""

    compiled: bool
    offload: bool


KNOWN = {*Loading.__annotations__, *Placing.__annotations__}


def check(name: str, engine: str, more: Mapping[str, Any]) -> dict[str, Any]:
    """Check the arguments of loading a model; return `more` with paths as text.

    Args:
        name: The model.
        engine: What computes it.
        more: Arguments of devices.load. A LoRA without a scale has the scale 1.

    Raises:
        ConfigError: If one is unknown or of another type, or the model would ignore it.
        UsageError: If a ControlNet's picture or scale is given without one.
    """
    refuse_unknown(more)
    if engine not in get_args(Engine):
        raise ConfigError(f"engine {engine!r}: there are {', '.join(get_args(Engine))}")
    texts = {key: to_text(key, more[key]) for key in PATHS if more.get(key) is not None}
    known = {**more, **texts, "loras": parse_loras(more.get("loras") or ())}
    if known.get("controlnet") is None:
        scale = to_number("controlnet_scale", known.get("controlnet_scale", 1.0))
        controlnet.find(None, scale, known.get("control_image"))
    place = model_paths.find_path(name)
    if known.get("revision") and place.exists():
        raise ConfigError(f"revision {known['revision']}: is for the hub's models; {name} is here")
    refuse_configs(name, place, known.get("config"))
    return known


def refuse_configs(name: str, place: Path, config: str | None) -> None:
    """Raise UsageError if configs are given for a folder, which has its own."""
    if config and place.is_dir():
        raise UsageError(f"--config-from: {name} is a folder and has configs of its own")


def refuse_unknown(more: Mapping[str, Any]) -> None:
    """Raise ConfigError if a name is no argument of loading; it suggests the nearest."""
    for name in more:
        if name not in KNOWN:
            mend = near(name, {*KNOWN, "device", "dtype"})
            raise ConfigError(f"{name} is no argument of loading a model{mend}")


def parse_loras(given: Any) -> list[tuple[str, float]]:
    """Return (file, scale) of each LoRA. Raises ConfigError if it is no list of them."""
    if isinstance(given, str | os.PathLike):
        raise ConfigError(f"loras: give a list, such as loras=[({os.fspath(given)!r}, 0.8)]")
    loras = []
    for entry in given:
        pair = (entry, 1.0) if isinstance(entry, str | os.PathLike) else entry
        if not isinstance(pair, Sequence) or len(pair) != 2:
            raise ConfigError(f"loras: {entry!r} is no LoRA; write (FILE, SCALE)")
        loras.append((to_text("loras", pair[0]), to_number("loras", pair[1])))
    return loras


def to_text(argument: str, given: Any) -> str:
    """Return a name or path as text. Raises ConfigError if it is neither."""
    if isinstance(given, str | os.PathLike):
        return os.fspath(given)
    raise ConfigError(f"{argument}: {given!r} is no name and no path")


def to_place(argument: str, given: Any) -> str:
    """Return a model's name or path as text, the path of a file or folder absolute.

    What is loaded later, or by another process, is then the same in any working folder.
    """
    text = to_text(argument, given)
    is_path = model_paths.find_path(text) == Path(text) and os.path.exists(text)
    return os.path.abspath(text) if is_path else text


def to_number(argument: str, given: Any) -> float:
    """Return a scale as it is. Raises ConfigError if it is no finite number."""
    if hasattr(given, "__float__") and math.isfinite(given):
        return given  # as it is: 1 and 1.0 have digests of their own
    raise ConfigError(f"{argument}: {given!r} is no finite number")
