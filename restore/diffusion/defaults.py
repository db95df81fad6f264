"""The default device of torch, which belongs to the program that calls us."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch


@contextmanager
def making_on_cpu() -> Iterator[None]:
    """Make tensors on the CPU in the block, as our code expects, unless a device is named.

    Many programs call torch.set_default_device("cuda").
    """
    is_usual = torch.get_default_device().type == "cpu"
    with nullcontext() if is_usual else torch.device("cpu"):
        yield
