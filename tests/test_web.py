"""The HTTP API: what it makes is the command line's, what it refuses, and who may ask."""

import asyncio
import errno
import io
import json
import shutil
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock
from urllib.parse import quote

import httpx2
import numpy as np
import pytest
from conftest import smooth_pixels
from PIL import Image
from starlette.exceptions import HTTPException
from starlette.testclient import TestClient

from degradations import Recipe, preview
from restore import cli
from restore.errors import ImageError, UsageError
from restore.images.worker_pool import Workers
from restore.web.api import create_app, stream_changes
from restore.web.guard import Guard, Rules
from restore.web.models import Models
from restore.web.roots import Roots
from restore.web.server import Limits
from restore.web.store import ENDED

ROOT = Path(__file__).resolve().parents[1]
HERE = "http://127.0.0.1:7860"
RULES = Rules("127.0.0.1", "", 2**22, 4)
STRANGE = [
    *("../secret.txt", "..\\secret.txt", "/etc/passwd", "C:\\Windows\\win.ini", "....//secret"),
    *("%2e%2e/secret", "..%5csecret", "a/../../secret", "\0secret.png", "~/.ssh/id_rsa", "."),
    *("..", "", "/", "//host/share", "file:///etc/passwd", "out2/x.png", "con.png", "a" * 300),
    *("job.json", "../job.json", "in/a.png", "\u202egnp.exe", "<img src=x>.png", "a\nb.png"),
    *("../../../../../../etc/passwd", "..;/secret", "..\u2215secret", ".restore/report.jsonl"),
]


def picture(height=24, width=32, seed=0, kind="PNG", **more) -> bytes:
    file = io.BytesIO()
    Image.fromarray(smooth_pixels(height, width, seed)).save(file, kind, **more)
    return file.getvalue()


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """A root with a folder of two pictures, a link that leads out, and a twin beside it."""
    top = tmp_path_factory.mktemp("roots")
    (top / "root" / "scans").mkdir(parents=True)
    (top / "root_twin").mkdir()
    for number in range(2):
        (top / "root" / "scans" / f"{number}.png").write_bytes(picture(seed=number))
    (top / "root" / "out").symlink_to(top / "root_twin")
    return top / "root"


@pytest.fixture(scope="module")
def client(tmp_path_factory, photos):
    state = tmp_path_factory.mktemp("state")
    app = create_app(state, RULES, Models(), Roots.of([photos]), Limits(megapixels=1))
    with TestClient(app, base_url=HERE, raise_server_exceptions=False) as made:
        made.state_folder = state
        yield made


def post(client, kind, image=None, request=None, name="photo.png", mask=None):
    files = [("image", (name, picture() if image is None else image))]
    files += [("mask", ("mask.png", mask))] if mask else []
    return client.post(f"/v1/{kind}", files=files, data={"request": json.dumps(request or {})})


def ended(client, answer) -> dict:
    assert answer.status_code == 202, answer.text
    return until(client, answer.json()["id"], ENDED)


def until(client, job_id, statuses, claim=lambda job: False) -> dict:
    until_s = time.monotonic() + 100
    while time.monotonic() < until_s:
        job = client.get(f"/v1/jobs/{job_id}").json()
        if job["status"] in statuses or claim(job):
            return job
        time.sleep(0.02)
    raise AssertionError(job)


def result(client, job, name="") -> bytes:
    answer = client.get(f"/v1/jobs/{job['id']}/result", params={"name": name})
    assert answer.status_code == 200, answer.text
    return answer.content


