"""Models that a client may name, one of them in memory at a time."""

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore.batch.models import ModelChoice, OpenedModel, is_pixel, parse_lora
from restore.checkpoints import (
    configs,
    controlnet,
    engines,
    file_kinds,
    hub,
    library,
    model_paths,
)
from restore.checkpoints.arguments import Engine
from restore.errors import ModelError, RestoreError, UsageError
from restore.options import UpscaleOptions
from restore.web.adapters import Adapters
from restore.web.requests import TaskRequest

if TYPE_CHECKING:
    from restore.checkpoints.arguments import Model

DEFAULT = "nano"  # as the command line's
NONE = Adapters()
PIXEL_TASKS = ["upscale"]
TASKS = ["upscale", "inpaint", "img2img", "text2img"]
WEIGHTS = (".safetensors", *file_kinds.PICKLED_PIXELS, *hub.PICKLED)
Stamps = tuple[tuple[str, int, int, int], ...]


class Models:
    """The models that ship, those in the user's library, and those given when the server started.

    A client names a model and adapters; it cannot have a path opened. With engine onnx there are
    only the given models, because what ships and what the library holds is for torch.

    Args:
        given: Names or paths from the command line.
        device: Device to load models on, as --device of the command line.
        dtype: Precision, as --dtype of the command line.
        engine: Computes the networks, as --engine of the command line.
        adapters: LoRAs and ControlNets that may be named.

    Raises:
        UsageError: The engine is onnx, but no model is given; or two have the same name.
        ConfigError: The engine does not support the device or the precision.
        ModelError: The engine is onnx, and a given model is not an export.
    """

    def __init__(
        self,
        given: Sequence[str] = (),
        device: str = "auto",
        dtype: str = "auto",
        engine: Engine = "torch",
        adapters: Adapters = NONE,
    ):
        self.device, self.dtype, self.engine, self.adapters = device, dtype, engine, adapters
        self._given: dict[str, str] = {}
        for path in given:
            name = Path(path).name or path
            if self._given.setdefault(name, path) != path:
                raise UsageError(f"--model {path}: another model is called {name!r} too")
        if engine == "onnx":
            if not given:
                mend = "--model FOLDER names one; `restore export nano -o FOLDER` makes it"
                raise UsageError(f"--engine onnx: needs an exported model: {mend}")
            for name in given:
                engines.refuse(name, device, dtype)
        self._opened: Opened | None = None

    @property
    def first(self) -> str:
        """Name of the default model."""
        return next(iter(self._given), DEFAULT)

    def list_models(self) -> list[dict[str, Any]]:
        """List all models as dicts with `name`, `tasks`, `takes` and `about`.

        `takes` says which adapters a model may take: "lora", "controlnet".
        """
        if self.engine == "onnx":
            return [
                {
                    "name": name,
                    "tasks": PIXEL_TASKS if is_pixel(place) else TASKS,
                    "takes": [],
                    "about": "",
                }
                for name, place in self._given.items()
            ]
        found: dict[str, dict[str, Any]] = {}
        for name in dict.fromkeys([*self._given, DEFAULT, *model_paths.list_shipped()]):
            takes = adapters_of(self._given.get(name, name))
            tasks = TASKS if takes else PIXEL_TASKS
            found[name] = {"name": name, "tasks": tasks, "takes": takes, "about": ""}
        for entry in library.list_user_models():
            if not entry.fault:
                takes = adapters_of(entry.name)
                kind = {"name": entry.name, "tasks": TASKS if takes else PIXEL_TASKS}
                scale = entry.about.get("scale", "")
                parts = entry.about.get("architecture", ""), f"x{scale}" if scale else ""
                about = ", ".join(filter(None, parts))
                found.setdefault(entry.name, {**kind, "takes": takes})["about"] = about
        return list(found.values())

    def require_given(self) -> None:
        """Raise ModelError if a given model is missing here, and no name of the hub's."""
        for name in self._given.values():
            if not hub.HUB_ID.fullmatch(name) or Path(name).suffix in WEIGHTS:
                library.path_of(name)

    def scale_of(self, name: str) -> float:
        """Return the scale of `upscale` without one; 1 if it is known only once the model loads."""
        place = model_paths.find_path(self._given.get(name or self.first, name or self.first))
        if place.is_dir():
            pixels = configs.about(place).pixels
            return pixels.scale if pixels else UpscaleOptions().scale
        if not place.is_file() or not file_kinds.is_pixel(place):
            return UpscaleOptions().scale
        is_plain = place.suffix.casefold() == ".safetensors"
        told = file_kinds.header(place)[1].get("scale", "") if is_plain else ""
        return float(told) if told.isdigit() else 1.0

    def require(self, name: str, task: str) -> None:
        """Check that a model exists and can do a task; the default one if the name is empty.

        Raises:
            UsageError: It does not exist or cannot do the task.
        """
        name = name or self.first
        tasks = {one["name"]: one["tasks"] for one in self.list_models()}
        if name not in tasks:
            raise UsageError(f"request: model: there is no {name!r}; there are {', '.join(tasks)}")
        if task not in tasks[name]:
            raise UsageError(f"request: model: {name} cannot do {task}")

    def choose(self, given: TaskRequest, control_image: Path | None = None) -> ModelChoice:
        """Return the model of a request with its adapters, as the command line would choose it.

        Args:
            given: The request. If it names no model, the default one is meant.
            control_image: The uploaded picture for its ControlNet.

        Raises:
            UsageError: It names an adapter that does not exist.
        """
        loras = [parse_lora(one) for one in given.lora]
        net = self.adapters.controlnet(given.controlnet) if given.controlnet else None
        name = given.model or self.first
        return ModelChoice(
            self._given.get(name, name),
            self.device,
            self.dtype,
            loras=tuple((str(self.adapters.lora(name)), scale) for name, scale in loras),
            controlnet=None if net is None else str(net),
            controlnet_scale=given.controlnet_scale,
            control_image=control_image,
            engine=self.engine,
        )

    def check(self, given: TaskRequest, control_image: Path | None = None) -> None:
        """Refuse what can be refused before anything is loaded.

        Raises:
            RestoreError: The model cannot do what is asked; the text is the command line's.
        """
        with self.hiding_paths(*([control_image.parent] if control_image else [])):
            choice = self.choose(given, control_image)
            choice.refuse_beside_pixel()
            steering = choice.controlnet, choice.controlnet_scale, choice.control_image
            found = controlnet.find(*steering, offline=True)
            if found:
                found.require(given.task)

    def open(self, choice: ModelChoice) -> OpenedModel:
        """Load a model, and unload the one before it, unless it is the same and has not changed.

        Another picture for the same ControlNet loads nothing. Results record the names that
        clients know, not paths of this machine.

        Raises:
            ModelError: It cannot be loaded.
        """
        wanted = replace(choice, control_image=None)
        stamps = stamps_of(wanted)
        if self._opened is None or (self._opened.choice, self._opened.stamps) != (wanted, stamps):
            self._opened = None
            gc.collect()  # two at once may be more than there is memory for
            self._opened = Opened(wanted, stamps, wanted.open())
        opened = self._opened.model
        if choice.controlnet and choice.control_image:
            opened = self._opened.steered_by(Path(choice.control_image))
        steered = dict(opened.steered)
        for key in ("controlnet", "control_image"):
            if key in steered:
                steered[key] = Path(str(steered[key])).name
        return replace(opened, name=self._named(opened.name), steered=steered)

    def _named(self, path: str) -> str:
        return next((name for name, given in self._given.items() if given == path), path)

    @contextmanager
    def hiding_paths(self, *folders: Path) -> Iterator[None]:
        """Replace paths by the names that clients know, in the texts of errors.

        Args:
            folders: Where uploads are.
        """
        try:
            yield
        except RestoreError as error:
            text = self.hide_paths(str(error))
            for folder in folders:
                text = text.replace(f"{folder}{os.sep}", "")
            error.args = (text,)
            raise

    def hide_paths(self, text: str) -> str:
        """Replace the paths of models and adapters by their names."""
        known = {**self._given, **self.adapters.list_loras(), **self.adapters.list_controlnets()}
        paths = {str(path): name for name, path in known.items() if Path(path).is_absolute()}
        for path in sorted(paths, key=len, reverse=True):
            text = text.replace(path, paths[path])
        return text


