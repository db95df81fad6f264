"""JSON schemas of the YAML files: current, named in each file, and true."""

import json

import pytest
import yaml
from documents import schemas
from pages import ROOT

from degradations import Recipe, ops

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


STEPS = (
    {"kind": "albumentations", "transform": "RandomFog"},
    {"kind": "albumentations", "transform": "RandomFog", "params": {"alpha_coef": 0.1}},
    {"kind": "my_ops.Rust", "amount": [0.2, 0.6]},
    {"kind": "rust"},  # of an installed package, by its entry point
    {"kind": "blur", "sigma": 1, "size": 7, "shape": "isotropic"},
    {"kind": "blur", "sigma": {"log": [0.1, 1]}, "size": {"choice": [7, 9], "weights": [1, 2]}},
    {"kind": "blur", "sigma": {"choice": [1, [2, 3], {"choice": [{"log": [4, 5]}]}]}},
    {"kind": "maybe", "p": 0.5, "step": {"kind": "repeat", "steps": [], "n": [1, 3]}},
)
NO_STEPS = (
    {},
    {"sigma": [1, 2]},
    {"kind": "blur", "sgima": 3},
    {"kind": "blur", "sigma": "abc"},
    {"kind": "blur", "sigma": "1e-4"},
    {"kind": "blur", "sigma": -1},
    {"kind": "blur", "sigma": [1, 2, 3]},
    {"kind": "blur", "sigma": {"low": 1, "high": 2}},
    {"kind": "blur", "sigma": {"choice": []}},
    {"kind": "blur", "size": [7, 21]},
    {"kind": "blur", "size": 8},
    {"kind": "jpeg", "quality": 500},
    {"kind": "jpeg", "chroma": "4:1:1"},
    {"kind": "one_of"},
    {"kind": "one_of", "steps": []},
    {"kind": "one_of", "steps": [{"sigma": 3}]},
    {"kind": "maybe", "p": 2, "step": {"kind": "jpeg"}},
    {"kind": "albumentations"},
    {"kind": "albumentations", "transform": "RandomFog", "parms": {}},
)


@pytest.mark.parametrize("step", STEPS, ids=str)
def test_a_step_that_a_recipe_takes_fits_the_schema(step):
    check = pytest.importorskip("jsonschema")
    check.validate({"name": "a", "steps": [step]}, schemas.make_schema("recipe"))
    if step["kind"] in ops.OPS | ops.GROUPS:
        Recipe.model_validate({"name": "a", "steps": [step]})


@pytest.mark.parametrize("step", NO_STEPS, ids=str)
def test_a_step_that_a_recipe_refuses_does_not_fit_the_schema(step):
    check = pytest.importorskip("jsonschema")
    values = {"name": "a", "steps": [step]}
    with pytest.raises(ValueError):
        Recipe.model_validate(values)
    with pytest.raises(check.ValidationError):
        check.validate(values, schemas.make_schema("recipe"))


@pytest.mark.parametrize("kind", ops.OPS | ops.GROUPS)
def test_every_default_in_the_schema_may_be_written_into_a_file(kind):
    check = pytest.importorskip("jsonschema")
    made = schemas.make_schema("recipe")
    model = (ops.OPS | ops.GROUPS)[kind]
    needed = {"maybe": {"p": 1, "step": {"kind": "jpeg"}}}.get(kind, {"steps": [{"kind": "jpeg"}]})
    needed = needed if kind in ops.GROUPS else {}
    fields = made["$defs"][model.__name__]["properties"]
    defaults = {name: field["default"] for name, field in fields.items() if "default" in field}
    step = needed | defaults
    assert model.model_validate(step) == model.model_validate({"kind": kind} | needed)
    check.validate({"name": "a", "steps": [step]}, made)


def test_a_key_is_explained_where_it_is_typed():
    made = schemas.make_schema("tasks")["$defs"]["UpscaleOptions"]["properties"]
    assert "noise in each step of ddim" in made["eta"]["description"]
    assert made["guidance"]["description"].endswith("1 is off.")  # another default, same words
