"""Ops that are not ours: a class in a user's file, of an installed package, or albumentations.

Nothing is imported before a recipe names it and the user allows that. A trace never imports files.
"""

import importlib
import importlib.util
import json
import sys
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from importlib.machinery import PathFinder, SourceFileLoader
from importlib.metadata import entry_points
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import numpy as np
from pydantic import ValidationError

from degradations import consent
from degradations.errors import RecipeError, mend
from degradations.ops.op import Op, Params, Size
from degradations.rng import Rng

ENTRY_POINTS = "degradations.ops"
ALBUMENTATIONS = "albumentations"  # the kind of its transforms, which `transform` names
_TWICE = 16  # pictures on which an op has to give the same result twice
_ROUNDING = 1e-3  # a quarter of a level: a blur of white may end a little above white
_files: dict[str, tuple[str, str]] = {}  # by module: where it was loaded from, and the sha256
_registered: dict[str, type[Op]] = {}  # by kind: what recipes have named in this process
_runs: Counter[str] = Counter()


def read(value: Any, kind: str, folder: Path | None) -> Op | None:
    """A step of a recipe as an op.

    Args:
        value: The op itself, or its values.
        kind: Its kind.
        folder: Folder of the recipe, where user files are looked for first.

    Returns:
        The op; None if nothing is called `kind`.

    Raises:
        RecipeError: If the values do not fit the op, or its code may not run or cannot be imported.
    """
    if isinstance(value, Op):
        _register(kind, type(value))
        return value
    model = _installed(kind) or _from_module(kind, folder)
    if model is None:
        return None
    _register(kind, model)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        messages = [_explain(kind, model, detail) for detail in error.errors()]
        raise RecipeError("; ".join(messages)) from error


def find(kind: str) -> type[Op] | None:
    """The op class of a step in a trace: an installed one, or one that a recipe named before."""
    return _registered.get(kind) or _installed(kind)


def files(values: Any) -> dict[str, tuple[str, str]]:
    """The files that the steps of a dumped recipe need in another process: {module: (path,
    sha256)}.
    """
    if isinstance(values, list):
        values = dict(enumerate(values))
    if not isinstance(values, dict):
        return {}
    module = str(values.get("kind")).rpartition(".")[0]
    found = {module: _files[module]} if module in _files else {}
    for value in values.values():
        found |= files(value)
    return found


def load(module: str, path: str, digest: str) -> None:
    """Load a module from the file that another process loaded it from.

    Raises:
        RecipeError: If the file is missing or has changed.
    """
    if not Path(path).is_file():
        raise RecipeError(
            f"there is no {path}, which the recipe's {module} was loaded from; keep it there for "
            "as long as worker processes start, or put it on their Python path as a module"
        )
    data = Path(path).read_bytes()
    if sha256(data).hexdigest() != digest:
        raise RecipeError(f"{path}: changed while it was used; run again")
    _from_file(module, Path(path), data)


def draw(step: Op, rng: Rng) -> Params:
    """Draw an op's parameters, as JSON will give them back.

    Raises:
        RecipeError: If the op's own code fails, or returns what JSON cannot hold.
    """
    try:
        drawn = json.loads(json.dumps(dict(step.draw(rng)), allow_nan=False))
        if "kind" in drawn:
            raise ValueError("'kind' names the op itself; call the parameter otherwise")
        return drawn
    except Exception as error:  # whatever a user's code may raise
        raise RecipeError(
            f"{step.kind}: draw failed: {error!r}; it has to return a dictionary of plain numbers, "
            "words and lists"
        ) from error


def apply(kind: str, op: type[Op], rgb: np.ndarray, params: Params, target: Size) -> np.ndarray:
    """Apply an op and check that it keeps the contract of Op.

    Values beyond [0, 1] that earlier steps made, such as a resize or noise, are clipped first.

    Args:
        kind: Its kind, for messages.
        op: The class.
        rgb: float32 (H, W, 3).
        params: What the op drew.
        target: (height, width) that the whole recipe ends at.

    Raises:
        RecipeError: If the op breaks the contract; the message says how to mend it.
    """
    _runs[kind] += 1
    rgb = np.clip(rgb, 0, 1)
    out = _apply(kind, op, rgb, params, target)
    wrong = _find_breach(out, rgb.shape)
    if not wrong and _runs[kind] <= _TWICE:
        again = _apply(kind, op, rgb, params, target)
        if _find_breach(again, rgb.shape) or again.tobytes() != out.tobytes():
            wrong = "gives another result for the same params; draw all that is random in draw()"
    if wrong:
        raise RecipeError(f"{kind}: apply {wrong}")
    return out


def _apply(kind: str, op: type[Op], rgb: np.ndarray, params: Params, target: Size) -> np.ndarray:
    lent = rgb.view()
    lent.flags.writeable = False
    try:
        return op.apply(lent, json.loads(json.dumps(params)), target)
    except RecipeError:
        raise
    except Exception as error:  # whatever a user's code may raise
        raise RecipeError(f"{kind}: apply failed: {error!r} with params {params}") from error


