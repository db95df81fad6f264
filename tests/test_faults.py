"""Faults: what is injected here costs at most the file in hand.

After each: a row for every input, no torn file, nothing left in the making, old files whole. The
`stress` marker has the same at full counts.
"""

import errno
import json
import os
import random
import resource
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
import torch
from folders import (
    WORKER,
    check_all,
    copying,
    counts,
    fill,
    killed_at_random,
    posix,
    rows,
    run,
    start,
    tree,
)
from PIL import Image

from restore.batch import journal, store
from restore.batch.jobs import plan
from restore.batch.journal import HIDDEN, Journal
from restore.batch.runner import Limits, run_all
from restore.cli import signals
from restore.errors import DiskFullError, ImageError, OutputError
from restore.file_search import find
from restore.files import TEMPORARY


@pytest.fixture
def photos(tmp_path):
    return fill(tmp_path / "in", 8)


# F1: kill -9


@posix
@pytest.mark.parametrize(("count", "kills"), counts((60, 5), (500, 20)))
@pytest.mark.timeout(600)
def test_f1_killed_at_random_and_resumed_it_ends_as_if_never_killed(tmp_path, count, kills):
    inputs, out, log = fill(tmp_path / "in", count), tmp_path / "out", tmp_path / "log"
    command = [WORKER, inputs, out, log, 0.02]  # seconds a file, at the least
    met = killed_at_random(command, kills, 0.02 * count / kills, random.Random(1))
    assert met > kills // 2, "the kills came too late"
    assert start(*command, stdout=subprocess.DEVNULL).wait() == 0
    begun = log.read_text().split()
    assert count <= len(begun) <= count + met, "more was done again than was in flight"
    run(inputs, tmp_path / "unkilled")
    assert tree(out) == tree(tmp_path / "unkilled") and len(tree(out)) == count
    check_all(inputs, out)
    print(f"F1: {count} files, {met} of {kills} kills at work, {len(begun) - count} done again")


REAL = """
import sys
from restore import cli
from restore.checkpoints import devices
devices.load  # torch is in memory from here on
print("begun", flush=True)
sys.exit(cli.main(sys.argv[1:]))
"""


@posix
@pytest.mark.stress
@pytest.mark.timeout(600)
def test_f1_the_command_killed_at_random_gives_the_same_bytes(tmp_path, stack, pixels):
    from restore.checkpoints.save import save

    save(stack, tmp_path / "tiny", "a tiny stack", dtype=torch.float32)
    (tmp_path / "in").mkdir()
    for index in range(8):
        Image.fromarray(pixels(40, 56, index)).save(tmp_path / "in" / f"{index}.png")
    words = ["upscale", tmp_path / "in", "-s", 2, "--model", tmp_path / "tiny", "-o"]
    met = killed_at_random([REAL, *words, tmp_path / "out"], 4, 3, random.Random(2))
    for out in ("out", "unkilled"):
        assert start(REAL, *words, tmp_path / out).wait() == 0
    assert tree(tmp_path / "out") == tree(tmp_path / "unkilled")
    assert len(tree(tmp_path / "out")) == 8 and met
    assert not list((tmp_path / "out").rglob(f"{TEMPORARY}*"))


# F2: signals


@posix
@pytest.mark.parametrize("repeats", counts(1, (10,)))
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (getattr(signal, "SIGHUP", None), 129)],
)
def test_f2_a_signal_ends_the_run_within_ten_seconds(tmp_path, pixels, number, code, repeats):
    (tmp_path / "in").mkdir()
    for index in range(40):
        Image.fromarray(pixels(8, 8, index)).save(tmp_path / "in" / f"{index:02}.png")
    for repeat in range(repeats):
        out = tmp_path / f"out{repeat}"
        words = ["upscale", tmp_path / "in", "-o", out]
        heeding = "import signal; signal.signal(signal.SIGHUP, signal.SIG_DFL)"  # though by nohup
        process = start(heeding + SLOW, *words, stderr=subprocess.PIPE, text=True)
        while "done" not in process.stderr.readline():
            pass
        time.sleep(random.Random(repeat).uniform(0, 0.3))
        began = time.monotonic()
        process.send_signal(number)
        told = process.communicate(timeout=10)[1]
        assert process.returncode == code and time.monotonic() - began < 10
        assert "run the same command again to go on" in told
        report = rows(out)
        assert len(report) == 40
        done = [row for row in report.values() if row["status"] == "done"]
        left = [row for row in report.values() if row["status"] == "left"]
        assert done and left and len(done) + len(left) == 40
        assert len(tree(out)) == len(done) and not list(out.rglob(f"{TEMPORARY}*"))
        assert json.loads((out / "summary.json").read_text())["stopped"] == number.name


