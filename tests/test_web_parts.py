"""What a request holds beside what is read is refused, in words that name the mend."""

import json

import pytest
from starlette.testclient import TestClient
from test_web import HERE, RULES, picture

from restore.web.api import create_app
from restore.web.models import Models
from restore.web.roots import Roots
from restore.web.server import Limits

JSON = {"content-type": "application/json"}
IMAGE = ("image", ("a.png", picture()))


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """Its worker is not started: jobs stay as they are."""
    app = create_app(tmp_path_factory.mktemp("state"), RULES, Models(), Roots(), Limits())
    return TestClient(app, base_url=HERE)


@pytest.mark.parametrize(
    "path, sent, error",
    [
        ("upscale", {"files": [IMAGE], "data": {"scale": "2"}}, "'scale' is no part of this form"),
        ("upscale?scale=2", {"files": [IMAGE]}, "?scale=: options stand in the request's JSON"),
        ("upscale", {"files": [IMAGE, IMAGE]}, "image: 1 at most, not 2"),
        ("estimate", {"files": [IMAGE] * 65}, "image: 64 at most, not 65"),
        ("sheet", {"files": [IMAGE, ("mask", ("m.png", picture()))]}, "'mask' is no part"),
        ("upscale", {"files": [IMAGE], "data": {"request": ["{}", "{}"]}}, "request: 1 at most"),
        ("upscale", {"files": [IMAGE, ("request", ("r.json", b"{}"))]}, "request: is a file;"),
        ("upscale", {"data": {"image": "a.png"}}, "image: is text, not a file; curl sends one"),
        ("upscale", {"json": {"image": "a.png"}}, "send a form, multipart/form-data, not app"),
        ("text2img/form", {"files": [("control_image", IMAGE[1]), IMAGE]}, "'image' is no part"),
        ("text2img", {"data": {"prompt": "fog"}}, "send JSON as Content-Type: application/json"),
        ("text2img", {"content": '{"a":', "headers": JSON}, "is no JSON: Expecting value, at char"),
        ("upscale", {"files": [IMAGE], "data": {"request": "{a"}}, "request: Invalid JSON: key"),
        ("batch?scale=2", {"json": {"root": "r", "out": "o"}}, "?scale=: options stand in"),
    ],
)
def test_what_nobody_reads_is_refused(client, path, sent, error):
    answer = client.post(f"/v1/{path}", **sent)
    assert answer.status_code == 422
    assert error in answer.json()["error"]


def test_what_is_read_is_taken(client):
    for kind, files in [("upscale", [IMAGE, ("mask", IMAGE[1])]), ("estimate", [IMAGE] * 3)]:
        assert client.post(f"/v1/{kind}", files=files).status_code == 202
    many = {"files": [IMAGE] * 2, "data": {"request": json.dumps({"recipe": "old_photo"})}}
    assert client.post("/v1/sheet", **many).status_code == 202
    typed = {"content-type": "application/json; charset=utf-8"}
    assert client.post("/v1/text2img", content="{}", headers=typed).status_code == 202
