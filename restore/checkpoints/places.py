"""Find models by name: those that ship, and the user's own."""

import os
import re
import sys
from pathlib import Path

SHIPPED = Path(__file__).parents[1] / "weights"
PLACE = "RESTORE_MODELS"  # environment variable: another folder for the user's models
NAME = re.compile(r"[a-zA-Z0-9][\w.+-]*", re.ASCII)


def own() -> Path:
    """Return the folder of the user's models, which may not exist yet."""
    if given := os.environ.get(PLACE):
        return Path(given)
    home = Path.home()
    if sys.platform == "win32":
        data = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    else:
        data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    return data / "restore" / "models"


def own_file(name: str) -> Path:
    """Return the file of the user's model of that name, whether it exists or not."""
    return own() / f"{name}.safetensors"


def has_own(name: str) -> bool:
    return bool(NAME.fullmatch(name)) and own_file(name).is_file()


def shipped() -> list[str]:
    return sorted(path.name for path in SHIPPED.iterdir() if path.is_dir())


def names() -> list[str]:
    """Return the names of all models that need no path."""
    return [*shipped(), *sorted(path.stem for path in own().glob("*.safetensors"))]


def place_of(name: str) -> Path:
    """Return the folder of a model that ships, the file of the user's, or else the name as a path.

    An existing path has precedence over a user's model.
    """
    if (SHIPPED / name).is_dir():
        return SHIPPED / name
    return own_file(name) if has_own(name) and not Path(name).exists() else Path(name)
