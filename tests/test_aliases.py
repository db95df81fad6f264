"""First contact: what is typed by habit, and help that fits a screen."""

import os
import subprocess
import sys

import pytest
from pages import ROOT

from restore import cli
from restore.cli.aliases import ANSWERS, plain
from restore.errors import UsageError


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["-i", "a.png"], ["a.png"]),
        (["--input=a.png"], ["a.png"]),
        (["--outscale", "2"], ["--scale", "2"]),
        (["--outscale=2"], ["--scale=2"]),
        (["--ext", "png"], ["--format", "png"]),
        (["--color", "none"], ["--colour", "none"]),
        (["--fp16"], ["--dtype", "fp16"]),
        (["--fp32"], ["--dtype", "fp32"]),
        (["-n", "nano"], ["--model", "nano"]),
        (["-f", "png"], ["--format", "png"]),
        (["--output=out"], ["--out=out"]),
        (["--image", "a.png"], ["a.png"]),
        (["--num_inference_steps", "2"], ["--steps", "2"]),
        (["--dry_run"], ["--dry-run"]),
        (["--engine", "ray"], ["--runner", "ray"]),
        (["--engine=ray", "a.png"], ["--runner=ray", "a.png"]),
        (["--engine", "onnx", "ray"], ["--engine", "onnx", "ray"]),
        (["--", "--engine", "ray"], ["--", "--engine", "ray"]),
        (["--list=my_list.txt", "a_b.png"], ["--list=my_list.txt", "a_b.png"]),
        (["--", "--color"], ["--", "--color"]),
    ],
)
def test_a_habit_is_its_option(typed, meant):
    assert plain(["upscale", *typed]) == ["upscale", *meant]


def test_what_has_no_runner_says_which_commands_have_one(capsys):
    assert cli.main(["text2img", "--engine", "ray", "-o", "out"]) == 2
    assert "upscale, inpaint, img2img take --runner ray" in capsys.readouterr().err


def test_where_n_counts_it_counts():
    assert plain(["inpaint", "-n", "4"]) == ["inpaint", "-n", "4"]
    assert plain(["evaluate", "a", "--suffix", "_out"]) == ["evaluate", "a", "--suffix", "_out"]


@pytest.mark.parametrize("word", ANSWERS)
def test_what_is_not_needed_is_answered(word, capsys):
    with pytest.raises(UsageError, match=word):
        plain(["upscale", "a.png", word, "400"])
    assert cli.main(["upscale", "a.png", word, "400"]) == 2
    assert ANSWERS[word] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("--out=~/big", "--out=HOME/big"),
        ("~/a.png", "HOME/a.png"),
        ("~\\a.png", "HOME\\a.png"),
        ("stage.data.photos=~/photos", "stage.data.photos=HOME/photos"),
        ("a~/b.png", "a~/b.png"),
        ("./~/a.png", "./~/a.png"),
        ("~old/a.png", "~old/a.png"),
        ("--prompt=a wall ~/ a door", "--prompt=a wall ~/ a door"),
    ],
)
@pytest.mark.parametrize("command", ["upscale", "train"])
def test_a_tilde_is_the_users_folder_where_the_shell_left_it(monkeypatch, command, typed, meant):
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, "HOME")
    assert plain([command, typed]) == [command, meant]


def test_a_picture_in_the_place_of_the_command_is_told(tmp_path, capsys):
    photo = tmp_path / "a.png"
    photo.touch()
    assert cli.main([str(photo), "-o", "out"]) == 2
    assert f"write restore upscale {photo} -o OUT" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["upscale", "inpaint", "img2img", "text2img", "evaluate"])
def test_help_fits_a_screen_and_all_is_at_hand(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main([command, "--help"]) == 0
    short = capsys.readouterr().out
    assert cli.main([command, "--help-all"]) == 0
    whole = capsys.readouterr().out
    assert len(short.splitlines()) <= 40
    assert "--device" in whole and "--device" not in short and "--help-all" in short


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("restore ups", "upscale"), ("restore upscale --fid", "--fidelity")],
)
def test_bash_completes_commands_and_options(typed, offered):
    asked = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    done = subprocess.run(
        [sys.executable, "-m", "restore"],
        env={**os.environ, **asked, "_RESTORE_COMPLETE": "complete_bash"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [offered]