def test_a_result_has_the_bytes_of_the_command_line(client, tmp_path):
    source = tmp_path / "Käse 1.jpg"
    exif = Image.Exif()
    exif[0x010E] = "a description"
    source.write_bytes(picture(30, 41, kind="JPEG", exif=exif, dpi=(300, 300)))
    asked = {
        "upscale": {"scale": 2, "fidelity": 0.5, "colour": "wavelet"},
        "pictures": {"format": "webp", "quality": 80},
        "seed": 3,
    }
    words = ["-s", "2", "--fidelity", "0.5", "--colour", "wavelet", "--format", "webp"]
    words += ["--quality", "80", "--seed", "3", "-o", str(tmp_path / "out")]
    assert cli.main(["upscale", str(source), *words]) == 0
    job = ended(client, post(client, "upscale", source.read_bytes(), asked, source.name))
    assert job["status"] == "done"
    assert (job["size_in"], job["size_out"]) == ([30, 41], [60, 82])
    assert [one["name"] for one in job["results"]] == ["Käse 1.webp"]
    assert result(client, job) == (tmp_path / "out" / "Käse 1.webp").read_bytes()
    for view in ("before", "after"):
        shown = client.get(f"/v1/jobs/{job['id']}/view/{view}")
        assert Image.open(io.BytesIO(shown.content)).format == "JPEG"


def test_outside_the_hole_nothing_moves_and_candidates_are_kept(client):
    pixels, hole = smooth_pixels(40, 56), np.zeros((40, 56), np.uint8)
    hole[10:20, 12:30] = 255
    file = io.BytesIO()
    Image.fromarray(hole).save(file, "PNG")
    asked = {"inpaint": {"feather": 0}, "count": 2}
    job = ended(client, post(client, "inpaint", picture(40, 56), asked, mask=file.getvalue()))
    names = [one["name"] for one in job["results"]]
    assert names == ["photo.png", "photo_001.png", "photo_002.png"]
    made = [np.asarray(Image.open(io.BytesIO(result(client, job, n)))) for n in names[1:]]
    for one in made:
        assert np.array_equal(one[hole == 0], pixels[hole == 0])
        assert (one[hole > 0] != pixels[hole > 0]).any()
    assert (made[0] != made[1]).any()


def test_pictures_are_made_from_words_and_from_pictures(client):
    asked = {"text2img": {"width": 32, "height": 24, "steps": 1, "prompt": "x"}, "count": 2}
    job = ended(client, client.post("/v1/text2img", json={**asked, "seed": 5}))
    assert [one["name"] for one in job["results"]] == ["0000000005.png", "0000000006.png"]
    assert Image.open(io.BytesIO(result(client, job))).size == (32, 24)
    assert "draws nothing from words" in job["warnings"][0]
    job = ended(client, post(client, "img2img", request={"img2img": {"steps": 2}}))
    assert job["size_out"] == [24, 32]


def test_scratches_are_found_for_a_mask(client):
    job = ended(client, post(client, "scratches"))
    assert Image.open(io.BytesIO(result(client, job))).size == (32, 24)


def test_recipes_show_make_and_estimate(client):
    recipes = [one["name"] for one in client.get("/v1/recipes").json()]
    assert "bsrgan" in recipes
    asked = {"recipe": "bsrgan", "crop": 32, "columns": 2}
    big = picture(64, 64)
    job = ended(client, post(client, "sheet", big, asked))
    assert Image.open(io.BytesIO(result(client, job))).width > 100
    job = ended(client, post(client, "pairs", big, {"recipe": "bsrgan", "crop": 32, "pairs": 2}))
    assert result(client, job)[:2] == b"PK"
    job = ended(client, post(client, "estimate", big, name="<script>x.png"))
    names = [one["name"] for one in job["results"]]
    assert names == ["mine.yaml", "mine.html"]
    page = client.get(f"/v1/jobs/{job['id']}/result", params={"name": "mine.html"})
    assert "sandbox" in page.headers["content-security-policy"]
    assert "<script" not in page.text
    refused = post(client, "sheet", big, {"recipe": "/etc/passwd"})
    assert (refused.status_code, refused.json()["code"]) == (422, "USAGE")


def test_a_sheet_keeps_the_middle_of_each_photo_alone(client, monkeypatch):
    given, real = [], preview.rows

    def rows(pictures, *more):
        given.extend(pictures.values())
        return real(pictures, *more)

    monkeypatch.setattr(preview, "rows", rows)
    asked = {"recipe": "bsrgan", "columns": 1, "crop": 64}
    assert ended(client, post(client, "sheet", picture(200, 300), asked))["status"] == "done"
    assert [(photo.shape, photo.base) for photo in given] == [((64, 64, 3), None)]


