"""The whole chain: alone or among others, now or replayed, a picture degrades the same."""

import importlib.util
import json
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import cv2
import numpy as np
import pytest
from PIL import Image

import degradations
from degradations import Recipe, RecipeError, Trace, ops, rebuild, recipes, replay
from degradations.ops import OPS, GaussianNoise, Jpeg, Resize
from degradations.ops.resize import resize
from degradations.ranges import Uniform

KEYS = [f"photo_{i}/{i % 3}" for i in range(24)]
FULL = recipes.named("realesrgan")
RUNNABLE = [name for name in recipes.NAMED if name != "video" or importlib.util.find_spec("av")]


def photo(height=96, width=120, seed=0):
    """uint8 (H, W, 3): blobs, an edge and some texture."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (height // 12 + 2, width // 12 + 2, 3)).astype(np.float32)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    image[:, width // 2 :] *= 0.6
    return np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


def psnr(a, b):
    return 10 * np.log10(255**2 / max(1e-3, ((a.astype(float) - b.astype(float)) ** 2).mean()))


def lr(key, hr=None):
    return FULL.degrade(photo() if hr is None else hr, scale=4, seed=0, key=key).lr


@pytest.fixture
def opencv_threads():
    before = cv2.getNumThreads()
    yield cv2.setNumThreads
    cv2.setNumThreads(before)


def test_an_image_degrades_the_same_in_any_order_and_number_of_threads(opencv_threads):
    opencv_threads(1)
    alone = {key: lr(key).tobytes() for key in KEYS}
    assert {key: lr(key).tobytes() for key in reversed(KEYS)} == alone
    opencv_threads(2)
    with ThreadPoolExecutor(4) as pool:
        together = dict(zip(KEYS, pool.map(lr, KEYS), strict=True))
    assert {key: image.tobytes() for key, image in together.items()} == alone


@pytest.mark.parametrize("name", RUNNABLE)
def test_every_recipe_is_the_same_in_any_order(name):
    recipe, hr = recipes.named(name), photo(60, 72)
    forth, back = (
        {key: recipe.degrade(hr, scale=2, seed=0, key=key).lr.tobytes() for key in keys}
        for keys in (KEYS[:4], KEYS[3::-1])
    )
    assert forth == back and len(set(forth.values())) == (1 if name == "clean_bicubic" else 4)


@pytest.mark.parametrize("severity", [0.1, 1])
@pytest.mark.parametrize("name", recipes.NAMED)
def test_draws_of_a_batch_are_those_of_each(name, severity):
    recipe, keys = recipes.named(name).at(severity), [f"b/{i}" for i in range(100)]
    for seed in (0, 2**62):
        together = recipe.draw_batch((96, 120), 2.5, seed, iter(keys))
        alone = [recipe.draw((96, 120), 2.5, seed, key) for key in keys]
        assert [t.to_json() for t in together] == [t.to_json() for t in alone]
    assert recipe.draw_batch((96, 120), 2.5, 0, []) == []
    assert recipe.draw_batch((96, 120), 2.5, 0, ["a"]) == [recipe.draw((96, 120), 2.5, 0, "a")]


def test_draws_of_a_batch_go_through_steps_within_steps():
    inner = ops.Shuffle(steps=(Jpeg(), GaussianNoise(), ops.Maybe(p=0.5, step=Resize())))
    steps = (ops.Repeat(n=Uniform(1, 4), scale=0.5, steps=(inner,)), ops.OneOf(steps=(inner,) * 3))
    recipe, keys = Recipe(name="deep", steps=steps), [str(i) for i in range(40)]
    together = recipe.draw_batch((8, 8), 1, 3, keys)
    assert together == [recipe.draw((8, 8), 1, 3, key) for key in keys]
    assert len({len(trace.steps) for trace in together}) > 4


@pytest.mark.parametrize("name", RUNNABLE)
def test_every_recipe_at_nought_is_nothing_but_the_resize(name):
    hr, recipe = photo(41, 60), recipes.named(name).at(0)
    degraded = recipe.degrade(hr, scale=1, seed=0, key="a")
    truth = degradations.sharpen(hr) if recipe.sharpen else hr
    assert (degraded.lr == truth).all() and not degraded.damage.any()


def at_severity(recipe, severity, pictures, keys=6):
    """float (pictures x keys, 32, 32, 3)."""
    milder = recipe.at(severity)
    made = (milder.degrade(hr, scale=4, seed=0, key=f"{i}") for i in range(keys) for hr in pictures)
    return np.stack([degraded.lr.astype(float) for degraded in made])


@pytest.mark.parametrize("name", RUNNABLE)
def test_pictures_of_every_recipe_get_worse_from_the_limit_at_nought_on(name):
    recipe, pictures = recipes.named(name), [photo(128, 128, seed) for seed in range(3)]
    nought = at_severity(recipe, 0, pictures)
    grid = (0.01, 0.1, 0.25, 0.5, 0.75, 1)
    squares = [((at_severity(recipe, s, pictures) - nought) ** 2).mean((1, 2, 3)) for s in grid]
    means = [np.mean(10 * np.log10(255**2 / np.maximum(1e-3, one))) for one in squares]
    # a sensor's mosaic costs most where the lens is sharpest
    slack = {"clean_bicubic": 1e-9, "phone": 0.4}.get(name, 0)
    assert all(a > b - slack for a, b in pairwise(means)), means
    # CompatResize floors: at 0.999 a row is gone already, as published
    faint = at_severity(recipe, 0.001, pictures)
    assert np.abs(faint - nought).mean() < (8 if name == "realesrgan_compat" else 0.3)
    little = np.abs(at_severity(recipe, 0.01, pictures) - nought).mean()
    assert little < (8 if name == "realesrgan_compat" else 2.5)


def test_a_key_draws_alike_at_any_severity():
    mild, full = (FULL.at(s).degrade(photo(), scale=4, seed=0, key="a").trace for s in (0.3, 1))
    for one, other in zip(mild.steps, full.steps, strict=True):
        assert one["kind"] == other["kind"] and one.get("mode") == other.get("mode")


@pytest.mark.parametrize("severity", [0.05, 0.2, 0.25, 0.7])
def test_what_cannot_fade_comes_less_often_below_a_quarter(severity):
    recipe = Recipe(name="codec", steps=(Jpeg(), GaussianNoise())).at(severity)
    traces = [recipe.draw((8, 8), 1, seed=0, key=str(i)) for i in range(1000)]
    kinds = [step["kind"] for trace in traces for step in trace.steps]
    assert kinds.count("gaussian_noise") == 1000
    assert kinds.count("jpeg") == pytest.approx(1000 * min(1, severity * 4), abs=50)


def test_keys_and_seeds_differ():
    hr = photo()
    images = {lr(key, hr).tobytes() for key in KEYS}
    images |= {FULL.degrade(hr, scale=4, seed=s, key=KEYS[0]).lr.tobytes() for s in (1, 2)}
    assert len(images) == len(KEYS) + 2


@pytest.mark.parametrize("name", RUNNABLE)
def test_a_trace_replays_bit_for_bit_from_its_json(name):
    hr = photo(61, 83)
    recipe = recipes.named(name).model_copy(update={"sharpen": True})
    for key in KEYS[:8]:
        degraded = recipe.degrade(hr, scale=2.7, seed=5, key=key)
        text = degraded.trace.to_json()
        assert len(text) < 3000
        trace = Trace.from_json(text)
        assert trace == degraded.trace
        again = rebuild(trace, hr)
        assert (again.lr == degraded.lr).all() and (again.damage == degraded.damage).all()


def test_a_trace_says_what_was_done():
    trace = FULL.degrade(photo(), scale=4, seed=0, key="a").trace
    told = json.loads(trace.to_json())
    assert (told["recipe"], told["seed"], told["key"], told["scale"]) == ("realesrgan", 0, "a", 4)
    assert told["digest"] == FULL.digest() != FULL.at(0.5).digest()
    kinds = [step["kind"] for step in told["steps"]]
    assert set(kinds) <= set(OPS) and kinds.count("jpeg") == 2 and kinds.count("resize") == 3


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (53, 1), (3, 2), (47, 64), (61, 99)])
@pytest.mark.parametrize("scale", [1, 1.5, 2, 3.3, 4, 100])
def test_the_size_is_exact_for_any_picture_and_scale(size, scale):
    hr = photo(*size)
    for key in KEYS[:6]:
        degraded = FULL.degrade(hr, scale=scale, seed=0, key=key)
        assert degraded.lr.dtype == np.uint8
        assert degraded.lr.shape == (*(max(1, round(n / scale)) for n in size), 3)


def test_nothing_moves_along_the_chain():
    y, x = np.mgrid[:256, :256]
    blob = 220 * np.exp(-((y - 121.4) ** 2 + (x - 133.7) ** 2) / 900)
    hr = np.repeat(np.rint(blob)[..., None], 3, 2).astype(np.uint8)
    for key in KEYS:
        trace = FULL.degrade(hr, scale=4, seed=0, key=key).trace
        geometric = [s for s in trace.steps if s["kind"] in ("blur", "sinc", "resize")]
        out = replay(trace.model_copy(update={"steps": geometric}), hr)[..., 0].astype(float)
        # 8-bit rounding leaves a far-off rim; a centroid heeds it more than the blob
        out[out < 3] = 0
        centre = (np.arange(64) + 0.5) * 4 - 0.5
        assert (out.sum(1) @ centre) / out.sum() == pytest.approx(121.4, abs=0.05)
        assert (out.sum(0) @ centre) / out.sum() == pytest.approx(133.7, abs=0.05)


def test_severity_nought_is_nothing_but_the_resize():
    hr = photo(90, 121)
    for key in KEYS:
        degraded = FULL.at(0).degrade(hr, scale=4, seed=0, key=key)
        assert {step["kind"] for step in degraded.trace.steps} == {"resize"}
        mode = degraded.trace.steps[0]["mode"]
        plain = resize(hr.astype(np.float32) / 255, degraded.lr.shape[:2], mode)
        assert np.abs(np.clip(plain, 0, 1) * 255 - degraded.lr).max() <= 0.51
        same = FULL.at(0).degrade(hr, scale=1, seed=0, key=key)
        assert (same.lr == hr).all()


def test_pictures_get_worse_with_severity():
    hr = photo(128, 128)
    means = []
    for severity in (0, 0.15, 0.3, 0.6, 1):
        recipe = FULL.at(severity)
        images = [recipe.degrade(hr, scale=2, seed=0, key=key).lr for key in KEYS]
        clean = resize(hr.astype(np.float32), images[0].shape[:2], "bicubic")
        means.append(np.mean([psnr(image, clean) for image in images]))
    assert all(a > b + 0.5 for a, b in pairwise(means)), means


def test_severity_one_is_the_recipe_and_beyond_is_refused():
    assert FULL.at(1) is FULL
    for severity in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="severity must be from 0 to 1"):
            FULL.at(severity)


def test_a_sharpened_recipe_equals_degrading_the_sharpened_picture():
    hr = photo()
    sharp = FULL.model_copy(update={"sharpen": True})
    one = sharp.degrade(hr, scale=4, seed=0, key="a").lr
    assert (one == lr("a", degradations.sharpen(hr))).all()
    assert (one != lr("a", hr)).any()


def test_the_picture_is_not_written_to():
    hr = photo()
    hr.setflags(write=False)
    for key in KEYS:
        lr(key, hr)
        recipes.named("clean_bicubic").degrade(hr, scale=1, seed=0, key=key)


def test_a_view_of_a_picture_degrades_as_its_copy():
    whole = photo(130, 130)
    for view in (whole[3:99, 5:101], np.rot90(whole)[::2], whole[:, ::-1]):
        for key in KEYS[:6]:
            assert (lr(key, view) == lr(key, np.ascontiguousarray(view))).all()


def test_a_recipe_without_steps_still_meets_the_size():
    assert Recipe(name="none").degrade(photo(), scale=4, seed=0, key="a").lr.shape == (24, 30, 3)
    half = Recipe(name="half", steps=(Resize(factor=0.5),))
    assert half.degrade(photo(), scale=4, seed=0, key="a").lr.shape == (24, 30, 3)


def test_what_cannot_be_degraded_is_refused_with_the_mend():
    with pytest.raises(ValueError, match="uint8"):
        lr("a", photo().astype(np.float32))
    for wrong, how in (
        (photo()[..., 0], "repeat the grey"),
        (photo()[..., :1], "repeat the grey"),
        (Image.fromarray(photo()), "not Image; np.asarray.* makes one"),
        ("photo.png", "not str; "),
        (np.dstack([photo(), photo()[..., 0]]), "leave out the alpha"),
        (photo().astype(np.uint16), "round it to 8 bits"),
        (photo()[:0], "at least one pixel"),
    ):
        with pytest.raises(ValueError, match=how):
            lr("a", wrong)
    with pytest.raises(ValueError, match="scale must be 1 or more"):
        FULL.degrade(photo(), scale=0.5, seed=0, key="a")
    trace = FULL.degrade(photo(), scale=4, seed=0, key="a").trace
    with pytest.raises(RecipeError, match="picture it was made from"):
        replay(trace, photo(50, 50))
    with pytest.raises(RecipeError, match="unknown kind 'bluur'; known: blur"):
        replay(trace.model_copy(update={"steps": [{"kind": "bluur"}]}), photo())
    with pytest.raises(RecipeError, match="not a trace"):
        Trace.from_json('{"seed": 1}')
