"""A class, by its name or number, encoded as one token."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from restore.diffusion.contexts.labels import number, read, refuse_clip_skip, write


@dataclass
class ClassContext:
    """An embedding for each class, and a last one for no class.

    Attributes:
        module: (len(labels) + 1, width).
        labels: Names of the classes.
    """

    kind: ClassVar[Literal["classes"]] = "classes"
    module: nn.Embedding
    labels: tuple[str, ...]

    def inputs(self, prompt: str) -> Tensor:
        """Return the number of the class, long (), or len(labels) for ""."""
        return torch.tensor(number(prompt, self.labels))

    def tokens(self, inputs: Tensor) -> Tensor:
        """long (B,) -> (B, 1, width)"""
        return self.module(inputs)[:, None]

    def embed(self, prompt: str, clip_skip: int = 0) -> Tensor:
        refuse_clip_skip(clip_skip, self.kind)
        return self.tokens(self.inputs(prompt)[None].to(self.module.weight.device))

    def save(self, folder: Path) -> None:
        write(folder, {"labels": self.labels}, self.module)

    @classmethod
    def load(cls, folder: Path) -> "ClassContext":
        config, tensors = read(folder)
        module = nn.Embedding.from_pretrained(tensors["weight"].float(), freeze=False)
        return cls(module, tuple(config["labels"]))
