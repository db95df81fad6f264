"""Previews of the job at work: made only for who asks, within bounds, and gone with the job."""

import io
import time
from dataclasses import replace

import numpy as np
import pytest
from conftest import smooth_pixels
from PIL import Image
from starlette.testclient import TestClient
from test_web import HERE, RULES, ended, picture, post, result, until

from restore.errors import CancelledError
from restore.images.sketches import SIDE
from restore.web import previews
from restore.web.api import create_app
from restore.web.models import Models
from restore.web.previews import Previews
from restore.web.roots import Roots
from restore.web.server import Limits
from restore.web.store import ENDED


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    app = create_app(tmp_path_factory.mktemp("state"), RULES, Models(), Roots(), Limits())
    with TestClient(app, base_url=HERE, raise_server_exceptions=False) as made:
        yield made


def white(side=40):
    return np.full((side, side, 3), 255, np.uint8)


def watched(client, job_id) -> list[bytes]:
    """What was seen until the job ended."""
    seen = []
    while client.get(f"/v1/jobs/{job_id}").json()["status"] not in ENDED:
        answer = client.get(f"/v1/jobs/{job_id}/preview")
        assert answer.status_code in (200, 204)
        if answer.status_code == 200:
            assert answer.headers["content-type"] == "image/jpeg"
            seen.append(answer.content)
        time.sleep(0.05)
    return seen


def test_who_watches_sees_the_steps_and_the_bytes_stay(client, monkeypatch):
    monkeypatch.setattr(previews, "PAUSE_S", 0)
    monkeypatch.setattr(previews, "SHARE", 0)
    asked = {"upscale": {"scale": 2, "steps": 12}}
    first = post(client, "upscale", picture(60, 90), asked).json()["id"]
    seen = watched(client, first)
    job = until(client, first, ENDED)
    assert job["status"] == "done" and job["preview"] == 0
    assert len(set(seen)) > 1
    for one in seen:
        image = Image.open(io.BytesIO(one))
        assert image.format == "JPEG" and image.size == (180, 120)
    assert client.get(f"/v1/jobs/{first}/preview").status_code == 204  # gone with its end
    assert client.get("/v1/jobs/nothing/preview").status_code == 404

    def never(*_):
        raise AssertionError("made for nobody")

    monkeypatch.setattr(previews, "as_jpeg", never)
    job = ended(client, post(client, "upscale", picture(60, 90), asked))
    assert job["status"] == "done"
    assert result(client, job) == result(client, {"id": first})


def test_a_look_is_guarded_by_the_token(tmp_path):
    rules = replace(RULES, host="0.0.0.0", token="very-secret")
    app = create_app(tmp_path, rules, Models(), Roots(), Limits())
    asking = TestClient(app, base_url="http://photos.example:7860")
    assert asking.get("/v1/jobs/x/preview").status_code == 401
    assert asking.get("/v1/adapters").status_code == 401


@pytest.fixture
def clock(monkeypatch):
    """Time that stands still until it is moved."""

    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    made = Clock()
    monkeypatch.setattr(previews, "time", made)
    return made


def test_previews_are_made_while_someone_asks_and_not_too_often(clock):
    kept = Previews()
    kept.begin("a")
    made = []

    def sketch():
        made.append(1)
        clock.now += 2  # it takes two seconds
        return white()

    assert kept.take(sketch) == 0  # nobody asked
    assert kept.ask("b") == b"" and kept.take(sketch) == 0  # not for this job
    assert kept.ask("a") == b"" and kept.take(sketch) == 1
    assert Image.open(io.BytesIO(kept.ask("a"))).size == (40, 40)
    assert kept.ask("b") == b""
    clock.now += previews.SHARE * 2 - 0.1
    kept.ask("a")
    assert kept.take(sketch) == 0  # a tenth of the time is enough
    clock.now += 0.2
    assert kept.take(sketch) == 2
    clock.now += previews.PATIENCE_S + 60
    assert kept.take(sketch) == 0  # nobody asks any more
    kept.begin("b")
    assert kept.ask("a") == b"" and len(made) == 2


def test_a_preview_that_fails_costs_no_job(clock, caplog):
    kept = Previews()
    kept.begin("a")
    kept.ask("a")

    def broken():
        raise MemoryError("no room")

    assert kept.take(broken) == 0 and "no preview of job a" in caplog.text
    assert kept.take(white) == 0  # nor is it tried at every step
    kept.begin("b")
    kept.ask("b")
    assert kept.take(white) == 1

    def cancelled():
        raise CancelledError("CANCELLED")

    clock.now += 60
    kept.ask("b")
    with pytest.raises(CancelledError):
        kept.take(cancelled)


def test_a_preview_is_small_in_memory():
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    assert len(previews.as_jpeg(noise)) < 2**18
    assert len(previews.as_jpeg(smooth_pixels(SIDE, SIDE))) < 2**16
