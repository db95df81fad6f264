"""Noise, colour, codecs, print and damage: each op obeys the law that its docstring states."""

import importlib.util
import io

import numpy as np
import pytest
from PIL import Image
from test_ops import flat, picture

from degradations import Recipe, RecipeError, rebuild, recipes
from degradations.ops import (
    H264,
    OPS,
    Avif,
    Banding,
    Blur,
    Cast,
    ChromaShift,
    CompatResize,
    CompatSinc,
    Damage,
    Defocus,
    Dust,
    Fade,
    FilmGrain,
    Folds,
    Halftone,
    MotionBlur,
    Resize,
    ScanLines,
    Scratches,
    SensorNoise,
    Sharpen,
    Sinc,
    Speckle,
    Stains,
    WebP,
)
from degradations.ops.codec import h264
from degradations.ops.jpeg import to_uint8
from degradations.ops.photo import from_linear, mosaic, to_linear
from degradations.ops.resize import MODES
from degradations.ranges import Choice, Uniform
from degradations.rng import Rng

needs_av = pytest.mark.skipif(not importlib.util.find_spec("av"), reason="needs PyAV")
DAMAGE = {kind: op for kind, op in OPS.items() if issubclass(op, Damage)}
NOTHING = {  # params at which an op changes nothing, or no more than 8 bits
    "motion_blur": {"length": 0.0, "bend": 1.0, "angle": 0.3},
    "defocus": {"radius": 0.0},
    "sharpen": {"amount": 0.0, "radius": 2.0},
    "speckle": {"sigma": 0.0, "grey": True, "seed": 1},
    "film_grain": {"sigma_levels": 0.0, "size": 1.0, "grey": False, "seed": 1},
    "fade": {"amount": 0.0, "level": 0.5, "desaturation": 0.0},
    "cast": {"gains": [1.0, 1.0, 1.0]},
    "chroma_shift": {"x": 0.0, "y": 0.0},
    "banding": {"levels": 256},
    "halftone": {"strength": 0.0, "period": 4.0, "angle": 20.0},
    "scan_lines": {"strength": 0.0, "period": 3.0, "phase": 0.2},
    "scratches": {"count": 0, "opacity": 1.0, "width": 2.0, "shade": 1.0, "seed": 1},
    "dust": {"count": 0, "opacity": 1.0, "width": 2.0, "shade": 1.0, "seed": 1},
    "folds": {"count": 0, "opacity": 1.0, "width": 2.0, "seed": 1},
    "stains": {"count": 0, "opacity": 1.0, "radius": 90.0, "seed": 1},
}


@pytest.mark.parametrize("kind", NOTHING)
def test_at_its_neutral_values_an_op_changes_nothing(kind):
    rgb = picture(40, 50)
    out = OPS[kind].apply(rgb, NOTHING[kind], (1, 1))
    np.testing.assert_allclose(out, rgb, atol=0.51 / 255 if kind == "banding" else 1e-6)


@pytest.mark.parametrize("op", [MotionBlur, Defocus])
def test_motion_and_defocus_keep_the_mean_and_lower_the_contrast(op):
    rgb = picture(64, 48)
    out = op.apply(rgb, op().draw(Rng(0, "b")), (1, 1))
    np.testing.assert_allclose(out.mean((0, 1)), rgb.mean((0, 1)), atol=0.015)
    assert out.std() < rgb.std()


def test_sharpening_overshoots_by_its_amount_and_leaves_flat_areas():
    rgb = flat(0.4, (60, 60))
    rgb[:, 30:] = 0.6
    halos = [
        Sharpen.apply(rgb, {"amount": amount, "radius": 2.0}, (1, 1)).max() for amount in (0.5, 1)
    ]
    assert halos[1] - 0.6 == pytest.approx(2 * (halos[0] - 0.6), rel=0.01)
    still = Sharpen.apply(flat(0.4), {"amount": 2, "radius": 3}, (1, 1))
    np.testing.assert_allclose(still, 0.4, atol=1e-6)


@pytest.mark.parametrize("value", [0.1, 0.5])
def test_speckle_grows_with_the_value(value):
    out = Speckle.apply(flat(value), {"sigma": 0.1, "grey": False, "seed": 3}, (1, 1))
    assert out.std() == pytest.approx(0.1 * value, rel=0.02)
    assert out.mean() == pytest.approx(value, rel=0.01)