@posix
def test_f2_a_run_under_nohup_outlives_its_terminal(tmp_path, pixels):
    (tmp_path / "in").mkdir()
    for index in range(5):
        Image.fromarray(pixels(8, 8, index)).save(tmp_path / "in" / f"{index}.png")
    words = ["upscale", tmp_path / "in", "-o", tmp_path / "out"]
    ignoring = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    process = start(ignoring + SLOW, *words, stderr=subprocess.PIPE, text=True)
    while "done" not in process.stderr.readline():
        pass
    process.send_signal(signal.SIGHUP)
    assert "[5/5] done" in process.communicate(timeout=100)[1] and process.returncode == 0


SLOW = """
import sys, time
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from restore import cli
from restore.checkpoints import manifest
manifest.find_model = lambda name, **_: (Path(name), "digest")
module = ModuleType("restore.tasks.run")
def restore(picture, *_, **__):
    time.sleep(0.1)
    return replace(picture, pixels=picture.pixels.repeat(4, 0).repeat(4, 1))
module.restore, module.needed = restore, lambda stack, *_: stack
sys.modules["restore.tasks.run"] = module
module = ModuleType("restore.checkpoints.devices")
module.load = lambda *_, **__: SimpleNamespace(parts=[], scale=4)
sys.modules["restore.checkpoints.devices"] = module
sys.exit(cli.main(sys.argv[1:]))
"""


@posix
def test_f2_a_long_file_is_finished_if_that_is_quick_and_else_dropped(
    photos, tmp_path, monkeypatch
):
    threads = threading.active_count()

    def interrupted(seconds, grace_s):
        monkeypatch.setattr(signals, "GRACE_S", grace_s)
        with signals.Stop() as halt:

            def work(job, path):
                signal.raise_signal(signal.SIGINT)
                threading.Event().wait(seconds)  # as for a model in a thread of its own
                return copying(job, path)

            limits = Limits(stop=lambda: halt.signal_name)
            return run(photos, tmp_path / "out", work, limits=limits)

    assert interrupted(0.01, 60).done == 1
    before = tree(tmp_path / "out")
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupted(60, 0.3)
    assert time.monotonic() - began < 30
    assert tree(tmp_path / "out") == before and len(rows(tmp_path / "out")) == 8
    assert run(photos, tmp_path / "out").done == 7
    check_all(photos, tmp_path / "out")
    assert threading.active_count() == threads, "the timer ended with the run"


# F3: the disk is full


@posix
@pytest.mark.parametrize("repeats", counts(2, (20,)))
def test_f3_a_size_limit_ends_the_run_and_spares_what_was_there(tmp_path, repeats):
    for repeat in range(repeats):
        inputs, out = tmp_path / f"in{repeat}", tmp_path / f"out{repeat}"
        fill(inputs, 6)
        run(inputs, out)
        before = tree(out)
        large = sorted(inputs.rglob("*.png"))[repeat % 6]
        large.write_bytes(bytes(3 << 20))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
        try:
            with pytest.raises(DiskFullError, match="run the same command again"):
                run(inputs, out, exists="overwrite")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert tree(out) == before
        key = large.relative_to(inputs).as_posix()
        assert rows(out)[key]["code"] == "DISK_FULL" and len(rows(out)) == 6
        assert json.loads((out / "summary.json").read_text())["stopped"] == "DISK_FULL"
        assert run(inputs, out, exists="overwrite").done == 6
        check_all(inputs, out)


