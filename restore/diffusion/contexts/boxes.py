"""Labelled boxes, one token each: layout to image, as in latent diffusion and GLIGEN."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from restore.diffusion.contexts.labels import number, read, refuse_clip_skip, write
from restore.errors import UsageError

OCTAVES = 6  # of the Fourier features: the finest resolves 1 / 64 of a side
SHAPE = "LABEL X0,Y0,X1,Y1; ..., such as 'red circle 0.1,0.2,0.5,0.6'"


@dataclass(frozen=True)
class Box:
    """A label and the corners of its box.

    Attributes:
        label: One of the model's labels.
        x0: Left, as a share of the width.
        y0: Top, as a share of the height.
        x1: Right.
        y1: Bottom.
    """

    label: str
    x0: float
    y0: float
    x1: float
    y1: float


def written(boxes: Iterable[Box]) -> str:
    """Format boxes as a prompt, with four significant digits."""
    return "; ".join(
        f"{box.label} " + ",".join(f"{x:.4g}" for x in (box.x0, box.y0, box.x1, box.y1))
        for box in boxes
    )


def parsed(prompt: str) -> list[Box]:
    """Parse the boxes of a prompt; "" has none.

    Raises:
        UsageError: If a box cannot be read; it quotes the box.
    """
    return [_box(part.strip()) for part in prompt.split(";") if part.strip()]


def _box(text: str) -> Box:
    label, _, numbers = text.rpartition(" ")
    try:
        x0, y0, x1, y1 = (float(number) for number in numbers.split(","))
    except ValueError as error:
        raise UsageError(f"box {text!r}: four numbers end a box; write {SHAPE}") from error
    if not label.strip():
        raise UsageError(f"box {text!r}: has no label; write {SHAPE}")
    if not (0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1):
        raise UsageError(
            f"box {text!r}: corners are shares of the picture, left before right and top before "
            "bottom, all from 0 to 1"
        )
    return Box(label.strip(), x0, y0, x1, y1)


class BoxEncoder(nn.Module):
    """Encodes label numbers and corners, (B, n, 5) -> (B, n, width).

    A label embedding and Fourier features of the corners go through a small network (GLIGEN, Li et
    al. 2023).

    Args:
        labels: How many labels there are. This number itself means that there is no box; the
            corners are then ignored.
        width: Of the tokens.
    """

    def __init__(self, labels: int, width: int):
        super().__init__()
        self.label = nn.Embedding(labels + 1, width)
        self.corners = nn.Linear(8 * OCTAVES, width)
        self.mix = nn.Sequential(nn.SiLU(), nn.Linear(width, width))

    def forward(self, boxes: Tensor) -> Tensor:
        numbers, corners = boxes[..., 0].long(), boxes[..., 1:]
        there = (numbers < self.label.num_embeddings - 1)[..., None]
        turns = corners[..., None] * (math.pi * 2.0 ** torch.arange(OCTAVES, device=boxes.device))
        waves = torch.cat([turns.sin(), turns.cos()], -1).flatten(-2)
        token = self.label(numbers) + self.corners(waves.to(self.corners.weight.dtype)) * there
        return token + self.mix(token)


@dataclass
class BoxContext:
    """Encodes boxes to a fixed number of tokens; unused tokens mean that there is no box.

    Attributes:
        module: The encoder.
        labels: Names of the labels.
        most: The number of tokens, which is the most boxes of a prompt.
    """

    kind: ClassVar[Literal["boxes"]] = "boxes"
    module: BoxEncoder
    labels: tuple[str, ...]
    most: int

    def inputs(self, prompt: str) -> Tensor:
        """Return (most, 5): label number and corners of each box; len(labels) for no box."""
        boxes = parsed(prompt)
        if len(boxes) > self.most:
            raise UsageError(f"{len(boxes)} boxes: this model reads {self.most} at the most")
        rows = torch.zeros(self.most, 5)
        rows[:, 0] = len(self.labels)
        for row, box in zip(rows, boxes, strict=False):
            corners = box.x0, box.y0, box.x1, box.y1
            row[:] = torch.tensor([number(box.label, self.labels), *corners])
        return rows

    def tokens(self, inputs: Tensor) -> Tensor:
        """(B, most, 5) -> (B, most, width)"""
        return self.module(inputs)

    def embed(self, prompt: str, clip_skip: int = 0) -> Tensor:
        refuse_clip_skip(clip_skip, self.kind)
        return self.tokens(self.inputs(prompt)[None].to(self.module.label.weight.device))

    def save(self, folder: Path) -> None:
        width = self.module.label.embedding_dim
        write(folder, {"labels": self.labels, "most": self.most, "width": width}, self.module)

    @classmethod
    def load(cls, folder: Path) -> "BoxContext":
        config, tensors = read(folder)
        module = BoxEncoder(len(config["labels"]), config["width"])
        module.load_state_dict(tensors)
        return cls(module, tuple(config["labels"]), config["most"])
