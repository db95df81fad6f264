"""Pickle models whose networks cannot be pickled: another process loads them from their files."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from restore.checkpoints import accelerators, engines, model_paths
from restore.checkpoints.arguments import Engine
from restore.diffusion.lazy_stack import LazyStack
from restore.errors import ModelError, UsageError
from restore.pixel.model import PixelModel

if TYPE_CHECKING:
    from restore.checkpoints.arguments import Model


@dataclass(frozen=True)
class Reload:
    """How a model was loaded.

    Attributes:
        name: Its name in messages.
        path: Its file or folder, absolute.
        digest: Of its weights; the other process must find the same.
        device: Where it computes.
        dtype: Precision of a pixel upscaler.
        engine: torch or onnx.
    """

    name: str
    path: str
    digest: str
    device: str
    dtype: str
    engine: Engine

    def load(self) -> Any:
        """Load the model. Raises ModelError if its file is missing or another one."""
        model: Any = engines.load(
            self.path, self.device, self.dtype, engine=self.engine, lazily=True
        )
        if model.digest != self.digest:
            raise ModelError(f"{self.path}: changed since {self.name} was pickled; pickle it again")
        model.name = self.name
        return model


def pack(model: "Model") -> Any:
    """Return what is pickled of a model: itself, or a Reload in place of what cannot be.

    Raises:
        UsageError: If it cannot be loaded again.
    """
    if isinstance(model, PixelModel | LazyStack) or model.engine == "onnx":
        return _reload(model)
    if model.enlarger is None:
        return model
    if model.offload_device is not None:  # its hooks hold the whole stack, first stage included
        raise _refusal(model.name)
    return replace(model, enlarger=_reload(model.enlarger))


def unpack(held: Any) -> "Model":
    """Return the model that `pack` has packed. Raises ModelError."""
    if isinstance(held, Reload):
        return held.load()
    if isinstance(held.enlarger, Reload):
        held.enlarger = held.enlarger.load()
    return held


def _reload(model: "Model") -> Reload:
    path = model_paths.find_path(model.name)
    if not path.exists():
        raise _refusal(model.name)
    is_pixel = isinstance(model, PixelModel)
    dtype = accelerators.named_dtype(model.dtype) if is_pixel else "auto"
    engine: Engine = "onnx" if model.engine == "onnx" else "torch"
    place = str(model.device), dtype, engine
    return Reload(model.name, str(path.resolve()), model.digest, *place)


def _refusal(name: str) -> UsageError:
    return UsageError(f"{name}: cannot be pickled; load it in each process by restore.load")
