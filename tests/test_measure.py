"""What is measured of a photo is what was done to it."""

import io
import json
import os
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from degradations import RecipeError
from degradations.measure import blur, jpegfile, measure, measure_pixels, noise, recompression, tone
from degradations.measure.resampling import enlargement
from degradations.ops.blur import separable
from degradations.ops.jpeg import _SAMPLING, jpeg
from degradations.ops.noise import poisson_residue, standard_normal

LUMA = np.array([0.299, 0.587, 0.114], np.float32)
SAMPLES = Path(__file__).parent / "samples"


@lru_cache(4)
def scene(size=512, seed=0):
    """uint8 (size, size, 3): dead leaves, whose edges are as a photo's (Lee et al. 2001)."""
    rng = np.random.default_rng(seed)
    image = np.full((3 * size, 3 * size, 3), 128, np.float32)
    for radius in np.sort((rng.uniform(4e-6, 0.02, size * size // 52) ** -0.5).clip(0, 300))[::-1]:
        centre = tuple(int(v) for v in rng.uniform(0, 3 * size, 2))
        cv2.circle(image, centre, int(radius), rng.uniform(40, 215, 3).tolist(), -1)
    small = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    return np.clip(np.rint(small), 0, 255).astype(np.uint8)


def noisy(rgb, sigma, grey=False, seed=3):
    field = standard_normal(seed, (*rgb.shape[:2], 1 if grey else 3))
    return np.clip(np.rint(rgb + sigma * field), 0, 255).astype(np.uint8)


def blurred(rgb, sigma):
    axis = np.arange(-12, 13)
    kernel = np.exp(-0.5 * (axis / sigma) ** 2).astype(np.float32)
    return np.rint(separable(rgb.astype(np.float32), kernel / kernel.sum())).astype(np.uint8)


def as_file(rgb, path=None, **options):
    target = io.BytesIO() if path is None else path
    Image.fromarray(rgb).save(target, "JPEG", **options)
    return target


@pytest.mark.parametrize("chroma", ["4:4:4", "4:2:2", "4:2:0"])
def test_quality_and_chroma_of_a_file_come_back_exactly(chroma):
    rgb = scene(40)
    for quality in range(1, 101):
        for progressive in (False, True):
            options = {"quality": quality, "subsampling": chroma, "progressive": progressive}
            flags = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_PROGRESSIVE, progressive]
            flags += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, _SAMPLING[chroma]]
            by_cv2 = io.BytesIO(cv2.imencode(".jpg", rgb, [int(f) for f in flags])[1].tobytes())
            for file in (as_file(rgb, **options), by_cv2):
                with Image.open(file) as image:
                    found = jpegfile.read(image)
                assert found, quality
                assert (found.quality, found.chroma) == (quality, chroma)
                assert found.tables == "standard"


def test_own_tables_are_said_to_be_own_and_get_the_nearest_quality():
    luma, colour = jpegfile.standard_tables()[75].copy()
    luma[5:, 5:] += 3
    file = as_file(scene(40), qtables=[luma.ravel().tolist(), colour.ravel().tolist()])
    with Image.open(file) as image:
        found = jpegfile.read(image)
    assert (found.quality, found.tables) == (75, "own")


def test_a_grey_jpeg_has_a_quality_and_no_chroma():
    with Image.open(as_file(scene(40)[..., 0], quality=61)) as image:
        found = jpegfile.read(image)
    assert (found.quality, found.tables, found.chroma) == (61, "standard", "grey")


@pytest.mark.parametrize("quality", [30, 60, 75, 90])
def test_pixels_that_were_a_jpeg_tell_its_quality(quality):
    rgb = jpeg(noisy(scene(256), 6), quality, "4:2:0")
    assert measure_pixels(rgb).earlier_quality == quality


def test_a_cropped_jpeg_tells_where_its_blocks_were():
    rgb = jpeg(noisy(scene(256), 6), 60, "4:4:4")[3:, 5:]
    found = recompression.earlier(rgb @ LUMA)
    assert (found.quality, found.top, found.left) == (60, 5, 3)


def test_a_jpeg_that_was_saved_again_tells_both(tmp_path):
    rgb = jpeg(noisy(scene(320), 6), 55, "4:2:0")
    as_file(rgb, tmp_path / "twice.jpg", quality=85)
    found = measure(tmp_path / "twice.jpg")
    assert (found.quality, found.earlier_quality) == (85, 55)


def test_no_earlier_jpeg_is_seen_where_there_was_none(tmp_path):
    rgb = noisy(scene(256), 6)
    assert measure_pixels(rgb).earlier_quality is None
    as_file(rgb, tmp_path / "once.jpg", quality=80)
    assert measure(tmp_path / "once.jpg").earlier_quality is None


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("sigma", [1.5, 5, 12, 25])
def test_noise_is_within_15_percent(sigma, grey):
    truth = sigma if grey else sigma * np.sqrt((LUMA**2).sum())
    rgb = noisy(scene(), sigma, grey)
    found = noise.measure(rgb, rgb @ LUMA)
    assert found.sigma == pytest.approx(truth, rel=0.15)
    assert found.colour is not grey


@pytest.mark.parametrize(("sigma", "quality"), [(3, 95), (6, 75), (12, 60), (25, 60)])
def test_noise_under_a_jpeg_is_within_15_percent(tmp_path, sigma, quality):
    as_file(noisy(scene(), sigma, grey=True), tmp_path / "a.jpg", quality=quality)
    assert measure(tmp_path / "a.jpg").noise == pytest.approx(sigma, rel=0.15)


def test_shot_noise_grows_with_the_luma():
    rgb = np.repeat(np.linspace(20, 230, 512)[:, None, None], 512, 1).repeat(3, 2)
    residue = poisson_residue(1, np.rint(rgb).astype(np.uint8))
    found = noise.measure(
        image := np.clip(np.rint(rgb + 255 * residue), 0, 255).astype(np.uint8), image @ LUMA
    )
    # the op's variance is luma x scale^2 in each channel; the luma of three has (0.668)^2 of it
    at = np.array([40, 128, 220])
    measured = np.sqrt(found.read + found.shot * at)
    assert measured == pytest.approx(0.668 * np.sqrt(at), rel=0.15)


def test_noise_too_weak_for_the_jpeg_is_not_made_up(tmp_path):
    as_file(noisy(np.full((256, 256, 3), 128.0), 0.5), tmp_path / "a.jpg", quality=20)
    assert measure(tmp_path / "a.jpg").noise is None


TEN = (20, 30, 40, 50, 60, 70, 75, 85, 90, 95)


@pytest.fixture(scope="module")
def clean():
    return [scene(384, seed) for seed in range(6)]


@pytest.mark.parametrize("quality", TEN)
def test_a_jpeg_without_noise_is_told_none(quality, clean):
    """What is left of texture and edges in its coefficients is no noise, whatever the quality."""
    read = [noise.measure(*parts(rgb, quality)) for rgb in clean]
    assert sum(found is not None for found in read) <= 1, read


@pytest.mark.parametrize(("sigma", "quality"), [(5, 85), (8, 75), (14, 40)])
def test_noise_above_what_clean_jpegs_read_is_still_told(sigma, quality, clean):
    read = [noise.measure(*parts(noisy(rgb, sigma, grey=True), quality)) for rgb in clean]
    assert [found.sigma for found in read] == pytest.approx([sigma] * len(read), rel=0.25)


def graphics(size=512, seed=0):
    """uint8 (size, size, 3): flat rectangles with edges between whole pixels."""
    rng = np.random.default_rng(seed)
    image = np.full((size, size, 3), 235, np.uint8)
    for _ in range(60):
        left, top = (int(v) for v in rng.integers(-40, size, 2))
        width, height = (int(v) for v in rng.integers(12, 160, 2))
        colour = rng.integers(0, 256, 3).tolist()
        cv2.rectangle(image, (left, top), (left + width, top + height), colour, -1)
    return image


@pytest.mark.parametrize("sigma", [0.5, 0.75, 1, 1.5, 2, 2.5, 3])
def test_blur_is_within_0_3_pixels(sigma):
    soft = blurred(scene(), sigma)
    assert blur.measure(soft @ LUMA) == pytest.approx(sigma, abs=0.3)
    under = jpeg(noisy(soft, 3), 75, "4:2:0")
    assert blur.measure(under @ LUMA, 2.0) == pytest.approx(sigma, abs=0.3)


@pytest.mark.parametrize("sigma", [0.5, 0.75, 1, 1.5, 2, 2.5, 3])
def test_blur_of_clean_steps_is_within_0_4_pixels(sigma):
    for seed in range(3):
        soft = blurred(graphics(seed=seed), sigma)
        assert blur.measure(soft @ LUMA) == pytest.approx(sigma, abs=0.4)


@pytest.mark.parametrize("factor", [1.5, 2, 3])
def test_blur_grows_as_the_picture_is_enlarged(factor):
    how = {"fx": factor, "fy": factor, "interpolation": cv2.INTER_CUBIC}
    large = cv2.resize(blurred(scene(384), 0.9), None, **how)
    softness = np.hypot(0.9, 0.39) * factor  # a cubic is nearest a Gaussian of 0.39 of its step
    assert blur.measure(large @ LUMA) == pytest.approx(softness, abs=0.4)


def test_more_blur_is_never_read_as_less():
    read = [blur.measure(blurred(scene(), sigma) @ LUMA) for sigma in (0.5, 1, 2, 3, 4, 5)]
    assert read == sorted(read)


def test_a_flat_picture_has_no_edges_to_tell_blur_from():
    assert measure_pixels(np.full((128, 128, 3), 90, np.uint8)).blur is None


@pytest.mark.parametrize(("factor", "softness"), [(1.3, 0.4), (1.7, 0.6), (3.3, 1.3)])
def test_enlargement_tells_its_factor(factor, softness):
    how = {"fx": factor, "fy": factor, "interpolation": cv2.INTER_CUBIC}
    luma = cv2.resize(scene(400), None, **how)[:640, :640] @ LUMA
    assert enlargement(luma, softness) == pytest.approx(factor, rel=0.03)
    assert enlargement(noisy(scene(), 2) @ LUMA) is None


def test_a_cast_and_a_fade_show():
    rgb = scene(256).astype(np.float32)
    plain = tone.measure(scene(256))
    cast = tone.measure(np.rint(rgb * [1.0, 0.9, 0.7]).astype(np.uint8))
    assert cast.cast[2] / cast.cast[0] == pytest.approx(0.7 * plain.cast[2] / plain.cast[0], 0.03)
    faded = tone.measure(np.rint(60 + 0.5 * rgb).astype(np.uint8))
    assert faded.black == pytest.approx(60 / 255 + 0.5 * plain.black, abs=0.01)
    assert faded.white == pytest.approx(60 / 255 + 0.5 * plain.white, abs=0.01)
    assert tone.measure(np.full((64, 64, 3), 90, np.uint8)).cast is None


def test_every_sample_is_measured_and_json_holds_it():
    for path in sorted(SAMPLES.glob("*.[jp][pn]g")):
        json.dumps(measure(path).to_dict())
    assert measure(SAMPLES / "web_1998.jpg").quality == 22
    assert measure(SAMPLES / "portrait.jpg").quality == 55
    assert measure(SAMPLES / "sticker.png").earlier_quality == 40


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "I;16", "1"])
def test_any_mode_of_picture_is_measured(tmp_path, mode):
    grey = Image.fromarray(scene(96)).convert("L")
    image = Image.fromarray(np.asarray(grey, np.uint16) * 257) if mode == "I;16" else grey
    image = image if mode in ("L", "I;16") else Image.fromarray(scene(96)).convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image.save(path)
    assert measure(path).width == 96


