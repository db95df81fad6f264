"""Whether and from where a run continues, given the checkpoints in its folder."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from restore.errors import ConfigError
from restore.training import checkpoint, contents

log = logging.getLogger(__name__)
SAME = ("seed", "batch", "stage")  # must not change
FREE = {  # may change between runs without a warning
    *("output", "resume", "steps", "workers", "device", "accumulate", "checkpointing", "compile"),
    *("channels_last", "log_every", "log_with", "project", "show_every", "save_every", "keep"),
    *("seconds", "export_every_s", "shard"),
    # where data is and how it is loaded, not what it is
    *("stage.data.photos", "stage.data.held_out", "stage.data.memory_gb", "stage.data.workers"),
    *("stage.data.fonts", "stage.cache", "stage.autoencoder", "stage.start", "stage.model"),
    *("stage.teacher.path", "stage.student", "stage.shown_steps"),
}
FREE_OF_KIND = {
    "distil": {"stage.teacher"},  # the path of a model
    "restorer": {"stage.stack", "stage.end", "stage.blend"},  # they only decide the export
}
ABSENT = "absent"


@dataclass(frozen=True)
class Choice:
    """From where a run goes on."""

    path: Path | None
    """The checkpoint; None for a new run."""
    contents: Mapping[str, str]
    """Digests of what the stage's options name."""


def choose(options: Any, is_main: bool) -> Choice:
    """From where the options let a run go on.

    It builds no model and decodes no photo, so that a wrong choice is refused before.

    Args:
        options: The options of the run.
        is_main: Whether this process cleans up after a killed run.

    Raises:
        ConfigError: If what is named is no checkpoint, a new run would mix with the checkpoints of
            an old one, or the checkpoint was made with another seed, batch or stage.
    """
    if is_main:
        checkpoint.sweep(options.output)
    path = _chosen(options.output, options.resume)
    named = contents.of(options.stage)
    if path and (progress := checkpoint.progress(path)).options:
        _compare(path, progress, options, named)
    return Choice(path, named)


def resume_run(options: Any, state: checkpoint.State, chosen: Choice) -> checkpoint.Progress:
    """Load a checkpoint into the state; returns how far it had come.

    Args:
        options: The options of the run.
        state: What is loaded into.
        chosen: What `choose` returned.

    Raises:
        ConfigError: If the checkpoint is of another model.
    """
    if chosen.path is None:
        return checkpoint.Progress(contents=chosen.contents)
    progress = checkpoint.resume(chosen.path, state)
    log.info("going on from %s", chosen.path)
    progress = replace(progress, contents=chosen.contents)
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
    step = checkpoint.progress(resume).step  # its folder may have another name by now
    if there and int(there[-1].name.removeprefix("step_")) > step:
        message = f"{out}: holds {there[-1].name}, newer than {resume}, which is of step {step}"
        raise ConfigError(f"{message}; give another output, or resume=latest")
    return resume


def _compare(
    path: Path, progress: checkpoint.Progress, options: Any, named: Mapping[str, str]
) -> None:
    changed = _changes(progress, options, named)
    other = [message for name, message in changed.items() if name.split(".")[0] in SAME]
    if other and not isinstance(options.resume, Path):
        raise ConfigError(
            f"{path}: is of a run with other options: {'; '.join(other)}. Give another output, or "
            f"resume={path} if that is meant"
        )
    for message in changed.values():
        log.warning("going on with another option: %s", message)


def _changes(
    progress: checkpoint.Progress, options: Any, named: Mapping[str, str]
) -> dict[str, str]:
    """What differs and matters, in words, by the option's key."""
    saved, current = dict(progress.options or {}), options.model_dump(mode="json")
    digests = progress.contents
    if digests is None:  # of an earlier release: a file of a recipe counts by its name
        saved, current, digests, named = _without_folders(saved), _without_folders(current), {}, {}
    hashed = digests.keys() & named.keys()  # for these the content counts, not the path
    free = FREE | FREE_OF_KIND.get(options.stage.kind, set())
    free = free - digests.keys() - named.keys() | hashed
    changed = {
        name: f"{name} was {was!r}, now {now!r}"
        for name, was, now in _differing(saved, current, options)
        if not _is_within(name, free)
    }
    for name in sorted(hashed):
        if digests[name] != named[name]:
            was, now = _value(saved, name), _value(current, name)
            message = f"{name}: {now!r} has other content than it had"
            changed[name] = message if was == now else f"{name} was {was!r}, now {now!r}"
    return changed


def _is_within(name: str, others: Iterable[str]) -> bool:
    return any(name == other or name.startswith(f"{other}.") for other in others)


def _value(values: Any, name: str) -> Any:
    for key in name.split("."):
        values = values.get(key, ABSENT) if isinstance(values, Mapping) else ABSENT
    return values


def _without_folders(values: Mapping[str, Any]) -> dict[str, Any]:
    stage = dict(values.get("stage") or {})
    data = dict(stage.get("data") or {})
    if isinstance(data.get("recipe"), str):
        data["recipe"] = Path(data["recipe"]).name
    if isinstance(data.get("recipes"), Mapping):
        data["recipes"] = {Path(name).name: share for name, share in data["recipes"].items()}
    return {**values, "stage": {**stage, "data": data} if "data" in stage else stage}


def _differing(was: Any, now: Any, options: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(name, old, new) of the values that differ.

    An option that only one of two releases has is passed over. The keys of other mappings, such as
    weights by name, are values too.
    """
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        is_group = isinstance(options, BaseModel)
        keys = was.keys() & now.keys() if is_group else was.keys() | now.keys()
        for key in sorted(keys):
            inner = getattr(options, key, None) if is_group else None
            way = f"{name}.{key}" if name else key
            yield from _differing(was.get(key, ABSENT), now.get(key, ABSENT), inner, way)
    elif _are_groups(was) and _are_groups(now) and len(was) == len(now):
        inner = options or [None] * len(now)
        for number, pair in enumerate(zip(was, now, inner, strict=True)):
            yield from _differing(*pair, f"{name}.{number}")
    elif was != now:
        yield name, was, now


def _are_groups(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(v, Mapping) for v in value)
