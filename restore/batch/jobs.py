"""Jobs: which file becomes which, planned before any work, and which shard does it."""

import hashlib
import os
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from restore.batch.urls import shown
from restore.errors import ImageError, UsageError
from restore.file_search import KNOWN, Found
from restore.files import sha256

OnCollision = Literal["error", "keep-ext"]
DAMAGE = "_damage"  # ends the names of masks that are kept beside results
OVERLAY = "_overlay"  # and of the pictures that show them
LARGEST = 2**30  # bytes of a file that is read whole
LONGEST = 255  # bytes of a file's name, on any disk in use


@dataclass(frozen=True)
class Job:
    """One file to work on."""

    source: Path | None  # None: a picture made from words, its seed in the key
    key: str  # path relative to the input folder, with /
    target: Path
    skip: str = ""  # why it is left alone: a key of batch.SKIPPED
    # stems' endings of what is kept beside the target: _001, ...; or with a suffix of their own
    beside: tuple[str, ...] = ()
    others: tuple[Path, ...] = ()  # files that the result depends on as well, such as a mask
    url: str = ""  # where the source lies, if that is no disk; `source` is then how it is told
    size: int = 0  # bytes, of a URL

    @property
    def origin(self) -> str:
        """The source as reports tell it: it is found from any folder."""
        if self.url:
            return shown(self.url)
        return os.path.abspath(self.source) if self.source else ""

    @property
    def frames(self) -> list[Path]:
        """NAME_001.png and so on, in order."""
        names = [self.target.stem + ending for ending in self.beside]
        own = [Path(ending).suffix or self.target.suffix for ending in self.beside]
        pairs = zip(names, own, strict=True)
        return [self.target.with_name(name.removesuffix(end) + end) for name, end in pairs]


@dataclass(frozen=True)
class Shard:
    """One of `count` equal shares of any set of files, told by their keys alone."""

    nth: int = 1  # from 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """`2/3` is the second of three. Raises UsageError."""
        nth, _, count = text.partition("/")
        if nth.isdecimal() and count.isdecimal() and 1 <= int(nth) <= int(count) <= 10**6:
            return cls(int(nth), int(count))
        raise UsageError(f"--shard {text}: write I/N, such as 2/3, with I from 1 to N")

    @property
    def ending(self) -> str:
        """Of the names of its own reports: nothing where there is one shard."""
        return f".{self.nth}-of-{self.count}" if self.count > 1 else ""

    def holds(self, key: str) -> bool:
        """Whether the file is this shard's: whatever files there are beside it."""
        return file_seed(0, key) % self.count == self.nth - 1


def digest_of(path: Path) -> str:
    """sha256 of a file that a job depends on. Raises OSError; ImageError if it cannot be taken.

    Its size is asked first: a file of holes can be of any size, and hashing it takes as long.
    """
    size = path.stat().st_size
    if size > LARGEST and not _is_tiff(path):
        raise ImageError("TOO_LARGE", f"{size >> 20:,} MiB; the limit is {LARGEST >> 20:,}")
    return sha256(path)


def _is_tiff(path: Path) -> bool:
    """Whether it may be read by rows, however large it is."""
    if path.suffix.casefold() not in (".tif", ".tiff"):
        return False
    with path.open("rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def file_seed(seed: int, key: str) -> int:
    """A file's own seed, 0 to 2^63 - 1: a function of its key, not of its place in the queue."""
    text = f"{seed}/{key}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def plan(
    found: Sequence[Found],
    out: Path,
    suffix: Callable[[Path], str],
    beside: tuple[str, ...] = (),
    on_collision: OnCollision = "error",
    only: str = "",
) -> list[Job]:
    """A job for each file, the tree of the inputs mirrored in `out`.

    suffix        the target's suffix for a source, such as ".png".
    beside        what each job keeps beside its target.
    on_collision  keep-ext: a file whose suffix changes keeps the old one too, scan.jpg.png, whether
                  or not another one is called so; a result's name is thus its own affair.
    only          the name of the one result, where there is to be one.
    Raises UsageError if two files want one target (on any disk: case and Unicode form aside), or if
    a target is an input.
    """
    if only and len(found) != 1:
        told = f"is one file, and there are {len(found)} inputs; give -o a folder"
        raise UsageError(f"{out / only}: {told}")
    jobs = []
    for file in found:
        folder, name = os.path.split(file.key)
        name = named(name, suffix(file.path), beside, on_collision == "keep-ext")
        target = out / only if only else out / folder / name
        where = {"url": file.url, "size": file.size}
        jobs.append(Job(file.path, file.key, target, file.skip, beside, **where))
    refuse_collisions(jobs)
    return jobs


def named(name: str, suffix: str, beside: tuple[str, ...] = (), keep_ext: bool = False) -> str:
    """The name of the result of a file of that name, short enough for a disk."""
    stem = name.rstrip(". ") or name  # which Windows would drop
    own = Path(stem).suffix
    if own.casefold() in KNOWN and not (keep_ext and own.casefold() != suffix):
        stem = stem[: -len(own)]  # but not the .2 of scan.2
    room = LONGEST - len(os.fsencode(suffix)) - max(map(len, beside), default=0)
    if len(os.fsencode(stem)) > room:  # two long ones must not become one
        digest = hashlib.blake2b(os.fsencode(name), digest_size=4).hexdigest()
        short = os.fsencode(stem)[: room - 9]
        stem = short.decode("utf-8", "ignore") + "~" + digest
    return stem + suffix


def refuse_collisions(jobs: Iterable[Job]) -> None:
    """Raise UsageError if two jobs want one file, or one wants the place of an input."""
    wanted: dict[str, Job] = {}
    clashes = []
    jobs = list(jobs)
    sources = {os.path.realpath(job.source) for job in jobs if job.source}
    for job in jobs:
        for path in [] if job.skip else [job.target, *job.frames]:
            first = wanted.setdefault(folded(path), job)
            if first is not job:
                clashes.append(f"{first.source} and {job.source} would both become {path}")
            if os.path.realpath(path) in sources:
                raise UsageError(f"{path}: a result would replace it; give another -o")
    if clashes:
        more = f"\nand {len(clashes) - 5} more" if len(clashes) > 5 else ""
        mend = (
            "rename one of each pair, or give them -o folders of their own; where only the "
            "extensions differ, --on-collision keep-ext keeps them in the results' names"
        )
        raise UsageError("\n".join(clashes[:5]) + more + f"\n{mend}")


def folded(path: Path) -> str:
    return unicodedata.normalize("NFC", str(path)).casefold()


def short_digest(key: str) -> str:
    """Of a key, for the names of files that belong to it."""
    return hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
