"""WebDataset shards: tar files of pictures, read by position and written by `restore data pack`.

Nothing is unpacked: a member is bytes at an offset. Names that lead out of the archive, links,
devices and sparse files are refused, and the error names the member.
"""

import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from restore.errors import ConfigError
from restore.file_search import visible
from restore.files import replacing

MOST = 200_000  # members of one shard
LARGEST = 1 << 30  # bytes of one member


@dataclass(frozen=True)
class Member:
    """A file within a shard."""

    shard: Path
    name: str
    offset: int
    size: int

    def read(self) -> bytes:
        with self.shard.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


def members(shard: Path, suffixes: frozenset[str]) -> Iterator[Member]:
    """The files of a shard that have one of the suffixes; others are not read.

    Raises:
        ConfigError: If it is no plain tar, or holds what no shard of pictures needs, such as links.
    """
    seen: set[str] = set()
    try:
        length = shard.stat().st_size
        with tarfile.open(shard, "r:") as tar:  # "r:": never through a decompressor or a pipe
            for count, info in enumerate(tar):
                if why := _unsafe(info, length) or (count >= MOST and f"over {MOST:,} files"):
                    raise ConfigError(f"{shard}: {info.name!r}: {why}; pack it again")
                tar.members = []  # else tarfile keeps all it has passed
                suffix = PurePosixPath(info.name).suffix.lower()
                if info.isdir() or suffix not in suffixes:
                    continue
                if info.name in seen:
                    raise ConfigError(f"{shard}: {info.name!r}: is there twice; pack it again")
                seen.add(info.name)
                yield Member(shard, info.name, info.offset_data, info.size)
    except (OSError, tarfile.TarError) as error:
        mend = "a shard is an uncompressed .tar, as `restore data pack` writes it"
        raise ConfigError(f"{shard}: cannot be read as a shard: {error}; {mend}") from error


def _unsafe(info: tarfile.TarInfo, length: int) -> str:
    """Why a member is refused, or nothing."""
    path = PurePosixPath(info.name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in info.name or ":" in info.name:
        return "its name leads out of the archive"
    if info.issym() or info.islnk():
        return "is a link"
    if not (info.isreg() or info.isdir()) or info.issparse():
        return "is no plain file"
    if info.size > LARGEST or info.offset_data + info.size > length:
        return "is larger than it can be"
    return ""


def find(path: Path) -> list[Path]:
    """The shards that a path names: the file itself, or all within a folder."""
    return [path] if path.is_file() else [p for p in visible(path) if p.suffix == ".tar"]


@dataclass(frozen=True)
class Packed:
    """The result of packing."""

    shards: list[Path]
    pictures: int


def pack(pictures: Sequence[tuple[str, Path]], out: Path, largest: int) -> Packed:
    """Write pictures into OUT/shard-000000.tar and so on, unchanged.

    Number n becomes 000000n.jpg beside 000000n.json, which holds its key: the webdataset package
    reads both as one sample. The same pictures give the same bytes.

    Args:
        pictures: (key, file) of each.
        out: The folder.
        largest: Size from which the next shard is begun, bytes.
    """
    out.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    left = list(enumerate(pictures))
    while left:
        path = out / f"shard-{len(paths):06d}.tar"
        with replacing(path) as temporary, tarfile.open(temporary, "w") as tar:
            while left and (not tar.offset or tar.offset < largest):
                number, (key, file) = left.pop(0)
                _add(tar, f"{number:07d}{file.suffix.lower()}", file.read_bytes())
                _add(tar, f"{number:07d}.json", json.dumps({"key": key}).encode())
        paths.append(path)
    return Packed(paths, len(pictures))


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)  # its times and owners are 0
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))
