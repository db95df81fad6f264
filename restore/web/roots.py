"""The folders of the server that a client may work on, each named by its root."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from restore.errors import UsageError
from restore.file_search import KNOWN

MOST = 1000  # entries of a folder that are looked at


@dataclass(frozen=True)
class Roots:
    """Allowed folders by name: what lies outside is not there, links that lead out included."""

    folders: dict[str, Path] = field(default_factory=dict)

    @classmethod
    def of(cls, given: Sequence[Path]) -> "Roots":
        """Raises UsageError if one is no folder, or two have one name."""
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
        """The folder, its links resolved. Raises UsageError, the same for all that is not there.

        is_new  it need not be there yet, but may not be the root itself.
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

    def listed(self, root: str, inside: str) -> dict[str, Any]:
        """The folders inside one, and how many pictures are in it. Raises UsageError."""
        path = self.find(root, inside)
        names, pictures = [], 0
        try:
            with os.scandir(path) as entries:
                for number, entry in enumerate(entries):
                    if number >= MOST:
                        break
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        names.append(entry.name)
                    elif Path(entry.name).suffix.casefold() in KNOWN:
                        pictures += 1
        except OSError as error:
            raise UsageError(f"request: {inside!r}: {error.strerror}") from error
        shown = [name for name in sorted(names) if name.isprintable()]
        return {"root": root, "folder": inside, "folders": shown, "pictures": pictures}
