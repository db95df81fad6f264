"""The Python face: any kind of picture in, the same kind out; seeds, callbacks, one stack."""

import copy
import io
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import restore
from restore.api import Restorer
from restore.batch import mask_files
from restore.errors import ConfigError, ModelError, UsageError
from restore.images import picture
from restore.images.arrays import convert_like, to_mask, to_picture

ROOT = Path(__file__).resolve().parents[1]
QUICK = {"steps": 2, "guidance": 1}


@pytest.fixture
def restorer(stack):
    return Restorer(stack)


@pytest.fixture(scope="module")
def nano():
    return restore.load("nano", "cpu")


@pytest.fixture
def kinds(pixels):
    array = pixels(20, 26)
    return {
        "pil": Image.fromarray(array),
        "np": array,
        "pt": torch.from_numpy(array).permute(2, 0, 1) / 255,
    }


def as_float(image):
    if isinstance(image, Image.Image):
        return np.asarray(image) / 255
    if isinstance(image, torch.Tensor):
        return image.permute(1, 2, 0).numpy()
    return image / 255 if image.dtype == np.uint8 else image


def test_each_kind_comes_back_and_says_the_same(restorer, kinds):
    made = {name: restorer.upscale(image, 2) for name, image in kinds.items()}
    assert isinstance(made["pil"], Image.Image)
    assert made["np"].dtype == np.uint8
    assert made["pt"].dtype == torch.float32
    assert made["pt"].shape == (3, 40, 52)
    for one in made.values():
        for other in made.values():
            assert np.abs(as_float(one) - as_float(other)).max() <= 1 / 255


DEEP = np.linspace(0, 65535, 12 * 14, dtype=np.uint16).reshape(12, 14)
ANY = {
    "uint8": (DEEP >> 8).astype(np.uint8)[..., None].repeat(3, 2),
    "uint16": DEEP[..., None].repeat(3, 2),
    "big-endian": DEEP[..., None].repeat(3, 2).astype(">u2"),
    "grey": DEEP,
    "float16": (DEEP / 65535).astype(np.float16)[..., None].repeat(3, 2),
    "float64": (DEEP / 65535)[..., None].repeat(3, 2),
    "alpha": DEEP[..., None].repeat(4, 2),
    "tensor": torch.from_numpy(DEEP / 65535).float()[None].repeat(3, 1, 1),
    "half tensor": torch.from_numpy(DEEP / 65535).half()[None].repeat(3, 1, 1),
    "uint16 tensor": torch.from_numpy(DEEP)[None].repeat(3, 1, 1),
    "Pillow's 16 bits": Image.fromarray(DEEP),
    "Pillow's LA": Image.fromarray((DEEP >> 8).astype(np.uint8)).convert("LA"),
}


@pytest.mark.parametrize("name", ANY)
def test_any_numbers_in_give_the_asked_kind_and_the_same_picture(nano, name):
    image, wanted = ANY[name], nano.upscale(ANY["float64"], 1, output_type="pt")
    eight = nano.upscale(image, 1, output_type="np")
    assert eight.dtype == np.uint8 and eight.shape == (12, 14, eight.shape[2])
    tensor = nano.upscale(image, 1, output_type="pt")
    assert tensor.dtype == torch.float32 and tensor.shape[1:] == (12, 14)
    pil = np.asarray(nano.upscale(image, 1, output_type="pil").convert("RGB"))
    for made in (eight / 255, tensor.movedim(0, 2).numpy(), pil / 255):
        assert np.abs(made[..., 0] - wanted[0].numpy()).max() < 0.04  # grey is a mean
    own = nano.upscale(image, 1)
    assert type(own) is type(image)
    if not isinstance(image, Image.Image):
        assert own.shape == image.shape and own.dtype.itemsize == image.dtype.itemsize


