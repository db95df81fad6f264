"""Steps made of steps: they choose by chance alone, and severity works through all of them."""

from typing import ClassVar

import numpy as np
import pytest

from degradations import Recipe, RecipeError
from degradations.ops import (
    OPS,
    Blur,
    GaussianNoise,
    Jpeg,
    Maybe,
    OneOf,
    Op,
    Repeat,
    Sequence,
    Shuffle,
)
from degradations.ranges import Choice, Range, Uniform
from degradations.rng import Rng

THREE = (Blur(sigma=Uniform(1, 1)), GaussianNoise(), Jpeg())


def kinds(recipe, key):

    hr = np.zeros((4, 4, 3), np.uint8)
    return [step["kind"] for step in recipe.degrade(hr, scale=1, seed=0, key=key).trace.steps]


@pytest.mark.parametrize("kind", OPS)
def test_an_op_at_any_severity_is_one_that_can_be_saved(kind):
    for severity in (1e-9, 0.001, 0.019, 0.1, 0.5, 0.999):
        moved = OPS[kind]().at(severity)
        assert type(moved).model_validate(moved.model_dump()) == moved


class Plain(Op):
    neutral: ClassVar = {"amount": 0}
    amount: float = 0.5


class Wordy(Op):
    neutral: ClassVar = {"amount": 0}
    amount: Range = Choice(("a", "b"))


class Missing(Op):
    neutral: ClassVar = {"amount": 0}


@pytest.mark.parametrize("own", [Plain, Wordy, Missing])
def test_an_own_op_is_told_what_severity_needs(own):
    with pytest.raises(RecipeError, match=r"names amount, which is no range .* `amount: Range ="):
        own().at(0.5)


def test_a_shuffle_takes_each_step_once_in_every_order():
    orders = [
        tuple(step.kind for step in Shuffle(steps=THREE).choose(Rng(0, str(i)))) for i in range(600)
    ]
    assert len(set(orders)) == 6 and all(sorted(o) == sorted(orders[0]) for o in orders)
    assert min(orders.count(o) for o in set(orders)) > 65


def test_kept_steps_stay_in_order_and_the_others_go_anywhere():
    shuffle = Shuffle(steps=THREE, keep=(0, 2))
    orders = {tuple(step.kind for step in shuffle.choose(Rng(0, str(i)))) for i in range(100)}
    assert len(orders) == 3 and all(o.index("blur") < o.index("jpeg") for o in orders)


def test_a_repeat_draws_each_pass_anew_and_milder():
    repeat = Repeat(steps=(Blur(sigma=Uniform(1, 2)),), n=Uniform(3, 3), scale=0.5)
    passes = repeat.choose(Rng(0, "a"))
    assert [step.sigma for step in passes] == [Uniform(1, 2), Uniform(0.5, 1), Uniform(0.25, 0.5)]
    recipe = Recipe(name="again", steps=(Repeat(steps=THREE),))
    assert kinds(recipe, "a") == ["blur", "gaussian_noise", "jpeg"] * 2


def test_a_repeat_may_draw_how_often():
    repeat = Repeat(steps=THREE[:1], n=Uniform(1, 3))  # rounded: half as often 1 and 3
    counts = [len(repeat.choose(Rng(0, str(i)))) for i in range(600)]
    assert [counts.count(n) for n in (1, 2, 3)] == pytest.approx([150, 300, 150], abs=45)


@pytest.mark.parametrize(
    "group",
    [
        Shuffle(steps=THREE, keep=(0, 2)),
        Repeat(steps=THREE),
        Sequence(steps=(Shuffle(steps=(Repeat(steps=THREE),)),)),
        Maybe(p=1, step=Repeat(steps=THREE, scale=0.5)),
        OneOf(steps=(Shuffle(steps=THREE), Repeat(steps=THREE))),
    ],
)
def test_severity_works_through_every_group(group):
    recipe = Recipe(name="nested", steps=(group,))
    assert kinds(recipe.at(0), "a") == []
    assert len(kinds(recipe.at(0.5), "a")) == len(kinds(recipe, "a")) >= 3
    assert "sigma=Uniform(low=0.5, high=0.5)" in repr(recipe.at(0.5))
    assert Recipe.model_validate(recipe.model_dump(mode="json")) == recipe
