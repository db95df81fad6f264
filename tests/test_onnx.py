"""ONNX Runtime in torch's place: the same pictures, a quick start, and what is refused."""

import errno
import io
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from functools import partialmethod
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pixel_nets
import pytest
import tiny
import torch
from packaging.version import Version
from PIL import Image
from safetensors.torch import load_file, save_file
from starlette.testclient import TestClient

import restore
from restore.checkpoints import manifest, model_paths
from restore.checkpoints.export import export
from restore.cli import main
from restore.diffusion import watch
from restore.errors import ConfigError, ModelError, OutputError, UsageError
from restore.images.picture import Picture
from restore.onnx import session, traced
from restore.options import Img2imgOptions, InpaintOptions, UpscaleOptions
from restore.pixel import model as pixel_model
from restore.pixel.windows import PixelWindows
from restore.tasks import run
from restore.web.api import create_app
from restore.web.guard import Rules
from restore.web.models import Models
from restore.web.requests import UpscaleRequest
from restore.web.roots import Roots
from restore.web.server import Limits
from restore.web.store import ENDED

pytestmark = pytest.mark.skipif(
    not (find_spec("onnxruntime") and find_spec("onnx")), reason="the extra onnx"
)


@pytest.fixture(scope="module")
def nano(tmp_path_factory) -> Path:
    """What `restore export nano` writes."""
    return export("nano", tmp_path_factory.mktemp("onnx") / "nano")


@pytest.fixture(scope="module")
def both(nano):
    """nano by torch and by ONNX Runtime."""
    return restore.load("nano", "cpu").stack, restore.load(str(nano), engine="onnx").stack


def photo(height: int, width: int, seed: int = 0, dtype=np.uint8) -> Picture:
    """Soft blobs with a grain."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8))
    soft = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)
    level = (soft + rng.normal(0, 4, soft.shape)).clip(0, 255) / 255
    return Picture(np.rint(level * np.iinfo(dtype).max).astype(dtype))


def apart(options, picture: Picture, stacks, mask=None) -> float:
    """The largest difference of the two engines' pictures, in 255ths."""
    made = [run.restore(picture, options, stack, 3, mask=mask) for stack in stacks]
    assert made[0].size == made[1].size
    one, other = (each.pixels.astype(float) for each in made)
    return float(np.abs(one - other).max() * 255 / np.iinfo(made[0].pixels.dtype).max)


@pytest.mark.parametrize("fidelity", [0, 0.3, 1])
@pytest.mark.parametrize("scale", [1, 1.5, 4])
def test_enlarging_gives_the_same_picture(both, scale, fidelity):
    options = UpscaleOptions(scale=scale, fidelity=fidelity)
    for seed, size in enumerate([(40, 57), (9, 3)]):
        assert apart(options, photo(*size, seed), both) <= 1


def test_sixteen_bits_and_grey_are_within_the_same_bound(both):
    deep = photo(30, 31, dtype=np.uint16)
    assert apart(UpscaleOptions(), deep, both) <= 1
    grey = Picture(deep.pixels[..., :1].repeat(3, 2), grey=True)
    assert apart(UpscaleOptions(), grey, both) <= 1


@pytest.mark.parametrize("steps", [1, 3])
def test_walks_by_windows_give_the_same_picture(both, steps):
    picture = photo(70, 41)
    assert apart(UpscaleOptions(scale=4, steps=steps), picture, both) <= 1
    assert apart(Img2imgOptions(prompt="noise", strength=0.5, steps=4), picture, both) <= 1


def test_holes_are_filled_alike(both):
    mask = np.zeros((64, 80), np.uint8)
    mask[20:50, 30:52] = 255
    assert apart(InpaintOptions(steps=2), photo(64, 80), both, mask) <= 1
    assert apart(UpscaleOptions(scale=1), photo(64, 80), both, mask) <= 1


OLD = Version(torch.__version__) < Version("2.13")  # counts of distances must be known there
LDM = pytest.param("ldm", marks=pytest.mark.skipif(OLD, reason="torch exports it from 2.13 on"))


