"""What may differ when a run goes on: paths, but not what lies there, nor weights by name."""

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from restore.checkpoints import manifest
from restore.diffusion.restorer import Restorer
from restore.errors import ConfigError
from restore.training import contents, loop, resume
from restore.training.checkpoint import Progress
from restore.training.options import TrainOptions

NOISE = "name: mine\nsteps: [{kind: gaussian_noise, sigma_levels: [1, 9]}]\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory, pixels):
    folder = tmp_path_factory.mktemp("resume")
    for name in ("photos", "low", "fonts"):
        (folder / name).mkdir()
    for number in range(2):
        Image.fromarray(pixels(48, 48, number)).save(folder / "photos" / f"{number}.png")
        Image.fromarray(pixels(24, 24, number)).save(folder / "low" / f"{number}.png")
    (folder / "mine.yaml").write_text(NOISE)
    torch.manual_seed(0)
    save_file(Restorer(8, 1).state_dict(), folder / "teacher.safetensors")
    shutil.copytree(Path(__file__).parents[1] / "restore/weights/nano/vae", folder / "coder/vae")
    (folder / "fonts" / "one.ttf").write_bytes(b"one")
    return folder


@pytest.fixture
def here(place, tmp_path):
    """A copy, to be changed."""
    return Path(shutil.copytree(place, tmp_path / "here"))


def restorer(here, **more):
    data = {"photos": f"{here}/photos", "crop": 32, "recipes": {f"{here}/mine.yaml": 1}}
    data |= {"drawn": 0.5, "fonts": f"{here}/fonts"} | more.pop("data", {})
    teacher = {"path": f"{here}/teacher.safetensors"}
    return {"kind": "restorer", "channels": 8, "layers": 1, "data": data, "teacher": teacher} | more


def denoiser(here, **more):
    data = {"photos": f"{here}/photos", "low": f"{here}/low", "crop": 128} | more.pop("data", {})
    return {"kind": "denoiser", "autoencoder": f"{here}/coder", "data": data} | more


def distil(here, **more):
    data = {"photos": f"{here}/photos", "recipe": f"{here}/mine.yaml", "crop": 128}
    return {"kind": "distil", "teacher": f"{here}/coder", "data": data | more.pop("data", {})}


def options(stage):
    return TrainOptions.model_validate({"output": "run", "stage": stage})


def saved(stage, is_old=False) -> Progress:
    """What state.json has of a run with such a stage."""
    asked = options(stage)
    values = json.loads(asked.model_dump_json())
    return Progress(1, options=values, contents=None if is_old else contents.of(asked.stage))


def changes(was: Progress, stage) -> set[str]:
    asked = options(stage)
    return set(resume._changes(was, asked, contents.of(asked.stage)))


@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize("kind", [restorer, denoiser, distil])
def test_what_was_only_moved_is_no_change(here, tmp_path, kind, is_old):
    was = saved(kind(here), is_old)
    there = here.rename(tmp_path / "there")
    found = changes(was, kind(there))
    assert found == ({"stage.data.low"} if is_old and kind is denoiser else set())


@pytest.mark.parametrize(
    "kind, file, key",
    [
        (restorer, "mine.yaml", "data.recipes"),
        (restorer, "teacher.safetensors", "teacher.path"),
        (restorer, "photos/1.png", "data.photos"),
        (restorer, "fonts/one.ttf", "data.fonts"),
        (distil, "mine.yaml", "data.recipe"),
        (distil, "coder/vae/diffusion_pytorch_model.safetensors", "teacher"),
        (denoiser, "low/1.png", "data.low"),
        (denoiser, "coder/vae/diffusion_pytorch_model.safetensors", "autoencoder"),
    ],
)
def test_what_is_another_under_its_old_name_is_a_change(here, kind, file, key):
    was, path = saved(kind(here)), here / file
    if path.name == "mine.yaml":
        path.write_text(NOISE.replace("9", "8"))
    else:
        path.write_bytes(path.read_bytes() + b" ")
    assert changes(was, kind(here)) == {f"stage.{key}"}


