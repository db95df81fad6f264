"""Words: pairs whose truth they decide, and the benchmark that tells whether a model listens."""

import hashlib
import json
from types import SimpleNamespace

import benchmark
import numpy as np
import pytest
import torch
from benchmarks import wordings, words
from folders import all_pairs
from PIL import Image
from pydantic import ValidationError
from typer.testing import CliRunner

import degradations
from degradations import recipes
from restore.checkpoints import devices
from restore.errors import ConfigError
from restore.training.data import latent_pairs, stored
from restore.training.data.captions import vocabulary
from restore.training.data.enlarging import bicubic
from restore.training.data.pairs import GRAIN, PairOptions, draw_pair
from restore.training.stages.denoiser import DenoiserOptions
from restore.training.stages.finetune import FinetuneOptions
from restore.training.stages.vocabulary import letters

NANO = {"model": "nano"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory, pixels):
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(3):
        Image.fromarray(pixels(80, 90, seed)).save(folder / f"{seed}.png")
    return folder


def options(photos, **more):
    told = {"photos": str(photos), "crop": 64, "window": 16, "tasks": {"restore": 1}}
    return PairOptions.model_validate(told | more)


def pairs(photos, count=24, **more):
    """Pairs by number; the photo of a number is the same whatever is kept of it."""
    given = options(photos, **more)
    found, recipe = given.pictures(64), recipes.find(given.recipe)
    rngs = [np.random.default_rng((0, n)) for n in range(count)]
    return [draw_pair(found, recipe, given, rng, f"{n}", 64) for n, rng in enumerate(rngs)]


def test_words_decide_whether_the_grain_that_is_seen_is_in_the_truth(photos):
    plain, grainy = pairs(photos), pairs(photos, keeps=1, described=1)
    kept = ["keep grain" in pair.caption for pair in grainy]
    assert 4 < sum(kept) < 20
    for photo, pair, is_kept in zip(plain, grainy, kept, strict=True):
        assert np.array_equal(
            pair.conditioning, bicubic(degradations.replay(pair.trace, pair.original), 64)
        )
        assert np.array_equal(pair.truth, pair.original if is_kept else photo.truth)
        deviation = (pair.original - photo.truth.astype(float)).std()
        assert 0.5 < deviation < 22  # grain is seen, whatever is said of it
        assert is_kept or "keep" not in pair.caption


def test_grain_goes_where_nothing_is_said(photos):
    plain, silent = pairs(photos), pairs(photos, keeps=1, described=0)
    assert all(pair.caption == "" for pair in silent)
    for photo, pair in zip(plain, silent, strict=True):
        assert np.array_equal(pair.truth, photo.truth)
        assert not np.array_equal(pair.original, photo.truth)


def test_the_photos_own_grain_stands_in_for_that_of_the_recipe(photos):
    told = {"recipe": "old_photo", "clean": 0, "severity": (1, 1), "described": 1}
    assert all("film grain" in pair.caption for pair in pairs(photos, **told))
    for pair in pairs(photos, keeps=1, **told):
        assert "film_grain" not in {step["kind"] for step in pair.trace.steps}
        assert not ("film grain" in pair.caption and "keep grain" in pair.caption)


def test_half_of_the_captions_are_wishes_and_every_word_is_a_token(photos):
    said = [pair.caption for pair in pairs(photos, 80, keeps=0.5, described=1, clean=0)]
    asked = [text for text in said if "remove" in text]
    assert 20 < len(asked) < 60
    assert any("remove" in text and "keep grain" in text for text in asked)
    assert any("remove grain" in text for text in asked)
    known = {f"{word}</w>" for word in vocabulary()}
    tokenizer = letters(vocabulary())
    for text in ["remove noise, keep grain", *said]:
        tokens = set(tokenizer.tokenize(text))
        assert {token for token in tokens if token[0].isalpha()} <= known


