"""Checkpoints: under its final name a checkpoint is complete."""

import errno
import json
import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from restore.checkpoints import manifest
from restore.errors import ConfigError, ModelError, OutputError
from restore.files import TEMPORARY, is_temporary, sync_folder
from restore.storage import sealed, tensor_files
from restore.training import sharding

log = logging.getLogger(__name__)
FILES = {"model.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json"}
STEP = re.compile(r"step_(\d{8,})")
PARTIAL = re.compile(r"\.step_\d{8,}\.partial")


def steps(folder: Path) -> list[Path]:
    """The checkpoints of a folder, complete or damaged, oldest first; other files of such names are
    left out.
    """
    found = ((STEP.fullmatch(path.name), path) for path in folder.glob("step_*"))
    ours = [(int(named[1]), path) for named, path in found if named and _is_ours(path)]
    return [path for _, path in sorted(ours)]


def _is_ours(folder: Path) -> bool:
    is_plain = folder.is_dir() and not folder.is_symlink()
    return is_plain and any((folder / name).is_file() for name in FILES)


def _discard(folder: Path) -> None:
    """Remove a checkpoint's files, and its folder unless there is anything else in it."""
    for name in (*FILES, manifest.NAME):
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):
        folder.rmdir()


def is_valid(folder: Path) -> bool:
    """Whether the manifest is there, lists all files of a checkpoint, and every file matches it."""
    try:
        manifest.check(folder)
        text = (folder / manifest.NAME).read_text()
        listed = manifest.read(text.encode())
    except (ValueError, OSError):
        return False
    return listed.keys() >= FILES and text == json.dumps(listed, indent=1) + "\n"


@dataclass(frozen=True)
class State:
    """What training changes. All randomness is a function of (seed, step), so there is no generator
    state.
    """

    model: nn.Module
    """The module that is trained."""
    ema: list[Tensor]
    """The averaged weights, in the order of the trained parameters."""
    optimizer: Optimizer
    scaler: torch.amp.GradScaler | None = None
    """The gradient scaler of fp16."""


@dataclass(frozen=True)
class Progress:
    """How far training has come."""

    step: int = 0
    """Updates done."""
    position: int = 0
    """Samples of the stream that were used; -1 if that was not recorded."""
    seconds: float = 0
    """Seconds that training took so far."""
    options: Mapping[str, Any] | None = None
    """The options of the run so far, as JSON holds them."""
    contents: Mapping[str, str] | None = None
    """Digests of what these name; None: they were not recorded."""


def progress(folder: Path) -> Progress:
    """How far a valid checkpoint had come, by its contents: its folder may have been renamed."""
    return _progress(_read_values(folder))


def save(folder: Path, progress: Progress, state: State, keep: int, is_writer: bool = True) -> Path:
    """Write folder/step_N with a manifest, then remove all checkpoints but the newest `keep`.

    Old checkpoints are removed only when the new one has its final name.

    Args:
        folder: The run's folder.
        progress: How far training has come.
        state: What is saved.
        keep: Number of checkpoints kept.
        is_writer: False in all processes but one: they only lend their parts of what is cut.

    Returns:
        The folder of the new checkpoint.

    Raises:
        OutputError: If it cannot be written; older checkpoints are kept.
    """
    target = folder / f"step_{progress.step:08d}"
    partial = folder / f".{target.name}.partial"
    found = _collect(state, is_writer)
    if not is_writer:
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _discard(partial)
        partial.mkdir()
        _write(partial, progress, state, found)
        if _is_ours(target):
            _discard(target)
        partial.rename(target)
        sync_folder(folder)
    except (OSError, SafetensorError) as error:
        _discard(partial)
        raise OutputError(
            f"{target}: the checkpoint cannot be written ({_why(error)}); those before it stay: "
            "make room, then run the same command to go on"
        ) from error
    for old in steps(folder)[:-keep]:
        _discard(old)
    return target


def _collect(state: State, is_writer: bool) -> dict[str, dict[str, Tensor]]:
    """The tensors of each file, for the process that writes them."""
    moments = state.optimizer.state_dict()["state"]
    files = {
        "model": state.model.state_dict(),
        "ema": {f"{i}": p for i, p in enumerate(state.ema)},
        "optimizer": {f"{i}.{k}": v for i, s in moments.items() for k, v in s.items()},
    }
    found: dict[str, dict[str, Tensor]] = {file: {} for file in files}
    for file, tensors in files.items():
        for name, tensor in tensors.items():
            if (whole := sharding.gather(tensor)) is not tensor:
                whole = whole.cpu()  # all of them whole would fill the device
            if is_writer:
                found[file][name] = whole.contiguous()
    return found


