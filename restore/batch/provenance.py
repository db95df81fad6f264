"""What a row, and a result itself, record of what made it."""

import json
from typing import Any

from restore.batch.rows import Row


def describe_maker(made_by: dict[str, object]) -> Row:
    """What a row records of what made a picture beside the model: the engine, a ControlNet, ..."""
    prefixes = "control", "first_stage", "faithful"
    beside = {name: value for name, value in made_by.items() if name.startswith(prefixes)}
    return {"engine": made_by.get("engine", "torch"), **beside}


def format_settings(options: Any, seed: int, made_by: dict[str, object]) -> str:
    """What is needed to make a picture again, as JSON: `--set` takes each option in it."""
    values = options.model_dump(mode="json", exclude={"task", *options.run_only})
    return json.dumps({options.task: values, "seed": seed, **made_by})
