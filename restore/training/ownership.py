"""Which files of a run's folder are ours to replace: decided by their contents, not by name."""

import json
import re
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import get_args

import yaml

from restore.checkpoints import manifest
from restore.errors import ConfigError
from restore.files import is_ours_or_absent
from restore.training.trackers import Tracker

MADE_BY = "# Written by `restore train`, and replaced by it.\n"
LATER = {"log_with", "project", "shard"}  # options that records of older versions lack
SCALAR = re.compile(rb"\d+,[^,\n]*,[^,\n]*\r?\n")


def refuse_foreign(out: Path, options: Collection[str]) -> None:
    """Refuse a folder where the run would replace files that no run of ours wrote.

    Args:
        out: The run's folder.
        options: Names that every record of a run's options holds.

    Raises:
        ConfigError: Names the file.
    """
    options = set(options) - LATER
    kinds: dict[str, Callable[[bytes], bool]] = {
        "options.json": lambda data: _holds(json.loads(data), options),
        "config.yaml": lambda data: (
            data.startswith(MADE_BY.encode()) or _holds(yaml.safe_load(data), options)
        ),
        "unreadable.jsonl": lambda data: all(
            _holds(json.loads(line), ("picture", "why")) for line in data.splitlines()
        ),
        "log.csv": lambda data: not data or SCALAR.match(data) is not None,
        "trackers.json": lambda data: json.loads(data).keys() <= set(get_args(Tracker)),
    }
    for name, is_ours in kinds.items():
        if not is_ours_or_absent(out / name, partial(_is_like, is_ours=is_ours)):
            raise ConfigError(
                f"{out / name}: was written by no run of ours and would be replaced; move it away, "
                "or give another output"
            )
    if foreign := manifest.foreign(out / "export"):
        raise ConfigError(
            f"{foreign}: is not as a run of ours wrote it, and the export would replace it; move "
            "it away, or give another output"
        )


def _is_like(data: bytes, is_ours: Callable[[bytes], bool]) -> bool:
    try:
        return is_ours(data)
    except (ValueError, AttributeError, RecursionError, yaml.YAMLError):  # no such record
        return False


def _holds(value: object, keys: Collection[str]) -> bool:
    return isinstance(value, dict) and all(key in value for key in keys)
