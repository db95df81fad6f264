"""Draws are a function of (seed, key, slot) alone, and as uniform as they claim."""

import math
import subprocess
import sys

import numpy as np
import pytest

from degradations.ops.noise import standard_normal
from degradations.ranges import Choice, LogUniform, Uniform, parse, spell
from degradations.rng import Rng, make_rngs, root, words16


def test_draws_do_not_depend_on_the_process():
    code = (
        "from degradations.rng import Rng; r = Rng(3, 'a/b.png').at(2); print(r.bits(), r.bits())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    rng = Rng(3, "a/b.png").at(2)
    assert out.stdout.split() == [str(rng.bits()), str(rng.bits())]


def test_seed_key_and_slot_each_change_the_draw():
    draws = {
        Rng(seed, key).at(slot).bits()
        for seed in (0, 1, -1)
        for key in ("", "a", "b")
        for slot in (0, 1)
    }
    assert len(draws) == 18


def test_a_slot_does_not_depend_on_draws_before_it():
    fresh, used = Rng(0, "a"), Rng(0, "a")
    used.uniform()
    used.at(0).uniform()
    assert fresh.at(1).uniform() == used.at(1).uniform()


def test_draws_that_are_made_ahead_are_the_same():
    keys = ["a", "b/c.png", "caf\udce9.png"]
    for rng, key in zip(make_rngs([root(-3, key) for key in keys]), keys, strict=True):
        plain = Rng(-3, key)
        inner, wanted = rng.at(300), plain.at(300)
        for one, other in ((rng, plain), (inner, wanted)):
            drawn = [(one.bits(), one.uniform()) for _ in range(12)]  # more than are made ahead
            assert drawn == [(other.bits(), other.uniform()) for _ in range(12)]
    assert make_rngs([]) == []


def test_a_file_name_that_is_not_utf8_is_a_key():
    assert Rng(0, "caf\udce9.png").uniform() != Rng(0, "caf.png").uniform()


def test_uniforms_fill_the_unit_interval_evenly():
    u = np.array([Rng(0, str(i)).at(j).uniform() for i in range(500) for j in range(4)])
    assert 0 <= u.min() < u.max() < 1
    assert np.histogram(u, 10, (0, 1))[0] == pytest.approx(200, abs=60)
    pairs = u.reshape(-1, 4)
    assert np.abs(np.corrcoef(pairs.T) - np.eye(4)).max() < 0.15


def test_sixteen_bit_words_are_uniform_and_cut_to_any_count():
    words = words16(7, 40_001)
    assert words.shape == (40_001,)
    assert words.mean() == pytest.approx(32767.5, rel=0.02)
    assert (words[:5] == words16(7, 5)).all()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (0.4, Uniform(0.4, 0.4)),
        ([0.2, 3], Uniform(0.2, 3)),
        ({"log": [0.01, 1]}, LogUniform(0.01, 1)),
        ({"choice": [1, [0.3, 0.8]], "weights": [1, 2]}, Choice((1, Uniform(0.3, 0.8)), (1, 2))),
        ("bicubic", Choice(("bicubic",))),
    ],
)
def test_a_range_is_spelt_and_read_back(text, value):
    assert parse(text) == value
    assert parse(spell(value)) == value


@pytest.mark.parametrize(
    "text",
    [
        [3, 0.2],
        [1, 2, 3],
        {"log": [0, 1]},
        {"choice": []},
        {"chioce": [1]},
        None,
        True,
        [float("nan"), 1],
        {"choice": [1, 2], "weights": [1]},
        {"choice": [1, 2], "weights": [0, 0]},
    ],
)
def test_what_is_no_range_is_refused(text):
    with pytest.raises(ValueError):
        parse(text)


def test_a_choice_follows_its_weights_and_never_takes_weight_zero():
    choice = Choice(("a", "b", "c"), (3, 1, 0))
    drawn = [choice.draw(Rng(0, str(i))) for i in range(2000)]
    assert drawn.count("a") == pytest.approx(1500, abs=80)
    assert drawn.count("c") == 0


def test_a_log_range_spends_as_long_in_each_decade():
    drawn = np.array([LogUniform(0.01, 1).draw(Rng(0, str(i))) for i in range(2000)])
    assert (drawn < 0.1).mean() == pytest.approx(0.5, abs=0.04)


def test_severity_moves_every_value_towards_neutral():
    factor = Choice((Uniform(1, 1.5), Uniform(0.2, 1), 1), (2, 7, 1))
    assert factor.towards(1, 0.5) == Choice((Uniform(1, 1.25), Uniform(0.6, 1), 1), (2, 7, 1))


def _field(seed: int, side: int = 512) -> np.ndarray:
    return standard_normal(seed, (side, side)).astype(np.float64)


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**53 - 1])
def test_a_field_is_white_and_normal(seed):
    field = _field(seed)
    error = 1 / 512  # standard error of a mean of 512 x 512
    assert abs(field.mean()) < 5 * error
    assert abs(field.var() - 1) < 5 * error * math.sqrt(2)
    assert abs((field**4).mean() - 3) < 5 * error * math.sqrt(96)
    for dy, dx in ((0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (0, 128), (64, 0), (256, 256)):
        moved = np.roll(field, (dy, dx), (0, 1))
        assert abs((field * moved).mean()) < 5 * error, (dy, dx)


@pytest.mark.parametrize("other", [8, 7 + 2**32, 7 + 2**52, 7 ^ 0xFFFF, 7 + 0x7FEB352D])
def test_fields_of_near_seeds_have_nothing_in_common(other):
    first, second = _field(7), _field(other)
    assert abs((first * second).mean()) < 5 / 512
    assert (first == second).mean() < 1e-3
    spectrum = np.fft.fft(first.ravel()) * np.fft.fft(second.ravel()).conj()
    correlation = np.fft.ifft(spectrum).real / first.size  # at every shift of one along the other
    assert np.abs(correlation).max() < 6 / 512


def test_sixteen_bit_words_fill_every_stratum_evenly():
    words = words16(11, 2**22)
    for bits in (words >> 12, words & 15):  # the upper and the lower ones
        counts = np.bincount(bits, minlength=16)
        assert ((counts - 2**18) ** 2 / 2**18).sum() < 45  # chi squared, 15 degrees of freedom
