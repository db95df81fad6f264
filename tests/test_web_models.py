"""The models of a server: their scales and limits, and files that change while it runs."""

import shutil
from importlib.util import find_spec

import diffusers
import numpy as np
import pixel_nets
import pytest
import tiny
import torch
from PIL import Image
from safetensors.torch import save_file
from starlette.testclient import TestClient
from test_web import HERE, RULES, ended, picture, post

from restore.batch.models import open_model
from restore.checkpoints import engines, library, model_paths
from restore.errors import ModelError, UsageError
from restore.web.adapters import Adapters
from restore.web.api import create_app
from restore.web.models import TASKS, Models
from restore.web.requests import Img2imgRequest, UpscaleRequest
from restore.web.roots import Roots
from restore.web.server import Limits

needs_spandrel = pytest.mark.skipif(not find_spec("spandrel"), reason="the extra pixel")


@pytest.fixture
def eightfold(tmp_path):
    """The .pth of an upscaler that enlarges by 8."""
    pixel_nets.kinds()
    from spandrel.architectures import Compact

    state = Compact.Compact(num_feat=8, num_conv=1, upscale=8).state_dict()
    torch.save({"params": state}, tmp_path / "x8.pth")
    return tmp_path / "x8.pth"


@needs_spandrel
def test_without_a_scale_the_limit_is_that_of_the_models_own(eightfold, tmp_path):
    library.add("two", pixel_nets.save(tmp_path, "SPAN"))
    library.add("eight", eightfold)
    models = Models([str(eightfold)], "cpu")
    app = create_app(tmp_path / "state", RULES, models, Roots(), Limits(megapixels=1))
    with TestClient(app, base_url=HERE) as client:
        allowed = post(client, "upscale", picture(280, 270), {"model": "two"})
        assert ended(client, allowed)["size_out"] == [560, 540]
        known = post(client, "upscale", picture(200, 190), {"model": "eight"})
        assert (known.status_code, known.json()["code"]) == (413, "TOO_LARGE")
        asked = {"model": "eight", "upscale": {"scale": 1}}
        assert ended(client, post(client, "upscale", picture(40, 30), asked))["status"] == "done"
        job = ended(client, post(client, "upscale", picture(200, 190), {"model": "x8.pth"}))
        assert (job["status"], job["code"]) == ("failed", "TOO_LARGE")


def test_a_users_file_offers_the_tasks_of_what_it_holds():
    folder = model_paths.user_folder()
    folder.mkdir(parents=True)
    save_file({"model.diffusion_model.a": torch.zeros(1)}, folder / "sd.safetensors")
    save_file({"conv.weight": torch.zeros(1)}, folder / "net.safetensors")
    listed = {one["name"]: one for one in Models(device="cpu").list_models()}
    assert listed["sd"]["tasks"] == TASKS and listed["sd"]["takes"] == ["lora", "controlnet"]
    assert listed["net"]["tasks"] == ["upscale"] and listed["net"]["takes"] == []
    assert listed["net"]["about"] == ""  # not a scale that nobody knows


@needs_spandrel
def test_a_model_that_is_replaced_is_loaded_again(tmp_path):
    models = Models(device="cpu")
    library.add("my", pixel_nets.save(tmp_path, "SPAN"))
    choice = models.choose(UpscaleRequest(model="my"))
    first = models.open(choice)
    assert models.open(choice).stack() is first.stack()
    library.remove("my")
    library.add("my", pixel_nets.save(tmp_path, "PLKSR"))
    second = models.open(choice)
    assert second.weights == open_model("my", "cpu").weights != first.weights
    assert second.stack().about["architecture"] != first.stack().about["architecture"]
    library.remove("my")
    with pytest.raises(ModelError, match="my"):
        models.open(choice)


@pytest.fixture
def steered(tmp_path):
    """A server's models with Stable Diffusion and a ControlNet."""
    folder = tiny.checkpoint(tmp_path / "sd", "base")
    unet = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet")
    tiny.controlnet(tmp_path / "net", unet)
    return Models([str(folder)], "cpu", adapters=Adapters.of([], [tmp_path / "net"]))


def test_another_guide_loads_nothing_and_is_the_command_lines(steered, tmp_path, monkeypatch):
    loads, real = [], engines.load

    def load(*given, **named):
        loads.append(given)
        return real(*given, **named)

    monkeypatch.setattr(engines, "load", load)
    given = Img2imgRequest(model="sd", controlnet="net")
    plain = steered.open(steered.choose(given))
    assert plain.stack().control.picture is None
    for level in (10, 200):
        image = tmp_path / "guide.png"
        Image.new("RGB", (8, 6), (level,) * 3).save(image)
        choice = steered.choose(given, image)
        opened, wanted = steered.open(choice), choice.open()
        assert opened.weights == wanted.weights == opened.stack().digest
        assert opened.steered["controlnet_sha256"] == wanted.steered["controlnet_sha256"]
        assert np.all(opened.stack().control.picture.pixels == level)
        assert opened.stack().unet is plain.stack().unet
    assert plain.stack().control.picture is None
    assert len(loads) == 1


def test_a_controlnet_that_is_overwritten_is_loaded_again(steered, tmp_path):
    choice = steered.choose(Img2imgRequest(model="sd", controlnet="net"))
    first = steered.open(choice)
    assert steered.open(choice).stack is first.stack
    file = next((tmp_path / "net").glob("*.safetensors"))
    shutil.copy(file, tmp_path / "copy")
    (tmp_path / "copy").replace(file)
    assert steered.open(choice).stack is not first.stack


def test_models_of_one_name_and_missing_ones_are_refused():
    with pytest.raises(UsageError, match="another model is called 'net'"):
        Models(["x/net", "y/net"])
    Models(["nano", "nano", "org/name"]).require_given()
    for name in ("/does/not/exist", "folder/x.safetensors", model_paths.FAITHFUL + "x"):
        with pytest.raises(ModelError, match="no such model"):
            Models([name]).require_given()
