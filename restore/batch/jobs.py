"""Jobs: which file becomes which result, planned before any work, and which shard does it."""

import hashlib
import itertools
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload

from restore.errors import ImageError, UsageError
from restore.file_search import KNOWN
from restore.files import sha256
from restore.storage.database import TemporaryDatabase, to_bytes, to_text
from restore.storage.listing import Found, kept
from restore.storage.urls import redact_url

OnCollision = Literal["error", "keep-ext"]
DAMAGE = "_damage"  # ends the names of masks that are kept beside results
OVERLAY = "_overlay"  # and of the pictures that show them
LARGEST = 2**30  # bytes of the largest file that is read whole
LONGEST = 255  # bytes of the longest file name that common disks take
SHOWN = 5  # clashes in an error
SCHEMA = """
CREATE TABLE input(real BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE wanted(name BLOB PRIMARY KEY, nth INTEGER, source BLOB) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Job:
    """One file to work on.

    Attributes:
        source: The file; None: a picture made from words.
        key: Its path relative to the input folder, with /. A picture made from words is named by
            its seed.
        target: The file of the result.
        skip: Why the file is left alone, a key of `runner.SKIPPED`; empty: it is not.
        beside: Name endings of what is saved beside the target: _001, ..., or with a suffix.
        others: More files that the result depends on, such as a mask.
        url: Where the source is, if it is remote; `source` then has the URL without secrets.
        size: Bytes, of a URL.
        md5: MD5 of what the URL leads to, if its store lists it.
    """

    source: Path | None
    key: str
    target: Path
    skip: str = ""
    beside: tuple[str, ...] = ()
    others: tuple[Path, ...] = ()
    url: str = ""
    size: int = 0
    md5: str = ""

    @property
    def origin(self) -> str:
        """The source as reports name it: an absolute path, or a URL without secrets."""
        if self.url:
            return redact_url(self.url)
        return os.path.abspath(self.source) if self.source else ""

    @property
    def frames(self) -> list[Path]:
        """The files beside the target, in order: NAME_001.png and so on."""
        own = [Path(ending).suffix or self.target.suffix for ending in self.beside]
        pairs = zip(self.beside, own, strict=True)
        endings = [ending.removesuffix(suffix) + suffix for ending, suffix in pairs]
        stem, name = self.target.stem, self.target.name
        return [self.target.with_name(fitting(stem, name, end) + end) for end in endings]


@dataclass(frozen=True)
class Jobs(Sequence[Job]):
    """The jobs for files. Each is made when it is taken, so that their number takes no memory.

    Attributes:
        files: One for each job.
        make: (place in the files, file) -> the job; the same one each time.
    """

    files: Sequence[Found]
    make: Callable[[int, Found], Job]

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Job]:
        return itertools.starmap(self.make, enumerate(self.files))

    @overload
    def __getitem__(self, index: int) -> Job: ...

    @overload
    def __getitem__(self, index: slice) -> list[Job]: ...

    def __getitem__(self, index: int | slice) -> Job | list[Job]:
        if isinstance(index, slice):
            return [self[nth] for nth in range(*index.indices(len(self)))]
        return self.make(index % max(1, len(self)), self.files[index])

    def changed(self, change: Callable[[int, Job], Job]) -> "Jobs":
        """The jobs, each changed. `change` also gets its place."""
        return Jobs(self.files, lambda nth, file: change(nth, self.make(nth, file)))

    def only(self, takes: Callable[[str], bool]) -> "Jobs":
        """The jobs whose keys are taken; none of them may depend on its place yet."""
        return Jobs(kept(self.files, takes), self.make)


@dataclass(frozen=True)
class Shard:
    """One of `count` equal shares of any set of files; only a file's key decides its share."""

    nth: int = 1  # from 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Read a share, such as `2/3`, the second of three. Raises UsageError."""
        nth, _, count = text.partition("/")
        if nth.isdecimal() and count.isdecimal() and 1 <= int(nth) <= int(count) <= 10**6:
            return cls(int(nth), int(count))
        raise UsageError(f"--shard {text}: write I/N, such as 2/3, with I from 1 to N")

    @property
    def ending(self) -> str:
        """The ending of its reports' names, such as .2-of-3; empty for a single shard."""
        return f".{self.nth}-of-{self.count}" if self.count > 1 else ""

    def holds(self, key: str) -> bool:
        """Whether the file belongs to this shard. Other files make no difference."""
        return file_seed(0, key) % self.count == self.nth - 1


def digest_of(path: Path) -> str:
    """sha256 of a file that a job depends on.

    The size is checked first: a sparse file can have any size, and would take as long to hash.

    Raises:
        OSError: The file cannot be read.
        ImageError: The file is too large, or is a folder that could not be listed.
    """
    if path.is_dir():
        os.listdir(path)  # raises why
        raise ImageError("UNREADABLE", "the folder could not be listed; run the same command again")
    size = path.stat().st_size
    if size > LARGEST and not _is_tiff(path):
        raise ImageError("TOO_LARGE", f"{size >> 20:,} MiB; the limit is {LARGEST >> 20:,}")
    return sha256(path)


