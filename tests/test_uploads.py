"""What goes on beside a run: copies that are made ahead, and results on their way."""

import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from restore.batch import downloads
from restore.batch import uploads as uploads_of
from restore.batch.background import Threads, wait_for
from restore.batch.jobs import Job
from restore.batch.uploads import Uploads
from restore.errors import OutputError


def jobs(count: int, size: int = 1) -> list[Job]:
    return [
        Job(Path("x"), f"{n}", Path(f"o{n}"), url=f"s3://x/{n}", size=size) for n in range(count)
    ]


def test_jobs_keep_their_order_and_the_next_few_are_prepared():
    begun = []
    for nth, job in enumerate(downloads.ahead(jobs(30), lambda job: begun.append(job.key))):
        assert job.key == str(nth)
        time.sleep(0.01)
        assert len(begun) <= nth + downloads.AHEAD
    assert sorted(map(int, begun)) == list(range(1, 30))


def test_large_files_are_prepared_one_at_a_time():
    begun = []
    given = downloads.ahead(jobs(9, downloads.ROOM), lambda job: begun.append(job.key))
    next(given)
    while not begun:
        time.sleep(0.01)
    time.sleep(0.1)  # in which a second one would begin
    assert begun == ["1"]
    given.close()


def test_what_cannot_be_prepared_still_has_its_turn():
    def fail(job):
        raise OSError("no network")

    assert len(list(downloads.ahead(jobs(20), fail))) == 20


def test_jobs_that_were_only_prepared_are_left_when_the_run_ends():
    taken = []
    for job in downloads.ahead(jobs(20), lambda job: None, lambda: len(taken) == 3):
        taken.append(job.key)
    assert taken == ["0", "1", "2"]


def test_a_copy_is_made_once_for_all_who_ask(monkeypatch, tmp_path):
    made, [job] = [], jobs(1)

    def download(job):
        made.append(job)
        time.sleep(0.1)
        path = downloads.cached_file(job)
        path.write_bytes(b"data")
        return path

    monkeypatch.setattr(downloads, "_downloaded", download)
    threads = Threads(4, "test")
    asked = [threads.submit(lambda: downloads.fetch(job)) for _ in range(4)]
    paths = {wait_for(one) for one in asked}
    assert len(made) == 1 and [path.read_bytes() for path in paths] == [b"data"]
    downloads.release(job)
    assert not paths.pop().exists()
    assert downloads.fetch(job).exists() and len(made) == 2
    downloads.release(job)
    threads.close()


def test_a_slow_result_does_not_hold_up_the_others():
    gate, done = threading.Event(), []
    with Uploads(3) as uploads:
        for nth, job in enumerate(jobs(8)):
            commit = (
                (lambda: gate.wait(9) and {"slow": 1}) if nth == 0 else (lambda nth=nth: {"n": nth})
            )
            done += uploads.add(job, commit)
        assert {job.key for job, _ in done} <= set("1234567") and len(done) >= 4
        gate.set()
        done += uploads.rest()
    assert sorted(job.key for job, _ in done) == list("01234567")
    assert dict((job.key, row) for job, row in done)["0"] == {"slow": 1}


def test_an_error_of_one_result_that_ends_the_run_is_raised():
    def fail():
        raise OutputError("no place")

    with pytest.raises(OutputError), Uploads(2) as uploads:
        for job in jobs(3):
            list(uploads.add(job, fail))
        list(uploads.rest())


def test_what_is_not_begun_when_a_run_is_cut_off_is_never_done(monkeypatch):
    monkeypatch.setattr(uploads_of, "LAST_S", 0.1)
    begun, gate = [], threading.Event()

    def commit(nth):
        begun.append(nth)
        gate.wait(9)
        return {}

    with pytest.raises(KeyboardInterrupt), Uploads(2) as uploads:
        for nth, job in enumerate(jobs(2)):
            list(uploads.add(job, lambda nth=nth: commit(nth)))
        waiting = uploads._threads.submit(lambda: commit(2))
        while len(begun) < 2:
            time.sleep(0.01)
        raise KeyboardInterrupt
    gate.set()
    with pytest.raises(CancelledError):
        wait_for(waiting)
    assert sorted(begun) == [0, 1]


def test_one_result_at_a_time_is_given_its_name_at_once():
    here = threading.current_thread()
    with Uploads(1) as uploads:
        [(_, row)] = uploads.add(jobs(1)[0], lambda: {"thread": threading.current_thread()})
    assert row["thread"] is here
