"""Text through two text encoders at once, as in Stable Diffusion XL (Podell et al. 2023)."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from restore.diffusion.contexts.text import chunks, save_tokenizer, tokenize
from restore.errors import UsageError


class TwoEncoders(nn.Module):
    """CLIP's and OpenCLIP's text encoders, named like their folders."""

    def __init__(self, first: CLIPTextModel, second: CLIPTextModelWithProjection):
        super().__init__()
        self.text_encoder, self.text_encoder_2 = first, second

    def forward(self, one: Tensor, two: Tensor, skip: int = 0) -> tuple[Tensor, Tensor]:
        """Encode ids by both encoders.

        SDXL reads the last layer but one, without the final norm.

        Args:
            one: long (B, positions) for the first encoder.
            two: long (B, positions) for the second encoder.
            skip: Further layers to skip.

        Returns:
            Tokens (B, positions, both widths) and the pooled embedding (B, width).
        """
        made = self.text_encoder_2(two, output_hidden_states=True)
        first = self.text_encoder(one, output_hidden_states=True).hidden_states[-2 - skip]
        return torch.cat([first, made.hidden_states[-2 - skip]], -1), made.text_embeds


@dataclass
class TwoTextContext:
    """Both encoders read the same prompt, each through its own tokenizer.

    Attributes:
        module: The encoders.
        tokenizers: One for each encoder.
        zeroes: Whether an empty negative prompt is all zeros, as SDXL was trained, instead of the
            embedding of "".
    """

    kind: ClassVar[Literal["text"]] = "text"
    module: TwoEncoders
    tokenizers: tuple[CLIPTokenizer, CLIPTokenizer]
    zeroes: bool = True

    def inputs(self, prompt: str) -> Tensor:
        """Tokenize a prompt to ids (2, positions); the rest is cut."""
        return torch.stack([tokenize(tokenizer, prompt) for tokenizer in self.tokenizers])

    def tokens(self, inputs: Tensor) -> Tensor:
        """Encode ids, long (B, 2, positions) -> (B, positions, width)."""
        return self.module(inputs[:, 0], inputs[:, 1])[0]

    def embed(self, prompt: str, clip_skip: int = 0) -> Tensor:
        return self.embed_pooled(prompt, clip_skip)[0]

    def embed_pooled(
        self, prompt: str, clip_skip: int = 0, is_wanted: bool = True
    ) -> tuple[Tensor, Tensor]:
        """Encode a prompt to tokens and a pooled embedding.

        Chunks and weights are those of TextContext.embed. The pooled embedding is that of the first
        chunk without weights, as the UNet was trained.

        Args:
            prompt: Text, with weights.
            clip_skip: Last layers to skip.
            is_wanted: False for a negative prompt.

        Returns:
            Tokens (1, positions * chunks, width) and the pooled embedding (1, pooled width).

        Raises:
            UsageError: If the encoders have fewer layers than clip_skip + 1.
        """
        both = self.module.text_encoder, self.module.text_encoder_2
        layers = min(encoder.config.num_hidden_layers for encoder in both) - 1
        if clip_skip > layers:
            problem = f"the text encoders have no more layers to leave out than {layers}"
            raise UsageError(f"clip_skip {clip_skip}: {problem}")
        ids, weights = self._chunks(prompt)
        embedding, pooled = self._encode_ids(ids, clip_skip)
        if self.zeroes and not is_wanted and not prompt:
            embedding, pooled = torch.zeros_like(embedding), torch.zeros_like(pooled)
        widths = [encoder.config.hidden_size for encoder in both]
        # each encoder's tokens have their own weights: tokenizers may split a prompt differently
        shares = zip(weights, widths, strict=True)
        share = torch.cat([one[..., None].expand(-1, -1, width) for one, width in shares], -1)
        if (share != 1).any():
            nothing = self._encode_ids(self._chunks("")[0], clip_skip)[0]
            embedding = torch.lerp(nothing, embedding, share.to(embedding))
        return embedding.flatten(0, 1)[None], pooled[:1]

    def _encode_ids(self, ids: list[Tensor], clip_skip: int) -> tuple[Tensor, Tensor]:
        device = next(self.module.parameters()).device
        return self.module(*(one.to(device) for one in ids), clip_skip)

    def _chunks(self, prompt: str) -> tuple[list[Tensor], list[Tensor]]:
        """Tokenize by both tokenizers; the shorter result is filled up with empty chunks."""
        cut = [chunks(tokenizer, prompt) for tokenizer in self.tokenizers]
        most = max(len(ids) for ids, _ in cut)
        all_ids, all_weights = [], []
        for tokenizer, (ids, weights) in zip(self.tokenizers, cut, strict=True):
            empty_ids, empty_weights = chunks(tokenizer, "")
            lacking = most - len(ids)
            all_ids.append(torch.cat([ids, *[empty_ids] * lacking]))
            all_weights.append(torch.cat([weights, *[empty_weights] * lacking]))
        return all_ids, all_weights

    def save(self, folder: Path) -> None:
        names = "text_encoder", "text_encoder_2"
        for name in names:
            getattr(self.module, name).save_pretrained(folder / name)
        for tokenizer, name in zip(self.tokenizers, ("tokenizer", "tokenizer_2"), strict=True):
            save_tokenizer(tokenizer, folder / name)
