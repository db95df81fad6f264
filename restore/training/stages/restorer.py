"""The stage of the first part of a stack: a restorer that is taught by truth, teacher and judge."""

from copy import deepcopy
from pathlib import Path
from typing import Literal, Self

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from degradations import recipes, replay
from restore.checkpoints import manifest
from restore.checkpoints.load import load, save
from restore.config import Options
from restore.diffusion.restorer import STEP, FirstStage, Restorer
from restore.errors import ConfigError
from restore.training.data.crops import PhotoOptions, Photos, Samples, to_rgb
from restore.training.data.pairs import draw
from restore.training.losses import teachers
from restore.training.losses.discriminator import AdversaryOptions, Patches, adversarial
from restore.training.losses.perceptual import PerceptualOptions, distance
from restore.training.losses.pixel import gradient
from restore.training.rng import WHOLE, Part

SHOWN = 8
SCALES = (4, 2, 1)


class LowOptions(PhotoOptions):
    """How good pictures become the bad ones that a restorer reads."""

    crop: int = Field(128, ge=32, multiple_of=4)  # px of the result
    recipes: dict[str, float] = {"realesrgan": 1.0}  # a named recipe or a YAML file: weight
    scales: dict[int, float] = {4: 0.6, 2: 0.15, 1: 0.25}  # scale: weight
    # crops are cut up to so many times larger, then shrunk: photos are sharper at a smaller size
    shrink: float = Field(1.0, ge=1, le=8)
    clean: float = Field(0.15, ge=0, le=1)  # share that is only made smaller, not damaged
    severity: tuple[float, float] = (0.02, 1.0)  # of the recipe, evenly drawn

    @model_validator(mode="after")
    def _can_be_made(self) -> Self:
        for name in self.recipes:
            recipes.find(name)
        for name in ("scales", "recipes"):
            weights = getattr(self, name).values()
            if not sum(weights) > 0 or min(weights) < 0:
                raise ValueError(f"the weights of {name} must be 0 or more, and not all 0")
        if unknown := self.scales.keys() - set(SCALES):
            raise ValueError(f"scales are 4, 2 and 1, not {', '.join(map(str, sorted(unknown)))}")
        if not 0 <= self.severity[0] <= self.severity[1] <= 1:
            raise ValueError("severity is from 0 to 1, the milder first")
        return self


class TeacherOptions(Options):
    """A pixel upscaler of x4 whose answer is regressed to, beside the truth."""

    path: Path  # .safetensors by basicsr's names
    weight: float = Field(0.5, gt=0)


class BlendOptions(Options):
    """Published weights of x4 that the start is averaged with (Wortsman et al. 2022, WiSE-FT)."""

    path: Path  # .safetensors by basicsr's names
    share: float = Field(0.5, ge=0, le=1)  # of theirs


class RestorerOptions(Options):
    """A restorer for x4, x2 and x1, from scratch or from published weights."""

    kind: Literal["restorer"] = "restorer"
    data: LowOptions
    start: Path | None = None  # published weights of x4, or an export of this stage
    blend: BlendOptions | None = None
    # a model whose first stage this becomes, as one of its ends: then the export is the whole model
    stack: str | None = None
    end: Literal["rich", "faithful"] = "rich"
    channels: int = Field(64, ge=8)
    layers: int = Field(32, ge=1)
    edges: float = Field(0.5, ge=0)  # weight of differences of neighbours, beside L1
    perceptual: PerceptualOptions | None = None
    teacher: TeacherOptions | None = None
    adversary: AdversaryOptions | None = None  # its judge sees beside a picture what it came from


