"""Large TIFFs read by rows: a band of tiles or strips at a time, in a worker process."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image

from restore.errors import ImageError
from restore.images import attachments, colours, metadata, tiff_samples
from restore.images import decode as decoding
from restore.images.decode import MAX_PIXELS, translate_errors
from restore.images.deep_samples import grey_to_rgb
from restore.images.picture import Header, Picture, Reading, collect_warnings
from restore.images.worker_pool import shared_workers

TiffPage = Any  # of tifffile, an extra
LARGE = 2**25  # pixels; what has fewer is read whole
SUFFIXES = (".tif", ".tiff")
SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0")
SEGMENT = 2**27  # bytes of a tile or strip at the most, unpacked
COMPRESSIONS = {1, 5, 8, 32773, 32946, 50000}  # none, LZW, deflate, PackBits, deflate, zstd
PATIENCE_S = 60  # for a band


@dataclass(frozen=True)
class Rows:
    """Acts as the pixel array of a large picture, and reads rows from the file on access.

    Indexing returns arrays: [first:last], and [first:last:step, ::step] for every step-th pixel. It
    raises ImageError if the rows cannot be read.

    Attributes:
        path: The TIFF.
        shape: (H, W, 3).
        dtype: uint8 or uint16.
    """

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype

    @property
    def size(self) -> int:
        """Number of samples."""
        return self.shape[0] * self.shape[1] * 3

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> np.ndarray:
        rows, *columns = key if isinstance(key, tuple) else (key,)
        first, last, step = rows.indices(len(self))
        band = -(-256 // step) * step
        cuts = [(first, last)] if step == 1 else [(n, n + band) for n in range(first, last, band)]
        parts = [
            shared_workers().call(PATIENCE_S, decode_rows, self.path, a, min(b, last))[
                ::step, *columns
            ]
            for a, b in cuts
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def read(path: Path, how: Reading) -> tuple[Picture, int] | None:
    """Open a large TIFF without reading its pixels.

    Returns:
        The picture, whose pixels are `Rows`, and the number of frames; None if the picture should
        be read whole.

    Raises:
        ImageError: It is too large to be read whole and cannot be read by rows.
    """
    if path.suffix.casefold() not in SUFFIXES:
        return None
    notes: list[str] = []
    with path.open("rb") as file, collect_warnings(notes), translate_errors(b"", path.suffix):
        head = file.read(12)
        if head[:4] not in SIGNATURES:
            return None
        file.seek(0)
        Image.init()
        try:  # straight to the decoder: Image.open's bomb guard is for what is read whole
            image = Image.OPEN["TIFF"][0](file, str(path))
        except MemoryError:
            raise
        except Exception:  # Pillow raises anything on a broken header; reading it whole explains it
            return None
        if not LARGE < image.width * image.height <= how.max_pixels:
            return None
        tiff_samples.refuse_raw(head, getattr(image, "tag_v2", {}))
        count = decoding.count_frames(image, b"", path.suffix)
        why, grey = _refused(image, count, how) or _unreadable(path), image.mode[0] in "LI"
        if why and image.width * image.height <= MAX_PIXELS:
            return None
        if why:
            what = f"{image.width}x{image.height} pixels cannot be read by rows: {why}"
            mend = "save it upright and opaque, in deflated tiles, or cut it into parts"
            raise ImageError("TOO_LARGE", f"{what}; {mend}")
        _, facts = metadata.read_metadata(image, how.strip, notes)
        icc = metadata.check_profile(image.info.get("icc_profile"), grey, notes)
        icc = colours.find_profile(b"", image, icc, grey, notes)
        notes += attachments.list_dropped(image, b"")
        shape = image.height, image.width, 3
    if count > 1:
        notes.append(decoding.FIRST_ALONE.format(count))
    rows = Rows(path, shape, decode_rows(path, 0, 1).dtype)
    pixels = cast(np.ndarray, rows)
    warnings = tuple(notes)
    made = Picture(pixels, None, grey, icc, format="TIFF", warnings=warnings, **vars(facts))
    return made, count


def probe(path: Path, how: Reading) -> Header | None:
    """Read the header of such a picture; None and errors as for `read`."""
    found = read(path, how)
    return None if found is None else Header(found[0].size, found[1], has_alpha=False, by_rows=True)


def decode_rows(path: Path, first: int, last: int) -> np.ndarray:
    """Decode rows first to last as stored, (last - first, W, 3).

    Raises:
        ImageError: The file is broken.
    """
    import tifffile

    with translate_errors(b"", path.suffix), tifffile.TiffFile(path) as file:
        page = file.pages.first
        band = _plain(page, first, last) if _is_plain(page) else _cut(page, first, last)
    band = band.astype(band.dtype.newbyteorder("="), copy=False)
    return band if band.shape[2] == 3 else grey_to_rgb(band[..., 0])


def _plain(page: TiffPage, first: int, last: int) -> np.ndarray:
    """Read rows of a file that holds all samples uncompressed and in order."""
    dtype = np.dtype(page.parent.byteorder + page.dtype.char)
    line = page.imagewidth * page.samplesperpixel
    shape = last - first, page.imagewidth, page.samplesperpixel
    start = page.dataoffsets[0] + first * line * dtype.itemsize
    data = _bytes(page, start, (last - first) * line * dtype.itemsize)
    return np.frombuffer(data, dtype).reshape(shape)


def _cut(page: TiffPage, first: int, last: int) -> np.ndarray:
    tall, wide = _segment(page)
    across = -(-page.imagewidth // wide)
    band = np.empty((last - first, page.imagewidth, page.samplesperpixel), page.dtype)
    for down in range(first // tall, -(-last // tall)):
        top, bottom = max(first, down * tall), min(last, (down + 1) * tall)
        for column in range(across):
            nth = down * across + column
            data = _bytes(page, page.dataoffsets[nth], page.databytecounts[nth])
            made = page.decode(data, nth)[0][0]
            room = band[top - first : bottom - first, column * wide : (column + 1) * wide]
            room[:] = made[top - down * tall : bottom - down * tall, : room.shape[1]]
    return band


def _bytes(page: TiffPage, start: int, size: int) -> bytes:
    page.parent.filehandle.seek(start)
    data = page.parent.filehandle.read(size)
    if len(data) < size:
        raise ImageError("TRUNCATED", "the file is cut short; fetch it again")
    return data


def _segment(page: TiffPage) -> tuple[int, int]:
    """Return (height, width) of a tile or strip."""
    if page.is_tiled:
        return page.tilelength, page.tilewidth
    return min(page.rowsperstrip, page.imagelength), page.imagewidth


def _is_plain(page: TiffPage) -> bool:
    return page.is_final and not page.is_tiled and page.compression == 1


def _refused(image: Image.Image, count: int, how: Reading) -> str:
    """Return why the header or the options require the whole picture; "" if nothing does."""
    if tiff_samples.applied_orientation(image) > 1:
        return "it is stored on its side"
    if how.icc == "srgb" and "icc_profile" in image.info:
        return "its colours are to be converted"
    if how.allow_truncated:
        return "it may be cut short"
    if count > 1 and how.frames != "first":
        return "it has several frames"
    return ""


def _unreadable(path: Path) -> str:
    """Return why the samples cannot be decoded by parts; "" if they can."""
    try:
        import tifffile  # an extra
    except ImportError:
        return "tifffile is missing (pip install 'restore-toolkit[formats]')"
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        why = _odd(page)
        if not why and not _is_plain(page):
            try:
                _cut(page, 0, 1)
            except (ValueError, ImportError) as error:  # of tifffile: no codec
                why = str(error)
    return why


def _odd(page: TiffPage) -> str:
    samples = {1: 1, 2: 3}.get(int(page.photometric), 0)  # 0 is black; RGB
    if page.dtype not in (np.uint8, np.uint16) or page.bitspersample not in (8, 16):
        return "its samples have neither 8 nor 16 bits"
    if page.samplesperpixel != samples or (samples == 3 and page.planarconfig != 1):
        return "it is neither grey nor RGB, opaque and interleaved"
    if not _is_plain(page) and page.compression not in COMPRESSIONS:
        return f"its compression, {page.compression.name}, is not known here"
    tall, wide = _segment(page)
    if not _is_plain(page) and tall * wide * samples * page.bitspersample // 8 > SEGMENT:
        return "its pixels are one piece"
    return ""
