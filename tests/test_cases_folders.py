"""Cases 65 to 80 and 90 to 92 of odd inputs: names, links, files that go away, options.

Each through the command over the tiny stack: the rows and exit codes that a user meets.
"""

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from restore import cli, file_search
from restore.batch.jobs import Shard, named
from restore.errors import UsageError
from restore.file_search import read_list
from restore.tasks import run
from restore.training.data import sources

posix = pytest.mark.skipif(os.name != "posix", reason="speaks of POSIX")
linux = pytest.mark.skipif(sys.platform != "linux", reason="names are bytes there")


def status(rows):
    return {key: row["status"] for key, row in rows.items()}


def made(folder):
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    own = {"report.jsonl", "report.html", "summary.json"}
    return {p.as_posix() for p in found if p.parts[0] != ".restore" and p.name not in own}


# Collisions


def test_case_65_two_files_for_one_result_are_found_in_the_plan(photo, restored, tmp_path):
    photo("a.png")
    photo("a.jpg", 1)
    code, _, said = restored("--format", "png")
    assert code == 2 and "would both become" in said and "--on-collision keep-ext" in said
    assert not (tmp_path / "out").exists()
    assert restored("--format", "png", "--on-collision", "keep-ext")[0] == 0
    assert made(tmp_path / "out") == {"a.png", "a.jpg.png"}
    (tmp_path / "in" / "a.png").unlink()
    said = restored("--format", "png", "--on-collision", "keep-ext")[2]
    assert "1 finished" in said, "a name is a file's own affair, whatever is beside it"


def test_case_66_names_that_differ_in_case_alone(photo, restored, tmp_path):
    photo("A.png")
    photo("a.png", 1)
    if len(list((tmp_path / "in").iterdir())) < 2:
        pytest.skip("this disk holds them for one")
    code, _, said = restored()
    assert code == 2 and "rename one" in said and not (tmp_path / "out").exists()


def test_case_67_names_that_differ_in_unicode_form_alone(photo, restored, tmp_path):
    photo(unicodedata.normalize("NFC", "é.png"))
    photo(unicodedata.normalize("NFD", "é.png"), 1)
    if len(list((tmp_path / "in").iterdir())) < 2:
        pytest.skip("this disk holds them for one")
    code, _, said = restored()
    assert code == 2 and "rename one" in said and not (tmp_path / "out").exists()


# Names


@linux
def test_case_68_a_name_that_is_not_utf_8(photo, restored, tmp_path):
    name = os.fsdecode(b"caf\xe9\xff.png")
    photo(name)
    code, rows, _ = restored()
    assert code == 0 and status(rows) == {name: "done"}
    assert (tmp_path / "out" / name).exists()
    assert "1 finished" in restored()[2]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "caf" in page


