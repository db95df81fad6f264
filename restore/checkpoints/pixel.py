"""Load any pixel upscaler, .pth or .safetensors; spandrel finds its architecture by its keys."""

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from restore.checkpoints import file_kinds, weights
from restore.checkpoints.accelerators import DTYPES
from restore.diffusion import torchvision
from restore.errors import ModelError
from restore.pixel import tail
from restore.pixel.model import PixelModel
from restore.storage import sealed, tensor_files

MEND = "pip install 'restore-toolkit[pixel]'"
FACES = "restores a single cut-out face of 512 px, no whole pictures; take an upscaler"
STRANGE_TENSORS = "torch._utils._rebuild_tensor_v3", "torch.float8"  # in a pickle
TRIED = 32  # side in px of the picture that each network is tried with


def load(path: Path, name: str, digest: str, device: torch.device, dtype: str) -> PixelModel:
    """Load the network of a file onto a device.

    Args:
        path: The file.
        name: The model's name in messages.
        digest: Of the file.
        device: Where it computes.
        dtype: fp32, bf16 or fp16; auto is fp32 on the CPU, and elsewhere fp16 if the network
            supports it.

    Raises:
        ModelError: If the file is damaged, holds more than tensors or an architecture unknown to
            spandrel, or if the network does not support the precision.
    """
    model = read(path, name)
    model.digest = digest
    if dtype == "auto":
        is_quick = device.type != "cpu" and torch.float16 in model.supports
        dtype = "fp16" if is_quick else "fp32"
    if DTYPES[dtype] not in model.supports:
        able = ", ".join(key for key, kind in DTYPES.items() if kind in model.supports)
        raise ModelError(
            f"{name}: {model.about['architecture']} does not compute in {dtype}; --dtype {able}"
        )
    model.network.to(device, DTYPES[dtype])
    return model


