"""Training of the first stage: a restorer, by truth, teacher and discriminator."""

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from degradations import Trace, recipes, replay, sharpen
from restore.checkpoints import model_paths
from restore.checkpoints.save import save
from restore.config import Options
from restore.diffusion.lazy_stack import SCALE
from restore.diffusion.noise import seed_of
from restore.diffusion.restorer import Restorer
from restore.errors import ConfigError
from restore.training.data.crops import PhotoOptions, Photos
from restore.training.data.loading import Samples, to_rgb
from restore.training.data.pairs import draw_weighted
from restore.training.losses import sizes, teachers
from restore.training.losses.discriminator import AdversaryOptions, adversarial_losses
from restore.training.losses.perceptual import PerceptualOptions, distance, squeezenet
from restore.training.losses.pixel import gradient
from restore.training.rng import WHOLE, Part
from restore.training.stages import ends, widening
from restore.training.stages.ends import BlendOptions, End

SHOWN = 8


class LowOptions(PhotoOptions):
    """How good pictures are degraded to what a restorer reads."""

    crop: int = Field(128, ge=32, multiple_of=4)
    """Side of the good picture, pixels."""
    recipes: dict[str, float] = {"realesrgan": 1.0}
    """Weight of each recipe: a named recipe, or a YAML file; one alone needs no weight."""
    shrink: float = Field(1.0, ge=1, le=8)
    """Largest factor by which crops are cut larger and then shrunk: photos are sharper at a smaller
    size.
    """
    clean: float = Field(0.15, ge=0, le=1)
    """Share of the pairs that is only made smaller, not degraded."""
    severity: tuple[float, float] = (0.02, 1.0)
    """Range of the recipe's severity, drawn uniformly."""

    @field_validator("recipes", mode="before", json_schema_input_type=str | dict[str, float])
    @classmethod
    def _one(cls, value: Any) -> Any:
        return {value: 1.0} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _can_be_made(self) -> Self:
        for name in self.recipes:
            recipes.find(name)
        weights = self.recipes.values()
        if not sum(weights) > 0 or min(weights) < 0:
            raise ValueError("the weights of recipes must be 0 or more, and not all 0")
        if not 0 <= self.severity[0] <= self.severity[1] <= 1:
            raise ValueError("severity is from 0 to 1, the milder first")
        return self


class TeacherOptions(Options):
    """An x4 upscaler whose output is a second target, beside the truth."""

    path: Path
    """A .safetensors or .pth file with basicsr's names."""
    weight: float = Field(0.5, gt=0)
    """Weight of the L1 distance to the teacher's output."""


class RestorerOptions(Options):
    """A restorer of x4, from scratch or from published weights."""

    kind: Literal["restorer"] = "restorer"
    data: LowOptions
    """How pairs are made."""
    start: Path | None = None
    """Published weights of x4, .safetensors or .pth, or an export of this stage; narrower or
    shallower ones are grown.
    """
    blend: BlendOptions | None = None
    """Average the exported weights with others."""
    stack: str | None = None
    """A model whose first stage this becomes; then the export is the whole model. None: the export
    is the restorer alone.
    """
    end: End = "rich"
    """Which restorer of that first stage this is: rich, of fidelity 0, or faithful, of fidelity 1.
    Both have one shape.
    """
    channels: int = Field(64, ge=8)
    """Channels of every layer."""
    layers: int = Field(32, ge=1)
    """Number of hidden layers."""
    edges: float = Field(0.5, ge=0)
    """Weight of the gradient loss beside L1."""
    perceptual: PerceptualOptions | None = None
    """The perceptual loss, if any."""
    teacher: TeacherOptions | None = None
    """The teacher, if any."""
    adversary: AdversaryOptions | None = None
    """The discriminator, if any; it sees the input beside each picture."""

    @model_validator(mode="after")
    def _can_be_judged(self) -> Self:
        if why := sizes.complaint(self.data.crop, self.perceptual, self.adversary):
            raise ValueError(f"{why} (data.crop)")
        return self

    @model_validator(mode="after")
    def _is_an_end(self) -> Self:
        if self.stack is None and "end" in self.model_fields_set and self.end != "rich":
            raise ValueError("end is of a model's first stage; name the model with stack, too")
        return self


class RestorerStage:
    """Trains a restorer of x4."""

    def __init__(self, options: RestorerOptions, seed: int, device: torch.device):
        self.options, self.seed, self.device = options, seed, device
        self.network = build(options)
        if options.blend:  # refused before anything is trained
            ends.blend(self.network, options.blend)
        if options.stack:
            ends.join(self.network, options.stack, options.end)
        self.network.to(device)
        self.model: nn.Module = self.network
        self.adversary, self.discriminator = options.adversary, None
        if options.adversary:
            self.discriminator = options.adversary.build(inputs=6).to(device)
            self.model = nn.ModuleDict({"restorer": self.network, "judge": self.discriminator})
        self.distance = distance(options.perceptual, device) if options.perceptual else None
        self.teach = teachers.load(options.teacher.path, device) if options.teacher else None
        self.samples, self.preview_batch = open_pairs(options.data, SCALE, seed)

    def loss(self, batch: dict[str, Tensor], step: int, part: Part = WHOLE) -> dict[str, Tensor]:
        """Losses against truth and teacher, the perceptual loss, and the adversarial ones from
        their first step.
        """
        options = self.options
        low, truth = (to_rgb(batch[name].to(self.device)) for name in ("low", "truth"))
        result = self.network(low.contiguous(memory_format=torch.channels_last)).float()
        losses = {"pixel": F.l1_loss(result, truth) + options.edges * gradient(result, truth)}
        if self.distance and options.perceptual:
            losses["perceptual"] = options.perceptual.weight * self.distance(result, truth)
        fidelity = torch.stack([*losses.values()]).sum()
        if self.teach and options.teacher:
            losses["teacher"] = options.teacher.weight * F.l1_loss(result, self.teach(low))
        if self.discriminator and options.adversary and step >= options.adversary.start:
            layer = self.network.body[-1].weight
            seen = F.interpolate(low, scale_factor=float(SCALE))
            losses |= adversarial_losses(
                self.discriminator, result, truth, fidelity, layer, options.adversary, seen
            )
        return losses

    @torch.inference_mode()
    def preview(self) -> tuple[list[Tensor], dict[str, float]]:
        """Rows of inputs, results and truths, and the scores of the results."""
        low, truth = (to_rgb(self.preview_batch[name].to(self.device)) for name in ("low", "truth"))
        made = self.network(low).clamp(0, 1)
        return preview_rows(F.interpolate(low, scale_factor=float(SCALE)), made, truth)

    @torch.inference_mode()
    def export(self, folder: Path) -> None:
        """Write the network as diffusers does, alone or within the model that it belongs to."""
        network = deepcopy(self.network).to("cpu", memory_format=torch.contiguous_format)
        if self.options.blend:
            network = ends.blend(network, self.options.blend)
        if self.options.stack is None:
            return network.save_pretrained(folder / "restorer")
        stack = ends.join(network, self.options.stack, self.options.end)
        save(stack, folder, card="")  # the loop writes it


