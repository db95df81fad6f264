"""What a prompt becomes before cross-attention reads it: latent diffusion's tau, one a module.

Each takes a string and gives tokens (1, n, width): words, a class, or boxes with labels.
"""

from pathlib import Path
from typing import Protocol

from torch import Tensor, nn


class Context(Protocol):
    """What the stack needs to know of a context encoder."""

    module: nn.Module  # what is trained, moved and saved

    def embed(self, prompt: str, clip_skip: int = 0) -> Tensor:
        """(1, n, width); "" is the unconditional answer. UsageError where it cannot be read."""
        ...

    def save(self, folder: Path) -> None: ...