@pytest.mark.parametrize(
    "image",
    [
        Image.new("L", (7, 5), 9),
        Image.new("LA", (7, 5), (9, 200)),
        Image.new("RGBA", (7, 5), (1, 2, 3, 4)),
        Image.fromarray(np.full((5, 7), 40000, np.uint16)),
        np.full((5, 7), 9, np.uint8),
        np.full((5, 7, 1), 9, np.uint16),
        np.full((5, 7, 4), 0.25, np.float32),
        np.full((5, 7, 3), 0.25, np.float64),
        torch.full((1, 5, 7), 0.25),
        torch.full((4, 5, 7), 0.25, dtype=torch.float64),
        torch.full((3, 5, 7), 9, dtype=torch.uint8),
        torch.full((3, 5, 7), 0.25, dtype=torch.bfloat16),
    ],
    ids=lambda image: (
        f"{type(image).__name__}-{image.mode if isinstance(image, Image.Image) else image.dtype}"
    ),
)
def test_there_and_back_changes_nothing(image):
    again = convert_like(to_picture(image), image)
    assert type(again) is type(image)
    if isinstance(image, Image.Image):
        assert again.mode == image.mode
        assert np.array_equal(np.asarray(again), np.asarray(image))
    else:
        assert (again.shape, again.dtype) == (image.shape, image.dtype)
        assert abs(again - image).max() <= 1 / 65535


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (np.full((4, 4, 3), 255.0), "divide by 255"),
        (np.full((4, 4, 3), np.nan), "divide by 255"),
        (torch.full((3, 4, 4), -1.0), r"in \[0, 1\]"),
        (np.zeros((4, 4, 5), np.uint8), "shape"),
        (np.zeros((0, 4, 3), np.uint8), "shape"),
        (np.zeros((4, 4, 3), np.int64), "int64"),
        (torch.zeros(4, 4), "shape"),
        (Image.new("F", (4, 4)), "mode F"),
        ("photo.png", "str is no picture; open the file first, as by PIL.Image.open"),
        (None, "NoneType is no picture"),
    ],
)
def test_what_is_no_picture_is_refused_in_words(restorer, image, told):
    with pytest.raises(UsageError, match=told):
        restorer.upscale(image)


@pytest.mark.parametrize("mask", ["mask.png", Path("mask.png"), 3, torch.full((4, 4), 9.0)])
def test_what_is_no_mask_is_refused_in_words(restorer, kinds, mask):
    with pytest.raises(UsageError):
        restorer.inpaint(kinds["np"], mask)


def test_masks_of_any_kind_are_the_same_hole():
    hole = np.zeros((6, 8), bool)
    hole[2:4, 3:7] = True
    eight = hole.astype(np.uint8) * 255
    for mask in [
        *(hole, eight, eight[..., None], hole.astype(np.float32), np.dstack([eight] * 3)),
        *(Image.fromarray(eight), Image.fromarray(hole)),
        *(
            torch.from_numpy(hole),
            torch.from_numpy(hole)[None],
            torch.from_numpy(hole).float()[None],
        ),
    ]:
        assert np.array_equal(to_mask(mask), eight)


def test_a_mask_of_any_colour_or_transparency_is_the_hole_of_the_same_file(tmp_path):
    red, clear = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 4), 255, np.uint8)
    red[2:5, 3:6], clear[..., 3] = (255, 0, 0), 0
    clear[2:5, 3:6, 3] = 255
    for mask in (red, clear):
        Image.fromarray(mask).save(tmp_path / "mask.png")
        of_file = mask_files.flatten(picture.read(tmp_path / "mask.png"))
        assert np.array_equal(to_mask(Image.fromarray(mask)), of_file)
        assert np.count_nonzero(of_file) == 9


def test_a_list_gives_a_list_and_a_batch_a_batch(restorer, kinds):
    made = restorer.upscale([kinds["pil"], kinds["np"]], 1)
    assert isinstance(made[0], Image.Image)
    assert isinstance(made[1], np.ndarray)
    batch = restorer.upscale(torch.stack([kinds["pt"], kinds["pt"].flip(2)]), 2)
    assert batch.shape == (2, 3, 40, 52)
    assert restorer.upscale([], 2) == []


def test_a_seed_gives_the_same_picture_alone_and_anywhere_in_a_list(restorer, kinds):
    image, other = kinds["np"], kinds["np"][::-1]
    alone = restorer.img2img(image, seed=7, **QUICK)
    listed = restorer.img2img([other, other, image], seed=7, **QUICK)
    assert np.array_equal(listed[2], alone)
    seeded = restorer.img2img([image, image], seed=[3, 7], **QUICK)
    assert np.array_equal(seeded[1], alone)
    assert not np.array_equal(seeded[0], alone)


def test_pictures_from_words_have_seeds_in_a_row(restorer):
    size = {"width": 30, "height": 20, **QUICK}
    four = restorer.text2img("a", n=4, seed=5, **size)
    assert [image.size for image in four] == [(30, 20)] * 4
    third = restorer.text2img("a", seed=7, output_type="np", **size)
    assert np.array_equal(np.asarray(four[2]), third)
    assert len({image.tobytes() for image in four}) == 4
    assert len(restorer.text2img(["a", "b"], **size)) == 2
    assert restorer.text2img("a", output_type="pt", **size).shape == (3, 20, 30)


