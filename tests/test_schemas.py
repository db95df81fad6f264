"""JSON schemas of the YAML files: current, named in each file, and true."""

import json

import pytest
import yaml
from documents import schemas
from pages import ROOT

CONFIGS = ROOT / "configs"
FILES = sorted(CONFIGS.rglob("*.yaml"))


def keys(node, way=()):
    """Every name of a property, by the way to it: what does not hang on pydantic's release."""
    found = set()
    if isinstance(node, dict):
        found |= {(*way, name) for name in node.get("properties", {})}
        for name, below in node.items():
            found |= keys(below, (*way, name) if name != "anyOf" else way)
    if isinstance(node, list):
        for below in node:
            found |= keys(below, way)
    return found


@pytest.mark.parametrize("name", schemas.SCHEMAS)
def test_a_schema_is_what_the_code_says(name):
    held = json.loads((CONFIGS / "schemas" / f"{name}.json").read_text(encoding="utf-8"))
    made = json.loads(json.dumps(schemas.make_schema(name)))
    told = "run `python tools/docs.py reference` and commit configs/schemas"
    assert keys(held) == keys(made), told
    assert held.get("properties", {}).keys() == made["properties"].keys(), told


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_configuration_names_its_schema_and_fits_it(path):
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    assert first.startswith("# yaml-language-server: $schema=")
    held = json.loads((path.parent / first.partition("$schema=")[2]).read_text(encoding="utf-8"))
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert values.keys() <= held["properties"].keys()
    pytest.importorskip("jsonschema").validate(values, held)


def test_a_schema_refuses_a_wrong_key_and_takes_a_step_of_ones_own():
    check = pytest.importorskip("jsonschema")
    with pytest.raises(check.ValidationError, match="stpes"):
        check.validate({"output": "x", "stpes": 3}, schemas.make_schema("train"))
    with pytest.raises(check.ValidationError):
        check.validate({"upscale": {"stesp": 3}}, schemas.make_schema("tasks"))
    recipe = {"name": "mine", "steps": [{"kind": "my_ops.Rust"}]}
    check.validate(recipe, schemas.make_schema("recipe"))


def test_a_key_is_explained_where_it_is_typed():
    made = schemas.make_schema("tasks")["$defs"]["UpscaleOptions"]["properties"]
    assert "noise in each step of ddim" in made["eta"]["description"]
    assert made["guidance"]["description"].endswith("1 is off.")  # another default, same words