@dataclass(frozen=True)
class Opened:
    """The model in memory.

    Attributes:
        choice: What was asked for, without the ControlNet's picture.
        stamps: Of its files, as `stamps_of` returns them.
        model: The model.
    """

    choice: ModelChoice
    stamps: Stamps
    model: OpenedModel

    @cached_property
    def unsteered(self) -> str:
        """The digest of the model's weights without the ControlNet."""
        return replace(self.choice, controlnet=None, controlnet_scale=1.0).open().weights

    def steered_by(self, image: Path) -> OpenedModel:
        """The same model with this picture as its ControlNet's input."""
        how = self.choice
        found = controlnet.find(how.controlnet, how.controlnet_scale, image, offline=True)
        assert found is not None
        weights, load = found.with_digest(self.unsteered), self.model.stack

        @cache
        def stack() -> "Model":
            model: Any = load()
            control = replace(model.control, picture=controlnet.read_picture(image))
            return replace(model, control=control, digest=weights)

        record = {"steered": found.record, "weights": weights, "pinned": None}
        return replace(self.model, stack=stack, **record)


def stamps_of(choice: ModelChoice) -> Stamps:
    """Return path, size and time of the files of a model and its adapters, to see changes."""
    places = [model_paths.find_path(choice.name)]
    for name in (*(file for file, _ in choice.loras), choice.controlnet):
        places += [Path(name)] if name else []
    places += [Path(file).with_name(hub.PEFT_CONFIG) for file, _ in choice.loras]
    found = []
    for place in places:
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            with suppress(OSError):
                state = path.stat()
                found.append((str(path), state.st_size, state.st_mtime_ns, state.st_ino))
    return tuple(found)


def adapters_of(name: str) -> list[str]:
    """Return the kinds of adapters that a model may take; none if it is a pixel upscaler."""
    place = model_paths.find_path(name)
    try:
        if is_pixel(name):
            return []
        is_ours = place.is_dir() and configs.about(place).trust
    except ModelError:  # the job that names it will say why
        is_ours = False
    return ["lora"] if is_ours else ["lora", "controlnet"]
