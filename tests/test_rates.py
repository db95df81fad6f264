"""How long a megapixel takes: measured once a machine, kept, told before anything is begun."""

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from restore.batch import rates
from restore.batch.rates import Rate
from restore.errors import ModelError
from restore.options import Img2imgOptions, InpaintOptions, UpscaleOptions


@pytest.fixture
def kept(monkeypatch, tmp_path):
    """Reads the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return lambda: json.loads((tmp_path / "cache" / "restore" / "rates.json").read_text())


@pytest.fixture
def large(monkeypatch):
    """Results above 0.001 megapixels are large, and tell a rate."""
    monkeypatch.setattr(rates, "LARGE", 1000)
    monkeypatch.setattr(rates, "ENOUGH", 1000)


def rate(stack, options=None, **made_by):
    return Rate(options or UpscaleOptions(), lambda: stack, made_by)


def test_the_first_run_is_told_what_it_takes_and_the_machine_is_measured_once(
    call, photo, tmp_path, kept
):
    photo("a.png")
    words = ("upscale", tmp_path / "in", "-s", 2, "--dry-run")
    code, said, err = call(*words)
    assert code == 0 and "if all are done, by the rate of this machine" in said
    assert "measuring how fast this machine is, once" in err
    assert next(iter(kept().values())) > 0
    code, again, err = call(*words, "--prompt", "noise", out="other")
    assert "by the rate of this machine" in again and not err
    call(*words, "--steps", 2)
    assert len(kept()) == 2


def test_a_model_that_cannot_load_is_refused_before_the_machine_is_measured(kept):
    def refuse():
        raise ModelError("cuda: no such device")

    noted = []
    with pytest.raises(ModelError, match="no such device"):
        Rate(UpscaleOptions(), refuse, {}, note=noted.append).get()
    assert not noted


def test_a_run_measures_better_than_a_probe(call, tmp_path, pixels, kept, large):
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels(40, 50)).save(tmp_path / "in" / "a.png")
    words = ("upscale", tmp_path / "in", "-s", 2)
    call(*words, "--dry-run", out="dry")
    (before,) = kept().items()
    assert call(*words)[0] == 0
    (after,) = kept().items()
    assert before[0] == after[0] and before[1] != after[1]
    assert "measuring" not in call(*words, "--dry-run", out="dry")[2]


def test_what_decides_the_time_decides_the_rate(stack):
    key = rate(stack).key
    assert rate(stack, UpscaleOptions(scale=2, prompt="noise", windows=1)).key == key
    others = [UpscaleOptions(steps=3), UpscaleOptions(colour="adain"), Img2imgOptions()]
    keys = {rate(stack, options).key for options in others}
    keys |= {rate(stack, device="cpu").key, Rate(UpscaleOptions(), lambda: stack, {}, 4).key}
    assert len(keys | {key}) == 6


def test_long_walks_are_foretold_by_short_ones(stack, monkeypatch):
    met = []

    def seconds(options, model, side):
        met.append((options.steps, side))
        return 3 + 2 * options.steps

    monkeypatch.setattr(rates, "_seconds", seconds)
    net = (stack.windows.stride * stack.factor) ** 2 / 1e6
    assert rates.probed(UpscaleOptions(steps=50), stack) == pytest.approx(103 / net)
    assert rates.probed(UpscaleOptions(steps=1, scale=1), stack) == pytest.approx(5 / net)
    side = stack.windows.size * stack.factor
    assert met == [(2, side // 4), (4, side // 4), (1, side)]


def test_the_time_of_holes_is_told_by_the_first_of_them(stack, call, photo, tmp_path):
    assert rate(stack, InpaintOptions()).get() is None
    photo("a.png"), photo("a.png", folder="masks")
    words = ("inpaint", tmp_path / "in", "--mask", tmp_path / "masks", "--dry-run")
    assert "known once the first files are done" in call(*words)[1]


@pytest.mark.parametrize("text", ["", "[1, 2", '{"a": "b"}', "[1]"])
def test_a_broken_cache_is_measured_anew(stack, text, kept, tmp_path):
    (tmp_path / "cache" / "restore").mkdir(parents=True)
    (tmp_path / "cache" / "restore" / "rates.json").write_text(text)
    assert rate(stack).get() > 0
    assert len(kept()) == 1


def test_a_cache_that_cannot_be_written_costs_nothing_but_the_measuring(
    stack, monkeypatch, tmp_path
):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert rate(stack).get() > 0


def test_a_large_result_is_told_of_once_before_it_is_begun(call, tmp_path, pixels, large):
    (tmp_path / "in").mkdir()
    for name, height in (("a.png", 20), ("b.png", 40)):
        Image.fromarray(pixels(height, 40)).save(tmp_path / "in" / name)
    words = ("upscale", tmp_path / "in", "-s", 4)
    told = [line for line in call(*words, "--dry-run")[1].splitlines() if "-s 2 makes" in line]
    assert len(told) == 1 and told[0].startswith("b.png: its result has 0 megapixels, about ")
    assert "(and 1 other picture more than 0)" in told[0] and "; -s 1 makes 0 meg" in told[0]
    code, _, err = call(*words)
    lines = err.splitlines()
    told = [n for n, line in enumerate(lines) if "restore: a.png: its result has" in line]
    assert code == 0 and len(told) == 1
    assert told[0] < next(n for n, line in enumerate(lines) if "done     a.png" in line)
    assert "b.png: its result has" not in err


def test_what_a_large_result_takes_in_words():
    size = (3024, 4032)
    assert rates.warning("a.jpg", size, UpscaleOptions(), 3.9) == (
        "a.jpg: its result has 195 megapixels, about 13 min; -s 2 makes 49 megapixels, "
        "about 3 min; -s 1 makes 12 megapixels, about 48 s"
    )
    told = rates.warning("a.jpg", size, UpscaleOptions(scale=2), None, 2)
    assert told == (
        "a.jpg: its result has 49 megapixels (and 2 other pictures more than 50); "
        "-s 1 makes 12 megapixels"
    )
    assert "-s" not in rates.warning("a.jpg", size, UpscaleOptions(scale=1), 3.9)
    assert "-s" not in rates.warning("a.jpg", size, Img2imgOptions(), 3.9)
    assert rates.format_duration(100) == "2 min" and rates.format_duration(9000) == "2.5 h"


def test_the_cache_is_where_the_system_keeps_such(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert rates._file() == tmp_path / ".cache" / "restore" / "rates.json"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert rates._file() == tmp_path / "local" / "restore" / "rates.json"
