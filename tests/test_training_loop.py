"""The loop: what contradicts itself is refused, and no way of splitting a step changes it."""

import csv
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import toy
import yaml
from diffusers import AutoencoderTiny
from PIL import Image
from torch._dynamo.testing import CompileCounter
from toy import ToyStage, assert_equal, tensors, train

import degradations
from restore import cli
from restore.config import load_config
from restore.errors import ConfigError, NonFiniteError
from restore.training import logs, loop, model_card, optim, processes
from restore.training.rng import WHOLE
from restore.training.stages.denoiser import DenoiserStage

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def toys(monkeypatch):
    monkeypatch.setitem(loop.STAGES, "pixels", ToyStage)
    monkeypatch.setattr(ToyStage, "met", [])
    monkeypatch.setattr(ToyStage, "dropped", 0.1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory, pixels):
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(3):
        Image.fromarray(pixels(90, 100, seed)).save(folder / f"{seed}.png")
    (folder / "photos.csv").write_text(
        "file,source,licence\n0.png,a/b,CC0\n1.png,a/b,CC-BY-4.0 (LICENSE)\n2.png,c/d,CC0\n"
    )
    return folder


@pytest.fixture(scope="module")
def denoiser(photos, autoencoder):
    """A tiny denoiser on live pairs."""
    data = {"photos": str(photos), "crop": 64, "count": 6, "window": 16, "mode": "live"}
    shape = {"channels": [8, 16], "layers": 1, "groups": 4, "text_width": 16, "text_layers": 1}
    return {
        "stage": {"kind": "denoiser", "autoencoder": str(autoencoder), "data": data, **shape},
        **{"batch": 4, "save_every": 1, "show_every": 100, "keep": 9, "log_every": 1},
        **{"device": "cpu", "log_with": ()},
    }


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"precision": "fp16", "device": "cpu"}, "precision fp16 needs a CUDA device"),
        ({"batch": 4, "accumulate": 3}, "batch 4 cannot be cut into 3 equal parts"),
        ({"stepz": 3}, "stepz is not an option of TrainOptions; did you mean 'steps'"),
        ({"device": "gpu"}, "device"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed must be less than"),
        ({"learning_rate": float("nan")}, "learning_rate"),
    ],
)
def test_options_that_contradict_each_other_are_refused(toys, tmp_path, given, told):
    with pytest.raises(ConfigError, match=told):
        train(tmp_path / "run", **given)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_device_that_is_not_there_is_refused(toys, tmp_path):
    with pytest.raises(ConfigError, match="torch finds no CUDA device; try device=cpu"):
        train(tmp_path / "run", device="cuda")
    with pytest.raises(ConfigError, match="precision fp16 needs a CUDA device; bf16 serves"):
        train(tmp_path / "run", precision="fp16")


@pytest.mark.parametrize(("gain", "chosen"), [(3.0, "bf16"), (0.5, "fp32")])
def test_precision_auto_is_the_faster_one_and_is_recorded(
    toys, tmp_path, monkeypatch, gain, chosen
):
    monkeypatch.setattr(processes, "bf16_gain", lambda device: gain)
    train(tmp_path / "asked", steps=2, precision=chosen)
    train(tmp_path / "auto", steps=2, precision="auto")
    assert_equal(tmp_path / "asked" / "step_00000002", tmp_path / "auto" / "step_00000002")
    recorded = (tmp_path / run / "config.yaml" for run in ("asked", "auto"))
    assert [yaml.safe_load(path.read_text())["precision"] for path in recorded] == [chosen] * 2