def test_pairs_are_as_they_were_where_nothing_is_kept(photos, stack, tmp_path):
    given = options(photos, count=2, workers=0)
    before = given.model_dump_json(exclude=stored.RUN_ONLY | stored.NEWER)
    told = f"{before}{stored.contents(given)} digest 5"
    name = hashlib.sha256(told.encode()).hexdigest()[:16]
    assert "keeps" not in before
    assert all_pairs(tmp_path, given, stack).name == name
    kept = options(photos, count=2, workers=0, keeps=0.5)
    assert all_pairs(tmp_path, kept, stack).name != name


@pytest.mark.parametrize("sharpened", [False, True])
def test_pairs_with_grain_are_the_same_from_workers_and_device(photos, stack, tmp_path, sharpened):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"name: r\nsharpen: {str(sharpened).lower()}\nsteps: [{{kind: blur}}]\n")
    told = {"recipe": str(recipe), "keeps": 1, "described": 1}
    ours, theirs = (
        latent_pairs.LivePairs(options(photos, mode=mode, **told), stack.context, 5)
        for mode in ("live", "device")
    )
    batch = torch.utils.data.default_collate([theirs[n] for n in range(6)])
    known = latent_pairs.degrade_pixels(batch, batch["trace"], batch["hole"]).numpy().astype(int)
    for number in range(6):
        assert np.abs(known[number] - ours[number]["conditioning"].numpy()).max() <= 2
        assert torch.equal(batch["truth"][number], ours[number]["truth"])


def test_words_that_decide_may_not_be_dropped_later_or_go_with_given_pairs(photos):
    data = {"photos": str(photos), "keeps": 0.1}
    for kind, more in ((DenoiserOptions, {"autoencoder": "nano"}), (FinetuneOptions, NANO)):
        kind.model_validate(more | {"data": data})
        with pytest.raises(ValidationError, match=r"set data\.described instead"):
            kind.model_validate(more | {"data": data, "dropped": 0.1})
    with pytest.raises(ValidationError, match="keeps would do nothing"):
        options(photos, low=str(photos), keeps=0.1)
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        options(photos, keeps=2)


def test_grain_is_replayed_from_its_trace(pixels):
    made = GRAIN.degrade(pixels(64, 64), 1, 3, "a")
    assert np.array_equal(degradations.replay(made.trace, pixels(64, 64)), made.lr)


def test_captions_are_as_unlike_as_their_levels():
    assert words.parse_caption("strong noise, jpeg 40, slight motion blur, keep grain") == {
        "noise": 3,
        "jpeg": 3,
        "motion blur": 1,
    }
    assert words.caption_distance("clean", "strong noise, jpeg 80") == 4
    assert words.caption_distance("some blur", "strong blur") == 1
    assert words.caption_distance("some blur", "some blur") == 0


@pytest.fixture
def bench(photos, stack, tmp_path, monkeypatch):
    """The command over the tiny stack: its result."""
    monkeypatch.setattr(devices, "load", lambda name: stack)

    def run(*more, folder=photos, out="out"):
        line = ["words", str(folder), "-o", str(tmp_path / out), "--crop", "64", "-n", "3", *more]
        return CliRunner().invoke(benchmark.app, line)

    return run


def test_the_benchmark_tells_what_words_change(bench, tmp_path):
    done = bench("--guidance", "3", "--steps", "1", "--scales", "4")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == (tmp_path / "out/table.md").read_text()
    told = json.loads((tmp_path / "out/words.json").read_text())
    assert list(told["groups"]) == ["x4", "x4_grain"]
    for name, group in told["groups"].items():
        guided, pictures = "right, guidance 3", group["pictures"]
        assert set(group["means"]) == {"input, bicubic", "none", "right", "wrong", guided}
        assert group["means"]["none"]["psnr"]["pictures"] == 3
        assert 0 < group["moved"]["right"]["mean"] < group["moved"][guided]["mean"]
        assert all(one["right"] != one["wrong"] for one in pictures)
        assert all(("keep grain" in one["right"]) == ("grain" in name) for one in pictures)
        gains = [x["scores"]["right"]["psnr"] - x["scores"]["none"]["psnr"] for x in pictures]
        assert group["against_none"][0]["difference"] == pytest.approx(np.mean(gains))
        with Image.open(tmp_path / f"out/sheet_{name}.png") as sheet:
            assert sheet.size == (6 + 5 * 70, 24 + 3 * 82)


