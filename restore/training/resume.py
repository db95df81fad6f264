"""Whether and from where a run continues, given the checkpoints in its folder."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from restore.errors import ConfigError
from restore.training import checkpoint

log = logging.getLogger(__name__)
SAME = ("seed", "batch", "stage")  # must not change
FREE = {  # may change between runs without a warning
    *("output", "resume", "steps", "workers", "device", "accumulate", "checkpointing", "compile"),
    *("channels_last", "log_every", "log_with", "project", "show_every", "save_every", "keep"),
    *("seconds", "export_every_s", "shard"),
    # where data is and how it is loaded, not what it is
    *("stage.data.photos", "stage.data.memory_gb", "stage.data.workers"),
    *("stage.data.held_out", "stage.data.fonts", "stage.cache", "stage.autoencoder", "stage.start"),
    *("stage.model", "stage.teacher", "stage.student", "stage.shown_steps"),
}


def resume_run(options: Any, state: checkpoint.State, is_main: bool) -> checkpoint.Progress:
    """Load the checkpoint that the options choose into the state; returns how far it had come.

    Args:
        options: The options of the run.
        state: What is loaded into.
        is_main: Whether this process cleans up after a killed run.

    Raises:
        ConfigError: If the checkpoint is of another model, was made with another seed, batch or
            stage, or if a new run would mix with the checkpoints of an old one.
    """
    out = options.output
    if is_main:
        checkpoint.sweep(out)
    path = _chosen(out, options.resume)
    if path is None:
        return checkpoint.Progress()
    progress = checkpoint.resume(path, state)
    if progress.options:
        _compare(path, progress.options, options.model_dump(mode="json"), options.resume)
    log.info("going on from %s", path)
    if progress.position < 0:
        return replace(progress, position=progress.step * options.batch)
    return progress


def _chosen(out: Path, resume: bool | str | Path) -> Path | None:
    there = checkpoint.steps(out)
    if resume is False:
        if there:
            raise ConfigError(
                f"{out}: holds checkpoints of another run, up to {there[-1].name}; give another "
                "output, or resume=latest to go on"
            )
        return None
    if not isinstance(resume, Path):
        return checkpoint.latest(out)
    if not checkpoint.is_valid(resume):
        raise ConfigError(f"resume: {resume} is no checkpoint, or a damaged one; try resume=latest")
    if newer := [path for path in there if path.name > resume.name]:
        message = f"{out}: holds {newer[-1].name}, newer than {resume.name}"
        raise ConfigError(f"{message}; give another output, or resume=latest")
    return resume


def _compare(path: Path, was: Mapping[str, Any], now: Mapping[str, Any], resume: object) -> None:
    changed = {
        name: f"{name} was {old!r}, now {new!r}"
        for name, old, new in _differing(was, now)
        if name not in FREE
    }
    other = [message for name, message in changed.items() if name.split(".")[0] in SAME]
    if other and not isinstance(resume, Path):
        raise ConfigError(
            f"{path}: is of a run with other options: {'; '.join(other)}. Give another output, or "
            f"resume={path} if that is meant"
        )
    for message in changed.values():
        log.warning("going on with another option: %s", message)


def _differing(was: Mapping[str, Any], now: Mapping[str, Any], way: str = ""):
    """(name, old, new) of the values that differ; what only one of the two has is passed over."""
    for key in was.keys() & now.keys():
        old, new, name = was[key], now[key], f"{way}{key}"
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differing(old, new, f"{name}.")
        elif old != new:
            yield name, old, new
