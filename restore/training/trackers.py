"""The trackers of a run, by accelerate: TensorBoard, Weights & Biases, MLflow."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from PIL import Image

from restore.errors import ConfigError
from restore.files import write_text

log = logging.getLogger(__name__)
Tracker = Literal["tensorboard", "wandb", "mlflow"]


def choose(wanted: tuple[Tracker, ...] | Literal["auto"]) -> list[str]:
    """The trackers of a run; auto: TensorBoard, if it is installed.

    Raises:
        ConfigError: If one was asked for that is not installed.
    """
    installed = [str(name) for name in get_available_trackers()]
    if wanted == "auto":
        if "tensorboard" in installed:
            return ["tensorboard"]
        mend = "pip install 'restore-toolkit[train]'"
        log.info("TensorBoard is not installed (%s); log.csv has all it shows", mend)
        return []
    for name in wanted:
        if name not in installed:
            raise ConfigError(f"log_with: {name} is not installed; pip install {name}")
    return list(dict.fromkeys(wanted))


def begin(
    accelerator: Accelerator, folder: Path, project: str, options: Mapping[str, Any], first: int
) -> None:
    """Start the trackers. A run that continues is continued in the same run of each.

    The ids of these runs are in folder/trackers.json. TensorBoard drops what was logged after the
    checkpoint; Weights & Biases and MLflow keep it.

    Args:
        accelerator: Made with `log_with`.
        folder: The run's folder.
        project: The trackers' project, or experiment.
        options: The options of the run.
        first: Step from which the run continues.

    Raises:
        ConfigError: If a tracker does not start.
    """
    if not accelerator.log_with:
        return
    file = folder / "trackers.json"
    ids = json.loads(file.read_text()) if first and file.exists() else {}
    how: dict[str, Any] = {
        "tensorboard": {"purge_step": first + 1},
        "wandb": {"dir": str(folder), "name": folder.name},
        "mlflow": {"run_name": folder.name, "run_id": ids.get("mlflow")},
    }
    if "wandb" in ids:
        how["wandb"] |= {"id": ids["wandb"], "resume": "allow"}
    # MLflow refuses options that have changed since
    config = None if first else dict(_flatten(options))
    try:
        accelerator.init_trackers(project, config, how)
    except Exception as error:  # each package has its own errors for a missing server or key
        accelerator.trackers = []  # one that has not started cannot be ended
        names = ", ".join(map(str, accelerator.log_with))
        mend = f"mend that, or leave it out of log_with; {file.name} names the run to continue"
        raise ConfigError(f"log_with: {names} cannot start: {error}; {mend}") from error
    found = {tracker.name: _id(tracker) for tracker in accelerator.trackers}
    ids |= {name: run for name, run in found.items() if run}
    if ids:
        write_text(file, json.dumps(ids) + "\n")


def log_scalars(accelerator: Accelerator, step: int, values: Mapping[str, float]) -> None:
    """Tell each tracker the values of a step. One that fails loses them; the run goes on."""
    _tell_all(accelerator, lambda tracker: tracker.log(dict(values), step=step))


def log_picture(accelerator: Accelerator, step: int, picture: Image.Image, file: Path) -> None:
    """Show each tracker a grid of samples.

    Args:
        accelerator: Its trackers have begun.
        step: Number of updates done.
        picture: The grid.
        file: Where the grid was saved.
    """

    def show(tracker: Any) -> None:
        if tracker.name == "tensorboard":
            tracker.log_images({"preview": np.asarray(picture)[None]}, step, dataformats="NHWC")
        elif tracker.name == "wandb":
            tracker.log_images({"preview": [picture]}, step)
        else:
            tracker.log_artifact(str(file), "previews")

    _tell_all(accelerator, show)


def end(accelerator: Accelerator) -> None:
    """End the trackers. The run is done then, whatever a tracker says."""
    _tell_all(accelerator, lambda tracker: tracker.finish())
    accelerator.trackers = []


def _tell_all(accelerator: Accelerator, tell: Callable[[Any], None]) -> None:
    for tracker in accelerator.trackers:
        try:
            tell(tracker)
        except Exception as error:  # a server that is away must not cost a run of days
            log.warning("%s failed: %s; log.csv has every value", tracker.name, error)


def _id(tracker: Any) -> str | None:
    if tracker.name == "wandb":
        return tracker.run.id
    return tracker.active_run.info.run_id if tracker.name == "mlflow" else None


def _flatten(options: Mapping[str, Any], way: str = "") -> Iterator[tuple[str, Any]]:
    """(stage.data.crop, 64) and the like, with values that trackers accept."""
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{way}{name}.")
        else:
            is_plain = isinstance(value, str | int | float) or value is None
            yield f"{way}{name}", value if is_plain else json.dumps(value)
