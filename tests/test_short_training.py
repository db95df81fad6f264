"""The short training on a machine without package indexes: its bundle, its lanes, its end."""

import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from restore.config import load_config
from restore.diffusion.restorer import Restorer
from restore.images import picture
from restore.training import loop

TOOLS = Path(__file__).resolve().parents[1] / "tools"
CONFIGS = TOOLS.parent / "configs" / "train"


@pytest.fixture
def photos(tmp_path, pixels):
    (tmp_path / "photos").mkdir()
    Image.fromarray(pixels(144, 140)).save(tmp_path / "photos" / "0.png")
    return tmp_path / "photos"


@pytest.fixture
def small(tmp_path):
    """Weights of a little restorer by basicsr's names."""
    save_file(Restorer(8, 2).state_dict(), tmp_path / "small.safetensors")
    return tmp_path / "small.safetensors"


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(TOOLS))
    import short_training

    yield short_training
    sys.modules.pop("short_training")


def test_a_teacher_travels_in_eight_bits(tool):
    weights = {"body.weight": torch.randn(7, 5, 3, 3), "body.bias": torch.randn(7)}
    weights["body.weight"][0, 0] = 0  # a kernel that is not there
    packed = tool.quantize(weights)
    assert packed["body.weight"].dtype == torch.int8
    for name, weight in tool.dequantize(packed).items():
        torch.testing.assert_close(weight, weights[name], atol=0.02, rtol=0)


def test_the_bundle_holds_shrunk_photos_and_both_networks(tool, small, tmp_path):
    large = tmp_path / "large"
    large.mkdir()
    Image.fromarray(np.zeros((1000, 1200, 3), np.uint8)).save(large / "large.png")
    Image.fromarray(np.zeros((300, 400, 3), np.uint8)).save(large / "small.png")
    tool.pack(large, tmp_path / "bundle", start=small, teacher=small)
    sizes = [picture.probe(p).size for p in sorted((tmp_path / "bundle" / "photos").iterdir())]
    assert sizes == [(500, 600), (300, 400)]
    assert load_file(tmp_path / "bundle" / tool.START).keys() == load_file(small).keys()


def test_a_bundle_takes_any_folder_of_photos_and_loses_none(tool, small, tmp_path, capsys):
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    grey, turned = Image.new("L", (40, 60), 100), Image.Exif()
    turned[274] = 6
    grey.save(folder / "a.jpg", exif=turned)
    grey.save(folder / "more" / "a.jpg")
    Image.fromarray(np.full((60, 40), 100 * 257, np.uint16)).save(folder / "a.png")
    (folder / "notes.txt").write_text("")
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:60])
    tool.pack(folder, tmp_path / "bundle", start=small, teacher=small)
    packed = sorted((tmp_path / "bundle" / "photos").iterdir())
    assert [picture.probe(path).size for path in packed] == [(40, 60), (60, 40), (60, 40)]
    assert all(abs(np.asarray(Image.open(path)).mean() - 100) < 3 for path in packed)
    assert "left out: " in capsys.readouterr().out


def test_every_stage_of_the_short_training_has_a_configuration(tool):
    stages = [stage for lane in tool.LANES.values() for stage in lane]
    for stage in stages:
        asked = load_config(loop.TrainOptions, CONFIGS / f"{stage.config}.yaml")
        assert asked.output == Path("runs") / stage.config
        kinds = {"restorer": "restorer", "fusion": "fusion"}
        assert asked.stage.kind == kinds[stage.part]
    shares = [sum(stage.share for stage in lane) for lane in tool.LANES.values()]
    assert shares == pytest.approx([1, 1])


@pytest.fixture
def bundle(tool, monkeypatch, tmp_path):
    monkeypatch.setattr(tool, "ROOT", tmp_path)
    (tmp_path / "bundle").mkdir()
    save_file({"one": torch.zeros(1)}, tmp_path / "bundle" / f"eight_bits_{tool.TEACHER}")
    return tmp_path / "bundle"


def test_a_short_training_that_is_interrupted_begins_no_other_stage(tool, bundle, monkeypatch):
    ran = []

    def train(command, **_):
        ran.append(command)
        if len(ran) == 1:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            time.sleep(1)  # as a trainer that ends in its own time
        return 130

    monkeypatch.setattr(tool.subprocess, "call", train)
    before = set(threading.enumerate())
    words = ["run", str(bundle), str(bundle.parent / "out"), "--seconds", "20", "--only", "base"]
    assert CliRunner().invoke(tool.app, words).exit_code != 0
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive()
    assert len(ran) == 1


def test_a_short_training_in_another_folder_finds_its_bundle(tool, bundle, monkeypatch):
    ran = []
    monkeypatch.setattr(tool.subprocess, "call", lambda command, **_: ran.append(command) or 0)
    monkeypatch.chdir(bundle.parent)
    done = CliRunner().invoke(tool.app, ["run", "bundle", "out", "--seconds", "20"])
    assert done.exit_code == 0
    assert all(f"stage.data.photos={bundle / 'photos'}" in command for command in ran)


def test_a_short_training_names_what_is_wrong_before_it_begins(tool, bundle, photos, small):
    def refused(*words):
        done = CliRunner().invoke(tool.app, [str(word) for word in words])
        assert done.exit_code == 2
        return " ".join(done.output.split())

    out, late = bundle.parent / "out", ("--seconds", "20")
    assert "write KEY=VALUE" in refused("run", bundle, out, *late, "--set", "batch")
    assert "does not exist" in refused("run", bundle.parent / "none", out, *late)
    (bundle / f"eight_bits_{tool.TEACHER}").write_bytes(b"cut")
    assert "no readable .safetensors" in refused("run", bundle, out, *late)
    new = bundle.parent / "new"
    files = "--start", small, "--teacher"
    assert "no readable .safetensors" in refused("pack", photos, new, *files, bundle / "none")
    (bundle / "empty").mkdir()
    assert "holds no picture" in refused("pack", bundle / "empty", new, *files, small)
    assert not new.exists() and not out.exists()


def test_one_lane_of_the_short_training_is_run_alone(tool, bundle, monkeypatch, tmp_path):
    ran = []

    def run_lane(lane, *_):
        ran.extend(stage.config for stage in lane)
        return []

    monkeypatch.setattr(tool, "run_lane", run_lane)
    words = ["run", str(tmp_path / "bundle"), str(tmp_path / "out"), "--seconds", "20"]
    assert CliRunner().invoke(tool.app, [*words, "--only", "base"]).exit_code == 0
    assert ran == ["base_restorer", "base_faithful", "base_fusion"]
    (tmp_path / "runs" / "base_fusion" / "step_00000009").mkdir(parents=True)
    assert CliRunner().invoke(tool.app, [*words, "--only", "base"]).exit_code == 0
    (tmp_path / "bundle" / "more").touch()
    other = CliRunner().invoke(tool.app, [*words, "--only", "base"])
    assert other.exit_code == 2 and "holds checkpoints of another bundle" in other.output
    assert len(ran) == 6
    assert CliRunner().invoke(tool.app, [*words, "--only", "nano"]).exit_code == 0
    refused = CliRunner().invoke(tool.app, [*words, "--only", "large"])
    assert refused.exit_code == 2 and "no lane is named large" in refused.output
