"""Encoders of the prompt for cross-attention, one in each module (latent diffusion's tau).

Each takes a string and returns tokens (1, n, width): of words, a class, or labelled boxes.
"""

from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, get_args

from torch import Tensor

from restore.errors import ModelError

Kind = Literal["text", "classes", "boxes"]


class Context(Protocol):
    """What the stack needs of a context encoder.

    Training uses two steps, so that workers can prepare prompts and stack them to batches:
    `tokens(inputs(prompt)[None])` equals `embed(prompt)` for any prompt that fits `inputs`.

    Attributes:
        kind: The value of "context" in stack.json.
        module: The nn.Module that is trained, moved and saved.
    """

    kind: ClassVar[Any]  # a Kind
    module: Any

    def inputs(self, prompt: str) -> Tensor:
        """Prepare the module's input, of one shape for all prompts; no gradient, on the CPU."""
        ...

    def tokens(self, inputs: Tensor) -> Tensor:
        """Encode a batch of `inputs` to (B, n, width)."""
        ...

    def embed(self, prompt: str, clip_skip: int = 0) -> Tensor:
        """Encode a prompt to (1, n, width).

        Args:
            prompt: "" is the unconditional one.
            clip_skip: Last layers to skip, for text encoders.

        Raises:
            UsageError: If the prompt cannot be read.
        """
        ...

    def save(self, folder: Path) -> None: ...


def load(folder: Path, kind: str) -> Context:
    """Load the classes or boxes of one of our model folders, in fp32 on the CPU.

    Args:
        folder: The model folder.
        kind: "context" in its stack.json.

    Raises:
        ModelError: If it is another kind.
    """
    # Imported here, so that one kind does not load the other.
    if kind == "classes":
        from restore.diffusion.contexts.classes import ClassContext

        return ClassContext.load(folder)
    if kind == "boxes":
        from restore.diffusion.contexts.boxes import BoxContext

        return BoxContext.load(folder)
    raise ModelError(
        f"{folder}: stack.json: context {kind!r} is none of {', '.join(get_args(Kind))}"
    )