class RestorerStage:
    """What the loop needs to know of it. Samples of all scales share a batch, and the body."""

    def __init__(self, options: RestorerOptions, seed: int, device: torch.device):
        self.options, self.seed, self.device = options, seed, device
        self.network = built(options).to(device)
        self.model: nn.Module = self.network
        self.judge = None
        if options.adversary:
            a = options.adversary
            self.judge = Patches(a.channels, a.layers, 6, a.spectral).to(device)
            self.model = nn.ModuleDict({"restorer": self.network, "judge": self.judge})
        self.distance = distance(options.perceptual, device) if options.perceptual else None
        self.teach = teachers.load(options.teacher.path, device) if options.teacher else None
        room = round(options.data.crop * options.data.shrink)
        photos = options.data.open(crop=room)
        makes = Lows(photos, options.data, seed)
        self.samples = Samples(makes, seed, photos)
        place = options.data.held_out
        shown = Lows(options.data.open(place, room), options.data, seed) if place else makes
        still = [shown(np.random.default_rng((seed, 1, n)), n) for n in range(4 * SHOWN)]
        self.shown = {name: torch.stack([one[name] for one in still]) for name in still[0]}

    def answers(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Of a batch: what is made, the truth and what was shown of it, rgb in the scales' order.

        The last is enlarged by the nearest pixel.
        """
        parts = []
        for scale in SCALES:
            rows = (batch["scale"] == scale).nonzero()[:, 0].tolist()
            if rows:
                side = batch["truth"].shape[1] // scale
                low = to_rgb(batch["low"][rows, :side, :side].to(self.device))
                parts.append((scale, low, to_rgb(batch["truth"][rows].to(self.device))))
        features = torch.cat([self.network.features(low, scale) for scale, low, _ in parts])
        features = self.network.body(features.contiguous(memory_format=torch.channels_last))
        shares = features.split([len(low) for _, low, _ in parts])
        made = [
            self.network.answer(share, low, scale)
            for share, (scale, low, _) in zip(shares, parts, strict=True)
        ]
        seen = [F.interpolate(low, scale_factor=float(scale)) for scale, low, _ in parts]
        return torch.cat(made).float(), torch.cat([truth for *_, truth in parts]), torch.cat(seen)

    def loss(self, batch: dict[str, Tensor], step: int, part: Part = WHOLE) -> dict[str, Tensor]:
        """Truth, teacher, what is seen of both, and the judge from its first step."""
        options = self.options
        made, truth, seen = self.answers(batch)
        losses = {"pixel": F.l1_loss(made, truth) + options.edges * gradient(made, truth)}
        if self.distance and options.perceptual:
            losses["perceptual"] = options.perceptual.weight * self.distance(made, truth)
        fidelity = torch.stack([*losses.values()]).sum()
        if self.teach and options.teacher:
            count = int((batch["scale"] == STEP).sum())  # they come first
            if count:
                low = F.interpolate(seen[:count], scale_factor=1 / STEP)
                taught = F.l1_loss(made[:count], self.teach(low)) * count / len(made)
                losses["teacher"] = options.teacher.weight * taught
        if self.judge and options.adversary and step >= options.adversary.start:
            layer = self.network.body[-2].weight
            losses |= adversarial(self.judge, made, truth, fidelity, layer, options.adversary, seen)
        return losses

    @torch.inference_mode()
    def preview(self) -> tuple[list[Tensor], dict[str, float]]:
        """Rows of what was shown, made and true, and the PSNR of all that is made."""
        made, truth, seen = self.answers(self.shown)
        made = made.clamp(0, 1)
        error = (made - truth).square().mean((1, 2, 3))
        scores = {"psnr": (-10 * error.log10()).mean().item()}
        return [seen[:SHOWN], made[:SHOWN], truth[:SHOWN]], scores

    @torch.inference_mode()
    def export(self, folder: Path) -> None:
        """Save the network as diffusers does, alone or as a part of the model that it is for."""
        if self.options.stack is None:
            self.network.to(memory_format=torch.contiguous_format)
            return self.network.save_pretrained(folder / "restorer")
        stack = load(self.options.stack, "cpu")
        made = deepcopy(self.network).to("cpu")
        if self.options.end == "faithful":
            if stack.restorer is None:
                raise ConfigError(f"stage.stack: {self.options.stack} has no rich end yet")
            stack.restorer = FirstStage(stack.restorer.rich, made)
        else:
            stack.restorer = FirstStage(made, stack.restorer and stack.restorer.faithful)
        save(stack, folder, card="")  # the loop writes it


def built(options: RestorerOptions) -> Restorer:
    """A fresh restorer, or one that goes on. Raises ConfigError where those are of other shapes."""
    made = Restorer(options.channels, options.layers, SCALES)
    if options.start is None:
        return made
    place = manifest.place_of(str(options.start))
    try:
        if place.is_dir():
            folder = place / "restorer" if (place / "restorer").is_dir() else place
            made.load_state_dict(teachers.read(folder / "diffusion_pytorch_model.safetensors"))
        else:
            made.start_from(teachers.read(place))
        if options.blend:
            blend(made, options.blend)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"stage.start: {place} is of another shape: {error}") from error
    return made


def blend(network: Restorer, options: BlendOptions) -> None:
    """Average the body and the layers of x4 with published ones; the other scales stay."""
    other = deepcopy(network)
    other.start_from(teachers.read(options.path))
    theirs = other.state_dict()
    with torch.no_grad():
        for name, weight in network.state_dict().items():
            if name.startswith(("body.", "heads.x4.", "tails.x4.")):
                weight.lerp_(theirs[name], options.share)


class Lows:
    """(rng, index) -> one sample: truth uint8 (S, S, 3), low in its upper left corner, scale."""

    def __init__(self, photos: Photos, options: LowOptions, seed: int):
        self.photos, self.options, self.seed = photos, options, seed
        self.found = {name: recipes.find(name) for name in options.recipes}

    def __call__(self, rng: np.random.Generator, index: int) -> dict[str, Tensor]:
        options, crop = self.options, self.options.crop
        large = round(crop * rng.uniform(1, options.shrink))
        truth = self.photos.picture(large, options.detail, rng)
        truth = cv2.resize(truth, (crop, crop), interpolation=cv2.INTER_AREA)
        scale = draw(options.scales, rng)
        recipe = self.found[draw(options.recipes, rng)]
        severity = 0.0 if rng.random() < options.clean else rng.uniform(*options.severity)
        trace = recipe.at(severity).draw((crop, crop), scale, int(rng.integers(2**62)), str(index))
        made = replay(trace, truth)
        low = np.zeros_like(truth)
        low[: made.shape[0], : made.shape[1]] = made
        return {
            "truth": torch.from_numpy(np.ascontiguousarray(truth)),
            "low": torch.from_numpy(low),
            "scale": torch.tensor(scale),
        }
