"""A stage small enough that hundreds of training steps take a second."""

import shutil
from pathlib import Path

import numpy as np
import torch
import yaml
from safetensors.torch import load_file
from torch import nn

from restore.diffusion.noise import generator
from restore.training import loop
from restore.training.data.loading import Samples
from restore.training.rng import WHOLE

WIDTH = 8


class ToyStage:
    """Learns a linear map from noisy samples; it drops units out by the global generator."""

    met: list[int] = []  # sample numbers, in the order in which losses were asked for
    dropped = 0.1
    broken: set[int] = set()  # samples that are not numbers

    def __init__(self, options, seed, device):
        self.seed, self.device = seed, device
        layers = nn.Linear(WIDTH, 2 * WIDTH), nn.Dropout(self.dropped), nn.Linear(2 * WIDTH, WIDTH)
        self.model = nn.Sequential(*layers)
        self.samples = Samples(self.example, seed)

    def example(self, rng, index):
        x = torch.from_numpy(rng.normal(size=WIDTH).astype(np.float32))
        return {"x": x * (float("nan") if index in self.broken else 1), "index": index}

    def loss(self, batch, step, part=WHOLE):
        ToyStage.met += batch["index"].tolist()
        noise = part.normal(batch["x"], generator(self.device, self.seed, step))
        made = self.model(batch["x"] + 0.1 * noise)
        return {"error": (made - batch["x"].flip(-1)).square().mean()}

    def preview(self):
        rgb = torch.full((2, 3, 4, 4), 0.5)
        return [rgb], {"weight": self.model[0].weight.square().mean().item()}

    def export(self, folder: Path):
        folder.mkdir(exist_ok=True)


QUICK = {"stage": {"kind": "pixels"}, "batch": 4, "ema": 0.9, "warmup": 3, "log_with": ()}


def train(folder: Path, **options) -> Path:
    """A run of the toy stage, which stands in STAGES["pixels"]."""
    config = folder.with_suffix(".yaml")
    config.write_text(yaml.safe_dump({**QUICK, "output": str(folder), **options}))
    return loop.run(config, [])


def tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    """All of a checkpoint's, by file and name."""
    return {
        f"{file.stem}.{name}": tensor
        for file in sorted(checkpoint.glob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


def assert_resumes(config: Path, place: Path) -> dict[str, torch.Tensor]:
    """Make sure that a run of 4 steps, killed after its checkpoint of step 3, goes on to the same.

    Returns:
        The tensors of the last checkpoint.
    """
    whole, torn = place / "whole", place / "torn"
    loop.run(config, [f"output={whole}"])
    shutil.copytree(whole, torn)
    for file in (torn / "step_00000004").iterdir():
        file.unlink()  # as if it had been killed: back to step 3
    loop.run(config, [f"output={torn}"])
    assert_equal(whole / "step_00000004", torn / "step_00000004")
    return tensors(whole / "step_00000004")


def assert_equal(one: Path, other: Path) -> None:
    first, second = tensors(one), tensors(other)
    assert first.keys() == second.keys()
    differing = [name for name in first if not torch.equal(first[name], second[name])]
    assert not differing