def test_a_photo_whose_decoder_dies_costs_an_estimate_no_other(client, monkeypatch):
    real = Workers.call

    def call(self, limit_s, function, *args):
        if function.__name__ == "_one" and Path(args[0]).name == "bad.png":
            raise ImageError("CRASHED", "its decoder died")
        return real(self, limit_s, function, *args)

    monkeypatch.setattr(Workers, "call", call)
    files = [("image", (name, picture(96, 96))) for name in ("bad.png", "good.png")]
    job = ended(client, client.post("/v1/estimate", files=files, data={"request": "{}"}))
    assert (job["status"], job["warnings"]) == ("done", ["bad.png: its decoder died"])


def test_a_folder_goes_on_where_the_command_line_stopped(client, photos, capsys):
    out = photos / "done"
    first = ["upscale", str(photos / "scans"), "-o", str(out), "-s", "2"]
    assert cli.main([*first, "--include", "0.png"]) == 0
    asked = {"root": "root", "folder": "scans", "out": "done", "upscale": {"scale": 2}}
    job = ended(client, client.post("/v1/batch", json=asked))
    assert job["status"] == "done", job
    assert job["warnings"] == ["1 done, 1 finished"]
    assert job["tally"]["done"] == 2
    capsys.readouterr()
    assert cli.main(first) == 0
    assert "2 finished in" in capsys.readouterr().out
    report = client.get(f"/v1/jobs/{job['id']}/report")
    assert "sandbox" in report.headers["content-security-policy"]
    assert "1.png" in report.text
    listed = client.get("/v1/folders", params={"root": "root"}).json()
    assert "scans" in listed["folders"]


def test_a_large_folder_is_listed_whole_or_said_to_hold_more(client, photos, monkeypatch):
    for number in range(1200):
        (photos / "many" / f"{number:04}").mkdir(parents=True)
    asked = {"root": "root", "folder": "many"}
    listed = client.get("/v1/folders", params=asked).json()
    assert len(listed["folders"]) == 1200 and not listed["has_more"]
    monkeypatch.setattr("restore.web.roots.MOST", 50)
    listed = client.get("/v1/folders", params=asked).json()
    assert len(listed["folders"]) == 50 and listed["has_more"]


def test_the_folder_where_the_server_was_started_is_worked_on(client, photos, monkeypatch):
    monkeypatch.chdir(photos / "scans")
    asked = {"root": "root", "folder": "scans", "out": "of_here", "upscale": {"scale": 1}}
    answer = client.post("/v1/batch", json=asked)
    assert answer.status_code == 202, answer.json()
    assert ended(client, answer)["status"] == "done"


def test_a_name_that_is_no_text_is_told_all_the_same(client, photos):
    (photos / "odd").mkdir()
    (photos / "odd" / "fine.png").write_bytes(picture())
    try:
        for name in (b"\xff.png", b"\xfe.png"):
            with open(bytes(photos / "odd") + b"/" + name, "wb") as file:
                file.write(picture() if name[0] == 255 else b"no picture")
    except OSError:
        pytest.skip("this disk takes text alone")
    asked = {"root": "root", "folder": "odd", "out": "odd_out", "upscale": {"scale": 1}}
    job = ended(client, client.post("/v1/batch", json=asked))
    assert job["warnings"] == ["2 done, 1 failed"], job
    assert job["tally"]["failures"][0].startswith("\\udcfe.png: ")


