"""Checkpoints: complete under their final name or not there at all."""

import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from restore import manifest

log = logging.getLogger(__name__)


def is_valid(folder: Path) -> bool:
    """Whether the manifest is there and every file that it lists is as it was written."""
    try:
        manifest.check(folder)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class State:
    """What moves in training. Chance is a function of (seed, step), so the step is all it adds."""

    model: nn.Module
    ema: list[Tensor]
    optimizer: Optimizer


def save(folder: Path, step: int, state: State, keep: int) -> Path:
    """Write folder/step_N with a manifest, then prune all but the newest `keep`.

    The old ones go only after the new one stands under its final name.
    """
    target = folder / f"step_{step:08d}"
    partial = folder / f".{target.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    weights = {k: v.contiguous() for k, v in state.model.state_dict().items()}
    save_file(weights, partial / "model.safetensors")
    save_file(
        {f"{i}": p.contiguous() for i, p in enumerate(state.ema)}, partial / "ema.safetensors"
    )
    moments = state.optimizer.state_dict()["state"]
    tensors = {f"{i}.{k}": v.contiguous() for i, s in moments.items() for k, v in s.items()}
    save_file(tensors, partial / "optimizer.safetensors")
    (partial / "state.json").write_text(json.dumps({"step": step}))
    manifest.write(partial)
    for path in partial.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    for old in sorted(folder.glob("step_*"))[:-keep]:
        shutil.rmtree(old)
    return target


def latest(folder: Path) -> Path | None:
    """The newest checkpoint whose manifest holds; a broken one is passed over with a warning."""
    for path in sorted(folder.glob("step_*"), reverse=True):
        if is_valid(path):
            return path
        log.warning("%s is damaged (its manifest does not hold); trying the one before", path)
    return None


def resume(path: Path, state: State) -> int:
    """Put a checkpoint's tensors into the state; returns its step."""
    state.model.load_state_dict(load_file(path / "model.safetensors"))
    averages = load_file(path / "ema.safetensors")
    for i, average in enumerate(state.ema):
        average.copy_(averages[str(i)])
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in load_file(path / "optimizer.safetensors").items():
        index, key = name.split(".", 1)
        moments.setdefault(int(index), {})[key] = tensor
    state.optimizer.load_state_dict({**state.optimizer.state_dict(), "state": moments})
    return json.loads((path / "state.json").read_text())["step"]
