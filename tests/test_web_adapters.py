"""LoRAs and ControlNets over HTTP: named, never by a path; what is made is the command line's."""

import io
import json

import diffusers
import numpy as np
import pixel_nets
import pytest
import tiny
import torch
from PIL import Image
from starlette.testclient import TestClient
from test_web import HERE, RULES, ended, picture, post, result

from restore import cli
from restore.batch.models import parse_lora
from restore.errors import UsageError
from restore.web.adapters import Adapters
from restore.web.api import create_app
from restore.web.models import Models, adapters_of
from restore.web.roots import Roots
from restore.web.server import Limits

peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:Already found a `peft_config`")  # theirs


@pytest.fixture(scope="module")
def top(tmp_path_factory):
    """A checkpoint, a ControlNet for it, and a folder of two LoRAs."""
    top = tmp_path_factory.mktemp("adapters")
    folder = tiny.checkpoint(top / "sd", "base")
    tiny.controlnet(top / "tile", diffusers.UNet2DConditionModel.from_pretrained(folder / "unet"))
    (top / "loras").mkdir()
    for seed, name in enumerate(["film", "ink"]):
        pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder)
        config = peft.LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"])
        peft.inject_adapter_in_model(config, pipe.unet)
        torch.manual_seed(seed)
        for key, weight in pipe.unet.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(weight, std=0.5)
        layers = peft.get_peft_model_state_dict(pipe.unet)
        pipe.save_lora_weights(
            top / "loras", unet_lora_layers=layers, weight_name=f"{name}.safetensors"
        )
    (top / "loras" / ".hidden.safetensors").write_bytes(b"")
    (top / "loras" / "notes.txt").write_text("no LoRA")
    return top


@pytest.fixture(scope="module")
def client(top, tmp_path_factory):
    adapters = Adapters.of([top / "loras"], [top / "tile"])
    models = Models([str(top / "sd")], "cpu", adapters=adapters)
    app = create_app(tmp_path_factory.mktemp("state"), RULES, models, Roots(), Limits())
    with TestClient(app, base_url=HERE, raise_server_exceptions=False) as made:
        yield made