def test_the_benchmark_depends_on_its_seed_alone(photos, stack):
    def made(seed):
        asked = words.Settings(photos, count=2, crop=64, seed=seed)
        found = words.load_crops(asked)
        cases = words.make_damaged(asked, found, 2) + words.make_grainy(asked, found, 1)
        return [words.score_wordings("x", [case], asked, stack).cases[0] for case in cases]

    one, again, other = made(0), made(0), made(1)
    for first, second in zip(one, again, strict=True):
        assert (first.right, first.wrong) == (second.right, second.wrong)
        assert all(np.array_equal(first.results[who], second.results[who]) for who in first.results)
    assert not np.array_equal(one[0].truth, other[0].truth)


def test_a_model_that_hears_is_told_from_one_that_does_not(photos):
    """Nearer to the truth under the right words is better; what never moves is neither."""
    rng = np.random.default_rng(0)
    cases = [
        words.Case(f"{n}", rng.integers(0, 255, (64, 64, 3), np.uint8), np.zeros((16, 16, 3)), "a")
        for n in range(4)
    ]
    rows = {}
    for case in cases:
        noisy = np.clip(case.truth + rng.normal(0, 9, case.truth.shape), 0, 255).astype(np.uint8)
        near = ((case.truth + noisy.astype(int)) // 2).astype(np.uint8)
        case.results = {words.NONE: noisy, words.RIGHT: near, words.WRONG: noisy}
        for who, made in case.results.items():
            rows.setdefault(who, []).append(words.make_row(case, made))
    group = words.Group(
        "x4", cases, [words.ScoredFolder(who, all_of, {}) for who, all_of in rows.items()]
    )
    _, right, wrong = wordings.markdown([group]).splitlines()[-3:]
    assert right.count("better") == 3
    assert "better" not in wrong and wrong.endswith("| 0 (0 .. 0) |")


@pytest.mark.parametrize(("gain", "told"), [(1e-5, "+0.000 (+0.000 .. +0.000)"), (0.1, "better")])
def test_a_difference_too_small_to_show_is_no_verdict(gain, told):
    def scored(name, gain):
        scores = [{"psnr": 30 + n + gain * (1 + n / 10), "ssim": 1, "pd": 1} for n in range(4)]
        rows = [{"key": f"{n}", "status": "done", "scores": one} for n, one in enumerate(scores)]
        return words.ScoredFolder(name, rows, {})

    group = words.Group("x4", [], [scored(words.NONE, 0), scored(words.RIGHT, gain)])
    assert wordings.format_cell(group, group.scored[1], words.TABLE[0]).endswith(told)


def test_what_cannot_be_measured_is_refused_with_the_mend(bench, stack, tmp_path, monkeypatch):
    done = bench(folder=tmp_path / "none")
    assert done.exit_code == 2 and "no such file or folder" in done.stderr
    done = bench("--recipe", "realesrgam")
    assert done.exit_code == 2 and "did you mean 'realesrgan'" in done.stderr
    for scales in ("4,x", "0.5"):
        done = bench("--scales", scales)
        assert done.exit_code == 2 and "numbers from 1 to 16" in done.stderr
    for deaf in (None, SimpleNamespace(kind="classes")):
        monkeypatch.setattr(stack, "context", deaf)
        done = bench()
        assert done.exit_code == 3 and "reads no words" in done.stderr


def test_photos_that_cannot_be_read_are_refused(tmp_path, pixels):
    for seed in range(2):
        path = tmp_path / f"{seed}.jpg"
        Image.fromarray(pixels(80, 80, seed)).save(path)
        path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ConfigError, match="none of its pictures can be read"):
        words.load_crops(words.Settings(tmp_path, crop=64))
