"""Trackers of a run: TensorBoard, Weights & Biases and MLflow, by accelerate."""

import csv
import shutil
from types import SimpleNamespace

import accelerate
import pytest
import yaml
from accelerate.tracking import GeneralTracker
from toy import ToyStage, train

from restore.errors import ConfigError
from restore.training import loop, trackers


@pytest.fixture
def toys(monkeypatch):
    monkeypatch.setitem(loop.STAGES, "pixels", ToyStage)
    monkeypatch.setattr(ToyStage, "met", [])


def test_tensorboard_shows_what_the_log_has_also_after_a_stop(toys, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    how = {"log_every": 1, "show_every": 2, "save_every": 2, "log_with": "auto"}
    train(tmp_path / "run", steps=3, **how)
    shutil.rmtree(tmp_path / "run" / "step_00000003")  # as if it had been killed before
    train(tmp_path / "run", steps=4, **how)
    board = tmp_path / "run" / "tensorboard" / "restore"
    events = EventAccumulator(str(board)).Reload()
    assert [event.step for event in events.Scalars("error")] == [1, 2, 3, 4]
    assert [event.step for event in events.Images("preview")] == [2, 4]
    values = [event.value for event in events.Scalars("error")]
    rows = csv.reader((tmp_path / "run" / "log.csv").read_text().splitlines())
    assert values == pytest.approx([float(x) for _, name, x in rows if name == "error"], rel=1e-4)
    told = yaml.safe_load(next(board.glob("*/hparams.yml")).read_text())
    assert told["stage.kind"] == "pixels" and told["batch"] == 4


def test_without_tensorboard_the_log_goes_on(toys, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(trackers, "get_available_trackers", list)
    caplog.set_level("INFO")
    train(tmp_path / "run", steps=1, log_with="auto")
    assert "TensorBoard is not installed" in caplog.text
    with pytest.raises(ConfigError, match="log_with: wandb is not installed; pip install wandb"):
        train(tmp_path / "other", steps=1, log_with=["wandb"])
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"log_with": ["tensorbored"]}, "log_with"),
        ({"project": "../elsewhere"}, "project"),
    ],
)
def test_trackers_and_projects_that_cannot_be_are_refused(toys, tmp_path, given, told):
    with pytest.raises(ConfigError, match=told):
        train(tmp_path / "run", **given)


class Diary(GeneralTracker):
    """A tracker that keeps what it is told, in accelerate's own terms."""

    name, requires_logging_directory = "mlflow", False
    made: list["Diary"] = []

    def __init__(self, project, **how):
        super().__init__()
        self.project, self.how, self.told = project, how, []
        Diary.made.append(self)
        self.active_run = SimpleNamespace(info=SimpleNamespace(run_id=how["run_id"] or "new"))

    @property
    def tracker(self):
        return self.told

    def store_init_configuration(self, values):
        self.told.append(values)

    def log(self, values, step=None, **more):
        self.told.append((step, values))

    def log_artifact(self, path, place=None):
        self.told.append((path, place))

    def finish(self):
        self.told.append("end")


@pytest.fixture
def diaries(toys, monkeypatch):
    """Those that stood in MLflow's place, in order."""
    monkeypatch.setattr(Diary, "made", [])
    monkeypatch.setattr(trackers, "get_available_trackers", lambda: ["mlflow"])
    monkeypatch.setattr(accelerate.accelerator, "filter_trackers", lambda names, folder: names)
    monkeypatch.setattr(accelerate.accelerator, "LOGGER_TYPE_TO_CLASS", {"mlflow": Diary})
    return Diary.made


DIARY = {"log_every": 1, "save_every": 2, "show_every": 2, "log_with": ["mlflow"]}


def test_a_tracker_is_told_all_and_goes_on_in_the_same_run(diaries, tmp_path):
    train(tmp_path / "run", steps=2, project="mine", **DIARY)
    train(tmp_path / "run", steps=4, project="mine", **DIARY)
    first, second = diaries
    assert (first.project, first.how) == ("mine", {"run_name": "run", "run_id": None})
    assert second.how["run_id"] == "new"
    options, *told, end = first.told
    assert options["stage.kind"] == "pixels" and options["log_with"] == '["mlflow"]'
    scalars = [entry for entry in told if isinstance(entry[0], int)]
    assert [step for step, values in scalars if "error" in values] == [1, 2]
    assert (str(tmp_path / "run" / "preview_00000002.png"), "previews") in told
    assert end == "end"
    assert second.told[0][0] == 3  # options that changed would be refused


def test_a_tracker_that_fails_costs_no_run(diaries, tmp_path, monkeypatch, caplog):
    def away(*told, **more):
        raise ConnectionError("nobody answers")

    monkeypatch.setattr(Diary, "log", away)
    monkeypatch.setattr(Diary, "finish", away)
    train(tmp_path / "run", steps=2, **DIARY)
    assert "mlflow failed: nobody answers; log.csv has every value" in caplog.text
    assert "\n2,error," in (tmp_path / "run" / "log.csv").read_text()
    monkeypatch.setattr(Diary, "start", away)
    with pytest.raises(ConfigError, match="log_with: mlflow cannot start: nobody answers"):
        train(tmp_path / "other", steps=2, **DIARY)


def test_weights_and_biases_goes_on_in_the_same_run(toys, tmp_path, monkeypatch):
    """Without its servers."""
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    began, begin = [], wandb.init

    def noting(**how):
        began.append(begin(**how))
        return began[-1]

    monkeypatch.setattr(wandb, "init", noting)
    how = {"log_every": 1, "save_every": 2, "show_every": 2, "log_with": ["wandb"]}
    train(tmp_path / "run", steps=2, project="mine", **how)
    train(tmp_path / "run", steps=4, project="mine", **how)
    first, second = began
    assert (first.project, first.name) == ("mine", "run") and second.id == first.id
    assert first.config["stage.kind"] == "pixels"
    grids = (tmp_path / "run" / "wandb").glob(f"*-{first.id}/files/media/images/preview_*.png")
    assert sorted(int(file.name.split("_")[1]) for file in grids) == [2, 4]


@pytest.mark.filterwarnings("default")  # its database's own
def test_mlflow_goes_on_in_the_same_run(toys, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    mlflow.create_experiment("mine", (tmp_path / "artifacts").as_uri())
    how = {"log_every": 1, "save_every": 2, "show_every": 2, "log_with": ["mlflow"]}
    train(tmp_path / "run", steps=2, project="mine", **how)
    train(tmp_path / "run", steps=4, project="mine", **how)
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("mine")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "run" and run.data.params["stage.kind"] == "pixels"
    assert [m.step for m in client.get_metric_history(run.info.run_id, "error")] == [1, 2, 3, 4]
    grids = [file.path for file in client.list_artifacts(run.info.run_id, "previews")]
    assert grids == ["previews/preview_00000002.png", "previews/preview_00000004.png"]
