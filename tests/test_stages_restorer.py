"""The first stage's training: grown weights, judges, teachers, runs that end by the clock."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from toy import tensors

from restore import cli
from restore.checkpoints.load import load
from restore.checkpoints.save import save_first_stage
from restore.config import load_config
from restore.diffusion.compact import FirstStage
from restore.diffusion.restorer import Fusion, Restorer
from restore.errors import ConfigError, ModelError
from restore.training import failed_batch, loop, model_card, optim
from restore.training.registry import STAGES
from restore.training.stages import widening

TOOLS = Path(__file__).resolve().parents[1] / "tools"
CONFIGS = TOOLS.parent / "configs" / "train"
RECIPE = "stage.data.recipes={realesrgan: 1}"


@pytest.fixture(scope="module")
def photos(tmp_path_factory, pixels):
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(2):
        Image.fromarray(pixels(144, 140, seed)).save(folder / f"{seed}.png")
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Weights of a little restorer by basicsr's names."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_file(Restorer(8, 2).state_dict(), path)
    return path


@pytest.mark.parametrize("channels, layers", [(8, 2), (12, 2), (8, 4), (13, 5)])
def test_a_grown_restorer_answers_as_the_small_one(small, channels, layers):
    grown, rgb = Restorer(channels, layers), torch.rand(1, 3, 9, 11)
    widening.grow(load_file(small), grown)
    before = Restorer(8, 2)
    before.load_state_dict(load_file(small))
    torch.testing.assert_close(grown(rgb), before(rgb))
    grown(rgb).square().mean().backward()
    if channels > 8:  # what is new learns from the first step on
        assert grown.body[2].weight.grad[:8, 8:].abs().max() > 0


def test_a_larger_restorer_does_not_fit_into_a_smaller_one(small):
    for channels, layers in ((4, 2), (8, 1)):
        with pytest.raises(KeyError, match="do not fit"):
            widening.grow(load_file(small), Restorer(channels, layers))


def options(name, photos, *sets):
    small = ["device=cpu", "batch=2", "workers=0", "stage.data.crop=32", "log_with=[]"]
    return load_config(
        loop.TrainOptions,
        CONFIGS / f"{name}.yaml",
        [*small, f"stage.data.photos={photos}", *sets],
    )


def test_teacher_judge_and_truth_all_pull(photos, small):
    adversary = "{start: 1, channels: 16, layers: 1, spectral: true}"
    asked = options(
        "nano_restorer", photos, f"stage.start={small}", f"stage.teacher.path={small}",
        "stage.channels=10", "stage.layers=2", f"stage.adversary={adversary}",
    )  # fmt: skip
    stage = STAGES["restorer"](asked.stage, 0, torch.device("cpu"))
    batch = torch.utils.data.default_collate([stage.samples[0], stage.samples[1]])
    assert stage.loss(batch, 0).keys() == {"pixel", "perceptual", "teacher"}
    losses = stage.loss(batch, 1)
    assert losses.keys() == {"pixel", "perceptual", "teacher", "adversarial", "discriminator"}
    assert losses["teacher"].item() == 0  # it begins as its teacher
    _, scores = stage.preview()
    assert scores.keys() == {"psnr", "pd"}


def test_a_start_of_another_shape_is_refused_by_name(photos, small):
    asked = options(
        "base_faithful", photos, f"stage.start={small}", "stage.channels=8", "stage.layers=1"
    )
    with pytest.raises(ConfigError, match="is of another shape"):
        STAGES["restorer"](asked.stage, 0, torch.device("cpu"))


def start(name, photos, *sets):
    asked = options(name, photos, *sets)
    return STAGES[asked.stage.kind](asked.stage, 0, torch.device("cpu"))


def test_a_restorer_joins_a_model_whose_other_end_has_its_shape(photos, tmp_path):
    sets = "stage.stack=nano", "stage.channels=64", "stage.layers=32"
    for end in ("rich", "faithful"):
        stage = start("nano_faithful", photos, "stage.start=null", f"stage.end={end}", *sets)
        stage.export(tmp_path / end)
        made = getattr(load(str(tmp_path / end), "cpu").restorer, end)
        kept = stage.network.body[0].weight.half().float()
        torch.testing.assert_close(made.body[0].weight, kept)


@pytest.mark.parametrize("end, other", [("rich", "faithful"), ("faithful", "rich")])
def test_a_restorer_of_another_shape_than_the_other_end_is_refused_first(photos, end, other):
    sets = "stage.stack=nano", f"stage.end={end}", "stage.channels=8", "stage.layers=2"
    with pytest.raises(ConfigError) as told:
        start("nano_faithful", photos, "stage.start=null", *sets)
    says = str(told.value)
    assert f"the {other} end of nano has 64 channels and 32 layers" in says
    assert "this restorer has 8 channels and 2 layers" in says
    assert "set stage.channels=64 and stage.layers=32" in says


def test_two_ends_of_different_shapes_are_not_saved(tmp_path):
    with pytest.raises(ModelError, match="of one shape"):
        save_first_stage(FirstStage(Restorer(8, 2), Restorer(12, 2)), tmp_path, None)
    assert not any(tmp_path.iterdir())


def test_what_the_export_needs_is_checked_before_training(photos, small, tmp_path):
    little = "stage.start=null", "stage.channels=8", "stage.layers=2"
    for name, weights in {"other": {"conv_first.weight": torch.ones(2)}, "none": {}}.items():
        save_file(weights, tmp_path / f"{name}.safetensors")
        with pytest.raises(ConfigError, match=r"stage\.blend\.path: .* is of another shape"):
            path = tmp_path / f"{name}.safetensors"
            start("nano_faithful", photos, f"stage.blend={{path: {path}}}", *little)
    with pytest.raises(ConfigError, match=r"stage\.stack: .*nosuch.*no model of that name"):
        start("nano_faithful", photos, "stage.stack=nosuch", *little)
    with pytest.raises(ConfigError, match=r"end is of a model's first stage; name .* stack"):
        options("nano_faithful", photos, "stage.end=faithful")
    start("nano_faithful", photos, f"stage.blend={{path: {small}}}", *little)


def test_weights_of_another_network_are_refused_in_words(photos, tmp_path):
    other = tmp_path / "other.safetensors"
    for weights in (
        {"conv_first.weight": torch.ones(2), "body.0.rdb1.conv1.bias": torch.ones(2)},
        {"body.0.weight": torch.ones(8, 3, 3, 3)},
        {"one": torch.ones(1)},
    ):
        save_file(weights, other)
        with pytest.raises(ConfigError, match=r"stage\.start: .*other.* is of another shape: it h"):
            start("nano_faithful", photos, f"stage.start={other}", "stage.channels=8")
        with pytest.raises(ConfigError, match=r"stage\.start: .*other.* is another network"):
            start("scratches", photos, f"stage.start={other}", "stage.data.crop=32")
    missing = tmp_path / "nosuch"
    with pytest.raises(ConfigError, match="nosuch"):
        start("scratches", photos, f"stage.start={missing}", "stage.data.crop=32")
    (tmp_path / "else").mkdir()
    for place in (missing, tmp_path / "else"):
        with pytest.raises(ConfigError, match=r"stage\.restorer: .* name the export"):
            start("nano_fusion", photos, f"stage.restorer={place}", RECIPE)


def test_weights_are_read_as_basicsr_ships_them(photos, small, tmp_path):
    torch.save({"params_ema": load_file(small)}, tmp_path / "small.pth")
    little = "stage.channels=8", "stage.layers=2"
    sets = [f"stage.start={tmp_path / 'small.pth'}", *little]
    stage = start("nano_faithful", photos, *sets, f"stage.teacher.path={tmp_path / 'small.pth'}")
    for name, weight in load_file(small).items():
        torch.testing.assert_close(stage.network.state_dict()[name], weight)
    torch.save({"params": Path("x")}, tmp_path / "code.pth")
    with pytest.raises(ModelError, match="holds more than tensors"):
        start("nano_faithful", photos, f"stage.start={tmp_path / 'code.pth'}", *little)


@pytest.mark.parametrize(
    "name, sets, says",
    [
        ("nano_denoiser", ["stage.channels=[20, 20]"], "20 is no multiple of groups, 8"),
        ("nano_denoiser", ["stage.channels=[]"], "stage.channels"),
        ("nano_denoiser", ["stage.text_width=63"], "63 is no multiple of 2 heads"),
        ("nano_denoiser", ["stage.text_width=66", "stage.pooled=true"], "no multiple of 4 heads"),
        ("nano_autoencoder", ["stage.encoder_blocks=[1]"], "one number a resolution"),
        ("scratches", ["stage.overlap=-1"], "stage.overlap"),
    ],
)
def test_a_shape_that_cannot_be_built_is_refused_as_an_option(photos, name, sets, says):
    with pytest.raises(ConfigError, match=says):
        options(name, photos, "stage.data.crop=128", *sets)


def test_a_fusion_learns_beside_a_restorer_that_is_alone_or_in_a_model(photos, tmp_path):
    Restorer(8, 1).save_pretrained(tmp_path / "export" / "restorer")
    small = ["stage.channels=8", "stage.layers=1", "stage.data.recipes={realesrgan: 1}"]
    alone = options("nano_fusion", photos, f"stage.restorer={tmp_path / 'export'}", *small)
    stage = STAGES["fusion"](alone.stage, 0, torch.device("cpu"))
    assert not any(weight.requires_grad for weight in stage.restorer.parameters())
    stage.export(tmp_path / "made")
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["fusion"]
    assert isinstance(Fusion.from_pretrained(tmp_path / "made" / "fusion"), Fusion)

    whole = options("nano_fusion", photos, "stage.restorer=null", "stage.stack=nano", *small)
    STAGES["fusion"](whole.stage, 0, torch.device("cpu")).export(tmp_path / "model")
    assert load(str(tmp_path / "model"), "cpu").restorer.fusion.config["channels"] == 8
    with pytest.raises(ConfigError, match="give stack, a model, or restorer"):
        options("nano_fusion", photos, "stage.stack=nano")


def test_a_part_that_was_exported_alone_says_how_it_becomes_a_model(photos, tmp_path):
    parts = {"restorer": Restorer(8, 1), "fusion": Fusion(8, 1)}
    for name, network in parts.items():
        network.save_pretrained(tmp_path / name / name)
        with pytest.raises(ModelError, match=f"a {name} alone, no model: .*stage.stack=nano"):
            load(str(tmp_path / name), "cpu")


def test_a_card_tells_a_part_from_a_model_and_no_private_folder(photos, tmp_path):
    (tmp_path / "mine.yaml").write_text("name: mine\nsteps: [{kind: jpeg}]\n")
    places = {
        "stage.data.recipes": f"{{scan: 1, {tmp_path / 'mine.yaml'}: 1}}",
        "stage.blend.path": tmp_path / "b.safetensors",
        "stage.teacher.path": tmp_path / "t.safetensors",
    }
    asked = options("nano_faithful", photos, *(f"{key}={value}" for key, value in places.items()))
    values = asked.model_dump(mode="json")
    machine = SimpleNamespace(num_processes=1, device=torch.device("cpu"))
    alone = model_card.render("run", model_card.About(values, {}, 1, machine), None)
    assert "stage.stack=nano` exports a whole model" in " ".join(alone.split())
    assert "Recipe `scan` and `mine.yaml`." in alone
    assert str(tmp_path) not in alone and "t.safetensors" in alone
    values["stage"]["stack"] = "nano"
    whole = model_card.render("run", model_card.About(values, {}, 1, machine), None)
    assert "--model FOLDER` uses it" in whole and "a part of a model" not in whole


@pytest.mark.parametrize("kind", ["restorer", "fusion"])
def test_a_failed_batch_of_a_first_stage_can_be_replayed(photos, tmp_path, kind):
    little = "stage.channels=8", "stage.layers=1"
    Restorer(8, 1).save_pretrained(tmp_path / "export" / "restorer")
    names = {
        "restorer": ("nano_faithful", "stage.start=null"),
        "fusion": ("nano_fusion", f"stage.restorer={tmp_path / 'export'}"),
    }
    samples = start(names[kind][0], photos, names[kind][1], *little).samples
    batch = torch.utils.data.default_collate([samples[4], samples[5]])
    failed_batch.keep(tmp_path / "failed", batch, [4, 5], samples)
    for number, low in zip((4, 5), batch["low"], strict=True):
        name, again = f"{number:06d}", tmp_path / f"{number}.png"
        words = [f"traces/{name}.json", f"hr/{name}.png"]
        words = ["degrade", "replay", *(str(tmp_path / "failed" / word) for word in words)]
        assert cli.main([*words, "-o", str(again)]) == 0
        assert np.array_equal(np.asarray(Image.open(again)), low.numpy())


def test_the_schedule_goes_by_time_where_that_ends_the_run():
    by_steps = [optim.rate_at(step, 100, 10, "cosine") for step in (20, 50, 100)]
    by_time = [optim.rate_at(20, 100, 10, "cosine", passed) for passed in (0.2, 0.5, 1.0)]
    assert by_time == by_steps and by_time[-1] == pytest.approx(0)
    assert optim.rate_at(20, 100, 10, "constant", 0.9) == 1


def test_a_run_ends_by_the_clock_and_exports_on_the_way(photos, small, tmp_path, monkeypatch):
    exported, export = [], loop.Training._export
    monkeypatch.setattr(
        loop.Training, "_export", lambda self, *a: (exported.append(self.passed), export(self, *a))
    )
    sets = (f"stage.start={small}", "stage.channels=8", "stage.layers=2", "steps=100000")
    words = [f"stage.data.photos={photos}", "device=cpu", "batch=2", "stage.data.crop=32", *sets]
    words += ["seconds=2", "export_every_s=0.5", "log_with=[]", f"output={tmp_path / 'run'}"]
    folder = loop.run(CONFIGS / "nano_faithful.yaml", words)
    assert (folder / "restorer" / "config.json").is_file()
    assert len(exported) >= 2 and exported[0] < 1 <= exported[-1]
    (last,) = (tmp_path / "run").glob("step_*")
    assert 0 < int(last.name[5:]) < 100000
    before = tensors(last)
    monkeypatch.setattr(loop.Training, "step", None)
    loop.run(CONFIGS / "nano_faithful.yaml", words)  # it is done, and is exported once more
    assert [*(tmp_path / "run").glob("step_*")] == [last]
    assert all(torch.equal(before[name], now) for name, now in tensors(last).items())
    assert exported[-1] >= 1
