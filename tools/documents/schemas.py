"""JSON schemas of the YAML files, so that editors complete and check them."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, create_model
from pydantic.json_schema import GenerateJsonSchema

from documents.reference import ROOT

SCHEMAS = ("train", "tasks", "recipe")  # files of configs/schemas


class _AsYaml(GenerateJsonSchema):
    """Spells defaults as a file does: a range is [0.2, 3]."""

    def encode_default(self, dft: Any) -> Any:
        from degradations.ranges import spell

        return super().encode_default(spell(dft))


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
    made = kind.model_json_schema(schema_generator=_AsYaml)
    made["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return _with_steps(made) if name == "recipe" else made


def _with_steps(made: dict[str, Any]) -> dict[str, Any]:
    """Ask for the kind of each step, and allow steps whose class is not ours."""
    from degradations.ops import plugins

    kinds, ranges = [], {}
    for model in list(made["$defs"].values()):
        for field in model["properties"].values():
            if {"required": ["choice"]}.items() <= field.get("anyOf", [{}])[-1].items():
                spellings = field.pop("anyOf")  # long, and the same for many fields
                at = ranges.setdefault(json.dumps(spellings), f"Range{len(ranges) + 1}")
                made["$defs"][at] = {"anyOf": spellings}
                field["$ref"] = f"#/$defs/{at}"
        kind = model["properties"].get("kind", {}).get("const")
        if kind:
            kinds.append(kind)
            model["required"] = sorted({"kind", *model.get("required", ())})
    made["$defs"]["Albumentations"] = {
        "type": "object",
        "description": "A pixel transform of albumentations.",
        "required": ["kind", "transform"],
        "additionalProperties": False,
        "properties": {
            "kind": {"const": plugins.ALBUMENTATIONS, "type": "string"},
            "transform": {"type": "string", "description": "Its name, such as RandomFog."},
            "params": {"type": "object", "description": "Its arguments."},
        },
    }
    made["$defs"]["Own"] = {
        "type": "object",
        "description": "A class of your own, FILE.CLASS, or the step of an installed package.",
        "required": ["kind"],
        "properties": {
            "kind": {"type": "string", "not": {"enum": [*kinds, plugins.ALBUMENTATIONS]}}
        },
    }
    others = [{"$ref": f"#/$defs/{name}"} for name in ("Albumentations", "Own")]
    return _open(made, others)


def _open(node: Any, others: list[dict[str, str]]) -> Any:
    """Allow others wherever a step stands."""
    if isinstance(node, list):
        return [_open(one, others) for one in node]
    if not isinstance(node, dict):
        return node
    node = {key: _open(value, others) for key, value in node.items()}
    if "discriminator" in node:
        del node["discriminator"]
        node["anyOf"] = [*node.pop("oneOf"), *others]
    return node