def test_the_command_line_goes_on_where_a_folder_was_cancelled(client, photos):
    (photos / "two").mkdir()
    for name, side in (("0.png", 240), ("1.png", 16)):
        Image.fromarray(smooth_pixels(side, side)).save(photos / "two" / name)
    steps = {"scale": 2, "steps": 20}
    asked = {"root": "root", "folder": "two", "out": "stopped", "upscale": steps}
    job_id = client.post("/v1/batch", json=asked).json()["id"]
    until(client, job_id, ENDED, lambda job: job["part"])
    client.post(f"/v1/jobs/{job_id}/cancel")
    job = until(client, job_id, ENDED)
    assert job["status"] == "cancelled", job
    report = (photos / "stopped" / "report.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line)["status"] for line in report.splitlines()] == ["left", "left"]
    words = ["-s", "2", "--steps", "20", "--exclude", "0.png"]
    assert cli.main(["upscale", str(photos / "two"), "-o", str(photos / "stopped"), *words]) == 0
    assert (photos / "stopped" / "1.png").exists()


@pytest.mark.parametrize("inside", [*STRANGE, "out", "../root_twin", "scans/../..", "nothing"])
def test_no_path_leads_out_of_a_root(photos, inside):
    roots = Roots.of([photos])
    for is_new in (False, True):
        try:
            found = roots.find("root", inside, is_new)
        except UsageError:
            continue
        assert found.resolve() == found and found.is_relative_to(photos)
        assert (".." not in found.parts and not is_new) or found != photos
    with pytest.raises(UsageError):
        roots.find(inside, "scans")


@pytest.mark.parametrize("inside", ["..", "/etc", "out", "../root_twin", "a\0b", ".hidden", "~"])
def test_the_api_keeps_to_its_roots(client, inside):
    for answer in (
        client.get("/v1/folders", params={"root": "root", "folder": inside}),
        client.get("/v1/folders", params={"root": inside}),
        client.post("/v1/batch", json={"root": "root", "folder": inside, "out": "new"}),
    ):
        assert answer.status_code == 422, answer.text
    if inside != "~":  # a folder may be called so
        asked = {"root": "root", "folder": "scans", "out": inside}
        assert client.post("/v1/batch", json=asked).status_code == 422


@pytest.mark.parametrize("name", STRANGE)
def test_no_name_leads_out_of_a_job(client, name):
    answer = post(client, "scratches", name=name or "x")
    job = ended(client, answer)
    kept = client.state_folder / "jobs" / job["id"]
    files = [path for path in kept.rglob("*") if path.is_file()]
    assert all(path.resolve().is_relative_to(kept.resolve()) for path in files)
    assert len(list((kept / "in").iterdir())) == 1
    assert not job["name"].startswith(".") and not set("/\\\n\0<>") & set(job["name"])
    asked = [
        client.get(f"/v1/jobs/{job['id']}/result", params={"name": name or "x"}),
        client.get(f"/v1/jobs/{job['id']}/view/{quote(name, safe='')}x"),
        client.get(f"/v1/jobs/{quote(name, safe='')}x/result"),
        client.get(f"/page/{quote(name, safe='')}x"),
    ]
    assert {answer.status_code for answer in asked} == {404}


def test_what_is_wrong_is_named(client):
    for request, code, error in [
        ({"upscale": {"scael": 2}}, "CONFIG", "did you mean 'scale'"),
        ({"upscale": {"scale": 99}}, "CONFIG", "upscale.scale must be less than or equal to 16"),
        ({"model": "/etc/passwd"}, "USAGE", "there is no '/etc/passwd'; there are nano"),
        ({"model": "../nano"}, "USAGE", "there is no '../nano'"),
        ({"upscale": {"scale": 16, "steps": 1}, "seed": -1}, "CONFIG", "seed must be"),
    ]:
        answer = post(client, "upscale", request=request)
        assert (answer.status_code, answer.json()["code"]) == (422, code)
        assert error in answer.json()["error"]
    answer = client.post(
        "/v1/upscale", files={"image": ("a.png", picture())}, data={"request": "{"}
    )
    assert answer.status_code == 422
    for image in (b"<svg/>", picture()[:30], b""):
        answer = post(client, "upscale", image)
        assert answer.status_code == 422, answer.text
        assert answer.json()["code"] in ("UNSUPPORTED", "TRUNCATED", "NOT_IMAGE", "CORRUPT")
    assert post(client, "inpaint").json()["error"].startswith("inpaint needs a mask")
    assert post(client, "img2img", mask=picture()).json()["error"] == "img2img takes no mask"
    assert client.post("/v1/text2img", json={"text2img": {"stesp": 1}}).status_code == 422
    assert client.post("/v1/upscale").json()["error"].startswith("request: image: ")
    assert client.get("/v1/jobs/nothing").status_code == 404


def test_a_failed_job_says_why(client):
    truncated = picture(64, 64)[:-40]  # its header is sound
    job = ended(client, post(client, "upscale", truncated))
    assert (job["status"], job["code"]) == ("failed", "TRUNCATED")
    assert client.get(f"/v1/jobs/{job['id']}/result").status_code == 404


def test_what_is_too_large_is_refused(client):
    answer = post(client, "upscale", picture(300, 300))  # 1.44 million at scale 4
    assert (answer.status_code, answer.json()["code"]) == (413, "TOO_LARGE")
    answer = client.post("/v1/text2img", json={"text2img": {"width": 4000, "height": 4000}})
    assert answer.status_code == 413
    bomb = io.BytesIO()
    Image.new("1", (40000, 4000)).save(bomb, "PNG")
    assert post(client, "upscale", bomb.getvalue()).status_code == 413
    body = b"x" * (RULES.body + 1)
    assert client.post("/v1/upscale", content=body).status_code == 413

    def endless():
        head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
        yield head
        for _ in range(40):
            yield b"x" * 2**20

    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = client.post("/v1/upscale", content=endless(), headers=kind)
    assert (answer.status_code, answer.json()["code"]) == (413, "TOO_LARGE")
    assert client.get("/health").json() == {"status": "ok"}


def test_what_the_server_takes_is_told(client):
    told = client.get("/v1/limits").json()
    assert told == {"jobs": 32, "body": 2**28, "megapixels": 1}


def test_a_job_in_hand_can_be_cancelled(client):
    job_id = post(client, "upscale", picture(240, 240), {"upscale": {"steps": 50}}).json()["id"]
    waiting = post(client, "upscale").json()["id"]
    until(client, job_id, ["running"])
    assert client.get(f"/v1/jobs/{waiting}").json()["position"] == 1
    assert client.delete(f"/v1/jobs/{job_id}").status_code == 422
    began = time.monotonic()
    client.post(f"/v1/jobs/{job_id}/cancel")
    assert until(client, job_id, ENDED)["status"] == "cancelled"
    assert time.monotonic() - began < 30
    out = client.state_folder / "jobs" / job_id / "out"
    assert not [path for path in out.iterdir() if path.suffix == ".png"]
    assert until(client, waiting, ENDED)["status"] == "done"
    assert client.delete(f"/v1/jobs/{job_id}").status_code == 204
    assert client.get(f"/v1/jobs/{job_id}").status_code == 404
    assert not out.exists()


def test_a_job_is_told_as_it_goes(client):
    job_id = post(client, "upscale").json()["id"]
    with client.stream("GET", f"/v1/jobs/{job_id}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        told = [json.loads(line[6:]) for line in answer.iter_lines() if line]
    assert told[-1]["status"] == "done"
    assert all(one["id"] == job_id for one in told)


def test_a_job_that_waits_is_told_again_before_a_proxy_gives_up(tmp_path, monkeypatch):
    monkeypatch.setattr("restore.web.api.QUIET_S", 0.1)
    monkeypatch.setattr("restore.web.api.EVENT_S", 0.05)
    server = Mock()
    server.describe.return_value.model_dump_json.return_value = "{}"
    server.store.get.side_effect = [Mock(status="queued")] * 12 + [None]

    async def told():
        return [text async for text in stream_changes(server, "id")]

    assert len(asyncio.run(told())) > 2


def test_a_job_keeps_the_model_that_was_the_first_when_it_was_sent(tmp_path):
    app = create_app(tmp_path, RULES, Models(), Roots(), Limits())
    client = TestClient(app, base_url=HERE)  # its worker is not started
    job = post(client, "upscale").json()
    kept = json.loads((tmp_path / "jobs" / job["id"] / "job.json").read_text(encoding="utf-8"))
    assert kept["asked"]["model"] == "nano"


def test_figures_are_there_for_prometheus(client):
    ended(client, post(client, "scratches"))
    lines = client.get("/metrics").text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert float(values['restore_jobs{kind="scratches",status="done"}']) >= 1
    assert values["restore_worker_alive"] == "1"
    assert client.head("/health").status_code == 200
    assert float(values["process_resident_memory_bytes"]) > 1e6


def test_a_head_tells_what_a_get_would_bring(client):
    job = ended(client, post(client, "scratches"))
    for path in ("/", "/page/app.js", f"/v1/jobs/{job['id']}/result"):
        asked, whole = client.head(path), client.get(path)
        assert (asked.status_code, asked.content) == (200, b"") and whole.content
        for name in ("content-length", "content-type"):
            assert asked.headers[name] == whole.headers[name]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"host": "localhost:7860"}, 200),
        ({"host": "[::1]:7860"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": "127.0.0.1.evil.example"}, 403),
        ({"host": "127.0.0.1@evil.example"}, 403),
        ({"host": "[bad"}, 403),
        ({"origin": "http://[bad"}, 403),
        ({"origin": HERE}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:9999"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
    ],
)
def test_another_site_may_not_ask(client, headers, status):
    assert client.get("/v1/models", headers=headers).status_code == status
    if status == 403:
        assert client.post("/v1/text2img", json={}, headers=headers).status_code == 403


def test_elsewhere_a_token_is_needed(tmp_path):
    rules = replace(RULES, host="0.0.0.0", token="very-secret")
    app = create_app(tmp_path, rules, Models(), Roots(), Limits())
    client = TestClient(app, base_url="http://photos.example:7860")  # its worker is not started
    assert client.get("/v1/models").status_code == 401
    assert client.get("/v1/openapi.json").status_code == 401
    assert client.post("/v1/text2img", json={}).status_code == 401
    assert client.get("/").status_code == 401
    assert client.get("/page/app.js").status_code == 401
    wrong = client.get("/?token=wrong")
    assert (wrong.status_code, "That is not the token" in wrong.text) == (401, True)
    assert "That is not" not in client.get("/").text
    assert client.get("/v1/models", headers={"Authorization": "Bearer wrong"}).status_code == 401
    bearer = {"Authorization": "Bearer very-secret"}
    assert client.get("/v1/models", headers=bearer).status_code == 200
    entered = client.get("/", params={"token": "very-secret"}, follow_redirects=False)
    assert (entered.status_code, entered.headers["location"]) == (303, "./")
    for word in ("HttpOnly", "SameSite=strict"):
        assert word in entered.headers["set-cookie"]
    assert client.get("/v1/models").status_code == 200  # by its cookie
    foreign = client.get("/v1/models", headers={"origin": "http://evil.example"})
    assert foreign.status_code == 403


def test_two_servers_of_one_host_do_not_log_each_other_out(tmp_path):
    jar = httpx2.Cookies()
    clients = []
    for port in (7860, 7861):
        rules = replace(RULES, host="0.0.0.0", token=f"secret{port}")
        app = create_app(tmp_path / str(port), rules, Models(), Roots(), Limits())
        client = TestClient(app, base_url=f"http://photos.example:{port}", cookies=jar)
        entered = client.get("/", params={"token": f"secret{port}"}, follow_redirects=False)
        jar.update(entered.cookies)
        clients.append(client)
    for client in clients:
        client.cookies = jar
        assert client.get("/v1/models").status_code == 200


def test_a_proxy_may_call_it_by_name(tmp_path):
    rules = replace(RULES, token="secret", names=frozenset(["photos.example"]))
    client = TestClient(create_app(tmp_path, rules, Models(), Roots(), Limits()), base_url=HERE)
    asked = {"Authorization": "Bearer secret"}
    for host, status in [("photos.example", 200), ("localhost", 200), ("evil.example", 403)]:
        answer = client.get("/v1/models", headers={**asked, "host": host})
        assert answer.status_code == status


def test_a_full_disk_is_told(client, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    answer = post(client, "scratches")
    assert (answer.status_code, answer.json()["code"]) == (507, "DISK_FULL")


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOSPC, "DISK_FULL"), (errno.ENOENT, "OUTPUT")]
)
def test_a_folder_for_uploads_without_room_is_no_fault_of_the_client(
    client, monkeypatch, number, code
):
    def full(*_, **__):
        raise OSError(number, "no room, or no folder")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", full)
    answer = post(client, "scratches", image=bytes(2**21))
    assert (answer.status_code, answer.json()["code"]) == (507, code)


