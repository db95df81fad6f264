"""Ops that are not ours: found where they are said to be, run by us, and held to the contract."""

import json
import multiprocessing
import pickle
import subprocess
import sys
import threading
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import yaml

from degradations import Recipe, RecipeError, Trace, consent, device, ops, rebuild, recipes, replay
from degradations.ops import Op, plugins
from degradations.ops.damage import Damage
from degradations.ranges import Choice, Range, Uniform

RUST = """
from typing import ClassVar
import numpy as np
from degradations.ops import Op
from degradations.ranges import Range, Uniform

class Rust(Op):
    neutral: ClassVar = {"amount": 0}
    amount: Range = Uniform(0.2, 0.6)

    def draw(self, rng):
        return {"amount": self.amount.draw(rng)}

    @staticmethod
    def apply(rgb, params, target):
        colour = np.array([0.5, 0.2, 0.1], np.float32)
        return rgb + np.float32(params["amount"]) * (colour - rgb)

class NotAnOp:
    pass
"""
HR = (np.arange(48 * 60 * 3, dtype=np.int64) * 37 % 251).astype(np.uint8).reshape(48, 60, 3)


@pytest.fixture(autouse=True)
def forget(monkeypatch, tmp_path_factory):
    """No own op outlives its test, nor consent to it."""
    modules = set(sys.modules)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
    with consent.given():
        yield
    consent._here.clear()
    plugins._registered.clear()
    plugins._files.clear()
    plugins._runs.clear()
    for name in set(sys.modules) - modules:
        if name.startswith("my_"):
            del sys.modules[name]


def recipe(tmp_path, *steps, module=RUST, name="my_ops"):
    tmp_path.mkdir(exist_ok=True)
    if module is not None:
        (tmp_path / f"{name}.py").write_text(module, encoding="utf-8")
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"name": "mine", "steps": list(steps)}), encoding="utf-8")
    return path


def refusal(path) -> str:
    with pytest.raises(RecipeError) as caught:
        Recipe.load(path)
    assert str(caught.value).startswith(f"{path}: steps.0")
    return str(caught.value)


def test_an_op_beside_the_recipe_runs_nests_and_replays(tmp_path):
    step = {"kind": "maybe", "p": 1, "step": {"kind": "my_ops.Rust", "amount": [0.4, 0.5]}}
    loaded = Recipe.load(recipe(tmp_path, step, {"kind": "jpeg"}))
    degraded = loaded.degrade(HR, scale=2, seed=0, key="a")
    assert [s["kind"] for s in degraded.trace.steps] == ["my_ops.Rust", "jpeg"]
    assert 0.4 <= degraded.trace.steps[0]["amount"] < 0.5
    assert (replay(Trace.from_json(degraded.trace.to_json()), HR) == degraded.lr).all()
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(loaded.model_dump(mode="json")), encoding="utf-8")
    assert Recipe.load(again) == loaded and Recipe.load(again).digest() == loaded.digest()


def test_severity_works_through_an_own_op(tmp_path):
    loaded = Recipe.load(recipe(tmp_path, {"kind": "my_ops.Rust"}))
    assert loaded.at(0.5).steps[0].amount == Uniform(0.1, 0.3)
    nothing = loaded.at(0).degrade(HR, scale=1, seed=0, key="a")
    assert nothing.trace.steps == [] and (nothing.lr == HR).all()


def test_an_op_on_the_python_path_is_found(tmp_path, monkeypatch):
    path = recipe(tmp_path, {"kind": "my_elsewhere.Rust"}, module=None)
    recipe(tmp_path / "lib", name="my_elsewhere")
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))
    assert Recipe.load(path).steps[0].kind == "my_elsewhere.Rust"


def test_an_op_of_an_installed_package_is_found_by_its_entry_point(tmp_path, monkeypatch):
    class Point:
        load = staticmethod(lambda: Own)

    def points(group, name):
        assert group == "degradations.ops"
        return [Point] if name == "rust" else []

    monkeypatch.setattr(plugins, "entry_points", points)
    loaded = Recipe.load(recipe(tmp_path, {"kind": "rust"}, module=None))
    degraded = loaded.degrade(HR, scale=2, seed=0, key="a")
    plugins._registered.clear()  # a fresh process may replay it, for it is installed
    assert (replay(degraded.trace, HR) == degraded.lr).all()