@posix
@pytest.mark.parametrize(
    "name",
    [
        "new\nline.png",
        "'single' \"double\".png",
        "$(touch x).png",
        "-o.png",
        "--help.png",
        "a;b&.png",
    ],
)
def test_case_69_names_that_a_shell_would_mind(photo, restored, tmp_path, name, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    photo(name)
    code, rows, said = restored()
    assert code == 0 and status(rows) == {name: "done"}
    assert made(tmp_path / "out") == {name}
    assert len((tmp_path / "out" / "report.jsonl").read_text().splitlines()) == 1
    assert not list((tmp_path / "here").iterdir()), "nothing ran"
    assert "new\nline" not in said


@posix
@pytest.mark.parametrize("letter", ["a", "ü"])
def test_case_70_a_name_as_long_as_a_disk_takes(photo, restored, tmp_path, letter):
    size = len(letter.encode())
    name = letter * (250 // size) + ".jpg"
    photo(name)
    photo("x" + letter * (246 // size) + ".jpg", 1)
    for words in (["--format", "webp"], ["--format", "png", "--on-collision", "keep-ext"]):
        code, rows, _ = restored(*words, out=words[1])
        assert code == 0 and set(status(rows).values()) == {"done"}
        names = made(tmp_path / words[1])
        assert len(names) == 2 and all(len(os.fsencode(name)) <= 255 for name in names)
    assert {len(os.fsencode(named("b" * n, ".png", ("_damage",)))) for n in (244, 245, 300)} == {
        248
    }
    assert named("b" * 300, ".png") != named("b" * 301, ".png")


@posix
def test_case_70_what_a_long_name_is_given_for_fits_too(photo, restored, tmp_path):
    long = "a" * 251
    pages = [Image.new("RGB", (16, 16), (90, level, 60)) for level in (50, 90)]
    pages[0].save(photo(f"{long}.gif"), "GIF", save_all=True, append_images=pages[1:])
    photo(f"{'b' * 251}.png")
    assert restored("--frames", "all")[0] == 0
    names = made(tmp_path / "out")
    assert len(names) == 3 and f"{long}.png" in names
    assert next(name for name in names if name.endswith("_002.png")).startswith("a" * 200)
    photo(f"{'b' * 251}.png", 1)
    code, rows, _ = restored("--frames", "all", "--exists", "rename")
    assert code == 0 and set(status(rows).values()) == {"done"}
    assert len(made(tmp_path / "out")) == 4
    assert all(len(os.fsencode(name)) <= 255 for name in made(tmp_path / "out"))


def test_case_71_files_of_the_system_are_skipped(photo, restored):
    photo("a.png")
    for name in ("Thumbs.db", ".DS_Store", "desktop.ini", "__MACOSX/._a.png"):
        photo(name)
    code, rows, _ = restored()
    skipped = {key: row["code"] for key, row in rows.items() if row["status"] == "skipped"}
    assert code == 0 and rows["a.png"]["status"] == "done"
    assert skipped == dict.fromkeys(("Thumbs.db", ".DS_Store", "desktop.ini", "__MACOSX"), "JUNK")


@posix
def test_case_72_links_in_a_circle_to_outside_and_to_nowhere(photo, restored, tmp_path):
    photo("sub/a.png")
    photo("secret.png", 1, folder="elsewhere")
    here = tmp_path / "in"
    (here / "sub" / "loop").symlink_to(here)
    (here / "out.png").symlink_to(tmp_path / "elsewhere" / "secret.png")
    (here / "far").symlink_to(tmp_path / "elsewhere")
    (here / "gone.png").symlink_to(here / "nowhere.png")
    (here / "twin.png").symlink_to(here / "sub" / "a.png")
    code, rows, _ = restored()
    assert code == 0
    assert {key: row.get("code") for key, row in rows.items()} == {
        "sub/a.png": None,
        "twin.png": None,
        **dict.fromkeys(("sub/loop", "out.png", "far", "gone.png"), "LINK"),
    }
    code, rows, _ = restored("--links", "skip", out="none")
    assert [key for key, row in rows.items() if row["status"] == "done"] == ["sub/a.png"]
    code, rows, _ = restored("--links", "follow", out="all")
    done = {key for key, row in rows.items() if row["status"] == "done"}
    assert done == {"sub/a.png", "twin.png", "out.png", "far/secret.png"}
    assert {key for key, row in rows.items() if row.get("code") == "LINK"} == {
        "sub/loop",
        "gone.png",
    }


@posix
@pytest.mark.timeout(100)
def test_case_73_pipes_and_sockets_never_block(photo, restored, tmp_path):
    photo("a.png")
    os.mkfifo(tmp_path / "in" / "pipe.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "in" / "socket.png"))
        code, rows, _ = restored()
        assert code == 0 and rows["a.png"]["status"] == "done"
        assert {rows[key]["code"] for key in ("pipe.png", "socket.png")} == {"NOT_A_FILE"}
        named = restored(inputs=[tmp_path / "in" / "pipe.png"], out="named")
        assert named[0] == 2 and "no picture" in named[2] and "pipe.png: NOT_A_FILE" in named[2]


@posix
def test_a_link_that_leads_nowhere_is_named_when_it_is_the_only_input(restored, tmp_path):
    (tmp_path / "broken.jpg").symlink_to(tmp_path / "gone.jpg")
    code, _, said = restored(inputs=[tmp_path / "broken.jpg"])
    assert code == 2 and "broken.jpg: LINK: a link that is broken" in said


def test_a_text_that_begins_with_a_mark_of_its_encoding_is_read_as_without(tmp_path):
    listed = "a.png\nb.png\n".encode("utf-8-sig")
    assert list(read_list(io.BytesIO(listed))) == ["a.png", "b.png"]
    assert list(read_list(io.BytesIO("a.png\0b.png\0".encode("utf-8-sig")))) == ["a.png", "b.png"]
    (tmp_path / "list").write_bytes(listed)
    assert sources.listed(tmp_path / "list") == [tmp_path / "a.png", tmp_path / "b.png"]


def test_a_list_in_utf_16_is_refused():
    for order in ("le", "be"):
        listed = "\ufeffa.png\r\n".encode(f"utf-16-{order}")
        with pytest.raises(UsageError, match="UTF-16; save it as UTF-8"):
            list(read_list(io.BytesIO(listed)))


# Files that cannot be read, go away or change


CLOSED = """
import os, sys
from pathlib import Path
from restore.batch.jobs import plan
from restore.batch.journal import Journal
from restore.batch.runner import run_all
from restore.file_search import find
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
place = Path(sys.argv[1])
jobs = plan(find([place / "in"], place / "out"), place / "out", lambda source: ".png")
work = lambda job, path: {"n": path.write_bytes(job.source.read_bytes())}
print(run_all(jobs, work, Journal(place / "out", "o", "w")))
"""


@posix
def test_case_74_a_file_that_may_not_be_read_or_not_even_asked_about(pixels):
    """Root reads everything, so that a root hands its rights in first."""
    place = Path(tempfile.mkdtemp())
    try:
        (place / "in").mkdir()
        listed = place / "in" / "listed"  # may be listed, but not entered
        listed.mkdir()
        for name in ("a.png", "closed.png", "listed/b.png"):
            Image.fromarray(pixels(8, 8)).save(place / "in" / name)
        (place / "in" / "closed.png").chmod(0)
        listed.chmod(0o444)
        for folder in (place, place / "in"):
            folder.chmod(0o777)
        done = subprocess.run(
            [sys.executable, "-c", CLOSED, str(place)],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "failed=2" in done.stdout and "done=1" in done.stdout
        report = (place / "out" / "report.jsonl").read_text().splitlines()
        rows = {row["key"]: row for row in map(json.loads, report)}
        for name in ("closed.png", "listed/b.png"):
            assert rows[name]["code"] == "UNREADABLE"
            assert "Permission denied" in rows[name]["error"]
    finally:
        (place / "in" / "listed").chmod(0o777)
        shutil.rmtree(place)


def meddling(monkeypatch, act):
    """Has `act` run once, while the first picture is worked on."""
    dispatch, acts = run.dispatch, [act]

    def meddled(*words):
        if acts:
            acts.pop()()
        return dispatch(*words)

    monkeypatch.setattr(run, "dispatch", meddled)


def test_case_75_a_file_that_is_deleted_after_the_scan(photo, restored, monkeypatch):
    photo("a.png")
    late = [photo(f"{name}.png", 1) for name in "bcdefgh"][-1]
    meddling(monkeypatch, late.unlink)
    code, rows, _ = restored()
    assert code == 1 and len(rows) == 8
    assert rows["h.png"]["code"] == "UNREADABLE" and "No such file" in rows["h.png"]["error"]
    assert sum(row["status"] == "done" for row in rows.values()) == 7


def test_case_76_a_file_that_changes_while_it_is_worked_on(photo, restored, tmp_path, monkeypatch):
    path = photo("a.png")
    meddling(monkeypatch, lambda: photo("a.png", 7))
    code, rows, _ = restored()
    assert code == 1 and rows["a.png"]["code"] == "CHANGED"
    assert made(tmp_path / "out") == set() and path.exists()
    assert restored()[0] == 0


def test_case_76_a_file_that_has_more_frames_than_were_planned(
    photo, restored, tmp_path, monkeypatch
):
    photo("a.png")
    path, frames = photo("b.png"), [Image.new("RGB", (16, 16), color) for color in ("red", "blue")]

    def grow():
        frames[0].save(path, save_all=True, append_images=frames[1:])

    meddling(monkeypatch, grow)
    for name in "cdef":  # so that it is not read ahead
        photo(f"a{name}.png", ord(name))
    code, rows, _ = restored("--frames", "all")
    assert code == 1 and rows["b.png"]["code"] == "CHANGED"
    assert restored("--frames", "all")[0] == 0
    assert {"b.png", "b_002.png"} <= made(tmp_path / "out")


def test_case_77_an_output_folder_inside_the_input_is_no_input(photo, restored, tmp_path):
    photo("a.png")
    for _ in range(2):
        code, rows, said = restored(out="in/out")
        assert code == 0 and list(rows) == ["a.png"]
    assert "1 finished" in said and made(tmp_path / "in" / "out") == {"a.png"}


def test_case_78_an_output_folder_that_is_the_input_is_refused(photo, restored, tmp_path):
    path = photo("a.png")
    before = path.read_bytes()
    for words in ([], ["--exists", "overwrite"]):
        code, _, said = restored(*words, out="in")
        assert code == 2 and "input folder too" in said
        code, _, said = restored(*words, inputs=[path], out="in")
        assert code == 2 and "would replace it" in said
    assert path.read_bytes() == before and len(list((tmp_path / "in").iterdir())) == 1


@posix
@pytest.mark.parametrize("name", ["CON.png", "nul.png", "dot.png.", "space.png ", "two..png"])
def test_case_79_names_that_windows_minds(photo, restored, tmp_path, name):
    photo(name)
    code, rows, _ = restored()
    assert code == 0 and status(rows) == {name: "done"}
    result = next(iter(made(tmp_path / "out")))
    assert result == name.rstrip(". ") and rows[name]["output"] == result


@posix
def test_case_80_hard_links_are_two_files(photo, restored, tmp_path):
    path = photo("a.png")
    os.link(path, tmp_path / "in" / "b.png")
    code, rows, _ = restored()
    assert code == 0 and status(rows) == {"a.png": "done", "b.png": "done"}
    assert rows["a.png"]["source_sha256"] == rows["b.png"]["source_sha256"]
    assert made(tmp_path / "out") == {"a.png", "b.png"}


# Words and options

ODD = "\U0001f408\u200d\u2b1b \u732b \u202e\x00"


@pytest.mark.parametrize("prompt", ["", "a cat " * 5000, ODD], ids=["no", "long", "odd"])
def test_case_90_any_prompt(photo, restored, prompt):
    photo("a.png")
    code, rows, _ = restored("--prompt", prompt)
    assert code == 0 and status(rows) == {"a.png": "done"}


@pytest.mark.parametrize(
    "words",
    [
        *(["-s", scale] for scale in ("0", "-2", "nan", "inf", "1e9")),
        *(["--quality", quality] for quality in ("0", "101")),
        *(["--seed", seed] for seed in (str(2**64), "-1")),
        ["--tile", "7"],
        ["--set", "upscale.windows=0"],
        *(["--shard", shard] for shard in ("0/3", "4/3", "1", "a/b", "1/0")),
        ["--max-failures", "-1"],
        ["--links", "maybe"],
        ["--on-collision", "hope"],
        ["--list", "nowhere.txt"],
        ["--include", "*.tif"],
    ],
    ids=" ".join,
)
def test_case_91_options_that_cannot_be(photo, call, tmp_path, words):
    photo("a.png")
    code, _, said = call("upscale", tmp_path / "in", *words)
    assert code == 2 and "Traceback" not in said and len(said.splitlines()) < 12
    assert not (tmp_path / "out").exists()


def test_case_92_an_unknown_key_in_a_configuration(photo, call, tmp_path):
    photo("a.png")
    config = tmp_path / "mine.yaml"
    for text, told in [
        ("upscale: {stesp: 3}", "did you mean 'steps'?"),
        ("upscael: {steps: 3}", "did you mean 'upscale'?"),
    ]:
        config.write_text(text)
        code, _, said = call("upscale", tmp_path / "in", "--config", config)
        assert code == 2 and told in said and str(config) in said
    assert not (tmp_path / "out").exists()


# Which files


def test_globs_choose_by_name_and_by_path(photo, restored):
    for name in ("a.png", "b.jpg", "old/c.png", "old/deep/d.png"):
        photo(name)
    assert set(restored("--include", "*.png", out="1")[1]) == {
        "a.png",
        "old/c.png",
        "old/deep/d.png",
    }
    words = ["--include", "*.png", "--include", "*.jpg", "--exclude", "old/*"]
    assert set(restored(*words, out="2")[1]) == {"a.png", "b.jpg"}
    assert set(restored("--exclude", "*/*", out="3")[1]) == {"a.png", "b.jpg"}


@pytest.mark.parametrize("glob", ["old", "old/", "ol?"])
def test_a_glob_leaves_out_a_folder_with_all_that_is_below(photo, restored, glob):
    for name in ("a.png", "old/c.png", "old/deep/d.png", "very/old/e.png", "older.png"):
        photo(name)
    assert set(restored("--exclude", glob, out="1")[1]) == {"a.png", "older.png"}
    left = {"a.png", "older.png", "very/old/e.png", "old/c.png"}
    assert set(restored("--exclude", "old/deep", out="2")[1]) == left


def test_a_list_names_files_from_here(photo, call, tmp_path, monkeypatch):
    photo("a.png")
    photo("sub/b.png")
    other = photo("c.png", folder="elsewhere")
    (tmp_path / "list.txt").write_text(f"in/a.png\nin/sub/b.png\n{other}\nin/sub\nin/gone.png\n")
    monkeypatch.chdir(tmp_path)
    code, _, _ = call("upscale", "--list", "list.txt", "-s", 1)
    lines = (tmp_path / "out" / "report.jsonl").read_text().splitlines()
    rows = {row["key"]: row for row in map(json.loads, lines)}
    far = other.relative_to(other.anchor).as_posix()
    assert code == 1 and {key: row.get("code") for key, row in rows.items()} == {
        "in/a.png": None,
        "in/sub/b.png": None,
        far: None,
        "in/sub": "NOT_A_FILE",
        "in/gone.png": "UNREADABLE",
    }
    assert made(tmp_path / "out") == {"in/a.png", "in/sub/b.png", far}


def test_a_list_may_come_from_stdin_with_any_names(photo, tmp_path, call, monkeypatch):
    photo("new\nline.png" if os.name == "posix" else "line.png")
    names = [os.fsencode(path) for path in (tmp_path / "in").iterdir()]
    (tmp_path / "list").write_bytes(b"\0".join([*names, b""]))
    with (tmp_path / "list").open(encoding="utf-8") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        code, said, _ = call("upscale", "-", "-s", 1)
    assert code == 0 and "1 done" in said
    assert list(read_list(io.BytesIO(b"a\nb c\n\nd"))) == ["a", "b c", "d"]


def test_a_folder_is_shared_out_whatever_is_in_it():
    keys = [f"{index}/é{index}.png" for index in range(300)]
    shares = [{key for key in keys if Shard(nth, 3).holds(key)} for nth in (1, 2, 3)]
    assert set.union(*shares) == set(keys) and sum(map(len, shares)) == 300
    assert min(map(len, shares)) > 60
    assert Shard.parse("2/3") == Shard(2, 3) and Shard().ending == ""
    with pytest.raises(UsageError, match="2/3"):
        Shard.parse("3/2")


def test_too_many_failures_end_the_run(photo, restored, tmp_path):
    photo("z.png")
    for index in range(4):
        (tmp_path / "in" / f"{index}.png").write_text("no picture")
    code, rows, said = restored("--max-failures", 2)
    assert code == 1 and "ended after 2 failed" in said and "3 left" in said
    counts = list(status(rows).values())
    assert (counts.count("failed"), counts.count("left"), len(rows)) == (2, 3, 5)
    code, rows, _ = restored("--fail-fast")
    assert code == 1 and rows["z.png"]["status"] == "left"
    code, rows, _ = restored()
    assert code == 1 and rows["z.png"]["status"] == "done" and len(rows) == 5


@posix
def test_what_never_ends_is_no_list(photo, call, tmp_path, monkeypatch):
    """It was copied into the folder for temporary files until the disk was full."""
    photo("a.png")
    monkeypatch.setattr(
        file_search.tempfile, "TemporaryFile", lambda: pytest.fail("it was read and kept")
    )
    code, _, err = call("upscale", "--list", "/dev/zero")
    assert code == 2 and "--list /dev/zero: is a device" in err


@pytest.mark.parametrize("kind", ["jpeg", "png", "gif", "tiff", "webp", "avif"])
def test_a_picture_is_no_list(kind, call, tmp_path, monkeypatch):
    """Each piece of it was a file that is missing."""
    Image.new("RGB", (300, 9)).save(tmp_path / "a", kind)
    with (tmp_path / "a").open(encoding="latin-1") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        code, _, err = call("upscale", "-")
    assert code == 2 and "it is a picture, not a list" in err
    code, _, err = call("upscale", "--list", tmp_path / "a")
    assert code == 2 and "it is a picture, not a list" in err


def test_a_list_may_begin_with_any_name():
    named = [b"GIF89a.png", b"RIFF.webp", b"II.tif", b"ftyp"]
    assert list(read_list(io.BytesIO(b"\n".join(named)))) == [name.decode() for name in named]


@pytest.mark.parametrize("command", ["upscale", "text2img"])
def test_results_are_not_written_to_stdout(command, photo, capsys):
    """They were in a folder called -."""
    words = [str(photo("a.png"))] if command == "upscale" else []
    assert cli.main([command, *words, "-o", "-"]) == 2
    assert "results are files; name a folder" in capsys.readouterr().err


@pytest.mark.parametrize("end", [b"\0", b"\n", b""])
def test_a_name_without_end_is_no_name(end):
    data = b"a" + end + b"b" * (file_search.LONGEST + file_search.BLOCK)
    with pytest.raises(UsageError, match="a name of more than 65,536 bytes"):
        list(read_list(io.BytesIO(data)))
