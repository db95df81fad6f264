"""A trace that was drawn can be written, read back and replayed; what cannot is not drawn."""

import json
from pathlib import Path

import numpy as np
import pytest

from degradations import Recipe, RecipeError, Trace, pairs, recipes, replay
from degradations.ops import OPS, Blur, Jpeg, Op, Repeat
from degradations.ranges import Uniform

HR = (np.arange(24 * 20 * 3) * 37 % 251).astype(np.uint8).reshape(24, 20, 3)
NAMES = ("caf\udce9.png", "caf\u00e9.png", "\ud800.png", "\U0001f600", "a\nb\x00", "")


class Drawing(Op):
    """Draws what its class says."""

    drawn: dict = {}

    def draw(self, rng):
        return {"noise_seed": rng.bits()} | self.drawn

    @staticmethod
    def apply(rgb, params, target):
        return rgb


class Wild(Op):
    """Draws what a test says, unchecked."""

    def draw(self, rng):
        return WILD[0]


WILD = [{}]


def round_trip(trace):
    again = Trace.from_json(trace.to_json())
    assert again == trace
    return again


@pytest.mark.parametrize(
    "drawn",
    [
        {"level": 0.5, "name": "caf\u00e9", "on": True, "none": None},
        {"field": [x / 7 for x in range(20_000)]},
        {"large": 10**30, "small": -1e300, "whole": 2**53 - 1},
        {"deep": [[[[[[1, {"a": [{"b": 2}]}]]]]]]},
    ],
    ids=lambda drawn: next(iter(drawn)),
)
def test_whatever_an_own_op_draws_is_read_back(drawn):
    recipe = Recipe(name="own", steps=(Drawing(drawn=drawn), Jpeg()))
    made = recipe.degrade(HR, scale=2, seed=0, key="a")
    assert (replay(round_trip(made.trace), HR) == made.lr).all()
    assert recipe.draw_batch(HR.shape[:2], 2, 0, ["a"]) == [made.trace]


@pytest.mark.parametrize(
    ("drawn", "wanted"),
    [
        ({"word": "\udce9"}, "text that is no Unicode"),
        ({"\udce9": 1}, "text that is no Unicode"),
        ({"many": [[0] * 1000] * 1001}, "too long or too deep"),
        ({"deep": json.loads("[" * 60 + "]" * 60)}, "too long or too deep"),
        ({"kind": "jpeg"}, "'kind' names the op itself"),
    ],
)
def test_what_could_not_be_read_back_is_refused_when_it_is_drawn(drawn, wanted):
    WILD[0] = drawn
    recipe = Recipe(name="own", steps=(Wild(),))
    with pytest.raises(RecipeError, match=wanted):
        recipe.draw((8, 8), 1, 0, "a")
    with pytest.raises(RecipeError, match=wanted):
        recipe.draw_batch((8, 8), 1, 0, ["a"])


@pytest.mark.parametrize(
    ("steps", "size", "scale", "wanted"),
    [
        ((), (8, 8), float("inf"), "scale must be 1 or more"),
        ((), (8, 8), float("nan"), "scale must be 1 or more"),
        ((), (8, 2**21), 1, "a side is from 1 to"),
        ((), (0, 8), 1, "a side is from 1 to"),
        ((Blur(sigma=Uniform(1e6, 1e6)),), (8, 8), 1, "the largest number that is drawn"),
        (
            (Repeat(n=Uniform(40, 40), steps=(Repeat(n=Uniform(40, 40), steps=(Jpeg(),)),)),),
            (8, 8),
            1,
            "1,600 steps; the limit is 1,000",
        ),
    ],
)
def test_a_recipe_draws_nothing_beyond_what_a_trace_may_hold(steps, size, scale, wanted):
    with pytest.raises(RecipeError, match=f"r: a trace of 'a' cannot be: .*{wanted}"):
        Recipe(name="r", steps=steps).draw(size, scale, 0, "a")


def test_long_strips_and_large_scales_are_read_back():
    recipe = recipes.named("clean_bicubic")
    for size, scale in (((8, 70_000), 1), ((4000, 4000), 2000)):
        round_trip(recipe.draw(size, scale, 0, "a"))


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_a_file_is_a_key_that_is_read_back(name):
    recipe = recipes.named("clean_bicubic")
    trace = round_trip(recipe.draw(HR.shape[:2], 2, 0, name))
    assert trace.key == name or not name.isprintable()
    assert recipe.draw_batch(HR.shape[:2], 2, 0, [name]) == [trace]


@pytest.mark.parametrize("kind", OPS)
def test_the_defaults_of_every_op_are_read_back(kind):
    recipe = Recipe(name=kind, steps=(OPS[kind](),))
    for key in "abc":
        round_trip(recipe.draw(HR.shape[:2], 2, 0, key))


def test_a_strangers_trace_of_ours_has_no_number_that_might_never_end():
    trace = Recipe(name="r", steps=(Blur(),)).draw((8, 8), 1, 0, "a")
    for params in ({"sigma": [1e9, 1]}, {"size": 10**6}, {"beta": [0] * 10_001}):
        bad = trace.model_copy(update={"steps": [trace.steps[0] | params]})
        with pytest.raises(RecipeError, match="not a trace of a degradation"):
            Trace.from_json(bad.to_json())
    wild = {"kind": "albumentations", "transform": "RandomRain", "params": {"drop_length": 1e9}}
    with pytest.raises(RecipeError, match="largest number"):
        Trace.from_json(trace.model_copy(update={"steps": [wild]}).to_json())


def test_a_seed_is_a_whole_number():
    for seed in (1.7, float("nan")):
        with pytest.raises(ValueError, match=r"whole number|integer"):
            recipes.named("clean_bicubic").draw((8, 8), 1, seed, "a")


@pytest.mark.parametrize("seed", [None, "a", [1], float("inf"), float("nan"), 0.5])
def test_what_is_no_seed_is_named(seed):
    with pytest.raises(ValueError, match="a seed is a whole number, not "):
        recipes.named("clean_bicubic").draw((8, 8), 4, seed, "key")


@pytest.mark.parametrize("key", [5, None, Path("a")])
def test_what_is_no_key_is_named_with_the_mend(key):
    with pytest.raises(TypeError, match=r"a key is text, not .*; give str"):
        recipes.named("clean_bicubic").draw((8, 8), 4, 0, key)


def test_pairs_and_recipes_write_the_same_name():
    assert pairs.plain_text("caf\udce9") == "caf\\udce9"
