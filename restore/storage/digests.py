"""Digests of many files, cached with the status of each file: if that changed, it is read again.

The cache is the user's, so a run that continues need not read all photos first.
"""

import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from restore.files import home_folder, read_plain, sha256, write_text

MOST = 2**28  # bytes of the file in which they are kept
LARGEST = 2**30  # bytes of a picture
YOUNG_S = 2  # a file that changed so lately may change again within one tick of its clock
Known = dict[str, list[object]]


def of(paths: Sequence[Path]) -> list[str]:
    """The sha256 of each file, or the reason why it has none.

    Digests are cached in the user's cache folder. A file is read again when its status on the disk
    changed.
    """
    stored = _read()
    now = time.time()

    def one(path: Path) -> tuple[str, list[object] | None]:
        try:
            status = path.stat()
            status_key: list[object] = [
                *(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            ]
            entry = stored.get(os.path.abspath(path))
            if entry and entry[:-1] == status_key and isinstance(entry[-1], str):
                return entry[-1], entry
            if status.st_size > LARGEST and path.suffix.casefold() != ".tar":
                return f"of {status.st_size} bytes", None  # no picture that is read
            digest = _hash(path)
        except OSError as error:
            return f"unreadable {error.errno}", None
        is_young = now - status.st_mtime_ns / 1e9 < YOUNG_S
        return digest, None if is_young else [*status_key, digest]

    with ThreadPoolExecutor() as pool:
        results = list(pool.map(one, paths))
    fresh = {
        os.path.abspath(path): entry
        for path, (_, entry) in zip(paths, results, strict=True)
        if entry and entry is not stored.get(os.path.abspath(path))
    }
    if fresh:
        with suppress(OSError):  # without a cache they are read again
            store = _store()
            store.parent.mkdir(parents=True, exist_ok=True)
            write_text(store, json.dumps({**stored, **fresh}))
    return [digest for digest, _ in results]


def _hash(path: Path) -> str:
    """The sha256 of a file, read twice if need be: a digest stands for what is there for good."""
    try:
        return sha256(path)
    except OSError:
        return sha256(path)


def _store() -> Path:
    return home_folder("cache") / "digests.json"


def _read() -> Known:
    try:
        known = json.loads(read_plain(_store(), MOST))
    except (OSError, ValueError, RecursionError):
        return {}
    is_ours = isinstance(known, dict) and all(isinstance(v, list) and v for v in known.values())
    return known if is_ours else {}