def test_a_jpeg_of_rgb_is_measured(tmp_path):
    as_file(scene(96), tmp_path / "a.jpg", quality=80, keep_rgb=True)
    assert measure(tmp_path / "a.jpg").quality == 80


def test_what_is_no_picture_is_refused_with_the_reason(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"nothing")
    with pytest.raises(RecipeError, match=r"a.jpg: cannot be read"):
        measure(tmp_path / "a.jpg")
    whole = as_file(scene(128)).getvalue()
    (tmp_path / "b.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RecipeError, match=r"b.jpg: cannot be read"):
        measure(tmp_path / "b.jpg")
    Image.fromarray(scene(40)).save(tmp_path / "c.png")
    with pytest.raises(RecipeError, match="40x40 px is too small"):
        measure(tmp_path / "c.png")


# The table below is for real photos: RESTORE_PHOTOS names a folder, every second photo is used.


def clean_photos(count=24):
    folder = os.environ.get("RESTORE_PHOTOS")
    if not folder:
        pytest.skip("RESTORE_PHOTOS names no folder of photos")
    large = []
    for path in sorted(p for p in Path(folder).iterdir() if p.suffix in (".jpg", ".png")):
        with Image.open(path) as image:
            large += [path] if min(image.size) >= 1024 else []
    large = large[1::2]  # the weights of blur were fitted on the even ones
    for path in large[:: max(1, len(large) // count)][:count]:
        rgb = cv2.imread(str(path))[..., ::-1]
        half = cv2.resize(rgb, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        left = max(0, half.shape[1] - 800) // 2
        yield np.ascontiguousarray(half[:, left : left + 800])


def parts(rgb, quality):
    """(rgb, luma, steps) as `measure` reads them of a PNG or a JPEG file."""
    if quality is None:
        return rgb, rgb @ LUMA, None
    with Image.open(as_file(rgb, quality=quality)) as image:
        steps = jpegfile.read(image).luma
        image.draft("YCbCr", image.size)
        return np.asarray(image.convert("RGB")), np.asarray(image, np.float32)[..., 0], steps


def report(name, rows):
    print(f"\n{name}")
    for row in rows:
        print("  ".join(f"{cell:>9}" for cell in row))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_noise_of_real_photos():
    photos = list(clean_photos())
    own = np.array([noise.measure(rgb, rgb @ LUMA).sigma for rgb in photos])
    rows = [("quality", "sigma", "told", "in 15 %", "clean", "10 %", "median", "90 %")]
    within = {}
    for quality in (None, 95, 85, 75, 60):
        for sigma in (1.5, 2.5, 4, 7, 12, 25):
            ratio = []
            for index, rgb in enumerate(photos):
                truth = sigma if index % 2 else sigma * np.sqrt((LUMA**2).sum())
                found = noise.measure(*parts(noisy(rgb, sigma, index % 2, index), quality))
                ratio.append(np.nan if found is None else found.sigma / truth)
            ratio = np.array(ratio)
            good = np.abs(ratio - 1) < 0.15
            within[quality, sigma] = good.mean()
            told = np.isfinite(ratio)
            if not told.any():  # weak noise under a strong JPEG
                rows.append((str(quality), sigma, "0.00"))
                continue
            shares = told.mean(), good[told].mean(), good[own < 1].mean()
            low = np.percentile(ratio[told], (10, 50, 90)).round(2)
            rows.append((str(quality), sigma, *(f"{s:.2f}" for s in shares), *low))
    report("noise, measured / true, of photos; clean: whose own noise measures below a level", rows)
    assert min(within[None, s] for s in (2.5, 4, 7, 12, 25)) >= 0.9
    assert min(within[q, s] for q in (95, 85) for s in (7, 12, 25)) >= 0.9


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_real_photos_without_noise_are_told_none():
    photos = [rgb for rgb in clean_photos(60) if noise.measure(rgb, rgb @ LUMA).sigma < 1]
    rows, shares = [("quality", "told", "largest")], []
    for quality in TEN:
        read = [noise.measure(*parts(rgb, quality)) for rgb in photos]
        told = [found.sigma for found in read if found]
        shares.append(len(told) / len(photos))
        rows.append((quality, f"{shares[-1]:.2f}", f"{max(told, default=0):.1f}"))
    report(f"noise told in {len(photos)} photos whose own is below a level", rows)
    assert max(shares) <= 0.1


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_blur_of_real_photos():
    photos = list(clean_photos(60))
    rows, every = [("noise", "quality", "sigma", "told", "in 0.3", "10 %", "median", "90 %")], []
    for sigma, quality in ((0, None), (2, 90), (3, 75), (4, 60)):
        for wide in (0.5, 0.75, 1, 1.5, 2, 2.5, 3):
            error = []
            for index, rgb in enumerate(photos):
                bad = parts(noisy(blurred(rgb, wide), sigma, seed=index), quality)
                level = noise.measure(*bad)
                found = blur.measure(bad[1], level.sigma if level else 0.0)
                error.append(np.nan if found is None else found - wide)
            error = np.array(error)
            every += list(np.abs(error) < 0.3)
            told, near = np.isfinite(error).mean(), (np.abs(error) < 0.3).mean()
            spread = np.nanpercentile(error, (10, 50, 90)).round(2)
            rows.append((sigma, str(quality), wide, f"{told:.2f}", f"{near:.2f}", *spread))
    report("blur, measured - true, pixels", rows)
    print("within 0.3 px:", np.mean(every))
    assert np.mean(every) > 0.93


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_earlier_quality_of_real_photos():
    photos = list(clean_photos(20))
    rows = [("before", "after", "exact", "none")]
    for before, after in [(q, None) for q in (30, 50, 70, 80, 90, 95)] + [(50, 80), (75, 90)]:
        read = [parts(jpeg(rgb, before, "4:2:0"), after)[1:] for rgb in photos]
        lattices = [recompression.earlier(luma, steps) for luma, steps in read]
        found = [lattice and lattice.quality for lattice in lattices]
        exact = np.mean([quality == before for quality in found])
        rows.append((before, str(after), f"{exact:.2f}", found.count(None)))
        assert exact >= 0.85
    report("earlier JPEG quality", rows)
