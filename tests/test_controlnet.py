"""ControlNet: the stock pipelines' steps; windows; what is refused; what a report tells."""

import contextlib
import json
from functools import cache

import diffusers
import numpy as np
import pytest
import tiny
import torch
from PIL import Image
from safetensors.torch import save_file
from test_parity import SEED, WORDS, Case, drawing, walked, watch

from restore import api, cli
from restore.checkpoints import controlnet, devices, manifest
from restore.checkpoints.load import load
from restore.diffusion.canvas import canvas_rows
from restore.diffusion.stack import SCHEDULERS
from restore.errors import ConfigError, ModelError, UsageError
from restore.images.picture import Picture
from restore.options import Img2imgOptions, InpaintOptions, Text2imgOptions, UpscaleOptions
from restore.tasks.run import restore

NAMES = {"base": "StableDiffusion", "xl": "StableDiffusionXL"}
INPAINTERS = {"inpainting": "base", "xl inpainting": "xl"}  # and the family of their ControlNets


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """(checkpoint, ControlNet) of each family."""

    @cache
    def made(kind):
        top = tmp_path_factory.mktemp(kind)
        folder = tiny.checkpoint(top / "model", kind)
        if kind in INPAINTERS:
            return folder, made(INPAINTERS[kind])[1]
        unet = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet")
        return folder, tiny.controlnet(top / "tile", unet)

    return made


@pytest.fixture(scope="module")
def stacks(folders):
    @cache
    def loaded(kind, scale=0.8):
        folder, net = folders(kind)
        more = {"controlnet": str(net), "controlnet_scale": scale}
        return load(str(folder), device="cpu", **more)

    return loaded