def read(path: Path, name: str) -> PixelModel:
    """Load the network of a file in fp32 on the CPU, and try it once."""
    spandrel = import_spandrel()
    state, metadata = read_state(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about how the networks are built
        found, _ = build(spandrel, state, path)
        network = Network(found)
        model = PixelModel(network, found.scale, name=name, about=about(found, metadata))
        supports = {torch.float16: found.supports_half, torch.bfloat16: found.supports_bfloat16}
        model.supports = (torch.float32, *(kind for kind, fits in supports.items() if fits))
        model.wants_whole = found.tiling != spandrel.ModelTiling.SUPPORTED
        network.requires_grad_(False).eval()
        if model.is_convolutional:  # a quarter faster on a CPU
            network.to(memory_format=torch.channels_last)
        try_out(model, path)
    return model


def import_spandrel() -> ModuleType:
    """Import spandrel. Raises ModelError that says how to install it."""
    with torchvision.standing_in():
        try:
            import spandrel
        except ImportError as error:
            raise ModelError(f"pixel upscalers are loaded by spandrel: {MEND} ({error})") from error
    return spandrel


def read_state(path: Path) -> tuple[dict[str, Any], Mapping[str, str]]:
    """Read the tensors and the metadata of a file; a pickle by spandrel's restricted unpickler.

    Raises:
        ModelError: If it is damaged, holds more than tensors, or is not as it was hashed.
    """
    spandrel = import_spandrel()
    try:
        if path.suffix.casefold() == ".safetensors":
            state, metadata = tensor_files.load(path)
            return spandrel.canonicalize_state_dict(state), metadata
        data = sealed.read(path, weights.MOST)
        refuse_code(path, data)
        # its public call takes a path, whose bytes might have changed by now
        held = spandrel.ModelLoader()._load_pth(io.BytesIO(data))
        return spandrel.canonicalize_state_dict(held), {}
    except (ModelError, MemoryError):
        raise
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged or hostile pickle may raise anything
        if "is forbidden" in str(error):
            what = str(error).partition("Global ")[2].removesuffix(" is forbidden")
            if what.strip("'").startswith(STRANGE_TENSORS):
                raise ModelError(
                    f"{path}: its tensors are of float8 or another type that is not read from "
                    "a .pth; take a .safetensors of it"
                ) from error
            raise ModelError(
                f"{path}: holds more than tensors ({what}), which is never loaded, since it may "
                "run code; take a .safetensors of it"
            ) from error
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        what = "holds no tensors by name, or is damaged"
        what = what if isinstance(error, AttributeError) else "is cut or damaged, copy it again"
        raise ModelError(f"{path}: {what}: {reason}") from error


def refuse_code(path: Path, data: bytes) -> None:
    """Raise ModelError for TorchScript, which would run, and for files that are no checkpoint."""
    if file_kinds.is_safetensors(data[:9]):
        raise ModelError(f"{path}: is a .safetensors file; rename it")
    if data.startswith(tensor_files.POINTER):
        raise ModelError(f"{path}: is {tensor_files.OF_LFS}")
    if not file_kinds.is_torchs(data[:9]):
        raise ModelError(f"{path}: is no checkpoint that torch.save wrote; copy it again")
    if b"constants.pkl" in data:  # torch.load detects TorchScript by it
        raise ModelError(
            f"{path}: is TorchScript, a program, and is never run; take the model's .pth or "
            ".safetensors of plain weights"
        )
    if path.suffix.casefold() == ".pt":
        raise ModelError(f"{path}: holds plain weights by the name of a program; call it .pth")


def build(spandrel: ModuleType, state: dict[str, Any], path: Path) -> tuple[Any, dict[str, Tensor]]:
    """Build spandrel's descriptor of a network from rgb to rgb, with weights.

    Returns:
        The descriptor, and the state dict in the checkpoint that it was built from.

    Raises:
        ModelError: If the weights are of no such network.
    """
    try:
        found, fitting = recognise(spandrel, state)
    except spandrel.UnsupportedModelError as error:
        raise ModelError(
            f"{path}: its weights ({', '.join(sorted(map(str, state))[:3])}, ...) are of no "
            f"upscaler that spandrel {spandrel.__version__} knows, nor a whole checkpoint of the "
            "Stable Diffusion family"
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # architectures guess sizes from shapes, and may raise anything
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelError(
            f"{path}: its weights do not make up a network, copy it again: {reason}"
        ) from error
    kind = found.architecture.name
    if not isinstance(found, spandrel.ImageModelDescriptor):
        raise ModelError(f"{path}: {kind} fills holes; what is loaded here enlarges or restores")
    if found.purpose == "FaceSR":
        raise ModelError(f"{path}: {kind} {FACES}")
    channels = found.input_channels, found.output_channels
    if not {*channels} <= {1, 3, 4}:
        raise ModelError(f"{path}: {kind} of {channels} channels: what can be fed is 1, 3 or 4")
    return found, fitting


def recognise(spandrel: ModuleType, state: dict[str, Any]) -> tuple[Any, dict[str, Tensor]]:
    """Build the descriptor of a state dict, or of the one network in a training's checkpoint.

    What lies beside flat weights, such as the number of the iteration, is left out.

    Returns:
        The descriptor and its state dict.

    Raises:
        UnsupportedModelError: spandrel's; if neither it nor what lies in it is a known network.
    """

    def load(weights: dict[str, Tensor]) -> tuple[Any, dict[str, Tensor]]:
        return spandrel.ModelLoader().load_from_state_dict(weights), weights

    try:
        return load({name: part for name, part in state.items() if isinstance(part, Tensor)})
    except spandrel.UnsupportedModelError:
        inside = find_state_dicts(state)
        for held in sorted(inside, key=lambda name: "ema" not in name.casefold()):
            try:
                return load(inside[held])
            except spandrel.UnsupportedModelError:
                continue  # such as an optimizer's
        raise


def find_state_dicts(content: dict[str, Any], name: str = "") -> dict[str, dict[str, Tensor]]:
    """Return the dicts of named tensors inside a checkpoint, by the names that lead to them."""
    found = {}
    for key, value in content.items():
        if not isinstance(value, dict) or not isinstance(key, str):
            continue
        if value and all(isinstance(one, Tensor) for one in value.values()):
            is_parallel = all(str(one).startswith("module.") for one in value)
            found[f"{name}{key}"] = {
                str(one).removeprefix("module." if is_parallel else ""): tensor
                for one, tensor in value.items()
            }
        else:
            found |= find_state_dicts(value, f"{name}{key}.")
    return found


def about(found: Any, metadata: Mapping[str, str]) -> dict[str, str]:
    """Describe a model for `restore models info`, by spandrel's descriptor and its metadata."""
    count = sum(part.numel() for part in found.model.parameters())
    return {
        "architecture": found.architecture.name,
        "purpose": "restores" if found.scale == 1 else "enlarges",
        "scale": str(found.scale),
        "parameters": str(count),
        "tags": ", ".join(found.tags),
        "channels": f"{found.input_channels} in, {found.output_channels} out",
        "licence": file_kinds.licence(metadata),
    }


def try_out(model: PixelModel, path: Path) -> None:
    """Raise ModelError if the network fails on a small picture."""
    wanted = (1, 3, TRIED * model.scale, TRIED * model.scale)
    try:
        with torch.inference_mode():
            made = model.network(torch.full((1, 3, TRIED, TRIED), 0.5))
    except MemoryError:
        raise
    except Exception as error:  # a network with guessed sizes may raise anything
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelError(f"{path}: its network does not compute: {reason}") from error
    if made.shape != wanted:
        raise ModelError(f"{path}: answers {tuple(made.shape)} where {wanted} was due")


class Network(nn.Module):
    """A spandrel network with our interface: rgb in, rgb out, of any size.

    Args:
        found: spandrel's descriptor.
    """

    def __init__(self, found: Any):
        super().__init__()
        self.model = found.model
        if found.architecture.id == "ESRGAN":
            enlarges = found.scale * (self.model.shuffle_factor or 1)
            self.model.model = tail.split(self.model.model, enlarges)
        self._call = found  # pads to the sizes it accepts, and gives it its further inputs
        self._reads, self._answers = found.input_channels, found.output_channels
        # The descriptor clamps its output, so infinity would become white
        self.model.register_forward_hook(self._watch)
        self._is_finite = True

    def forward(self, rgb: Tensor) -> Tensor:
        """rgb (1, 3, h, w) -> rgb (1, 3, scale h, scale w)."""
        if self._reads == 1:  # each channel is a grey picture
            planes = [self._one(plane) for plane in rgb.split(1, 1)]
            return torch.cat([plane.mean(1, keepdim=True) for plane in planes], 1)
        if self._reads == 4:  # alpha is enlarged elsewhere
            rgb = torch.cat([rgb, torch.ones_like(rgb[:, :1])], 1)
        made = self._one(rgb)
        return made.expand(-1, 3, -1, -1) if self._answers == 1 else made[:, :3]

    def _one(self, given: Tensor) -> Tensor:
        made = self._call(given.clone())  # RCAN multiplies its input in place
        return made if self._is_finite else torch.full_like(made, torch.nan)

    def _watch(self, layer: nn.Module, given: object, output: Any) -> None:
        first = output[0] if isinstance(output, tuple | list) else output
        self._is_finite = not bool(first.isinf().any())
