"""The Python face in programs of others: their folders, defaults of torch, and pictures."""

import io
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import restore
from restore.checkpoints import model_paths
from restore.errors import UsageError
from restore.images.arrays import to_picture

QUICK = {"steps": 2, "guidance": 1}
NOTHING = np.zeros((12, 16), np.uint8)


@pytest.fixture(scope="module")
def nano():
    made = restore.load("nano", "cpu")
    assert made.stack.unet
    return made


@pytest.mark.parametrize("name", [".", "mine", Path("..") / "here" / "mine"])
def test_a_model_stays_the_same_when_the_program_changes_its_folder(
    tmp_path, monkeypatch, pixels, nano, name
):
    place = tmp_path / "here" / "mine"
    shutil.copytree(model_paths.SHIPPED / "nano", place)
    monkeypatch.chdir(place if name == "." else place.parent)
    mine = restore.load(name, "cpu")
    monkeypatch.chdir(tmp_path)
    made = mine.img2img(pixels(12, 16), **QUICK)  # loads the whole model
    assert np.array_equal(made, nano.img2img(pixels(12, 16), **QUICK))
    mine.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "photos.csv").is_file()


def test_another_default_device_changes_nothing(pixels, nano):
    def every_task(model):
        photo = pixels(12, 16)
        yield model.upscale(photo, 2, output_type="pt")
        yield model.upscale(photo, 1, steps=2, output_type="pt")
        yield model.inpaint(photo, NOTHING + 255, engine="model", output_type="pt", **QUICK)
        yield model.text2img("a", width=16, height=16, output_type="pt", **QUICK)

    wanted = list(every_task(nano))
    with torch.device("meta"):
        made = list(every_task(restore.load("nano", "cpu")))
        made += every_task(pickle.loads(pickle.dumps(nano)))
    for one, other in zip(made, wanted * 2, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [3, 4])
def test_a_result_is_never_the_array_that_was_given(pixels, nano, kind, channels):
    photo = np.dstack([pixels(12, 16)] * 2)[..., :channels].astype(kind)
    photo.flags.writeable = False
    for how in ({}, {"output_type": "np"}):
        made = nano.inpaint(photo, NOTHING, **how)
        assert made.flags.writeable and not np.shares_memory(made, photo)
    assert np.array_equal(nano.inpaint(photo, NOTHING), photo)


def test_a_model_is_told_in_a_line_and_may_be_a_key(nano, stack):
    assert repr(nano) == "<Restorer of nano: torch on cpu>"
    assert repr(restore.Restorer(stack)) == "<Restorer of this model: torch on cpu>"
    assert {nano: 1}[nano] == 1 and nano != restore.Restorer(nano.model)


def test_no_timestep_is_left_of_a_call_that_failed(pixels, nano):
    def fail(*given):
        raise KeyError("the caller's own")

    with pytest.raises(KeyError):
        nano.img2img(pixels(12, 16), callback=fail, **QUICK)
    seen = []
    nano.upscale(pixels(12, 16), 2, callback_on_step_end=lambda *given: seen.append(given[2]))
    assert seen == [0]


def opened(whole: bool) -> Image.Image:
    held = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)).save(
        held, "JPEG"
    )
    image = Image.open(io.BytesIO(held.getvalue()[: None if whole else 900]))
    if whole:
        image.close()
    return image


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (Image.new("RGB", (0, 4)), "0x4 px has no pixels"),
        (opened(whole=True), "cannot read: .*; open it again"),
        (opened(whole=False), "truncated"),
        (torch.zeros(16, 12, 3), r"\(16, 12, 3\): a picture is \(1, H, W\), \(3, H, W\)"),
        (np.zeros((3, 12, 16), np.uint8), r"\(3, 12, 16\): a picture is \(H, W\)"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_own_shape(image, told):
    with pytest.raises(UsageError, match=told):
        to_picture(image)


def test_premultiplied_grey_is_a_picture():
    image = Image.new("LA", (3, 4), (200, 255)).convert("La")
    assert to_picture(image).grey and (to_picture(image).pixels == 200).all()
