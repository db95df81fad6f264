"""Broken and bomb-like pictures, as bytes."""

import io
import struct
import zlib

import cv2
import numpy as np
from PIL import Image

RNG = np.random.default_rng(7)
SOFT = cv2.GaussianBlur(RNG.integers(0, 256, (120, 160, 3), np.uint8), (0, 0), 2)


def encoded(array=SOFT, format="PNG", **how) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format, **how)
    return buffer.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + chunk(b"IEND", b"")


def header(width: int, height: int, colour: int = 2) -> bytes:
    return chunk(b"IHDR", struct.pack(">II5B", width, height, 8, colour, 0, 0, 0))


def png_claiming(side: int) -> bytes:
    return png(header(side, side), chunk(b"IDAT", zlib.compress(b"\0" * 1000)))


def png_of_zeros(side: int) -> bytes:
    """RGB, real to its last pixel; the same compressed rows again and again."""
    row = b"\0" * (1 + 3 * side)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(row * 200) + packer.flush(zlib.Z_FULL_FLUSH)
    rows, rest = divmod(side, 200)
    tail = zlib.compressobj(9, zlib.DEFLATED, -15)
    last = tail.compress(row * rest) + tail.flush()
    adler = (len(row) * side % 65521) << 16 | 1
    body = b"\x78\x9c" + block * rows + last + struct.pack(">I", adler)
    return png(header(side, side), chunk(b"IDAT", body))


def png_with_text(body: bytes, name: bytes = b"zTXt") -> bytes:
    data = encoded()
    return data[:33] + chunk(name, body) + data[33:]


def png_with_checksum_off() -> bytes:
    data = bytearray(encoded())
    at = data.index(b"IDAT")
    (length,) = struct.unpack(">I", data[at - 4 : at])
    data[at + 4 + length] ^= 1
    return bytes(data)


def jpeg_of_scans(count: int) -> bytes:
    """A progressive JPEG whose first scan stands there `count` times."""
    data = encoded(format="JPEG", progressive=True)
    first = data.index(b"\xff\xda")
    second = data.index(b"\xff\xc4", first)  # tables of the next scan
    return data[:first] + data[first:second] * count + data[second:]


def gif_of_frames(count: int) -> bytes:
    data = encoded(np.zeros((8, 8), np.uint8), "GIF")
    at = 13 + 3 * 2 ** ((data[10] & 7) + 1)  # past the palette: the descriptor of the picture
    frame = b"\x21\xf9\x04\0\x05\0\0\0" + data[at:-1]
    return data[:at] + frame * count + data[-1:]


def tiff_with(tag: int, value: int) -> bytes:
    """A TIFF one of whose 16-bit tags is changed."""
    data = bytearray(encoded(format="TIFF"))
    at = data.index(struct.pack("<HHI", tag, 3, 1))
    data[at + 8 : at + 10] = struct.pack("<H", value)
    return bytes(data)


def tiff_in_a_loop() -> bytes:
    """Its only directory names itself as the next one."""
    data = bytearray(encoded(format="TIFF"))
    (first,) = struct.unpack("<I", data[4:8])
    (count,) = struct.unpack("<H", data[first : first + 2])
    data[first + 2 + 12 * count : first + 6 + 12 * count] = struct.pack("<I", first)
    return bytes(data)
