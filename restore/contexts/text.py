"""Words, through CLIP's text encoder."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from transformers import CLIPTextModel, CLIPTokenizer


@dataclass
class TextContext:
    """CLIP's tokenizer and text encoder, as Stable Diffusion and our own models have them."""

    module: CLIPTextModel
    tokenizer: CLIPTokenizer

    def embed(self, prompt: str, clip_skip: int = 0) -> Tensor:
        tokens = tokenize(self.tokenizer, prompt)
        return self.module(tokens[None].to(self.module.device)).last_hidden_state

    def save(self, folder: Path) -> None:
        self.module.save_pretrained(folder / "text_encoder")
        self.tokenizer.save_pretrained(folder / "tokenizer")


def tokenize(tokenizer: CLIPTokenizer, prompt: str) -> Tensor:
    """Prompt -> token ids, as many as the text encoder has places; what is longer is cut."""
    length = tokenizer.model_max_length
    return tokenizer(
        prompt, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
    ).input_ids[0]
