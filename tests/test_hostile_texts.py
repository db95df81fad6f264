"""YAML, option files and traces of anybody: refused in a line, and never a hang or a traceback."""

import json
import math
import os
import time

import numpy as np
import psutil
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import degradations
from degradations import RecipeError, Trace, device, plain_yaml, recipes
from degradations.ops import Blur, SensorNoise, Stains
from degradations.ranges import Choice
from restore import cli
from restore.config import load_options, read_yaml
from restore.errors import ConfigError
from restore.files import read_lines, read_plain, sha256
from restore.options import UpscaleOptions

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10)
)
HOSTILE = {
    "aliases": LAUGHS.encode(),
    "deep": b"[" * 5000,
    "deep and whole": b"a: " + b"[" * 500 + b"]" * 500,
    "deep blocks": b"".join(b" " * n + b"a:\n" for n in range(2000)),
    "cyclic": b"a: &a [*a]",
    "cyclic mapping": b"&a {a: *a}",
    "latin": "name: caf\u00e9".encode("latin-1"),
    "digits": b"a: " + b"9" * 6000,
    "date": b"a: 2001-99-99",
    "many": b"- 1\n" * 200_000,
    "large": b"# " + b"x" * 2**22,
    "object": b"a: !!python/object/apply:os.system ['true']",
    "list key": b"{[a]: 1}",
    "tab": b"a:\n\t- 1",
    "nul": b"a: \0",
    "undefined": b"a: *b",
    "twice": b"%YAML 3.0\n---\n...\n---\n",
}


def path_of(folder, data, name="a.yaml"):
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_yaml_is_refused_in_a_line_and_at_once(tmp_path, data):
    path = path_of(tmp_path, data)
    began = time.process_time()
    for read, error in ((read_yaml, ConfigError), (degradations.Recipe.load, RecipeError)):
        with pytest.raises(error) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}: ") and len(str(caught.value)) < 2000
    assert time.process_time() - began < 15


def test_a_pipe_is_no_yaml(tmp_path):
    os.mkfifo(tmp_path / "a.yaml")
    with pytest.raises(ConfigError, match="no plain file"):
        read_yaml(tmp_path / "a.yaml")


def test_honest_anchors_and_encodings_are_read(tmp_path):
    text = "base: &b {x: 1, y: [1, 2]}\nother: {<<: *b, z: caf\u00e9}\nthird: *b\n"
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        tree = read_yaml(path_of(tmp_path, text.encode(encoding)))
        assert tree["other"] == {"x": 1, "y": [1, 2], "z": "caf\u00e9"}


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=10,
)
KEYS = st.sampled_from(["name", "steps", "kind", "factor", "quality", "sharpen", "p", "step"])
RECIPES = st.recursive(
    SCALARS | st.sampled_from(["resize", "jpeg", "blur", "one_of", "maybe", "repeat"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
EVERY = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@EVERY
@given(st.binary(max_size=200) | TREES.map(lambda t: json.dumps(t).encode()))
def test_any_bytes_are_options_or_a_refusal(tmp_path, data):
    path = path_of(tmp_path, data)
    try:
        load_options(UpscaleOptions, "upscale", path)
    except ConfigError as error:
        assert str(error)


@EVERY
@given(RECIPES)
def test_any_tree_is_a_recipe_or_a_refusal(tmp_path, tree):
    path = path_of(tmp_path, json.dumps(tree).encode())
    try:
        made = degradations.Recipe.load(path)
    except RecipeError as error:
        assert str(error).startswith(str(path))
    else:
        made.draw((16, 16), 2, 0, "a")


@EVERY
@given(st.text(max_size=30), st.text(max_size=200))
def test_any_word_of_set_is_a_value_or_a_refusal(key, value):
    try:
        load_options(UpscaleOptions, "upscale", None, [f"upscale.{key}={value}"])
    except ConfigError as error:
        assert str(error)


HR = np.random.default_rng(0).integers(0, 256, (24, 20, 3), np.uint8)


def a_trace(seed=0, name="realesrgan"):
    return json.loads(recipes.named(name).draw(HR.shape[:2], 2, seed, "k").to_json())


def replayed(tmp_path, tree):
    path = path_of(tmp_path, json.dumps(tree).encode(), "t.json")
    return degradations.replay(Trace.load(path), HR)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"steps": [{"kind": "resize", "of": "current", "factor": 1e6}]}, "largest number"),
        ({"steps": [{"kind": "resize", "of": "current", "factor": 9e4}]}, "lacks|the limit is"),
        ({"steps": [{"kind": "resize", "of": "current", "factor": math.nan}]}, "largest number"),
        ({"steps": [{"kind": "jpeg"}]}, r"steps\[0\] \(jpeg\) cannot be done: lacks"),
        ({"steps": [{"kind": "jpeg", "quality": "x", "chroma": 3}]}, r"steps\[0\]"),
        ({"steps": [{"nokind": 1}]}, "names no kind"),
        ({"steps": [{"kind": "os.system"}]}, "imports nothing"),
        ({"steps": [{"kind": "jpeg"}] * 2000}, "2,000 steps"),
        ({"scale": 0}, "scale must be 1 or more"),
        ({"scale": 1e9}, "scale must be .* up to"),
        ({"hr_size": [10**9, 10**9]}, "a side is from 1 to"),
        ({"steps": 3}, "not a trace"),
    ],
)
def test_a_hostile_trace_is_refused_in_a_line(tmp_path, change, told):
    with pytest.raises(RecipeError, match=told) as caught:
        replayed(tmp_path, {**a_trace(), **change})
    assert "\n" not in str(caught.value)


