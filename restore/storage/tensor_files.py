"""Read .safetensors files into private memory, and hash them on the way.

The library of the format maps files instead, so that a later edit of the file changes the tensors,
and what was hashed is not what computes. Each tensor gets memory of its own here, no byte is held
twice, and nothing is returned of a file whose bytes are not those that were hashed before.
"""

import hashlib
import json
import math
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from restore.storage import sealed

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

MOST = 10**8  # bytes of a header, as in the library
POINTER = b"version https://git-lfs"  # how a file of Git LFS begins that was not fetched
OF_LFS = "a pointer of Git LFS, not the file; `git lfs pull` fetches it"
PIECE = 2**20  # bytes read at once: they are still in the cache when they are hashed
LARGE = 2**30  # bytes from which a file is compared with the machine's memory
KINDS = {  # the format's names of types, and those of torch
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "C64": "complex64",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
}
SIZES = {"C64": 8, "BOOL": 1, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1}
Count = Annotated[int, Field(ge=0, le=2**50)]


class TensorFileError(ValueError):
    """A file is cut, damaged or no .safetensors file."""


class Entry(BaseModel):
    """A tensor in a header: its type, shape, and the range of its bytes after the header."""

    model_config = ConfigDict(extra="forbid", strict=True)

    dtype: str
    shape: Annotated[list[Count], Field(max_length=64)]
    data_offsets: Annotated[list[Count], Field(min_length=2, max_length=2)]

    @property
    def kind(self) -> str:
        return KINDS[self.dtype]

    @property
    def size(self) -> int:
        """Its bytes."""
        bits = self.dtype.lstrip("FIU")
        return math.prod(self.shape) * (SIZES.get(self.dtype) or int(bits) // 8)


ENTRY = TypeAdapter(Entry)


class Header(NamedTuple):
    """The tensors of a file in the order of their bytes, and its metadata."""

    tensors: Mapping[str, Entry]
    metadata: Mapping[str, str]


def header(path: Path) -> Header:
    """Read the header of a file. Raises TensorFileError, OSError."""
    with _opened(path) as file:
        return _header(file)[0]


def load(path: Path) -> tuple[dict[str, "Tensor"], Mapping[str, str]]:
    """Load all tensors of a file, and its metadata.

    Raises:
        TensorFileError: If the file is damaged, or holds tensors of a type unknown here.
        ModelError: If the file is not as it was hashed.
        OSError: If it cannot be read.
    """
    import torch

    def empty(entry: Entry) -> tuple["Tensor", Any]:
        made = torch.empty(entry.size, dtype=torch.uint8)
        view = made.view(getattr(torch, entry.kind)).reshape(entry.shape)
        return view, memoryview(made.numpy())

    return _load(path, empty)


def load_numpy(path: Path) -> dict[str, "np.ndarray"]:
    """Load all tensors of a file as arrays, as `load`; without torch."""
    import numpy as np

    def empty(entry: Entry) -> tuple["np.ndarray", Any]:
        try:
            kind = np.dtype(entry.kind)
        except TypeError as error:
            raise TensorFileError(f"numpy has no type {entry.kind}") from error
        made = np.empty(entry.size, np.uint8)
        return made.view(kind).reshape(entry.shape), memoryview(made)

    return _load(path, empty)[0]


def _load(path: Path, empty: Callable[[Entry], tuple[Any, Any]]) -> Any:
    with _opened(path) as file:
        header, head = _header(file)
        hashed = hashlib.sha256(head)
        tensors = {}
        try:
            for name, entry in header.tensors.items():
                tensors[name], memory = empty(entry)
                _fill(file, memory, hashed)
        except (MemoryError, RuntimeError) as error:  # torch raises the latter
            raise TensorFileError(f"there is too little memory for it: {error}") from error
        if file.read(1):
            raise TensorFileError("it grew while it was read")
    sealed.note(path, hashed.hexdigest())
    return tensors, header.metadata


@contextmanager
def _opened(path: Path) -> Iterator[FileIO]:
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe would block
    with FileIO(handle) as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise TensorFileError("it is no plain file")
        yield file


def _fill(file: FileIO, memory: memoryview, hashed: Any) -> None:
    """Read as many bytes as the memory has, and hash them."""
    for start in range(0, len(memory), PIECE):
        piece = memory[start : start + PIECE]
        done = 0
        while done < len(piece):
            count = file.readinto(piece[done:])
            if not count:
                raise TensorFileError("it is cut")
            done += count
        hashed.update(piece)


def _header(file: FileIO) -> tuple[Header, bytes]:
    """Read and check a header, and return it with its bytes."""
    size = os.fstat(file.fileno()).st_size
    count = file.read(8)
    length = int.from_bytes(count, "little")
    if count == POINTER[:8]:
        raise TensorFileError(f"it is {OF_LFS}")
    if len(count) < 8 or length > min(MOST, size - 8):
        raise TensorFileError("it is cut, or no .safetensors file")
    text = bytearray(length)
    _fill(file, memoryview(text), hashlib.sha256())
    try:
        entries = json.loads(text, object_pairs_hook=_once)
        metadata = entries.pop("__metadata__", None) or {}
        if not all(isinstance(value, str) for value in metadata.values()):
            raise TensorFileError("its metadata are no texts")
        found = {name: ENTRY.validate_python(entry) for name, entry in entries.items()}
    except ValidationError as error:
        raise TensorFileError(f"its header is damaged: {error.errors()[0]['msg']}") from error
    except (ValueError, AttributeError, RecursionError) as error:
        raise TensorFileError(f"its header is damaged: {error}") from error
    tensors = dict(sorted(found.items(), key=lambda item: item[1].data_offsets))
    _require_whole(tensors, size - 8 - length)
    return Header(tensors, metadata), count + bytes(text)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise TensorFileError("a name stands twice")
    return made


def _require_whole(tensors: Mapping[str, Entry], size: int) -> None:
    """Raise TensorFileError unless the tensors cover the file's bytes, each once."""
    here = 0
    for name, entry in tensors.items():
        if entry.dtype not in KINDS:
            raise TensorFileError(f"{name[:64]} has the type {entry.dtype[:16]}, unknown here")
        if entry.data_offsets != [here, here + entry.size]:
            raise TensorFileError(f"{name[:64]} does not lie where its shape and type say")
        here += entry.size
    if here != size:
        raise TensorFileError(f"it is cut or damaged: {size:,} bytes of tensors, not {here:,}")
    if size > LARGE:
        import psutil

        if size > psutil.virtual_memory().total:
            raise TensorFileError(f"its {size:,} bytes are more than this machine's memory")
