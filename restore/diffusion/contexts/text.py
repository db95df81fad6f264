"""Text through CLIP's text encoder: prompts of any length, with weights."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer

from restore.errors import UsageError

EMPHASIS = 1.1  # what ( ) multiplies by, and [ ] divides by
HEAVIEST = 100
ESCAPED = re.compile(r"\\[\\()\[\]]")
PART = re.compile(ESCAPED.pattern + r"|[()\[\]]|[^\\()\[\]]+|\\")
PARTNER = {")": "(", "]": "["}
NUMBER = re.compile(r"(.*):\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*", re.DOTALL)


@dataclass
class TextContext:
    """CLIP's tokenizer and text encoder, as in Stable Diffusion and our own models."""

    kind: ClassVar[Literal["text"]] = "text"
    module: CLIPTextModel
    tokenizer: CLIPTokenizer

    def inputs(self, prompt: str) -> Tensor:
        """Tokenize a prompt to as many ids as the text encoder has positions; the rest is cut."""
        return tokenize(self.tokenizer, prompt)

    def tokens(self, inputs: Tensor) -> Tensor:
        """Encode ids, long (B, positions) -> (B, positions, width)."""
        return self.module(inputs).last_hidden_state

    def embed(self, prompt: str, clip_skip: int = 0) -> Tensor:
        """Encode a prompt to (1, positions * chunks, width), in chunks of 75 tokens.

        A weight interpolates between the embedding of an empty prompt (0) and of this prompt (1),
        as in ComfyUI; 1.5 extrapolates. Without weights, one chunk equals the result of diffusers'
        StableDiffusionPipeline.encode_prompt.

        Args:
            prompt: Text, with weights such as (word:1.3); see `weighed`.
            clip_skip: Last layers to skip. The final layer norm is applied, as in diffusers.

        Raises:
            UsageError: If the encoder has fewer layers, or a weight is too large.
        """
        layers = self.module.config.num_hidden_layers
        if clip_skip > layers:
            raise UsageError(
                f"clip_skip {clip_skip}: the text encoder has no more layers than {layers}"
            )
        ids, weights = chunks(self.tokenizer, prompt)
        embedding = self.encode_ids(ids, clip_skip)
        if (weights != 1).any():
            nothing = self.encode_ids(chunks(self.tokenizer, "")[0], clip_skip)
            embedding = torch.lerp(nothing, embedding, weights[..., None].to(embedding))
        return embedding.flatten(0, 1)[None]

    def encode_ids(self, ids: Tensor, clip_skip: int) -> Tensor:
        """Encode ids, long (chunks, positions) -> (chunks, positions, width)."""
        ids = ids.to(self.module.device)
        if not clip_skip:
            return self.module(ids).last_hidden_state
        hidden = self.module(ids, output_hidden_states=True).hidden_states[-1 - clip_skip]
        return getattr(self.module, "text_model", self.module).final_layer_norm(hidden)

    def save(self, folder: Path) -> None:
        self.module.save_pretrained(folder / "text_encoder")
        save_tokenizer(self.tokenizer, folder / "tokenizer")


def save_tokenizer(tokenizer: CLIPTokenizer, folder: Path) -> None:
    backend = tokenizer.backend_tokenizer  # it saves the settings of its last call
    backend.no_truncation()
    backend.no_padding()
    tokenizer.save_pretrained(folder)


def chunks(tokenizer: CLIPTokenizer, prompt: str) -> tuple[Tensor, Tensor]:
    """Tokenize a prompt with weights, in chunks.

    Returns:
        ids (chunks, positions), each row with start and end token and padding, and the weights of
        these tokens, float of the same shape.
    """
    ids: list[int] = []
    weights: list[float] = []
    for text, weight in weighed(prompt):
        piece = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        ids += piece
        weights += [weight] * len(piece)
    places = tokenizer.model_max_length
    count = max(1, -(-len(ids) // (places - 2)))
    all_ids = torch.full((count, places), tokenizer.pad_token_id)
    all_weights = torch.ones(count, places)
    all_ids[:, 0] = tokenizer.bos_token_id
    for row in range(count):
        part = slice(row * (places - 2), (row + 1) * (places - 2))
        length = len(ids[part])
        all_ids[row, 1 : 1 + length] = torch.tensor(ids[part], dtype=torch.long)
        all_ids[row, 1 + length] = tokenizer.eos_token_id
        all_weights[row, 1 : 1 + length] = torch.tensor(weights[part])
    return all_ids, all_weights


def weighed(prompt: str) -> list[tuple[str, float]]:
    r"""Split a prompt into pieces and their weights.

    (word:1.3) has weight 1.3, (word) 1.1 and [word] 1 / 1.1; nested brackets multiply. A bracket
    after a backslash is an ordinary character, and so is a bracket without partner, such as a
    smiley. \\ is a backslash.

    Raises:
        UsageError: If a weight, the product of all brackets around it, is beyond 100.
    """
    parts = PART.findall(prompt)
    weights = np.ones(len(parts))
    for opening, closing in list(_pairs(parts)):
        number = NUMBER.fullmatch(parts[closing - 1]) if parts[opening] == "(" else None
        if number:
            parts[closing - 1] = number[1]
        factor = EMPHASIS if parts[opening] == "(" else 1 / EMPHASIS
        weights[opening + 1 : closing] *= float(number[2]) if number else factor
        parts[opening] = parts[closing] = ""
        if np.abs(weights[opening + 1 : closing]).max(initial=0) > HEAVIEST:
            raise UsageError(
                f"prompt: a weight is beyond {HEAVIEST}; use fewer or lighter brackets"
            )
    plain = [part[1:] if len(part) == 2 and ESCAPED.fullmatch(part) else part for part in parts]
    heavy = [(text, weight) for text, weight in zip(plain, weights.tolist(), strict=True) if text]
    return [
        ("".join(text for text, _ in group), weight)
        for weight, group in groupby(heavy, key=itemgetter(1))
    ]


def _pairs(parts: list[str]) -> Iterator[tuple[int, int]]:
    """Yield the indices of each pair of brackets, inner pairs first."""
    opened: list[int] = []
    waiting = Counter()
    for i, part in enumerate(parts):
        if part in ("(", "["):
            opened.append(i)
            waiting[part] += 1
        elif part in PARTNER and waiting[PARTNER[part]]:
            while True:  # brackets opened after its partner have no partner
                first = opened.pop()
                waiting[parts[first]] -= 1
                if parts[first] == PARTNER[part]:
                    yield first, i
                    break


def tokenize(tokenizer: CLIPTokenizer, prompt: str) -> Tensor:
    """Tokenize a prompt to as many ids as the text encoder has positions; the rest is cut."""
    length = tokenizer.model_max_length
    return tokenizer(
        prompt, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    ).input_ids[0]
