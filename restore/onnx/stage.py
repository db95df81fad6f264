"""A first stage's networks by ONNX Runtime; free of torch. See restore.diffusion.compact."""

from functools import cached_property
from pathlib import Path

import numpy as np

from restore.errors import ModelError
from restore.onnx.session import Session, read, with_weights

ENDS = "ends.safetensors"  # the weights of both trainings, named rich. and faithful.
Weights = dict[str, np.ndarray]


class OnnxNetwork:
    """One network of a first stage, made ready when it is first asked.

    halo  how many pixels of the input a pixel sees to each side.
    """

    def __init__(self, path: Path, data: bytes, halo: int):
        self.halo, self._file = halo, (path, data)

    @cached_property
    def _session(self) -> Session:
        return Session(*self._file)

    def answer(self, *rgb: np.ndarray) -> np.ndarray:
        """rgb float32 (1, 3, H, W) in [0, 1], one or two -> rgb, not clamped"""
        return self._session(*map(np.ascontiguousarray, rgb))


class OnnxStage:
    """A restorer in two trainings and every point between them; a fusion beside them."""

    def __init__(self, folder: Path, halo: int, fusion: OnnxNetwork | None):
        self.fusion, self._halo = fusion, halo
        self._path = folder / "model.onnx"
        self._data = read(self._path)
        self._ends = ends(folder / ENDS) if (folder / ENDS).is_file() else None
        self._made: tuple[float, OnnxNetwork] | None = None

    def at(self, fidelity: float) -> OnnxNetwork:
        """The restorer at a fidelity from 0, the rich one, to 1, the faithful one."""
        fidelity = 0 if self._ends is None else fidelity
        if self._made is None or self._made[0] != fidelity:
            data = self._data
            if self._ends and fidelity:
                data = with_weights(self._path, data, mixed(self._ends, fidelity))
            self._made = fidelity, OnnxNetwork(self._path, data, self._halo)
        return self._made[1]


def ends(path: Path) -> Weights:
    """The weights of both trainings. Raises ModelError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path}: cannot be read, export it again: {error}") from error


def mixed(held: Weights, fidelity: float) -> Weights:
    """The weights at a fidelity."""
    share, made = np.float32(fidelity), {}
    for name in (name.removeprefix("rich.") for name in held if name.startswith("rich.")):
        rich, faithful = (held[f"{end}.{name}"].astype(np.float32) for end in ("rich", "faithful"))
        made[name] = rich + share * (faithful - rich)
    return made