def test_what_was_deleted_or_broke_is_told_as_any_error(client, monkeypatch):
    job = ended(client, post(client, "scratches"))
    shutil.rmtree(client.state_folder / "jobs" / job["id"])
    for route in ("result", "view/before"):
        answer = client.get(f"/v1/jobs/{job['id']}/{route}")
        assert (answer.status_code, answer.json()["code"]) == (404, "MISSING")
    monkeypatch.setattr("restore.web.metrics.render", lambda *_: 1 / 0)
    answer = client.get("/metrics")
    assert (answer.status_code, answer.json()["code"]) == (500, "INTERNAL")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_an_upload_that_falls_silent_gives_its_place_to_others(monkeypatch):
    async def app(scope, receive, send):
        try:
            while True:
                await receive()
        except HTTPException as error:
            told.append(error)

    async def receive():
        await asyncio.sleep(10)

    monkeypatch.setattr("restore.web.guard.SILENCE_S", 0.05)
    told, guarded = [], Guard(app, replace(RULES, uploads=1), lambda: False)
    headers = [(b"host", b"localhost:7860")]
    scope = {"type": "http", "method": "POST", "path": "/v1/upscale", "headers": headers}
    asyncio.run(guarded(scope, receive, None))
    assert [error.status_code for error in told] == [408]
    assert guarded.receiving == 0


