"""The models that a client may name, and the one that is in memory."""

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from restore.batch.models import OpenedModel, open_model
from restore.checkpoints import library, places
from restore.errors import UsageError

DEFAULT = "nano"  # as the command line's
PIXEL_TASKS = ["upscale"]
TASKS = ["upscale", "inpaint", "img2img", "text2img"]


class Models:
    """Those that ship, the user's own, and those that the server was started with.

    A client names one; a path of its choice is never opened.
    """

    def __init__(self, given: Sequence[str] = (), device: str = "auto", dtype: str = "auto"):
        self.device, self.dtype = device, dtype
        self._given = {Path(name).name or name: name for name in given}
        self._opened: OpenedModel | None = None

    @property
    def first(self) -> str:
        """What is used where none is named."""
        return next(iter(self._given), DEFAULT)

    def listed(self) -> list[dict[str, Any]]:
        """Name and tasks of each."""
        found: dict[str, dict[str, Any]] = {}
        for name in dict.fromkeys([*self._given, DEFAULT, *places.shipped()]):
            found[name] = {"name": name, "tasks": TASKS, "about": ""}
        for held in library.held():
            if not held.fault:
                parts = held.about.get("architecture", ""), f"x{held.about.get('scale', '?')}"
                about = ", ".join(filter(None, parts))
                found.setdefault(held.name, {"name": held.name, "tasks": PIXEL_TASKS})
                found[held.name]["about"] = about
        return list(found.values())

    def require(self, name: str, task: str) -> None:
        """Raises UsageError if there is none of that name, or it cannot do the task."""
        known = {one["name"]: one["tasks"] for one in self.listed()}
        if name not in known:
            raise UsageError(f"request: model: there is no {name!r}; there are {', '.join(known)}")
        if task not in known[name]:
            raise UsageError(f"request: model: {name} cannot do {task}")

    def open(self, name: str) -> OpenedModel:
        """The model, which takes the place of the one before it. Raises ModelError."""
        place = self._given.get(name, name)
        if self._opened is None or self._opened.name != place:
            self._opened = None
            gc.collect()  # two at once may be more than there is memory for
            self._opened = open_model(place, self.device, self.dtype)
        return self._opened
