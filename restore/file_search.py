"""Find the files that a run works on: its inputs, with all folders below them.

Files are asked about by os.path, which answers no where pathlib raises: the entries of a folder
that may be read but not entered are listed, and each becomes a failed row.
"""

import os
import re
import stat
import tempfile
import unicodedata
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Literal

from restore.errors import UsageError
from restore.files import TEMPORARY
from restore.storage.listing import Found, Listing

JUNK = {"thumbs.db", ".ds_store", "desktop.ini", "ehthumbs.db"}
JUNK_FOLDERS = {"__macosx", "$recycle.bin", "@eadir"}
READ = {  # by name only; the content is checked when a file is read
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".avif", ".gif", ".bmp", ".dib"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".tga"),
}
PICTURES = frozenset(READ | {".heic", ".heif"})  # what every command accepts
KNOWN = READ | {".heic", ".heif", ".jxl", ".jp2", ".psd", ".svg", ".eps", ".pdf"}  # refused by name
SKIPPED = {
    "JUNK": "of the system or hidden, no picture",
    "NOT_A_PICTURE": "its name is not a picture's; name the file itself to have it tried",
    "NOT_A_FILE": "no file: a pipe, a socket, a device, or a folder in a list",
    "LINK": "a link that is broken, or not followed; see --links, or name its target itself",
}
Links = Literal["inside", "skip", "follow"]
BLOCK = 2**20  # bytes of a list that are read at a time
LONGEST = 2**16  # bytes of a name in a list
PICTURE = re.compile(  # how pictures begin, and no list
    rb"\xff\xd8\xff|\x89PNG\r|GIF8[79]a.[\0-\x1f]|II\*\0|MM\0\*|RIFF.{4}WEBP|\0\0\0.ftyp", re.DOTALL
)


def composed(name: str) -> str:
    """A name in the Unicode form of most systems, NFC, to compare it; some macOS disks have NFD."""
    return unicodedata.normalize("NFC", name)


@dataclass(frozen=True)
class Choice:
    """Which of the files that are found are inputs.

    Attributes:
        include: Globs; empty includes all. A glob with a / is compared with the whole key, others
            with the name. * also matches /.
        exclude: Globs of the same kind; of a folder, they leave out all that is below.
        links: inside follows links to files in the same input folder and skips other links. skip
            skips all links. follow also follows links to folders, except those that form a circle.
    """

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    links: Links = "inside"

    def takes(self, key: str) -> bool:
        """Whether a file of this key is an input."""

        def is_left_out(path: str) -> bool:
            return any(_fits(path, glob.rstrip("/")) for glob in self.exclude)

        if self.include and not any(_fits(key, glob) for glob in self.include):
            return False
        folders = (key[: slash.start()] for slash in re.finditer("/", key))
        return not (self.exclude and any(map(is_left_out, (key, *folders))))


def _fits(path: str, glob: str) -> bool:
    return fnmatchcase(path if "/" in glob else path.rpartition("/")[2], glob)


def find(
    inputs: Sequence[Path],
    output: Path,
    choice: Choice = Choice(),
    listed: Iterable[Path] = (),
) -> Listing:
    """Find the files of the inputs, with all folders below them, sorted by their keys.

    An output folder inside an input is left out. A file that is named twice is one input.

    Args:
        inputs: Files and folders.
        output: The output folder.
        choice: Which of the files are inputs.
        listed: Paths from a list. The key of a relative path is the path itself, that of an
            absolute path is the path without its root. A missing file is returned too, so that the
            report has a row for it.

    Raises:
        UsageError: If an input is missing or is the output folder, or if there is no picture.
    """

    found = chain(met(inputs, output, choice.links), map(named, listed))
    return gathered(found, choice, ", ".join(map(str, inputs)))


def met(inputs: Iterable[Path], output: Path, links: Links) -> Iterator[Found]:
    """The files of the inputs as they are met, in no order; see `find`."""
    for given in inputs:
        if not os.path.lexists(given):
            raise UsageError(f"{given}: no such file or folder{_meant(given)}")
        if not os.path.isdir(given):
            yield Found(given, given.name, _unfit(given))
        elif _same(given, output):
            raise UsageError(f"{output}: is the input folder too; give -o another folder")
        else:
            yield from _walk(given, output, links)


def _meant(given: Path) -> str:
    """What a path that is not there may mean, as the end of an error message."""
    if set("*?") & set(given.name):  # the shells of Windows leave patterns as they are
        return f"; name the folder, with --include '{given.name}'"
    other = Path(str(given).replace("\\", "/"))
    return f"; did you mean '{other}'?" if other != given and other.exists() else ""


def named(path: Path) -> Found:
    """The file that a list names."""
    return Found(path, _listed_key(path), _unfit(path))


def gathered(found: Iterable[Found], choice: Choice, names: str) -> Listing:
    """The chosen ones of these files, in order.

    Args:
        names: The inputs, for the error; empty: they are of a list.

    Raises:
        UsageError: If there is no picture.
    """
    places = ((file.url or os.path.abspath(file.path), file) for file in found)
    listing = Listing(places, choice.takes)
    if not listing.has_pictures:
        what = "that is asked for" if listing.met else "here"
        told = f"{names or 'the list'}: no picture {what}"
        odd = next((file for file in listing if file.skip in ("LINK", "NOT_A_FILE")), None)
        if odd:
            told = f"{told}; {odd.path}: {odd.skip}: {SKIPPED[odd.skip]}"
        raise UsageError(told)
    return listing


