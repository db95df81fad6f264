"""The recipes of base and nano as they are shipped, shrunk to two steps on a CPU."""

import sys
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import Image

from restore.checkpoints.load import load
from restore.config import load_config
from restore.training import command, loop
from restore.training import cost as counting
from restore.training.cost import cost, flops
from restore.training.registry import STAGES

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "train"
SMALL = ["device=cpu", "batch=2", "steps=2"]
PAIRS = ["crop=32", "window=8", "recipe=clean_bicubic"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory, pixels):
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(2):
        Image.fromarray(pixels(144, 140, seed)).save(folder / f"{seed}.png")
    return folder


def two_steps(name, *overrides):
    """The stage of a shipped config, after two steps of the shrunken run."""
    options = load_config(loop.TrainOptions, CONFIGS / f"{name}.yaml", [*SMALL, *overrides])
    torch.manual_seed(options.seed)
    stage = STAGES[options.stage.kind](options.stage, options.seed, torch.device("cpu"))
    optimizer = torch.optim.AdamW(stage.model.parameters(), options.learning_rate)
    for step in range(options.steps):
        first = step * options.batch
        samples = [stage.samples[first + i] for i in range(options.batch)]
        losses = stage.loss(torch.utils.data.default_collate(samples), step)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
    return stage, losses


def test_base_is_trained_and_distilled_by_its_configs(photos, tmp_path):
    place = f"stage.data.photos={photos}"
    first, losses = two_steps(
        "base_autoencoder", place, "stage.data.crop=32", "stage.adversary.start=1"
    )
    assert losses.keys() == {"reconstruction", "perceptual", "adversarial", "discriminator"}
    first.export(tmp_path / "autoencoder")
    pairs = [place, f"stage.cache={tmp_path / 'pairs'}", *(f"stage.data.{x}" for x in PAIRS)]
    second, losses = two_steps(
        "base_denoiser",
        *pairs,
        f"stage.autoencoder={tmp_path / 'autoencoder'}",
        "stage.pixel_start=1",
        "stage.pixel_samples=1",
    )
    assert losses.keys() == {"latent", "pixel", "perceptual"}
    second.export(tmp_path / "denoiser")
    third, losses = two_steps(
        "base_distil",
        *pairs,
        f"stage.autoencoder={tmp_path / 'autoencoder'}",
        f"stage.start={tmp_path / 'denoiser'}",
        "stage.texture.adversary.start=1",
        "stage.texture.adversary.layers=1",
        "stage.pixel_samples=2",
    )
    assert torch.isfinite(torch.stack(list(losses.values()))).all()
    assert {"adversarial", "walk_perceptual"} <= losses.keys() or "pixel" in losses
    third.export(tmp_path / "distilled")
    folder = tmp_path / "distilled"
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file()]
    assert max(sizes) < 15e6
    assert sum(sizes) < 60e6
    UNet2DConditionModel.from_pretrained(folder / "unet", local_files_only=True)  # from shards
    made = load(str(folder), "cpu")
    assert made.steps == 2
    assert sum(p.numel() for p in made.context.module.parameters()) < 3e6
    told = cost(made, 2)  # what the config's comment says
    assert told["unet_gflop_window"] == pytest.approx(14.29, abs=0.01)
    assert told["tflop_mp"] == pytest.approx(1.15, abs=0.01)


@pytest.mark.parametrize(
    "names",
    [("base_autoencoder", "base_denoiser"), ("scenes_autoencoder", "scenes_classes")],
)
def test_the_cost_of_two_configs_is_counted_before_anything_is_trained(
    names, tmp_path, capsys, monkeypatch
):
    files = [str(CONFIGS / f"{name}.yaml") for name in names]
    monkeypatch.chdir(tmp_path)  # no folder that a config names is there
    assert ended(["cost", *files, "--steps", "2"], counting.main, monkeypatch) == 0
    told = dict(line.split() for line in capsys.readouterr().out.splitlines())
    assert float(told["tflop_mp"]) > float(told["unet_tflop_mp"]) > 0


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (("nowhere", "base_denoiser"), "nowhere.yaml: cannot be read"),
        (("nano_autoencoder", "nano_distil"), "stage.kind is distil; give a config of fresh"),
        (("nano_denoiser", "nano_denoiser"), "stage.kind is denoiser; give a config of an auto"),
    ],
)
def test_what_costs_nothing_that_can_be_counted_is_told_in_a_line(
    names, wanted, capsys, monkeypatch
):
    files = [str(CONFIGS / f"{name}.yaml") for name in names]
    assert ended(["cost", *files], counting.main, monkeypatch) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and told.startswith("restore: ") and wanted in told


def ended(words, main, monkeypatch):
    """The exit code of `python -m` with these words."""
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as end:
        command.run(main)
    return end.value.code


def test_a_convolution_costs_two_operations_a_weight_and_place():
    conv = torch.nn.Conv2d(3, 8, 3, padding=1, device="meta")
    assert flops(conv, torch.empty(1, 3, 10, 10, device="meta")) == 2 * 3 * 8 * 9 * 100


NEW = ("base_autoencoder", "base_denoiser", "base_distil", "nano_distil", "finetune_sd")


@pytest.mark.parametrize("name", NEW)
def test_the_shipped_recipes_are_valid(name):
    path = CONFIGS / f"{name}.yaml"
    assert load_config(loop.TrainOptions, path).output == Path("runs") / name