@pytest.mark.parametrize("kind", ["base", "inpainting", "x4", LDM])
def test_other_layouts_give_the_same_picture(kind, tmp_path):
    made = {"base": tiny.base, "inpainting": lambda: tiny.base(9), "x4": tiny.x4, "ldm": tiny.ldm}
    torch.manual_seed(0)
    made[kind]().save_pretrained(tmp_path / "model")
    folder = export(str(tmp_path / "model"), tmp_path / "onnx")
    stacks = restore.load(str(tmp_path / "model"), "cpu").stack
    stacks = stacks, restore.load(str(folder), engine="onnx").stack
    options = Img2imgOptions(prompt="a", steps=2)
    mask = None
    if kind == "inpainting":
        options, mask = InpaintOptions(prompt="a", steps=2), np.zeros((24, 50), np.uint8)
        mask[5:15, 5:20] = 255
    elif kind != "base":
        options = UpscaleOptions(scale=stacks[0].factor, steps=2)
    assert apart(options, photo(24, 50), stacks, mask) <= 1


def test_the_card_of_an_export_is_utf8_whatever_the_locale(tmp_path, monkeypatch):
    file = pixel_nets.save(tmp_path, "RRDBNet", ".safetensors").rename(tmp_path / "été.safetensors")
    monkeypatch.setattr(Path, "write_text", partialmethod(Path.write_text, encoding="ascii"))
    folder = export(str(file), tmp_path / "onnx")
    assert "# été.safetensors," in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", [*pixel_nets.EIGHT, "DRUNet", "RCAN"])
def test_a_pixel_upscaler_keeps_its_windows(kind, tmp_path, monkeypatch):
    """Windows of attention, too: sizes that they divide and that they do not, and tiny ones."""
    file = pixel_nets.save(tmp_path, kind, ".safetensors")
    folder = export(str(file), tmp_path / "onnx")
    models = restore.load(str(file), "cpu").stack, restore.load(str(folder), engine="onnx").stack
    assert models[0].windows == models[1].windows
    options = UpscaleOptions(scale=models[0].scale)
    for size in ((32, 48), (37, 18), (3, 5)):
        assert apart(options, photo(*size), models) <= 1
    for name, value in {"LARGEST": 16, "WIDE": 16, "FAR": 0, "BLEND": 0}.items():
        monkeypatch.setattr(pixel_model, name, value)  # a smaller picture is one window
    for model in models:
        model.windows = PixelWindows(32, 16, 8)
    assert apart(options, photo(41, 33), models) <= 1


def test_what_a_trace_does_not_hold_is_refused_in_one_line(tmp_path, monkeypatch):
    """A size that Python computes is a constant of the trace."""

    def padded(tensor, multiple, **how):
        height, width = (int(side) for side in tensor.shape[-2:])
        pads = 0, -width % multiple, 0, -height % multiple
        return torch.nn.functional.pad(tensor, pads, **how)

    file = pixel_nets.save(tmp_path, "SwinIR", ".safetensors")
    monkeypatch.setattr("spandrel.architectures.SwinIR.__arch.SwinIR.pad_to_multiple", padded)
    with pytest.raises(ModelError, match="SwinIR: cannot be exported") as caught:
        export(str(file), tmp_path / "onnx")
    assert "\n" not in str(caught.value) and not (tmp_path / "onnx").exists()