def read_list(file: BinaryIO) -> Iterator[str]:
    """Read a list of names: one a line, or separated by NUL bytes as `find -print0` writes them.

    Raises:
        UsageError: It is no list.
    """
    with tempfile.TemporaryFile() as kept:  # a pipe can be read only once
        has_nul = False
        while data := file.read(BLOCK):
            has_nul = has_nul or b"\0" in data
            kept.write(data)
        kept.seek(0)
        start = kept.read(16)
        if PICTURE.match(start):
            told = "it is a picture, not a list of names; name its file as an input"
            raise UsageError(f"--list: {told}, since no picture is read from stdin")
        if start.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):  # as PowerShell writes; half is NULs
            raise UsageError("--list: it is text in UTF-16; save it as UTF-8")
        # editors of Windows begin a text with these bytes
        kept.seek(len(BOM_UTF8) if start.startswith(BOM_UTF8) else 0)
        for name in _ended_by_nul(kept) if has_nul else _lines(kept):
            if name:
                yield os.fsdecode(name)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    while piece := file.readline(LONGEST + 1):
        _refuse_long(piece)
        yield from piece.splitlines()


def _ended_by_nul(file: BinaryIO) -> Iterator[bytes]:
    left = b""
    while data := file.read(BLOCK):
        *whole, left = (left + data).split(b"\0")
        _refuse_long(left)
        yield from whole
    yield left


def _refuse_long(name: bytes) -> None:
    if len(name) > LONGEST:
        told = f"it holds a name of more than {LONGEST:,} bytes"
        raise UsageError(f"--list: {told}; a list has a name on each line, or NUL-ended ones")


def _listed_key(path: Path) -> str:
    whole = Path(os.path.abspath(path))
    here = Path.cwd()
    inside = whole.is_relative_to(here) and not path.is_absolute()
    return whole.relative_to(here if inside else whole.anchor).as_posix()


def _walk(top: Path, output: Path, links: Links) -> Iterator[Found]:
    """The files below a folder, in no order: entries are taken as the system tells them."""
    folders = [str(top)]
    while folders:
        here = Path(folders.pop())
        for path, is_folder in _entries(here):
            key = path.relative_to(top).as_posix()
            if path == here:  # it cannot be read; its row in the report fails when it is opened
                yield Found(path, key)
            elif not is_folder:
                skip = _unfit(path) or unlike(path.name) or _unfollowed(path, top, links)
                yield Found(path, key, skip)
            elif os.path.islink(path) and (links != "follow" or _is_circle(path, top)):
                yield Found(path, key, "LINK")
            elif path.name.startswith(".") or path.name.casefold() in JUNK_FOLDERS:
                yield Found(path, key, "JUNK")
            elif not _same(path, output):
                folders.append(str(path))


def _entries(folder: Path) -> Iterator[tuple[Path, bool]]:
    """(path, whether it is a folder) of each entry; the folder itself if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                is_folder = False
                with suppress(OSError):
                    is_folder = entry.is_dir()
                yield folder / entry.name, is_folder
    except OSError:
        yield folder, True


def _is_circle(link: Path, top: Path) -> bool:
    """Whether a link below `top` leads to a folder that it is in."""
    real, folder = os.path.realpath(link), link.parent
    while os.path.realpath(folder) != real:
        if folder == top:
            return False
        folder = folder.parent
    return True


def _unfit(path: Path) -> str:
    """Return why a path cannot be read: a pipe or socket would block, a broken link has no file."""
    try:
        mode = path.stat().st_mode
    except PermissionError:
        return ""  # opening it will say so
    except OSError:
        return "LINK" if os.path.islink(path) else ""
    return "" if stat.S_ISREG(mode) else "NOT_A_FILE"


def unlike(name: str) -> str:
    """Return why a file of this name is skipped; empty if it may be a picture."""
    if name.casefold() in JUNK or name.startswith(("._", TEMPORARY)):
        return "JUNK"
    return "" if Path(name.rstrip(". ")).suffix.casefold() in KNOWN else "NOT_A_PICTURE"


def _unfollowed(path: Path, top: Path, links: Links) -> str:
    if not os.path.islink(path) or links == "follow":
        return ""
    inside = links == "inside" and path.resolve().is_relative_to(top.resolve())
    return "" if inside else "LINK"


def visible(folder: Path) -> list[Path]:
    """List everything below a folder except hidden and system entries, such as thumbnails."""

    def is_shown(name: str) -> bool:
        return not name.startswith(".") and name.casefold() not in JUNK_FOLDERS

    paths = sorted(folder.rglob("*"))
    return [path for path in paths if all(map(is_shown, path.relative_to(folder).parts))]


def visible_files(folder: Path) -> Iterator[Path]:
    """The files that `visible` lists, in no order, so that any number of them takes no memory."""
    folders = [str(folder)]
    while folders:
        here = Path(folders.pop())
        for path, is_folder in _entries(here):
            if path == here or path.name.startswith(".") or path.name.casefold() in JUNK_FOLDERS:
                continue
            if not is_folder and os.path.isfile(path):
                yield path
            elif is_folder and not os.path.islink(path):
                folders.append(str(path))


def _same(one: Path, other: Path) -> bool:
    with suppress(OSError):
        return one.samefile(other)
    return False
