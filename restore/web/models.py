"""Models that a client may name, one of them in memory at a time."""

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from restore.batch.models import OpenedModel, is_pixel, open_model
from restore.checkpoints import engines, library, model_paths
from restore.checkpoints.engines import Engine
from restore.errors import UsageError

DEFAULT = "nano"  # as the command line's
PIXEL_TASKS = ["upscale"]
TASKS = ["upscale", "inpaint", "img2img", "text2img"]


class Models:
    """The models that ship, those in the user's library, and those given when the server started.

    A client names a model; it cannot have a path opened. With engine onnx there are only the given
    models, because what ships and what the library holds is for torch.

    Args:
        given: Names or paths from the command line.
        device: Device to load models on, as --device of the command line.
        dtype: Precision, as --dtype of the command line.
        engine: Computes the networks, as --engine of the command line.

    Raises:
        UsageError: The engine is onnx, but no model is given.
        ConfigError: The engine does not support the device or the precision.
        ModelError: The engine is onnx, and a given model is not an export.
    """

    def __init__(
        self,
        given: Sequence[str] = (),
        device: str = "auto",
        dtype: str = "auto",
        engine: Engine = "torch",
    ):
        self.device, self.dtype, self.engine = device, dtype, engine
        self._given = {Path(name).name or name: name for name in given}
        if engine == "onnx":
            if not given:
                mend = "--model FOLDER names one; `restore export nano -o FOLDER` makes it"
                raise UsageError(f"--engine onnx: needs an exported model: {mend}")
            for name in given:
                engines.refuse(name, device, dtype)
        self._opened: OpenedModel | None = None

    @property
    def first(self) -> str:
        """Name of the default model."""
        return next(iter(self._given), DEFAULT)

    def list_models(self) -> list[dict[str, Any]]:
        """List all models as dicts with `name`, `tasks` and `about`."""
        if self.engine == "onnx":
            return [
                {"name": name, "tasks": PIXEL_TASKS if is_pixel(place) else TASKS, "about": ""}
                for name, place in self._given.items()
            ]
        found: dict[str, dict[str, Any]] = {}
        for name in dict.fromkeys([*self._given, DEFAULT, *model_paths.list_shipped()]):
            found[name] = {"name": name, "tasks": TASKS, "about": ""}
        for entry in library.held():
            if not entry.fault:
                parts = entry.about.get("architecture", ""), f"x{entry.about.get('scale', '?')}"
                about = ", ".join(filter(None, parts))
                found.setdefault(entry.name, {"name": entry.name, "tasks": PIXEL_TASKS})
                found[entry.name]["about"] = about
        return list(found.values())

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

    def open(self, name: str) -> OpenedModel:
        """Load a model, or the default one if the name is empty; unload the one before it.

        Raises:
            ModelError: It cannot be loaded.
        """
        name = name or self.first
        place = self._given.get(name, name)
        if self._opened is None or self._opened.name != place:
            self._opened = None
            gc.collect()  # two at once may be more than there is memory for
            self._opened = open_model(place, self.device, self.dtype, engine=self.engine)
        return self._opened
