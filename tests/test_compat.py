"""compat reproduces the published faults, each as large as it was measured to be."""

import io
import math

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from scipy.fft import dctn
from test_ops import flat, picture

from degradations.ops import CompatJpeg, CompatPoissonNoise, CompatResize, CompatSinc, Sinc
from degradations.ops.jpeg import LUMA_TABLE, to_uint8


def test_the_sinc_without_a_window_amplifies():
    gains = []
    for op in (Sinc, CompatSinc):
        impulse = flat(0.0, (65, 65))
        impulse[32, 32] = 1
        kernel = op.apply(impulse, {"size": 7, "cutoff": math.pi / 3}, (1, 1))[..., 0]
        gains.append(np.abs(np.fft.fft2(kernel)).max())
    assert gains[0] < 1.11
    strongest = max(
        np.abs(
            np.fft.fft2(CompatSinc.apply(impulse, {"size": 7, "cutoff": cutoff}, (1, 1))[..., 0])
        ).max()
        for cutoff in np.linspace(math.pi / 3, math.pi, 9)
    )
    assert strongest > 1.2


def test_resizing_by_a_factor_drops_the_fraction_and_aliases():
    rgb = picture(50, 61)
    params = {"of": "current", "factor": 0.37, "mode": "bilinear", "antialias": False}
    assert CompatResize.apply(rgb, params, (1, 1)).shape == (18, 22, 3)
    # rounded to a size it would be 23 wide: 0.57 of a low pixel of the picture is lost at the edge
    ramp = np.tile((np.arange(61, dtype=np.float32) / 61)[None, :, None], (50, 1, 3))
    small = CompatResize.apply(ramp, params, (1, 1))
    step = np.diff(small[0, :, 0]).mean()
    assert step == pytest.approx(1 / 0.37 / 61, rel=1e-3)  # by the factor, not by 61 / 22
    noise = np.random.default_rng(0).normal(0.5, 0.1, (200, 200, 3)).astype(np.float32)
    sized = {"of": "target", "factor": 1.0, "mode": "bicubic", "antialias": False}
    assert CompatResize.apply(noise, sized, (40, 40)).std() > 0.09


def test_photons_follow_from_the_number_of_distinct_values():
    params = {"scale": 1.0, "grey": False, "seed": 3}
    one = CompatPoissonNoise.apply(flat(0.5), params, (1, 1))  # a single value: one photon a white
    assert one.std() > 0.3
    many = flat(0.5)
    many[0, :256] = (np.arange(256) / 255).astype(np.float32)[:, None]
    out = CompatPoissonNoise.apply(many, params, (1, 1))[1:]
    assert out.std() == pytest.approx((0.5 / 256) ** 0.5, rel=0.03)


def test_the_jpegs_luma_table_is_transposed():
    rgb = np.repeat(picture(64, 64)[..., :1], 3, 2)
    out = CompatJpeg.apply(rgb, {"quality": 50.0}, (1, 1)).astype(np.float64) * 255 - 128
    blocks = out[..., 0].reshape(8, 8, 8, 8).transpose(0, 2, 1, 3)
    inside = np.abs(blocks).max((2, 3)) < 126  # not clipped
    steps = dctn(blocks[inside], axes=(1, 2), norm="ortho") / LUMA_TABLE.T
    assert inside.sum() > 10
    np.testing.assert_allclose(steps, np.rint(steps), atol=0.01)


def test_the_jpeg_pads_with_black_and_else_resembles_the_real_one():
    for height, sinks in ((64, False), (60, True)):
        out = CompatJpeg.apply(flat(0.9, (height, 64)), {"quality": 30.0}, (1, 1))
        error = np.abs(out - 0.9)
        assert error[:48].max() < 0.02
        assert (error[-4:].max() > 2 * error[:48].max()) == sinks
    rgb = to_uint8(picture(64, 64))
    file = io.BytesIO()
    Image.fromarray(rgb).save(file, "JPEG", quality=80, subsampling=2)
    ours = CompatJpeg.apply(rgb.astype(np.float32) / 255, {"quality": 80.0}, (1, 1)) * 255.0
    assert np.abs(ours - np.asarray(Image.open(file)).astype(float)).mean() < 5


def test_a_fine_compat_jpeg_is_nearly_the_picture():
    rgb = np.repeat(picture(33, 47)[..., :1], 3, 2)
    out = CompatJpeg.apply(rgb, {"quality": 99.5}, (1, 1))
    np.testing.assert_allclose(out, rgb, atol=0.01)


@pytest.mark.parametrize("option", [{"mode": "lanczos"}, {"antialias": True}])
def test_a_resize_that_the_published_code_cannot_do_is_refused_when_it_is_named(option):
    with pytest.raises(ValidationError, match=next(iter(option))):
        CompatResize(**option)