class Steered(Case):
    """As Case, of a stack with a ControlNet."""

    def __init__(self, kind, stacks, folders, picture, monkeypatch):
        folder, net = folders(kind)
        super().__init__(stacks(kind), folder, picture, monkeypatch)
        self.kind = INPAINTERS.get(kind, kind)
        self.net = diffusers.ControlNetModel.from_pretrained(net)

    def pipeline(self, task: str, sampler: str):
        """The stock pipeline of a task, and the list that its latents will be put into."""
        kind = getattr(diffusers, f"{NAMES[self.kind]}ControlNet{task}Pipeline")
        plain = "StableDiffusionXLPipeline" if self.kind == "xl" else "StableDiffusionPipeline"
        parts = getattr(diffusers, plain).from_pretrained(self.folder).components
        given = {k: v for k, v in parts.items() if k not in ("image_encoder", "feature_extractor")}
        if self.kind == "base":
            given |= {"feature_extractor": None, "requires_safety_checker": False}
        pipe = kind(**given, controlnet=self.net)
        pipe.set_progress_bar_config(disable=True)
        name, own = SCHEDULERS[sampler]
        pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config, **own)
        return pipe, watch(pipe.scheduler), kind

    def text2img(self, sampler: str) -> None:
        """The picture is of another size, and is resized."""
        self.stack.control.picture = self.picture(self.side // 2, self.side, 3)
        try:
            size = {"height": self.side, "width": self.side}
            options = Text2imgOptions(**WORDS, **size, steps=3, guidance=5, sampler=sampler)
            pipe, theirs, _ = self.pipeline("", sampler)
            image = pipe(
                **walked(options),
                **size,
                image=canvas_rows(
                    self.stack.control.picture, (self.side,) * 2, self.side, (0, self.side)
                ),
                latents=self.noise,
                controlnet_conditioning_scale=0.8,
            ).images[0]
            self.agrees(options, image, theirs)
        finally:
            self.stack.control.picture = None

    def upscale(self, sampler: str, strength: float) -> None:
        """Twice the size, the ControlNet being shown the picture resized: tile's way."""
        low = self.picture(self.side // 2, self.side // 2)
        options = UpscaleOptions(
            **WORDS, scale=2, steps=4, guidance=5, sampler=sampler, strength=strength
        )
        large = canvas_rows(low, (self.side,) * 2, self.side, (0, self.side))
        shared = {**walked(options), "controlnet_conditioning_scale": 0.8}
        pipe, theirs, kind = self.pipeline("" if strength == 1 else "Img2Img", sampler)
        if strength == 1:
            image = pipe(**shared, image=large, latents=self.noise).images[0]
        else:
            with drawing(self.monkeypatch, kind, self.noise):
                image = pipe(**shared, image=large, control_image=large, strength=strength).images[
                    0
                ]
        self.agrees(options, image, theirs, low)

    def inpaint(self, sampler: str, strength: float = 1) -> None:
        """The ControlNet is shown another picture, of the size of the one that is mended."""
        picture, control = (self.picture(self.side, self.side, seed) for seed in (0, 3))
        hole = np.zeros(picture.size, np.uint8)
        hole[self.side // 4 : self.side // 2, self.side // 2 : self.side * 3 // 4] = 255
        walk = {"steps": 4, "guidance": 5, "sampler": sampler, "strength": strength}
        options = InpaintOptions(**WORDS, **walk, feather=0)
        pipe, _, kind = self.pipeline("Inpaint", sampler)
        theirs = []

        def after(pipe, step, t, held):
            theirs.append(held["latents"])  # once what is outside the hole was put back
            return {}

        with drawing(self.monkeypatch, kind, self.noise):
            image = pipe(
                **walked(options),
                strength=strength,
                image=Image.fromarray(picture.pixels),
                mask_image=Image.fromarray(hole),
                control_image=Image.fromarray(control.pixels),
                controlnet_conditioning_scale=0.8,
                height=self.side,
                width=self.side,
                callback_on_step_end=after,
            ).images[0]
        pasted = np.where(hole[..., None] > 0, np.asarray(image), picture.pixels)
        self.stack.control.picture = control
        try:
            self.agrees(options, pasted, theirs, picture, hole)
        finally:
            self.stack.control.picture = None


@pytest.fixture
def case(stacks, folders, picture, monkeypatch):
    return lambda kind: Steered(kind, stacks, folders, picture, monkeypatch)


@pytest.mark.parametrize("sampler", ["ddim", "euler"])
@pytest.mark.parametrize("kind", NAMES)
def test_text_to_image_equals_the_stock_pipeline(case, kind, sampler):
    case(kind).text2img(sampler)


@pytest.mark.parametrize(
    ("kind", "sampler", "strength"),
    [
        *(("base", "ddim", 1), ("base", "ddim", 0.5), ("base", "euler", 0.5)),
        *(("xl", "ddim", 1), ("xl", "ddim", 0.5)),
    ],
)
def test_enlarging_equals_the_stock_pipeline(case, kind, sampler, strength):
    case(kind).upscale(sampler, strength)


@pytest.mark.parametrize(
    ("kind", "sampler", "strength"),
    [
        *((kind, "ddim", 1) for kind in (*NAMES, *INPAINTERS)),
        *((kind, "euler", 0.5) for kind in INPAINTERS),
    ],
)
def test_inpainting_equals_the_stock_pipeline(case, kind, sampler, strength):
    """The base model's and the inpainter's, whose UNet reads mask and picture too."""
    case(kind).inpaint(sampler, strength)


OPTIONS = {
    "upscale": UpscaleOptions(scale=2, steps=2),
    "img2img": Img2imgOptions(steps=4),
    "inpaint": InpaintOptions(steps=2, guidance=1),
    "text2img": Text2imgOptions(height=40, width=36, steps=2, guidance=1),
}


def made(stack, task, picture) -> np.ndarray:
    low = None if task == "text2img" else picture(40, 36)
    hole = np.zeros((40, 36), np.uint8)
    hole[10:20, 12:30] = 255
    mask = hole if task == "inpaint" else None
    return restore(low, OPTIONS[task], stack, SEED, mask=mask).pixels


@pytest.mark.parametrize("task", OPTIONS)
def test_in_every_task_its_picture_counts(stacks, picture, task):
    """On canvases of several windows, of sizes that are none of the grid's."""
    control = stacks("base").control
    answers = []
    for seed in (3, 4):
        control.picture = picture(70, 50, seed)
        answers.append(made(stacks("base"), task, picture))
    control.picture, scale = picture(70, 50, 3), control.scale
    assert (made(stacks("base"), task, picture) == answers[0]).all()
    control.scale = 0.0
    answers.append(made(stacks("base"), task, picture))
    control.picture, control.scale = None, scale
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert (answers[one] != answers[other]).any()


def test_a_hole_is_shown_its_own_part_of_the_picture(stacks, picture):
    """Of a picture of the size of the one that is mended, what lies elsewhere does not count."""
    stack = stacks("base")
    pixels = picture(200, 200).pixels
    hole = np.zeros((200, 200), np.uint8)
    hole[150:160, 150:160] = 255
    answers = []
    for seed in (3, 4):
        shown = picture(200, 200, 3).pixels.copy()
        shown[:60, :60] = picture(200, 200, seed).pixels[:60, :60]
        stack.control.picture = Picture(shown)
        options = OPTIONS["inpaint"]
        answers.append(restore(Picture(pixels), options, stack, SEED, mask=hole).pixels)
    stack.control.picture = None
    assert (answers[0] == answers[1]).all() and (answers[0] != pixels).any()


def test_a_hole_is_shown_no_hidden_colours_of_the_picture(stacks, picture):
    stack, hole = stacks("base"), np.zeros((40, 40), np.uint8)
    hole[10:20, 15:30] = 255
    alpha = np.full((40, 40), 255, np.uint8)
    alpha[:, :20] = 0
    answers = []
    for hidden in (0, 255):
        shown = np.where(alpha[..., None] > 0, picture(40, 40, 3).pixels, hidden)
        stack.control.picture = Picture(shown.astype(np.uint8), alpha=alpha)
        answers.append(restore(picture(40, 40), OPTIONS["inpaint"], stack, SEED, mask=hole).pixels)
    stack.control.picture = None
    assert (answers[0] == answers[1]).all()


def test_an_inpainter_takes_the_controlnet_of_its_family(folders, picture, tmp_path):
    folder = tiny.checkpoint(tmp_path / "model", "inpainting")
    stack = load(str(folder), device="cpu", controlnet=str(folders("base")[1]))
    stack.control.picture = picture(70, 50, 3)
    for task in OPTIONS:
        pixels, stack.control.scale = made(stack, task, picture), 0.0
        assert (pixels != made(stack, task, picture)).any(), task
        stack.control.scale = 1.0


def test_how_many_windows_run_at_once_changes_nothing(stacks, picture):
    low = picture(40, 36)
    one, many = (
        restore(low, OPTIONS["upscale"].model_copy(update={"windows": n}), stacks("base"), SEED)
        for n in (1, 8)
    )
    assert (one.pixels == many.pixels).all() and one.size == (80, 72)


@pytest.mark.parametrize("task", ["text2img", "inpaint"])
def test_where_there_is_no_picture_to_show_one_is_asked_for(stacks, picture, task):
    with pytest.raises(UsageError, match="--control-image FILE"):
        made(stacks("base"), task, picture)


def test_damage_is_mended_before_it_is_shown(stacks, picture):
    low, damage = picture(40, 36), np.zeros((40, 36), np.uint8)
    damage[10:14, 5:30] = 255
    scratched = Picture(np.where(damage[..., None] > 0, 255, low.pixels).astype(np.uint8))
    options = OPTIONS["upscale"]
    one, other = (
        restore(p, options, stacks("base"), SEED, mask=damage).pixels for p in (low, scratched)
    )
    assert (one == other).all()


def test_the_api_takes_a_picture_for_the_controlnet(stacks, picture):
    restorer = api.Restorer(stacks("base"))
    image = Image.fromarray(picture(70, 50, 3).pixels)
    again = restorer.with_control_image(image)
    assert again.stack is not restorer.stack and restorer.stack.control.picture is None
    out = again.text2img("a bird", width=32, height=32, steps=1, guidance=1)
    assert out.size == (32, 32)
    with pytest.raises(UsageError, match="controlnet=FOLDER"):
        api.Restorer(load("nano", "cpu")).with_control_image(image)
    with pytest.warns(DeprecationWarning, match="with_control_image"):
        assert restorer.shown(image).stack.control.picture.size == (70, 50)


# where it computes


@pytest.mark.parametrize("kind", NAMES)
def test_in_half_precision_it_runs_and_stays_near(folders, stacks, picture, kind):
    folder, net = folders(kind)
    more = {"controlnet": str(net), "controlnet_scale": 0.8}
    half = load(str(folder), "cpu", "bf16", **more)
    assert half.control.net.dtype == half.unet.dtype == torch.bfloat16
    options = UpscaleOptions(scale=1, steps=1, prompt="a bird", negative="x", guidance=2)
    low = picture(32, 32)
    one, other = (restore(low, options, which, SEED).pixels for which in (half, stacks(kind)))
    assert np.abs(one.astype(int) - other).mean() < 8
    with half.in_fp32():
        assert half.control.net.dtype == half.unet.dtype == torch.float32
    assert half.control.net.dtype == torch.bfloat16


@pytest.mark.parametrize("kind", NAMES)
def test_with_the_unet_it_takes_turns_on_the_device(folders, stacks, picture, kind):
    folder, net = folders(kind)
    turning = load(str(folder), "cpu", controlnet=str(net), controlnet_scale=0.8)
    devices.Turns(turning, torch.device("cpu"))
    came = noted(turning)
    options = UpscaleOptions(scale=2, steps=2)
    one, other = (
        restore(picture(32, 24), options, which, SEED) for which in (turning, stacks(kind))
    )
    assert (one.pixels == other.pixels).all()
    assert came.count("controlnet") == came.count("unet") <= 2  # not for every window


def noted(stack) -> list[str]:
    """The UNet and the ControlNet, as often as they come to the device or go."""
    came = []
    for name, part in (("unet", stack.unet), ("controlnet", stack.control.net)):

        def to(*_, part=part, name=name):
            came.append(name)
            return part

        part.to = to
    return came


# what is refused


def refused(folder, *words: str, **how) -> None:
    with pytest.raises((ModelError, UsageError)) as caught:
        load(str(folder), device="cpu", **how)
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_a_controlnet_of_another_family_is_refused(folders):
    refused(folders("xl")[0], "cross_attention_dim", controlnet=str(folders("base")[1]))
    refused(folders("base")[0], "for another family", controlnet=str(folders("xl")[1]))
    refused("nano", "trust layout", controlnet=str(folders("base")[1]))


def test_what_is_no_controlnet_is_refused(folders, tmp_path):
    folder, net = folders("base")
    refused(folder, "no such ControlNet", controlnet=str(tmp_path / "gone"))
    refused(folder, "no config.json", controlnet=str(tmp_path))
    refused(folder, "UNet2DConditionModel", controlnet=str(folder / "unet"))
    refused(folder, "give --controlnet", control_image=str(net / "config.json"))
    refused(folder, "--controlnet-scale 0.5", "give --controlnet", controlnet_scale=0.5)
    image = {"controlnet": str(net), "control_image": str(tmp_path / "gone.png")}
    refused(folder, "no such file", **image)
    refused(folder, "0 to 10", controlnet=str(net), controlnet_scale=-1)
    told = json.loads((net / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**told, "global_pool_conditions": True}))
    refused(folder, "shuffle", controlnet=str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps(told))
    refused(folder, "no weights", controlnet=str(tmp_path))


@pytest.mark.parametrize("task", ["text2img", "inpaint"])
def test_a_command_that_lacks_its_picture_is_refused_before_any_work(
    folders, photo, tmp_path, task, capsys
):
    photo("a.png")
    folder, net = folders("base")
    words = [task, "-o", tmp_path / "out", "--model", folder, "--controlnet", net]
    words += [] if task == "text2img" else [tmp_path / "in", "--mask", tmp_path / "in" / "a.png"]
    assert cli.main([str(word) for word in words]) == 2
    assert "--control-image FILE" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_pixel_upscaler_takes_none(folders, tmp_path):
    path = tmp_path / "net.safetensors"
    save_file({"body.0.weight": torch.zeros(1)}, path)
    with pytest.raises(ConfigError, match=r"--controlnet: .* is a pixel upscaler"):
        devices.load(str(path), "cpu", controlnet=str(folders("base")[1]))


HOSTILE = [
    *(None, True, -1, 0, 10**12, 1e308, float("nan"), [], ["evil"], {"evil": "Evil"}),
    *("evil/kernel", "../evil", "http://evil.example/x", "", "a" * 10**6, [[[[["evil"]]]]]),
]


@pytest.mark.filterwarnings("ignore")  # of the libraries, on values that make no sense
def test_no_key_of_its_config_breaks_more_than_itself(folders, tmp_path):
    """A value that makes no sense is refused in our words, or has no effect."""
    folder, net = folders("base")
    told = json.loads((net / "config.json").read_text())
    weights = net / "diffusion_pytorch_model.safetensors"
    (tmp_path / weights.name).symlink_to(weights)
    stack = load(str(folder), "cpu")
    for number, key in enumerate([*told, "auto_map", "quantization_config", "_name_or_path"]):
        for value in HOSTILE[number % 4 :: 4]:
            (tmp_path / "config.json").write_text(json.dumps({**told, key: value}))
            with contextlib.suppress(ModelError):
                controlnet.steer(stack, controlnet.find(str(tmp_path)))


def test_of_another_kind_of_controlnet_no_byte_but_its_config_is_fetched(online):
    top, given = online
    (top / "net").mkdir()
    (top / "net" / "config.json").write_text('{"_class_name": "ControlNetUnionModel"}')
    (top / "net" / "diffusion_pytorch_model.safetensors").write_bytes(bytes(10**6))
    with pytest.raises(ModelError, match="is a ControlNetUnionModel"):
        controlnet.find("org/net")
    assert set(given) == {"config.json"}


def test_a_controlnet_of_the_hub_is_fetched(online, folders):
    top, given = online
    unet = diffusers.UNet2DConditionModel.from_pretrained(folders("base")[0] / "unet")
    tiny.controlnet(top / "net", unet)
    (top / "net" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(bytes(10**6))
    found = controlnet.find("org/net")
    assert found.digest == controlnet.find(str(folders("base")[1])).digest
    assert sum(given.values()) < 10**6


# what tells one run from another


def test_net_weight_and_picture_are_in_the_digest(folders, photo):
    folder, net = folders("base")
    stacks = [
        load(str(folder), device="cpu", controlnet=str(net), **more)
        for more in (
            {},
            {"controlnet_scale": 0.5},
            {"control_image": photo("a.png", seed=1)},
            {"control_image": photo("b.png", seed=2)},
        )
    ]
    digests = {stack.digest for stack in stacks} | {manifest.find_model(str(folder))[1]}
    assert len(digests) == 5


def test_the_command_enlarges_and_its_report_names_the_controlnet(folders, photo, tmp_path):
    photo("a.png")
    folder, net = folders("base")
    words = ["upscale", tmp_path / "in", "-o", tmp_path / "out", "-s", 2, "--steps", 1]
    words += ["--model", folder, "--controlnet", net, "--device", "cpu"]

    def rows(*more):
        assert cli.main([str(word) for word in (*words, *more)]) == 0
        return json.loads((tmp_path / "out" / "report.jsonl").read_text().splitlines()[0])

    row = rows()
    assert row["size_out"] == [16, 16] and row["controlnet"] == str(net)
    assert row["controlnet_sha256"] == controlnet.find(str(net)).digest
    assert row["controlnet_scale"] == 1
    again = rows()
    assert again["output_sha256"] == row["output_sha256"] and again["seconds"] == row["seconds"]
    other = rows("--controlnet-scale", "0.3", "--control-image", tmp_path / "in" / "a.png")
    assert other["weights"] != row["weights"] and other["controlnet_scale"] == 0.3
    assert any("another model" in note for note in other["warnings"])
