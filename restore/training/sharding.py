"""Weights, moments and average cut over the processes: PyTorch's `fully_shard` (FSDP2).

Each process keeps an n-th of the weights, of their moments and of their average. Within a step it
has all weights and gradients, in one piece: a stage calls its networks' parts by themselves, and
leaves some out, which cutting part by part would not survive.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import Tensor, distributed, nn

from restore.training import optim


def shard(losses: nn.Module, accelerator: Accelerator) -> None:
    """Cut a module's weights in place; those of the first process are everyone's.

    Args:
        losses: The module. Its forward pass is what gathers the weights.
        accelerator: The processes.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    with torch.no_grad():
        for tensor in [*losses.parameters(), *losses.buffers()]:
            distributed.broadcast(tensor, 0)
    where = accelerator.device.type
    fully_shard(losses, mesh=init_device_mesh(where, (accelerator.num_processes,)))


def is_sharded(losses: nn.Module) -> bool:
    """Whether `shard` has cut a module."""
    return hasattr(losses, "unshard")


def gather(tensor: Tensor) -> Tensor:
    """The tensor that a cut one is a part of. All processes must ask together."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def cut_like(tensor: Tensor, like: Tensor) -> Tensor:
    """A whole tensor, the same in all processes, cut as another one is, if that one is."""
    if not hasattr(like, "full_tensor"):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    there = tensor.to(like.device, like.dtype)
    return distribute_tensor(there, like.device_mesh, like.placements, src_data_rank=None)


def use_all(loss: Tensor, model: nn.Module) -> Tensor:
    """The loss, with a gradient of zero for the weights that it does not use.

    Gradients are summed over the processes in one piece, so which weights have one must not depend
    on a process's samples.
    """
    used = [p.sum() for p in model.parameters() if p.requires_grad]
    return loss + 0 * torch.stack(used).sum()


@contextmanager
def no_sync(losses: nn.Module) -> Iterator[None]:
    """Within the block gradients stay in their process; a later backward pass sums them."""
    losses.set_requires_gradient_sync(False)
    try:
        yield
    finally:
        losses.set_requires_gradient_sync(True)


@contextmanager
def average_weights(losses: nn.Module, ema: EMAModel, parameters: list[Tensor]) -> Iterator[None]:
    """The EMA weights in the model's place and in one piece. All processes must come in."""
    if not is_sharded(losses):
        with optim.average_weights(ema, parameters):
            yield
        return
    cut = [
        (module, name, p)
        for module in losses.modules()
        for name, p in module.named_parameters(recurse=False)
        if hasattr(p, "full_tensor")
    ]
    averages = dict(zip(parameters, ema.shadow_params, strict=True))
    with torch.no_grad():
        # FSDP's own unshard() would not do: a module that is asked for its state is cut again
        whole = {p: nn.Parameter(gather(averages.get(p, p)), p.requires_grad) for _, _, p in cut}
    for module, name, p in cut:
        setattr(module, name, whole[p])
    try:
        yield
    finally:
        for module, name, p in cut:
            setattr(module, name, p)
