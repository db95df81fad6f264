"""Structure of picture files, read from their bytes before any decoder sees them."""

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
    b"MM\0+": "a big-endian BigTIFF",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    **{b"II\xbc": "JPEG XR", b"P7\n": "PAM", b"gimp xcf": "GIMP's XCF", b"qoif": "QOI"},
    **{b"\0\0\1\0": "ICO", b"\0\0\2\0": "CUR", b"icns": "ICNS", b"DDS ": "DDS"},
    **{bytes([10, version, 1]): "PCX" for version in (0, 2, 3, 4, 5)},
    **{b"v/1\1": "OpenEXR", b"#?RADIANCE": "Radiance HDR", b"#?RGBE": "Radiance HDR"},
    **{b"\1\xda\0": "SGI", b"\1\xda\1": "SGI", b"\x59\xa6\x6a\x95": "Sun raster"},
    **{b"AT&TFORM": "DjVu", b"SIMPLE  =": "FITS", b"PF\n": "PFM"},
}
RAW = {  # of cameras; those that begin as a TIFF does are told by its tags
    *(b"FUJIFILMCCD-RAW", b"IIU\0", b"IIRO", b"IIRS", b"MMOR", b"FOVb", b"\0MRM"),
}
HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx"}  # ISO/IEC 23008-12, annex B
NAMED = {  # what a suffix says the bytes are; others say nothing
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif"), ("JPEG", "MPO")),
    **{".png": ("PNG",), ".webp": ("WEBP",), ".avif": ("AVIF",), ".gif": ("GIF",)},
    **{".bmp": ("BMP", "DIB"), ".tif": ("TIFF",), ".tiff": ("TIFF",)},
}
SOS, EOI = 0xDA, 0xD9  # markers of a JPEG: a scan begins, the picture ends
SOF = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # its frame headers
BARE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
MARKER = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]")
BOXES = 2**20  # bytes of an AVIF or HEIC in which its properties stand
CRITICAL = (b"IHDR", b"PLTE", b"IDAT", b"fdAT", b"IEND")


def is_heic(data: bytes) -> bool:
    """Whether the bytes are an ISO base media file (ISO/IEC 14496-12) with HEVC, as HEIC."""
    return data[4:8] == b"ftyp" and bool(HEIC & set(read_brands(data)))


def read_brands(data: bytes) -> list[bytes]:
    """Read the brands of an ISO base media file (ISO/IEC 14496-12)."""
    end = min(int.from_bytes(data[:4], "big"), 256)
    return [data[8:12], *(data[at : at + 4] for at in range(16, end, 4))]


def is_short_riff(data: bytes) -> bool:
    """Whether a WebP is shorter than its header says."""
    return (
        data[:4] == b"RIFF"
        and data[8:12] == b"WEBP"
        and int.from_bytes(data[4:8], "little") + 8 > len(data)
    )


def explain_unidentified(data: bytes, suffix: str) -> ImageError:
    """Build the error for bytes that no decoder accepts, with the likeliest reason."""
    if is_short_riff(data):
        return ImageError("TRUNCATED", "the file is cut short; fetch it again")
    if data.startswith(tuple(RAW)) or data[4:12] == b"ftypcrx ":
        told = "a camera's raw file is not read; develop it to TIFF or JPEG"
        return ImageError("UNSUPPORTED", told)
    refused = next((name for start, name in REFUSED.items() if data.startswith(start)), None)
    if refused or suffix.casefold() == ".svg" or b"<svg" in data[:1000]:
        name = refused or "SVG"
        return ImageError("UNSUPPORTED", f"{name} is not read; convert it to PNG or JPEG")
    format = next((name for start, name in SIGNATURES.items() if data.startswith(start)), None)
    if format == "JPEG" and (bits := _read_jpeg_depth(data)) > 8:
        told = f"a JPEG of {bits} bits a channel is not read; convert it to a PNG of 16 bits"
        return ImageError("UNSUPPORTED", told)
    if data[4:8] == b"ftyp" and b"avif" in read_brands(data):
        format = "AVIF"
    if format:
        return ImageError("CORRUPT", f"a {format} whose header is broken; fetch it again")
    what = "empty" if not data else "not a picture, whatever its name says"
    return ImageError("NOT_IMAGE", f"the file is {what}")


def check_suffix(suffix: str, format: str) -> str:
    """Return a note if the suffix stands for another format than the bytes, else an empty text."""
    expected = NAMED.get(suffix.casefold(), (format,))
    return "" if format in expected else f"ext_mismatch: named {suffix}, but it is {format}"


