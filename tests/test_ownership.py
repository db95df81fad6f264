"""Only what we can prove to have made is replaced, swept, pruned, renamed or written through."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from folders import fill, posix
from hypothesis import given, settings
from hypothesis import strategies as st

from restore import files
from restore.batch import ownership, report, views
from restore.batch.jobs import Job, Shard, plan
from restore.batch.journal import HIDDEN, Journal
from restore.batch.rows import parsed, read_rows
from restore.batch.runner import run_all
from restore.errors import OutputError, UsageError
from restore.file_search import find


def copying(job, path, *frames):
    for place in (path, *frames):
        place.write_bytes(b"made of " + (job.source.read_bytes() if job.source else b"words"))
    return {"size_in": [1, 1], "size_out": [4, 4], "warnings": []}


def run(inputs, out, exists="skip", task="upscale", options="o"):
    jobs = plan(find([inputs], out), out, lambda source: ".png")
    journal = Journal(out, options, "w", task=task)
    return run_all(jobs, copying, journal, exists, publish=report.publisher(out)), journal


def save(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def told(out):
    return [json.loads(line) for line in (out / "report.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("exists", ["skip", "rename", "overwrite"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("report.jsonl", '{"customer": 1}\n{"key": "x"}\n'),
        ("report.jsonl", "a diary"),
        ("summary.json", '{"mine": 1}'),
        ("summary.json", "[]"),
        ("report.html", "<html><title>annual report</title>"),
        (".restore/report.jsonl", "mine"),
    ],
)
def test_a_users_own_report_stays(tmp_path, name, text, exists):
    save(tmp_path / "in" / "a.png", "a")
    path = save(tmp_path / "out" / name, text)
    with pytest.raises(UsageError, match="no report of ours"):
        run(tmp_path / "in", tmp_path / "out", exists)
    with pytest.raises(UsageError, match="no report"):
        report.merge([tmp_path / "out"], tmp_path / "out")
    assert path.read_text() == text and not (tmp_path / "out" / "a.png").exists()


@pytest.mark.parametrize("name", ["report.jsonl", "summary.json", "report.html"])
@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.EMFILE])
def test_a_report_that_cannot_be_read_is_not_called_anothers(tmp_path, monkeypatch, name, code):
    save(tmp_path / "in" / "a.png", "a")
    run(tmp_path / "in", tmp_path / "out")

    def broken(path, *_):
        if path.name == name:
            raise OSError(code, os.strerror(code))
        return real(path)

    for module, how in ((files, "read_plain"), (ownership, "read_lines")):
        real = getattr(module, how)
        with monkeypatch.context() as patch:
            patch.setattr(module, how, broken)
            if (how == "read_lines") == (name == "report.jsonl"):
                with pytest.raises(
                    OutputError, match=f"{name}: cannot be read: {os.strerror(code)}"
                ):
                    run(tmp_path / "in", tmp_path / "out")


def test_what_a_killed_merge_left_goes_with_the_next_one(tmp_path):
    save(tmp_path / "in" / "a.png", "a")
    run(tmp_path / "in", tmp_path / "one")
    out = tmp_path / "all"
    out.mkdir()
    left, mine = files.temporary_for(out / "report.jsonl"), save(out / ".restore-notes.txt", "mine")
    left.write_text("half")
    report.merge([tmp_path / "one"], out)
    assert not left.exists() and mine.exists() and len(told(out)) == 1
    with Journal(out, "o", "w").open(), pytest.raises(OutputError, match="another run writes"):
        report.merge([tmp_path / "one", out], out)


@pytest.mark.parametrize("text", ["", '{"trace": 1}\n'])
def test_what_has_no_row_of_a_run_is_not_merged(tmp_path, text):
    """It became a report of nothing, and all seemed well."""
    save(tmp_path / "other.jsonl", text)
    with pytest.raises(UsageError, match="no row of a run there"):
        report.merge([tmp_path / "other.jsonl"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["scores.json", "scores.csv", "report.html"])
def test_a_users_own_scores_stay(tmp_path, name):
    path = save(tmp_path / name, "mine")
    with pytest.raises(UsageError, match="no report of ours"):
        ownership.refuse_scores(tmp_path)
    path.unlink()
    ownership.refuse_scores(tmp_path)


@posix
def test_reports_that_are_links_or_pipes_are_refused_at_once(tmp_path):
    save(tmp_path / "in" / "a.png", "a")
    out = tmp_path / "out"
    assert run(tmp_path / "in", out)[0].done == 1
    for name in ("report.jsonl", "summary.json", "report.html"):
        kept = (out / name).read_bytes()
        for plant in (os.mkfifo, lambda path: os.symlink(save(tmp_path / "victim", "v"), path)):
            (out / name).unlink()
            plant(out / name)
            with pytest.raises((UsageError, OutputError)):
                run(tmp_path / "in", out)
        (out / name).unlink()
        (out / name).write_bytes(kept)
    assert (tmp_path / "victim").read_text() == "v"
    assert run(tmp_path / "in", out)[0].finished == 1


def test_a_journal_with_a_second_name_is_not_written_through(tmp_path):
    save(tmp_path / "in" / "a.png", "a")
    save(tmp_path / "in" / "b.png", "b")
    out = tmp_path / "out"
    (out / HIDDEN).mkdir(parents=True)
    victim = save(tmp_path / "victim", "")
    os.link(victim, out / HIDDEN / "report.jsonl")
    with pytest.raises(OutputError, match="second name"):
        run(tmp_path / "in", out)
    assert victim.read_text() == ""


NAMES = st.one_of(
    st.text("0123456789abcdef", min_size=16, max_size=16),
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), max_size=20),
)


@settings(max_examples=60)
@given(st.sets(NAMES, min_size=1, max_size=8))
def test_the_sweep_takes_what_a_run_of_ours_left_and_nothing_else(tmp_path_factory, names):
    place = tmp_path_factory.mktemp("swept")
    save(place / "in" / "a.png", "a")
    out = place / "out"
    out.mkdir()
    kept = [save(out / f"{files.TEMPORARY}{name}", "mine") for name in sorted(names)]
    left = save(files.temporary_for(out / "a.png"), "half")
    assert run(place / "in", out)[0].done == 1
    assert all(path.read_text() == "mine" for path in kept) and not left.exists()
    shutil.rmtree(place)


def test_folders_links_and_locks_that_begin_as_ours_do_not_end_a_run(tmp_path):
    save(tmp_path / "in" / "a.png", "a")
    out = tmp_path / "out"
    save(out / ".restore-copy" / "report.jsonl", "mine")
    (out / ".restore-link.png").symlink_to(save(tmp_path / "victim", "v"))
    with files.locked(out):
        assert run(tmp_path / "in", out)[0].done == 1
        assert (out / ".restore-lock").exists()
    assert (out / ".restore-copy" / "report.jsonl").exists()
    assert (out / ".restore-link.png").is_symlink()


@posix
@pytest.mark.parametrize("plant", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("nowhere")])
def test_a_lock_that_is_none_is_refused_without_waiting(tmp_path, plant):
    plant(tmp_path / ".restore-lock")
    with pytest.raises(OutputError, match=r"no lock of ours|other run"), files.locked(tmp_path):
        raise AssertionError("held")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("call", ["open", "mkdir"])
def test_a_folder_that_takes_no_lock_is_not_said_to_hold_a_strange_one(tmp_path, monkeypatch, call):
    def refuse(*args, **how):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, refuse)
        with pytest.raises(OutputError, match="cannot be written: Permission denied; name"):
            files.locked(tmp_path / "new" if call == "mkdir" else tmp_path).__enter__()


@pytest.mark.parametrize("options", ["o", "other"])
@pytest.mark.parametrize("is_gone", [False, True])
def test_another_picture_never_takes_the_place_of_a_result(tmp_path, options, is_gone):
    """Another folder of the same names, and another memory card at the same place."""
    out = tmp_path / "out"
    save(tmp_path / "card" / "IMG_1.jpg", "first")
    assert run(tmp_path / "card", out)[0].done == 1
    if is_gone:
        shutil.rmtree(tmp_path / "card")
    for folder in ("card", "other"):
        save(tmp_path / folder / "IMG_1.jpg", "second")
        summary, _ = run(tmp_path / folder, out, options=options)
        assert summary.failed == 1
        row = next(row for row in told(out) if row["source"].startswith(str(tmp_path / folder)))
        assert row["code"] == "EXISTS" and "another picture of that name" in row["error"]
        assert (out / "IMG_1.png").read_text() == "made of first"
    save(tmp_path / "card" / "IMG_1.jpg", "first")
    assert run(tmp_path / "card", out)[0].finished == 1  # it is still known as ours
    assert run(tmp_path / "card", out, options="third")[0].done == 1


def test_another_tasks_results_stay(tmp_path):
    out = tmp_path / "out"
    save(tmp_path / "in" / "0000000000.png", "a")
    words = [Job(None, "0000000000.png", out / "0000000000.png")]
    assert run_all(words, copying, Journal(out, "o", "w", task="text2img")).done == 1
    for task in ("upscale", "img2img"):
        assert run(tmp_path / "in", out, task=task)[0].failed == 1
        assert (out / "0000000000.png").read_text() == "made of words"
    assert run_all(words, copying, Journal(out, "o", "w", task="text2img")).finished == 1
    other = tmp_path / "other"
    assert run(tmp_path / "in", other, task="upscale")[0].done == 1
    assert run(tmp_path / "in", other, task="img2img")[0].failed == 1
    assert {row["code"] for row in told(other) if row["status"] == "failed"} == {"EXISTS"}
    assert run(tmp_path / "in", other, task="upscale", options="2")[0].done == 1


def test_two_inputs_of_one_key_each_have_their_row(tmp_path):
    out = tmp_path / "out"
    for folder in ("A", "B"):
        save(tmp_path / folder / "x.jpg", folder)
        save(tmp_path / folder / "Thumbs.db", folder)
        run(tmp_path / folder, out, "rename")
    found = {(row["source"], row["status"], row.get("output")) for row in told(out)}
    assert found == {
        (str(tmp_path / folder / name), status, output)
        for folder, result in (("A", "x.png"), ("B", "x_1.png"))
        for name, status, output in (
            ("x.jpg", "done", result),
            ("Thumbs.db", "skipped", None),
        )
    }
    assert run(tmp_path / "A", out, "rename")[0].finished == 1
    assert run(tmp_path / "B", out, "rename")[0].finished == 1


def test_a_mask_that_is_corrected_renews_the_result(tmp_path):
    out, photo = tmp_path / "out", save(tmp_path / "in" / "a.png", "a")
    for text in ("mask", "corrected"):
        jobs = [Job(photo, "a.png", out / "a.png", others=(save(tmp_path / "m.png", text),))]
        assert run_all(jobs, copying, Journal(out, "o", "w", task="inpaint")).done == 1


def test_a_folder_that_was_moved_has_one_row_a_picture(tmp_path):
    out = tmp_path / "out"
    fill(tmp_path / "in", 5)
    save(tmp_path / "in" / "notes.txt", "x")
    run(tmp_path / "in", out)
    (tmp_path / "in").rename(tmp_path / "moved")
    assert run(tmp_path / "moved", out)[0].finished == 5
    assert len(told(out)) == 6


def test_a_run_reads_the_journal_when_nobody_else_adds_to_it(tmp_path):
    """A second run that was begun while the first one worked."""
    out = tmp_path / "out"
    save(tmp_path / "in" / "a.png", "a")
    late = Journal(out, "o", "w", task="upscale")
    assert run(tmp_path / "in", out)[0].done == 1
    jobs = plan(find([tmp_path / "in"], out), out, lambda source: ".png")
    assert run_all(jobs, copying, late).finished == 1
    assert len(told(out)) == 1


# thumbnails


def thumb(out, value):
    import numpy as np

    views.keep(out, "a.png", (np.full((8, 8, 3), value, np.uint8), None))


@posix
def test_a_thumbnail_is_written_through_no_link(tmp_path):
    out, victim = tmp_path / "out", save(tmp_path / "victim", "mine")
    path = views.path_of(out, "a.png")
    path.parent.mkdir(parents=True)
    for plant in (os.symlink, os.link):
        plant(victim, path)
        thumb(out, 3)
        assert victim.read_text() == "mine" and path.read_bytes()[:2] == b"\xff\xd8"
        path.unlink()
    shutil.rmtree(out / HIDDEN / "thumbs")
    (tmp_path / "elsewhere").mkdir()
    (out / HIDDEN / "thumbs").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="leads out"):
        thumb(out, 3)
    assert not any((tmp_path / "elsewhere").iterdir())


# rows


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)
GOOD = {
    **{"key": "a.png", "status": "done", "source": "/in/a.png", "output": "a.png"},
    **{"output_sha256": "0", "source_sha256": "0", "options": "o", "weights": "w"},
    **{"seconds": 1.5, "warnings": [], "size_in": [1, 2], "size_out": [3, 4], "frames": {}},
}


@settings(max_examples=150)
@given(
    st.dictionaries(st.sampled_from([*GOOD, "error", "code"]), ANY, max_size=4),
    st.sampled_from(["done", "failed", "skipped", "left"]),
    st.sets(st.sampled_from(sorted(GOOD)), max_size=2),
)
def test_a_run_goes_on_over_any_row(tmp_path_factory, changes, status, without):
    place = tmp_path_factory.mktemp("rows")
    save(place / "in" / "a.png", "a")
    row = {**GOOD, "status": status, "error": "e", "code": "c", **changes}
    lines = [json.dumps({k: v for k, v in row.items() if k not in without}), json.dumps(GOOD)]
    save(place / "out" / "report.jsonl", "\n".join(lines) + "\n")
    summary, _ = run(place / "in", place / "out")
    assert summary.done == 1 and (place / "out" / "a.png").read_text() == "made of a"
    assert all(parsed(json.dumps(row).encode()) for row in told(place / "out"))
    shutil.rmtree(place)


@pytest.mark.parametrize("line", ['{"key":"x"}', '{"key":"x","status":"done","frames":null}', "[]"])
def test_lines_that_are_no_rows_are_left_out_with_a_note(tmp_path, line, caplog):
    path = save(tmp_path / "report.jsonl", f"{line}\n{json.dumps(GOOD)}\n")
    assert list(read_rows(path)) == [GOOD]
    assert "left out 1 line" in caplog.text


@posix
@pytest.mark.parametrize("output", ["../secret.png", "/etc/passwd", "pipe", "/dev/zero", "link"])
def test_a_row_cannot_point_out_of_its_folder_nor_at_a_pipe(tmp_path, output):
    photo = save(tmp_path / "in" / "a.png", "a")
    out = tmp_path / "out"
    save(tmp_path / "secret.png", "s")
    out.mkdir()
    os.mkfifo(out / "pipe")
    (out / "link").symlink_to("/dev/zero")
    row = {**GOOD, "source": str(photo), "output": output, "source_sha256": files.sha256(photo)}
    save(out / "report.jsonl", json.dumps(row) + "\n")
    summary, _ = run(tmp_path / "in", out)
    assert (summary.done, summary.finished) == (1, 0)
    assert (tmp_path / "secret.png").read_text() == "s"


def test_the_whole_after_shards_after_an_older_report_does_nothing_again(tmp_path):
    fill(tmp_path / "in", 9)
    out = tmp_path / "out"
    run(tmp_path / "in", out, options="old")
    for nth in (1, 2):
        jobs = plan(find([tmp_path / "in"], out), out, lambda source: ".png")
        share = Shard(nth, 2)
        mine = [job for job in jobs if share.holds(job.key)]
        journal = Journal(out, "new", "w", share.ending, task="upscale")
        assert run_all(mine, copying, journal).done == len(mine)
    summary, _ = run(tmp_path / "in", out, options="new")
    assert (summary.done, summary.finished) == (0, 9)
    assert {row["options"] for row in told(out)} == {"new"}
