"""Only bytes that were hashed are loaded: files are read once more, but never unseen.

Within `sealing`, the first reading of a file notes its SHA-256, and any later reading must find the
same. Loaders read whole files into private memory, so that later edits cannot reach what they got.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from restore import files
from restore.errors import ModelError


class Seals:
    """What is known of the files that are read in a block of `sealing`."""

    def __init__(self) -> None:
        self._digests: dict[str, str] = {}
        self._counted: set[str] = set()  # hashed as part of a digest
        self._answers: dict[Path, bool] = {}

    def digest(self, path: Path) -> str:
        """Return a file's digest, which becomes part of a model's."""
        name = os.path.abspath(path)
        if name not in self._digests:
            self._digests[name] = files.sha256(path)
        self._counted.add(name)
        return self._digests[name]

    def expect(self, path: Path, digest: str) -> None:
        """Note the digest that a file must have, which is part of a model's."""
        self.note(path, digest)
        self._counted.add(os.path.abspath(path))

    def note(self, path: Path, digest: str) -> None:
        """Note what was read. Raises ModelError if the file was something else before."""
        if self._digests.setdefault(os.path.abspath(path), digest) != digest:
            raise changed(path)

    def answer(self, path: Path, is_there: bool) -> None:
        """Note whether a file or folder is there. Raises ModelError if that has changed."""
        if self._answers.setdefault(Path(os.path.abspath(path)), is_there) != is_there:
            raise changed(path)

    def require_complete(self) -> None:
        """Raise ModelError if a file was read that is in no digest, or seemed to be missing."""
        if self._digests.keys() - self._counted:
            path = min(self._digests.keys() - self._counted)
            raise ModelError(
                f"{path}: was loaded, but is not among the files whose digest was taken: it was "
                "added while the model was read; try again"
            )
        held = {place for name in self._counted for place in (Path(name), *Path(name).parents)}
        for path, is_there in self._answers.items():
            if not is_there and path in held:
                raise changed(path)


_current: ContextVar[Seals | None] = ContextVar("seals", default=None)


def changed(path: Path) -> ModelError:
    return ModelError(f"{path}: changed while it was read; try again")


@contextmanager
def sealing() -> Iterator[None]:
    """Make sure that the block loads what it hashes. A block within another one joins it.

    Raises:
        ModelError: If a file that was hashed or read is read again and differs, or if at the end
            one was read that was never hashed, or was missing when it was looked for.
    """
    if _current.get() is not None:
        yield
        return
    seals = Seals()
    token = _current.set(seals)
    try:
        yield
    finally:
        _current.reset(token)
    seals.require_complete()


@contextmanager
def apart() -> Iterator[None]:
    """Leave the block that this one is in, for downloads, by which files appear one by one."""
    token = _current.set(None)
    try:
        yield
    finally:
        _current.reset(token)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file. Raises OSError as files.sha256."""
    seals = _current.get()
    return files.sha256(path) if seals is None else seals.digest(path)


def expect(path: Path, digest: str) -> None:
    """In a block, refuse a file that has not this digest as soon as it is read."""
    if seals := _current.get():
        seals.expect(path, digest)


def note(path: Path, digest: str) -> None:
    """Note the digest of a whole file that was read. Raises ModelError if it was another before."""
    if seals := _current.get():
        seals.note(path, digest)


def read(path: Path, most: int = 2**31) -> bytes:
    """Read the bytes of a regular file, as files.read_plain.

    Raises:
        OSError: As files.read_plain.
        ModelError: If the file is not as it was hashed.
    """
    is_file(path)
    data = files.read_plain(path, most)
    if _current.get():
        note(path, hashlib.sha256(data).hexdigest())
    return data


def is_file(path: Path) -> bool:
    return _answered(path, path.is_file())


def is_dir(path: Path) -> bool:
    return _answered(path, path.is_dir())


def _answered(path: Path, is_there: bool) -> bool:
    if seals := _current.get():
        seals.answer(path, is_there)
    return is_there
