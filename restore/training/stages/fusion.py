"""Training of a fusion: it joins the input with the first stage's result at the input's size."""

from copy import deepcopy
from pathlib import Path
from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from restore.checkpoints import components, model_paths
from restore.checkpoints.load import load
from restore.checkpoints.save import save
from restore.config import Options
from restore.diffusion.restorer import Fusion, Restorer
from restore.errors import ConfigError, ModelError
from restore.training.data.loading import to_rgb
from restore.training.losses.perceptual import PerceptualOptions, distance
from restore.training.losses.pixel import gradient
from restore.training.rng import WHOLE, Part
from restore.training.stages.restorer import LowOptions, find_weights, open_pairs, preview_rows


class FusionOptions(Options):
    """The fusion of a model's first stage, for results of the input's own size."""

    kind: Literal["fusion"] = "fusion"
    data: LowOptions
    """How pairs are made."""
    stack: str | None = None
    """The model whose first stage is extended; the export is the whole model."""
    restorer: Path | None = None
    """A restorer alone, an export of its stage, instead of `stack`; the export is the fusion alone.
    """
    channels: int = Field(48, ge=8)
    """Channels of every layer."""
    layers: int = Field(4, ge=1)
    """Number of hidden layers."""
    edges: float = Field(0.5, ge=0)
    """Weight of the gradient loss beside L1."""
    perceptual: PerceptualOptions | None = None
    """The perceptual loss, if any."""

    @model_validator(mode="after")
    def _has_one_restorer(self) -> Self:
        if (self.stack is None) == (self.restorer is None):
            raise ValueError("give stack, a model, or restorer, an export of that stage")
        return self

    def rich(self) -> Restorer:
        """The restorer that the fusion reads, which is not trained.

        Raises:
            ConfigError: If there is none.
        """
        if self.restorer is not None:
            return _read(model_paths.find_path(str(self.restorer)))
        assert self.stack is not None
        try:
            first = load(self.stack, "cpu").restorer
        except ModelError as error:
            raise ConfigError(f"stage.stack: {error}") from error
        if first is None:
            raise ConfigError(f"stage.stack: {self.stack} has no first stage to fuse with")
        return first.rich


def _read(path: Path) -> Restorer:
    folder = find_weights(path).parent.resolve()
    try:
        if not path.exists():
            raise ModelError(f"{path}: there is no such folder")
        weights = components.read_weights(folder.parent, folder.name)
        network = components.build(folder.parent, folder.name, lambda *_: weights, kind="restorer")
    except ModelError as error:
        mend = "name the export of a restorer's training, or a model with a first stage"
        raise ConfigError(f"stage.restorer: {error}; {mend}") from error
    assert isinstance(network, Restorer)
    return network


class FusionStage:
    """Trains a fusion; the restorer is not trained."""

    def __init__(self, options: FusionOptions, seed: int, device: torch.device):
        self.options, self.device = options, device
        self.restorer = options.rich().requires_grad_(False).to(device)
        self.network = self.model = Fusion(options.channels, options.layers).to(device)
        self.distance = distance(options.perceptual, device) if options.perceptual else None
        self.samples, self.preview_batch = open_pairs(options.data, 1, seed)

    def answers(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs, results and truths, each rgb (B, 3, H, W)."""
        low, truth = (to_rgb(batch[name].to(self.device)) for name in ("low", "truth"))
        with torch.no_grad():
            half = F.interpolate(low, scale_factor=0.5, mode="bicubic", antialias=True)
            large = self.restorer(half.contiguous(memory_format=torch.channels_last)).clamp(0, 1)
            small = F.interpolate(large, scale_factor=0.5, mode="bicubic", antialias=True)
        return low, self.network(low, small.clamp(0, 1)).float(), truth

    def loss(self, batch: dict[str, Tensor], step: int, part: Part = WHOLE) -> dict[str, Tensor]:
        _, made, truth = self.answers(batch)
        losses = {"pixel": F.l1_loss(made, truth) + self.options.edges * gradient(made, truth)}
        if self.distance and self.options.perceptual:
            losses["perceptual"] = self.options.perceptual.weight * self.distance(made, truth)
        return losses

    @torch.inference_mode()
    def preview(self) -> tuple[list[Tensor], dict[str, float]]:
        """Rows of inputs, results and truths, and the scores of the results."""
        low, made, truth = self.answers(self.preview_batch)
        return preview_rows(low, made.clamp(0, 1), truth)

    @torch.inference_mode()
    def export(self, folder: Path) -> None:
        """Write the whole model with its new fusion, or the fusion alone."""
        made = deepcopy(self.network).to("cpu", memory_format=torch.contiguous_format)
        if self.options.stack is None:
            return made.save_pretrained(folder / "fusion")
        stack = load(self.options.stack, "cpu")
        assert stack.restorer is not None
        stack.restorer.fusion = made
        save(stack, folder, card="")  # the loop writes it