def _find_breach(out: Any, shape: tuple[int, ...]) -> str:
    if not isinstance(out, np.ndarray) or out.dtype != np.float32:
        what = out.dtype if isinstance(out, np.ndarray) else type(out).__name__
        return f"gives {what}; return a float32 array: out.astype(np.float32)"
    if out.shape != shape:
        return f"gives the shape {out.shape} for {shape}; keep it, `resize` changes sizes"
    if not np.isfinite(out).all():
        return "gives NaN or infinity; look for a division by 0 or the root of a negative number"
    if out.min() < -_ROUNDING or out.max() > 1 + _ROUNDING:
        return f"gives values from {out.min():g} to {out.max():g}; end with np.clip(out, 0, 1)"
    return ""


def _explain(kind: str, model: type[Op], detail: Any) -> str:
    place = ".".join(map(str, detail["loc"]))
    if detail["type"] == "extra_forbidden":
        return f"{place} is not an option of {kind}; {mend(place, model.model_fields)}"
    return f"{kind}: {place + ': ' if place else ''}{detail['msg'].removeprefix('Value error, ')}"


def _register(kind: str, model: Any) -> None:
    if not (isinstance(model, type) and issubclass(model, Op)):
        raise RecipeError(f"{kind} is no op; make it a class derived from degradations.ops.Op")
    if _registered.setdefault(kind, model) is not model:
        raise RecipeError(
            f"{kind} is another class than the {kind} of an earlier recipe; rename one of them"
        )


def _installed(kind: str) -> Any:
    if kind == ALBUMENTATIONS:
        return importlib.import_module("degradations.ops.albumentations").Albumentations
    return next((point.load() for point in entry_points(group=ENTRY_POINTS, name=kind)), None)


def _from_module(kind: str, folder: Path | None) -> Any:
    """my_ops.Rust: the class Rust of my_ops.py beside the recipe, or of the module my_ops."""
    *parts, name = kind.split(".")
    if not parts or not all(part.isidentifier() for part in (*parts, name)):
        return None
    if parts[0] == ALBUMENTATIONS:
        message = f"{kind}: a transform of albumentations is written with its name apart"
        raise RecipeError(f"{message}: {{kind: {ALBUMENTATIONS}, transform: {name}}}")
    module = _module(".".join(parts), folder)
    held = vars(module)  # some modules import more when they are asked for a name
    if name not in held:
        place = held.get("__file__") or module.__name__
        raise RecipeError(f"{place} has no class {name}; {mend(name, held)}")
    return held[name]


def _module(name: str, folder: Path | None) -> ModuleType:
    path = folder and folder.resolve().joinpath(*name.split(".")).with_suffix(".py")
    try:
        if path and path.is_file():
            return _from_file(name, path, path.read_bytes())
        if name in sys.modules:
            return sys.modules[name]
        for place in _places(name):
            consent.require(place, place.read_bytes())
        return importlib.import_module(name)
    except RecipeError:
        raise
    except Exception as error:  # whatever a user's file may raise
        if isinstance(error, ModuleNotFoundError) and name.startswith(error.name or "?"):
            missing = f"there is no {path or name + '.py'}, nor a module {name} on the Python path"
            raise RecipeError(f"{missing}; put the file beside the recipe") from error
        raise RecipeError(f"{path or name} cannot be imported: {error!r}") from error


def _places(name: str) -> Iterator[Path]:
    """The files that importing a module would run, found without running any."""
    parts, paths = name.split("."), None
    for count in range(1, len(parts) + 1):
        whole = ".".join(parts[:count])
        if whole in sys.modules:
            paths = getattr(sys.modules[whole], "__path__", [])
            continue
        spec = PathFinder.find_spec(whole, paths)
        if spec is None:
            raise ModuleNotFoundError(whole, name=whole)
        paths = spec.submodule_search_locations or []
        if spec.origin and Path(spec.origin).suffix == ".py":
            yield Path(spec.origin)
        elif spec.origin:
            raise RecipeError(f"{spec.origin}: is no Python file; name an op of one")


class _Loader(SourceFileLoader):
    """Runs exactly the bytes that were allowed, not a compiled file beside them."""

    def __init__(self, name: str, path: str, data: bytes):
        super().__init__(name, path)
        self._data = data

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self._data, self.path)


def _from_file(name: str, path: Path, data: bytes) -> ModuleType:
    if name in sys.modules:
        module = sys.modules[name]
        if module.__file__ != str(path):
            raise RecipeError(
                f"{path}: a module {name} is loaded from {module.__file__}; rename yours"
            )
        return module
    consent.require(path, data)
    loader = _Loader(name, str(path), data)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec and spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    _files[name] = str(path), sha256(data).hexdigest()
    return module