def test_the_gain_of_bf16_is_measured(monkeypatch):
    """By the fastest of each: here a layer takes 3 s, in bf16 1 s, and now and then longer."""
    now, turns = [0.0], iter(range(99))

    class Layer(torch.nn.Conv2d):
        def forward(self, x):
            now[0] += (1 if torch.is_autocast_enabled("cpu") else 3) + next(turns) % 4
            return x * self.weight.sum()

    monkeypatch.setattr(torch.nn, "Conv2d", Layer)
    monkeypatch.setattr(processes, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    # two layers a turn: 3 + 3 and the pauses 0 and 1, or 1 + 1 and the same
    assert processes.bf16_gain(torch.device("cpu")) == pytest.approx(7 / 3)


def test_accumulated_parts_equal_the_whole_batch(toys, tmp_path, monkeypatch):
    monkeypatch.setattr(ToyStage, "dropped", 0)  # what is dropped differs by part
    train(tmp_path / "whole", steps=3, batch=8)
    order = list(ToyStage.met)
    ToyStage.met = []
    train(tmp_path / "parts", steps=3, batch=8, accumulate=4)
    assert sorted(ToyStage.met) == order
    whole, parts = (tensors(tmp_path / run / "step_00000003") for run in ("whole", "parts"))
    for name in whole:
        torch.testing.assert_close(parts[name], whole[name], atol=1e-6, rtol=1e-4)


def test_a_part_may_lack_a_loss(toys, tmp_path, monkeypatch):
    """As where a batch's few decoded samples all fall to the other parts."""
    whole = ToyStage.loss

    def loss(self, batch, step, part=WHOLE):
        error = whole(self, batch, step, part)["error"]
        return {"error": error} | ({"own": error.detach()} if part.at else {"first": error})

    monkeypatch.setattr(ToyStage, "loss", loss)
    train(tmp_path / "run", steps=1, batch=4, accumulate=2, log_every=1)
    rows = csv.reader((tmp_path / "run" / "log.csv").read_text().splitlines())
    told = {name: float(value) for _, name, value in rows}
    assert told["own"] + told["first"] == pytest.approx(told["error"], rel=1e-4)


def test_a_lone_process_has_nothing_to_cut(toys, tmp_path):
    train(tmp_path / "plain", steps=2)
    train(tmp_path / "cut", steps=2, shard=True)
    assert_equal(tmp_path / "plain" / "step_00000002", tmp_path / "cut" / "step_00000002")


def test_what_saves_memory_is_turned_on_in_each_network(stack):
    unet = type(stack.unet).from_config(stack.unet.config)
    optim.enable_checkpointing(torch.nn.ModuleDict({"unet": unet, "other": torch.nn.Linear(2, 2)}))
    assert unet.is_gradient_checkpointing


@pytest.mark.slow  # torch imports its compiler for it
@pytest.mark.timeout(600)
def test_what_saves_memory_changes_no_weight(denoiser, trained, tmp_path, monkeypatch):
    import torch.utils.checkpoint as activations

    calls, once = [], activations.checkpoint
    monkeypatch.setattr(
        activations, "checkpoint", lambda *args, **how: calls.append(1) or once(*args, **how)
    )
    spared = run_of(denoiser, tmp_path / "spared", checkpointing=True)
    assert calls
    for name, tensor in tensors(trained / "step_00000002").items():
        torch.testing.assert_close(tensors(spared)[name], tensor, atol=1e-5, rtol=1e-3)


@pytest.fixture(scope="module")
def trained(denoiser, tmp_path_factory):
    """Two steps of it."""
    return run_of(denoiser, tmp_path_factory.mktemp("trained") / "run", show_every=2).parent


def run_of(config, folder, **more):
    """Two steps; returns the last checkpoint."""
    path = folder.with_suffix(".yaml")
    path.write_text(yaml.safe_dump({**config, "output": str(folder), "steps": 2, **more}))
    loop.run(path, [])
    return folder / "step_00000002"


def test_a_stage_that_cannot_save_memory_refuses_to(toys, tmp_path):
    with pytest.raises(ConfigError, match="no network of this stage can do it"):
        train(tmp_path / "run", checkpointing=True)


def test_the_layout_in_memory_suits_the_device_and_the_network():
    convolution = torch.nn.Conv2d(8, 8, 3)
    plain = torch.nn.Sequential(convolution)
    normed = torch.nn.Sequential(torch.nn.Conv2d(8, 8, 3), torch.nn.GroupNorm(2, 8))
    for network, device, choice, is_last in (
        (plain, "cpu", "auto", True),
        (normed, "cpu", "auto", False),
        (normed, "cuda", "auto", True),
        (plain, "cpu", False, False),
        (normed, "cpu", True, True),
    ):
        optim.set_memory_format(network, choice, torch.device(device))
        assert network[0].weight.is_contiguous(memory_format=torch.channels_last) == is_last


def test_memory_format_changes_weights_by_rounding_alone(denoiser, trained, tmp_path):
    last = tensors(run_of(denoiser, tmp_path / "last", channels_last=True))
    for name, tensor in tensors(trained / "step_00000002").items():
        torch.testing.assert_close(last[name], tensor, atol=1e-4, rtol=1e-2)


def test_compiled_networks_keep_the_names_of_their_weights(toys, tmp_path, monkeypatch):
    compiler = CompileCounter()  # it runs what it is given as it stands
    compile_networks = partial(optim.compile_networks, backend=compiler)
    coder, rgb = AutoencoderTiny(encoder_block_out_channels=(8,) * 4), torch.rand(1, 3, 16, 16)
    names, latent = list(coder.state_dict()), coder.encoder(rgb)
    compile_networks(torch.nn.ModuleDict({"vae": coder}))
    torch.testing.assert_close(coder.encoder(rgb), latent)
    assert compiler.frame_count > 0 and list(coder.state_dict()) == names
    monkeypatch.setattr(optim, "compile_networks", compile_networks)
    train(tmp_path / "plain", steps=1)
    train(tmp_path / "run", steps=1, compile=True)
    assert_equal(tmp_path / "plain" / "step_00000001", tmp_path / "run" / "step_00000001")


def test_the_rate_warms_up_then_stays_or_falls_to_zero():
    level = [optim.rate_at(step, 100, 10, "constant") for step in range(101)]
    falling = [optim.rate_at(step, 100, 10, "cosine") for step in range(101)]
    assert level[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert level[9:] == [1.0] * 92
    assert falling[50] == pytest.approx(0.5)
    assert falling[100] == pytest.approx(0)
    assert all(a > b for a, b in pairwise(falling[10:]))


def test_the_resolved_configuration_is_kept_and_can_be_run(toys, tmp_path):
    train(tmp_path / "run", steps=2)
    kept = load_config(loop.TrainOptions, tmp_path / "run" / "config.yaml")
    assert kept == load_config(loop.TrainOptions, tmp_path / "run.yaml")
    assert kept.steps == 2


def test_every_log_line_tells_speed_and_waiting(toys, tmp_path, capsys):
    train(tmp_path / "run", steps=4, log_every=2, show_every=4)
    rows = list(csv.reader((tmp_path / "run" / "log.csv").read_text().splitlines()))
    told = {step: {name for at, name, _ in rows if at == step} for step in ("2", "4")}
    assert told["2"] == {"error", "learning_rate", "images_per_s", "data_wait"}
    assert told["4"] - told["2"] == {"weight"}
    assert (tmp_path / "run" / "preview_00000004.png").is_file()
    lines = [line for line in capsys.readouterr().out.splitlines() if "step 2 " in line]
    assert all(name in lines[0] for name in ("error", "images_per_s", "data_wait"))


def test_waiting_and_pauses_are_told_apart(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(logs.time, "perf_counter", lambda: now[0])
    clock = logs.Clock()
    with clock.waiting():
        now[0] += 1
    with clock.pausing():
        now[0] += 50
    now[0] += 9
    clock.images += 20
    assert clock.read() == {"images_per_s": 2, "data_wait": 0.1}


def test_a_stage_may_have_nothing_to_show(toys, tmp_path, monkeypatch):
    monkeypatch.setattr(ToyStage, "preview", lambda self: ([], {}))
    train(tmp_path / "run", steps=2, show_every=1)
    assert not list((tmp_path / "run").glob("preview_*"))


def test_a_step_is_one_line_however_many_losses_it_has(capsys):
    with logs.progress_bar(9, 0, True) as advance:
        advance(1, {f"loss_{nth}": 0.5 for nth in range(12)}, {"images_per_s": 2.0})
    lines = capsys.readouterr().out.splitlines()
    assert any("loss_0 0.5" in line and "images_per_s 2.00" in line for line in lines)


def test_exporting_a_finished_run_again_adds_nothing_to_its_log(toys, tmp_path):
    for _ in range(3):
        train(tmp_path / "run", steps=3, log_every=2)
        lines = (tmp_path / "run" / "log.csv").read_text().splitlines()
        names = [tuple(line.split(",")[:2]) for line in lines]
        assert len(names) == len(set(names)) and ("3", "weight") in names
    train(tmp_path / "run", steps=4, log_every=2)
    more = (tmp_path / "run" / "log.csv").read_text().splitlines()
    assert more[: len(lines)] == lines and len(more) > len(lines)


def test_a_failed_batch_of_pairs_can_be_replayed(denoiser, tmp_path, monkeypatch):
    def broken(stage, batch, step, part):
        losses = loss(stage, batch, step, part)
        return {**losses, "more": losses["latent"] * (float("nan") if step == 1 else 1)}

    loss = DenoiserStage.loss
    monkeypatch.setattr(DenoiserStage, "loss", broken)
    with pytest.raises(NonFiniteError, match=r"step 1: .*samples 4 to 7: nan, see .*failed_0000"):
        run_of(denoiser, tmp_path / "run")
    failed = tmp_path / "run" / "failed_00000001"
    known = toy.load_file(failed / "batch.safetensors")["conditioning"]
    assert known.dtype == torch.uint8 and known.shape == (4, 64, 64, 3)
    traces = sorted((failed / "traces").iterdir())
    assert traces
    for trace in traces:
        hr, again = failed / "hr" / f"{trace.stem}.png", tmp_path / f"{trace.stem}.png"
        words = ["degrade", "replay", str(trace), str(hr), "-o", str(again)]
        assert cli.main(words) == 0
        record = degradations.Trace.load(trace)
        made = np.asarray(Image.open(again))
        assert made.shape[0] == round(64 / record.scale)
        if record.scale == 1:  # then it is what the network was shown, holes aside
            shown = known[int(trace.stem) - 4].numpy()
            assert (made == shown).all(-1).mean() > 0.4


def test_the_export_carries_a_card_with_data_recipe_scores_and_limits(trained, photos):
    export = trained / "export"
    told = (export / "README.md").read_text()
    assert "2 steps of 4 samples in fp32" in told
    assert "Recipe `realesrgan`" in told
    assert "| CC0 | 2 |" in told and "3 photos from 2 sources" in told
    assert "| psnr |" in told and "other crops of the training photos" in told
    assert str(photos.parent) not in told
    assert (export / "photos.csv").read_bytes() == (photos / "photos.csv").read_bytes()
    assert loop.checkpoint.manifest.check(export)


def test_a_card_without_known_sources_says_so(tmp_path):
    assert model_card.find_notes(str(tmp_path / "photos")) is None
    about = {"photos": str(tmp_path / "photos"), "tasks": {"restore": 1}, "scales": {"4": 1}}
    assert "not known here" in model_card._data(about, None)
    assert "shown no holes" in model_card._limits({"data": about})


def test_a_finished_run_that_is_run_again_keeps_the_scores_of_its_card(toys, tmp_path):
    for _ in range(2):
        train(tmp_path / "run", steps=2, show_every=1)
        told = (tmp_path / "run" / "export" / "README.md").read_text()
        assert "| weight |" in told


def test_photos_of_the_folder_where_one_stands_are_noted(tmp_path, monkeypatch):
    (tmp_path / "photos.csv").write_bytes(
        "file,source,licence\n0.png,caf\xe9,CC0\n".encode("cp1252")
    )
    monkeypatch.chdir(tmp_path)
    notes = model_card.find_notes(".")
    assert notes == tmp_path / "photos.csv"
    assert "| CC0 | 1 |" in model_card._sources(notes)