def test_a_hostile_trace_ends_the_command_with_2(tmp_path, capsys):
    from PIL import Image

    Image.fromarray(HR).save(tmp_path / "hr.png")
    step = {"kind": "resize", "of": "current", "factor": 9e4, "mode": "area", "antialias": True}
    path = path_of(tmp_path, json.dumps({**a_trace(), "steps": [step]}).encode(), "t.json")
    words = ["degrade", "replay", path, tmp_path / "hr.png", "-o", tmp_path / "out.png"]
    assert cli.main([str(word) for word in words]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said and "the limit is" in said


ODD = st.sampled_from([0, -1, 1, 0.5, 99_999, -99_999.5, 1e300, math.nan, "x", "", None, [], {}])


@EVERY
@given(
    st.sampled_from(sorted(recipes.NAMED)),
    st.integers(0, 20),
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10), ODD), min_size=1, max_size=3),
)
def test_any_values_in_a_trace_are_replayed_or_refused(tmp_path, name, seed, changes):
    tree = a_trace(seed, name)
    for step, key, value in changes:
        if tree["steps"]:
            params = tree["steps"][step % len(tree["steps"])]
            names = sorted(params)
            params[names[key % len(names)]] = value
    began = time.process_time()
    try:
        made = replayed(tmp_path, tree)
    except RecipeError as error:
        assert "\n" not in str(error)
    else:
        assert made.shape == (12, 10, 3)
    assert time.process_time() - began < 30


@pytest.mark.parametrize(
    ("step", "name", "value"),
    [
        (Blur(shape=Choice(("plateau_anisotropic",))), "beta", -1),
        (Blur(shape=Choice(("generalised_isotropic",))), "beta", 99_999),
        (SensorNoise(), "gains", [2, 1, 0]),
        (SensorNoise(), "gains", 0),
        (Stains(), "count", 99_999),
    ],
)
def test_a_value_that_no_op_draws_is_refused_at_once(tmp_path, step, name, value):
    recipe = degradations.Recipe(name="one", steps=(step,))
    tree = json.loads(recipe.draw(HR.shape[:2], 2, 0, "k").to_json())
    tree["steps"][0][name] = value
    began = time.process_time()
    with pytest.raises(RecipeError, match=rf"steps\[0\] \({step.kind}\) cannot be done: .*{name}"):
        replayed(tmp_path, tree)
    assert time.process_time() - began < 5
    hr = torch.from_numpy(HR).permute(2, 0, 1)[None]
    with pytest.raises(ValueError, match=name):
        device.degrade([Trace.from_json(json.dumps(tree))], hr)


@pytest.mark.slow
@settings(max_examples=3000, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(sorted(recipes.NAMED)),
    st.integers(0, 10_000),
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10), ODD | SCALARS), min_size=1),
)
def test_many_values_in_a_trace_are_replayed_or_refused(tmp_path, name, seed, changes):
    test_any_values_in_a_trace_are_replayed_or_refused.hypothesis.inner_test(
        tmp_path, name, seed, changes
    )


@pytest.mark.parametrize(
    "read", [read_plain, sha256, lambda path: list(read_lines(path)), plain_yaml.read]
)
def test_a_folder_in_the_place_of_a_file_is_refused_and_not_left_open(read, tmp_path):
    before = psutil.Process().num_fds()
    with pytest.raises((OSError, RecipeError), match="Is a directory"):
        read(tmp_path)
    assert psutil.Process().num_fds() == before