def pixels_of(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def form(client, request, control=None, kind="upscale"):
    files = [("image", ("photo.png", picture()))] if kind != "text2img/form" else []
    files += [("control_image", ("guide.png", control))] if control else []
    return client.post(f"/v1/{kind}", files=files, data={"request": json.dumps(request)})


def test_what_may_be_named_is_listed(client):
    assert client.get("/v1/adapters").json() == {"loras": ["film", "ink"], "controlnets": ["tile"]}
    takes = {one["name"]: one["takes"] for one in client.get("/v1/models").json()}
    assert takes["sd"] == ["lora", "controlnet"] and takes["nano"] == ["lora"]


def test_the_bytes_are_the_command_lines(client, top, tmp_path):
    """A model that enlarges by its ControlNet, with two LoRAs."""
    asked = {"model": "sd", "lora": ["film=0.8", "ink"], "seed": 2}
    asked |= {"controlnet": "tile", "controlnet_scale": 0.7}
    asked |= {"upscale": {"scale": 2, "steps": 2}}
    job = ended(client, form(client, asked))
    assert job["status"] == "done", job
    source, out = tmp_path / "photo.png", tmp_path / "out"
    source.write_bytes(picture())
    words = ["--model", str(top / "sd"), "--device", "cpu", "-s", "2", "--steps", "2"]
    words += ["--lora", f"{top / 'loras' / 'film.safetensors'}=0.8", "--seed", "2"]
    words += ["--lora", str(top / "loras" / "ink.safetensors")]
    words += ["--controlnet", str(top / "tile"), "--controlnet-scale", "0.7"]
    assert cli.main(["upscale", str(source), "-o", str(out), *words]) == 0
    assert result(client, job) == (out / "photo.png").read_bytes()


def test_a_loras_weight_counts_and_a_guide_is_looked_at(client):
    common = {"text2img": {"steps": 2, "width": 32, "height": 32, "prompt": "x"}, "model": "sd"}
    plain = ended(client, client.post("/v1/text2img", json=common))
    made = {"plain": pixels_of(result(client, plain))}
    for name, lora in [("none", ["film=0"]), ("half", ["film=0.5"]), ("two", ["film=0.5", "ink"])]:
        job = ended(client, client.post("/v1/text2img", json={**common, "lora": lora}))
        made[name] = pixels_of(result(client, job))
    assert np.array_equal(made["plain"], made["none"])
    for one, other in [("none", "half"), ("half", "two")]:
        assert not np.array_equal(made[one], made[other])
    guided = {**common, "controlnet": "tile"}
    for seed in (1, 2):
        job = ended(client, form(client, guided, picture(20, 20, seed), "text2img/form"))
        assert job["status"] == "done", job
        made[seed] = pixels_of(result(client, job))
    assert not np.array_equal(made[1], made[2])
    told = Image.open(io.BytesIO(result(client, job))).text  # what made it, without our folders
    assert "guide.png" in str(told) and "tile" in str(told) and "/" not in str(told["restore"])


@pytest.mark.parametrize(
    ("request_", "control", "error"),
    [
        ({"lora": ["../film"]}, None, "request: lora: there is no '../film'; there are film, ink"),
        ({"lora": ["/etc/passwd=1"]}, None, "there is no '/etc/passwd'"),
        ({"lora": [".hidden"]}, None, "there is no '.hidden'"),
        ({"lora": ["film=much"]}, None, "--lora film=much: write FILE=SCALE"),
        ({"lora": ["film=nan"]}, None, "--lora film=nan: write FILE=SCALE"),
        ({"lora": ["film"] * 9}, None, "lora"),
        (
            {"controlnet": "../tile"},
            None,
            "controlnet: there is no '../tile'; there are tile",
        ),
        ({"controlnet": "tile", "controlnet_scale": 11}, None, "controlnet_scale must be"),
        ({"controlnet_scale": 0.5}, None, "--controlnet-scale 0.5: is for a ControlNet"),
        ({}, picture(), "--control-image guide.png: is for a ControlNet; give --controlnet"),
        ({"controlnet": "tile"}, b"no picture", "guide.png"),
    ],
)
def test_what_cannot_be_is_refused(client, request_, control, error):
    answer = form(client, request_, control)
    assert answer.status_code == 422, answer.text
    assert error in answer.json()["error"]
    assert "/adapters" not in answer.json()["error"] and "/state" not in answer.json()["error"]


def test_tasks_without_a_picture_need_one_for_the_controlnet(client):
    answer = client.post("/v1/text2img", json={"controlnet": "tile"})
    said = "with a ControlNet needs its picture: --control-image FILE"
    assert (answer.status_code, answer.json()["error"]) == (422, f"text2img {said}")
    mask = io.BytesIO()
    Image.fromarray(np.full((24, 32), 255, np.uint8)).save(mask, "PNG")
    answer = post(client, "inpaint", request={"controlnet": "tile"}, mask=mask.getvalue())
    assert answer.json()["error"] == f"inpaint {said}"
    files = [("image", ("a.png", picture())), ("control_image", ("b.png", picture()))]
    assert client.post("/v1/scratches", files=files).json()["error"].endswith("no control_image")


def test_models_that_take_none_say_what_the_command_line_says(
    client, top, tmp_path, capsys, monkeypatch
):
    lora = top / "loras" / "film.safetensors"
    (tmp_path / "a.png").write_bytes(picture())
    words = ["upscale", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "--lora", str(lora)]
    assert cli.main([*words, "--model", "nano", "--steps", "1"]) != 0
    said = capsys.readouterr()
    asked = {"model": "nano", "lora": ["film"], "upscale": {"steps": 1}}
    job = ended(client, form(client, asked))
    assert job["status"] == "failed"
    assert job["error"].replace("film: ", f"{lora}: ", 1) in said.err + said.out
    monkeypatch.setenv("RESTORE_MODELS", str(tmp_path / "own"))
    (tmp_path / "own").mkdir()
    made = pixel_nets.save(tmp_path, "SPAN")
    made.rename(tmp_path / "own" / "span.safetensors")
    assert cli.main([*words, "--model", "span"]) != 0
    said = capsys.readouterr()
    answer = form(client, {"model": "span", "lora": ["film"]})
    assert answer.status_code == 422
    assert answer.json()["error"] == "--lora: span is a pixel upscaler, one network; leave it out"
    assert answer.json()["error"] in said.err + said.out
    assert adapters_of("span") == []


def test_the_users_folder_is_a_source_too(top, tmp_path, monkeypatch):
    monkeypatch.setenv("RESTORE_MODELS", str(tmp_path))
    assert Adapters().list_loras() == {} == Adapters().list_controlnets()
    (tmp_path / "loras" / "saved").mkdir(parents=True)
    (tmp_path / "loras" / "one.safetensors").write_bytes(b"")
    (tmp_path / "loras" / "saved" / "pytorch_lora_weights.safetensors").write_bytes(b"")
    (tmp_path / "controlnets").mkdir()
    (tmp_path / "controlnets" / "tile").symlink_to(top / "tile")
    assert [*Adapters().list_loras()] == ["one", "saved"]
    assert [*Adapters().list_controlnets()] == ["tile"]
    assert [*Adapters.of([tmp_path / "loras" / "saved"], []).list_loras()] == ["one", "saved"]
    for loras, nets in [([tmp_path / "none"], []), ([], [tmp_path]), ([top / "sd"], [])]:
        with pytest.raises(UsageError, match=r"--(lora|controlnet) "):
            Adapters.of(loras, nets)


def test_a_lora_and_its_scale_are_parsed():
    assert parse_lora("a.safetensors") == ("a.safetensors", 1)
    assert parse_lora("a=b.safetensors=-0.5") == ("a=b.safetensors", -0.5)
    for wrong in ("a=x", "a=inf", "a=nan", "a="):
        with pytest.raises(UsageError, match="write FILE=SCALE"):
            parse_lora(wrong)
    for wrong in ("a:0.8", "<lora:a:0.8>"):
        with pytest.raises(UsageError, match=r"write a=0\.8$"):
            parse_lora(wrong)
    assert parse_lora(r"C:\loras\a.safetensors") == (r"C:\loras\a.safetensors", 1)
