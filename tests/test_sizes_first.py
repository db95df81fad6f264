"""What is too large is told by its size, before a byte of it is read."""

import os
import time

import pytest

from restore.batch.jobs import LARGEST, digest_of
from restore.errors import ImageError
from restore.storage import digests


@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_a_sparse_file_is_refused_at_once(tmp_path, name):
    path = tmp_path / name
    with path.open("wb") as file:
        file.truncate(8 * 2**30)
    began = time.monotonic()
    with pytest.raises(ImageError, match="8,192 MiB; the limit is 1,024"):
        digest_of(path)
    assert digests.of([path]) == [f"of {8 * 2**30} bytes"]
    assert time.monotonic() - began < 2


def test_a_tiff_that_may_be_read_by_rows_is_not(tmp_path):
    path = tmp_path / "a.tif"
    with path.open("wb") as file:
        file.write(b"II*\0")
        file.truncate(LARGEST + 10)
    assert len(digest_of(path)) == 64


def test_a_sparse_picture_is_a_row(restored, photo, tmp_path):
    photo("a.png")
    with (tmp_path / "in" / "b.jpg").open("wb") as file:
        file.truncate(8 * 2**30)
    code, rows, _ = restored()
    assert code == 1 and rows["b.jpg"]["code"] == "TOO_LARGE" and rows["a.png"]["status"] == "done"
    assert os.path.exists(tmp_path / "out" / "a.png")
