"""JSON schemas of the YAML files, so that editors complete and check them."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, create_model

from documents.reference import ROOT

SCHEMAS = ("train", "tasks", "recipe")  # files of configs/schemas
OWN = {  # a step that is a class of the user's: FILE.CLASS
    "type": "object",
    "required": ["kind"],
    "properties": {"kind": {"type": "string", "pattern": r"\."}},
}


def write(folder: Path) -> None:
    """Write the schemas to a folder."""
    folder.mkdir(exist_ok=True)
    for name in SCHEMAS:
        text = json.dumps(make_schema(name), indent=1, sort_keys=True, ensure_ascii=False)
        text = text.replace(f'"{ROOT}/', '"')  # in a default: drop where the checkout lies
        (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def make_schema(name: str) -> dict[str, Any]:
    """Make the schema of one of SCHEMAS."""
    from degradations import Recipe
    from restore import options
    from restore.training.options import TrainOptions

    tasks = (
        options.UpscaleOptions,
        options.InpaintOptions,
        options.Img2imgOptions,
        options.Text2imgOptions,
    )
    sections: dict[str, Any] = {
        one.model_fields["task"].default: (one | None, None) for one in tasks
    }
    several = create_model("Tasks", **sections, __config__=ConfigDict(extra="forbid"))
    kind: type[BaseModel] = {"train": TrainOptions, "tasks": several, "recipe": Recipe}[name]
    made = kind.model_json_schema()
    made["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return _open(made) if name == "recipe" else made


def _open(node: Any) -> Any:
    """Allow steps of a user's own class in a recipe's schema."""
    if isinstance(node, list):
        return [_open(one) for one in node]
    if not isinstance(node, dict):
        return node
    node = {key: _open(value) for key, value in node.items()}
    if "discriminator" in node:
        del node["discriminator"]
        node["anyOf"] = [*node.pop("oneOf"), OWN]
    return node
