"""Jobs outlive the server, wait their turn, and end when they are told to."""

import errno
import json
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import get_args

import httpx2
import pytest
from conftest import smooth_pixels
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from servers import free_port, started

from restore import cli, file_search
from restore.batch import folder
from restore.batch.models import OpenedModel, open_model
from restore.errors import CancelledError, ImageError, UsageError
from restore.files import locked
from restore.images import picture
from restore.options import UpscaleOptions
from restore.web import requests, serve, store
from restore.web.models import Models
from restore.web.requests import ScratchesRequest, UpscaleRequest, safe_name
from restore.web.roots import Roots
from restore.web.server import ErrorResponse, JobResponse
from restore.web.store import ENDED, Store
from restore.web.worker import FullError, Worker


def queued(kept: Store, **values) -> str:
    job_id, _ = kept.begin()
    kept.add(store.new_job(job_id, ScratchesRequest(), ["a.png"]).model_copy(update=values))
    return job_id


def wait(claim, limit_s: float = 60) -> None:
    until = time.monotonic() + limit_s
    while time.monotonic() < until:
        if claim():
            return
        time.sleep(0.02)
    raise AssertionError(f"not in {limit_s} seconds")


class Hand:
    """Does jobs as it is told: holds them until `go`, listening for the end."""

    def __init__(self):
        self.began, self.go = [], threading.Event()

    def __call__(self, job, watch):
        self.began.append(job.id)
        while not self.go.wait(0.01):
            watch.check()
        return {"warnings": ["made"]}


@pytest.fixture
def kept(tmp_path):
    return Store(tmp_path)


@pytest.fixture
def hand():
    return Hand()


def test_jobs_are_done_one_at_a_time_in_their_order(kept, hand):
    worker = Worker(kept, hand, 10)
    jobs = [store.new_job(kept.begin()[0], ScratchesRequest(), []) for _ in range(3)]
    for job in jobs:
        worker.submit(job)
    worker.start()
    wait(lambda: hand.began)
    assert [worker.position(job.id) for job in jobs] == [None, 1, 2]
    worker.cancel(jobs[1].id)
    assert kept.get(jobs[1].id).status == "cancelled"
    hand.go.set()
    wait(lambda: kept.get(jobs[2].id).status == "done")
    assert hand.began == [jobs[0].id, jobs[2].id]
    worker.close()
    assert not worker.is_alive


def test_the_queue_is_bounded(kept, hand):
    worker = Worker(kept, hand, 1)
    worker.submit(store.new_job(kept.begin()[0], ScratchesRequest(), []))
    with pytest.raises(FullError, match="1 jobs wait already"):
        worker.submit(store.new_job(kept.begin()[0], ScratchesRequest(), []))


def test_what_was_stopped_goes_on_at_the_next_start(tmp_path, kept, hand):
    worker = Worker(kept, hand, 10)
    first, second = queued(kept), queued(kept, created=time.time() + 1)
    worker = Worker(kept, hand, 10)
    worker.start()
    wait(lambda: hand.began)
    worker.close()
    again = Store(tmp_path)
    assert [again.get(job).status for job in (first, second)] == ["queued", "queued"]
    assert again.get(first).attempts == 0  # being stopped is no fault of the job's
    hand.go.set()
    other = Worker(again, hand, 10)
    other.start()
    wait(lambda: again.get(second).status == "done")
    assert hand.began == [first, first, second]
    other.close()


@pytest.mark.parametrize("error", [ImageError("CRASHED", "its encoder died"), ValueError("torch")])
def test_what_fails_because_the_server_ends_is_done_at_the_next_start(tmp_path, kept, error):
    def carry_out(job, watch):
        while not watch.stop_reason():  # as while a large file is encoded, and nothing listens
            time.sleep(0.01)
        raise error

    worker = Worker(kept, carry_out, 10)
    worker.submit(job := store.new_job(kept.begin()[0], ScratchesRequest(), []))
    worker.start()
    wait(lambda: worker.is_busy)
    worker.close()
    assert Store(tmp_path).get(job.id).status == "queued"


def test_a_job_that_does_not_stop_in_time_has_lost_no_attempt(tmp_path, kept, hand, monkeypatch):
    monkeypatch.setattr("restore.web.worker.LAST_S", 0.05)
    worker = Worker(kept, lambda *_: hand.go.wait() and {}, 10)
    worker.submit(job := store.new_job(kept.begin()[0], ScratchesRequest(), []))
    worker.start()
    wait(lambda: kept.get(job.id).status == "running")
    worker.close()
    again = Store(tmp_path).get(job.id)
    hand.go.set()
    assert (again.status, again.attempts) == ("queued", 0)