def test_a_full_queue_takes_no_more(tmp_path):
    app = create_app(tmp_path, RULES, Models(), Roots(), Limits(jobs=5))
    client = TestClient(app, base_url=HERE)  # its worker is not started: nothing is taken away
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: post(client, "scratches"), range(100)))
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) == {202, 429}
    assert statuses.count(202) == 5
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert (refused.json()["code"], refused.headers["retry-after"]) == ("FULL", "5")
    assert len(list((tmp_path / "jobs").iterdir())) == 5
    assert client.get("/health").status_code == 503  # and says so


def test_the_page_asks_nothing_of_others(client):
    page = client.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    names = [
        "app.js",
        "jobs.js",
        "dom.js",
        "adapters.js",
        "viewer.js",
        "brush.js",
        "style.css",
        "icon.svg",
    ]
    for path in ["/", *(f"/page/{name}" for name in names)]:
        answer = client.get(path)
        assert answer.status_code == 200
        assert answer.headers["x-content-type-options"] == "nosniff"
        text = answer.text.replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text and "https:" not in text
        assert "innerHTML" not in text


def test_every_route_answers_nonsense_without_an_error_of_ours(client):
    spec = client.get("/v1/openapi.json").json()
    assert {"/v1/upscale", "/v1/inpaint", "/v1/img2img", "/v1/text2img"} <= spec["paths"].keys()
    assert spec["paths"]["/v1/upscale"]["post"]["x-request-schema"]["title"] == "UpscaleRequest"
    bodies = [{}, {"json": []}, {"json": {"seed": 2**70}}, {"content": b"\xff\xfe\0"}]
    bodies += [{"files": {"image": ("a", b"\0" * 9)}, "data": {"request": "[1e999]"}}]
    bodies += [{"files": {"image": ("a", b"x")}, "data": {"request": '{"seed": "\\ud800"}'}}]
    bodies += [{"content": b'{"\\ud800": 1}', "headers": {"Content-Type": "application/json"}}]
    head = b'Content-Disposition: form-data; name="image"; filename="\xff\xfe"'
    form = b"--b\r\n" + head + b"\r\n\r\nx\r\n--b--"
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    bodies += [{"content": form, "headers": kind}]
    for path, methods in spec["paths"].items():
        for method in methods:
            for word in ("x", "\0", "é" * 50, "%00", "%ff%fe"):
                url = path.replace("{job_id}", word).replace("{name}", word)
                for body in bodies if method == "post" else [{}]:
                    answer = client.request(method, url.replace("\0", "%00"), **body)
                    assert answer.status_code < 500, (method, url, body, answer.text)