def build(options: RestorerOptions) -> Restorer:
    """A new restorer, or one that starts from trained weights.

    Raises:
        ConfigError: If those have other shapes.
    """
    network = Restorer(options.channels, options.layers)
    if options.start is None:
        return network
    path = model_paths.find_path(str(options.start))
    try:
        widening.grow(teachers.read(find_weights(path)), network)
    except (KeyError, RuntimeError) as error:
        why = error.args[0]
        raise ConfigError(f"stage.start: {path} is of another shape: {why}") from error
    return network


def find_weights(path: Path) -> Path:
    """The weight file of a restorer: the file itself, or the one in an export or a model."""
    if not path.is_dir():
        return path
    folder = path / "restorer" if (path / "restorer").is_dir() else path
    return folder / "diffusion_pytorch_model.safetensors"


def preview_rows(
    low: Tensor, result: Tensor, truth: Tensor
) -> tuple[list[Tensor], dict[str, float]]:
    """Rows for the sample grid, and mean scores of all pictures.

    Args:
        low: Inputs at the size of the result, rgb (B, 3, H, W).
        result: Results.
        truth: Truths.
    """
    error = (result - truth).square().mean((1, 2, 3))
    scores = {"psnr": -10 * error.log10(), "pd": squeezenet(result, truth)}
    rows = [low[:SHOWN], result[:SHOWN], truth[:SHOWN]]
    return rows, {name: value.mean().item() for name, value in scores.items()}


def open_pairs(options: LowOptions, scale: int, seed: int) -> tuple[Samples, dict[str, Tensor]]:
    """The endless stream of pairs, and a batch of held-out ones for previews.

    Args:
        options: How pairs are made.
        scale: How many times smaller the degraded picture is.
        seed: Seed of all pairs.
    """
    room = round(options.crop * options.shrink)
    photos = options.open(crop=room)
    makes = LowPairs(photos, options, scale)
    place = options.held_out
    others = (
        LowPairs(options.open(place, room, only_photos=True), options, scale) if place else makes
    )
    # hashed: numpy takes (seed, 1, 0) for (seed, 1), which is that of sample 1
    seeds = [seed_of(seed, "preview", n) for n in range(4 * SHOWN)]
    still = [others(np.random.default_rng(s), n) for n, s in enumerate(seeds)]
    return LowSamples(makes, seed, photos), {
        name: torch.stack([one[name] for one in still]) for name in still[0]
    }


@dataclass(frozen=True)
class LowPair:
    """A good picture, and how it is degraded."""

    original: np.ndarray
    """uint8 (S, S, 3)."""
    trace: Trace
    """How."""


class LowPairs:
    """Makes samples by (rng, index): truth uint8 (S, S, 3), low uint8 (S / scale, ..., 3)."""

    def __init__(self, photos: Photos, options: LowOptions, scale: int):
        self.photos, self.options, self.scale = photos, options, scale
        self.found = {name: recipes.find(name) for name in options.recipes}

    def draw(self, rng: np.random.Generator, index: int) -> LowPair:
        """The pair of a sample, before it is degraded."""
        options, crop = self.options, self.options.crop
        large = round(crop * rng.uniform(1, options.shrink))
        truth = self.photos.picture(large, options.detail, rng)
        truth = cv2.resize(truth, (crop, crop), interpolation=cv2.INTER_AREA)
        recipe = self.found[draw_weighted(options.recipes, rng)]
        severity = 0.0 if rng.random() < options.clean else rng.uniform(*options.severity)
        seed = int(rng.integers(2**62))
        trace = recipe.at(severity).draw((crop, crop), self.scale, seed, str(index))
        return LowPair(truth, trace)

    def __call__(self, rng: np.random.Generator, index: int) -> dict[str, Tensor]:
        drawn = self.draw(rng, index)
        truth = sharpen(drawn.original) if drawn.trace.sharpen else drawn.original
        pair = {"truth": truth, "low": replay(drawn.trace, drawn.original)}
        return {name: torch.from_numpy(np.ascontiguousarray(rgb)) for name, rgb in pair.items()}


class LowSamples(Samples):
    """The endless stream of what LowPairs makes."""

    make: LowPairs

    def pair(self, index: int) -> LowPair:
        """The pair of sample `index`."""
        return self.make.draw(np.random.default_rng((self.seed, index)), index)
