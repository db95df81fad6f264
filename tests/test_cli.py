"""The command line: exit codes, a clear line for what is refused, nothing made before that."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from restore import cli
from restore.checkpoints import devices, manifest
from restore.cli import progress
from restore.cli.progress import describe
from restore.errors import ModelError
from restore.tasks import run as tasks_run

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def fake(monkeypatch):
    """A stack and a flow without weights: each pixel is repeated. Says what it was asked."""
    asked = SimpleNamespace(loads=[], seeds=[], digest="w", before=lambda picture: None)

    def load(name, device, dtype, **_):
        asked.loads.append((name, device, dtype))
        return SimpleNamespace(parts=[], scale=4)

    def restore(picture, options, stack, seed, mask=None, on_frame=None):
        asked.before(picture)
        asked.seeds.append(seed)
        rows, columns = (
            np.arange(round(side * options.scale)) * side // round(side * options.scale)
            for side in picture.size
        )
        alpha = picture.alpha
        alpha = alpha if alpha is None else alpha[rows][:, columns]
        return replace(picture, pixels=picture.pixels[rows][:, columns], alpha=alpha)

    monkeypatch.setattr(manifest, "find_model", lambda name, **_: (Path(name), asked.digest))
    monkeypatch.setattr(devices, "load", load)
    monkeypatch.setattr(tasks_run, "restore", restore)
    return asked


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    image = Image.fromarray(np.random.default_rng(3).integers(0, 256, (9, 13, 4), np.uint8))
    image.save(folder / "alpha.png")
    image.convert("L").save(folder / "grey.bmp")
    image.convert("RGB").resize((1, 1)).save(folder / "sub" / "dot.webp")
    image.convert("RGB").save(folder / "sub" / "photo.JPG")
    return folder


@pytest.fixture
def call(capsys, tmp_path):
    def run(*words):
        code = cli.main(["upscale", *map(str, words), "-o", str(tmp_path / "out")])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def report(out):
    return [json.loads(line) for line in (out / "report.jsonl").read_text().splitlines()]


def test_a_folder_is_enlarged_with_its_tree_and_a_second_run_has_nothing_to_do(
    photos, tmp_path, call, fake
):
    code, out, err = call(photos, "-s", "2.5")
    assert code == 0 and "4 done in" in out
    assert "[4/4] done     sub/photo.JPG: 13x9 -> 32x22" in err
    for name, size, mode in [
        ("alpha.png", (32, 22), "RGBA"),
        ("grey.png", (32, 22), "L"),
        ("sub/dot.webp", (2, 2), "RGB"),
        ("sub/photo.jpg", (32, 22), "RGB"),
    ]:
        with Image.open(tmp_path / "out" / name) as image:
            assert (image.size, image.mode) == (size, mode), name
    assert len(set(fake.seeds)) == 4
    code, out, err = call(photos, "-s", "2.5", "--windows", "1")
    assert code == 0 and "4 finished in" in out and len(fake.seeds) == 4
    assert len(report(tmp_path / "out")) == 4


@pytest.mark.parametrize(
    "changed", [["--seed", 1], ["--quality", 90], ["--set", "upscale.steps=2"], ["--dtype", "fp32"]]
)
def test_what_decides_the_pixels_does_it_again(photos, call, fake, changed):
    assert call(photos)[0] == 0
    assert "4 done" in call(photos, *changed)[1]
    fake.digest = "other weights"
    assert "4 done" in call(photos, *changed)[1]


def test_bad_files_are_rows_and_the_exit_code_is_1(photos, tmp_path, call, fake):
    whole = (photos / "sub" / "photo.JPG").read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "text.jpg").write_text("no picture")
    (photos / "empty.png").write_bytes(b"")
    code, out, err = call(photos)
    assert code == 1 and "4 done, 3 failed" in out
    codes = {row["key"]: row["code"] for row in report(tmp_path / "out") if "code" in row}
    assert codes == {"cut.jpg": "TRUNCATED", "text.jpg": "NOT_IMAGE", "empty.png": "NOT_IMAGE"}
    assert "failed   cut.jpg: TRUNCATED: the file is cut short; fetch it again" in err
    found = (path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.*"))
    made = {path.as_posix() for path in found if path.parts[0] != ".restore"}
    pictures = {"alpha.png", "grey.png", "sub/dot.webp", "sub/photo.jpg"}
    assert made == pictures | {"report.jsonl", "report.html", "summary.json"}


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_is_a_row(photos, tmp_path, call, fake):
    (photos / "grey.bmp").chmod(0)
    assert call(photos)[0] == 1
    assert [row["code"] for row in report(tmp_path / "out") if "code" in row] == ["UNREADABLE"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-s", "0"], "--scale: upscale.scale must be greater than or equal to 1, not 0.0"),
        (["-s", "-1"], "--scale: upscale.scale must be greater than or equal to 1, not -1.0"),
        (["-s", "nan"], "--scale: upscale.scale must be a finite number"),
        (["-s", "1e9"], "--scale: upscale.scale must be less than or equal to 16"),
        (["--set", "upscale.stesp=3"], "upscale.stesp is not an option of UpscaleOptions; did"),
        (["--config", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
        (["--quality", "101"], "'--quality'"),
        (["--seed", str(2**64)], "'--seed'"),
        (["--steps", "many"], "'--steps': must be a valid integer, not 'many'"),
        (["-scale", "2"], "'--scale': must be a valid number, not 'cale'"),
        (["--device", "cuda:0"], "'--device': 'cuda:0' is not one of"),
        (["--format", "bmp"], "'--format'"),
        (["--background", "whitish"], "--background whitish: is no colour"),
        (["--tiles", "7"], "No such option"),
        (["nowhere"], "nowhere: no such file or folder"),
        (["*.jpg"], "*.jpg: no such file or folder; name the folder, with --include '*.jpg'"),
        (["tests\\samples"], "no such file or folder; did you mean 'tests/samples'?"),
    ],
)
def test_what_cannot_be_is_refused_with_2_before_any_work(photos, call, fake, words, told):
    code, _, err = call(photos, *words)
    assert code == 2 and told in err and "Traceback" not in err
    assert not fake.loads and not (photos.parent / "out").exists()


def test_an_unknown_option_in_yaml_names_the_file_and_the_near_key(photos, tmp_path, call, fake):
    config = tmp_path / "photo_x4.yaml"
    config.write_text("upscale: {scale: 2, stesp: 3}\n")
    code, _, err = call(photos, "--config", config)
    told = "upscale.stesp is not an option of UpscaleOptions; did you mean 'steps'?"
    assert (code, err) == (2, f"restore: {config}: {told}\n")
    config.write_text("upscale: {scale: 2}\n")
    assert call(photos, "--config", config)[0] == 0
    assert report(tmp_path / "out")[0]["size_out"] == [18, 26]


def test_the_output_must_be_a_folder_and_not_the_input(photos, tmp_path, fake, capsys):
    (tmp_path / "file").write_text("")
    for out in (photos, tmp_path / "file", tmp_path / "big.png", photos / "grey.bmp"):
        assert cli.main(["upscale", str(photos), "-o", str(out)]) == 2
        assert str(out) in capsys.readouterr().err
    assert cli.main(["upscale", str(photos), "-o", str(tmp_path / "file" / "out")]) == 3
    assert len(list(tmp_path.iterdir())) == 2 and not fake.loads


def test_collisions_are_found_before_any_work(photos, tmp_path, call, fake):
    Image.new("RGB", (2, 2)).save(photos / "alpha.jpg")
    assert call(photos, "--format", "png")[0] == 2
    assert not (tmp_path / "out").exists() and not fake.loads
    assert call(photos)[0] == 0


def test_transparency_to_jpeg_needs_a_background(photos, tmp_path, call, fake):
    code, _, err = call(photos / "alpha.png", "--format", "jpeg")
    assert code == 2 and "give a --background" in err and not (tmp_path / "out").exists()
    assert call(photos / "alpha.png", "--format", "jpeg", "--background", "white")[0] == 0
    assert (tmp_path / "out" / "alpha.jpg").exists()


def test_a_dry_run_says_all_and_makes_nothing(photos, tmp_path, call, fake):
    (photos / "text.jpg").write_text("no picture")
    (photos / "notes.txt").write_text("")
    code, out, _ = call(photos, "--dry-run")
    assert code == 0 and not (tmp_path / "out").exists()
    assert fake.loads == [("nano", "auto", "auto")]  # to measure how fast it is here, once
    assert "time: about" in call(photos, "--dry-run")[1] and len(fake.loads) == 1
    assert "13x9 -> 52x36" in out and "failing" in out and "skipped" in out
    assert "4 pictures" in out and "memory: about" in out and "are free" in out
    assert len(out.splitlines()) == 6 + 4


def test_a_stopped_run_says_how_to_go_on(photos, tmp_path, call, fake):
    def stop(picture):
        if picture.size == (1, 1):
            raise KeyboardInterrupt

    fake.before = stop
    code, _, err = call(photos)
    assert code == 130 and "run the same command again" in err
    assert not list((tmp_path / "out").rglob(".restore-*"))
    fake.before = lambda picture: None
    assert "2 done, 2 finished" in call(photos)[1]


def test_a_model_that_does_not_load_is_3(photos, tmp_path, call, fake, monkeypatch):
    def broken(*_, **__):
        raise ModelError("models/x: unet is damaged; fetch it again")

    monkeypatch.setattr(sys.modules["restore.checkpoints.devices"], "load", broken)
    code, _, err = call(photos)
    assert (code, err) == (3, "restore: models/x: unet is damaged; fetch it again\n")
    assert not list((tmp_path / "out").rglob("*.*g"))


def test_stopped_while_loading_is_130_too(photos, call, fake, monkeypatch):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["restore.checkpoints.devices"], "load", stopped)
    assert call(photos)[0] == 130


def test_a_name_cannot_paint_the_terminal(photos, call, fake):
    (photos / "\x1b[31m\nred.jpg").write_text("x")
    _, _, err = call(photos)
    assert "\x1b" not in err and r"\x1b[31m\nred.jpg" in err


def test_the_bar_of_a_terminal_shows_the_same_rows(photos, call, fake, monkeypatch):
    (photos / "[red]text.jpg").write_text("x")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    code, out, err = call(photos)
    assert code == 1 and "4 done, 1 failed in" in out
    assert "done     sub/photo.JPG: 13x9 -> 52x36" in err
    assert "failed   [red]text.jpg: NOT_IMAGE: " in err


def test_training_gets_its_words(monkeypatch, tmp_path):
    heard = []
    module = ModuleType("restore.training.loop")
    module.run = lambda config, overrides: heard.append((config, overrides))
    monkeypatch.setitem(sys.modules, "restore.training.loop", module)
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").touch()
    assert cli.main(["train", "x.yaml", "steps=3", "data.workers=0"]) == 0
    assert heard == [(Path("x.yaml"), ["steps=3", "data.workers=0"])]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nano_denoisr", "did you mean 'nano_denoiser'?"),
        ("train/nano_denoiser.yaml", "did you mean 'nano_denoiser'?"),
        ("x", "there are base_autoencoder, "),
    ],
)
def test_a_training_that_is_not_there_is_told_at_once(name, told, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "restore.training.loop", None)  # nothing imports torch for it
    assert cli.main(["train", name]) == 2
    assert f"{name}: no such file or configuration; {told}" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["--help"], ["upscale", "-h"], ["text2img", "--help"]])
def test_help_is_at_hand(words, capsys):
    code = cli.main(words)
    said = capsys.readouterr()
    assert code == (0 if words else 2) and "Usage: restore" in said.out + said.err


@pytest.mark.parametrize("words", [["upscale"], ["inpaint"], ["evaluate"], ["degrade", "apply"]])
def test_help_fits_a_terminal(words, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main([*words, "--help"]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("upscale", ["larger, 1 to 16 [4]", "big.jpg [required]", "or error [skip]", "nano: 0]"]),
        ("inpaint", ["mask grows [0]", "used too [1]", "shows them [1]"]),
        ("text2img", ["[512x512]", "How many pictures [1]"]),
    ],
)
def test_short_help_tells_defaults_and_no_limits(command, told, capsys, monkeypatch):
    """They stood in --help-all alone."""
    monkeypatch.setenv("COLUMNS", "300")
    assert cli.main([command, "--help"]) == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert [word for word in told if word not in said] == [] and "<=" not in said


def test_the_version_is_told_installed_or_not(capsys, monkeypatch):
    monkeypatch.setattr(metadata, "version", lambda name: {"restore-toolkit": "1.2.3"}[name])
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == "restore-toolkit 1.2.3\n"

    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert cli.main(["--version"]) == 0
    assert "not installed" in capsys.readouterr().out


def test_time_left_follows_time_taken_and_no_error():
    row = {"key": "a.png", "status": "done", "seconds": 2.0, "warnings": ["cut short"]}
    assert describe(row, ", 9 s left") == "done     a.png:  in 2.0 s, 9 s left; cut short"
    row = {"key": "a.png", "status": "failed", "code": "CORRUPT", "error": "no picture"}
    assert describe(row, ", 9 s left") == "failed   a.png: CORRUPT: no picture"


@pytest.mark.parametrize("tool", ["upscale", "text2img", "img2img", "train", "degrade"])
def test_a_tool_is_its_command_from_anywhere(tool, tmp_path):
    before = os.times()
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / f"{tool}.py"), "--help"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"Usage: restore {tool}" in done.stdout
    assert os.times().children_user - before.children_user < 5  # no torch


@pytest.mark.parametrize(
    "given",
    [
        ("--format", "png", "--quality", 20),
        ("--format", "png", "--background", "red"),
        ("--format", "tiff", "--subsampling", "4:2:0"),
        ("--format", "webp", "--subsampling", "4:2:0"),
    ],
)
def test_an_option_without_effect_on_the_format_is_said_and_makes_nothing_anew(photos, call, given):
    assert "of no effect" not in call(photos, *given[:2])[2]
    code, said, told = call(photos, *given)
    assert code == 0 and f"{given[2]}: of no effect on {given[1]}" in told
    assert "4 finished" in said


def test_an_option_that_some_result_may_heed_is_taken(photos, call):
    for given in (("--quality", 20), ("--background", "red"), ("--subsampling", "4:2:0")):
        assert "of no effect" not in call(photos, *given)[2]
    assert "of no effect" not in call(photos, "--format", "jpeg", "--quality", 20)[2]


@pytest.mark.parametrize(("seconds", "pace"), [(20, "20.0 s each"), (0.25, "4.0 a second")])
def test_the_pace_of_slow_work_is_the_time_that_each_takes(monkeypatch, capsys, seconds, pace):
    now = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(progress, "PATIENCE_S", 0.1)
    with progress.counting(9, "pairs") as count:
        now[0] = seconds
        count(1)
    assert capsys.readouterr().err == f"[1/9] pairs, {pace}\n"
