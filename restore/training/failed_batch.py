"""The batch that broke training, kept so that it can be looked at and made again."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import Dataset

from degradations.pair_folder import png
from restore.files import open_up
from restore.training.stage import PairSamples


def keep(folder: Path, batch: object, indices: Sequence[int], samples: Dataset) -> Path:
    """Write the batch as it was used and, for each sample, how it was made, if that is known.

    batch.safetensors holds the tensors, and samples.json the numbers of the samples in the stream.
    hr/000012.png is sample 12 before it was degraded, and traces/000012.json how it was: `restore
    degrade replay TRACE HR -o again.png`.

    Args:
        folder: A new folder.
        batch: The batch.
        indices: Numbers of its samples.
        samples: The stream that they come from.
    """
    folder.mkdir(parents=True, exist_ok=True)
    named = batch if isinstance(batch, dict) else {"batch": batch}
    tensors = {k: v.detach().cpu().contiguous() for k, v in named.items() if _is_tensor(v)}
    save_file(tensors, folder / "batch.safetensors")
    open_up(folder)
    (folder / "samples.json").write_text(json.dumps({"samples": list(indices)}) + "\n")
    if not isinstance(samples, PairSamples):
        return folder
    for index in indices:
        pair = samples.pair(index)
        if pair.trace is None:
            continue
        name = f"{index:06d}"
        for part in ("hr", "traces"):
            (folder / part).mkdir(exist_ok=True)
        (folder / "hr" / f"{name}.png").write_bytes(png(pair.original))
        (folder / "traces" / f"{name}.json").write_text(pair.trace.to_json() + "\n")
    return folder


def _is_tensor(value: object) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided


def describe_numbers(numbers: list[int]) -> str:
    """The evenly spaced sample numbers of a part, in words."""
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
    return f"samples {numbers[0]} to {numbers[-1]}" + (f" in steps of {step}" if step > 1 else "")
