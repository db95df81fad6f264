"""Folders of the server that clients may read and write, each under a root with a name."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from restore.errors import RestoreError, UsageError
from restore.file_search import KNOWN

MOST = 100_000  # entries of a folder that are looked at: a tenth of a second


@dataclass(frozen=True)
class Roots:
    """Allowed folders. Whatever lies outside does not exist for clients, links out included.

    Attributes:
        folders: Resolved paths by name.
    """

    folders: dict[str, Path] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Sequence[Path]) -> "Roots":
        """Make roots from folders, each named by its last part.

        Raises:
            UsageError: A path is not a folder, or two have the same name.
        """
        folders: dict[str, Path] = {}
        for path in given:
            real = path.resolve()
            if not real.is_dir():
                raise UsageError(f"--root {path}: is no folder")
            name = real.name or "root"
            if name in folders:
                raise UsageError(f"--root {path}: another root is called {name!r} too")
            folders[name] = real
        return cls(folders)

    def find(self, root: str, inside: str, is_new: bool = False) -> Path:
        """Resolve a folder inside a root.

        Args:
            root: Name of the root.
            inside: Path relative to it, with "/".
            is_new: The folder may be missing, but must not be the root itself.

        Raises:
            UsageError: There is no such folder; the text is the same for those outside of the root.
        """
        refused = UsageError(f"request: {inside!r} is no folder of {root!r}")
        parts = PurePosixPath(inside).parts
        if root not in self.folders or "\\" in inside or not inside.isprintable():
            raise refused
        if any(part == ".." or part.startswith(".") or part == "/" for part in parts):
            raise refused
        top = self.folders[root]
        try:
            path = top.joinpath(*parts).resolve()
            if not path.is_relative_to(top) or (path.exists() and not path.is_dir()):
                raise refused
        except (OSError, RuntimeError) as error:  # a name too long, a circle of links
            raise refused from error
        if is_new and path == top:
            raise UsageError("request: out: name a folder for the results")
        if not is_new and not path.is_dir():
            raise refused
        return path

    @contextmanager
    def hiding_paths(self) -> Iterator[None]:
        """Replace the roots' paths by their names, in the texts of errors."""
        try:
            yield
        except RestoreError as error:
            text = str(error)
            for name, path in sorted(self.folders.items(), key=lambda item: -len(str(item[1]))):
                text = text.replace(str(path), name)
            error.args = (text,)
            raise

    def list_folder(self, root: str, inside: str) -> dict[str, Any]:
        """List the folders inside a folder, and count its pictures.

        Of more than MOST entries it tells those of the first, and that there are more.

        Raises:
            UsageError: There is no such folder, or it cannot be read.
        """
        path = self.find(root, inside)
        names, pictures, has_more = [], 0, False
        try:
            with os.scandir(path) as entries:
                for number, entry in enumerate(entries):
                    if number >= MOST:
                        has_more = True
                        break
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        names.append(entry.name)
                    elif Path(entry.name).suffix.casefold() in KNOWN:
                        pictures += 1
        except OSError as error:
            raise UsageError(f"request: {inside!r}: {error.strerror}") from error
        printable = [name for name in sorted(names) if name.isprintable()]
        told = {"root": root, "folder": inside, "folders": printable, "pictures": pictures}
        return {**told, "has_more": has_more}
