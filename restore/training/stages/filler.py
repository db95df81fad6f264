"""The filler's training: holes cut into photos, good and bad ones, and their content as truth."""

from copy import deepcopy
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from restore.checkpoints import places
from restore.checkpoints.load import load, save
from restore.config import Options
from restore.diffusion.filler import Filler
from restore.training.data.crops import Photos, Samples, to_rgb
from restore.training.data.pairs import hole
from restore.training.losses.discriminator import AdversaryOptions, Patches, adversarial
from restore.training.losses.perceptual import PerceptualOptions, distance, squeezenet
from restore.training.rng import WHOLE, Part
from restore.training.stages.restorer import SHOWN, LowOptions, Lows


class HoleOptions(LowOptions):
    """How holes come into pictures; `clean` is the share that is not damaged otherwise."""

    crop: int = Field(256, ge=64, multiple_of=16)  # px
    clean: float = Field(0.6, ge=0, le=1)


class FillerOptions(Options):
    """A filler, from scratch or from an earlier export."""

    kind: Literal["filler"] = "filler"
    data: HoleOptions
    start: Path | None = None  # an export of this stage, or a model that has a filler
    stack: str | None = None  # a model whose filler this becomes: then the export is all of it
    channels: tuple[int, ...] = Field((48, 80, 112, 144), min_length=2)
    blocks: int = Field(6, ge=1)  # of the coarsest level
    perceptual: PerceptualOptions | None = None
    adversary: AdversaryOptions | None = None  # its judge sees beside a picture where holes were


class FillerStage:
    """What the loop needs to know of it."""

    def __init__(self, options: FillerOptions, seed: int, device: torch.device):
        self.options, self.device = options, device
        self.network = Filler(options.channels, options.blocks)
        if options.start is not None:
            self.network = Filler.from_pretrained(folder_of(options.start))
        self.network.to(device)
        self.model: nn.Module = self.network
        self.judge = None
        if options.adversary:
            a = options.adversary
            self.judge = Patches(a.channels, a.layers, 6, a.spectral).to(device)
            self.model = nn.ModuleDict({"filler": self.network, "judge": self.judge})
        self.distance = distance(options.perceptual, device) if options.perceptual else None
        self.samples, self.shown = holed(options.data, seed)

    def answers(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """What is in the picture's and the hole's places, (B, 3, H, W), (B, 1, H, W); the truth."""
        truth = to_rgb(batch["truth"].to(self.device))
        mask = (batch["hole"].to(self.device)[:, None] > 0).float()
        made = self.network(truth.contiguous(memory_format=torch.channels_last), mask)
        return made.float(), mask, truth

    def loss(self, batch: dict[str, Tensor], step: int, part: Part = WHOLE) -> dict[str, Tensor]:
        """The truth, weighed by the holes alone, whose area differs; looks; and the judge."""
        options = self.options
        made, mask, truth = self.answers(batch)
        area = mask.mean((1, 2, 3)).clamp(min=1e-3)
        error = (made - truth).abs().mean((1, 2, 3))
        losses = {"pixel": (error / area).mean() + 4 * error.mean()}
        if self.distance and options.perceptual:
            losses["perceptual"] = options.perceptual.weight * self.distance(made, truth)
        fidelity = torch.stack([*losses.values()]).sum()
        if self.judge and options.adversary and step >= options.adversary.start:
            where, layer = mask.expand_as(made), self.network.leave.weight
            losses |= adversarial(
                self.judge, made, truth, fidelity, layer, options.adversary, where
            )
        return losses

    @torch.inference_mode()
    def preview(self) -> tuple[list[Tensor], dict[str, float]]:
        """Rows of what was shown, made and true; PSNR within the holes, and pd of the whole."""
        made, mask, truth = self.answers(self.shown)
        made = made.clamp(0, 1)
        error = ((made - truth).square().sum((1, 2, 3)) / (3 * mask.sum((1, 2, 3)))).mean()
        rows = [torch.where(mask > 0, 0.5, truth)[:SHOWN], made[:SHOWN], truth[:SHOWN]]
        scores = {"psnr_hole": -10 * error.log10(), "pd": squeezenet(made, truth)}
        return rows, {name: value.item() for name, value in scores.items()}

    @torch.inference_mode()
    def export(self, folder: Path) -> None:
        """Save the network as diffusers does, alone or as a part of the model that it is for."""
        made = deepcopy(self.network).to("cpu", memory_format=torch.contiguous_format)
        if self.options.stack is None:
            return made.save_pretrained(folder / "filler")
        stack = load(self.options.stack, "cpu")
        stack.filler = made
        save(stack, folder, card="")  # the loop writes it


def folder_of(start: Path) -> Path:
    """Of a filler's weights, in an export or a model's folder."""
    place = places.place_of(str(start))
    return place / "filler" if (place / "filler").is_dir() else place


def holed(options: HoleOptions, seed: int) -> tuple[Samples, dict[str, Tensor]]:
    """The endless stream of pictures with holes, and a batch of held-out ones to be shown."""
    room = round(options.crop * options.shrink)
    photos = options.open(crop=room)
    makes = Holed(photos, options)
    place = options.held_out
    others = Holed(options.open(place, room, only_photos=True), options) if place else makes
    still = [others(np.random.default_rng((seed, 1, n)), n) for n in range(4 * SHOWN)]
    return Samples(makes, seed, photos), {
        name: torch.stack([one[name] for one in still]) for name in still[0]
    }


class Holed:
    """(rng, index) -> one sample: truth uint8 (S, S, 3), hole uint8 (S, S), 255 in it.

    The truth is a damaged picture as often as not: what is filled is restored only later, and has
    to look like what is round it.
    """

    def __init__(self, photos: Photos, options: HoleOptions):
        self.low, self.options = Lows(photos, options, 1), options

    def __call__(self, rng: np.random.Generator, index: int) -> dict[str, Tensor]:
        truth = self.low(rng, index)["low"]
        mask = hole(self.options.crop, rng)
        while not mask.any():  # all of it fell outside
            mask = hole(self.options.crop, rng)
        return {"truth": truth, "hole": torch.from_numpy(mask)}