def _write(
    folder: Path, progress: Progress, state: State, found: dict[str, dict[str, Tensor]]
) -> None:
    for file, tensors in found.items():
        save_file(tensors, folder / f"{file}.safetensors")
    values: dict[str, Any] = {"step": progress.step, "position": progress.position}
    values |= {"seconds": progress.seconds, "options": progress.options}
    values |= {"contents": progress.contents}
    values |= {"scaler": state.scaler.state_dict() if state.scaler else {}}
    (folder / "state.json").write_text(json.dumps(values, indent=1))
    manifest.write(folder)
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_folder(folder)


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    return getattr(error, "strerror", None) or str(error)


def latest(folder: Path) -> Path | None:
    """The newest checkpoint whose manifest holds.

    A damaged one is renamed to damaged_..., with a warning.
    """
    for path in reversed(steps(folder)):
        if is_valid(path):
            return path
        names = (
            f"damaged_{path.name}{ending}" for ending in chain([""], map("_{}".format, count(2)))
        )
        aside = next(place for place in map(path.with_name, names) if not os.path.lexists(place))
        log.warning(
            "%s is damaged (its manifest does not hold); put aside as %s, trying the one before",
            *(path, aside.name),
        )
        path.rename(aside)
    return None


def sweep(folder: Path) -> None:
    """Remove what a killed run left unfinished in its folder."""
    for partial in folder.glob(".step_*.partial"):
        if PARTIAL.fullmatch(partial.name) and partial.is_dir() and not partial.is_symlink():
            _discard(partial)
    for left in folder.glob(f"{TEMPORARY}*"):  # a preview, the log, the options
        if is_temporary(left):
            left.unlink()
    manifest.sweep(folder)


def resume(path: Path, state: State) -> Progress:
    """Load a checkpoint into the state.

    Args:
        path: The folder of the checkpoint.
        state: What is loaded into, in place.

    Returns:
        How far training had come.

    Raises:
        ConfigError: If the checkpoint is of another model; nothing is loaded then.
        ModelError: If a file is not as the manifest says, or changes while it is read.
    """
    with sealed.sealing():
        try:
            return _resume(path, state)
        except (OSError, ValueError) as error:
            raise ModelError(f"{path}: cannot be read: {error}; try resume=latest") from error


def _resume(path: Path, state: State) -> Progress:
    _expect(path)
    weights = tensor_files.load(path / "model.safetensors")[0]
    averages = tensor_files.load(path / "ema.safetensors")[0]
    _refuse_others(path, state, weights, averages)
    here = state.model.state_dict()
    state.model.load_state_dict({k: sharding.cut_like(v, here[k]) for k, v in weights.items()})
    for i, average in enumerate(state.ema):
        average.copy_(sharding.cut_like(averages[str(i)], average))
    moments: dict[int, dict[str, Tensor]] = {}
    trained = [weight for group in state.optimizer.param_groups for weight in group["params"]]
    for name, tensor in tensor_files.load(path / "optimizer.safetensors")[0].items():
        index, key = name.split(".", 1)
        weight, held = trained[int(index)], moments.setdefault(int(index), {})
        # A fused update needs weights and moments in the same memory format.
        is_alike = tensor.shape == weight.shape
        held[key] = _placed_as(weight, tensor) if is_alike else tensor
    state.optimizer.load_state_dict({**state.optimizer.state_dict(), "state": moments})
    values = _read_values(path)
    if state.scaler and values.get("scaler"):
        state.scaler.load_state_dict(values["scaler"])
    return _progress(values)


def _read_values(path: Path) -> dict[str, Any]:
    return json.loads(sealed.read(path / "state.json"))


def _progress(values: Mapping[str, Any]) -> Progress:
    rest = values.get("position", -1), values.get("seconds", 0.0), values.get("options")
    return Progress(values["step"], *rest, values.get("contents"))


def _placed_as(weight: Tensor, moment: Tensor) -> Tensor:
    return torch.empty_like(weight).copy_(sharding.cut_like(moment, weight))


def _expect(path: Path) -> None:
    """Make sure that what is loaded of a checkpoint is as its manifest says."""
    manifest_file = path / manifest.NAME
    for name, digest in manifest.read(sealed.read(manifest_file)).items():
        sealed.expect(path / name, digest)
    sealed.sha256(manifest_file)


def _refuse_others(
    path: Path, state: State, model: Mapping[str, Tensor], ema: Mapping[str, Tensor]
) -> None:
    wanted = {name: list(tensor.shape) for name, tensor in state.model.state_dict().items()}
    averages = {str(i): list(tensor.shape) for i, tensor in enumerate(state.ema)}
    for tensors, shapes in ((model, wanted), (ema, averages)):
        found = {name: list(tensor.shape) for name, tensor in tensors.items()}
        for name in sorted(shapes.keys() | found.keys()):
            if shapes.get(name) != found.get(name):
                message = f"{name} has the shape {found.get(name)}, the configuration asks for"
                raise ConfigError(
                    f"{path}: is of another model: {message} {shapes.get(name)}; give the "
                    "configuration it was made with, or another output"
                )
