"""The folder runner: nothing lost, nothing torn, nothing done twice, a row for each input."""

import json
import os
import socket
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from restore.batch import downloads
from restore.batch.jobs import file_seed, plan
from restore.batch.journal import Journal
from restore.batch.runner import run_all
from restore.errors import ImageError, OutputError, UsageError
from restore.file_search import find
from restore.files import TEMPORARY, temporary_for
from restore.options import Img2imgOptions, InpaintOptions, UpscaleOptions


class Worker:
    """Copies a file's words in capitals; the word `bad` in a name breaks it."""

    def __init__(self):
        self.keys = []

    def __call__(self, job, path):
        self.keys.append(job.key)
        if "bad" in job.key:
            path.write_text("half")
            raise ImageError("CORRUPT", f"{job.source}: broken data; fetch it again")
        path.write_bytes(job.source.read_bytes().upper())
        return {"size_in": [1, 1], "size_out": [4, 4], "warnings": []}


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "in"
    for name in ("a.png", "bad.png", "sub/b.jpg", "sub/deep/c.tif"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"picture {name}")
    return folder


def run(
    inputs, out, exists="skip", *, options="o", weights="w", words=None, progress=lambda row: None
):
    inputs = [inputs] if isinstance(inputs, Path) else inputs
    worker = Worker()
    jobs = plan(find(inputs, out), out, lambda source: ".png")
    journal = Journal(out, options, weights, words=words or {})
    summary = run_all(jobs, worker, journal, exists, progress)
    return worker.keys, summary


def rows(out):
    return {
        row["key"]: row for row in map(json.loads, (out / "report.jsonl").read_text().splitlines())
    }


def lines(out):
    return len((out / "report.jsonl").read_text().splitlines())


ALL = ["a.png", "bad.png", "sub/b.jpg", "sub/deep/c.tif"]


def test_a_folder_is_mirrored_and_one_bad_file_costs_no_other(photos, tmp_path):
    out = tmp_path / "out"
    shown = []
    keys, summary = run(photos, out, progress=shown.append)
    assert keys == ALL == [row["key"] for row in shown]
    assert (summary.done, summary.failed) == (3, 1)
    assert (out / "sub/deep/c.png").read_text() == "PICTURE SUB/DEEP/C.TIF"
    report = rows(out)
    assert list(report) == ALL and lines(out) == 4
    assert report["bad.png"]["code"] == "CORRUPT"
    assert report["bad.png"]["error"] == "broken data; fetch it again"
    assert not (out / "bad.png").exists()
    assert not list(out.rglob(f"{TEMPORARY}*"))
    told = json.loads((out / "summary.json").read_text())
    assert told["done"] == 3 and told["failed"] == 1


def test_a_second_run_skips_finished_and_retries_failed(photos, tmp_path):
    out = tmp_path / "out"
    run(photos, out)
    keys, summary = run(photos, out)
    assert keys == ["bad.png"]
    assert (summary.finished, summary.failed, summary.done) == (3, 1, 0)
    assert lines(out) == 4 and rows(out)["a.png"]["status"] == "done"
    (photos / "bad.png").rename(photos / "good.png")
    keys, summary = run(photos, out)
    assert keys == ["good.png"] and summary.failed == 0


@pytest.mark.parametrize("changed", [{"options": "o2"}, {"weights": "w2"}])
def test_other_options_or_weights_do_it_again(photos, tmp_path, changed):
    out = tmp_path / "out"
    run(photos, out)
    keys, summary = run(photos, out, **changed)
    assert keys == ALL and summary.done == 3
    assert lines(out) == 4


def test_a_lost_output_is_done_again_and_a_changed_source_once_it_is_asked_for(photos, tmp_path):
    out = tmp_path / "out"
    run(photos, out)
    (photos / "a.png").write_text("another")
    (out / "sub/b.png").unlink()
    assert run(photos, out)[0] == ["bad.png", "sub/b.jpg"]
    assert (out / "a.png").read_text() == "PICTURE A.PNG"
    assert "--exists overwrite" in rows(out)["a.png"]["error"]
    assert run(photos / "a.png", out, exists="overwrite")[0] == ["a.png"]
    assert (out / "a.png").read_text() == "ANOTHER"


