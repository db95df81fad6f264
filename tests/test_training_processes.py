"""Training by two processes on this CPU: the samples, losses and weights are those of one."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from copy import deepcopy
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import ranks
import torch
import yaml
from accelerate.utils import DistributedType
from diffusers.training_utils import EMAModel
from PIL import Image
from torch import distributed, nn
from toy import assert_equal, tensors

import restore
from restore.config import load_config
from restore.errors import ConfigError
from restore.training import options, processes, sharding
from restore.training.data import shards
from restore.training.data.loading import Rows, Samples, build_loader

ROOT = Path(__file__).resolve().parents[1]
STEPS, MORE = 2, 3


@pytest.fixture(scope="module")
def config(tmp_path_factory, pixels, autoencoder):
    """A tiny denoiser on live pairs of photos in two shards, which each process's worker makes."""
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(5):
        Image.fromarray(pixels(90, 100, seed)).save(folder / f"{seed}.png")
    photos = [(file.name, file) for file in sorted(folder.iterdir())]
    packed = shards.pack(photos, folder / "shards", largest=photos[0][1].stat().st_size)
    assert len(packed.shards) > 1
    data = {"photos": str(folder / "shards"), "crop": 64, "window": 16, "mode": "live"}
    stage = {"kind": "denoiser", "autoencoder": str(autoencoder), "data": data}
    stage |= {"channels": [8, 16], "layers": 1, "groups": 4, "text_width": 16, "text_layers": 1}
    values = {"batch": 4, "save_every": 1, "show_every": 2, "keep": 9, "log_every": 1}
    values |= {"device": "cpu", "log_with": [], "output": "unsaid", "steps": STEPS, "workers": 1}
    values |= {"schedule": "constant", "warmup": 20, "learning_rate": 1e-3}
    file = folder / "c.yaml"
    file.write_text(yaml.safe_dump({"stage": stage, **values}))
    return file


@pytest.fixture(scope="module")
def runs(config, tmp_path_factory):
    """OUT/one by one process, OUT/two by two; OUT/cut, cut_on and parts with weights cut."""
    out = tmp_path_factory.mktemp("runs")
    each = [
        (f"output={out / 'two'}",),
        (f"output={out / 'cut'}", "shard=true"),
        (f"output={out / 'cut_on'}", "shard=true", f"resume={out / 'cut' / 'step_00000001'}"),
        (f"output={out / 'cut_on'}", "shard=true"),  # done already: it is exported once more
        (f"output={out / 'parts'}", "shard=true", "accumulate=2", "steps=1"),
    ]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc_per_node", "2", str(ROOT / "tests" / "ranks.py"), str(config)]
    done = subprocess.run(
        [*command, *map(shlex.join, each)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    train_alone(config, out / "one", steps=MORE)
    return out


def train_alone(config, out, steps):
    """In this process; the samples that each of its batches held."""
    ranks.main(config, f"output={out}", f"steps={steps}")
    return json.loads((out / "met_alone.json").read_text())


def logged(run, name):
    rows = (line.split(",") for line in (run / "log.csv").read_text().splitlines())
    return [float(value) for _, key, value in rows if key == name]


def assert_close(run, other, step):
    first, second = (tensors(place / f"step_{step:08d}") for place in (run, other))
    assert first.keys() == second.keys()
    moments = [name for name in first if name.endswith(".exp_avg")]  # sums of gradients
    assert moments
    for name in moments:
        torch.testing.assert_close(second[name], first[name], atol=1e-5, rtol=1e-3)
    # where a gradient is near 0, Adam's step is the learning rate with either sign
    for name in first.keys() - set(moments):
        torch.testing.assert_close(second[name], first[name], atol=1e-3, rtol=1e-3)


@pytest.mark.slow  # processes import torch
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["two", "cut"])
def test_two_processes_see_the_samples_and_the_gradient_of_one(runs, name):
    whole, *halves = (
        json.loads((runs / place).read_text())
        for place in ("one/met_alone.json", f"{name}/met_0.json", f"{name}/met_1.json")
    )
    assert [sorted(first + second) for first, second in zip(*halves, strict=True)] == whole[:STEPS]
    for step in range(1, STEPS + 1):
        assert_close(runs / "one", runs / name, step)
    losses = logged(runs / name, "latent")
    assert len(losses) == STEPS  # one process tells
    assert losses == pytest.approx(logged(runs / "one", "latent")[:STEPS], rel=1e-3)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["two", "cut"])
