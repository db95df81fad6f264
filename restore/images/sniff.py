"""What the bytes of a file tell before any decoder sees them."""

import struct
import zlib
from collections.abc import Iterator

from restore.errors import ImageError

MAX_SCANS = 200  # of a progressive JPEG; encoders write about ten
SIGNATURES = {  # of formats that are read: what starts so and cannot be opened is a broken picture
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
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
CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"fdAT", b"IEND")


def is_heic(data: bytes) -> bool:
    """Whether an ISO base media file says that it holds HEVC."""
    return data[4:8] == b"ftyp" and bool(HEIC & set(_brands(data)))


def _brands(data: bytes) -> list[bytes]:
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
    if data[4:8] == b"ftyp" and b"avif" in _brands(data):
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
    if data.startswith(b"\xff\xd8\xff"):
        scans = data.count(b"\xff\xda")
        if scans > MAX_SCANS:
            raise ImageError("TOO_LARGE", f"{scans} scans; the limit is {MAX_SCANS}; save it anew")
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
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
