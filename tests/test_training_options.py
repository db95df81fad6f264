"""The options of a run as a person writes them: files beside the config, one value for a list."""

from pathlib import Path

import pytest
import yaml

from degradations import recipes
from restore.config import load_config, shipped
from restore.errors import ConfigError
from restore.training.options import TrainOptions

CONFIGS = {name: path for name, path in shipped().items() if name.startswith("train/")}
NOISE = "name: {}\nsteps: [{{kind: gaussian_noise, sigma_levels: [1, 9]}}]\n"
RESTORER = {"output": "run", "stage": {"kind": "restorer", "data": {"photos": "photos"}}}


@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "train/faded"])
def test_every_config_that_ships_is_read_in_any_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(NOISE.format("mine"))  # custom_degradation's, one's own
    assert load_config(TrainOptions, CONFIGS[name]).stage


def config(folder: Path, **data) -> Path:
    values = {**RESTORER["stage"], "data": {**RESTORER["stage"]["data"], **data}}
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump({**RESTORER, "stage": values}))
    return path


@pytest.mark.parametrize("one", [True, False])
def test_a_recipe_lies_beside_its_config_or_in_the_working_folder(tmp_path, monkeypatch, one):
    beside, here = tmp_path / "beside", tmp_path / "here"
    for folder in (beside, here):
        folder.mkdir()
        (folder / "both.yaml").write_text(NOISE.format(folder.name))
    (here / "own.yaml").write_text(NOISE.format("own"))
    monkeypatch.chdir(here)

    def found(name, *sets):
        path = config(beside, recipes=name if one else {name: 1})
        data = load_config(TrainOptions, path, sets).stage.data
        return [recipes.find(name).name for name in data.recipes]

    assert found("both.yaml") == ["beside"]
    assert found("own.yaml") == ["own"]
    assert found("scan") == ["scan"]
    assert found("scan", "stage.data.recipes=both.yaml") == ["here"]  # a person types it here


def test_a_path_may_begin_at_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "mine.yaml").write_text(NOISE.format("mine"))
    path = config(tmp_path, photos="~/photos", recipes={"~/mine.yaml": 1})
    options = load_config(TrainOptions, path, ["output=~/runs/x"])
    assert options.output == tmp_path / "home" / "runs" / "x"
    assert options.stage.data.photos == tmp_path / "home" / "photos"
    assert recipes.find(next(iter(options.stage.data.recipes))).name == "mine"


@pytest.mark.parametrize(
    "given, means",
    [("wandb", ("wandb",)), ("none", ()), ("[]", ()), ("auto", "auto"), ("[mlflow]", ("mlflow",))],
)
def test_one_tracker_or_none_needs_no_list(tmp_path, given, means):
    options = load_config(TrainOptions, config(tmp_path), [f"log_with={given}"])
    assert options.log_with == means


@pytest.mark.parametrize("given", ["wandbb", "[tensorboard, wandbb]"])
def test_a_wrong_name_in_a_list_is_told_once(tmp_path, given):
    with pytest.raises(ConfigError, match=r"\Alog_with=.*not 'wandbb'; did you mean 'wandb'\?\Z"):
        load_config(TrainOptions, config(tmp_path), [f"log_with={given}"])


@pytest.mark.parametrize(
    "given, says",
    [
        ("stage.data.severity=0.5", "stage.data.severity must be a list of 2 values, not 0.5"),
        ("stage.data.severity=[0, 0, 1]", "stage.data.severity must be a list of 2 values, not"),
        ("stage.data.geometry=flip", "stage.data.geometry must be a list: [ONE, TWO], not 'flip'"),
        ("device=gpu", "device: 'gpu' does not fit; it is: auto, cpu, mps, cuda or cuda:N"),
        ("stage.perceptual=lpips", "must hold keys, such as {kind: ...}, not 'lpips'"),
        ("stage.teacher=x", "stage.teacher must hold keys, such as {path: ...}, not 'x'"),
        ("stage.data.recipes=[a]", "must hold keys, such as {KEY: ...}, not ['a']"),
        ("stage.data.photos=3", "stage.data.photos must be a path, not 3"),
        ("stage.data.photos={datasett: a}", "photos.datasett is not an option of DatasetOptions"),
        ("batch=true", "batch must be a valid number, not True"),
        ("stage.data.memory_gb=no", "stage.data.memory_gb must be a valid number, not False"),
        ("stage.data.severity=[0, on]", "stage.data.severity.1 must be a valid number, not True"),
        ("stage.data.recipes={mild: yes}", "recipes.mild must be a valid number, not True"),
        ("resume=3", "resume must be true or false, not 3, or be 'latest', or be a path"),
        ("channels_last=3", "channels_last must be true or false, not 3, or be 'auto'"),
        ("log_with=wandbb", "log_with.0 must be 'tensorboard', 'wandb' or 'mlflow', not 'wandbb'"),
    ],
)
def test_a_wrong_value_is_told_in_the_words_of_a_file(tmp_path, given, says):
    with pytest.raises(ConfigError) as told:
        load_config(TrainOptions, config(tmp_path), [given])
    assert says in str(told.value)


def test_an_option_file_of_basicsr_is_told_in_one_line(tmp_path):
    path = tmp_path / "train_x4.yml"
    path.write_text("name: x4\nscale: 4\nnetwork_g: {type: RRDBNet}\n")
    with pytest.raises(ConfigError, match=r"of BasicSR; `restore degrade import`") as error:
        load_config(TrainOptions, path)
    assert len(str(error.value).splitlines()) == 1
