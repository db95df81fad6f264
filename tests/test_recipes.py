"""Recipes as Python and as YAML: the same values, the same strictness."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from degradations import Recipe, RecipeError, recipes
from degradations.ops import Blur, Jpeg, OneOf, Resize
from degradations.ranges import Choice, LogUniform, Uniform
from degradations.rng import Rng

CONFIGS = Path(__file__).parents[1] / "configs" / "degradations"


@pytest.mark.parametrize("name", recipes.NAMED)
def test_the_yaml_equals_the_named_recipe(name):
    recipe = recipes.named(name)
    assert recipe.name == name and recipe.paper
    loaded = Recipe.load(CONFIGS / f"{name}.yaml")
    assert loaded == recipe
    assert loaded.digest() == recipe.digest()


def test_every_config_is_a_named_recipe():
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == set(recipes.NAMED)


@pytest.mark.parametrize("name", recipes.NAMED)
def test_a_recipe_survives_being_written_as_yaml(name, tmp_path):
    recipe = recipes.named(name).at(0.5)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")), encoding="utf-8")
    assert Recipe.load(path) == recipe


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "name: a\nsteps: [{kind: blur, sgima: 2}]",
            ": steps.0.sgima is not an option of blur; did you mean 'sigma'?",
        ),
        (
            "name: a\nsteps: [{kind: maybe, p: 0.5, step: {kind: jpeg, qualty: 3}}]",
            ": steps.0.step.qualty is not an option of jpeg; did you mean 'quality'?",
        ),
        ("name: a\nstpes: []", ": stpes is not an option of a recipe; did you mean 'steps'?"),
        ("name: a\nxyz: 1", "; there are name, paper, sharpen, steps"),
        ("name: a\nsteps: [{kind: jpeg, quality: [3, 101]}]", "quality: 101 is outside 1 to 100"),
        (
            "name: a\nsteps: [{kind: jpeg, quality: [95, 30]}]",
            "from low to high, not from 95 to 30",
        ),
        ("name: a\nsteps: [{kind: resize, mode: bicubc}]", "'bicubc' is not one of area, bilinear"),
        ("name: a\nsteps: [{kind: blur, size: 8}]", "8 is not one of 7, 9"),
        (
            "name: a\nsteps: [{kind: bluur}]",
            ": steps.0: 'bluur' is not a kind of step; did you mean 'blur'?",
        ),
        ("name: a\nsteps: [{kind: one_of, steps: []}]", "at least one option"),
        ("name: a\nsteps: [{kind: blur, sigma: [-1, 2]}]", "sigma: -1 is outside 0 to inf"),
        ("name: a\nsteps: [{kind: speckle, sigma: -0.1}]", "sigma: -0.1 is outside 0 to 1"),
        (
            "name: a\nsteps: [{kind: maybe, p: 1.2, step: {kind: jpeg}}]",
            "steps.0.p: Input should be less than or equal to 1",
        ),
        ("name: a\nsteps: [{kind: gaussian_noise, grey: 3}]", "steps.0.grey: Input should be less"),
        (
            "name: a\nsteps: [{kind: shuffle, keep: [0, 2], steps: [{kind: jpeg}]}]",
            "keep has [0, 2], each once, from 0 to the last step",
        ),
        ("name: a\nsteps: [{kind: repeat, n: 0, steps: []}]", "n: 0 is outside 1 to 100"),
        ("name: a\nsteps: [{kind: repeat, scale: 2, steps: []}]", "scale: Input should be less"),
        ("name: a\nsteps: [{}]", "steps.0: "),
        ("name: a\nsteps: [{kind: webp, quality: 0}]", "quality: 0 is outside 1 to 100"),
        ("steps: []", "name: Field required"),
        ("", "the whole file"),
        ("name: [", "not YAML"),
    ],
)
def test_a_wrong_file_is_refused_naming_file_key_and_mend(text, wanted, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        Recipe.load(path)
    assert str(caught.value).startswith(str(path))
    assert wanted in str(caught.value)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("name: a\nname: b\n", "line 2: 'name' stands in line 1 already"),
        (
            "name: a\nsteps:\n  - kind: blur\n    sigma: 1\n    sigma: 2",
            "line 5: 'sigma' stands in",
        ),
        ("name: a\nsteps: [{kind: blur, sigma: 1, sigma: 2}]", "line 2: 'sigma' stands in line 2"),
        ('name: a\n"name": b', "line 2: 'name' stands in line 1 already"),
    ],
)
def test_a_key_that_stands_twice_is_refused_with_its_line(text, wanted, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=wanted):
        Recipe.load(path)
    path.write_text("name: a\nsteps: [&b {kind: blur}, *b, {kind: blur}]", encoding="utf-8")
    assert len(Recipe.load(path).steps) == 3


def test_any_comment_stays_a_comment(tmp_path):
    path, recipe = tmp_path / "mine.yaml", recipes.named("phone")
    comments = "a\nb: c", "d\r\ne", "f\x85g: h", "i\u2028j: k", "l\x00\x1b", "caf\udce9", "\u00e9"
    recipe.save(path, *comments)
    assert Recipe.load(path) == recipe
    assert "# b: c\n" in path.read_text(encoding="utf-8")


def test_a_recipe_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"none\.yaml: cannot be read: No such file"):
        Recipe.load(tmp_path / "none.yaml")


def test_an_unknown_recipe_names_the_near_one():
    with pytest.raises(RecipeError, match="did you mean 'realesrgan'"):
        recipes.named("realersgan")


def test_a_recipe_is_frozen():
    with pytest.raises(ValidationError):
        recipes.named("realesrgan").steps = ()


def test_realesrgan_draws_by_the_papers_table():
    steps = recipes.named("realesrgan").steps
    first = [inner for i in range(3000) for inner in steps[0].choose(Rng(0, str(i)))]
    assert sum(step.kind == "sinc" for step in first) == pytest.approx(300, abs=60)
    shapes = [Blur().draw(Rng(1, str(i)))["shape"] for i in range(3000)]
    assert shapes.count("isotropic") == pytest.approx(1350, abs=110)
    assert shapes.count("generalised_anisotropic") == pytest.approx(90, abs=35)
    factors = [steps[1].draw(Rng(2, str(i)))["factor"] for i in range(3000)]
    assert sum(f < 1 for f in factors) == pytest.approx(2100, abs=90)
    assert sum(f > 1 for f in factors) == pytest.approx(600, abs=80)
    assert min(factors) >= 0.15 and max(factors) < 1.5
    qualities = {Jpeg().draw(Rng(3, str(i)))["quality"] for i in range(3000)}
    assert qualities == set(range(30, 96))


def test_bsrgan_shuffles_but_its_downscales_stay_in_order():
    whole, halved = recipes.named("bsrgan").steps[0].steps
    for shuffle in (whole, halved.steps[1]):
        chosen = [shuffle.choose(Rng(0, str(i))) for i in range(200)]
        downscales = [[step for step in steps if step in shuffle.steps[2:4]] for steps in chosen]
        assert all(pair == list(shuffle.steps[2:4]) for pair in downscales)
        assert {steps.index(shuffle.steps[4]) for steps in chosen} == set(range(6))


@pytest.mark.parametrize("scale", [4, 2])
def test_bsrgan_draws_as_the_released_code_does(scale):
    """Against cszn/BSRGAN utils/utils_blindsr.py: add_blur, degradation_bsrgan, written out."""
    choice = recipes.named("bsrgan").steps[0]
    assert choice.weights == (3, 1)  # scale2_prob = 0.25: halved, and sf = 2 from there on
    shuffle = choice.steps[0] if scale == 4 else choice.steps[1].steps[1]
    uniform = (np.arange(4000) + 0.5) / 4000

    def alike(ours, theirs):
        shares = np.linspace(0.1, 0.9, 17)
        assert np.quantile(ours, shares) == pytest.approx(np.quantile(theirs, shares), rel=0.1)

    rngs = [Rng(0, str(i)) for i in range(4000)]
    for blur in shuffle.steps[:2]:
        turned, round_ = blur.steps
        assert blur.weights is None and turned.size == round_.size  # 2 * randint(2, 11) + 3
        drawn = [turned.draw(rng) for rng in rngs]
        for axis in (0, 1):  # l1, l2 = wd2 * random(): variances
            alike([params["sigma"][axis] for params in drawn], ((4 + scale) * uniform) ** 0.5)
        alike([round_.draw(rng)["sigma"][0] for rng in rngs], (2 + 0.2 * scale) * uniform)
    shrunk, thinned = shuffle.steps[2].steps
    assert shuffle.steps[2].weights == (3, 1)
    alike([shrunk.draw(rng)["factor"] for rng in rngs], 1 / (1 + (2 * scale - 1) * uniform))
    assert thinned.steps[0].sigma == Uniform(0.1, 0.6 * scale)
    assert thinned.steps[1].factor == Uniform(1 / scale, 1 / scale)
    assert shuffle.steps[4].sigma_levels == Uniform(2, 25)  # noise_level1, noise_level2
    assert shuffle.steps[5].p == 0.9 and shuffle.steps[5].step == Jpeg()  # jpeg_prob; 30 to 95


def test_the_milder_recipe_scales_strengths_and_keeps_probabilities():
    mild = recipes.named("realesrgan").at(0.5)
    assert isinstance(mild.steps[0], OneOf)
    assert mild.steps[0].weights == (0.9, 0.0375, 0.0625)
    assert mild.steps[3].quality.values() == (65, 97.5)
    assert mild.steps[4].p == 0.8


@pytest.mark.parametrize("name", recipes.NAMED)
def test_a_saved_recipe_loads_back_equal_and_is_short(name, tmp_path):
    path = tmp_path / "recipe.yaml"
    for severity in (1, 0.5, 0):
        recipe = recipes.named(name).at(severity)
        recipe.save(path)
        loaded = Recipe.load(path)
        assert loaded.digest() == recipe.digest()
        assert loaded == recipe
    recipes.named(name).save(path)
    whole = yaml.safe_dump(recipes.named(name).model_dump(mode="json"))
    assert len(path.read_text(encoding="utf-8")) < 0.8 * len(whole)


@pytest.mark.parametrize("option", [Uniform(1, 1), LogUniform(1, 1), Choice((Uniform(1, 1),)), 1])
def test_a_range_of_one_value_in_a_choice_draws_the_same_in_every_process(option, tmp_path):
    recipe = Recipe(name="a", steps=(Resize(factor=Choice((option, Uniform(0.3, 0.8)))),))
    recipe.save(tmp_path / "recipe.yaml")
    for other in (Recipe.load(tmp_path / "recipe.yaml"), pickle.loads(pickle.dumps(recipe))):
        assert other.digest() == recipe.digest()
        assert [other.draw_by_step(0, f"{n}") for n in range(20)] == [
            recipe.draw_by_step(0, f"{n}") for n in range(20)
        ]


def test_a_recipe_is_found_by_its_name_or_its_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine = recipes.named("phone").at(0.5)
    mine.save("mine.yaml")
    mine.save("phone")
    assert recipes.find("mine.yaml") == mine
    assert recipes.find("phone") == recipes.named("phone")  # the name wins
    assert recipes.find("./phone") == mine
    with pytest.raises(RecipeError, match="did you mean 'phone'"):
        recipes.find("phoen")


def test_a_changed_copy_has_a_digest_of_its_own():
    recipe = recipes.named("realesrgan")
    digest = recipe.digest()
    sharpened = recipe.model_copy(update={"sharpen": True})
    assert sharpened.digest() != digest == recipe.digest()
    assert sharpened.model_copy(update={"sharpen": False}).digest() == digest
    assert recipe == recipes.named("realesrgan")
