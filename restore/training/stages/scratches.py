"""Trains the network that detects scratches."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from safetensors.torch import save_file
from torch import Tensor

from restore.config import Options
from restore.diffusion.noise import seed_of
from restore.errors import ConfigError
from restore.images.scratches import ScratchNet
from restore.training.data.loading import Samples, to_rgb
from restore.training.data.scratched import ROOM, ScratchedOptions, sample
from restore.training.losses import teachers
from restore.training.rng import WHOLE, Part

SHOWN = 64  # samples of a preview's score, the first 8 of which are drawn


class ScratchOptions(Options):
    """How the detector of scratches is trained."""

    kind: Literal["scratches"] = "scratches"
    data: ScratchedOptions
    """How damaged pictures are made."""
    start: Path | None = None
    """A scratches.safetensors to start from."""
    overlap: float = Field(0.5, ge=0)
    """Weight of the Dice loss, which counts a thin mask as much as a wide one."""


class ScratchStage:
    """Trains the detector of scratches."""

    def __init__(self, options: ScratchOptions, seed: int, device: torch.device):
        self.options, self.seed, self.device = options, seed, device
        self.model = ScratchNet().to(device, memory_format=torch.channels_last)
        if options.start:
            held = teachers.read(options.start)
            try:
                self.model.load_state_dict(held)
            except RuntimeError as error:
                mend = "take the scratches.safetensors of such a run"
                raise ConfigError(
                    f"stage.start: {options.start} is another network; {mend}"
                ) from error
        data = options.data
        photos = data.open(crop=round(ROOM * data.crop))
        self.samples = Samples(lambda rng, _: sample(photos, data, rng), seed, photos)
        others = data.open(data.held_out, round(ROOM * data.crop)) if data.held_out else photos
        still = [np.random.default_rng(seed_of(seed, "preview", n)) for n in range(SHOWN)]
        shown = [sample(others, data, rng) for rng in still]
        self.preview_batch = {
            k: torch.from_numpy(np.stack([one[k] for one in shown])) for k in shown[0]
        }

    def loss(self, batch: dict[str, Tensor], step: int, part: Part = WHOLE) -> dict[str, Tensor]:
        """Cross entropy, and Dice over the batch (Milletari et al. 2016, V-Net)."""
        rgb, damage, weight = self._moved(batch)
        logits = self.model(rgb).float()
        cross = F.binary_cross_entropy_with_logits(logits, damage, weight)
        found = logits.sigmoid()
        shared, both = (weight * found * damage).sum(), (weight * (found + damage)).sum()
        dice = 1 - (2 * shared + 1) / (both + 1)
        return {"cross": cross, "overlap": self.options.overlap * dice}

    @torch.inference_mode()
    def preview(self) -> tuple[list[Tensor], dict[str, float]]:
        """Pictures, the detected and the true masks; precision and recall of pixels."""
        rgb, damage, weight = self._moved(self.preview_batch)
        found = torch.cat([self.model(part).sigmoid() for part in rgb.split(8)])
        sure, counts = (found > 0.5).float(), weight * damage
        hit = (sure * counts).sum()
        scores = {
            "precision": (hit / (weight * sure).sum().clamp(min=1)).item(),
            "recall": (hit / counts.sum().clamp(min=1)).item(),
        }
        grey = [x[:8].expand(-1, 3, -1, -1) for x in (found, damage)]
        return [rgb[:8], *grey], scores

    def export(self, folder: Path) -> None:
        """scratches.safetensors, in half precision."""
        folder.mkdir(parents=True, exist_ok=True)
        held = {
            name: tensor.detach().to("cpu", torch.float16).contiguous()
            for name, tensor in self.model.state_dict().items()
        }
        save_file(held, folder / "scratches.safetensors")

    def _moved(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """rgb (B, 3, H, W), damage and weight (B, 1, H, W), all in [0, 1], on the device."""
        at = {name: tensor.to(self.device) for name, tensor in batch.items()}
        damage, weight = (at[name][:, None].float() / 255 for name in ("damage", "weight"))
        return to_rgb(at["pixels"]), damage, weight
