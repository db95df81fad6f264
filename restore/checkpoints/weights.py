"""Read the weights of a component and check them key by key; without diffusers."""

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from restore.checkpoints import hub
from restore.errors import ModelError

Weights = dict[str, Tensor]
CLIP_PREFIX = "text_model."  # of CLIPTextModel's keys before transformers 5.6, and in most files
FAITHFUL = "diffusion_pytorch_model.faithful.safetensors"  # a variant, as diffusers names them
UNUSED = ("position_ids", "text_projection", "text_projection.weight", "logit_scale")
OLD_NAMES = {  # of attention layers before diffusers 0.12
    "query": "to_q",
    "key": "to_k",
    "value": "to_v",
    "proj_attn": "to_out.0",
}


def read_weights(folder: Path, part: str, allow_pickle: bool = False) -> Weights:
    """Read all tensors of a component. Raises ModelError if they cannot be read."""
    files = hub.weight_files(folder / part)
    if not files:
        raise ModelError(
            f"{folder / part}: has no weights (diffusion_pytorch_model or model, .safetensors); "
            "copy or download the part again"
        )
    hub.refuse_pickles(files, allow_pickle)
    return {name: tensor for path in files for name, tensor in read_file(path).items()}


def read_file(path: Path) -> Weights:
    """Read the tensors of one file. Raises ModelError if it is damaged."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        held = torch.load(path, map_location="cpu", weights_only=True)
        held = held.get("state_dict", held)
        return {name: value for name, value in held.items() if isinstance(value, Tensor)}
    except (SafetensorError, RuntimeError, OSError, ValueError, EOFError) as error:
        raise ModelError(f"{path}: cannot be read, copy it again: {error}") from error
    except Exception as error:
        if type(error).__name__ != "UnpicklingError":
            raise
        raise ModelError(f"{path}: holds more than tensors, which is never loaded") from error


def fill(module: nn.Module, weights: Weights, what: str) -> None:
    """Copy weights into a module.

    Args:
        module: The module.
        weights: Exactly the tensors that it needs, by today's or older names.
        what: Its name in messages.

    Raises:
        ModelError: If tensors are missing, unknown or of other shapes.
    """
    wanted = module.state_dict()
    weights = {renamed(name, wanted): tensor for name, tensor in weights.items()}
    unused = {name for name in weights.keys() - wanted.keys() if name.endswith(UNUSED)}
    for said, names in (
        ("lacks", wanted.keys() - weights.keys()),
        ("has unknown", weights.keys() - wanted.keys() - unused),
    ):
        if names:
            raise ModelError(f"{what} {said} {len(names)} tensors: {first(names)}; {MEND}")
    wrong = [name for name in wanted if wanted[name].shape != weights[name].shape]
    if wrong:
        shown = [f"{n} {tuple(weights[n].shape)}, not {tuple(wanted[n].shape)}" for n in wrong]
        raise ModelError(f"{what} has {len(wrong)} tensors of other shapes: {first(shown)}; {MEND}")
    # Copies, because memory-mapped tensors change with the file and may not be aligned.
    copies = {
        name: weights[name].to(
            torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True
        )
        for name, tensor in wanted.items()
    }
    module.load_state_dict(copies, assign=True)


MEND = "config and weights are not of the same model, or the file is cut; copy it again"


def first(names: Iterable[str], count: int = 3) -> str:
    """Format the first names, sorted, and how many are left out."""
    names = sorted(names)
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


def renamed(name: str, wanted: Weights) -> str:
    """Return today's name of a tensor, if it has an older one."""
    if name in wanted:
        return name
    for other in (name.removeprefix(CLIP_PREFIX), CLIP_PREFIX + name):
        if other in wanted:
            return other
    for old, new in OLD_NAMES.items():
        other = name.replace(f".{old}.", f".{new}.")
        if other in wanted:
            return other
    return name
