"""Photos of 16 bits, with alpha or of cameras: what `degradations` reads of them, or refuses."""

import cv2
import numpy as np
import pytest
from PIL import Image
from test_cases_inputs_broken import RAWS

from degradations import RecipeError, samples
from degradations.measure import measure
from degradations.measure.photo import part

tifffile = pytest.importorskip("tifffile")


def deep(folder) -> dict:
    """Files of 16 bits of the same picture, in colour and in grey."""
    colour = np.random.default_rng(0).integers(0, 65536, (80, 90, 3)).astype(np.uint16)
    grey, how = colour[..., 0], {"metadata": None}
    for suffix in ("png", "tif", "ppm"):
        cv2.imwrite(str(folder / f"colour.{suffix}"), colour[..., ::-1])
    for suffix in ("png", "tif", "pgm"):
        cv2.imwrite(str(folder / f"grey.{suffix}"), grey)
    planes = {"photometric": "rgb", "planarconfig": "separate"}
    tifffile.imwrite(folder / "colour_planes.tif", colour.transpose(2, 0, 1), **planes, **how)
    tifffile.imwrite(folder / "grey_white.tif", 65535 - grey, photometric="miniswhite", **how)
    both = {"colour": colour, "grey": np.repeat(grey[..., None], 3, 2)}
    return {
        file: np.rint(values / 257).astype(np.uint8)
        for name, values in both.items()
        for file in folder.glob(f"{name}*")
    }


def test_16_bits_are_rounded_to_8_whatever_the_format(tmp_path):
    for file, wanted in deep(tmp_path).items():
        assert np.array_equal(samples.read(file), wanted), file.name
        with Image.open(file) as image:
            assert np.array_equal(part(image, (8, 0, 80, 72)), wanted[:72, 8:80]), file.name


def test_the_alpha_of_a_tiff_leaves_its_colours(tmp_path):
    rgba = np.random.default_rng(0).integers(0, 256, (80, 90, 4)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", rgba, photometric="rgb", extrasamples=["unassalpha"])
    assert np.array_equal(samples.read(tmp_path / "a.tif"), rgba[..., :3])


def test_pixmaps_of_fewer_than_16_bits_are_scaled(tmp_path):
    levels = np.random.default_rng(0).integers(0, 1024, (8, 9, 3)).astype(np.uint16)
    (tmp_path / "a.ppm").write_bytes(b"P6 9 8 1023\n" + levels.astype(">u2").tobytes())
    off = samples.read(tmp_path / "a.ppm") - levels * (255 / 1023)
    assert np.abs(off).max() <= 1


@pytest.mark.parametrize("maker", RAWS)
@pytest.mark.parametrize("name", ["a.dng", "a.tif", "a.jpg"])
def test_a_raw_file_is_no_photo_and_is_not_measured_by_its_thumbnail(tmp_path, maker, name):
    (tmp_path / name).write_bytes(RAWS[maker])
    for reading in (samples.read, measure):
        with pytest.raises(RecipeError, match="raw file, of which only the thumbnail"):
            reading(tmp_path / name)


def test_a_tiff_of_signed_integers_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((80, 90, 3), np.int16), photometric="rgb")
    with pytest.raises(RecipeError, match="signed integers is not read"):
        samples.read(tmp_path / "a.tif")
