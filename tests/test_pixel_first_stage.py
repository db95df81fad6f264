"""A pixel upscaler's answer, and what a model of diffusion makes of it."""

import copy
import json
import pickle
import shutil
from importlib.util import find_spec

import diffusers
import numpy as np
import pixel_nets
import pytest
import tiny
import torch
from PIL import Image
from test_security import harms

import restore
from restore.cli import main
from restore.errors import ConfigError, ModelError, UsageError
from restore.files import sha256
from restore.images.picture import Picture
from restore.options import UpscaleOptions
from restore.tasks import run

pytestmark = pytest.mark.skipif(not find_spec("spandrel"), reason="the extra pixel")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return pixel_nets.save(tmp_path_factory.mktemp("upscaler"), "SPAN", ".safetensors")  # x2


def photo(height: int = 24, width: int = 31) -> Picture:
    return Picture(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def answer(file, scale: float) -> np.ndarray:
    pixels = restore.load(str(file), "cpu").stack
    return run.restore(photo(), UpscaleOptions(scale=scale), pixels, 0).pixels


@pytest.mark.parametrize("scale", [1, 2, 3.3])
def test_without_a_walk_the_picture_is_the_upscalers(file, scale):
    stack = restore.load("nano", "cpu", first_stage=str(file)).stack
    made = run.restore(photo(), UpscaleOptions(scale=scale), stack, 0)
    assert (made.pixels == answer(file, scale)).all()


def test_a_walk_goes_on_from_it(file):
    stack = restore.load("nano", "cpu", first_stage=str(file)).stack
    options = UpscaleOptions(scale=2, steps=4, strength=0.3)
    weak, strong = (
        run.restore(photo(), options.model_copy(update={"strength": s}), stack, 0).pixels.astype(
            int
        )
        for s in (0.3, 1)
    )
    base = answer(file, 2)
    assert 0 < np.abs(weak - base).mean() < np.abs(strong - base).mean()


def test_damage_is_mended_before_and_filled_after(file):
    stack, mask = restore.load("nano", "cpu", first_stage=str(file)).stack, np.zeros((24, 31))
    mask[10:12] = 255
    made = run.restore(photo(), UpscaleOptions(scale=2), stack, 0, mask=mask.astype(np.uint8))
    assert made.size == (48, 62)


def test_stable_diffusion_starts_from_it(file, tmp_path):
    torch.manual_seed(0)
    tiny.base().save_pretrained(tmp_path / "sd")
    stack = restore.load(str(tmp_path / "sd"), "cpu", first_stage=str(file)).stack
    options = UpscaleOptions(scale=2, steps=4, strength=0.3, prompt="a")
    made = run.restore(photo(), options, stack, 0)
    assert made.size == (48, 62)
    other = run.restore(photo(), options.model_copy(update={"prompt": "b"}), stack, 0)
    assert (made.pixels != other.pixels).any()
    with pytest.raises(ConfigError, match="forgets the first stage"):
        run.restore(photo(), UpscaleOptions(scale=2), stack, 0)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_its_half_precision_that_overflows_is_computed_again_in_fp32(file, dtype):
    """Whatever the UNet computes in: a pixel upscaler takes its own best precision on a GPU."""
    stack = restore.load("nano", "cpu", dtype, first_stage=str(file)).stack
    network = stack.enlarger.network.half()
    network.register_forward_hook(
        lambda _, __, made: made * torch.inf if made.dtype == torch.float16 else made
    )
    made = run.restore(photo(), UpscaleOptions(scale=2), stack, 0)
    assert "computed again in fp32" in made.warnings[-1]
    assert stack.enlarger.is_half


def test_what_has_no_meaning_is_refused(file, tmp_path):
    stack = restore.load("nano", "cpu", first_stage=str(file)).stack
    torch.manual_seed(0)
    tiny.x4().save_pretrained(tmp_path / "x4")
    stack = restore.load(str(tmp_path / "x4"), "cpu", first_stage=str(file)).stack
    with pytest.raises(ConfigError, match="enlarges a picture by itself"):
        run.restore(photo(), UpscaleOptions(), stack, 0)
    with pytest.raises(ConfigError, match="takes no first stage"):
        restore.load(str(file), "cpu", first_stage=str(file))
    with pytest.raises(ConfigError, match="is no pixel upscaler"):
        restore.load("nano", "cpu", first_stage="nano")


def test_the_report_names_the_file_and_its_digest(file, tmp_path, capsys):
    Image.fromarray(photo().pixels).save(tmp_path / "a.png")
    asked = ["upscale", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "-s", "2"]
    asked += ["--device", "cpu"]
    rows = []
    for more in ([], ["--first-stage", str(file)]):
        assert main([*asked, *more]) == 0, capsys.readouterr().err
        lines = (tmp_path / "out" / "report.jsonl").read_text().splitlines()
        rows.append(json.loads(lines[-1]))
    assert "first_stage" not in rows[0]
    assert rows[1]["first_stage"] == file.name
    assert rows[1]["first_stage_sha256"] == sha256(file)
    for name in ("weights", "options", "output_sha256"):
        assert rows[0][name] != rows[1][name]
    asked[3] = str(tmp_path / "other")
    assert main([*asked, "--first-stage", str(tmp_path / "a.png")]) == 2
    assert "is no pixel upscaler" in capsys.readouterr().err


def test_an_evil_pickle_stays_inert(tmp_path, capsys):
    mark = tmp_path / "ran"
    path = tmp_path / "evil.pth"
    torch.save({"x": harms(mark)}, path)
    Image.fromarray(photo().pixels).save(tmp_path / "a.png")
    asked = ["upscale", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "--device", "cpu"]
    assert main([*asked, "--first-stage", str(path)]) == 3
    assert "holds more than tensors" in capsys.readouterr().err and not mark.exists()


@pytest.mark.parametrize("given", [{"foo": 1}, {"lora": []}, {"control_image": "/nope"}])
def test_no_argument_of_loading_is_swallowed(file, given):
    with pytest.raises((ConfigError, UsageError)):
        restore.load(file, "cpu", **given)
    with pytest.raises((ConfigError, UsageError)):
        restore.load("nano", "cpu", first_stage=file, **given)


def test_what_saving_would_lose_is_refused(file, tmp_path):
    with pytest.raises(UsageError, match=r"first stage, .*SPAN.*first_stage=FILE"):
        restore.load("nano", "cpu", first_stage=file).save_pretrained(tmp_path / "out")
    folder = tiny.checkpoint(tmp_path / "sd", "base")
    unet = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet")
    net = tiny.controlnet(tmp_path / "net", unet)
    steered = restore.load(folder, "cpu", controlnet=net)
    with pytest.raises(UsageError, match="its ControlNet would be lost"):
        steered.save_pretrained(tmp_path / "out")
    with pytest.raises(UsageError, match="its ControlNet would be lost"):
        steered.push_to_hub("org/name")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("how", ["alone", "first stage"])
def test_a_pickled_upscaler_is_loaded_again_and_must_be_the_same(file, tmp_path, how, monkeypatch):
    own = tmp_path / "x2.safetensors"
    shutil.copy(file, own)
    monkeypatch.chdir(tmp_path)
    made = (
        restore.load(own.name, "cpu")
        if how == "alone"
        else restore.load("nano", "cpu", first_stage=own.name)
    )
    held = pickle.dumps(made)
    monkeypatch.chdir("/")
    again = pickle.loads(held)
    assert (again.model.name, again.model.digest) == (made.model.name, made.stack.digest)
    pixels = photo().pixels
    wanted = made.upscale(pixels, 2)
    for other in (again, copy.copy(made), copy.deepcopy(made)):
        assert np.array_equal(other.upscale(pixels, 2), wanted)
    shutil.copy(pixel_nets.save(tmp_path / "other", "PLKSR"), own)
    with pytest.raises(ModelError, match="changed since"):
        pickle.loads(held)
    own.unlink()
    with pytest.raises(ModelError):
        pickle.loads(held)
    with pytest.raises(UsageError, match="load it in each process"):
        pickle.dumps(made)


def test_no_steps_are_none_and_what_is_not_heard_is_told(file, tmp_path):
    folder, pixels = tiny.checkpoint(tmp_path / "sd", "base"), photo().pixels
    wanted = restore.load(file, "cpu").upscale(pixels, 2)
    made = restore.load(folder, "cpu", first_stage=file)
    assert np.array_equal(made.upscale(pixels, 2, strength=0.5, steps=0), wanted)
    assert np.array_equal(made.upscale(pixels, 2, steps=0), wanted)
    nano = restore.load("nano", "cpu", first_stage=file)
    for model in (made, nano):
        options = UpscaleOptions(scale=2, steps=0, prompt="scratch", strength=0.3)
        told = run.restore(photo(), options, model.stack, 0).warnings
        assert told == (
            "prompt, strength are for sampling alone, which this model leaves out; add --steps 2",
        )
        with pytest.raises(ConfigError, match="unfade: is of nano's own"):
            model.upscale(pixels, 2, unfade=1, steps=0)
