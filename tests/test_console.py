"""How much a command says: nothing, more, or rows for programs."""

import json
import sys

import pytest
from PIL import Image

from restore import cli
from restore.tasks import run as tasks


def test_quiet_says_nothing_but_failures(call, photo, tmp_path):
    photo("a.png")
    assert call("upscale", tmp_path / "in", "-q") == (0, "", "")
    (tmp_path / "in" / "b.png").write_text("no picture")
    code, said, told = call("upscale", tmp_path / "in", "--quiet")
    assert (code, said) == (1, "")
    assert told.startswith("[2/2] failed   b.png: NOT_IMAGE") and len(told.splitlines()) == 1
    assert call("upscale", tmp_path / "nowhere", "-q")[2].startswith("restore: ")


def test_json_is_the_rows_and_nothing_else(call, photo, tmp_path):
    photo("a.png")
    (tmp_path / "in" / "b.png").write_text("no picture")
    code, said, told = call("upscale", tmp_path / "in", "-s", 2, "--json")
    rows = [json.loads(line) for line in said.splitlines()]
    assert code == 1 and [row["status"] for row in rows] == ["done", "failed"]
    assert "1 done, 1 failed" in told and "left_s" not in rows[0]
    report = (tmp_path / "out" / "report.jsonl").read_text().splitlines()
    assert rows == [json.loads(line) for line in report]
    again = call("upscale", tmp_path / "in", "-s", 2, "--json", "-q")
    assert json.loads(again[1].splitlines()[0])["finished"] is True


def test_json_of_words_and_of_scratches_holds_no_other_line(call, photo, tmp_path, monkeypatch):
    from restore.images import scratches

    monkeypatch.setattr(scratches, "find", lambda picture: picture.pixels[..., 0] * 0)
    for words in (
        ["text2img", "--size", "16x16", "-n", 2],
        ["upscale", photo("a.png"), "--find-scratches", "-s", 1],
    ):
        said = call(*words, "--json", out=words[0])[1]
        assert said and all("key" in json.loads(line) for line in said.splitlines())


def test_json_of_a_dry_run_is_what_is_planned(call, photo, tmp_path):
    photo("a.png")
    (tmp_path / "in" / "b.png").write_text("no picture")
    (tmp_path / "in" / "notes.txt").write_text("")
    _, said, told = call("upscale", tmp_path / "in", "-s", 2, "--json", "--dry-run")
    first, second, third = map(json.loads, said.splitlines())
    assert (first["status"], first["output"], first["size_out"]) == ("planned", "a.png", [16, 16])
    assert (second["status"], second["code"]) == ("failed", "NOT_IMAGE")
    assert (third["status"], third["code"]) == ("skipped", "NOT_A_PICTURE")
    assert "1 picture" in told


def test_verbose_says_what_was_settled_and_where_an_error_came_from(call, photo, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("not of this world")

    small = photo("a.png")
    told = call("upscale", small, "-s", 2, "-v")[2]
    assert "restore: upscale: scale=2.0" in told and "weights digest" in told
    assert "s, on cpu" in told and "s, on cpu" not in call("upscale", small, out="other")[2]
    monkeypatch.setattr(tasks, "restore", broken)
    assert "Traceback" not in call("upscale", small, "-s", 3)[2]
    assert "Traceback" in call("upscale", small, "-s", 3, "-v")[2]


def test_less_and_more_at_once_is_refused(call, photo):
    assert call("upscale", photo("a.png"), "-q", "-v")[0] == 2


@pytest.mark.parametrize("word", ["-q", "--json"])
def test_the_first_use_is_told_once_and_to_people(call, photo, tmp_path, monkeypatch, word):
    photo("a.png")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
    assert "said once" not in call("upscale", tmp_path / "in", out="pipe")[2]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert "said once" not in call("upscale", tmp_path / "in", word, out="silent")[2]
    told = call("upscale", tmp_path / "in", out="first")[2]
    hint = [line for line in told.splitlines() if "restore: " in line]
    assert 1 <= len(hint) <= 3 and "first/report.html" in hint[0]
    assert "said once" not in call("upscale", tmp_path / "in", out="second")[2]


def test_a_home_that_cannot_be_written_is_told_nothing(call, photo, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(photo("no_folder.png")))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert "said once" not in call("upscale", photo("a.png"), out="first")[2]


@pytest.mark.parametrize("command", ["upscale", "inpaint", "img2img", "text2img"])
def test_every_picture_command_has_them(command, capsys):
    assert cli.main([command, "--help-all"]) == 0
    whole = capsys.readouterr().out
    assert all(word in whole for word in ("-q, --quiet", "-v, --verbose", "--json"))


def outcome(said):
    """What the rows on stdout say of each input, but for what the work itself adds."""
    rows = map(json.loads, said.splitlines())
    names = ("output", "code", "error", "finished")
    return {
        row["key"]: (
            row["status"].replace("planned", "done"),
            list(row.get("frames", ())),
            *(row.get(name) for name in names),
        )
        for row in rows
    }


@pytest.mark.parametrize(
    "words",
    [
        *(["-s", 1], ["-s", 2], ["-s", 2, "--exists", "overwrite"]),
        *(["-s", 1, "--exists", "rename"], ["-s", 2, "--exists", "rename"]),
        *(["-s", 1, "--frames", "refuse"], ["-s", 1, "--frames", "all"]),
    ],
)
def test_a_dry_run_says_of_each_file_what_the_run_then_says(call, pixels, tmp_path, words):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("done.png", "others.png", "new.png"):
        Image.fromarray(pixels(8, 8)).save(folder / name)
    (folder / "text.png").write_text("no picture")
    pages = [Image.fromarray(pixels(8, 8, seed)) for seed in range(2)]
    pages[0].save(folder / "pages.gif", save_all=True, append_images=pages[1:])
    assert call("upscale", folder / "done.png", "-s", 1, out=out)[0] == 0
    (out / "others.png").write_text("of another program")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    foreseen = call("upscale", folder, *words, "--json", "--dry-run", out=out)[1]
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    assert outcome(foreseen) == outcome(call("upscale", folder, *words, "--json", out=out)[1])