@pytest.mark.parametrize(("value", "share"), [(0.5, 1.0), (0.1, 0.6), (0.9, 0.6)])
@pytest.mark.parametrize("size", [0.0, 0.6, 1.4])
def test_grain_has_its_sigma_and_a_correlation_of_its_size(value, share, size):
    params = {"sigma_levels": 8.0, "size": size, "grey": True, "seed": 5}
    noise = (FilmGrain.apply(flat(value), params, (1, 1)) - value)[..., 0] * 255
    assert noise.std() == pytest.approx(8 * share, rel=0.06)
    along = np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1]
    assert along == pytest.approx(np.exp(-1 / (4 * max(size, 1e-3) ** 2)), abs=0.08)
    edge = np.concatenate([noise[:2].ravel(), noise[:, :2].ravel()])
    assert edge.std() == pytest.approx(noise.std(), rel=0.2)
    for end in (0.0, 1.0):
        none = FilmGrain.apply(flat(end, (9, 9)), params, (1, 1))
        np.testing.assert_allclose(none, end, atol=1e-4)


def test_linear_light_and_back():
    values = np.linspace(0, 1, 1001, dtype=np.float32)
    np.testing.assert_allclose(from_linear(to_linear(values)), values, atol=1e-5)
    assert to_linear(np.float32(0.5)) == pytest.approx(0.21404, abs=1e-5)


def test_a_silent_sensor_keeps_colours_and_loses_only_detail():
    params = {"shot": 0.0, "read": 0.0, "gains": [2.1, 1.0, 1.7], "seed": 0}
    for colour in ((0.2, 0.5, 0.7), (0.9, 0.1, 0.3), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)):
        rgb = np.tile(np.array(colour, np.float32), (6, 7, 1))
        np.testing.assert_allclose(SensorNoise.apply(rgb, params, (1, 1)), rgb, atol=2e-3)


def test_sensor_noise_is_poisson_and_gaussian_in_linear_light():
    params = {"shot": 0.004, "read": 1e-5, "gains": [1.0, 1.0, 1.0], "seed": 7}
    spreads = []
    for linear in (0.05, 0.2, 0.5):
        out = SensorNoise.apply(flat(float(from_linear(np.float32(linear)))), params, (1, 1))
        light = to_linear(out)
        assert light.mean() == pytest.approx(linear, rel=0.01)
        raw = mosaic(light)  # where a colour was measured, demosaicing leaves it
        spreads.append(raw[1::2, 1::2].var() / (0.004 * linear + 1e-5))
    assert spreads == pytest.approx([1, 1, 1], rel=0.06)


def test_read_noise_follows_the_papers_line():
    for key in "abcdef":
        drawn = SensorNoise(read=Uniform(1, 1)).draw(Rng(0, key))
        assert 1e-4 <= drawn["shot"] < 0.012
        assert np.log(drawn["read"]) == pytest.approx(2.18 * np.log(drawn["shot"]) + 1.2)


def test_fading_sinks_the_contrast_towards_its_grey():
    rgb = picture(40, 50)
    out = Fade.apply(rgb, {"amount": 0.3, "level": 0.6, "desaturation": 0.0}, (1, 1))
    assert out.std() == pytest.approx(0.7 * rgb.std(), rel=1e-3)
    assert out.mean() == pytest.approx(0.7 * rgb.mean() + 0.18, rel=1e-3)
    grey = Fade.apply(rgb, {"amount": 0.0, "level": 0.6, "desaturation": 1.0}, (1, 1))
    assert np.ptp(grey, 2).max() < 1e-6


def test_a_cast_is_a_gain_for_each_channel():
    out = Cast.apply(flat(0.5, (2, 2)), {"gains": [0.8, 1.0, 3.0]}, (1, 1))
    np.testing.assert_allclose(out[0, 0], [0.4, 0.5, 1.0])


def test_shifted_chroma_leaves_the_luma_and_greys():
    grey = np.repeat(picture(30, 40)[..., :1], 3, 2)
    np.testing.assert_allclose(
        ChromaShift.apply(grey, {"x": 2.0, "y": -1}, (1, 1)), grey, atol=1e-5
    )
    rgb = picture(30, 40) * 0.3 + 0.35  # far from the gamut's edge
    out = ChromaShift.apply(rgb, {"x": 3.0, "y": 0.0}, (1, 1))
    luma = np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(out @ luma, rgb @ luma, atol=1e-3)
    difference = rgb[..., 0] - rgb @ luma
    np.testing.assert_allclose((out[..., 0] - out @ luma)[:, 3:], difference[:, :-3], atol=2e-3)


@pytest.mark.parametrize("levels", [2, 8, 45])
def test_banding_leaves_so_many_levels(levels):
    rgb = picture(60, 60)
    out = Banding.apply(rgb, {"levels": levels}, (1, 1))
    assert len(np.unique(out)) <= levels
    assert np.abs(out - rgb).max() <= 0.5 / (levels - 1) + 1e-6
    assert Banding(bits=Uniform(3, 3)).draw(Rng(0, "a")) == {"levels": 8}


