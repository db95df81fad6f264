"""Scenes are exactly known, the judge reads them, and each kind of context trains on them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from diffusers import AutoencoderTiny
from folders import closed
from PIL import Image

from restore.checkpoints.load import load
from restore.checkpoints.model_paths import SHIPPED
from restore.cli import main as cli
from restore.config import load_config
from restore.diffusion.contexts.boxes import parsed
from restore.errors import ConfigError
from restore.options import Text2imgOptions
from restore.tasks.run import restore
from restore.training import loop
from restore.training.toys import scenes
from restore.training.toys.scene_detection import detect, overlap
from restore.training.toys.scene_score import answer, confusion, main, sample_scenes, scores, sheet
from restore.training.toys.scenes import LABELS, SIZE, Scene, Thing

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "train"
RED = Thing("red", "circle", (5, 5, 15, 15), "a red circle")
BLUE = Thing("blue", "square", (18, 18, 30, 30), "a blue square")


@pytest.fixture(scope="module")
def many():
    return [scenes.scene(5, index) for index in range(250)]


def test_a_scene_is_a_function_of_seed_and_index():
    made = [scenes.scene(1, 7) for _ in range(2)]
    assert made[0] == made[1]
    assert np.array_equal(made[0].render(), made[1].render())
    assert scenes.scene(1, 8) != made[0]
    assert scenes.scene(2, 7) != made[0]


def test_no_scene_is_both_trained_on_and_held_out(many):
    held = {scenes.scene(5, index, held_out=True).caption for index in range(50)}
    assert not held & {scene.caption for scene in many}
    assert len(scenes.scene(5, 3, most=1).things) == 1


def test_things_keep_apart_and_inside_and_differ_in_colour(many):
    assert {len(scene.things) for scene in many} == {1, 2, 3}
    assert {thing.label for scene in many for thing in scene.things} == set(LABELS)
    for scene in many:
        boxes = [thing.corners for thing in scene.things]
        assert all(min(box) >= 0 and max(box) <= SIZE for box in boxes)
        assert all(overlap(a, b) == 0 for a in boxes for b in boxes if a is not b)
        assert len({thing.colour for thing in scene.things}) == len(boxes)


def test_words_class_and_boxes_say_what_is_there(many):
    words = set(scenes.vocabulary())
    for scene in many:
        assert set(scene.caption.replace(",", "").split()) <= words
        for thing, box in zip(scene.things, parsed(scene.prompt("boxes")), strict=True):
            assert f"{thing.colour} {thing.shape}" in scene.caption
            assert box.label == thing.label
            got = np.array([box.x0, box.y0, box.x1, box.y1]) * SIZE
            np.testing.assert_allclose(got, thing.corners, atol=0.01)
        assert scene.prompt("classes") == scene.things[0].label
    assert Scene(20, (RED, BLUE)).caption == "a red circle and a blue square"


def test_a_shape_fills_exactly_its_box():
    for shape in scenes.SHAPES:
        cover = scenes.coverage(shape, (8, 12, 40, 32), 64)
        rows, columns = (np.flatnonzero(cover.max(axis) > 0.01) for axis in (1, 0))
        assert (rows[0], rows[-1], columns[0], columns[-1]) == (12, 31, 8, 39)
    square = scenes.coverage("square", (8.5, 12, 40, 32), 64)
    assert square.sum() == pytest.approx(31.5 * 20, rel=0.01)


def test_the_judge_reads_what_was_drawn(many):
    answers = [answer(scene, scene.render()) for scene in many]
    found = scores(answers)
    assert found["exact"] >= 0.98
    assert found["right"] >= 0.98
    assert found["placed"] >= 0.99
    assert found["right_3"] >= 0.95


def test_the_judge_is_not_fooled():
    picture = Scene(230, (RED, BLUE)).render()
    assert detect(np.full_like(picture, 128)) == []
    noise = np.random.default_rng(0).integers(0, 256, picture.shape, np.uint8)
    assert not answer(Scene(230, (RED, BLUE)), noise).is_right
    green = Thing("green", "circle", RED.corners, "a green circle")
    one = answer(Scene(230, (green, BLUE)), picture)
    assert (one.labelled, one.placed, one.is_right) == (1, 1, False)
    star = Thing("red", "star", RED.corners, "a red star")
    one = answer(Scene(230, (star, BLUE)), picture)
    assert (one.labelled, one.placed) == (1, 2)
    moved = Thing("red", "circle", (15, 5, 25, 15), "a red circle")
    one = answer(Scene(230, (moved, BLUE)), picture)
    assert (one.labelled, one.placed) == (2, 1)
    more = answer(Scene(230, (RED,)), picture)
    assert more.is_right
    assert scores([more])["exact"] == 0


def test_two_shapes_that_touch_are_told_apart():
    left = Thing("yellow", "square", (5, 10, 15, 20), "a yellow square")
    right = Thing("purple", "circle", (15, 10, 25, 20), "a purple circle")
    found = detect(Scene(20, (left, right)).render())
    assert {thing.label for thing in found} == {"yellow square", "purple circle"}


def test_confusion_counts_every_thing_once():
    picture = Scene(230, (RED, BLUE)).render()
    green = Thing("green", "star", (20, 3, 30, 13), "a green star")
    table = confusion([answer(Scene(230, (RED, BLUE, green)), picture)], "colour")
    rows = {line.split()[0]: line.split()[1:] for line in table.splitlines()[1:]}
    assert sum(int(n) for row in rows.values() for n in row) == 3
    assert rows["red"][0] == "1"
    assert rows["green"][-1] == "1"  # nothing was left for it
    page = sheet([answer(Scene(230, (RED,)), picture)], picture[None], ["a red circle"])
    assert page.getpixel((1, 1)) == (0, 128, 0)


@pytest.mark.parametrize("kind", ["text", "classes", "boxes"])
def test_three_steps_train_what_text2img_draws(kind, tmp_path, capsys):
    stage = {"kind": "scenes", "context": kind, "channels": [8, 16], "groups": 4, "shown": 2}
    config = {"output": str(tmp_path / "run"), "stage": {**stage, "text_width": 16}}
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({**config, "steps": 3, "batch": 4, "log_every": 1}))
    folder = loop.run(path, [])
    stack = load(str(folder), device="cpu")
    assert stack.context.kind == kind
    prompt = scenes.scene(0, 0).prompt(kind)
    quick = {"height": SIZE, "width": SIZE, "steps": 3, "guidance": 2}
    one = restore(None, Text2imgOptions(prompt=prompt, **quick), stack, seed=4)
    batch = sample_scenes(stack, ["", prompt], [9, 4], guidance=2, steps=3)
    assert abs(batch[1].astype(int) - one.pixels).max() <= 1
    assert not np.array_equal(batch[0], batch[1])
    main(str(folder), tmp_path / "score", count=2, steps=1)
    assert {p.name for p in (tmp_path / "score").iterdir()} == {
        *("sheet.png", "scores.json", "confusion.txt")
    }
    assert '"right"' in capsys.readouterr().out
    assert not closed(tmp_path)


def test_the_context_learns_with_the_unet(tmp_path):
    from restore.training.toys.scene_stage import SceneOptions, SceneStage

    shape = {"channels": (8, 16), "groups": 4, "text_width": 16, "dropped": 0}
    for kind in ("text", "classes", "boxes"):
        options = SceneOptions.model_validate({"context": kind, **shape})
        stage = SceneStage(options, 0, torch.device("cpu"))
        torch.nn.init.normal_(stage.stack.unet.conv_out.weight)  # zero passes no gradient on
        batch = torch.utils.data.default_collate([stage.samples[i] for i in range(2)])
        sum(stage.loss(batch, 0).values()).backward()
        learnt = [p.grad for p in stage.stack.context.module.parameters()]
        assert any(grad is not None and grad.abs().max() > 0 for grad in learnt)
        assert all(p.grad is None for p in stage.stack.vae.parameters())


def test_scenes_are_written_with_what_is_said_of_them(tmp_path, capsys):
    assert cli(["data", "scenes", "-o", str(tmp_path / "out"), "-n", "3", "--seed", "4"]) == 0
    made = scenes.scene(4, 2)
    with Image.open(tmp_path / "out" / "00002.png") as image:
        assert np.array_equal(np.asarray(image), made.render())
    said = json.loads((tmp_path / "out" / "00002.json").read_text())
    assert said == {"caption": made.caption, "label": made.label, "boxes": made.layout}
    assert cli(["data", "scenes", "-o", str(tmp_path / "out")]) == 2
    assert "not an empty folder" in capsys.readouterr().err


def test_their_autoencoder_goes_on_from_nanos(tmp_path):
    scenes.write(tmp_path / "pictures", 0, 4)
    path = CONFIGS / "scenes_autoencoder.yaml"
    short = ["steps=2", "batch=2", "ema=0", "warmup=0", f"output={tmp_path}/run"]
    folder = loop.run(path, [*short, f"stage.data.photos={tmp_path}/pictures"])
    tuned, nano = (AutoencoderTiny.from_pretrained(f / "vae") for f in (folder, SHIPPED / "nano"))
    moved = tuned.decoder.layers[0].weight - nano.decoder.layers[0].weight
    assert 0 < moved.abs().max() < 0.05
    other = ["stage.kind=autoencoder_kl", f"stage.data.photos={tmp_path}/pictures"]
    other += [f"output={tmp_path}/other"]
    with pytest.raises(ConfigError, match=r"is a AutoencoderTiny; take stage\.kind=autoencoder"):
        loop.run(path, [*short, *other])


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("autoencoder", "`restore data scenes -o runs/scenes` draws pictures"),
        ("classes", "runs/scenes_autoencoder/export: there is no such model; train its auto"),
    ],
)
def test_what_a_scene_config_needs_first_is_told(name, wanted, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli(["train", str(CONFIGS / f"scenes_{name}.yaml")]) in (2, 3)
    assert wanted in capsys.readouterr().err


@pytest.mark.parametrize("name", ["scenes_text", "scenes_classes", "scenes_boxes", "digits"])
def test_the_training_configs_are_valid(name):
    options = load_config(loop.TrainOptions, CONFIGS / f"{name}.yaml")
    assert options.output == Path("runs") / name
    assert name.endswith(getattr(options.stage, "context", "digits"))
