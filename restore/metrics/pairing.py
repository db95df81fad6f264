"""Which restored picture belongs to which original, and what folders make a set of inputs."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from restore import file_search
from restore.errors import UsageError

ORIGINALS = "hr"  # the name of a folder of originals
INPUTS = "lr"  # and beside it that of the inputs, as `restore degrade apply` writes them
LAYOUTS = (
    "a set is a folder with lr/ and hr/, a folder of inputs beside a folder hr/, a folder that "
    "holds hr/ and folders of inputs, or any folder with --reference"
)


@dataclass(frozen=True)
class Paired:
    """A restored picture, its original, and what it was restored from where that is known."""

    key: str  # path relative to the folder, without suffix, with /
    restored: Path
    original: Path
    source: Path | None = None

    @property
    def file_key(self) -> str:
        """The key with the restored picture's suffix, which keys have of themselves where several
        pictures share one without.
        """
        has_it = PurePosixPath(self.key).name == self.restored.name
        return self.key if has_it else f"{self.key}{self.restored.suffix}"


@dataclass(frozen=True)
class Pairs:
    pairs: tuple[Paired, ...]
    unpaired: tuple[Path, ...]  # restored pictures without an original
    missing: tuple[Path, ...]  # originals that no restored picture belongs to


def pair(
    restored: Path,
    originals: Path,
    out: Path | None = None,
    suffix: str = "",
    sources: Path | None = None,
) -> Pairs:
    """Pair two folders by relative path and stem, whatever the format; or two files.

    out      a folder in either that is left out: what this run writes.
    suffix   what the restored names have at their end beyond the originals', such as _out.
    sources  what they were restored from, paired alike; those without one are shown without.
    Raises UsageError if a folder holds no picture or two for one key, or if nothing pairs.
    """
    if restored.is_file() and originals.is_file():
        return Pairs((Paired(originals.stem, restored, originals, sources),), (), ())
    # a.png beside a.jpg in both: then names pair with their extensions
    alike = _doubled(restored, out) & _doubled(originals, out)
    made, wanted = pictures(restored, out, alike), pictures(originals, out, alike)
    if suffix:
        made = _without(suffix, made)
    inputs = pictures(sources, out, alike) if sources else {}
    shared = [key for key in wanted if key in made]
    if not shared:
        mend = "name them alike, or give --suffix what the restored names end with"
        first = next(iter(made.values())).name, next(iter(wanted.values())).name
        raise UsageError(
            f"{restored} and {originals}: no picture of one is in the other ({first[0]}, "
            f"{first[1]}); {mend}"
        )
    return Pairs(
        tuple(Paired(key, made[key], wanted[key], inputs.get(key)) for key in shared),
        tuple(path for key, path in made.items() if key not in wanted),
        tuple(path for key, path in wanted.items() if key not in made),
    )


def _without(suffix: str, made: dict[str, Path]) -> dict[str, Path]:
    """The keys without an end that the originals' have not. UsageError if two become one."""
    found: dict[str, Path] = {}
    for key, path in made.items():
        short = key.removesuffix(suffix)
        if short in found:
            told = f"{found[short]} and {path}: two pictures for {short}"
            raise UsageError(f"{told} by --suffix {suffix}; remove one")
        found[short] = path
    return found


def _doubled(folder: Path, out: Path | None) -> set[str]:
    """Keys that several pictures of a folder have, which differ in their extensions alone."""
    counts = Counter(key for key, _ in _keyed(folder, out))
    return {key for key, count in counts.items() if count > 1}


def _keyed(folder: Path, out: Path | None) -> Iterator[tuple[str, file_search.Found]]:
    for file in file_search.find([folder], out or Path(os.devnull)):
        if not file.skip:
            yield file.key.removesuffix(Path(file.key).suffix), file


def pictures(
    folder: Path, out: Path | None = None, doubled: Set[str] = frozenset()
) -> dict[str, Path]:
    """The pictures of a folder and those below by key: relative path without suffix, with /.

    doubled  keys that keep the suffix, since several pictures have them.
    Raises UsageError if there is none, or if two have one key.
    """
    found: dict[str, Path] = {}
    for stem, file in _keyed(folder, out):
        key = file.key if stem in doubled else stem
        if key in found:
            raise UsageError(f"{found[key]} and {file.path}: two pictures for {key}; remove one")
        found[key] = file.path
    return found


@dataclass(frozen=True)
class PictureSet:
    """Inputs, and the originals that restored ones are held against."""

    name: str
    inputs: Path
    originals: Path


def open_sets(folders: Sequence[Path], originals: Path | None = None) -> list[PictureSet]:
    """The sets that folders name; LAYOUTS says which are understood. Raises UsageError."""
    sets: list[PictureSet] = []
    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder}: no such folder; {LAYOUTS}")
        found = _sets(folder, originals)
        if not found:
            raise UsageError(f"{folder}: is no set; {LAYOUTS}")
        sets += found
    names = [one.name for one in sets]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UsageError(f"two sets are called {', '.join(sorted(twice))}; rename one folder")
    return sets


def _sets(folder: Path, originals: Path | None) -> list[PictureSet]:
    name = folder.resolve().name
    if originals:
        return [PictureSet(name, folder, originals)]
    inner, beside = folder / ORIGINALS, folder.resolve().parent / ORIGINALS
    if inner.is_dir() and (folder / INPUTS).is_dir():
        return [PictureSet(name, folder / INPUTS, inner)]
    if inner.is_dir():
        wanted = {key for key, _ in _keyed(inner, None)}
        return [
            PictureSet(below.name, below, inner)
            for below in sorted(folder.iterdir())
            if below.is_dir() and below != inner and _shares(below, wanted)
        ]
    if beside.is_dir() and name != ORIGINALS:
        return [PictureSet(name, folder, beside)]
    return []


def _shares(folder: Path, keys: Set[str]) -> bool:
    """Whether a folder holds pictures that pair; masks, tables and traces do not."""
    try:
        return any(key in keys for key, _ in _keyed(folder, None))
    except UsageError:
        return False