@pytest.mark.parametrize("is_old", [False, True])
def test_weights_by_name_differ_where_only_one_has_the_name(here, is_old):
    was = saved(restorer(here), is_old)
    others = {"realesrgan": 1.0, f"{here}/mine.yaml": 1.0}
    found = changes(was, restorer(here, data={"recipes": others}))
    assert found == ({"stage.data.recipes.realesrgan"} if is_old else {"stage.data.recipes"})
    assert changes(was, restorer(here, data={"recipes": {"realesrgan": 1}}))
    whole = {"kind": "denoiser", "autoencoder": f"{here}/coder"}
    before = whole | {"data": {"photos": f"{here}/photos"}}
    now = whole | {"data": {"photos": f"{here}/photos", "tasks": {"restore": 0.7}}}
    gone = {f"stage.data.tasks.{name}" for name in ("fill", "both", "nothing")}
    assert changes(saved(before, is_old), now) == gone


@pytest.mark.parametrize("is_old", [False, True])
def test_a_part_that_was_added_or_left_out_is_a_change(here, is_old):
    without = restorer(here, teacher=None)
    assert "stage.teacher" in changes(saved(restorer(here), is_old), without)
    assert "stage.teacher" in changes(saved(without, is_old), restorer(here))
    bare = {"fonts": None}
    if not is_old:
        assert changes(saved(restorer(here, data=bare)), restorer(here)) == {"stage.data.fonts"}


def test_arguments_of_a_transform_are_values_too(here):
    def turned(**params):
        return restorer(here, data={"geometry": [{"transform": "Affine", "params": params}]})

    pytest.importorskip("albumentations")
    was = saved(turned(rotate=[-9, 9]))
    assert changes(was, turned(scale=[1, 2])) == {
        "stage.data.geometry.0.params.rotate",
        "stage.data.geometry.0.params.scale",
    }
    assert not changes(was, turned(rotate=[-9, 9]))


def test_an_option_or_digest_that_an_older_release_had_not_is_no_change(here):
    was = saved(restorer(here))
    del was.options["stage"]["data"]["shrink"], was.contents["stage.data.photos"]
    was.options["stage"]["of_old"] = 1
    assert not changes(was, restorer(here))


def test_what_only_decides_the_export_may_change(here):
    blended = {"path": f"{here}/teacher.safetensors"}
    now = restorer(here, stack="nano", end="faithful", blend=blended)
    assert not changes(saved(restorer(here)), now)


def test_a_fusion_reads_the_restorer_that_it_began_with(here, tmp_path):
    Restorer(8, 1).save_pretrained(tmp_path / "export" / "restorer")
    stage = {"kind": "fusion", "data": {"photos": f"{here}/photos"}}
    was = saved(stage | {"restorer": f"{tmp_path}/export"})
    (tmp_path / "export").rename(tmp_path / "moved")
    assert not changes(was, stage | {"restorer": f"{tmp_path}/moved"})
    Restorer(8, 1).save_pretrained(tmp_path / "moved" / "restorer")
    assert changes(was, stage | {"restorer": f"{tmp_path}/moved"}) == {"stage.restorer"}
    assert changes(saved(stage | {"stack": "nano"}), stage | {"restorer": f"{tmp_path}/moved"})


def test_a_run_goes_on_from_the_same_contents_and_refuses_others(here, tmp_path, caplog):
    run, config = tmp_path / "run", tmp_path / "t.yaml"
    values = {"output": str(run), "stage": restorer(here, data={"drawn": 0, "fonts": None})}
    values |= {"batch": 1, "device": "cpu", "log_with": []}
    config.write_text(yaml.safe_dump(values))
    loop.run(config, ["steps=1"])
    state = run / "step_00000001" / "state.json"
    assert json.loads(state.read_text())["contents"].keys() == {
        "stage.data.photos", "stage.data.recipes", "stage.teacher.path",
    }  # fmt: skip
    recipe = here / "mine.yaml"
    recipe.write_text(NOISE.replace("9", "8"))
    with pytest.raises(ConfigError, match=r"stage\.data\.recipes: .*mine.* has other content"):
        loop.run(config, ["steps=2"])
    recipe.write_text(NOISE)
    values = json.loads(state.read_text())
    del values["contents"]  # as earlier releases wrote it
    state.write_text(json.dumps(values))
    manifest.write(state.parent)
    loop.run(config, ["steps=2"])
    assert (
        "stage.data.recipes"
        in json.loads((run / "step_00000002" / "state.json").read_text())["contents"]
    )
