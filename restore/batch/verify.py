"""Check a folder of results, pairs, checkpoints or a model against its own records.

Nothing is changed. Each check yields a `Finding` for each thing, whole or not.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from restore.batch.journal import HIDDEN, Journal, reports
from restore.batch.rows import Row, results
from restore.batch.store import output_folder, reports_of
from restore.checkpoints import manifest
from restore.errors import RestoreError, UsageError
from restore.files import is_temporary, read_plain, sha256

if TYPE_CHECKING:
    import numpy as np

PAIRS = "pairs.json"
STEPS = "step_*"
WHOLE, CHANGED, MISSING, MOVED, LEFT = "whole", "changed", "missing", "moved", "left over"
ADDED = "added"
BAD = (CHANGED, MISSING, ADDED)  # MOVED and LEFT are reported, but are no failure


Replay = Callable[[Path, "np.ndarray"], "np.ndarray"]
"""(a file with a trace, hr) -> lr; raises RestoreError"""


@dataclass(frozen=True)
class Finding:
    """The state of one thing that a record names.

    Attributes:
        what: result, source, pair, file or model.
        path: Where it is.
        state: whole, changed, missing, added, moved or left over.
        why: The reason, if there is more to say.
    """

    what: str
    path: str
    state: str
    why: str = ""


def verify(target: Path, replayed: Replay) -> Iterator[Finding]:
    """Check results, pairs, checkpoints or a model.

    Args:
        target: A folder of any of these; or a result that `-o FILE` named.
        replayed: Makes a pair's bad picture again from its trace.

    Raises:
        UsageError: It is none of these.
    """
    if own := reports(reports_of(target)):
        return _results(own[0].parent)
    if not target.is_dir():
        raise UsageError(f"{target}: no such folder; name an output folder or a model")
    if reports(target) or reports(target / HIDDEN):
        return _results(target)
    if (target / PAIRS).is_file():
        return _pairs(target, replayed)
    lists = [path.parent for path in sorted(target.glob(f"{STEPS}/{manifest.NAME}"))]
    lists += [target / "export"] if (target / "export" / manifest.NAME).is_file() else []
    if lists:
        return (finding for folder in lists for finding in listed(folder))
    if (target / manifest.NAME).is_file():
        return listed(target)
    raise UsageError(
        f"{target}: holds neither a report.jsonl, a pairs.json, checkpoints nor a model's manifest"
    )


def is_known(target: Path) -> bool:
    """Whether it is a result that `-o FILE` named, there or missing."""
    return bool(reports(reports_of(target)))


def _results(home: Path) -> Iterator[Finding]:
    """Check the results of a folder's reports."""
    out = output_folder(home)
    journal = Journal(out, "", "", home=home)
    for _, made in journal.standing():
        for name, digest in made.items():
            yield _compare("result", out / name, digest)
    for row in journal.latest_rows():
        if row["status"] == "done":
            if not results(row):
                yield Finding("result", row["output"], MOVED, "of a report put together elsewhere")
            yield from _source(row)
    for path in sorted(out.rglob(".restore-*") if out == home else out.glob(".restore-*")):
        if is_temporary(path):
            yield Finding("file", str(path), LEFT, "in the making; the next run removes it")


def _source(row: Row) -> Iterator[Finding]:
    """Check the source of a result; if it was moved or deleted, the result is still whole."""
    digest = row.get("picture_sha256") or row.get("source_sha256")
    if not row.get("source") or not digest:
        return
    path = Path(row["source"])
    if not path.exists():
        yield Finding("source", str(path), MOVED, "is not there any more")
        return
    yield _compare("source", path, digest)


def _compare(what: str, path: Path, digest: str) -> Finding:
    try:
        found = sha256(path)
    except (FileNotFoundError, NotADirectoryError):
        return Finding(what, str(path), MISSING)
    except OSError as error:
        return Finding(what, str(path), CHANGED, f"cannot be read: {error.strerror or error}")
    is_same = found == digest
    return Finding(what, str(path), WHOLE if is_same else CHANGED)


def _pairs(out: Path, replayed: Replay) -> Iterator[Finding]:
    """Check pairs of `restore degrade apply`: each is made again from its trace."""
    try:
        content = json.loads(read_plain(out / PAIRS, 2**20))
        if not isinstance(content, dict):
            raise ValueError("it holds no object")
        yield Finding("file", str(out / PAIRS), WHOLE)
    except (OSError, ValueError, RecursionError) as error:
        yield Finding("file", str(out / PAIRS), CHANGED, str(error))
    names = {path.stem for path in (out / "traces").glob("*.json")}
    for folder in ("hr", "lr"):
        names |= {path.stem for path in (out / folder).glob("*.png")}
    for name in sorted(names):
        yield _pair(out, name, replayed)


def _pair(out: Path, name: str, replayed: Replay) -> Finding:
    from restore.images import picture, sandbox

    lacking = [
        f"{folder}/{name}{suffix}"
        for folder, suffix in (("hr", ".png"), ("lr", ".png"), ("traces", ".json"))
        if not (out / folder / f"{name}{suffix}").is_file()
    ]
    if lacking:
        return Finding("pair", str(out / lacking[0]), MISSING)
    try:
        hr, lr = (picture.to_rgb8(sandbox.read(out / f / f"{name}.png")) for f in ("hr", "lr"))
        again = replayed(out / "traces" / f"{name}.json", hr)
    except RestoreError as error:
        return Finding("pair", name, CHANGED, str(error))
    is_same = again.shape == lr.shape and bool((again == lr).all())
    why = "" if is_same else "its trace makes another picture of hr"
    return Finding("pair", str(out / "lr" / f"{name}.png"), WHOLE if is_same else CHANGED, why)


def listed(folder: Path) -> Iterator[Finding]:
    """Check every file that a manifest lists, and find those that it does not."""
    path = folder / manifest.NAME
    try:
        names = manifest.read(read_plain(path, 2**24))
        strange = manifest.unlisted(folder)
    except FileNotFoundError:
        told = "the list of the model's files: without it nothing can be checked"
        yield Finding("file", str(path), MISSING, told)
        return
    except OSError as error:
        yield Finding("file", str(path), CHANGED, f"cannot be read: {error.strerror or error}")
        return
    except ValueError as error:
        yield Finding("file", str(path), CHANGED, str(error))
        return
    for name, digest in sorted(names.items()):
        yield _compare("file", folder / name, digest)
    for extra in strange:
        is_taken = manifest.is_loaded(folder, extra)
        why = "is not in the manifest" + ", and would be loaded" * is_taken
        yield Finding("file", str(extra), ADDED if is_taken else LEFT, why)


def is_whole(findings: Iterable[Finding]) -> bool:
    return all(finding.state not in BAD for finding in findings)