def test_a_job_that_ends_the_server_each_time_is_given_up(tmp_path, kept, hand):
    hand.go.set()
    once, often = queued(kept, status="running", attempts=1), queued(kept, attempts=3)
    again = Store(tmp_path)
    worker = Worker(again, hand, 10)
    worker.start()
    wait(lambda: again.get(often).status == "failed" and again.get(once).status == "done")
    assert again.get(often).code == "CRASHED"
    assert hand.began == [once]
    worker.close()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ImageError("CORRUPT", "broken"), "CORRUPT"),
        (ValueError("x"), "INTERNAL"),
        (MemoryError(), "OOM"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "OOM"),
    ],
)
def test_a_bad_job_costs_no_other(kept, error, code):
    def carry_out(job, watch):
        if job.id == bad:
            raise error
        return {}

    bad, good = queued(kept), queued(kept, created=time.time() + 1)
    worker = Worker(kept, carry_out, 10)
    worker.start()
    wait(lambda: kept.get(good).status == "done")
    assert (kept.get(bad).status, kept.get(bad).code) == ("failed", code)
    worker.close()


def test_torn_and_foreign_folders_are_no_jobs(tmp_path, kept):
    whole, torn = queued(kept), queued(kept)
    (kept.folder_of(torn) / "job.json").write_text('{"id": "')
    (kept.folder / "notes").mkdir()
    again = Store(tmp_path)
    assert [job.id for job in again.all()] == [whole]
    assert not kept.folder_of(torn).exists()
    assert (kept.folder / "notes").exists()  # none of ours


def test_old_jobs_make_room(kept, monkeypatch):
    monkeypatch.setattr(store, "KEPT", 2)
    ended = [queued(kept, status="done", created=float(n)) for n in range(4)]
    waiting = queued(kept, created=0.0)
    kept.tidy()
    assert {job.id for job in kept.all()} == {waiting, *ended[2:]}
    assert not kept.folder_of(ended[0]).exists()


@given(st.text())
def test_an_upload_has_the_name_of_a_plain_file(name):
    made = safe_name(name)
    assert made and len(made.encode()) <= 220 and made.isprintable()
    assert not made.startswith(".") and not set('/\\\0<>:"|?*') & set(made)
    assert safe_name(made) == made


def test_a_usual_name_stays_as_it_is():
    for name in ("scan 1.png", "Käse.JPG", "a.b.c.tiff", "über.heic"):
        assert safe_name(name) == name


def test_roots_of_one_name_and_files_are_refused(tmp_path):
    (tmp_path / "a" / "x").mkdir(parents=True)
    (tmp_path / "b" / "x").mkdir(parents=True)
    with pytest.raises(UsageError, match="another root is called 'x'"):
        Roots.of([tmp_path / "a" / "x", tmp_path / "b" / "x"])
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is no folder"):
        Roots.of([tmp_path / "file"])


def test_a_cancelled_picture_is_left_for_the_next_run(tmp_path):
    Image.fromarray(smooth_pixels(20, 30)).save(tmp_path / "a.png")
    out, nano = tmp_path / "out", open_model("nano")
    files = file_search.find([tmp_path / "a.png"], out)

    class Impatient(folder.Quiet):
        def part(self, done, of, what):
            raise CancelledError("enough")

    options = UpscaleOptions(scale=2)
    ended = folder.run(files, options, out, nano, show=Impatient())
    assert (ended.left, ended.failed, ended.stopped) == (1, 0, "CANCELLED")
    assert not (out / "a.png").exists()
    assert folder.run(files, options, out, nano).done == 1


def test_all_frames_of_a_file_are_kept(tmp_path):
    first, second = (Image.fromarray(smooth_pixels(12, 16, seed)) for seed in (1, 2))
    first.save(tmp_path / "a.tif", save_all=True, append_images=[second])
    out = tmp_path / "out"
    files = file_search.find([tmp_path / "a.tif"], out)
    pictures = folder.PICTURES.model_copy(update={"frames": "all"})
    nano = open_model("nano")
    assert folder.run(files, UpscaleOptions(scale=2), out, nano, pictures=pictures).done == 1
    assert {path.name: picture.probe(path).size for path in out.glob("*.png")} == {
        "a.png": (24, 32),
        "a_002.png": (24, 32),
    }


def test_one_model_is_in_memory(monkeypatch):
    models = Models(["/models/other"])
    opened = []

    def open_named(choice):
        opened.append(choice.name)
        return OpenedModel(choice.name, lambda: None, "", {})

    monkeypatch.setattr("restore.batch.models.ModelChoice.open", open_named)
    assert models.first == "other"
    for name in ("nano", "nano", "other", "nano"):
        made = models.open(models.choose(UpscaleRequest(model=name)))
        assert made.name == name  # results name it as clients do
    assert opened == ["nano", "/models/other", "nano"]
    models.require("other", "inpaint")
    with pytest.raises(UsageError, match="there is no '/models/other'"):
        models.require("/models/other", "inpaint")


def test_the_address_shows_the_token_only_where_one_is():
    how = serve.Serving("0.0.0.0", 80, (), Path(), (), (), "auto", "auto", "torch", None)
    assert serve.build_url(how, "t") == "http://localhost:80/?token=t"
    own = serve.Serving("::1", 80, (), Path(), (), (), "auto", "auto", "torch", None)
    assert serve.build_url(own, "") == "http://[::1]:80/"
    proxied = serve.Serving(
        "::1", 80, ["photos.example"], Path(), (), (), "auto", "auto", "torch", None
    )
    assert serve.build_url(proxied, "t") == "https://photos.example/?token=t"
    assert serve.build_url(how, "a+b/c=&%41") == "http://localhost:80/?token=a%2Bb%2Fc%3D%26%2541"


