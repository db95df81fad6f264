"""Pairing of restored pictures with originals, and sets of inputs found in folders."""

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
class PicturePair:
    """A restored picture and its original.

    Attributes:
        key: Path relative to the folder, without suffix, with "/".
        restored: The restored picture.
        original: The picture to compare it with.
        source: The picture that it was restored from, if there is one.
    """

    key: str
    restored: Path
    original: Path
    source: Path | None = None

    @property
    def file_key(self) -> str:
        """The key with the suffix of the restored picture.

        Keys have it already where several pictures share the key without it.
        """
        has_it = PurePosixPath(self.key).name == self.restored.name
        return self.key if has_it else f"{self.key}{self.restored.suffix}"


@dataclass(frozen=True)
class Pairs:
    """Two folders, paired.

    Attributes:
        pairs: Pictures that both have.
        unpaired: Restored pictures without an original.
        missing: Originals without a restored picture, if a whole folder was restored.
    """

    pairs: tuple[PicturePair, ...]
    unpaired: tuple[Path, ...]
    missing: tuple[Path, ...]


def pair(
    restored: Path,
    originals: Path,
    out: Path | None = None,
    suffix: str = "",
    sources: Path | None = None,
) -> Pairs:
    """Pair two folders by relative path and stem, whatever the format; or two files.

    Args:
        restored: Folder of restored pictures, or one file.
        originals: Folder of originals, or one file.
        out: A folder inside of either that is left out, as this run writes to it.
        suffix: End of the restored names that the originals' names lack, such as "_out".
        sources: Folder of the pictures that were restored; those without one have none.

    Raises:
        UsageError: A folder holds no picture, or two for one key, or nothing pairs.
    """
    if restored.is_file() and originals.is_file():
        return Pairs((PicturePair(originals.stem, restored, originals, sources),), (), ())
    # a.png beside a.jpg in both: then names pair with their extensions
    doubled = _doubled(restored, out) & _doubled(originals, out)
    results, truths = find_pictures(restored, out, doubled), find_pictures(originals, out, doubled)
    if suffix:
        results = _without(suffix, results)
    inputs = find_pictures(sources, out, doubled) if sources else {}
    results, inputs = _spelt_as(truths.keys(), results), _spelt_as(truths.keys(), inputs)
    shared = [key for key in truths if key in results]
    if not shared:
        mend = "name them alike, or give --suffix what the restored names end with"
        examples = next(iter(results.values())).name, next(iter(truths.values())).name
        raise UsageError(
            f"{restored} and {originals}: no picture of one is in the other ({examples[0]}, "
            f"{examples[1]}); {mend}"
        )
    return Pairs(
        tuple(PicturePair(key, results[key], truths[key], inputs.get(key)) for key in shared),
        tuple(path for key, path in results.items() if key not in truths),
        () if restored.is_file() else tuple(truths[key] for key in truths if key not in results),
    )


def _spelt_as(wanted: Set[str], found: dict[str, Path]) -> dict[str, Path]:
    """The pictures by keys as `wanted` spells them, where only their Unicode form differs."""
    spelt = {file_search.composed(key): key for key in wanted}

    def own(key: str) -> str:
        other = spelt.get(file_search.composed(key), key)
        return key if key in wanted or other in found else other

    return {own(key): path for key, path in found.items()}


def _without(suffix: str, results: dict[str, Path]) -> dict[str, Path]:
    """Remove an ending from the keys.

    Raises:
        UsageError: Two keys become the same.
    """
    found: dict[str, Path] = {}
    for key, path in results.items():
        short = key.removesuffix(suffix)
        if short in found:
            both = f"{found[short]} and {path}: two pictures for {short}"
            raise UsageError(f"{both} by --suffix {suffix}; remove one")
        found[short] = path
    return found


def _doubled(folder: Path, out: Path | None) -> set[str]:
    """Find keys shared by several pictures of a folder that differ only in their suffix."""
    counts = Counter(key for key, _ in _keyed(folder, out))
    return {key for key, count in counts.items() if count > 1}


def _keyed(folder: Path, out: Path | None) -> Iterator[tuple[str, file_search.Found]]:
    for file in file_search.find([folder], out or Path(os.devnull)):
        if not file.skip:
            yield file.key.removesuffix(Path(file.key).suffix), file


def find_pictures(
    folder: Path, out: Path | None = None, doubled: Set[str] = frozenset()
) -> dict[str, Path]:
    """Find the pictures in a folder and below.

    Args:
        folder: The folder.
        out: A folder inside that is left out.
        doubled: Keys that keep the suffix, as several pictures share them.

    Returns:
        Pictures by key: the relative path without suffix, with "/".

    Raises:
        UsageError: There is none, or two have the same key.
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
    """A named set of inputs and their originals.

    Attributes:
        name: Name of the set.
        inputs: Folder of pictures to restore.
        originals: Folder of pictures to compare the results with.
    """

    name: str
    inputs: Path
    originals: Path


def open_sets(folders: Sequence[Path], originals: Path | None = None) -> list[PictureSet]:
    """Find the sets in folders; LAYOUTS says which layouts are understood.

    Args:
        folders: Folders with sets.
        originals: Folder of originals, if `folders` are inputs only.

    Raises:
        UsageError: A folder is not a set, or two sets have the same name.
    """
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
    """Whether a folder holds pictures for these keys, unlike masks, tables and traces."""
    try:
        return any(key in keys for key, _ in _keyed(folder, None))
    except UsageError:
        return False
