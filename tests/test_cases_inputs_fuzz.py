"""Mutated files of every format through the worker that decodes: none ends or stops the caller."""

import io
import os
import time
from collections import Counter
from pathlib import Path

import broken
import hostile
import numpy as np
import pytest
import tifffile
from PIL import Image

from restore.errors import RestoreError
from restore.images import picture
from restore.images.picture import Reading
from restore.images.worker_pool import Workers

SIDE = 24


def seeds() -> list[tuple[str, bytes]]:
    """(suffix, bytes) of whole files of each format and of what makes them odd."""
    rng = np.random.default_rng(0)
    rgb = np.ascontiguousarray(broken.SOFT[:SIDE, :SIDE])
    alpha = rng.integers(0, 256, (SIDE, SIDE), np.uint8)
    deep = rng.integers(0, 65536, (SIDE, SIDE, 3), np.uint16)
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8825)[1] = "N"
    plain, other = Image.fromarray(rgb), Image.fromarray(255 - rgb)
    rgba = Image.fromarray(np.dstack([rgb, alpha]))
    many = {"save_all": True}

    def saved(image: Image.Image, format: str, **how) -> bytes:
        buffer = io.BytesIO()
        if "save_all" in how:
            how["append_images"] = [other.copy()]  # Pillow leaves an encoder's settings in them
        image.copy().save(buffer, format, **how)
        return buffer.getvalue()

    def by_tifffile(array: np.ndarray, **how) -> bytes:
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, array, photometric="rgb", **how)
        return buffer.getvalue()

    return [
        (".jpg", saved(plain, "JPEG", exif=exif)),
        (".jpg", saved(plain, "JPEG", progressive=True)),
        (".jpg", saved(plain.convert("CMYK"), "JPEG")),
        (".jpg", saved(plain, "MPO", **many)),
        (".png", saved(rgba, "PNG", exif=exif)),
        (".png", saved(plain.quantize(16), "PNG", transparency=3)),
        (".png", saved(plain, "PNG", **many)),
        (".png", saved(Image.fromarray(deep[..., 0]), "PNG")),
        (".webp", saved(rgba, "WEBP", exif=exif)),
        (".webp", saved(plain, "WEBP", lossless=True, **many)),
        (".avif", saved(rgba, "AVIF")),
        (".gif", saved(plain, "GIF", **many)),
        (".tif", saved(plain, "TIFF", compression="tiff_lzw")),
        (".tif", saved(plain, "TIFF", compression="jpeg")),
        (".tif", saved(plain, "TIFF", **many)),
        (".tif", by_tifffile(deep, compression="zlib")),
        (".tif", by_tifffile((deep / 65535).astype(np.float32))),
        (".bmp", saved(plain, "BMP")),
        (".ppm", saved(plain, "PPM")),
        (".tga", saved(plain, "TGA", compression="tga_rle")),
    ]


def mutated(data: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """A few flips, then perhaps a cut, a hole, a repetition or a splice with another file."""
    changed = bytearray(data)
    reach = len(changed) if rng.random() < 0.5 else min(len(changed), 200)  # headers more often
    for at in rng.integers(0, reach, rng.integers(1, 9)):
        changed[at] = rng.choice([changed[at] ^ 1 << rng.integers(8), 0, 255, rng.integers(256)])
    first, last = sorted(rng.integers(0, len(changed) + 1, 2).tolist())
    way = rng.integers(6)
    if way == 0:
        return bytes(changed[:last])
    if way == 1:
        return bytes(changed[:first] + changed[last:])
    if way == 2:
        return bytes(changed[:last] + changed[first:])
    if way == 3:
        return bytes(changed[:first]) + other[first:]
    return bytes(changed)


def fuzz(count: int, path: Path) -> tuple[Counter[str], float, float, int]:
    """(outcomes, the longest call in seconds, the most memory in MB, processes used)."""
    whole = seeds()
    workers = Workers(1)
    outcomes: Counter[str] = Counter()
    slowest, pids = 0.0, set()
    most = 0.0
    for number in range(count):
        rng = np.random.default_rng([7, number])
        suffix, data = whole[number % len(whole)]
        file = path / f"{number}{suffix}"
        file.write_bytes(mutated(data, whole[rng.integers(len(whole))][1], rng))
        how = Reading("all" if number % 3 == 0 else "first", "srgb", "gps", number % 2 == 0)
        began = time.monotonic()
        try:
            workers.call(30, picture.read_frames, file, how)
            outcome = "read"
        except RestoreError as error:
            outcome = error.code
        except Exception as error:  # a mistake of ours
            outcome = repr(error)
        slowest = max(slowest, time.monotonic() - began)
        outcomes[outcome] += 1
        if number % 20 == 19 or outcome not in ("read", "CORRUPT", "TRUNCATED", "NOT_IMAGE"):
            pids.add(workers.call(30, os.getpid))
            most = max(most, workers.call(30, hostile.peak))
        file.unlink()
    workers.close()
    return outcomes, slowest, most, len(pids)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("count", [300, pytest.param(20_000, marks=pytest.mark.slow)])
def test_mutated_files_cost_no_crash_no_hang_and_no_memory(tmp_path, count):
    began = time.monotonic()
    outcomes, slowest, most, processes = fuzz(count, tmp_path)
    told = f"{count} files in {time.monotonic() - began:.0f} s: {dict(outcomes)}"
    print(f"{told}; slowest {slowest:.2f} s, most memory {most:.0f} MB, {processes} processes")
    assert outcomes.total() == count and outcomes["read"] > count / 20
    known = {"NOT_IMAGE", "TRUNCATED", "CORRUPT", "TOO_LARGE", "UNSUPPORTED", "METADATA", "read"}
    died = {"CRASHED", "OOM"}  # of a decoder's own mistakes: allowed to cost their file, not more
    assert set(outcomes) <= known | died
    assert sum(outcomes[code] for code in died) <= count / 1000
    assert slowest < 30 and most < 2000