@pytest.mark.parametrize("value", [0.0, 0.1, 0.35, 0.5, 0.8, 1.0])
def test_halftone_keeps_the_mean_tone(value):
    out = Halftone.apply(flat(value), {"strength": 1.0, "period": 5.3, "angle": 10.0}, (1, 1))
    np.testing.assert_allclose(out.mean((0, 1)), value, atol=0.01)
    if 0.2 < value < 0.9:
        assert ((out < 0.1) | (out > 0.9)).mean() > 0.6  # mostly ink or paper


def test_scan_lines_take_half_their_strength_from_the_mean():
    params = {"strength": 0.4, "period": 4.0, "phase": 0.1}
    out = ScanLines.apply(flat(0.5), params, (1, 1))
    assert out.mean() == pytest.approx(0.5 * 0.8, rel=1e-4)
    assert np.ptp(out, 1).max() == 0 and (out[:4] == out[4:8]).all(-1).mean() > 0.9


@pytest.mark.parametrize(
    ("op", "params", "form", "options"),
    [
        (WebP, {"quality": 40}, "WEBP", {"quality": 40}),
        (
            Avif,
            {"quality": 40, "chroma": "4:2:0"},
            "AVIF",
            {"quality": 40, "subsampling": "4:2:0", "speed": 8, "max_threads": 1},
        ),
    ],
)
def test_a_codec_equals_pillows(op, params, form, options):
    rgb = to_uint8(picture(37, 53))
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, form, **options)
    wanted = np.asarray(Image.open(file).convert("RGB"))
    out = op.apply(rgb.astype(np.float32) / 255, params, (1, 1))
    assert (to_uint8(out) == wanted).all() and (wanted != rgb).any()
    finer = op.apply(rgb.astype(np.float32) / 255, params | {"quality": 95}, (1, 1))
    assert np.abs(finer - rgb / 255).mean() < np.abs(wanted / 255 - rgb / 255).mean()


def test_what_webp_cannot_hold_is_refused():
    with pytest.raises(RecipeError, match="webp: 16400x1 px exceeds"):
        WebP.apply(flat(0.5, (1, 16400)), {"quality": 50}, (1, 1))


def test_without_pillows_avif_the_mend_is_named(monkeypatch):
    monkeypatch.setattr("degradations.ops.codec.features.check", lambda name: False)
    with pytest.raises(RecipeError, match=r"pip install 'pillow>=11\.3'"):
        Avif.apply(flat(0.5, (4, 4)), {"quality": 50, "chroma": "4:2:0"}, (1, 1))


def test_without_pyav_the_mend_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(RecipeError, match=r"pip install 'restore-toolkit\[video\]'"):
        H264.apply(flat(0.5, (4, 4)), {"crf": 20.0, "preset": "medium"}, (1, 1))


@needs_av
def test_video_gets_worse_with_crf_and_keeps_flat_pictures():
    rgb = picture(37, 53)
    errors = [
        np.abs(H264.apply(rgb, {"crf": crf, "preset": "veryfast"}, (1, 1)) - rgb).mean()
        for crf in (10.0, 25.0, 40.0)
    ]
    assert errors == sorted(errors) and errors[0] < 0.05
    grey = H264.apply(flat(0.4, (5, 7)), {"crf": 20.0, "preset": "medium"}, (1, 1))
    np.testing.assert_allclose(grey, 0.4, atol=0.02)


@needs_av
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_video_is_the_same_each_of_four_thousand_times():
    rgb = to_uint8(picture(43, 51))  # with x264's macroblock tree some two of them were not
    rng, made = np.random.default_rng(0), set()
    for _ in range(4000):
        memory = [np.full(rng.integers(1, 20_000), rng.integers(255), np.uint8) for _ in range(20)]
        made.add(h264(rgb, 32.5, "medium").tobytes())
        del memory
    assert len(made) == 1


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("size", [(60, 80), (7, 90), (1, 1)])
def test_a_damage_mask_covers_exactly_what_changed(kind, size):
    op = DAMAGE[kind]
    drawn = 0
    for key in "abcdef":
        params = op().draw(Rng(0, key))
        rgb = np.tile(np.array([0.6, 0.3, 0.7], np.float32), (*size, 1))
        changed = (op.apply(rgb, params, (1, 1)) != rgb).any(2)
        mask = op.mask(params, size)
        assert mask.dtype == np.uint8 and set(np.unique(mask)) <= {0, 255}
        assert ((mask == 255) == changed).all()
        drawn += changed.any()
    assert drawn >= 3 or size == (1, 1)