def test_one_process_goes_on_where_two_stopped(config, runs, name, tmp_path):
    shutil.copytree(runs / name, tmp_path / "run")
    met = train_alone(config, tmp_path / "run", steps=MORE)
    assert met == json.loads((runs / "one" / "met_alone.json").read_text())[STEPS:]
    assert_close(runs / "one", tmp_path / "run", MORE)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_cut_weights_go_on_and_are_exported_whole(runs, pixels):
    assert_equal(runs / "cut" / "step_00000002", runs / "cut_on" / "step_00000002")
    assert_close(runs / "one", runs / "parts", 1)
    pictures = []
    for name in ("two", "cut"):
        model = restore.load(runs / name / "export", device="cpu")
        low = Image.fromarray(pixels(24, 24))
        pictures.append(np.asarray(model.upscale(low, scale=2, steps=1), dtype=int))
    assert np.abs(pictures[0] - pictures[1]).max() <= 1


@pytest.fixture
def group(tmp_path):
    """This process, as a group of its own."""
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield SimpleNamespace(device=torch.device("cpu"), num_processes=1)
    distributed.destroy_process_group()


def test_cut_weights_are_lent_whole_and_come_back(group):
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    losses = nn.Sequential(model)
    model[1].bias.requires_grad = False
    frozen = model[1].bias.detach().clone()
    sharding.shard(losses, group)
    cut = dict(model.named_parameters())
    trained = [p for p in cut.values() if p.requires_grad]
    ema = EMAModel(trained)
    for average in ema.shadow_params:
        average.fill_(0.5)
    with sharding.average_weights(losses, ema, trained):
        lent = deepcopy(model)
        found = lent.state_dict()
        assert lent(torch.ones(1, 4)).shape == (1, 2)
    assert found.keys() == cut.keys()
    for name, tensor in found.items():
        assert type(tensor) is torch.Tensor and tensor.data_ptr()
        assert torch.equal(tensor, frozen if name == "1.bias" else torch.full_like(tensor, 0.5))
    assert all(p is cut[name] for name, p in model.named_parameters())
    assert not any((sharding.gather(p) == 0.5).any() for p in trained)


@pytest.mark.parametrize(
    "more", [{"precision": "fp16"}, {"compile": True}, {"channels_last": True}]
)
def test_cut_weights_go_with_few_of_the_other_options(config, more):
    values = [f"{name}={value}" for name, value in more.items()]
    with pytest.raises(ConfigError, match="shard goes with"):
        load_config(options.TrainOptions, config, ["device=auto", "shard=true", *values])


@pytest.mark.parametrize("kind", [DistributedType.FSDP, DistributedType.MULTI_CPU])
def test_sharding_by_accelerate_is_refused_with_what_does_it(config, monkeypatch, kind):
    """On a CPU accelerate passes over what it was told."""

    def told(**how):
        return SimpleNamespace(distributed_type=kind, device=torch.device("cpu"))

    monkeypatch.setattr(processes, "Accelerator", told)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match=r"told to use FSDP; .* set shard=true"):
        processes.setup_accelerator(load_config(options.TrainOptions, config))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on one CPU
@pytest.mark.parametrize("workers", [0, 2])
def test_processes_and_their_workers_share_shards_without_loss_or_doubling(config, workers):
    photos = load_config(options.TrainOptions, config).stage.data.open()
    samples = Samples(lambda rng, index: (index, photos.crop(64, 1, rng)), seed=0)

    def crops(rows, workers):
        batches = build_loader(samples, rows, workers)
        return [(int(n), rgb) for batch in batches for n, rgb in zip(*batch, strict=True)]

    parts = [crops(Rows(8, 4, 6, rank, 2), workers) for rank in (0, 1)]
    made = sorted(chain(*parts), key=lambda crop: crop[0])
    assert [number for number, _ in made] == list(range(8, 32))
    for (_, rgb), (_, alone) in zip(made, crops(Rows(8, 4, 6), 0), strict=True):
        assert torch.equal(rgb, alone)
