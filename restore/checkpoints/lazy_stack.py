"""Load only the first stage of a model folder, for runs without sampling; without diffusers."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from restore.checkpoints import configs, manifest
from restore.checkpoints.locks import one_at_a_time
from restore.diffusion.lazy_stack import LazyStack
from restore.errors import ModelError
from restore.storage import sealed

if TYPE_CHECKING:
    from restore.checkpoints.weights import Weights
    from restore.diffusion.compact import Enlarging, FirstStage, Fusing
    from restore.diffusion.stack import Stack


@one_at_a_time
def load(
    path: Path, name: str, digest: str, device: str, dtype: str, rest: Callable[[], "Stack"]
) -> LazyStack:
    """Load the first stage of a folder that has one (`has_first_stage`).

    Args:
        path: The model folder.
        name: The model's name in messages.
        digest: Of the folder.
        device: auto, cpu, cuda or mps.
        dtype: auto, fp32, bf16 or fp16.
        rest: Loads the whole stack. LazyStack.load raises ModelError if its weights have changed.

    Raises:
        ModelError: As components.build.
    """
    import torch

    from restore.checkpoints import accelerators

    target = accelerators.find(device)
    with manifest.unchanged(path, digest):
        stage = read(path)
        stack = about(path, stage, name, digest, rest)
    stage.requires_grad_(False).eval().to(target)
    stage.precision = accelerators.precision(dtype, target)
    stack.is_half = stage.precision != torch.float32
    stack.device, stack.parts = target, [stage]
    return stack


def has_first_stage(path: Path) -> bool:
    """Whether a model is one of our folders that works without sampling. Raises ModelError."""
    if not sealed.is_dir(path / "restorer"):
        return False
    config = configs.about(path)
    return config.trust and config.windows is not None


def about(
    path: Path, stage: object, name: str, digest: str, rest: Callable[[], "Stack"]
) -> LazyStack:
    """Make a LazyStack from a first stage and the folder's stack.json.

    Args:
        path: The model folder.
        stage: The first stage.
        name: Name of the model in messages.
        digest: Of the weights; if `rest` loads others, that is an error.
        rest: Loads the whole stack.
    """
    config = configs.about(path)
    assert config.windows is not None
    step = factor(path)

    def whole() -> "Stack":
        made = rest()
        if made.digest != digest:
            raise ModelError(f"{name}: changed since the run began; run it again")
        return made

    return LazyStack(
        restorer=stage,
        fidelity=config.fidelity,
        restore_steps=config.restore_steps,
        span=(config.windows.size * step, config.windows.stride * step),
        rest=whole,
        steps=config.steps,
        prompts_describe=config.hears,
        name=name,
        digest=digest,
    )


def factor(path: Path) -> int:
    """Return the pixels per latent on a side, from the VAE's config. Raises ModelError."""
    config = configs.of(path, "vae")
    widths = config.get("encoder_block_out_channels", config.get("block_out_channels"))
    if not isinstance(widths, list) or not 1 <= len(widths) <= 16:
        raise ModelError(f"{path / 'vae'}: its config names no widths of blocks; copy it again")
    return 2 ** (len(widths) - 1)


def read(folder: Path) -> "FirstStage":
    """Load the first stage in fp32 on the CPU. Raises ModelError."""
    from restore.checkpoints import weights
    from restore.diffusion.compact import Enlarging, FirstStage, Fusing

    rich = network(folder, "restorer", Enlarging(), weights.read_weights(folder, "restorer"))
    path, faithful, fusion = folder / "restorer" / weights.FAITHFUL, None, None
    if sealed.is_file(path):
        faithful = network(folder, "restorer", Enlarging(), weights.read_file(path))
    if sealed.is_dir(folder / "fusion"):
        fusion = network(folder, "fusion", Fusing(), weights.read_weights(folder, "fusion"))
    return FirstStage(rich, faithful, fusion)


def network(
    folder: Path, part: str, empty: "Enlarging | Fusing", tensors: "Weights"
) -> "Enlarging | Fusing":
    """Load the weights of one network of the first stage.

    Args:
        folder: The model folder.
        part: The network's folder within it.
        empty: A network without layers yet; it gets those of the part's config.
        tensors: The weights by name.
    """
    import torch

    from restore.checkpoints import weights

    config = configs.first_stage(folder, part)
    with torch.device("meta"):
        empty.fill(config.channels, config.layers)
    weights.fill(empty, tensors, f"{folder}: its {part}")
    return empty.to(memory_format=torch.channels_last)