def test_outside_a_mask_nothing_moves(restorer, kinds):
    mask = np.zeros((20, 26), np.uint8)
    mask[5:12, 5:12] = 255
    made = restorer.inpaint(kinds["np"], mask, "a cat", feather=0, **QUICK)
    assert np.array_equal(made[mask == 0], kinds["np"][mask == 0])
    assert not np.array_equal(made, kinds["np"])
    both = restorer.inpaint([kinds["np"]] * 2, mask, "a cat", feather=0, **QUICK)
    assert np.array_equal(both[1], made)
    with pytest.raises(UsageError, match="3 masks for 2 pictures"):
        restorer.inpaint([kinds["np"]] * 2, [mask] * 3)


def test_a_picture_is_extended_without_a_mask(nano, kinds):
    image = kinds["pil"]
    made = nano.inpaint(image, extend=(3, 1, 0, 5))
    assert made.size == (image.width + 3, image.height + 6)
    kept = made.crop((3, 1, 3 + image.width, 1 + image.height))
    assert np.array_equal(np.asarray(kept), np.asarray(image))
    with pytest.raises(UsageError, match=r"needs a mask, .* or sides to extend"):
        nano.inpaint(image)


def test_an_unknown_option_names_the_near_one(restorer, kinds):
    with pytest.raises(ConfigError, match=r"stesp is not an option of UpscaleOptions.*'steps'"):
        restorer.upscale(kinds["pil"], stesp=3)
    with pytest.raises(ConfigError, match=r"strength must be less than or equal to 1, not 1\.5"):
        restorer.img2img(kinds["pil"], strength=1.5)
    with pytest.raises(ConfigError, match=r"did you mean 'dpm\+\+_2m'"):
        restorer.img2img(kinds["pil"], sampler="dpm+_2m")
    with pytest.raises(ConfigError, match="did you mean 'use_karras_sigmas'"):
        restorer.img2img(kinds["pil"], sampler="unipc", sampler_options={"use_karas_sigmas": True})
    for wrong in ({"n": 0}, {"n": 2, "seed": [1, 2]}, {"seed": [1, 2]}, {"seed": -1}):
        with pytest.raises(UsageError):
            restorer.text2img("a", **wrong)


@pytest.mark.parametrize("sampler", ["ddim", "heun", "euler", "pndm", "dpm++_2m"])
def test_a_callback_sees_every_step_to_the_last(restorer, kinds, sampler):
    seen = []
    options = {"steps": 6, "sampler": sampler, "strength": 0.5, "guidance": 1}
    restorer.img2img(kinds["np"], callback=lambda *step: seen.append(step), **options)
    assert [step for step, _, _ in seen] == list(range(1, len(seen) + 1))
    assert {steps for _, steps, _ in seen} == {len(seen)}
    assert seen[0][2].shape[:2] == (1, 8)


def test_a_callback_cancels_within_one_step(restorer, kinds):
    seen = []

    def enough(step, steps, latent):
        seen.append(step)
        return step < 3

    with pytest.raises(restore.Cancelled, match="step 3 of 50"):
        restorer.text2img("a", width=20, height=20, steps=50, guidance=1, callback=enough)
    assert seen == [1, 2, 3]

    def stop(*_):
        raise restore.Cancelled("no more")

    with pytest.raises(restore.Cancelled, match="no more"):
        restorer.upscale(kinds["np"], callback=stop)


def test_all_tasks_share_one_set_of_weights(restorer, kinds):
    def held():
        parts = (p for part in restorer.stack.parts for p in part.parameters())
        return {p.data_ptr(): p.nbytes for p in parts}

    before = held()
    restorer.text2img("a", width=20, height=20, **QUICK)
    restorer.img2img(kinds["np"], **QUICK)
    restorer.upscale(kinds["np"], 2)
    restorer.inpaint(kinds["np"], np.full((20, 26), 255, np.uint8), **QUICK)
    assert held() == before