def test_a_full_disk_is_named_and_not_the_network(tmp_path, monkeypatch):
    def refuse(*args, **how):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(OutputError, match=r"out: cannot be written: .*No space left"):
        export(str(pixel_nets.save(tmp_path, "SPAN", ".safetensors")), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_weights_too_large_for_the_file_lie_beside_it(tmp_path, monkeypatch):
    """Of a UNet of Stable Diffusion's shape, as ONNX's external data in a .safetensors file."""
    torch.manual_seed(0)
    tiny.base().save_pretrained(tmp_path / "model")
    monkeypatch.setattr(traced, "MOST", 10**5)  # bytes; 2 GB for real
    folder = export(str(tmp_path / "model"), tmp_path / "onnx")
    place = folder / "unet" / "model.onnx"
    weights = load_file(folder / "unet" / "model.safetensors")
    stacks = restore.load(str(tmp_path / "model"), "cpu").stack
    assert len(weights) > 50 and sum(one.numel() * 4 for one in weights.values()) > 10**5
    assert sorted(path.name for path in (folder / "vae").glob("*.safetensors")) == [
        "decoder.safetensors",
        "encoder.safetensors",
    ]
    onnx = pytest.importorskip("onnx")
    read = {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load(place).graph.initializer}
    assert {name: one.tobytes() for name, one in read.items() if name in weights} == {
        name: one.numpy().tobytes() for name, one in weights.items()
    }
    monkeypatch.chdir(tmp_path)  # the files are found by the folder, not from here
    stacks = stacks, restore.load(str(folder), engine="onnx").stack
    assert apart(Img2imgOptions(prompt="a", steps=2), photo(24, 50), stacks) <= 1
    weights["unet.conv_in.bias"] += 1
    save_file(weights, folder / "unet" / "model.safetensors")
    with pytest.raises(ModelError, match=r"model\.safetensors: changed since"):
        restore.load(str(folder), engine="onnx")


def test_a_file_cannot_name_another_for_its_weights(tmp_path, monkeypatch):
    """Weights that lie anywhere else are not read."""
    onnx = pytest.importorskip("onnx")
    torch.manual_seed(0)
    layer = torch.nn.Linear(4, 4)
    monkeypatch.setattr(traced, "MOST", 10)
    path = tmp_path / "net" / "model.onnx"
    traced.write(layer, path, [{0: "n"}], lambda nth: (torch.rand(2 + nth, 4),), "net")
    session.weights_path(path).rename(tmp_path / "secret.bin")
    monkeypatch.chdir(tmp_path)
    for location in ("secret.bin", "../secret.bin", str(tmp_path / "secret.bin")):
        model = onnx.load(path, load_external_data=False)
        for tensor in model.graph.initializer:
            for one in tensor.external_data:
                one.value = location if one.key == "location" else one.value
        onnx.save(model, path)
        with pytest.raises(ModelError, match="export it again"):
            session.opened(path)


def test_a_small_picture_needs_neither_torch_nor_diffusers(nano, tmp_path):
    Image.fromarray(photo(20, 30).pixels).save(tmp_path / "a.png")
    words = ["upscale", "a.png", "-o", "out", "--model", str(nano), "--engine", "onnx"]
    code = f"""
import sys
from restore.cli import app
try:
    app(args={words!r})
except SystemExit as end:
    assert not end.code, end.code
sys.exit(str({{"torch", "diffusers", "transformers", "onnx"}} & set(sys.modules) or ""))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "1 done" in done.stdout and "{" not in done.stderr, done.stderr
    row = json.loads((tmp_path / "out" / "report.jsonl").read_text().splitlines()[0])
    assert row["engine"] == "onnx" and row["size_out"] == [80, 120]


def test_by_torch_a_picture_without_a_walk_needs_no_diffusers(tmp_path):
    Image.fromarray(photo(20, 30).pixels).save(tmp_path / "a.png")
    code = """
import sys
from restore.cli import app
try:
    app(args=["upscale", "a.png", "-o", "out", "--device", "cpu"])
except SystemExit as end:
    assert not end.code, end.code
sys.exit(str({"diffusers", "transformers"} & set(sys.modules) or ""))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "1 done" in done.stdout and "{" not in done.stderr, done.stderr
    whole = restore.load("nano", "cpu").upscale(Image.open(tmp_path / "a.png", formats=["PNG"]))
    made = Image.open(tmp_path / "out" / "a.png", formats=["PNG"])
    assert (np.asarray(made) == np.asarray(whole)).all()


def test_engines_are_other_options_and_the_journal_tells_them_apart(nano, tmp_path, capsys):
    Image.fromarray(photo(12, 12).pixels).save(tmp_path / "a.png")
    asked = ["upscale", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "-s", "1"]
    assert main([*asked, "--device", "cpu"]) == 0
    rows = [json.loads(line) for line in (tmp_path / "out/report.jsonl").read_text().splitlines()]
    assert main([*asked, "--model", str(nano), "--engine", "onnx"]) == 0
    rows += [json.loads(line) for line in (tmp_path / "out/report.jsonl").read_text().splitlines()]
    assert [row["engine"] for row in rows] == ["torch", "onnx"]
    assert rows[0]["options"] != rows[1]["options"] and rows[0]["weights"] != rows[1]["weights"]
    capsys.readouterr()


def test_a_changed_file_is_refused(nano, tmp_path):
    folder = shutil.copytree(nano, tmp_path / "nano")
    path = folder / "restorer" / "model.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"model\.onnx: changed since"):
        restore.load(str(folder), engine="onnx")
    path.write_bytes(b"no network")
    manifest.write(folder)
    with pytest.raises(ModelError, match="cannot be read, export it again"):
        restore.load(str(folder), engine="onnx").upscale(Image.new("RGB", (8, 8), "red"))


def test_a_file_beside_what_is_listed_is_refused(nano, tmp_path):
    folder = shutil.copytree(nano, tmp_path / "nano")
    shutil.copyfile(folder / "vae" / "decoder.onnx", folder / "vae" / "other.onnx")
    with pytest.raises(ModelError, match="loaded unseen"):
        restore.load(str(folder), engine="onnx")


def test_the_other_engines_folder_is_refused_in_one_line(nano):
    with pytest.raises(ModelError, match="is no ONNX export; `restore export nano"):
        restore.load("nano", engine="onnx")
    with pytest.raises(ModelError, match="is an ONNX export"):
        restore.load(str(nano))


@pytest.mark.parametrize("asked", [{"dtype": "bf16"}, {"device": "cuda"}, {"compiled": True}])
def test_what_the_engine_does_not_do_is_refused(nano, asked):
    with pytest.raises(ConfigError, match="on the CPU in fp32"):
        restore.load(str(nano), engine="onnx", **asked)


def test_without_onnxruntime_the_extra_is_named(nano, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    asked = ["upscale", str(tmp_path / "a.png"), "-o", str(tmp_path / "out")]
    assert main([*asked, "--model", str(nano), "--engine", "onnx"]) == 3
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1 and "pip install 'restore-toolkit[onnx]'" in told[0]


def test_an_export_carries_licences_and_says_what_it_is(nano):
    about = json.loads((nano / "stack.json").read_text())
    assert about["engine"] == "onnx" and about["source"] == "nano"
    assert about["source_digest"] == manifest.find_model("nano")[1]
    source = model_paths.find_path("nano")
    for file in source.glob("LICENSE*"):
        assert (nano / file.name).read_bytes() == file.read_bytes()
        assert file.name in (nano / "README.md").read_text()
    assert (nano / "SOURCE.md").read_text() == (source / "README.md").read_text()


def test_inpaint_takes_the_engine_by_its_own_option(nano, tmp_path, capsys):
    Image.fromarray(photo(32, 32).pixels).save(tmp_path / "a.png")
    mask = np.zeros((32, 32), np.uint8)
    mask[8:20, 8:20] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    asked = ["inpaint", str(tmp_path / "a.png"), "--mask", str(tmp_path / "mask.png")]
    asked += ["-o", str(tmp_path / "out"), "--model", str(nano), "--engine", "onnx"]
    assert main(asked) == 0, capsys.readouterr().err
    row = json.loads((tmp_path / "out" / "report.jsonl").read_text().splitlines()[0])
    assert row["engine"] == "onnx"
    capsys.readouterr()


def test_evaluate_takes_the_engine_and_tells_results_apart(nano, tmp_path, capsys):
    large = photo(48, 64)
    for name, size in (("hr", (64, 48)), ("lr", (32, 24))):
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.fromarray(large.pixels).resize(size).save(tmp_path / "set" / name / "a.png")
    asked = ["evaluate", "--set", str(tmp_path / "set"), "-o", str(tmp_path / "out")]
    asked += ["--metrics", "psnr", "--device", "cpu", "--model"]
    scores = []
    for more in ([str(nano), "--engine", "onnx"], ["nano"]):
        assert main([*asked, *more]) == 0, capsys.readouterr().err
        told = json.loads((tmp_path / "out" / "scores.json").read_text())
        scores.append(told["sets"][0]["folders"][0]["rows"][0]["scores"]["psnr"])
    assert scores[0] == pytest.approx(scores[1], abs=0.01)
    assert main([*asked, "nano", "--engine", "onnx"]) == 3
    assert main([*asked, str(nano)]) == 2
    assert "run it by --engine onnx" in capsys.readouterr().err


def test_the_server_takes_the_engine_and_offers_exports_alone(nano):
    models = Models([str(nano)], engine="onnx")
    assert [one["name"] for one in models.list_models()] == [nano.name] == [models.first]
    opened = models.open(models.choose(UpscaleRequest()))
    assert opened.precision["engine"] == "onnx"
    assert apart(UpscaleOptions(), photo(20, 30), (opened.stack(), restore.load("nano").stack)) <= 1
    with pytest.raises(UsageError, match="needs an exported model: --model FOLDER"):
        Models(engine="onnx")
    with pytest.raises(ModelError, match="is no ONNX export"):
        Models(["nano"], engine="onnx")
    with pytest.raises(ConfigError, match="--dtype: engine onnx computes on the CPU"):
        Models([str(nano)], dtype="bf16", engine="onnx")


def test_a_request_without_a_model_gets_the_servers_first(nano, tmp_path):
    models = Models([str(nano)], engine="onnx")
    rules = Rules("127.0.0.1", "", 2**22, 4)
    app = create_app(tmp_path, rules, models, Roots(), Limits())
    file = io.BytesIO()
    Image.fromarray(photo(12, 14).pixels).save(file, "PNG")
    with TestClient(app, base_url="http://127.0.0.1:7860") as client:
        sent = {"files": {"image": ("a.png", file.getvalue())}, "data": {"request": "{}"}}
        job = client.post("/v1/upscale", **sent).json()
        while job["status"] not in ENDED:
            time.sleep(0.05)
            job = client.get(f"/v1/jobs/{job['id']}").json()
    assert job["status"] == "done", job
    assert job["size_out"] == [48, 56]


def test_from_python_the_engine_is_an_argument_and_what_it_lacks_is_refused(nano, tmp_path):
    restorer = restore.Restorer.from_pretrained(nano, engine="onnx")
    assert restorer.upscale(Image.new("RGB", (8, 6), "red")).size == (32, 24)
    assert restorer.to("cpu").to(torch.float32) is restorer
    with pytest.raises(ConfigError, match="computes on the CPU in fp32"):
        restorer.to(torch.bfloat16)
    whole = restore.Restorer(restorer.stack.load())
    for one in (restorer, whole):
        with pytest.raises(UsageError, match="is an ONNX export; copy its folder"):
            one.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_a_pickled_export_is_loaded_again(nano):
    made = restore.load(nano, engine="onnx")
    again = pickle.loads(pickle.dumps(made))
    photo = Image.new("RGB", (8, 6), "red")
    assert again.upscale(photo, 2).tobytes() == made.upscale(photo, 2).tobytes()
    assert (again.model.engine, again.model.digest) == ("onnx", made.model.digest)


def test_a_controlnet_is_refused_before_any_digest(nano, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(manifest, "find_model", lambda *given: 1 / 0)
    words = ["--model", str(nano), "--engine", "onnx", "--controlnet", "/nope"]
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    out = str(tmp_path / "out")
    assert main(["img2img", str(tmp_path / "a.png"), "-o", out, *words]) != 0
    assert "--controlnet: engine onnx" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="--controlnet: engine onnx"):
        restore.load(nano, engine="onnx", controlnet="/nope")


def test_a_long_answer_can_be_stopped(both, monkeypatch):
    class StoppedError(Exception):
        pass

    def stop(done, of, what):
        stop.told += 1
        if stop.told > 2:
            raise StoppedError

    stop.told = 0
    monkeypatch.setattr(watch, "OFTEN_S", 0.001)
    with pytest.raises(StoppedError), watch.watching(stop):
        run.restore(photo(300, 300), UpscaleOptions(), both[1], 0)
