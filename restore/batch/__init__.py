"""Work on many files: plan the jobs, do them one by one, record each in a journal.

`restore.batch.run` does a whole run in one call. `restore.batch.open_model` opens its model.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from restore.batch.folder import prepare, run
    from restore.batch.models import open_model
    from restore.batch.words import run_words

__all__ = ["open_model", "prepare", "run", "run_words"]


def __getattr__(name: str) -> object:
    """Load a public name at its first use, so that importing one module here stays cheap."""
    if name in __all__:
        module = {"open_model": "models", "run_words": "words"}.get(name, "folder")
        return getattr(import_module(f"restore.batch.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