def test_enlarging_loads_no_more_than_the_first_stage():
    code = (
        "import sys, numpy, restore; nano = restore.load('nano', 'cpu'); "
        "nano.upscale(numpy.zeros((8, 8, 3), 'uint8')); sys.exit('diffusers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_whole_model_serves_every_task_once_it_is_loaded(kinds):
    nano = restore.load("nano", "cpu")
    before = nano.upscale(kinds["np"], 2)
    with ThreadPoolExecutor(4) as threads:
        assert len({id(one) for one in threads.map(lambda _: nano.stack, range(4))}) == 1
    np.testing.assert_array_equal(nano.upscale(kinds["np"], 2), before)
    for weight in nano.stack.restorer.parameters():
        weight.mul_(0.9)
    assert (nano.upscale(kinds["np"], 2) != before).any()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_makes_the_same_pictures(kinds, copied):
    nano = restore.load("nano", "cpu")
    again = copied(nano)
    for scale, how in ((2, {}), (1, QUICK)):
        made, wanted = (one.upscale(kinds["np"], scale, **how) for one in (again, nano))
        np.testing.assert_array_equal(made, wanted)


def test_importing_restore_is_light():
    code = "import sys, restore; restore.Cancelled; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
    assert restore.load.__module__ == "restore.api"
    assert not hasattr(restore, "lod")


def test_a_photo_that_was_taken_upright_is_worked_on_upright(pixels):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    buffer = io.BytesIO()
    Image.fromarray(pixels(20, 40)).save(buffer, "PNG", exif=exif)
    image = Image.open(buffer)
    assert to_picture(image).size == (40, 20)
    assert convert_like(to_picture(image), image).size == (20, 40)


# what loading is told

WRONG = {
    "a typing error": ({"lora": [("/nope", 1)]}, ConfigError, "lora is no argument.*'loras'"),
    "diffusers' name": ({"torch_dtype": "fp32"}, ConfigError, "no argument.*did you mean 'dtype'"),
    "another's name": ({"foo": 1}, ConfigError, "foo is no argument"),
    "engine": ({"engine": "tensorrt"}, ConfigError, "'tensorrt': there are torch, onnx"),
    "a guide alone": ({"control_image": "/nope"}, UsageError, "give --controlnet"),
    "a scale alone": ({"controlnet_scale": 99}, UsageError, "give --controlnet"),
    "a revision": ({"revision": "v2"}, ConfigError, "is for the hub's models"),
    "configs": ({"config": "/nope"}, UsageError, "has configs of its own"),
    "one LoRA": ({"loras": "x.safetensors"}, ConfigError, "give a list"),
    "a LoRA of numbers": ({"loras": [(1, 2)]}, ConfigError, "1 is no name"),
    "a LoRA's scale": ({"loras": [("x", "1")]}, ConfigError, "'1' is no finite number"),
    "a scale of text": ({"controlnet_scale": "1"}, ConfigError, "'1' is no finite number"),
    "a first stage": ({"first_stage": 3}, ConfigError, "first_stage: 3 is no name"),
    "a dtype": ({"dtype": 32}, ConfigError, "dtype 32: there are"),
    "a device": ({"device": 0}, ModelError, "0: no such device"),
    "onnx": ({"engine": "onnx", "controlnet": "/nope"}, ConfigError, "--controlnet: engine onnx"),
}


@pytest.mark.parametrize("case", WRONG)
def test_no_argument_of_loading_is_swallowed(case):
    given, kind, told = WRONG[case]
    with pytest.raises(kind, match=told):
        restore.load("nano", **given)


def test_torchs_types_and_paths_are_names_too(tmp_path):
    made = restore.load("nano", torch.device("cpu"), torch.float32)
    assert made.device.type == "cpu"
    assert restore.load(Path(made.stack.origin), "cpu").stack.digest == made.stack.digest
    with pytest.raises(ModelError, match=r"x\.safetensors"):
        restore.load("nano", "cpu", loras=[tmp_path / "x.safetensors"])
    with pytest.raises(ConfigError, match="model: 3 is no name"):
        restore.load(3)


@pytest.mark.parametrize("no", [False, np.bool_(False), torch.tensor(False)])
def test_every_librarys_false_cancels_and_none_does_not(nano, kinds, no):
    with pytest.raises(restore.Cancelled):
        nano.upscale(kinds["np"], 2, progress=lambda *given: no)
    with pytest.raises(restore.Cancelled):
        nano.upscale(kinds["np"], 2, callback=lambda *given: no)
    nano.upscale(kinds["np"], 1, progress=lambda *given: None, callback=lambda *given: 0)


@pytest.mark.filterwarnings("error")
def test_a_grey_picture_makes_no_warning(nano):
    seen = []
    nano.upscale(np.full((9, 8), 90, np.uint8), 2)
    nano.upscale(np.full((9, 8), 90, np.uint8), 2, callback=lambda *given: seen.append(given))
    assert seen
