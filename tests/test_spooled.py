"""JPEGs and PNGs too large to be held: decoded by a worker into a file, to the same picture."""

from dataclasses import replace
from mmap import mmap

import numpy as np
import pytest
from PIL import Image, ImageCms

from restore.batch.runner import _sweep
from restore.errors import ImageError
from restore.files import is_temporary
from restore.images import decode, memmap, sandbox, spooled
from restore.images import picture as images
from restore.images.picture import Reading

HOW = Reading(max_pixels=20_000)


@pytest.fixture
def small(monkeypatch):
    """Above 999 pixels a picture is too large to be held, on this side of the workers' pipe."""
    for module in (spooled, sandbox):
        monkeypatch.setattr(module, "MAX_PIXELS", 999)
    monkeypatch.setattr(spooled, "ROWS", 17)
    monkeypatch.setattr(sandbox, "shared_workers", lambda: Here)


class Here:
    """A worker that is this process."""

    @staticmethod
    def call(limit_s, function, *args):
        return function(*args)


@pytest.fixture
def save(tmp_path, pixels):
    def write(name="a.jpg", mode="RGB", turn=1, size=(101, 143), **how):
        image = Image.fromarray(pixels(*size)).convert(mode)
        exif = Image.Exif()
        exif[0x0112], exif[0x010F] = turn, "maker"
        icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        more = {"exif": exif} | ({"icc_profile": icc} if mode == "RGB" else {})
        image.save(tmp_path / name, **more, **how)
        return tmp_path / name

    return write


def spool(path, tmp_path, how=HOW):
    with memmap.use_folder(tmp_path / "out"):
        [made], count = sandbox.read_by_rows(path, how)
    assert count == 1 and not [*(tmp_path / "out").iterdir()]
    return made


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["a.jpg", "a.png"])
def test_a_spooled_picture_is_the_one_read_whole_whichever_way_it_lies(
    small, save, tmp_path, kind, turn
):
    path = save(kind, turn=turn)
    made, whole = spool(path, tmp_path), images.read(path)
    assert np.array_equal(made.pixels, whole.pixels) and made.pixels.dtype == np.uint8
    assert isinstance(made.pixels.base.base.obj, mmap) and made.size == whole.size
    for field in ("alpha", "grey", "icc", "exif", "format", "warnings", "xmp"):
        assert getattr(made, field) == getattr(whole, field), field
    head = sandbox.probe(path, HOW)
    assert head == replace(images.probe(path), is_spooled=True)


@pytest.mark.parametrize(
    ("mode", "how"), [("L", {}), ("RGB", {"progressive": True}), ("RGB", {"subsampling": 0})]
)
def test_grey_and_progressive_ones_too(small, save, tmp_path, mode, how):
    path = save(mode=mode, **how)
    made, whole = spool(path, tmp_path), images.read(path)
    assert np.array_equal(made.pixels, whole.pixels) and made.grey == whole.grey == (mode == "L")


def test_small_ones_others_and_those_of_whole_tasks_are_read_as_ever(small, save, tmp_path):
    for path in (save("small.jpg", size=(20, 20)), save("a.bmp"), save("a.webp")):
        assert isinstance(spool(path, tmp_path).pixels, np.ndarray)
        assert not sandbox.probe(path, HOW).is_spooled
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(ImageError, match="not a picture"):
        spool(tmp_path / "text.png", tmp_path)
    assert spool(save(), tmp_path, Reading(max_pixels=0)).size == (101, 143)


@pytest.mark.parametrize(
    ("name", "mode", "how", "wanted"),
    [
        ("a.png", "RGBA", {}, "its mode is RGBA, or it is transparent"),
        ("a.jpg", "CMYK", {}, "its mode is CMYK"),
        ("a.jpg", "RGB", {"icc": "srgb"}, "its colours are to be converted"),
        ("a.jpg", "RGB", {"max_pixels": 5000}, "the limit is 0; --megapixels 1 takes it"),
    ],
)
def test_what_needs_more_than_rows_is_refused_with_the_mend(
    small, save, tmp_path, name, mode, how, wanted
):
    path = save(name, mode)
    for act in (lambda how: spool(path, tmp_path, how), lambda how: sandbox.probe(path, how)):
        with pytest.raises(ImageError, match=wanted) as caught:
            act(replace(HOW, **how))
        assert caught.value.code == "TOO_LARGE" and str(caught.value).startswith(str(path))


def test_a_deep_one_is_refused(small, tmp_path):
    Image.fromarray(np.full((50, 60), 40_000, np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"its mode is I;16|16 bits"):
        spool(tmp_path / "a.png", tmp_path)


def test_a_cut_one_is_a_row_or_taken_as_it_is(small, save, tmp_path):
    path = save()
    path.write_bytes(path.read_bytes()[:-1500])
    with pytest.raises(ImageError) as caught:
        spool(path, tmp_path)
    assert caught.value.code == "TRUNCATED"
    assert not [*(tmp_path / "out").iterdir()]
    made = spool(path, tmp_path, replace(HOW, allow_truncated=True))
    whole = images.read(path, Reading(allow_truncated=True))
    assert np.array_equal(made.pixels, whole.pixels) and made.warnings == whole.warnings


def test_without_a_folder_it_is_too_large(small, save, monkeypatch):
    monkeypatch.setattr(decode, "MAX_PIXELS", 999)
    with pytest.raises(ImageError, match="raise --megapixels for a JPEG"):
        sandbox.read_by_rows(save(), HOW)


def test_a_command_enlarges_what_was_too_large(small, save, call, tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "MAX_PIXELS", 999)
    path = save()
    code, said, _ = call("upscale", path, "-s", 1, "--megapixels", 400, "--dry-run", out="dry")
    assert code == 0 and "143x101 -> 143x101" in said
    assert call("upscale", path, "-s", 1, "--megapixels", 400, out="large")[0] == 0


@pytest.mark.slow
def test_156_megapixels_of_jpeg_come_through_a_real_worker(tmp_path):
    image = Image.linear_gradient("L").resize((13_000, 12_000)).convert("RGB")
    image.save(tmp_path / "a.jpg", quality=80)
    with pytest.raises(ImageError, match="raise --megapixels"):
        sandbox.read_by_rows(tmp_path / "a.jpg")
    made = spool(tmp_path / "a.jpg", tmp_path, Reading(max_pixels=400_000_000))
    assert made.size == (12_000, 13_000)
    assert made.pixels[11_990, 5].max() > 250 and made.pixels[10, 5].max() < 5


def test_what_a_killed_run_spooled_is_known_as_ours_and_removed_by_the_next(tmp_path):
    with memmap.use_folder(tmp_path), memmap.temporary_file() as file:
        assert file and is_temporary(file)
        _sweep([], tmp_path)
        assert not file.exists()
