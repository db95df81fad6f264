"""Many files: planned, made one by one, and written down in a journal.

`restore.batch.run` is a whole run as one call, `restore.batch.open_model` gives it its model.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from restore.batch.folder import prepare, run, run_words
    from restore.batch.models import open_model

__all__ = ["open_model", "prepare", "run", "run_words"]


def __getattr__(name: str) -> object:
    """What is public, loaded when it is asked for: a module of this package needs none of it."""
    if name in __all__:
        module = "models" if name == "open_model" else "folder"
        return getattr(import_module(f"restore.batch.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