def test_the_client_of_the_documents_works(client, monkeypatch):
    page = (ROOT / "docs/tutorials/page.md").read_text(encoding="utf-8")
    block = page.partition("```python\n")[2].partition("```")[0]
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(httpx2, "Client", lambda base_url: client)
    space = {}
    exec(compile(block, "page.md", "exec"), space)
    assert Image.open(io.BytesIO(space["large"])).size == (256, 324)


def tiff(*sizes) -> bytes:
    pages, file = [Image.fromarray(smooth_pixels(*size)) for size in sizes], io.BytesIO()
    pages[0].save(file, "TIFF", save_all=True, append_images=pages[1:])
    return file.getvalue()


def test_every_picture_and_frame_keeps_to_the_limit(client, photos):
    pages = tiff((20, 20), (600, 500))
    asked = {"pictures": {"frames": "all"}, "upscale": {"scale": 2}}
    job = ended(client, post(client, "upscale", pages, asked, "pages.tif"))
    assert (job["status"], job["code"]) == ("failed", "TOO_LARGE")
    assert "1000x1200 pixels; at most 1 million" in job["error"]
    folder = photos / "large"
    folder.mkdir()
    (folder / "a.png").write_bytes(picture(300, 300))
    (folder / "b.png").write_bytes(picture(12, 9))
    asked = {"root": "root", "folder": "large", "out": "large_out"}
    job = ended(client, client.post("/v1/batch", json=asked))
    assert (job["tally"]["done"], job["tally"]["failed"]) == (2, 1)
    assert job["tally"]["failures"][0].startswith("a.png: the result would have 1200x1200")
    assert post(client, "scratches", picture(1100, 1000)).status_code == 413


