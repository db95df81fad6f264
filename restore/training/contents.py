"""Digests of what the options of a run only name: recipes, models, pictures, wherever they lie."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from degradations import recipes
from degradations.pair_folder import plugin_sources
from restore.checkpoints import manifest, model_paths
from restore.storage import digests
from restore.training.data import sources

PARTS = {  # the part of a model that a stage reads, by the option that names the model
    **{"teacher": "", "autoencoder": "vae", "model": "vae"},
    **{"first_stage": "restorer", "restorer": "restorer", "stack": "restorer"},
}
OF_MODELS = {".safetensors", ".json", ".txt"}
TRIED = 64  # pictures of a dataset whose bytes are read


def of(stage: Any) -> dict[str, str]:
    """The digest of each thing that the stage's options name, by the option's key.

    What is named the same is often no longer the same, and what was moved is.

    Args:
        stage: Options of a stage.
    """
    found, data = {}, getattr(stage, "data", None)
    weights = getattr(data, "recipes", None)
    if weights:
        found["data.recipes"] = [f"{share:g} {_recipe(name)}" for name, share in weights.items()]
    elif name := getattr(data, "recipe", None):
        found["data.recipe"] = [_recipe(name)]
    for key in ("photos", "low"):
        if place := getattr(data, key, None):
            found[f"data.{key}"] = _pictures(place)
    if fonts := getattr(data, "fonts", None):
        found["data.fonts"] = _files(fonts, {".ttf", ".otf"})
    if images := getattr(stage, "images", None):
        found["images"] = _files(images)
    for key, part in PARTS.items():
        value = getattr(stage, key, None)
        if key == "stack" and stage.kind != "fusion":  # a restorer's export alone reads it
            continue
        if isinstance(value, str | Path):
            found[key] = _model(str(value), part)
        elif value is not None:
            found[f"{key}.path"] = _model(str(value.path), part)
    return {f"stage.{key}": _digest(parts) for key, parts in found.items()}


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def _recipe(name: str) -> str:
    if name in recipes.NAMED:
        return name
    recipe = recipes.find(name)
    return _digest([recipe.digest(), *plugin_sources(recipe).values()])


def _pictures(place: sources.Place) -> list[str]:
    """Number, order and size of the files, since hashing would read them all. A pack of a folder
    has those of the folder.
    """
    source = sources.find(place)
    if not isinstance(source, sources.Dataset):
        return [str(size) for size in source.sizes]
    count = len(source.names)
    shown = range(0, count, max(1, count // TRIED))
    return [str(count), *(hashlib.sha256(source.cell(n)[0]).hexdigest() for n in shown)]


def _model(name: str, part: str) -> list[str]:
    path = model_paths.find_path(name)
    if not path.exists():  # of the hub
        return [name]
    return _files(path / part if (path / part).is_dir() else path, OF_MODELS)


def _files(place: Path, suffixes: Iterable[str] = ()) -> list[str]:
    if not place.is_dir():
        return digests.of([place])
    paths = sorted(path for path in place.rglob("*") if path.suffix.lower() in suffixes)
    paths = [path for path in paths if path.name != manifest.NAME]
    return [*(path.relative_to(place).as_posix() for path in paths), *digests.of(paths)]
