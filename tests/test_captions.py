"""Captions: plain words for what a trace did, the worst of each kind."""

import pytest

from degradations import recipes
from degradations.ops import OPS, Damage
from degradations.rng import Rng
from restore.training.data.captions import LEVELS, SILENT, WORDS, caption

TRACE = recipes.named("clean_bicubic").draw((64, 64), 4, seed=0, key="a")


def said(*steps):
    return caption(TRACE.model_copy(update={"steps": list(steps)}))


def test_every_op_has_a_word_or_is_silent():
    assert set(WORDS) | set(SILENT) == set(OPS)
    assert not set(WORDS) & set(SILENT)


@pytest.mark.parametrize("kind", WORDS)
def test_an_op_is_told_of_by_its_word_and_its_mildest_is_not(kind):
    word, op = WORDS[kind].word, OPS[kind]()
    told = {said({"kind": kind, **op.draw(Rng(0, f"{i}"))}) for i in range(60)}
    assert any(word in text for text in told)
    assert all(text == "clean" or word in text for text in told)
    if word != "jpeg":
        assert len(told & {f"{how} {word}" for how in LEVELS}) >= 2
    mild = op.at(1e-4).draw(Rng(0, "a"))
    if issubclass(OPS[kind], Damage):
        assert mild["count"] == 0
    assert said({"kind": kind, **mild}) == "clean"


def test_the_worst_of_each_kind_is_named_in_the_usual_order():
    blur = {"kind": "blur", "shape": "isotropic", "size": 7, "angle": 0.0}
    steps = (
        blur | {"sigma": [0.6, 0.6]},
        {"kind": "gaussian_noise", "sigma_levels": 3.0, "grey": False, "seed": 1},
        {"kind": "jpeg", "quality": 80, "chroma": "4:2:0"},
        blur | {"sigma": [1.2, 0.3]},
        {"kind": "poisson_noise", "scale": 2.0, "grey": False, "seed": 1},
        {"kind": "compat_jpeg", "quality": 41.7},
        {"kind": "my_ops.Rust", "amount": 1},
    )
    assert said(*steps) == "strong noise, jpeg 42, some blur"
    assert said() == said({"kind": "jpeg", "quality": 95, "chroma": "4:2:0"}) == "clean"


@pytest.mark.parametrize("name", recipes.NAMED)
def test_every_recipe_has_a_caption_of_a_line(name):
    for i in range(50):
        text = caption(recipes.named(name).draw((64, 64), 4, seed=0, key=f"{i}"))
        assert 0 < len(text) < 200 and "  " not in text
        assert (text == "clean") == (name == "clean_bicubic")