def inspect(data: bytes, notes: list[str]) -> None:
    """Check what decoders overlook.

    In a PNG, the checksums, which Pillow skips for the pixels, and the end. In a JPEG, the number
    of scans: each covers the whole picture, so thousands of them take hours.

    Args:
        data: The bytes of the file.
        notes: Notes on faults that cost no pixels are appended here.

    Raises:
        ImageError: The file is corrupt, or has more than MAX_SCANS scans.
    """
    if data.startswith(JPEG):
        scans = (segment for segment in iter_jpeg_segments(data) if segment.marker == SOS)
        if any(islice(scans, MAX_SCANS, None)):
            raise ImageError("TOO_LARGE", f"more than {MAX_SCANS} scans; save it anew")
    if data.startswith(PNG):
        name = b""
        for name, body, checksum in _chunks(memoryview(data)):
            if name in CRITICAL and zlib.crc32(body, zlib.crc32(name)) != checksum:
                where = name.decode("ascii")
                raise ImageError("CORRUPT", f"broken data: the checksum of {where}; fetch it again")
        if name != b"IEND":
            notes.append("the end of the file is missing")


def _chunks(data: memoryview) -> Iterator[tuple[bytes, memoryview, int]]:
    """Iterate over (name, body, checksum) of the complete chunks of a PNG."""
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


def find_png_chunk(data: bytes, wanted: bytes) -> bytes | None:
    """Return the body of the first chunk called `wanted` before the pixels of a PNG, if any."""
    for name, body, _ in _chunks(memoryview(data)):
        if name in (wanted, b"IDAT"):
            return bytes(body) if name == wanted else None
    return None


def find_end(data: bytes) -> int:
    """Return the offset at which a JPEG, PNG or WebP ends; 0 if it is another, or has no end."""
    if data.startswith(JPEG):
        return find_jpeg_end(data)
    if data.startswith(PNG):
        sizes = [(name, 12 + len(body)) for name, body, _ in _chunks(memoryview(data))]
        is_whole = bool(sizes) and sizes[-1][0] == b"IEND"
        return 8 + sum(size for _, size in sizes) if is_whole else 0
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        size = int.from_bytes(data[4:8], "little")
        return 8 + size + size % 2
    return 0


def list_png_chunks(data: bytes) -> set[bytes]:
    """Return the names of all chunks of a PNG."""
    return {name for name, _, _ in _chunks(memoryview(data))}


class Segment(NamedTuple):
    """A segment of a JPEG.

    Attributes:
        marker: Second byte of the marker, such as 0xE1 for APP1.
        body: Payload, without the length.
        end: Offset in the file of the byte after the segment.
    """

    marker: int
    body: bytes
    end: int


def iter_jpeg_segments(data: bytes) -> Iterator[Segment]:
    """Iterate over all segments of a JPEG up to its EOI marker, those after its scans included.

    What follows EOI, such as the video of a motion photo, is ignored.
    """
    position = 2
    while match := MARKER.search(data, position):
        position = match.end()
        marker = data[position - 1]
        if marker == EOI:
            yield Segment(EOI, b"", position)
            return
        if marker in BARE or position + 2 > len(data):
            continue
        end = position + max(2, int.from_bytes(data[position : position + 2], "big"))
        yield Segment(marker, data[position + 2 : end], end)
        position = end


def iter_jpeg_header(data: bytes) -> Iterator[Segment]:
    """Iterate over the segments before the first scan of a JPEG."""
    for segment in iter_jpeg_segments(data):
        if segment.marker == SOS:
            return
        yield segment


def _read_jpeg_depth(data: bytes) -> int:
    """Return the bits per channel that the frame header of a JPEG tells; 0 if it has none."""
    frames = (segment.body for segment in iter_jpeg_header(data) if segment.marker in SOF)
    return next(frames, b"")[:1].rjust(1, b"\0")[0]


def find_jpeg_end(data: bytes) -> int:
    """Return the offset after the EOI marker of the first picture in a JPEG; 0 if it has none."""
    return next((segment.end for segment in iter_jpeg_segments(data) if segment.marker == EOI), 0)


def read_nclx(data: bytes) -> bytes | None:
    """Read the colour codes of an AVIF or HEIC (ITU-T H.273).

    Returns:
        Four bytes: primaries, transfer, matrix, full range; None if the file has no such box.
    """
    at = data.find(b"colrnclx", 0, BOXES) + 8 if data[4:8] == b"ftyp" else 7
    if at < 8 or at + 7 > len(data):
        return None
    *codes, levels = struct.unpack(">HHHB", data[at : at + 7])
    return bytes([*(min(code, 255) for code in codes), levels >> 7])


def is_deep_heif(data: bytes, info: Mapping[str, Any]) -> bool:
    """Whether an AVIF or HEIC holds more than the 8 bits per channel that decoders return.

    Args:
        data: The bytes of the file.
        info: `info` of Pillow's image.
    """
    at = data.find(b"av1C", 0, BOXES)
    if at >= 0 and at + 7 <= len(data):
        return bool(data[at + 6] & 0x40)
    return info.get("bit_depth", 8) > 8
