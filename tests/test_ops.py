"""Each degradation does what its parameters say, whatever the size of the picture."""

import importlib.util
import io
import json

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import correlate as reference_correlate

from degradations import RecipeError, kernels, sharpen
from degradations.ops import OPS, Blur, GaussianNoise, Jpeg, PoissonNoise, Resize, Sinc
from degradations.ops.blur import SHAPES, correlate
from degradations.ops.jpeg import jpeg, to_uint8
from degradations.ops.resize import MODES, resize
from degradations.ranges import Choice
from degradations.rng import Rng

KINDS = [kind for kind in OPS if kind != "h264" or importlib.util.find_spec("av")]
ODD_SIZES = [(1, 1), (1, 40), (37, 1), (2, 3), (45, 61)]


def picture(height, width, seed=0):
    """float32 (H, W, 3): smooth colour with some texture."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [0.5 + 0.3 * np.sin(x / (7 + c) + c) * np.cos(y / (9 - c)) for c in range(3)]
    noise = rng.uniform(-0.1, 0.1, (height, width, 3))
    return np.clip(np.stack(waves, 2) + noise, 0, 1).astype(np.float32)


def flat(value, size=(200, 300)):
    return np.full((*size, 3), value, np.float32)


@pytest.mark.parametrize("size", ODD_SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_an_op_keeps_its_input_and_takes_any_size(kind, size):
    rgb = picture(*size)
    before = rgb.copy()
    for key in "abcdefgh" if kind not in ("webp", "avif", "h264") else "ab":
        params = json.loads(json.dumps(OPS[kind]().draw(Rng(0, key))))
        out = OPS[kind].apply(rgb, params, (5, 3))
        assert out.dtype == np.float32 and out.shape[2] == 3 and np.isfinite(out).all()
        assert out.tobytes() == OPS[kind].apply(rgb, params, (5, 3)).tobytes()
        assert kind.endswith("resize") or out.shape == rgb.shape
    assert (rgb == before).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_blur_keeps_the_mean_and_lowers_the_contrast(shape):
    rgb = picture(64, 48)
    params = Blur(shape=Choice((shape,))).draw(Rng(0, "a")) | {"sigma": [2.0, 2.0]}
    out = Blur.apply(rgb, params, (1, 1))
    np.testing.assert_allclose(out.mean((0, 1)), rgb.mean((0, 1)), atol=0.01)
    assert out.std() < rgb.std()
    np.testing.assert_allclose(Blur.apply(flat(0.3), params, (1, 1)), 0.3, atol=1e-5)


@pytest.mark.parametrize("size", [3, 11, 13, 15, 21])
@pytest.mark.parametrize("shape", [(40, 50), (5, 9), (64, 1)])
def test_large_kernels_in_strips_equal_the_plain_sum(size, shape):
    rng = np.random.default_rng(0)
    rgb, kernel = picture(*shape), rng.random((size, size)).astype(np.float32)
    kernel /= kernel.sum()
    if min(shape) > 1:  # scipy's mirror of a single pixel is its own
        wanted = reference_correlate(rgb, kernel[:, :, None], mode="mirror")
    else:
        wanted = np.apply_along_axis(
            lambda line: reference_correlate(line, kernel.sum(1), mode="mirror"), 0, rgb
        )
    np.testing.assert_allclose(correlate(rgb, kernel), wanted, atol=1e-5)


def test_the_separable_blur_equals_the_full_kernel():
    rgb = picture(50, 40)
    params = {"shape": "isotropic", "size": 13, "sigma": [1.8, 1.8], "angle": 0.0}
    full = kernels.generalised_gaussian(13, 1.8, 1.8, 0.0)
    np.testing.assert_allclose(Blur.apply(rgb, params, (1, 1)), correlate(rgb, full), atol=1e-5)


def test_sinc_rings_at_an_edge():
    rgb = flat(0.25, (60, 60))
    rgb[:, 30:] = 0.75
    out = Sinc.apply(rgb, {"size": 21, "cutoff": 1.2}, (1, 1))
    assert out.max() > 0.77 and out.min() < 0.23


def test_sharpening_leaves_flat_areas_and_steepens_edges():
    rgb = np.full((80, 80, 3), 90, np.uint8)
    rgb[:, 40:] = 160
    out = sharpen(rgb)
    assert out.dtype == np.uint8
    assert (out[:, 0] == 90).all()
    assert out[40, 39, 0] < 90 and out[40, 40, 0] > 160


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(17, 23), (90, 61), (45, 300), (200, 20), (1, 1), (46, 60)])
def test_resizing_meets_the_size_and_keeps_a_flat_picture(mode, size):
    out = resize(flat(0.4, (45, 61)), size, mode)
    assert out.shape == (*size, 3)
    np.testing.assert_allclose(out, 0.4, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(37, 29), (50, 80), (131, 170)])
def test_resizing_moves_nothing(mode, size):
    y, x = np.mgrid[:100, :120]
    blob = np.exp(-((y - 41.3) ** 2 + (x - 70.8) ** 2) / 60).astype(np.float32)
    out = resize(np.repeat(blob[..., None], 3, 2), size, mode)[..., 0]
    rows, columns = (np.arange(n) + 0.5 for n in size)
    row = (out.sum(1) @ rows) / out.sum() * 100 / size[0] - 0.5
    column = (out.sum(0) @ columns) / out.sum() * 120 / size[1] - 0.5
    # nearest has to take a neighbour where the middle falls between two
    bound = 0.51 if mode == "nearest" else 0.01
    assert row == pytest.approx(41.3, abs=bound)
    assert column == pytest.approx(70.8, abs=bound)


@pytest.mark.parametrize("mode", MODES)
def test_shrinking_averages_white_noise_unless_told_otherwise(mode):
    noise = np.random.default_rng(0).normal(0.5, 0.1, (200, 200, 3)).astype(np.float32)
    if mode != "nearest":
        assert resize(noise, (40, 40), mode).std() < 0.035
    if mode != "area":
        assert resize(noise, (40, 40), mode, antialias=False).std() > 0.09


def test_resize_goes_by_the_current_or_by_the_target_size():
    rgb, drawn = picture(40, 60), {"mode": "area", "antialias": True, "factor": 0.5}
    assert Resize.apply(rgb, drawn | {"of": "current"}, (9, 9)).shape == (20, 30, 3)
    assert Resize.apply(rgb, drawn | {"of": "target"}, (10, 8)).shape == (5, 4, 3)


@pytest.mark.parametrize("grey", [False, True])
def test_gaussian_noise_has_its_sigma(grey):
    out = GaussianNoise.apply(flat(0.5), {"sigma_levels": 10, "grey": grey, "seed": 1}, (1, 1))
    noise = (out - 0.5) * 255
    assert noise.std() == pytest.approx(10, rel=0.02)
    assert noise.mean() == pytest.approx(0, abs=0.15)
    correlation = np.corrcoef(noise.reshape(-1, 3).T)
    assert correlation[0, 1] == pytest.approx(1.0 if grey else 0.0, abs=0.02)
    assert grey == bool((out[..., 0] == out[..., 2]).all())
    along = np.corrcoef(noise[:, :-1, 0].ravel(), noise[:, 1:, 0].ravel())[0, 1]
    assert along == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("level", [0, 12, 51, 128, 204])
def test_poisson_noise_has_the_variance_of_its_brightness(level):
    value = level / 255
    out = PoissonNoise.apply(flat(value), {"scale": 0.8, "grey": False, "seed": 4}, (1, 1))
    assert out.mean() == pytest.approx(value, abs=5e-4)
    assert out.std() == pytest.approx(0.8 * (value / 256) ** 0.5, rel=0.03, abs=1e-4)


def test_grey_poisson_noise_is_equal_in_the_channels_and_differs_by_seed():
    rgb = np.tile(np.array([0.3, 0.5, 0.6], np.float32), (60, 60, 1))
    one, two = (
        PoissonNoise.apply(rgb, {"scale": 1.0, "grey": True, "seed": s}, (1, 1)) - rgb
        for s in (1, 2)
    )
    np.testing.assert_allclose(one[..., 0], one[..., 2], atol=1e-6)
    assert np.abs(np.corrcoef(one[..., 0].ravel(), two[..., 0].ravel())[0, 1]) < 0.05


@pytest.mark.parametrize(("chroma", "pillow"), [("4:4:4", 0), ("4:2:2", 1), ("4:2:0", 2)])
@pytest.mark.parametrize("size", [(1, 1), (16, 16), (37, 53), (5, 64)])
def test_jpeg_equals_pillows(chroma, pillow, size):
    rgb = to_uint8(picture(*size))
    for quality in (1, 10, 30, 49, 50, 75, 95, 100):
        file = io.BytesIO()
        Image.fromarray(rgb).save(file, "JPEG", quality=quality, subsampling=pillow)
        wanted = np.asarray(Image.open(file))
        assert (jpeg(rgb, quality, chroma) == wanted).all()
        out = Jpeg.apply(
            rgb.astype(np.float32) / 255, {"quality": quality, "chroma": chroma}, (1, 1)
        )
        assert (to_uint8(out) == wanted).all()


@pytest.mark.parametrize(
    ("kind", "most"), [("jpeg", 65500), ("webp", 16383), ("avif", 32768), ("h264", 16384)]
)
def test_a_side_that_a_format_cannot_hold_is_told_with_the_limit(kind, most):
    params, long = OPS[kind]().draw(Rng(0, "")), np.zeros((2, most + 2, 3), np.float32)
    if kind in KINDS:
        assert OPS[kind].apply(long[:, :most], params, (1, 1)).shape == (2, most, 3)
    with pytest.raises(RecipeError, match=rf"{kind}: {most + 2}x2 px exceeds the .* {most} px"):
        OPS[kind].apply(long, params, (1, 1))


def test_every_8_bit_level_survives_the_way_to_float_and_back():
    levels = np.arange(256, dtype=np.uint8)
    assert (to_uint8(levels.astype(np.float32) * np.float32(1 / 255)).ravel() == levels).all()
    assert to_uint8(np.array([-0.5, 1.5], np.float32)).ravel().tolist() == [0, 255]


@pytest.mark.parametrize("kind", [kind for kind in OPS if OPS[kind].fades])
def test_an_op_that_fades_ends_in_the_picture_itself(kind):
    rgb = picture(40, 50)
    for key in "abcd":
        params = OPS[kind]().at(1e-6).draw(Rng(0, key))
        out = OPS[kind].apply(rgb, params, rgb.shape[:2])
        if kind == "compat_resize":  # it floors: 0.999999 of the size is a row less
            assert set(np.subtract(rgb.shape, out.shape)) <= {0, 1}
        else:
            np.testing.assert_allclose(out, rgb, atol=0.51 / 255)


@pytest.mark.parametrize("kind", OPS)
def test_severity_brings_an_op_to_neutral_and_at_nought_it_is_gone(kind):
    op = OPS[kind]()
    assert op.at(0) is None
    for name, neutral in op.neutral.items():
        full, half = getattr(op, name).values(), getattr(op.at(0.5), name).values()
        np.testing.assert_allclose(np.subtract(half, neutral) * 2, np.subtract(full, neutral))
