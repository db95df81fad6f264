"""Ranges as YAML spells them: what cannot be drawn from is refused, with the mend."""

import json
import re

import pytest
import yaml

from degradations import Recipe, RecipeError
from degradations.basicsr_options import load
from degradations.ops import OPS, Blur, Jpeg, OneOf
from degradations.ranges import Choice, LogUniform, Uniform
from degradations.rng import Rng

HUGE = "1" + "0" * 400


def refusal(tmp_path, step):
    path = tmp_path / "mine.yaml"
    path.write_text(f"name: a\nsteps: [{{{step}}}]\n")
    with pytest.raises(RecipeError) as caught:
        Recipe.load(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("step", "wanted"),
    [
        ("kind: sensor_noise, shot: {log: [1e-4, 0.012]}", "reads 1e-4 as text; write 1.0e-4"),
        ("kind: blur, sigma: 1e-1", "sigma: YAML reads 1e-1 as text; write 1.0e-1"),
        ("kind: blur, sigma: [1E3, 2.5e3]", "reads 1E3 as text; write 1.0e+3"),
        ("kind: blur, sigma: '0.4'", "reads 0.4 as text; without quotes write 0.4"),
        ("kind: blur, sigma: {choice: [1, [1e-1, 2]]}", "YAML reads 1e-1 as text"),
        ("kind: blur, sigma: {choice: [1, 2], weights: [1e-1, 1]}", "YAML reads 1e-1 as text"),
        ("kind: blur, size: 7e0", "YAML reads 7e0 as text"),
        ("kind: blur, sigma: abc", "'abc' is no number"),
        ("kind: blur, size: [7, 21]", "size: [7, 21] is no choice; write {choice: [7, 9, ...]}"),
        ("kind: blur, size: {choice: [[7, 21], 9]}", "would draw what lies between; write"),
        ("kind: sinc, size: {log: [7, 21]}", "would draw what lies between; write"),
        ("kind: jpeg, chroma: 4:1:1", "'4:1:1' is not one of 4:4:4, 4:2:2, 4:2:0, 4:4:0"),
        ("kind: resize, mode: [area, bicubic]", "is no choice; write {choice: [...]}"),
    ],
)
def test_a_range_that_cannot_be_meant_is_refused_with_the_mend(step, wanted, tmp_path):
    assert wanted in refusal(tmp_path, step)


@pytest.mark.parametrize("chroma", ["4:4:4", "4:2:2", "4:2:0", "{choice: [4:2:0, 4:4:4]}"])
def test_chroma_means_the_same_with_quotes_and_without(chroma, tmp_path):
    quoted = re.sub("4:.:.", r"'\g<0>'", chroma)
    recipes = []
    for nth, text in enumerate((chroma, quoted)):
        path = tmp_path / f"{nth}.yaml"
        path.write_text(f"name: one\nsteps: [{{kind: jpeg, chroma: {text}}}]")
        recipes.append(Recipe.load(path))
    recipes[0].save(tmp_path / "saved.yaml")
    assert recipes[0] == recipes[1] == Recipe.load(tmp_path / "saved.yaml")


WRONG = (
    "null", "true", "[]", "[1]", "[2, null]", "[2, true]", "[[1, 2], 3]", "{}", "{a: 1}", ".inf",
    "[0, .nan]", HUGE, f"[1, {HUGE}]", "{log: 1}", "{log: [null, 1]}", "{log: [true, 1]}",
    "{log: [0, 1]}", f"{{log: [1, {HUGE}]}}", "{choice: 3}", "{choice: []}", "{choice: [null]}",
    "{choice: [1, abc]}", f"{{choice: [1, {HUGE}]}}", "{choice: [1, 2], weights: [a, b]}",
    "{choice: [1, 2], weights: 3}", "{choice: [1, 2], weights: [null, 1]}",
    "{choice: [1, 2], weights: [.nan, 1]}", f"{{choice: [1, 2], weights: [{HUGE}, 1]}}",
    "{choice: [1, 2], weights: {a: 1}}", "2020-01-01", "!!binary aGk=",
)  # fmt: skip


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize("field", ["kind: blur, sigma", "kind: blur, size", "kind: repeat, n"])
def test_what_is_no_range_is_refused_as_a_recipe_is(field, value, tmp_path):
    field = field.replace("repeat", "repeat, steps: []")
    assert refusal(tmp_path, f"{field}: {value}").startswith(str(tmp_path))


@pytest.mark.parametrize("weights", ["[a, b]", "3", "[null, 1]", f"[{HUGE}, 1]", "[.nan, 1]"])
def test_weights_of_steps_are_checked_too(weights, tmp_path):
    told = refusal(tmp_path, f"kind: one_of, weights: {weights}, steps: [{{kind: jpeg}}] ")
    assert "weights" in told


def test_a_number_that_is_too_large_for_an_option_file_is_refused(tmp_path):
    path = tmp_path / "options.yml"
    path.write_text(f"scale: {HUGE}\nblur_sigma: [0.2, {HUGE}]\n")
    with pytest.raises(RecipeError, match=r"blur_sigma: .* give 2 numbers"):
        load(path)
    path.write_text('blur_sigma: [0.2, 3]\ngt_usm: "no"\n')
    with pytest.raises(RecipeError, match="gt_usm: no cannot be; give true or false"):
        load(path)


def test_a_size_is_drawn_as_it_is_allowed():
    sizes = (7, 7.0, {"choice": [7.0]}, Uniform(7, 7), LogUniform(7, 7), Choice((Choice((7,)),)))
    for size in sizes:
        blur = Blur.model_validate({"size": size})
        drawn = blur.draw(Rng(0, "a"))["size"]
        assert drawn == 7 and isinstance(drawn, int)
        assert Blur.model_validate(json.loads(blur.model_dump_json())) == blur
    for spread in (Uniform(7, 21), Choice((Choice((Uniform(7, 9),)), 11))):
        with pytest.raises(ValueError, match="would draw what lies between"):
            Blur.model_validate({"size": spread})


@pytest.mark.parametrize("kind", OPS)
def test_words_and_sizes_are_drawn_from_what_is_listed_alone(kind):
    op = OPS[kind]()
    for name, field in OPS[kind].model_fields.items():
        allowed = [one.allowed for one in field.metadata if hasattr(one, "allowed")]
        if allowed:
            drawn = {op.draw(Rng(0, str(n)))[name] for n in range(100)}
            assert drawn <= set(allowed[0])


def test_weights_in_python_may_be_a_list():
    assert Choice((1, 2), [1, 0]).draw(Rng(0, "a")) == 1
    assert OneOf(steps=(Jpeg(), Jpeg()), weights=(1, 0)).weights == (1, 0)
    assert yaml.safe_load("1e-4") == "1e-4"  # why a number may be text
