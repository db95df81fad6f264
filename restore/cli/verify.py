"""`restore verify`: is what was made still there, and still what it was?"""

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from restore.batch import verify as checks
from restore.batch.verify import ADDED, BAD, CHANGED, MISSING, WHOLE, Finding
from restore.checkpoints import manifest, model_paths
from restore.cli.recipe_options import refusals
from restore.errors import counted, printable

if TYPE_CHECKING:
    import numpy as np

SHOWN = 1000  # findings that are not whole
MENDS = {
    (("result", MISSING), ("pair", MISSING)): "what is missing is made by the same run again",
    (("result", CHANGED), ("pair", CHANGED)): "a run leaves alone what was changed: remove it, and "
    "the same run makes it anew",
    (("source", CHANGED),): "a source is another picture now: --exists overwrite makes its result "
    "anew, --exists rename keeps both",
    (("file", CHANGED), ("file", MISSING), ("file", ADDED), ("model", CHANGED)): "take the model, "
    "checkpoint or record anew from where it came from, into an empty folder",
}


def verify(
    given: Annotated[
        list[str],
        typer.Argument(
            metavar="OUT|MODEL",
            help="Output folders, results that -o FILE named, or models as --model takes them.",
        ),
    ],
) -> None:
    """Check results, pairs, checkpoints and models against what was noted when they were made.

    Results, and sources that are still in their place, are checked against the journal's hashes;
    pairs against what their traces make; models and checkpoints against each file of the manifest.
    Nothing is changed. Exit code 1 if something is missing or changed.
    """
    is_whole, bad = True, set[tuple[str, str]]()
    for name in given:
        findings = list(_findings(name))
        faults = [finding for finding in findings if finding.state != WHOLE]
        for finding in faults[:SHOWN]:
            why = f" ({finding.why})" if finding.why else ""
            print(printable(f"{finding.state} {finding.what} {finding.path}{why}"))
        if len(faults) > SHOWN:
            print(f"and {len(faults) - SHOWN} more")
        print(f"{printable(name)}: {_summary(findings)}")
        is_whole &= checks.is_whole(findings)
        bad |= {(finding.what, finding.state) for finding in findings if finding.state in BAD}
    for kinds, mend in MENDS.items():
        if bad & set(kinds):
            print(f"restore: {mend}", file=sys.stderr)
    raise typer.Exit(0 if is_whole else 1)


def _findings(name: str) -> list[Finding]:
    if checks.is_known(Path(name)):
        return list(checks.verify(Path(name), _replayed))
    place = model_paths.find_path(name)
    if place.is_dir() and not (place / "stack.json").is_file():
        if not (place / "model_index.json").is_file():
            return list(checks.verify(place, _replayed))
    elif place.is_dir():
        found = list(checks.listed(place))
        if not checks.is_whole(found):
            return found
        return [*found, *_loads(name)]
    return _loads(name)


def _replayed(trace: Path, hr: "np.ndarray") -> "np.ndarray":
    """The picture that a pair's trace makes from its good one. Raises UsageError."""
    import degradations

    with refusals():
        return degradations.replay(degradations.Trace.load(trace), hr)


def _loads(name: str) -> list[Finding]:
    """Load a model, and check that each tensor is there, without a NaN or an infinity."""
    path, _ = manifest.find_model(name, offline=True)  # before torch is loaded, seconds
    import torch

    from restore.checkpoints import devices

    model = devices.load(name, "cpu", "fp32", offline=True)
    bad = [
        f"{type(part).__name__}.{key}"
        for part in model.parts
        for key, tensor in part.state_dict().items()
        if tensor.is_floating_point() and not torch.isfinite(tensor).all()
    ]
    why = (
        f"{counted(len(bad), 'tensor')} with a NaN or an infinity, the first {bad[0]}"
        if bad
        else ""
    )
    return [Finding("model", str(path), BAD[0] if bad else WHOLE, why)]


def _summary(found: list[Finding]) -> str:
    counts = Counter((one.state, one.what) for one in found)
    parts = [f"{counted(count, what)} {state}" for (state, what), count in sorted(counts.items())]
    return ", ".join(parts) or "nothing to check"
