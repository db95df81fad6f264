"""The faithful restorer of nano, which tempers the results of other people's upscalers."""

from functools import cache
from typing import TYPE_CHECKING

from restore.checkpoints import lazy_stack, manifest, model_paths
from restore.checkpoints.locks import one_at_a_time

if TYPE_CHECKING:
    import torch

    from restore.diffusion.compact import FirstStage


@cache
@one_at_a_time
def load(device: "torch.device") -> "FirstStage":
    """Load nano's first stage in fp32; once a device. Raises ModelError if it is damaged."""
    path, digest = manifest.find_model(model_paths.FAITHFUL)
    with manifest.unchanged(path, digest):
        stage = lazy_stack.read(path)
    return stage.requires_grad_(False).eval().to(device)
