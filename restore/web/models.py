"""Models that a client may name, one of them in memory at a time."""

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from restore.batch.models import OpenedModel, open_model
from restore.checkpoints import library, model_paths
from restore.errors import UsageError

DEFAULT = "nano"  # as the command line's
PIXEL_TASKS = ["upscale"]
TASKS = ["upscale", "inpaint", "img2img", "text2img"]


class Models:
    """The models that ship, those in the user's library, and those given when the server started.

    A client names a model; it cannot have a path opened.

    Args:
        given: Names or paths from the command line.
        device: Device to load models on, as --device of the command line.
        dtype: Precision, as --dtype of the command line.
    """

    def __init__(self, given: Sequence[str] = (), device: str = "auto", dtype: str = "auto"):
        self.device, self.dtype = device, dtype
        self._given = {Path(name).name or name: name for name in given}
        self._opened: OpenedModel | None = None

    @property
    def first(self) -> str:
        """Name of the default model."""
        return next(iter(self._given), DEFAULT)

    def list_models(self) -> list[dict[str, Any]]:
        """List all models as dicts with `name`, `tasks` and `about`."""
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
        """Check that a model exists and can do a task.

        Raises:
            UsageError: It does not exist or cannot do the task.
        """
        tasks = {one["name"]: one["tasks"] for one in self.list_models()}
        if name not in tasks:
            raise UsageError(f"request: model: there is no {name!r}; there are {', '.join(tasks)}")
        if task not in tasks[name]:
            raise UsageError(f"request: model: {name} cannot do {task}")

    def open(self, name: str) -> OpenedModel:
        """Load a model, and unload the one before it.

        Raises:
            ModelError: It cannot be loaded.
        """
        place = self._given.get(name, name)
        if self._opened is None or self._opened.name != place:
            self._opened = None
            gc.collect()  # two at once may be more than there is memory for
            self._opened = open_model(place, self.device, self.dtype)
        return self._opened