@pytest.fixture
def small_disk(tmp_path):
    """8 MB, where this user may mount such a thing."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("repeats", counts(2, (20,)))
def test_f3_a_full_disk_ends_the_run_and_spares_what_was_there(tmp_path, small_disk, repeats):
    inputs = fill(tmp_path / "in", 20)
    run(inputs, small_disk / "first")
    before = tree(small_disk / "first")
    for path in inputs.rglob("*.png"):
        path.write_bytes(random.Random(path.name).randbytes(700_000))
    for _ in range(repeats):
        with pytest.raises(DiskFullError):
            run(inputs, small_disk / "first", exists="overwrite")
        now = tree(small_disk / "first")
        assert now.keys() == before.keys()
        whole = {
            p.relative_to(inputs).as_posix(): p.read_bytes()[::-1] for p in inputs.rglob("*.png")
        }
        assert all(data in (before[key], whole[key]) for key, data in now.items())
        assert not list(small_disk.rglob(f"{TEMPORARY}*"))
    for path in inputs.rglob("*.png"):
        path.write_bytes(path.read_bytes()[:1000])
    run(inputs, small_disk / "first", exists="overwrite")
    check_all(inputs, small_disk / "first")


def test_f3_no_room_for_temporary_files_costs_no_row(photos, tmp_path):
    """The tables of a run are broken from then on: no report may be made of them."""
    out = tmp_path / "out"
    run(photos, out)
    whole, data = rows(out), tree(out)
    made = Journal(out, "other", "w")

    def work(job, path):
        if job.key.startswith("3"):
            pages = made.kept.one("PRAGMA page_count")[0]
            made.kept.run(f"PRAGMA max_page_count = {pages}")
        return {**copying(job, path), "warnings": ["long " * 2000]}

    with pytest.raises(OutputError, match="TMPDIR"):
        run_all(plan(find([photos], out), out, lambda source: ".png"), work, made, "overwrite")
    assert rows(out).keys() == whole.keys() and tree(out) == data
    assert run(photos, out).finished == 8
    check_all(photos, out)


# F4: the output folder goes away, or is read-only, or the disk breaks


def test_f4_a_folder_that_cannot_be_written_is_3_before_any_work(photos, tmp_path, monkeypatch):
    def closed(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(journal, "appending", closed)
    begun = []
    with pytest.raises(OutputError, match="Read-only") as caught:
        run(photos, tmp_path / "out", lambda *words: begun.append(words))
    assert caught.value.exit_code == 3 and not begun


@posix
def test_f4_a_folder_that_vanishes_is_not_continued_in_another(photos, tmp_path):
    out = tmp_path / "out"

    def work(job, path):
        facts = copying(job, path)
        if job.key.startswith("3"):
            out.rename(tmp_path / "unplugged")
            out.mkdir()
        return facts

    with pytest.raises(OutputError):
        run(photos, out, work)
    assert not tree(out)
    assert len(tree(tmp_path / "unplugged")) >= 3


@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS, errno.EACCES])
def test_f4_an_error_of_the_disk_costs_one_file(photos, tmp_path, monkeypatch, code):
    whole, calls = os.fsync, []

    def fsync(handle):
        calls.append(handle)
        if "/.restore-" in os.readlink(f"/proc/self/fd/{handle}") and len(calls) < 6:
            raise OSError(code, os.strerror(code))
        return whole(handle)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        summary = run(photos, tmp_path / "out")
    assert summary.failed >= 1 and summary.done + summary.failed == 8
    codes = {row["code"] for row in rows(tmp_path / "out").values() if "code" in row}
    assert codes == {errno.errorcode[code]}
    check_all(photos, tmp_path / "out")
    assert run(photos, tmp_path / "out").failed == 0


def test_f4_a_folder_that_cannot_be_listed_is_3_and_told(photos, tmp_path, monkeypatch):
    out, real = tmp_path / "out", os.listdir
    run(photos, out)

    def broken(path="."):
        if Path(path) == out:
            raise OSError(errno.EIO, "Input/output error")
        return real(path)

    monkeypatch.setattr(os, "listdir", broken)
    with pytest.raises(OutputError, match="out: cannot be read: Input/output error"):
        run(photos, out)


@pytest.mark.parametrize("options", ["o", "other"])
@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES])
def test_f4_a_result_that_cannot_be_read_is_not_called_anothers(
    photos, tmp_path, monkeypatch, options, code
):
    out, key = tmp_path / "out", "3/0003.png"
    run(photos, out)
    before, real = tree(out), store.sha256

    def broken(path):
        if path == out / key:
            raise OSError(code, os.strerror(code), str(path))
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(store, "sha256", broken)
        jobs = plan(find([photos], out), out, lambda source: ".png")
        assert run_all(jobs, copying, Journal(out, options, "w")).failed == 1
    row = rows(out)[key]
    assert (row["code"], row["error"]) == (
        errno.errorcode[code],
        f"{out / key}: {os.strerror(code)}",
    )
    assert tree(out) == before


def test_f4_a_journal_that_cannot_be_written_ends_the_run(photos, tmp_path, monkeypatch):
    def broken(self, row):
        with journal.as_output_error(self.path):
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Journal, "add", broken)
    with pytest.raises(OutputError, match="Input/output error"):
        run(photos, tmp_path / "out")
    assert not tree(tmp_path / "out"), "no result without its row"


# F13: clocks, two runs, stale locks


def test_f13_a_clock_that_jumps_does_nothing_again(photos, tmp_path, monkeypatch):
    run(photos, tmp_path / "out")
    for hours in (-1, 24 * 3650):
        now = time.time() + hours * 3600
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda now=now: now)
            for path in (tmp_path / "out").rglob("*.png"):
                os.utime(path, (now, now))
            assert run(photos, tmp_path / "out").finished == 8


@posix
def test_f13_a_second_run_is_told_and_nothing_is_written_twice(tmp_path):
    inputs, out, log = fill(tmp_path / "in", 30), tmp_path / "out", tmp_path / "log"
    first = start(WORKER, inputs, out, log, 0.03, stdout=subprocess.PIPE)
    first.stdout.readline()
    while not log.exists():
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)  # it is at work for as long as is needed
    (out / "report.jsonl").unlink()  # even then
    with pytest.raises(OutputError, match="another run writes here") as caught:
        run(inputs, out)
    assert caught.value.exit_code == 3
    first.send_signal(signal.SIGCONT)
    assert first.wait() == 0
    first.stdout.close()
    assert sorted(log.read_text().split()) == sorted(rows(out))
    check_all(inputs, out)


@posix
def test_f13_a_lock_is_never_stale(tmp_path):
    inputs, out, log = fill(tmp_path / "in", 10), tmp_path / "out", tmp_path / "log"
    assert killed_at_random([WORKER, inputs, out, log, 0.2], 1, 0.5, random.Random(0)) == 1
    assert run(inputs, out).failed == 0
    check_all(inputs, out)


@posix
def test_f13_shards_share_a_folder_and_a_whole_run_is_told(photos, tmp_path):
    out = tmp_path / "out"
    one, other, again, whole = (
        Journal(out, "o", "w", ending) for ending in (".1-of-2", ".2-of-2", ".1-of-2", "")
    )
    tidied = []
    with one.open(lambda: tidied.append(1)), other.open(lambda: tidied.append(2)):
        assert tidied == [1], "what the first one is making is not swept away by the second"
        for held in (again, whole):
            with pytest.raises(OutputError, match="another run"), held.open():
                pass
    with whole.open():
        pass


# F14: a torn line, a lost report


def test_f14_a_torn_last_line_costs_nothing(photos, tmp_path):
    out = tmp_path / "out"
    run(photos, out)
    whole = rows(out)
    data = (out / "report.jsonl").read_bytes()
    for cut in (1, 30, 200):
        (out / "report.jsonl").write_bytes(data[:-cut])
        assert run(photos, out).finished == 8
        assert rows(out) == whole


def test_f14_a_lost_report_is_rebuilt_from_what_is_there(photos, tmp_path):
    out = tmp_path / "out"
    run(photos, out)
    whole = rows(out)
    (out / "report.jsonl").unlink()
    (out / "summary.json").unlink()
    spoilt = out / next(iter(whole.values()))["output"]
    spoilt.write_bytes(b"torn")
    work = []

    def again(job, path):
        work.append(job.key)
        return copying(job, path)

    summary = run(photos, out, again)
    assert (summary.finished, summary.failed, len(work)) == (7, 1, 0)
    code = rows(out)[next(iter(whole))]
    assert code["code"] == "EXISTS", "a file that changed is not taken for ours"
    spoilt.unlink()
    assert run(photos, out, again).done == 1 and work == [next(iter(whole))]
    for key, row in whole.items():
        assert rows(out)[key]["output_sha256"] == row["output_sha256"]


def test_f14_that_a_stopped_run_did_not_come_to_a_file_outweighs_no_other_row(photos, tmp_path):
    out = tmp_path / "out"
    shard = plan(find([photos], out), out, lambda source: ".png")
    run_all(
        shard,
        copying,
        Journal(out, "o", "w", ".1-of-2"),
        limits=Limits(stop=lambda: "SIGINT"),
    )
    assert run(photos, out).done == 8
    assert run_all(shard, copying, Journal(out, "o", "w", ".1-of-2")).finished == 8


def test_f14_without_its_copy_too_nothing_is_taken_for_ours(photos, tmp_path):
    out = tmp_path / "out"
    run(photos, out)
    for path in (out / "report.jsonl", out / HIDDEN / "report.jsonl"):
        path.unlink()
    before = tree(out)
    assert run(photos, out).failed == 8 and tree(out) == before
    assert {row["code"] for row in rows(out).values()} == {"EXISTS"}


def test_an_image_error_stays_what_it_is(photos, tmp_path):
    def work(job, path):
        raise ImageError("CORRUPT", "broken")

    assert run(photos, tmp_path / "out", work).failed == 8
    limits = Limits(max_failures=3)
    summary = run(photos, tmp_path / "other", work, limits=limits)
    assert (summary.failed, summary.left, summary.stopped) == (3, 5, "MAX_FAILURES")
    assert len(rows(tmp_path / "other")) == 8
