"""PNG and TIFF written band by band, for pictures too large to copy in memory."""

import struct
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any

import numpy as np

from restore.images import memmap

Layers = Callable[[int, int], np.ndarray]
"""(first, last) row -> (last - first, W, 1 to 4): grey, grey and alpha, RGB or RGBA"""

FORMATS = ("png", "tiff")
TILE = 512  # pixels, on a side
BAND = 64  # rows of a PNG packed together; no byte depends on it
CHUNK = 2**20  # bytes
SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}  # PNG's colour type by the number of channels


def make_png_chunk(name: bytes, body: bytes) -> bytes:
    """Build a PNG chunk: length, name, body and checksum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def write_png(file: IO[bytes], layers: Layers, size: tuple[int, int], texts: list[bytes]) -> None:
    """Write a PNG with filter Sub and run-length compression, as cv2 does.

    Args:
        file: Open for writing.
        layers: Gives rows first to last as (last - first, W, 1 to 4).
        size: (height, width).
        texts: Chunks to put before the pixels.
    """
    height, width = size
    kind = layers(0, 1)
    bits, channels = kind.dtype.itemsize * 8, kind.shape[2]
    head = struct.pack(">IIBBBBB", width, height, bits, COLOURS[channels], 0, 0, 0)
    file.write(SIGNATURE + make_png_chunk(b"IHDR", head) + b"".join(texts))
    packer = zlib.compressobj(1, zlib.DEFLATED, 15, 9, zlib.Z_RLE)
    packed = bytearray()
    for first in range(0, height, BAND):
        rows = layers(first, min(first + BAND, height))
        packed += packer.compress(_filtered(rows))
        while len(packed) >= CHUNK:
            file.write(make_png_chunk(b"IDAT", bytes(packed[:CHUNK])))
            del packed[:CHUNK]
        memmap.release_pages()
    file.write(
        make_png_chunk(b"IDAT", bytes(packed + packer.flush())) + make_png_chunk(b"IEND", b"")
    )


def _filtered(rows: np.ndarray) -> bytes:
    """Apply PNG's filter 1, Sub, to big-endian samples; its number stands before each row."""
    step = rows.shape[2] * rows.dtype.itemsize
    plain = np.ascontiguousarray(rows.astype(rows.dtype.newbyteorder(">"), copy=False))
    plain = plain.view(np.uint8).reshape(len(rows), -1)
    lines = np.empty((len(rows), 1 + plain.shape[1]), np.uint8)
    lines[:, 0] = 1
    lines[:, 1 : 1 + step] = plain[:, :step]
    np.subtract(plain[:, step:], plain[:, :-step], out=lines[:, 1 + step :])
    return lines.tobytes()


def write_tiff(
    file: IO[bytes], layers: Layers, size: tuple[int, int], options: dict[str, Any]
) -> None:
    """Write a TIFF in tiles.

    Args:
        file: Open for writing.
        layers: Gives rows first to last as (last - first, W, 1 to 4).
        size: (height, width).
        options: Further arguments of tifffile.TiffWriter.write, such as the compression.
    """
    import tifffile

    kind = layers(0, 1)
    shape = (*size, kind.shape[2]) if kind.shape[2] > 1 else size
    is_huge = size[0] * size[1] * kind.shape[2] * kind.dtype.itemsize > 2**32 - 2**27
    with tifffile.TiffWriter(file, bigtiff=is_huge) as writer:
        tile, tiles = (TILE, TILE), _tiles(layers, size)
        more = {"maxworkers": 1, "buffersize": CHUNK}
        writer.write(tiles, shape=shape, dtype=kind.dtype, tile=tile, **more, **options)


def _tiles(layers: Layers, size: tuple[int, int]) -> Iterator[np.ndarray]:
    height, width = size
    for first in range(0, height, TILE):
        band = layers(first, min(first + TILE, height))
        for left in range(0, width, TILE):
            part = band[:, left : left + TILE]
            room = ((0, TILE - part.shape[0]), (0, TILE - part.shape[1]), (0, 0))
            whole = np.pad(part, room)
            yield whole if whole.shape[2] > 1 else whole[..., 0]
        memmap.release_pages()
