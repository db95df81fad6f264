"""Stored pairs: no more are made than training asks for, none twice, and the same ones."""

import logging
import shutil
from collections import namedtuple
from copy import deepcopy
from dataclasses import replace
from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from folders import all_pairs
from PIL import Image
from safetensors.torch import load_file

from restore.errors import DiskFullError
from restore.training import logs, loop
from restore.training.data import stored
from restore.training.data.pairs import PairOptions, make_pair
from restore.training.data.stored import PairStore, StoredPairs
from restore.training.stages.denoiser import digest_of

COUNT = 40


class KilledError(BaseException):
    """As if the process were gone: nothing catches it."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory, pixels):
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(2):
        Image.fromarray(pixels(90, 100, seed)).save(folder / f"{seed}.png")
    return folder


@pytest.fixture
def options(photos):
    told = {"photos": str(photos), "crop": 64, "window": 16, "count": COUNT, "workers": 0}
    return PairOptions.model_validate({**told, "recipe": "clean_bicubic"})


@pytest.fixture
def store(options, stack, tmp_path):
    return PairStore(options, stack, tmp_path / "pairs", "digest", 5)


@pytest.fixture
def making(monkeypatch):
    """The numbers of the pairs that are made, and when to stop."""

    class Making(list):
        last = None

    made = Making()

    def noted(photos, recipe, options, rng, key, *more):
        if len(made) == made.last:
            raise KeyboardInterrupt
        made.append(int(key))
        return make_pair(photos, recipe, options, rng, key, *more)

    monkeypatch.setattr(stored, "make_pair", noted)
    return made


def test_pairs_are_made_anew_where_the_autoencoder_scales_otherwise(stack):
    """Its weights stay the same then."""
    digests = {digest_of(stack)}
    for change in ({"scaling_factor": 3.0}, {"shift_factor": 0.5}):
        coder = deepcopy(stack.vae)
        coder.register_to_config(**change)
        digests.add(digest_of(replace(stack, vae=coder)))
    assert len(digests) == 3


def test_pairs_are_made_anew_where_words_have_other_numbers(stack, monkeypatch):
    before, words = digest_of(stack), stack.reader.tokenizer.get_vocab()
    first, second, *_ = words
    other = words | {first: words[second], second: words[first]}
    monkeypatch.setattr(type(stack.reader.tokenizer), "get_vocab", lambda self: other)
    assert digest_of(stack) != before


def test_pairs_are_made_anew_where_held_out_pictures_or_fonts_changed(options, pixels, tmp_path):
    (tmp_path / "held").mkdir()
    (tmp_path / "fonts").mkdir()
    face = b"as if it were a font"
    more = {"held_out": tmp_path / "held", "fonts": tmp_path / "fonts", "drawn": 0.1}
    given, names = options.model_copy(update=more), []
    for seed, font in ((0, face), (1, face), (1, face + b"x")):
        Image.fromarray(pixels(90, 100, seed)).save(tmp_path / "held" / "0.png")
        (tmp_path / "fonts" / "a.ttf").write_bytes(font)
        names.append([stored.name_of(given, "digest", 5, held) for held in (False, True)])
    (one, two, three), held = zip(*names, strict=True)
    assert one == two != three  # training does not see what is held out
    assert len({*held}) == 3


def arrays(folder):
    return {path.stem: np.load(path) for path in folder.glob("*.npy")}


def assert_rows_equal(folder, other, rows):
    here, there = arrays(folder), arrays(other)
    assert here.keys() == there.keys()
    for name, array in here.items():
        assert np.array_equal(array[rows], there[name][rows]), name


def test_only_what_is_asked_for_is_made_and_nothing_twice(store, making):
    samples = store.samples()
    assert not making
    samples.prepare(0, 6)
    asked = {samples.number(index) for index in range(6)}
    assert set(making) == asked and set(np.flatnonzero(arrays(store.path)["made"])) == asked
    making.clear()
    samples.prepare(0, 6)
    assert not making
    samples.prepare(6, 12)
    more = {samples.number(index) for index in range(6, 12)} - asked
    assert set(making) == more and more
    making.clear()
    samples.prepare(0, 5000)
    assert set(making) == set(range(COUNT)) - asked - more


def test_a_pair_is_the_same_whatever_it_is_made_with(store, options, stack, tmp_path):
    store.fill([3])
    store.fill([11, 30])
    all_pairs(tmp_path / "all", options, stack)
    whole = tmp_path / "all" / store.path.name
    assert_rows_equal(store.path, whole, [3, 11, 30])


def test_a_sample_that_nobody_prepared_is_made_when_it_is_met(store, making):
    samples = store.samples()
    sample = samples[7]
    assert set(making) == {samples.number(7)}
    assert sample["truth"].any()
    with pytest.raises(AssertionError, match="was never made"):
        _ = [StoredPairs(store.path, 16, 5)[index] for index in range(50)]


def test_what_was_made_before_an_interruption_is_not_made_again(
    store, making, options, stack, tmp_path
):
    making.last = 19
    with pytest.raises(KeyboardInterrupt):
        store.fill(range(COUNT))
    assert arrays(store.path)["made"].sum() == 16  # two batches of 8
    before = set(making[:16])
    making.clear()
    making.last = None
    store.fill(range(COUNT))
    assert set(making) == set(range(COUNT)) - before
    all_pairs(tmp_path / "all", options, stack)
    assert_rows_equal(store.path, tmp_path / "all" / store.path.name, range(COUNT))


def test_a_killed_run_loses_what_it_had_not_written_down_alone(store, making, monkeypatch):
    monkeypatch.setattr(stored, "SAFE_S", -1)
    write, count = stored._write_down, []

    def killed(*words):
        count.append(1)
        if len(count) > 3:
            raise KilledError
        write(*words)

    with monkeypatch.context() as patched:
        patched.setattr(stored, "_write_down", killed)
        with pytest.raises(KilledError):
            store.fill(range(COUNT))
    assert arrays(store.path)["made"].sum() == 24
    making.clear()
    store.fill(range(COUNT))
    assert set(making) == set(range(24, COUNT))


def test_pairs_of_an_earlier_version_are_whole(store, making, options):
    store.fill(range(COUNT))
    (store.path / "made.npy").unlink()
    making.clear()
    samples = store.samples()
    samples.prepare(0, 100)
    assert samples[0]["truth"].any() and not making


def test_size_comes_first_then_time_also_through_a_pipe(store, monkeypatch, caplog, capsys):
    monkeypatch.setattr(logs, "SOON_S", -1)
    monkeypatch.setattr(logs, "LATER_S", -1)
    with caplog.at_level(logging.INFO):
        store.fill(range(20))
    assert f"20 pairs to encode, 0 there: 0.00 GB in {store.path}, made once" in caplog.text
    lines = [line for line in capsys.readouterr().out.splitlines() if "encoding pairs" in line]
    assert [line.partition(",")[0] for line in lines] == [
        "encoding pairs: 8 of 20",
        "encoding pairs: 16 of 20",
    ]
    assert all("a second, " in line and line.endswith(" s left") for line in lines)


def test_a_disk_without_room_is_met_before_it_is_full(store, making, monkeypatch):
    usage = namedtuple("usage", "free")
    store.samples()
    monkeypatch.setattr(stored.shutil, "disk_usage", lambda place: usage(1000))
    with pytest.raises(DiskFullError, match=r"do not fit; make room, or set stage\.cache"):
        store.fill(range(COUNT))
    assert not making


def test_a_short_training_makes_few_pairs_and_ends_as_with_all_of_them(
    autoencoder, photos, tmp_path, making
):
    def train(name, steps, cache, **data):
        stage = {
            "kind": "denoiser",
            "autoencoder": str(autoencoder),
            "cache": str(tmp_path / cache),
            "data": {"photos": str(photos), "crop": 64, "window": 16, "workers": 0, "count": 400},
            "channels": [8, 16],
            "layers": 1,
            "groups": 4,
            "text_width": 16,
            "text_layers": 1,
        }
        config = {"stage": stage, "output": str(tmp_path / name), "steps": steps, "batch": 2}
        config |= {"show_every": 100, "log_with": (), "schedule": "constant", "warmup": 0}
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump(config))
        loop.run(path, [])

    train("short", 2, "few")
    assert len(making) <= 8 + 48  # the steps' 4, in a batch of 8; and the 32 that previews show
    train("short", 5, "few")  # goes on, with the pairs of 3 more steps
    assert len(making) <= 16 + 48
    train("at_once", 5, "others")
    one, other = (
        load_file(tmp_path / name / "step_00000005" / "model.safetensors")
        for name in ("short", "at_once")
    )
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_the_options_beside_the_pairs_are_utf8_whatever_the_locale(
    photos, options, stack, tmp_path, monkeypatch
):
    named = Path(shutil.copytree(photos, tmp_path / "été"))
    monkeypatch.setattr(Path, "write_text", partialmethod(Path.write_text, encoding="ascii"))
    asked = options.model_copy(update={"photos": named})
    folder = PairStore(asked, stack, tmp_path / "pairs", "digest", 5).fill([])
    assert PairOptions.model_validate_json((folder / "options.json").read_bytes()) == asked
