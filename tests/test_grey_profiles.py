"""Grey keeps its tones in formats that hold colours alone."""

from dataclasses import replace

import numpy as np
import pytest

from restore.images import encode, icc, picture
from restore.images.encode import Writing
from restore.images.picture import Picture


def grey_profile(tone: bytes, space: bytes = b"XYZ ") -> bytes:
    made = icc._packed({b"wtpt": icc._xyz(icc.D50), b"kTRC": tone}, b"GRAY")
    return made[:20] + space + made[24:]


TABLE = np.rint(np.linspace(0, 1, 300) ** 3 * 65535).astype(">u2").tobytes()
TONES = {
    "power": b"curv\0\0\0\0\0\0\0\1\1\xcd",
    "table": b"curv\0\0\0\0" + (300).to_bytes(4, "big") + TABLE,
    "line": b"curv\0\0\0\0\0\0\0\0",
    "formula": icc._parametric((2.4, 0.9, 0.1, 0.2, 0.1)),
}
RAMP = Picture(np.repeat(np.arange(256, dtype=np.uint8)[None, :, None].repeat(16, 0), 3, 2))
COVER = np.full((16, 256), 255, np.uint8)
COLOURED = Writing(background=(250, 200, 255), lossless=True)


@pytest.mark.parametrize("tone", TONES)
@pytest.mark.parametrize(
    ("format", "alpha"),
    [("webp", None), ("webp", COVER), ("avif", COVER), ("tiff", COVER), ("jpeg", COVER)],
)
def test_grey_that_is_written_as_colours_keeps_its_tones(tmp_path, format, alpha, tone):
    grey = replace(RAMP, alpha=alpha, grey=True, icc=grey_profile(TONES[tone]))
    path = tmp_path / f"a{encode.FORMATS[format].suffix}"
    notes = encode.encode(grey, path, format, replace(COLOURED, lossless=format == "webp"))
    assert "kept as one for colours" in " ".join(notes)
    back = picture.read(path)
    assert not back.warnings and back.icc[16:20] == b"RGB "
    seen, want = (picture.convert_to_srgb(one).pixels.astype(int) for one in (back, grey))
    near = 1 if format in ("webp", "tiff") else 6
    assert np.abs(seen - want)[:, 20:].max() <= near


@pytest.mark.parametrize("format", ["webp", "tiff", "avif"])
def test_a_grey_profile_that_is_no_curve_of_light_is_dropped_and_told(tmp_path, format):
    grey = replace(RAMP, alpha=COVER, grey=True, icc=grey_profile(TONES["line"], b"Lab "))
    path = tmp_path / f"a{encode.FORMATS[format].suffix}"
    [note] = encode.encode(grey, path, format)
    assert note.startswith("the colour profile is dropped: it is for grey")
    back = picture.read(path)
    assert back.icc is None and not back.warnings
