"""A first stage by ONNX Runtime, without torch; see restore.diffusion.compact."""

from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path

import numpy as np

from restore.onnx.session import Session, Weights, read, read_weights, with_weights
from restore.storage import sealed

ENDS = "ends.safetensors"  # the weights of both trainings, named rich. and faithful.


class OnnxNetwork:
    """One network of a first stage, loaded at its first use.

    Args:
        path: The file, for messages.
        data: Its bytes.
        halo: How many input pixels to each side an output pixel depends on.
    """

    def __init__(self, path: Path, data: bytes, halo: int):
        self.halo, self._file = halo, (path, data)

    @cached_property
    def _session(self) -> Session:
        return Session(*self._file)

    def answer(self, *rgb: np.ndarray) -> np.ndarray:
        """One or two rgb float32 (1, 3, H, W) in [0, 1] -> rgb, not clamped."""
        return self._session(*map(np.ascontiguousarray, rgb))


class OnnxStage:
    """A restorer in two trainings, with every mixture of them, and a fusion network.

    Args:
        folder: Holds the ONNX file and, if there are two trainings, the weights of both.
        halo: How many input pixels to each side an output pixel of the restorer depends on.
        fusion: For results below twice the input's size.
    """

    def __init__(self, folder: Path, halo: int, fusion: OnnxNetwork | None):
        self.fusion, self._halo = fusion, halo
        self._path = folder / "model.onnx"
        self._data = read(self._path)
        self._ends = read_weights(folder / ENDS) if sealed.is_file(folder / ENDS) else None
        self._mixed: tuple[float, OnnxNetwork] | None = None

    def in_fp32(self) -> AbstractContextManager[None]:
        """It always computes in fp32."""
        return nullcontext()

    def at(self, fidelity: float) -> OnnxNetwork:
        """Return the restorer for a fidelity from 0, the rich one, to 1, the faithful one."""
        fidelity = 0 if self._ends is None else fidelity
        if self._mixed is None or self._mixed[0] != fidelity:
            data = self._data
            if self._ends and fidelity:
                data = with_weights(self._path, data, mixed(self._ends, fidelity))
            self._mixed = fidelity, OnnxNetwork(self._path, data, self._halo)
        return self._mixed[1]


def mixed(weights: Weights, fidelity: float) -> dict[str, np.ndarray]:
    """Interpolate the weights for a fidelity."""
    share, made = np.float32(fidelity), {}
    for name in (name.removeprefix("rich.") for name in weights if name.startswith("rich.")):
        rich, faithful = (
            weights[f"{end}.{name}"].astype(np.float32) for end in ("rich", "faithful")
        )
        made[name] = rich + share * (faithful - rich)
    return made