def test_a_folder_is_not_its_own_output_and_no_path_is_told(client, photos):
    asked = {"root": "root", "folder": "scans", "out": "scans"}
    answer = client.post("/v1/batch", json=asked)
    assert answer.status_code == 422 and "out: is the folder of the pictures" in answer.text
    (photos / "empty").mkdir()
    answer = client.post("/v1/batch", json={**asked, "folder": "empty"})
    assert answer.status_code == 422 and "root/empty: no picture here" in answer.text
    assert str(photos) not in answer.text


def test_uploads_of_any_names_have_names_of_their_own(client):
    names = ["a.png", "2_a.png", "a.png", "a.png", "2_a.png"]
    files = [("image", (name, picture(seed=n))) for n, name in enumerate(names)]
    asked = {"recipe": "bsrgan", "columns": 1, "crop": 16}
    answer = client.post("/v1/sheet", files=files, data={"request": json.dumps(asked)})
    assert ended(client, answer)["status"] == "done"


@pytest.mark.parametrize("kind", ["sheet", "estimate"])
def test_jobs_of_many_photos_are_cancelled_between_two(client, kind, monkeypatch):
    """The third photo is not reached."""
    seen, job_id, real = [], [""], Recipe.degrade

    def begin() -> None:
        seen.append(1)
        while not job_id[0]:
            time.sleep(0.01)
        if len(seen) == 2:
            client.post(f"/v1/jobs/{job_id[0]}/cancel")

    def degrade(self, *given, **named):
        begin()
        return real(self, *given, **named)

    def measure(function, path):
        begin()
        return "not measured"

    monkeypatch.setattr(Recipe, "degrade", degrade)
    monkeypatch.setattr("restore.web.tasks._apart", measure)
    files = [("image", (f"{n}.png", picture())) for n in range(6)]
    asked = {"recipe": "bsrgan", "columns": 1, "crop": 16} if kind == "sheet" else {}
    answer = client.post(f"/v1/{kind}", files=files, data={"request": json.dumps(asked)})
    job_id[0] = answer.json()["id"]
    assert ended(client, answer)["status"] == "cancelled"
    assert len(seen) == 2
