"""What a prompt becomes before cross-attention reads it: latent diffusion's tau, one a module.

Each takes a string and gives tokens (1, n, width): words, a class, or boxes with labels.
"""

from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, get_args

from torch import Tensor

from restore.errors import ModelError

Kind = Literal["text", "classes", "boxes"]


class Context(Protocol):
    """What the stack needs to know of a context encoder.

    Training goes in two steps, so that prompts can be read by workers and stacked to batches:
    `tokens(inputs(prompt)[None])` is `embed(prompt)` for any prompt that `inputs` takes.
    """

    kind: ClassVar[Any]  # of Kind: stack.json's "context"
    module: Any  # an nn.Module: what is trained, moved and saved

    def inputs(self, prompt: str) -> Tensor:
        """What the module reads, of one shape for all prompts. No gradient, on the CPU."""
        ...

    def tokens(self, inputs: Tensor) -> Tensor:
        """A batch of `inputs` -> (B, n, width)."""
        ...

    def embed(self, prompt: str, clip_skip: int = 0) -> Tensor:
        """(1, n, width); "" is the unconditional answer. UsageError where it cannot be read."""
        ...

    def save(self, folder: Path) -> None: ...


def load(folder: Path, kind: str) -> Context:
    """The classes or boxes of one of our model folders, in fp32 on the CPU.

    Raises ModelError if stack.json names another kind.
    """
    # Here, for the modules need not load one another.
    if kind == "classes":
        from restore.diffusion.contexts.classes import ClassContext

        return ClassContext.load(folder)
    if kind == "boxes":
        from restore.diffusion.contexts.boxes import BoxContext

        return BoxContext.load(folder)
    raise ModelError(
        f"{folder}: stack.json: context {kind!r} is none of {', '.join(get_args(Kind))}"
    )
