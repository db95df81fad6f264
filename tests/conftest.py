"""A tiny stack with random weights, and pictures that have something in them."""

import gc
import json
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a test that reaches for the network is wrong
# Threads that spin for work take the cores of the other processes that test.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OMP_NUM_THREADS", "1" if "PYTEST_XDIST_WORKER" in os.environ else "2")

import cv2
import huggingface_hub
import numpy as np
import pytest
import torch
from hubs import serving
from hypothesis import HealthCheck, settings
from PIL import Image

from restore import cli
from restore.checkpoints import devices, manifest
from restore.diffusion.stack import Stack
from restore.diffusion.tiling import Windows
from restore.images.picture import Picture
from restore.training.stages import denoiser
from restore.training.stages.autoencoder import AutoencoderOptions, build

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
# How long an example takes says how busy the machine is.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


def pytest_xdist_auto_num_workers():
    """One process a CPU, and four at most: each takes up to 2 GB."""
    return min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2, 4)


@pytest.hookimpl(wrapper=True)
def pytest_collection():
    """What is imported by now stays; the garbage collector need not walk through it each time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def smooth_pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8 (height, width, 3): soft blobs of colour."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(height, width, 3)).astype(np.float32)
    soft = cv2.GaussianBlur(noise, (0, 0), 3).reshape(height, width, 3)
    soft = (soft - soft.min()) / max(float(np.ptp(soft)), 1e-6)
    return np.rint(soft * 255).astype(np.uint8)


@pytest.fixture(scope="session")
def pixels():
    return smooth_pixels


@pytest.fixture(autouse=True)
def nothing_of_the_users(monkeypatch, tmp_path):
    """Whoever runs the tests may have models of their own, and a cache."""
    monkeypatch.setenv("RESTORE_MODELS", str(tmp_path / "models-of-nobody"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache-of-nobody"))


@pytest.fixture
def picture():
    def make(height: int, width: int, seed: int = 0) -> Picture:
        return Picture(smooth_pixels(height, width, seed))

    return make


@pytest.fixture(scope="session")
def autoencoder(tmp_path_factory):
    """The folder of a tiny untrained autoencoder, as stage one exports it."""
    torch.manual_seed(0)
    options = AutoencoderOptions.model_validate(
        {
            "data": {"photos": "."},
            "channels": 8,
            "encoder_blocks": (0, 1, 1),
            "decoder_blocks": (1, 1, 1),
        }
    )
    folder = tmp_path_factory.mktemp("autoencoder")
    build(options).save_pretrained(folder / "vae")
    return folder


@pytest.fixture(scope="session")
def stack(autoencoder) -> Stack:
    """All parts, untrained, with an output that is not zero and windows that are quick."""
    torch.manual_seed(1)
    options = denoiser.DenoiserOptions.model_validate(
        {
            "autoencoder": autoencoder,
            "data": {"photos": "."},
            "channels": (8, 16),
            "layers": 1,
            "groups": 4,
            "text_width": 16,
            "text_layers": 1,
        }
    )
    made = denoiser.build(options)
    torch.nn.init.normal_(made.unet.conv_out.weight, std=0.1)
    made.windows = Windows(16, 12)
    for part in (made.vae, made.unet, made.context.module):
        part.requires_grad_(False).eval()
    return made


@pytest.fixture
def call(capsys, tmp_path, monkeypatch, stack):
    """Run a command over the tiny stack: (exit code, stdout, stderr)."""
    monkeypatch.setattr(manifest, "find_model", lambda name, **_: (Path(name), "digest"))
    monkeypatch.setattr(devices, "load", lambda *_, **__: stack)

    def run(command, *words, out="out"):
        code = cli.main([command, *map(str, words), "-o", str(tmp_path / out)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def photo(tmp_path, pixels):
    """Saves a small picture in the input folder, under any name."""

    def save(name, seed=0, folder="in"):
        path = tmp_path / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = "JPEG" if name.casefold().endswith(("jpg", "jpeg")) else "PNG"
        with path.open("wb") as file:
            Image.fromarray(pixels(8, 8, seed)).save(file, kind)
        return path

    return save


@pytest.fixture
def restored(call, tmp_path):
    """Restore the input folder: (exit code, rows by key, what was said)."""

    def go(*words, inputs=None, out="out"):
        inputs = [tmp_path / "in"] if inputs is None else inputs
        code, said, errors = call("upscale", *inputs, "-s", 1, *words, out=out)
        report = tmp_path / out / "report.jsonl"
        lines = report.read_text().splitlines() if report.exists() else []
        return code, {row["key"]: row for row in map(json.loads, lines)}, said + errors

    return go


@pytest.fixture
def online(tmp_path, monkeypatch):
    """A hub on loopback: (its folder, bytes given by file)."""
    top = tmp_path / "served"
    top.mkdir()
    with serving(top) as (address, given):
        constants = huggingface_hub.constants
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_XET_CACHE", str(tmp_path / "xet"))
        yield top, given
