"""One network of an ONNX file. This module does not import torch."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import wait as waited
from pathlib import Path
from types import MappingProxyType, ModuleType

import numpy as np

from restore.diffusion import watch
from restore.errors import ModelError
from restore.storage import sealed, tensor_files

MOST = 2 * 10**9  # bytes: the largest ONNX file
Weights = Mapping[str, np.ndarray]
MEND = "pip install 'restore-toolkit[onnx]'"


def import_onnxruntime() -> ModuleType:
    """Import onnxruntime. Raises ModelError that says how to install it."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError(f"engine onnx computes by onnxruntime: {MEND} ({error})") from error
    return onnxruntime


def opened(path: Path) -> "Session":
    """Load the network of a file, and the weights beside it, if any. Raises ModelError."""
    beside = weights_path(path)
    return Session(path, read(path), read_weights(beside) if beside.is_file() else {})


def weights_path(path: Path) -> Path:
    """Return where the weights are of an ONNX file that cannot hold them itself."""
    return path.with_suffix(".safetensors")


def read_weights(path: Path) -> dict[str, np.ndarray]:
    """Load the tensors of a .safetensors file. Raises ModelError."""
    try:
        return tensor_files.load_numpy(path)
    except (ValueError, OSError) as error:
        raise ModelError(f"{path}: cannot be read, export it again: {error}") from error


def with_weights(path: Path, data: bytes, weights: Weights) -> bytes:
    """Replace weights in the bytes of an ONNX file.

    ONNX Runtime has a call for this, but it replaces them after its optimiser has used the old
    ones.

    Args:
        path: The file, for messages.
        data: Its bytes.
        weights: New values by name, float32, of the same size.

    Raises:
        ModelError: If the file has no such weights.
    """
    changed = bytearray(data)
    for name, array in weights.items():
        # a TensorProto's fields 8 and 9, as protobuf writes them: name, raw_data
        word, numbers = name.encode(), np.ascontiguousarray(array, "<f4").tobytes()
        head = b"\x42" + _varint(len(word)) + word + b"\x4a" + _varint(len(numbers))
        first = data.find(head) + len(head)
        if first < len(head) or data.find(head, first) >= 0 or first + len(numbers) > len(data):
            raise ModelError(f"{path}: holds no weights {name} of that size; export it again")
        changed[first : first + len(numbers)] = numbers
    return bytes(changed)


def _varint(number: int) -> bytes:
    parts = []
    while number > 127:
        parts.append(number % 128 + 128)
        number //= 128
    return bytes([*parts, number])


def read(path: Path) -> bytes:
    """Read the bytes of a file. Raises ModelError."""
    try:
        return sealed.read(path, MOST)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from error


class Session:
    """A network: arrays in, its first output out.

    Args:
        path: The file, for messages.
        data: Its bytes. ONNX Runtime gets no path, so it opens no other file.
        weights: Those that the file does not hold itself, by name.
    """

    def __init__(self, path: Path, data: bytes, weights: Weights = MappingProxyType({})):
        runtime = import_onnxruntime()
        options = runtime.SessionOptions()
        options.log_severity_level = 4  # its errors are raised anyway
        options.intra_op_num_threads = threads()
        # spinning threads would take the CPU from the codecs of the next file
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._weights = dict(weights)  # which ONNX Runtime uses where they are
        try:
            values = [runtime.OrtValue.ortvalue_from_numpy(one) for one in self._weights.values()]
            if values:
                options.add_external_initializers(list(self._weights), values)
            self._session = runtime.InferenceSession(
                data, options, providers=["CPUExecutionProvider"]
            )
        except MemoryError:
            raise
        except Exception as error:  # ONNX Runtime's errors have no other common base
            reason = str(error).splitlines()[0]
            raise ModelError(f"{path}: cannot be read, export it again: {reason}") from error
        self._path, self._runtime = path, runtime
        self._names = [one.name for one in self._session.get_inputs()]

    def __call__(self, *given: np.ndarray) -> np.ndarray:
        """Run the network.

        Args:
            given: Its inputs, in the order of the file.

        Raises:
            MemoryError: If there is too little memory.
            ModelError: If the network refuses the inputs.
        """
        feed = dict(zip(self._names, given, strict=True))
        options = self._runtime.RunOptions()
        if not watch.is_watched():
            return self._run(feed, options)
        with ThreadPoolExecutor(1) as threads:
            future = threads.submit(self._run, feed, options)
            try:
                while not waited([future], watch.OFTEN_S).done:
                    watch.report_again()
            except BaseException:  # such as Ctrl-C
                options.terminate = True
                raise
            return future.result()

    def _run(self, feed: dict[str, np.ndarray], options: object) -> np.ndarray:
        try:
            return self._session.run(None, feed, options)[0]
        except MemoryError:
            raise
        except Exception as error:  # as above
            reason = str(error).splitlines()[0]
            if "bad_alloc" in reason or "Failed to allocate memory" in reason:
                raise MemoryError(reason) from error
            raise ModelError(
                f"{self._path}: ONNX Runtime could not compute it: {reason}"
            ) from error


def threads() -> int:
    """Return the number of threads that torch would use."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked):
        return int(asked)
    held = getattr(os, "sched_getaffinity", None)  # not on macOS or Windows
    return len(held(0)) if held else os.cpu_count() or 1
