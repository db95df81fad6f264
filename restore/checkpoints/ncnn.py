"""Convert ncnn's files of Real-ESRGAN's two networks to tensors with basicsr's names.

A network has two files. NAME.param lists its layers, a line each. NAME.bin holds their weights in
that order (https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from restore.errors import ModelError

MAGIC = "7767517"  # the first line of every .param
HALF = 0x01306B47  # tag of fp16 weights; fp32 weights have tag 0
SILENT = {"Input", "Split", "Concat", "BinaryOp", "Eltwise"}  # layers without weights
READ = (*sorted(SILENT), "Convolution", "PReLU", "PixelShuffle", "Interp")
DENSE = [f"rdb{block}.conv{nth}" for block in (1, 2, 3) for nth in range(1, 6)]
TAIL = ["conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"]


@dataclass(frozen=True)
class Layer:
    """A line of a .param file.

    Attributes:
        kind: The layer's type.
        numbers: Its parameters by their keys.
    """

    kind: str
    numbers: dict[str, str]

    def whole(self, key: str) -> int:
        return int(self.numbers.get(key, 0))


def convert(param: Path) -> dict[str, Tensor]:
    """Convert a .param file and the .bin beside it to weights with spandrel's and basicsr's names.

    Raises:
        ModelError: If a file is missing or cut, or if it is another network.
    """
    layers = read_layers(param)
    for layer in layers:
        if layer.kind not in READ:
            able = "Real-ESRGAN's RRDBNet and SRVGGNetCompact"
            raise ModelError(f"{param}: has a layer {layer.kind}; what is converted is {able}")
    try:
        weights = list(read_weights(param.with_suffix(".bin"), layers))
        state = compact(layers, weights) if is_compact(layers) else rrdb(layers, weights)
    except (ValueError, KeyError, IndexError) as error:
        raise ModelError(f"{param}: is no network of Real-ESRGAN's: {error}") from error
    return {name: torch.from_numpy(part) for name, part in state.items()}


def read_layers(param: Path) -> list[Layer]:
    """Return the layers of a .param file, in order. Raises ModelError."""
    try:
        lines = param.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError) as error:
        raise ModelError(f"{param}: cannot be read: {error}") from error
    if not lines or lines[0].strip() != MAGIC:
        raise ModelError(f"{param}: is no .param of ncnn's, which begin with {MAGIC}")
    layers = []
    try:
        count = int(lines[1].split()[0])
        for line in lines[2 : 2 + count]:
            kind, _, given, made, *rest = line.split()
            pairs = rest[int(given) + int(made) :]
            layers.append(Layer(kind, dict(pair.split("=", 1) for pair in pairs)))
    except (IndexError, ValueError) as error:
        raise ModelError(f"{param}: line {len(layers) + 3} is no layer; copy it again") from error
    if len(layers) != count:
        raise ModelError(f"{param}: {len(layers)} of {count} layers; it is cut, copy it again")
    return layers


def read_weights(path: Path, layers: list[Layer]) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield (weight, bias) of each convolution and (slope,) of each PReLU, in order.

    Raises:
        ModelError: If the file is missing, or shorter or longer than the layers require.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error
    at = 0

    def taken(count: int, kind: type[np.number]) -> np.ndarray:
        nonlocal at
        size = count * np.dtype(kind).itemsize
        if count < 0 or at + size > len(raw):
            raise ModelError(f"{path}: ends in the middle of its weights; copy it again")
        array = np.frombuffer(raw, kind, count, at).copy()
        at += (size + 3) // 4 * 4
        return array

    for layer in layers:
        if layer.kind == "PReLU":
            yield (taken(layer.whole("0"), np.float32),)
        if layer.kind != "Convolution":
            continue
        outputs, side, count = layer.whole("0"), layer.whole("1"), layer.whole("6")
        if not layer.whole("5") or side != 3 or outputs < 1 or count % (outputs * side * side):
            raise ValueError(f"a convolution of {layer.numbers}")
        tag = int(taken(1, np.uint32)[0])
        if tag not in (0, HALF):
            raise ValueError(f"weights that are stored as {tag:#x}, quantised")
        weight = taken(count, np.float16 if tag else np.float32)
        yield weight.reshape(outputs, -1, side, side), taken(outputs, np.float32)
    if at != len(raw):
        raise ModelError(f"{path}: {len(raw) - at} bytes are left over; copy both files again")


def is_compact(layers: list[Layer]) -> bool:
    return any(layer.kind == "PReLU" for layer in layers)


def compact(layers: list[Layer], weights: list[tuple[np.ndarray, ...]]) -> dict[str, np.ndarray]:
    """Name the weights of SRVGGNetCompact: convolutions and PReLUs in turn."""
    if layers[-1].kind == "Interp":
        raise ValueError(
            "its answer is resized afterwards; take the x4 file of it, for every scale is reached "
            "by a last resize here too"
        )
    kinds = [layer.kind for layer in layers if layer.kind in ("Convolution", "PReLU")]
    if kinds != ["Convolution", "PReLU"] * (len(kinds) // 2) + ["Convolution"]:
        raise ValueError("convolutions and PReLUs do not take turns")
    state = {}
    for nth, held in enumerate(weights):
        names = ("weight", "bias")[: len(held)]
        state |= {f"body.{nth}.{name}": part for name, part in zip(names, held, strict=True)}
    return state


def rrdb(layers: list[Layer], weights: list[tuple[np.ndarray, ...]]) -> dict[str, np.ndarray]:
    """Name the weights of RRDBNet: a convolution, blocks of three times five, five more for x4."""
    if [layer.kind for layer in layers].count("Interp") != 2 or layers[-1].kind != "Convolution":
        raise ValueError("it does not double its input twice")
    count, rest = divmod(len(weights) - 1 - len(TAIL), len(DENSE))
    if count < 1 or rest:
        raise ValueError(f"{len(weights)} convolutions make up no whole blocks")
    body = [f"body.{block}.{name}" for block in range(count) for name in DENSE]
    state = {}
    for name, (weight, bias) in zip(["conv_first", *body, *TAIL], weights, strict=True):
        state |= {f"{name}.weight": weight, f"{name}.bias": bias}
    return state
