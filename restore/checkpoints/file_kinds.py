"""Find what a file of weights holds from its name and header, without torch."""

from collections.abc import Mapping
from pathlib import Path

from restore.errors import ConfigError, ModelError
from restore.storage import tensor_files
from restore.storage.tensor_files import TensorFileError

PICKLED_PIXELS = (".pth", ".pt")
TORCH_HEADS = b"PK\x03\x04", b"\x80"  # first bytes of torch.save's files: zip, or older pickles
UNET, VAE, CLIP = "model.diffusion_model.", "first_stage_model.", "cond_stage_model."
XL_CLIP, XL_OPEN_CLIP = "conditioner.embedders.0.transformer.", "conditioner.embedders.1.model."
REFINER = "conditioner.embedders.0.model."  # SDXL's
OTHERS = ("control_model.", "double_blocks.", "joint_blocks.")  # ControlNet, Flux, SD3
LICENCE = ("licence", "license", "modelspec.license")  # in a file's metadata


def is_pixel(path: Path) -> bool:
    """Whether a file of weights is a pixel upscaler, one network from rgb to rgb.

    Raises:
        ModelError: If its header cannot be read.
    """
    if path.suffix.casefold() in PICKLED_PIXELS:
        return True
    if path.suffix.casefold() != ".safetensors":
        return False
    names, _ = header(path)
    return not any(name.startswith((UNET, VAE, CLIP, "conditioner.", *OTHERS)) for name in names)


def is_safetensors(head: bytes) -> bool:
    """Whether these first nine bytes are of a .safetensors file: a length, then JSON."""
    return head[8:9] == b"{"


def is_torchs(head: bytes) -> bool:
    """Whether these first nine bytes are of a file that torch.save wrote."""
    return head.startswith(TORCH_HEADS) and not is_safetensors(head)


def refuse_beside_pixel(
    name: str, compiled: bool, offload: bool, loras: object, controlnet: object
) -> None:
    """Raise ConfigError if a pixel upscaler is asked for what only diffusion models have."""
    asked = {"--compile": compiled, "--offload": offload, "--lora": loras}
    asked["--controlnet"] = controlnet
    if refused := ", ".join(option for option, is_asked in asked.items() if is_asked):
        raise ConfigError(f"{refused}: {name} is a pixel upscaler, one network; leave it out")


def header(path: Path) -> tuple[list[str], Mapping[str, str]]:
    """Return the tensor names and the metadata of a .safetensors file. Raises ModelError."""
    try:
        with path.open("rb") as file:
            if is_torchs(file.read(9)):
                raise ModelError(f"{path}: is what torch.save writes; call it .pth")
        tensors, metadata = tensor_files.header(path)
        return list(tensors), metadata
    except (TensorFileError, OSError) as error:
        raise ModelError(f"{path}: is cut or damaged, copy it again: {error}") from error


def licence(metadata: Mapping[str, str]) -> str:
    """Return the licence in a file's metadata; empty if there is none."""
    return next((metadata[name] for name in LICENCE if metadata.get(name)), "")