def test_a_foreign_file_is_never_replaced_unless_asked(photos, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.png").write_text("mine")
    _, summary = run(photos, out)
    assert summary.failed == 2 and rows(out)["a.png"]["code"] == "EXISTS"
    assert "--exists overwrite" in rows(out)["a.png"]["error"]
    assert (out / "a.png").read_text() == "mine"
    run(photos, out, exists="rename")
    assert (out / "a.png").read_text() == "mine"
    assert (out / "a_1.png").read_text() == "PICTURE A.PNG"
    assert run(photos, out, exists="rename")[0] == ["bad.png"]  # it knows its own by the row
    run(photos, out, exists="overwrite")
    assert (out / "a.png").read_text() == "PICTURE A.PNG"


def test_a_result_that_the_user_changed_is_not_replaced(photos, tmp_path):
    out = tmp_path / "out"
    run(photos, out)
    (out / "a.png").write_text("retouched")
    _, summary = run(photos, out, options="o2")
    assert rows(out)["a.png"]["code"] == "EXISTS" and summary.failed == 2
    assert (out / "a.png").read_text() == "retouched"


def test_overwrite_does_all_again_and_error_begins_nothing(photos, tmp_path):
    out = tmp_path / "out"
    run(photos, out)
    before = (out / "report.jsonl").read_bytes()
    with pytest.raises(UsageError, match=r"a\.png"):
        run(photos, out, exists="error")
    assert (out / "report.jsonl").read_bytes() == before
    assert run(photos, out, exists="overwrite")[0] == ALL


def test_a_result_that_failed_to_be_renewed_is_still_known_as_ours(photos, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run(photos, out)
    content = (photos / "a.png").read_text()

    def broken(self, job, path):
        raise ImageError("CORRUPT", "for now")

    with monkeypatch.context() as patch:
        patch.setattr(Worker, "__call__", broken)
        assert run(photos, out, options="o2")[1].failed == 4
    assert (out / "a.png").read_text() == content.upper()
    assert run(photos, out, options="o2")[1].done == 3


def test_the_rows_of_another_folder_are_kept(photos, tmp_path):
    out = tmp_path / "out"
    run(photos / "sub", out)
    run(photos / "a.png", out)
    assert set(rows(out)) == {"b.jpg", "deep/c.tif", "a.png"}


def test_a_torn_last_line_costs_one_file_at_most(photos, tmp_path):
    out = tmp_path / "out"
    run(photos, out)
    report = out / "report.jsonl"
    kept = report.read_bytes().splitlines(keepends=True)
    report.write_bytes(b"".join(kept[:-1]) + b"[1]\n{}\n" + kept[-1][:20])
    (out / "sub/deep/c.png").unlink()
    assert run(photos, out)[0] == ["bad.png", "sub/deep/c.tif"]
    assert lines(out) == 4 and list(rows(out)) == ALL


@pytest.mark.parametrize("at", ["before the row", "after the row"])
def test_a_killed_run_goes_on_where_it_stopped(photos, tmp_path, at):
    out = tmp_path / "out"
    code = f"""
import os, sys, pathlib
from restore import file_search
from restore.batch import jobs, journal
from restore.batch.runner import run_all
from tests_worker import Worker
inputs, out = map(pathlib.Path, sys.argv[1:])
add = journal.Journal.add
def add_and_die(self, row):
    if row["key"] == "sub/b.jpg":
        if {at!r} == "after the row":
            add(self, row)
        os.kill(os.getpid(), 9)
    return add(self, row)
journal.Journal.add = add_and_die
jobs = jobs.plan(file_search.find([inputs], out), out, lambda source: ".png")
run_all(jobs, Worker(), journal.Journal(out, "o", "w"))
"""
    here = Path(__file__).resolve()
    (tmp_path / "tests_worker.py").write_text(here.read_text())
    path = os.pathsep.join([str(here.parents[1]), str(tmp_path)])
    done = subprocess.run(
        [sys.executable, "-c", code, str(photos), str(out)],
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == -9
    assert (out / "a.png").exists() and not (out / "sub/b.png").exists()
    keys, summary = run(photos, out)
    assert keys == ["bad.png", "sub/b.jpg", "sub/deep/c.tif"]
    assert (summary.done, summary.finished) == (2, 1)
    assert not list(out.rglob(f"{TEMPORARY}*"))
    assert list(rows(out)) == ALL and lines(out) == 4


def test_a_run_killed_between_name_and_end_has_nothing_to_do_again(photos, tmp_path, monkeypatch):
    out = tmp_path / "out"

    def stop(row):
        if row["key"] == "sub/b.jpg":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(photos, out, progress=stop)
    keys, summary = run(photos, out)
    assert keys == ["bad.png", "sub/deep/c.tif"] and summary.finished == 2


def test_two_runs_do_not_share_a_folder(photos, tmp_path):
    pytest.importorskip("fcntl")
    out = tmp_path / "out"
    with Journal(out, "o", "w").open(), pytest.raises(OutputError, match="another run"):
        run(photos, out)
    assert run(photos, out)[1].done == 3


def test_a_folder_that_cannot_be_written_ends_the_run(photos, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        run(photos, tmp_path / "file" / "out")


def test_a_source_that_changes_while_it_is_read_fails(photos, tmp_path, monkeypatch):
    def meddling(self, job, path):
        path.write_text("of the old bytes")
        job.source.write_text("new bytes")
        return {}

    monkeypatch.setattr(Worker, "__call__", meddling)
    out = tmp_path / "out"
    run(photos / "a.png", out)
    assert rows(out)["a.png"]["code"] == "CHANGED" and not (out / "a.png").exists()


def test_a_stale_file_that_cannot_be_removed_ends_no_run(photos, tmp_path, monkeypatch):
    unlink = Path.unlink

    def refused(path, missing_ok=False):
        if path == stale:
            raise PermissionError(13, "Permission denied")
        unlink(path, missing_ok)

    stale = temporary_for(tmp_path / "out" / "a.png")
    stale.parent.mkdir()
    stale.touch()
    monkeypatch.setattr(Path, "unlink", refused)
    assert run(photos, tmp_path / "out")[1].done == 3


def test_an_unreadable_file_is_a_failed_row(photos, tmp_path, monkeypatch):
    jobs = plan(find([photos], tmp_path / "out"), tmp_path / "out", lambda source: ".png")
    (photos / "a.png").unlink()
    digest_of = downloads.digest_of

    def closed(path):
        if path.name == "b.jpg":
            raise PermissionError(13, "Permission denied")
        return digest_of(path)

    monkeypatch.setattr(downloads, "digest_of", closed)
    summary = run_all(jobs, Worker(), Journal(tmp_path / "out", "o", "w"))
    report = rows(tmp_path / "out")
    assert [report[key]["code"] for key in ALL[:3]] == ["UNREADABLE", "CORRUPT", "UNREADABLE"]
    assert report["sub/b.jpg"]["error"].startswith("Permission denied")
    assert summary.done == 1 and lines(tmp_path / "out") == 4


def test_a_mistake_of_ours_keeps_its_lines(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(Worker, "__call__", lambda self, job, path: 1 / 0)
    run(photos / "a.png", tmp_path / "out")
    row = rows(tmp_path / "out")["a.png"]
    assert row["code"] == "INTERNAL" and "ZeroDivisionError" in row["trace"]


def test_a_files_seed_is_its_own_whatever_the_queue():
    seeds = {file_seed(seed, key) for seed in (0, 1) for key in ("a.png", "b/a.png", "\udcff.png")}
    assert len(seeds) == 6 and all(0 <= seed < 2**63 for seed in seeds)
    assert file_seed(0, "a.png") == 5254823325821236094


# What is found, and what is planned


def test_files_of_the_system_pipes_and_links_are_told_and_left_alone(photos, tmp_path):
    for name in ("Thumbs.db", ".DS_Store", "._a.png", "notes.txt"):
        (photos / name).write_text("")
    for name in ("__MACOSX", ".git"):
        (photos / name).mkdir()
        (photos / name / "a.png").write_text("")
    os.mkfifo(photos / "pipe.png")
    (photos / "loop").symlink_to(photos)
    (photos / "gone.png").symlink_to(photos / "nowhere.png")
    (tmp_path / "secret.png").write_text("")
    (photos / "outside.png").symlink_to(tmp_path / "secret.png")
    (photos / "twin.png").symlink_to(photos / "a.png")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(photos / "s.png"))
        out = tmp_path / "out"
        keys, summary = run(photos, out)
    assert keys == sorted([*ALL, "twin.png"])
    codes = {key: row["code"] for key, row in rows(out).items() if row["status"] == "skipped"}
    assert codes == {
        **dict.fromkeys(("Thumbs.db", ".DS_Store", "._a.png", "__MACOSX", ".git"), "JUNK"),
        **dict.fromkeys(("loop", "gone.png", "outside.png"), "LINK"),
        **dict.fromkeys(("pipe.png", "s.png"), "NOT_A_FILE"),
        "notes.txt": "NOT_A_PICTURE",
    }
    assert summary.skipped == len(codes)


def test_a_file_named_outright_is_tried_whatever_its_name(photos, tmp_path):
    (photos / "scan.2").write_text("x")
    assert run([photos / "scan.2", photos / "scan.2"], tmp_path / "out")[0] == ["scan.2"]
    assert (tmp_path / "out" / "scan.2.png").exists()


def test_an_output_folder_inside_the_input_is_not_an_input(photos):
    out = photos / "out"
    run(photos, out)
    keys, _ = run(photos, out)
    assert keys == ["bad.png"]
    assert list(rows(out)) == ALL


def test_what_cannot_be_is_refused_before_anything_is_made(photos, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    for inputs in (tmp_path / "nowhere", tmp_path / "empty"):
        with pytest.raises(UsageError, match=inputs.name):
            run(inputs, out)
    with pytest.raises(UsageError, match="input folder too"):
        run(photos, photos)
    with pytest.raises(UsageError, match="would replace it"):
        run(photos / "a.png", photos)
    assert not out.exists() and (photos / "a.png").read_text() == "picture a.png"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x/a.png", "x/a.jpg"),
        ("x/a.png", "x/A.PNG"),
        ("x/é.png", unicodedata.normalize("NFD", "x/é.png")),
        ("x/a.png", "y/a.png"),
    ],
)
def test_two_files_for_one_target_are_refused(tmp_path, one, other):
    for name in (one, other):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    if len(list(tmp_path.rglob("*.*"))) < 2:
        pytest.skip("this disk holds them for one")
    with pytest.raises(UsageError, match="would both become") as caught:
        run([tmp_path / one, tmp_path / other], tmp_path / "out")
    assert "rename one" in str(caught.value)


@pytest.mark.parametrize("name", ["new\nline.png", "-o.png", "$(x) '\".png", "a" * 250 + ".png"])
def test_odd_names_are_names(tmp_path, name):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_text("x")
    run(tmp_path / "in", tmp_path / "out")
    assert list(rows(tmp_path / "out")) == [name]
    assert (tmp_path / "out" / name).read_text() == "X"


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes there")
def test_a_name_that_is_not_utf_8_is_a_name(tmp_path):
    (tmp_path / "in").mkdir()
    name = os.fsdecode(b"caf\xe9.png")
    (tmp_path / "in" / name).write_text("x")
    run(tmp_path / "in", tmp_path / "out")
    assert run(tmp_path / "in", tmp_path / "out")[0] == []
    assert list(rows(tmp_path / "out")) == [name]


def test_the_result_of_another_picture_of_that_name_is_not_replaced(tmp_path):
    out = tmp_path / "out"
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "IMG_1.jpg").write_text(folder)
    assert run(tmp_path / "one" / "IMG_1.jpg", out)[1].done == 1
    for _ in range(2):  # nor by trying again
        assert run(tmp_path / "two" / "IMG_1.jpg", out)[1].failed == 1
        assert (out / "IMG_1.png").read_text() == "ONE"
    told = [json.loads(line) for line in (out / "report.jsonl").read_text().splitlines()]
    assert told[0]["code"] == "EXISTS" and "another picture of that name" in told[0]["error"]
    assert run(tmp_path / "two" / "IMG_1.jpg", out, "rename")[1].done == 1
    assert (out / "IMG_1_1.png").read_text() == "TWO"
    (tmp_path / "three").mkdir()
    (tmp_path / "two" / "IMG_1.jpg").rename(tmp_path / "three" / "IMG_1.jpg")  # it was moved
    assert run(tmp_path / "three" / "IMG_1.jpg", out)[1].finished == 1


def test_the_result_of_the_same_picture_is_replaced_by_that_of_other_options(photos, tmp_path):
    assert run(photos / "a.png", tmp_path / "out")[1].done == 1
    assert run(photos / "a.png", tmp_path / "out", options="other")[1].done == 1


ASKED = st.sampled_from([UpscaleOptions, Img2imgOptions, InpaintOptions]).flatmap(
    lambda kind: st.fixed_dictionaries(
        {
            "kind": st.just(kind),
            "prompt": st.sampled_from(["", "a", "a red cube"]),
            "negative": st.sampled_from(["", "a", "grain"]),
            "steps": st.sampled_from([None, 1, 2]),
            "strength": st.sampled_from([0.5, 1.0]),
            "seed": st.integers(0, 1),
            "weights": st.sampled_from(["nano", "base"]),
        }
    )
)


@given(first=ASKED, second=ASKED)
@settings(max_examples=60)
def test_skip_keeps_what_other_words_made_and_tells_what_it_replaces(
    first, second, tmp_path_factory
):
    place = tmp_path_factory.mktemp("run")
    (place / "in").mkdir()
    (place / "in" / "a.png").write_text("a")

    def once(asked, exists="skip"):
        values = {**asked}
        kind, seed, weights = (values.pop(name) for name in ("kind", "seed", "weights"))
        options = kind(**values)
        given = {"options": options.digest(seed=seed), "weights": weights, "words": options.words}
        return run(place / "in", place / "out", exists, **given)[1], rows(place / "out")["a.png"]

    assert once(first)[0].done == 1
    summary, row = once(second)
    same_words = all(first[name] == second[name] for name in ("prompt", "negative"))
    if first == second:
        assert summary.finished == 1
    elif same_words:
        assert summary.done == 1
        assert ["replaces a result of" in note for note in row["warnings"]] == [True]
        assert ("another model" in row["warnings"][0]) == (first["weights"] != second["weights"])
    else:
        assert summary.failed == 1 and row["code"] == "EXISTS"
        assert "of other words" in row["error"] or "without words" in row["error"]
        assert once(second)[0].failed == 1  # nor by trying again
        assert once(first)[0].failed == 0  # its own words may make it again
        assert once(second, "overwrite")[0].done == 1
        assert once(second)[0].finished == 1


def test_what_an_earlier_release_made_is_kept_where_its_words_are_not_known(photos, tmp_path):
    out = tmp_path / "out"
    run(photos / "a.png", out)
    old = {name: value for name, value in rows(out)["a.png"].items() if name != "words"}
    for path in (out / "report.jsonl", out / ".restore" / "report.jsonl"):
        path.write_text(json.dumps(old) + "\n")
    assert run(photos / "a.png", out)[1].finished == 1
    assert run(photos / "a.png", out, options="o2")[1].failed == 1
    assert "perhaps of other words" in rows(out)["a.png"]["error"]


def test_what_is_skipped_or_finished_waits_for_no_disk(tmp_path, monkeypatch):
    (tmp_path / "in").mkdir()
    for number in range(300):
        (tmp_path / "in" / f"{number:03}.txt").touch()
    (tmp_path / "in" / "a.png").write_bytes(b"x")
    waits = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda handle: waits.append(handle) or real(handle))
    for skipped, most in ((300, 12), (300, 8)):  # the report's files, and one result
        waits.clear()
        jobs = plan(find([tmp_path / "in"], tmp_path / "out"), tmp_path / "out", lambda _: ".png")
        summary = run_all(jobs, Worker(), Journal(tmp_path / "out", "o", "w"))
        assert summary.skipped == skipped and len(waits) <= most
    assert len(rows(tmp_path / "out")) == 301