def test_more_scratches_cover_more_and_opacity_is_a_share():
    params = Scratches().draw(Rng(0, "a")) | {"width": 2.0, "shade": 1.0}
    covers = [
        (Scratches.mask(params | {"count": count}, (200, 200)) > 0).mean() for count in (1, 8, 40)
    ]
    assert 0 < covers[0] < covers[1] < covers[2] < 0.5
    black = flat(0.0, (200, 200))
    half, full = (
        Scratches.apply(black, params | {"count": 9, "opacity": o}, (1, 1)) for o in (0.5, 1)
    )
    assert full.max() == pytest.approx(1) and half.max() == pytest.approx(0.5)


def test_a_fold_crosses_the_picture_and_a_stain_has_a_darker_rim():
    params = Folds().draw(Rng(0, "a")) | {"count": 1}
    mask = Folds.mask(params, (80, 80))
    assert (mask[[0, -1]] > 0).sum() + (mask[:, [0, -1]] > 0).sum() >= 2
    drawn = {"count": 1, "opacity": 0.6, "radius": 150.0}
    stained = [
        Stains.apply(flat(1.0, (200, 200)), drawn | {"seed": seed}, (1, 1))[..., 0]
        for seed in range(4)
    ]
    darkest = min(stained, key=lambda out: out.min())
    inside = darkest[darkest < 0.99]
    assert inside.min() < 0.75 and np.median(inside) > inside.min() + 0.05


def test_the_mask_follows_the_picture_to_its_size():
    hr = np.full((90, 120, 3), 90, np.uint8)
    steps = (Scratches(count=Uniform(3, 3)), Resize(factor=Uniform(0.7, 1.2)), Blur())
    degraded = Recipe(name="marks", steps=steps).degrade(hr, scale=3, seed=1, key="a")
    assert degraded.damage.shape == (30, 40) and degraded.damage.dtype == np.uint8
    assert 0 < (degraded.damage > 0).mean() < 0.8
    assert np.abs(degraded.lr[degraded.damage == 0].astype(int) - 90).max() <= 2
    assert (rebuild(degraded.trace, hr).damage == degraded.damage).all()
    clean = Recipe(name="none", steps=(Blur(),)).degrade(hr, scale=3, seed=1, key="a")
    assert clean.damage.shape == (30, 40) and not clean.damage.any()


SPREADING = {
    "blur": Blur(),
    "sinc": Sinc(),
    "compat_sinc": CompatSinc(),
    "motion_blur": MotionBlur(),
    "defocus": Defocus(),
    "sharpen": Sharpen(),
    "chroma_shift": ChromaShift(),
    "sensor_noise": SensorNoise(),
    "enlarged": Resize(factor=Uniform(1.1, 2), mode=Choice(MODES)),
    "made smaller": Resize(factor=Uniform(0.3, 0.9), mode=Choice(MODES)),
    "compat_resize": CompatResize(factor=Uniform(0.3, 1.4)),
    "fade": Fade(),
}


def damaged_and_not(recipe, hr, scale, key):
    """Both without their codecs, as int, and the mask."""
    trace = recipe.draw(hr.shape[:2], scale, 0, key)
    steps = [step for step in trace.steps if step["kind"] not in ("jpeg", "webp", "avif", "h264")]
    without = [step for step in steps if step["kind"] not in DAMAGE]
    both = [rebuild(trace.model_copy(update={"steps": some}), hr) for some in (steps, without)]
    assert not both[1].damage.any()
    return both[0].lr.astype(int), both[1].lr.astype(int), both[0].damage > 0


@pytest.mark.parametrize("name", SPREADING)
@pytest.mark.parametrize("scale", [1, 2.3])
def test_what_an_op_spreads_of_the_damage_is_in_the_mask(name, scale):
    layers = Scratches(count=Uniform(3, 3)), Dust(count=Uniform(4, 9)), Stains(count=Uniform(1, 1))
    recipe = Recipe(name="marks", steps=(*layers, SPREADING[name]))
    hr = to_uint8(picture(120, 150))
    seen = []
    for key in "abcdef":
        damaged, clean, mask = damaged_and_not(recipe, hr, scale, key)
        apart = np.abs(damaged - clean).max(2)
        assert apart[~mask].max(initial=0) <= 4
        seen.append((apart[mask] >= 2).mean())
    assert np.mean(seen) > 0.4  # and not much else is


@pytest.mark.parametrize("name", ["old_photo", "scan"])
def test_outside_the_mask_a_recipe_leaves_no_damage(name):
    hr = to_uint8(picture(160, 200))
    for key in range(12):
        damaged, clean, mask = damaged_and_not(recipes.named(name), hr, 2, f"{key}")
        assert np.abs(damaged - clean)[~mask].max(initial=0) <= 4
