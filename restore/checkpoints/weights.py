"""Read the weights of a component and check them key by key; without diffusers."""

import io
import pickle
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor, nn

from restore.checkpoints import hub
from restore.errors import ModelError, first_few
from restore.storage import sealed, tensor_files

Weights = dict[str, Tensor]
CLIP_PREFIX = "text_model."  # of CLIPTextModel's keys before transformers 5.6, and in most files
FAITHFUL = "diffusion_pytorch_model.faithful.safetensors"  # a variant, as diffusers names them
MOST = 2**40  # bytes of a file of weights
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
    if not files and (held := sorted((folder / part).glob("*.safetensors"))):
        raise ModelError(
            f"{held[0]}: is called as no weights are that are read; if it is the variant that you "
            "want, call it diffusion_pytorch_model.safetensors, in a text encoder model.safetensors"
        )
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
            return tensor_files.load(path)[0]
        data = io.BytesIO(sealed.read(path, MOST))
        held = torch.load(data, map_location="cpu", weights_only=True)
        held = held.get("state_dict", held)
        return {name: value for name, value in held.items() if isinstance(value, Tensor)}
    except (ModelError, MemoryError):
        raise
    except pickle.UnpicklingError as error:  # which torch raises for all but tensors
        raise ModelError(f"{path}: holds more than tensors, which is never loaded") from error
    except Exception as error:  # damaged bytes are a program to pickle, which may raise anything
        raise ModelError(f"{path}: cannot be read, copy it again: {error}") from error


def fill(module: nn.Module, weights: Weights, what: str) -> None:
    """Copy weights into a module.

    Args:
        module: The module.
        weights: Exactly the tensors that it needs, by today's or older names. It is emptied, so
            that no tensor is held twice while it is converted.
        what: Its name in messages.

    Raises:
        ModelError: If tensors are missing, unknown or of other shapes.
    """
    expected = module.state_dict()
    for name in list(weights):
        weights[renamed(name, expected)] = weights.pop(name)
    unused = {name for name in weights.keys() - expected.keys() if name.endswith(UNUSED)}
    for verb, names in (
        ("lacks", expected.keys() - weights.keys()),
        ("has unknown", weights.keys() - expected.keys() - unused),
    ):
        if names:
            raise ModelError(f"{what} {verb} {len(names)} tensors: {first(names)}; {MEND}")
    wrong = [name for name in expected if expected[name].shape != weights[name].shape]
    if wrong:
        shapes = [f"{n} {tuple(weights[n].shape)}, not {tuple(expected[n].shape)}" for n in wrong]
        raise ModelError(
            f"{what} has {len(wrong)} tensors of other shapes: {first(shapes)}; {MEND}"
        )
    # Copies, because those that were converted may share memory, and hold more than their own.
    copies = {}
    for name, tensor in expected.items():
        kind = torch.float32 if tensor.is_floating_point() else tensor.dtype
        copies[name] = weights.pop(name).to(kind, copy=True)
    module.load_state_dict(copies, assign=True)


MEND = "config and weights are not of the same model, or the file is cut; copy it again"


def first(names: Iterable[str]) -> str:
    """Format the first names, sorted, and how many are left out."""
    return first_few(sorted(names), 3)


def renamed(name: str, expected: Weights) -> str:
    """Return today's name of a tensor, if it has an older one."""
    if name in expected:
        return name
    for candidate in (name.removeprefix(CLIP_PREFIX), CLIP_PREFIX + name):
        if candidate in expected:
            return candidate
    for old, new in OLD_NAMES.items():
        candidate = name.replace(f".{old}.", f".{new}.")
        if candidate in expected:
            return candidate
    return name
