"""Reading, making and writing go on at the same time, and a run's promises stand."""

import json
import os
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import count
from pathlib import Path

import hostile
import numpy as np
import pytest
from PIL import Image

from restore import files
from restore.batch import downloads, work
from restore.batch.jobs import Job
from restore.batch.prefetch import Prefetcher
from restore.errors import ImageError
from restore.images import sandbox
from restore.images.picture import Picture
from restore.images.worker_pool import Workers


def rows(tmp_path):
    lines = (tmp_path / "out" / "report.jsonl").read_text().splitlines()
    return {row["key"]: row for row in map(json.loads, lines)}


@pytest.fixture
def photos(tmp_path, pixels):
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(4):
        Image.fromarray(pixels(20, 24, number)).save(folder / f"{number}.png")
    return folder


def jobs(*keys):
    return [Job(None, key, files.Path(key)) for key in keys]


def test_what_was_begun_ahead_is_taken_once_and_fails_in_its_turn():
    made = []

    def make(job):
        made.append(job.key)
        return 1 / (job.key != "b"), job.key

    a, b, c = todo = jobs("a", "b", "c")
    prefetcher = Prefetcher(todo, make)
    assert prefetcher.take(a) == (1, "a")
    prefetcher.begin_after(a, lambda job: True)
    with pytest.raises(ZeroDivisionError):
        prefetcher.take(b)
    prefetcher.begin_after(b, lambda job: False)
    prefetcher.begin_after(c, lambda job: True)  # the last: nothing follows
    assert prefetcher.take(c) == (1, "c")
    assert made == ["a", "b", "c"]
    prefetcher.close()


def test_the_model_does_not_wait_for_files(photos, tmp_path, call, monkeypatch):
    """Each file is read while the one before it is made, and made while that is written."""
    kinds, begun = ("read", "make", "write"), {}

    def meeting(kind, module, function, other):
        real, numbers = getattr(module, function), count()

        def met(*args, **more):
            number = next(numbers)
            begun[kind, number].set()
            if other and number < 3:
                assert begun[other, number + 1].wait(60)
            return real(*args, **more)

        monkeypatch.setattr(module, function, met)

    assert call("upscale", photos, "-s", 1, out="warm")[0] == 0
    begun.update({(kind, number): threading.Event() for kind in kinds for number in range(4)})
    meeting("read", sandbox, "read_frames", None)
    meeting("make", work.FileWork, "make", "read")
    meeting("write", sandbox, "encode", "make")
    assert call("upscale", photos, "-s", 1)[0] == 0
    for name in ("0.png", "3.png"):
        warm, cold = (tmp_path / out / name for out in ("warm", "out"))
        assert warm.read_bytes() == cold.read_bytes()


def test_a_file_that_changes_after_it_was_read_ahead_is_not_trusted(
    photos, tmp_path, call, pixels, monkeypatch
):
    real, real_read, is_read = sandbox.encode, sandbox.read_frames, threading.Event()

    def read_frames(path, how):
        frames = real_read(path, how)
        if path.name == "1.png":
            is_read.set()
        return frames

    def encode(picture, path, *more):
        assert is_read.wait(60)
        if not changed:
            changed.append(Image.fromarray(pixels(20, 24, 9)).save(photos / "1.png"))
        return real(picture, path, *more)

    changed = []
    monkeypatch.setattr(sandbox, "read_frames", read_frames)
    monkeypatch.setattr(sandbox, "encode", encode)
    assert call("upscale", photos, "-s", 1)[0] == 1
    found = rows(tmp_path)
    assert found["1.png"]["code"] == "CHANGED" and not (tmp_path / "out" / "1.png").exists()
    assert sum(row["status"] == "done" for row in found.values()) == 3
    assert call("upscale", photos, "-s", 1)[0] == 0


def test_what_is_finished_is_not_begun_ahead(photos, tmp_path, call, monkeypatch):
    assert call("upscale", photos, "-s", 1)[0] == 0
    (tmp_path / "out" / "0.png").unlink()
    (tmp_path / "out" / "2.png").unlink()
    read = []
    real = sandbox.read_frames
    monkeypatch.setattr(
        sandbox, "read_frames", lambda path, how: (read.append(path.name), real(path, how))[1]
    )
    assert "2 done, 2 finished" in call("upscale", photos, "-s", 1)[1]
    assert read == ["0.png", "2.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="signals and memory limits")
def test_f6_f7_a_decoder_that_dies_costs_its_file_and_no_other(photos, tmp_path, call, monkeypatch):
    for name in ("crash", "exit-", "hang-", "hoard"):
        os.link(photos / "0.png", photos / f"{name}.png")
    workers = Workers(2, memory=2**28)
    monkeypatch.setattr(sandbox, "shared_workers", lambda: workers)
    real = sandbox._patience_s  # for all but one: the machine may be busy
    monkeypatch.setattr(
        sandbox, "_patience_s", lambda path: 1 if path.stem == "hang-" else real(path)
    )
    monkeypatch.setattr(sandbox.images, "read_frames", hostile.read_frames)
    code, said, err = call("upscale", photos, "-s", 1)
    workers.close()
    assert code == 1 and "4 done, 4 failed" in said and "Traceback" not in err
    codes = {key: row.get("code") for key, row in rows(tmp_path).items()}
    assert codes == {
        **dict.fromkeys(("0.png", "1.png", "2.png", "3.png")),
        **{"crash.png": "CRASHED", "exit-.png": "CRASHED"},
        **{"hang-.png": "TIMEOUT", "hoard.png": "OOM"},
    }
    assert "SIGSEGV" in rows(tmp_path)["crash.png"]["error"]
    assert not list((tmp_path / "out").rglob(f"{files.TEMPORARY}*.png"))


def test_an_encoder_that_dies_leaves_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "new.png"
    path.write_bytes(b"old")
    monkeypatch.setattr(sandbox.encoding, "encode", hostile.encode)
    with (
        pytest.raises(ImageError, match="SIGSEGV"),
        files.replacing(path) as temporary,
    ):
        sandbox.encode(Picture(np.zeros((4, 4, 3), np.uint8)), temporary)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_no_thread_is_left_behind(photos, call):
    call("upscale", photos, "-s", 1)
    time.sleep(0.2)
    before = threading.active_count()
    call("upscale", photos, "-s", 1)
    until = time.monotonic() + 30
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() <= before


def test_copies_that_threads_begin_at_once_are_in_one_folder_and_made_once(monkeypatch):
    folder = tempfile.TemporaryDirectory

    def slow(**how):
        time.sleep(0.1)
        return folder(**how)

    def download(job):
        made.append(job.key)
        return downloads.cached_file(job)

    made, at_once = [], threading.Barrier(4)
    # as in a process that has made none yet
    monkeypatch.setattr(downloads, "_make_folder", cache(downloads._make_folder.__wrapped__))
    monkeypatch.setattr(downloads.tempfile, "TemporaryDirectory", slow)
    monkeypatch.setattr(downloads, "_downloaded", download)
    jobs = [Job(Path(n), n, Path(n), url=f"https://example.org/{n}") for n in ("a.png", "b.png")]

    def fetch(job):
        at_once.wait()
        return downloads.fetch(job)

    with ThreadPoolExecutor(4) as pool:
        copies = list(pool.map(fetch, [*jobs, *jobs]))
    assert sorted(made) == ["a.png", "b.png"]
    assert len({copy.parent for copy in copies}) == 1
    for job in jobs:
        downloads.release(job)
    downloads._make_folder().cleanup()