def _is_tiff(path: Path) -> bool:
    """Whether a file is a TIFF, which may be read by rows, whatever its size."""
    if path.suffix.casefold() not in (".tif", ".tiff"):
        return False
    with path.open("rb") as file:
        return file.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def file_seed(seed: int, key: str) -> int:
    """A file's own seed, 0 to 2^63 - 1: from the run's seed and its key, not its place in line."""
    text = f"{seed}/{key}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def plan(
    found: Sequence[Found],
    out: Path,
    suffix: Callable[[Path], str],
    beside: tuple[str, ...] = (),
    on_collision: OnCollision = "error",
    only: str = "",
) -> "Jobs":
    """Make a job for each file; `out` gets the same tree of folders as the inputs.

    Args:
        found: The files.
        out: The output folder.
        suffix: Returns the suffix of a source's target, such as ".png".
        beside: Name endings of what each job saves beside its target.
        on_collision: keep-ext: a file whose suffix changes keeps the old one too, as in
            scan.jpg.png, even if no other file has that name. So its name depends on no other file.
        only: The name of the result, if there is only one file.

    Raises:
        UsageError: Two files want one target (case and Unicode form ignored, since some disks
            ignore them), or a target is an input.
    """
    if only and len(found) != 1:
        problem = f"is one file, and there are {len(found)} inputs; give -o a folder"
        raise UsageError(f"{out / only}: {problem}")

    def job(file: Found) -> Job:
        folder, name = os.path.split(file.key)
        name = named(name, suffix(file.path), beside, on_collision == "keep-ext")
        target = out / only if only else out / folder / name
        where = {"url": file.url, "size": file.size, "md5": file.md5}
        return Job(file.path, file.key, target, file.skip, beside, **where)

    jobs = Jobs(found, lambda nth, file: job(file))
    refuse_collisions(jobs)
    return jobs


def named(name: str, suffix: str, beside: tuple[str, ...] = (), keep_ext: bool = False) -> str:
    """The name of a file's result, short enough for common disks."""
    stem = name.rstrip(". ") or name  # which Windows would drop
    own = Path(stem).suffix
    if own.casefold() in KNOWN and not (keep_ext and own.casefold() != suffix):
        stem = stem[: -len(own)]  # but not the .2 of scan.2
    return fitting(stem, name, suffix + max(beside, key=len, default="")) + suffix


def fitting(stem: str, name: str, ending: str) -> str:
    """A stem, cut if a file's name would be too long for common disks with this ending.

    Args:
        stem: The name without its suffix.
        name: The whole name: two long ones must not become the same.
        ending: What follows the stem.
    """
    room = LONGEST - len(os.fsencode(ending))
    if len(os.fsencode(stem)) <= room:
        return stem
    digest = hashlib.blake2b(os.fsencode(name), digest_size=4).hexdigest()
    return os.fsencode(stem)[: room - 9].decode("utf-8", "ignore") + "~" + digest


def refuse_collisions(jobs: Iterable[Job]) -> None:
    """Raise UsageError if two jobs want one file, or one wants the place of an input or a mask.

    Args:
        jobs: They are gone through twice.
    """
    names = TemporaryDatabase(SCHEMA)
    names.add_all(
        "INSERT OR IGNORE INTO input VALUES (?)",
        (
            (to_bytes(os.path.realpath(path)),)
            for job in jobs
            for path in (job.source, *job.others)
            if path
        ),
    )
    clashes, count = [], 0
    for nth, job in enumerate(jobs):
        for path in [] if job.skip else [job.target, *job.frames]:
            wanted = to_bytes(_folded(path)), nth, to_bytes(str(job.source))
            if not names.run("INSERT OR IGNORE INTO wanted VALUES (?, ?, ?)", *wanted):
                first = names.one("SELECT nth, source FROM wanted WHERE name = ?", wanted[0])
                assert first
                if first[0] != nth:
                    count += 1
                    message = f"{to_text(first[1])} and {job.source} would both become {path}"
                    clashes = [*clashes, message][:SHOWN]
            if names.one("SELECT 1 FROM input WHERE real = ?", to_bytes(os.path.realpath(path))):
                raise UsageError(f"{path}: a result would replace it; give another -o")
    if clashes:
        more = f"\nand {count - SHOWN} more" if count > SHOWN else ""
        mend = (
            "rename one of each pair, or give them -o folders of their own; where only the "
            "extensions differ, --on-collision keep-ext keeps them in the results' names"
        )
        raise UsageError("\n".join(clashes) + more + f"\n{mend}")


def _folded(path: Path) -> str:
    """A name as disks compare it that ignore case and Unicode form."""
    return unicodedata.normalize("NFC", str(path)).casefold()


def short_digest(key: str) -> str:
    """A short digest of a key, for the names of files that belong to it."""
    return hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
