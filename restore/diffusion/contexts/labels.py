"""Shared by contexts with a closed set of labels: numbers of names, and files."""

import difflib
import json
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor, nn

from restore.errors import UsageError
from restore.storage import sealed, tensor_files

FOLDER = "context"
MOST = 2**26  # bytes of a config


def number(prompt: str, labels: Sequence[str]) -> int:
    """Return the number of a label.

    Args:
        prompt: A name, in any case, or a number in digits. "" gives len(labels).
        labels: Names of all labels.

    Raises:
        UsageError: If there is no such label; it suggests the nearest one.
    """
    name = " ".join(prompt.casefold().split())
    if not name:
        return len(labels)
    folded = [label.casefold() for label in labels]
    if name in folded:
        return folded.index(name)
    if name.isdecimal() and int(name) < len(labels):
        return int(name)
    near = difflib.get_close_matches(name, folded, n=1)
    mend = f"did you mean {labels[folded.index(near[0])]!r}?" if near else f"such as {labels[0]!r}"
    raise UsageError(
        f"{prompt!r} is none of this model's {len(labels)} classes; write a name or a number from "
        f"0 to {len(labels) - 1}: {mend}"
    )


def refuse_clip_skip(clip_skip: int, kind: str) -> None:
    if clip_skip:
        raise UsageError(f"clip_skip {clip_skip}: this model reads {kind}, not text; leave it out")


def write(folder: Path, config: dict, module: nn.Module) -> None:
    """Write context/config.json and context/model.safetensors."""
    target = folder / FOLDER
    target.mkdir(parents=True, exist_ok=True)
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = {key: value.contiguous() for key, value in module.state_dict().items()}
    save_file(weights, target / "model.safetensors")


def read(folder: Path) -> tuple[dict, dict[str, Tensor]]:
    target = folder / FOLDER
    config = json.loads(sealed.read(target / "config.json", MOST))
    return config, tensor_files.load(target / "model.safetensors")[0]