def test_a_full_disk_ends_a_job_and_not_the_worker(kept, hand, monkeypatch):
    bad, good = queued(kept), queued(kept, created=time.time() + 1)
    worker = Worker(kept, hand, 10)
    worker.start()
    wait(lambda: hand.began)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(store, "write_text", full)
        hand.go.set()
        wait(lambda: kept.get(bad).status == "done")  # as far as this process knows
        wait(lambda: not worker.is_busy)
        assert (kept.get(good).status, kept.get(good).code) == ("failed", "OUTPUT")
    another = store.new_job(kept.begin()[0], ScratchesRequest(), [])
    worker.submit(another)
    wait(lambda: kept.get(another.id).status == "done")
    worker.close()


def test_a_job_that_meets_a_full_disk_says_so(kept):
    def full(job, watch):
        raise RuntimeError("while saving") from OSError(errno.ENOSPC, "No space left on device")

    worker = Worker(kept, full, 10)
    worker.submit(job := store.new_job(kept.begin()[0], ScratchesRequest(), []))
    worker.start()
    wait(lambda: kept.get(job.id).status == "failed")
    assert kept.get(job.id).code == "DISK_FULL" and "no room left" in kept.get(job.id).error
    worker.close()


def test_what_serve_lacks_is_named(monkeypatch, capsys):
    monkeypatch.setattr("restore.cli.serve.EXTRA", ("fastapi", "no_such_package"))
    assert cli.main(["serve"]) == 2
    assert "serve needs no_such_package, which is missing" in capsys.readouterr().err


def test_a_port_that_is_taken_and_a_strange_token_are_refused(tmp_path, monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        words = ["serve", "--port", port, "--state", str(tmp_path)]
        assert cli.main(words) == 2
        assert "give another --port" in capsys.readouterr().err
        monkeypatch.setenv("RESTORE_TOKEN", "with space")
        assert cli.main(words) == 2
    monkeypatch.delenv("RESTORE_TOKEN")
    with locked(tmp_path):
        assert cli.main(["serve", "--port", str(free_port()), "--state", str(tmp_path)]) == 3


def test_a_home_that_takes_no_jobs_names_the_option(tmp_path, monkeypatch, capsys):
    (tmp_path / "home").write_text("a file")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    assert cli.main(["serve", "--port", str(free_port())]) == 3
    assert "--state FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["https://photos.example", "photos.example:8443", "a.example/x"])
def test_a_name_is_that_of_a_host_alone(name, tmp_path, capsys):
    assert cli.main(["serve", "--name", name, "--state", str(tmp_path)]) == 2
    assert f"--name {name}: is no name of a host" in capsys.readouterr().err


@pytest.mark.timeout(600)  # two servers that load a model, on a machine that is busy
def test_a_server_that_is_killed_goes_on_with_its_job(tmp_path):
    port, photo = free_port(), tmp_path / "a.png"
    Image.fromarray(smooth_pixels(96, 96)).save(photo)

    def job():
        return httpx2.get(f"http://127.0.0.1:{port}/v1/jobs/{job_id}", timeout=100).json()

    process = started(tmp_path / "state", port)
    try:
        with photo.open("rb") as file:
            sent = {"files": {"image": file}, "data": {"request": '{"upscale": {"steps": 3}}'}}
            address = f"http://127.0.0.1:{port}/v1/upscale"
            job_id = httpx2.post(address, **sent, timeout=100).json()["id"]
        wait(lambda: (now := job())["part"] or now["status"] in ENDED, 200)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        out = tmp_path / "state" / "jobs" / job_id / "out"
        assert not (out / "a.png").exists()
        process = started(tmp_path / "state", port)
        wait(lambda: job()["status"] in ENDED, 200)
        assert (job()["status"], job()["size_out"]) == ("done", [384, 384]), job()
        assert [path for path in out.iterdir() if path.name.startswith(".restore-")] == []
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=100)
        assert process.returncode in (0, -signal.SIGTERM, 143), process.returncode
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()


def test_a_job_on_disk_keeps_the_key_of_older_servers(tmp_path):
    kept = store.Store(tmp_path)
    job_id, place = kept.begin()
    kept.add(store.new_job(job_id, ScratchesRequest(), ["a.png"]))
    fields = json.loads((place / "job.json").read_text())
    assert fields["asked"] == {"kind": "scratches"} and "request" not in fields
    again = store.Store(tmp_path).get(job_id)
    assert again and again.request == ScratchesRequest()


def test_each_field_of_a_request_and_an_answer_is_described():
    models = [*get_args(get_args(requests.AnyRequest)[0]), JobResponse, ErrorResponse]
    models += [store.Result, store.Part, store.Tally]
    for model in models:
        for name, field in model.model_fields.items():
            assert field.description or name in ("kind", "status"), (model, name)
