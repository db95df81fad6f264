"""What the bytes of a file tell before any decoder sees them."""

import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from restore.errors import ImageError

MAX_SCANS = 200  # of a progressive JPEG; encoders write about ten
JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
SIGNATURES = {  # of formats that are read: what starts so and cannot be opened is a broken picture
    JPEG: "JPEG",
    PNG: "PNG",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}
REFUSED = {  # formats told by their first bytes, and not read
    b"%PDF": "PDF",
    b"%!PS": "PostScript",
    b"8BPS": "Photoshop",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
}
HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"}  # ISO/IEC 23008-12, annex B
NAMED = {  # what a suffix says the bytes are; others say nothing
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), ("JPEG", "MPO")),
    **{".png": ("PNG",), ".webp": ("WEBP",), ".avif": ("AVIF",), ".gif": ("GIF",)},
    **{".bmp": ("BMP", "DIB"), ".tif": ("TIFF",), ".tiff": ("TIFF",)},
}
SOS, EOI = 0xDA, 0xD9  # markers of a JPEG: a scan begins, the picture ends
BARE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
BOXES = 2**20  # bytes of an AVIF or HEIC in which its properties stand
CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"fdAT", b"IEND")


def is_heic(data: bytes) -> bool:
    """Whether an ISO base media file says that it holds HEVC."""
    return data[4:8] == b"ftyp" and bool(HEIC & set(brands(data)))


def brands(data: bytes) -> list[bytes]:
    """What an ISO base media file says that it holds."""
    end = min(int.from_bytes(data[:4], "big"), 256)
    return [data[8:12], *(data[at : at + 4] for at in range(16, end, 4))]


def is_short_riff(data: bytes) -> bool:
    """Whether a WebP is shorter than it says."""
    return (
        data[:4] == b"RIFF"
        and data[8:12] == b"WEBP"
        and int.from_bytes(data[4:8], "little") + 8 > len(data)
    )


def unidentified(data: bytes, suffix: str) -> ImageError:
    """Why no decoder took these bytes."""
    if is_short_riff(data):
        return ImageError("TRUNCATED", "the file is cut short; fetch it again")
    refused = next((name for start, name in REFUSED.items() if data.startswith(start)), None)
    if refused or suffix.casefold() == ".svg" or b"<svg" in data[:1000]:
        name = refused or "SVG"
        return ImageError("UNSUPPORTED", f"{name} is not read; convert it to PNG or JPEG")
    known = next((name for start, name in SIGNATURES.items() if data.startswith(start)), None)
    if data[4:8] == b"ftyp" and b"avif" in brands(data):
        known = "AVIF"
    if known:
        return ImageError("CORRUPT", f"a {known} whose header is broken; fetch it again")
    what = "empty" if not data else "not a picture, whatever its name says"
    return ImageError("NOT_IMAGE", f"the file is {what}")


def misnamed(suffix: str, format: str) -> str:
    """A note if the name says another format than the bytes, else nothing."""
    said = NAMED.get(suffix.casefold(), (format,))
    return "" if format in said else f"ext_mismatch: named {suffix}, but it is {format}"


def inspect(data: bytes, notes: list[str]) -> None:
    """Look for what decoders overlook. Raises ImageError; notes what costs no pixels.

    A PNG's checksums, which Pillow skips for the pixels, and its end; a JPEG with so many scans
    that it takes hours, each over the whole picture.
    """
    if data.startswith(JPEG):
        scans = (segment for segment in jpeg_walk(data) if segment.marker == SOS)
        if any(islice(scans, MAX_SCANS, None)):
            told = f"more than {MAX_SCANS} scans; save it anew"
            raise ImageError("TOO_LARGE", told)
    if data.startswith(PNG):
        name = b""
        for name, body, checksum in _chunks(memoryview(data)):
            if name in CRITICAL and zlib.crc32(body, zlib.crc32(name)) != checksum:
                where = name.decode("ascii")
                raise ImageError("CORRUPT", f"broken data: the checksum of {where}; fetch it again")
        if name != b"IEND":
            notes.append("the end of the file is missing")


def _chunks(data: memoryview) -> Iterator[tuple[bytes, memoryview, int]]:
    """(name, body, checksum) of each whole chunk of a PNG, up to its end."""
    at = 8
    while at + 12 <= len(data):
        length, name = struct.unpack(">I4s", data[at : at + 8])
        if at + 12 + length > len(data):
            return
        (checksum,) = struct.unpack(">I", data[at + 8 + length : at + 12 + length])
        yield name, data[at + 8 : at + 8 + length], checksum
        if name == b"IEND":
            return
        at += 12 + length


def png_chunk(data: bytes, wanted: bytes) -> bytes | None:
    """The body of a PNG's first chunk of that name before its pixels."""
    for name, body, _ in _chunks(memoryview(data)):
        if name in (wanted, b"IDAT"):
            return bytes(body) if name == wanted else None
    return None


def png_names(data: bytes) -> set[bytes]:
    """The names of a PNG's chunks."""
    return {name for name, _, _ in _chunks(memoryview(data))}


class Segment(NamedTuple):
    """A part of a JPEG: its marker's number, what stands in it, and where it ends."""

    marker: int
    body: bytes
    end: int


def jpeg_walk(data: bytes) -> Iterator[Segment]:
    """The segments of a JPEG up to its end, those behind its scans too.

    What follows the end, such as the video of a motion photo, is not looked at.
    """
    at = 2
    while found := MARKER.search(data, at):
        at = found.end()
        marker = data[at - 1]
        if marker == EOI:
            yield Segment(EOI, b"", at)
            return
        if marker in BARE or at + 2 > len(data):
            continue
        end = at + max(2, int.from_bytes(data[at : at + 2], "big"))
        yield Segment(marker, data[at + 2 : end], end)
        at = end


def jpeg_segments(data: bytes) -> Iterator[Segment]:
    """The segments before a JPEG's first scan."""
    for segment in jpeg_walk(data):
        if segment.marker == SOS:
            return
        yield segment


def jpeg_end(data: bytes) -> int:
    """Where the first picture of a JPEG ends; 0 if it does not."""
    return next((segment.end for segment in jpeg_walk(data) if segment.marker == EOI), 0)


def nclx(data: bytes) -> bytes | None:
    """What an AVIF or HEIC says of its colours: primaries, transfer, matrix, whether full range."""
    at = data.find(b"colrnclx", 0, BOXES) + 8 if data[4:8] == b"ftyp" else 7
    if at < 8 or at + 7 > len(data):
        return None
    *codes, levels = struct.unpack(">HHHB", data[at : at + 7])
    return bytes([*(min(code, 255) for code in codes), levels >> 7])


def is_deep_heif(data: bytes, info: Mapping[str, Any]) -> bool:
    """Whether an AVIF or HEIC holds more than the 8 bits a channel that its decoders give.

    info  Pillow's.
    """
    at = data.find(b"av1C", 0, BOXES)
    if at >= 0 and at + 7 <= len(data):
        return bool(data[at + 6] & 0x40)
    return info.get("bit_depth", 8) > 8