class Own(Op):
    level: Range = Uniform(0, 1)

    def draw(self, rng):
        return {"level": self.level.draw(rng)}

    @staticmethod
    def apply(rgb, params, target):
        return np.clip(rgb * np.float32(params["level"]), 0, 1)


class Hole(Damage):
    @staticmethod
    def paint(params, size):
        cover = np.zeros(size, np.float32)
        cover[: size[0] // 2] = 1
        return cover, np.array(0.0)


def test_an_op_made_in_python_is_named_by_its_module():
    made = Recipe(name="made", steps=(Own(),))
    degraded = made.degrade(HR, scale=2, seed=0, key="a")
    assert degraded.trace.steps[0]["kind"] == f"{__name__}.Own"
    assert (replay(degraded.trace, HR) == degraded.lr).all()


def test_an_op_derived_from_ours_is_another_kind_or_refused():
    class Unnamed(ops.Fade):
        @staticmethod
        def apply(rgb, params, target):
            return np.zeros_like(rgb)

    class Named(Unnamed):
        kind: Any = ""

    made = Recipe(name="made", steps=(Named(),)).degrade(HR, scale=1, seed=0, key="a")
    assert made.trace.steps[0]["kind"] == f"{__name__}.Named" and not made.lr.any()
    with pytest.raises(ValueError, match="Unnamed has the kind of Fade, 'fade'; give it its own"):
        Unnamed()


def test_an_own_damage_op_has_a_mask():
    degraded = Recipe(name="hole", steps=(Hole(),)).degrade(HR, scale=2, seed=0, key="a")
    assert (degraded.damage[:12] == 255).all() and not degraded.damage[14:].any()
    assert (rebuild(degraded.trace, HR).damage == degraded.damage).all()


@pytest.mark.parametrize(
    ("kind", "module", "wanted"),
    [
        ("my_ops.Rust", None, "my_ops.py, nor a module my_ops on the Python path; put the file"),
        ("my_ops.Rsut", RUST, "my_ops.py has no class Rsut; did you mean 'Rust'?"),
        ("my_ops.NotAnOp", RUST, "my_ops.NotAnOp is no op; make it a class derived from"),
        ("my_ops.np", RUST, "my_ops.np is no op"),
        ("os.system", None, "os.system is no op"),
        ("my_ops.Rust", "1 / 0", "my_ops.py cannot be imported: ZeroDivisionError"),
        ("my_ops.Rust", "import my_missing", "cannot be imported: ModuleNotFoundError"),
        ("my_ops.Rust", "def", "my_ops.py cannot be imported: SyntaxError"),
        ("../my_ops.Rust", RUST, "'../my_ops.Rust' is not a kind of step"),
        ("albumentations.RandomFog", None, "{kind: albumentations, transform: RandomFog}"),
        ("xyz", RUST, "'xyz' is not a kind of step; there are blur"),
    ],
)
def test_an_op_that_cannot_be_had_is_refused_with_the_mend(kind, module, wanted, tmp_path):
    assert wanted in refusal(recipe(tmp_path, {"kind": kind}, module=module))


def test_an_unknown_option_of_an_own_op_names_the_near_one(tmp_path):
    told = refusal(recipe(tmp_path, {"kind": "my_ops.Rust", "amuont": 0.3}))
    assert "amuont is not an option of my_ops.Rust; did you mean 'amount'?" in told
    (tmp_path / "two").mkdir()
    told = refusal(recipe(tmp_path / "two", {"kind": "json.Rust"}, name="json"))
    assert "a module json is loaded from" in told and "rename" in told


def test_nothing_is_imported_before_a_recipe_names_it(tmp_path):
    recipe(tmp_path, {"kind": "jpeg"}, module="raise SystemExit('imported')")
    code = (
        "import sys; from degradations import Recipe; Recipe.load(sys.argv[1]);"
        "sys.exit('albumentations' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "mine.yaml")], check=True)


def test_a_trace_imports_nothing(tmp_path):
    degraded = Recipe.load(recipe(tmp_path, {"kind": "my_ops.Rust"})).degrade(
        HR, scale=2, seed=0, key="a"
    )
    plugins._registered.clear()
    with pytest.raises(RecipeError, match="load the recipe that names it first"):
        replay(degraded.trace, HR)
    wicked = degraded.trace.model_copy(update={"steps": [{"kind": "antigravity.Rust"}]})
    with pytest.raises(RecipeError, match="a trace imports nothing"):
        replay(wicked, HR)


def test_a_recipe_with_an_own_file_works_in_a_spawned_worker(tmp_path):
    nested = {"kind": "maybe", "p": 1, "step": {"kind": "my_ops.Rust"}}
    loaded = Recipe.load(recipe(tmp_path, nested, {"kind": "jpeg"})).at(0.8)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        there = pool.apply(loaded.degrade, (HR, 2, 0, "a"))
        made = pool.apply(Recipe(name="made", steps=(Own(),)).degrade, (HR, 2, 0, "a"))
    here = loaded.degrade(HR, 2, 0, "a")
    assert (there.lr == here.lr).all() and there.trace == here.trace
    assert [step["kind"] for step in there.trace.steps] == ["my_ops.Rust", "jpeg"]
    assert made.trace.steps[0]["kind"] == f"{__name__}.Own"


def test_a_pickled_recipe_is_the_same_and_names_a_file_that_is_gone(tmp_path):
    loaded = Recipe.load(recipe(tmp_path, {"kind": "my_ops.Rust"}))
    data = pickle.dumps(loaded)
    assert pickle.loads(data) == loaded
    assert all(pickle.loads(pickle.dumps(r)) == r for r in map(recipes.named, recipes.NAMED))
    plugins._registered.clear()
    del sys.modules["my_ops"]
    (tmp_path / "my_ops.py").unlink()
    with pytest.raises(RecipeError, match=r"there is no .*my_ops\.py, which the recipe's my_ops"):
        pickle.loads(data)


def test_python_tags_in_a_recipe_are_refused(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("name: !!python/object/apply:os.getcwd []", encoding="utf-8")
    with pytest.raises(RecipeError, match="not YAML"):
        Recipe.load(path)


BREACHES = {
    "return rgb.astype(np.float64)": "gives float64; return a float32 array",
    "return None": "gives NoneType; return a float32 array",
    "return rgb[1:]": "keep it, `resize` changes sizes",
    "return rgb[..., 0]": "keep it, `resize` changes sizes",
    "return rgb * np.float32(np.nan)": "gives NaN or infinity",
    "return rgb * 0 + np.float32(1.5)": "gives values from 1.5 to 1.5; end with np.clip(out, 0, 1)",
    "return rgb - np.float32(2)": "gives values from -2",
    "return np.random.random(rgb.shape).astype(np.float32)": "draw all that is random in draw()",
    "rgb *= 0.5; return rgb": "apply failed: ValueError",
    "return rgb / params['mising']": "apply failed: KeyError('mising') with params {",
}


@pytest.mark.parametrize("body", BREACHES)
def test_a_breach_of_the_contract_names_the_op_and_the_mend(body, tmp_path):
    lines = RUST[: RUST.index("        colour")] + f"        {body}\n"
    lines = lines.replace('{"amount": self.amount.draw(rng)}', "{}")
    loaded = Recipe.load(recipe(tmp_path, {"kind": "my_ops.Rust"}, module=lines))
    with pytest.raises(RecipeError) as caught:
        loaded.degrade(HR, scale=2, seed=0, key="a")
    assert str(caught.value).startswith("my_ops.Rust: apply ")
    assert BREACHES[body] in str(caught.value)


class Plain(Op):
    """Does nothing, and notes what it was given."""

    given: ClassVar[list] = []

    def draw(self, rng):
        return {}

    @staticmethod
    def apply(rgb, params, target):
        Plain.given += [rgb.min(), rgb.max()]
        return rgb


BEFORE = {
    **{kind: op() for kind, op in ops.OPS.items() if kind != "h264"},
    "shrunk": ops.Resize(factor=Uniform(0.4, 0.7), mode=Choice(("lanczos",))),
    "enlarged": ops.Resize(factor=Uniform(1.5, 2), mode=Choice(("bicubic",))),
}


@pytest.mark.parametrize("name", BEFORE)
def test_an_op_is_not_blamed_for_what_another_made_before_it(name):
    """White beside black, of which a filter makes more than white and less than black."""
    Plain.given.clear()
    checks = np.kron(np.indices((12, 15)).sum(0) % 2 * 255, np.ones((4, 4)))[..., None]
    hr = np.repeat(checks, 3, 2).astype(np.uint8)
    made = Recipe(name="own", steps=(BEFORE[name], Plain()))
    traces = [made.draw(hr.shape[:2], 2, seed, "a") for seed in range(3)]
    for trace in traces:
        replay(trace, hr)
    device.degrade(traces, torch.from_numpy(hr).permute(2, 0, 1).expand(3, -1, -1, -1))
    assert min(Plain.given) >= 0 and max(Plain.given) <= 1


def test_a_last_bit_beyond_white_is_rounding(tmp_path):
    module = RUST[: RUST.index("        colour")] + "        return rgb * np.float32(1.0000002)\n"
    loaded = Recipe.load(recipe(tmp_path, {"kind": "my_ops.Rust"}, module=module))
    white = np.full_like(HR, 255)
    assert (loaded.degrade(white, scale=1, seed=0, key="a").lr == 255).all()


@pytest.mark.parametrize("drawn", ["{'a': object()}", "{'a': float('nan')}", "{'a': 1 / 0}", "[1]"])
def test_what_json_cannot_hold_is_no_parameter(drawn, tmp_path):
    module = RUST.replace('{"amount": self.amount.draw(rng)}', drawn)
    loaded = Recipe.load(recipe(tmp_path, {"kind": "my_ops.Rust"}, module=module))
    with pytest.raises(RecipeError, match=r"my_ops\.Rust: draw failed"):
        loaded.degrade(HR, scale=2, seed=0, key="a")


def test_an_albumentations_transform_is_seeded_by_us(tmp_path):
    rain = {"kind": "albumentations", "transform": "RandomRain", "params": {"drop_length": 5}}
    noise = {"kind": "albumentations", "transform": "GaussNoise", "params": {}}
    loaded = Recipe.load(recipe(tmp_path, rain, noise, module=None))
    first = loaded.degrade(HR, scale=2, seed=0, key="a")
    np.random.seed(7)
    results = []
    thread = threading.Thread(
        target=lambda: results.append(loaded.degrade(HR, scale=2, seed=0, key="a").lr)
    )
    thread.start()
    thread.join()
    assert (results[0] == first.lr).all()
    assert (loaded.degrade(HR, scale=2, seed=0, key="b").lr != first.lr).any()
    plugins._registered.clear()
    assert (replay(Trace.from_json(first.trace.to_json()), HR) == first.lr).all()
    assert json.loads(first.trace.to_json())["steps"][0]["transform"] == "RandomRain"


@pytest.mark.parametrize(
    ("step", "wanted"),
    [
        ({"transform": "RandomRian"}, "no pixel transform 'RandomRian'; did you mean 'RandomRain'"),
        ({"transform": "HorizontalFlip"}, "no pixel transform 'HorizontalFlip'"),
        ({"transform": "Lambda"}, "no pixel transform 'Lambda'"),
        ({"transform": "GaussNoise", "params": {"sgima": 3}}, "'sgima' are not valid"),
        ({"transform": "GaussNoise", "params": {"std_range": [3, 4]}}, "must be >= 0 and <= 1"),
        ({"transform": "ToFloat"}, "ToFloat makes float32 (64, 64, 3) of uint8"),
        ({"transform": "Normalize", "params": {"p": 0.1}}, "Normalize makes float"),
        ({"transform": "ToGray", "params": {"num_output_channels": 1}}, "(64, 64) of uint8"),
        ({"transform": "FDA"}, "FDA requires ['fda_metadata']"),
        ({}, "albumentations: transform: Field required"),
        ({"transform": "RandomRain", "parms": {}}, "did you mean 'params'?"),
    ],
)
def test_a_transform_that_cannot_be_had_is_refused(step, wanted, tmp_path):
    told = refusal(recipe(tmp_path, {"kind": "albumentations"} | step, module=None))
    assert wanted in told
