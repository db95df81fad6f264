"""Load the folders that `restore export` writes for ONNX Runtime; torch only if necessary."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore.checkpoints import configs, lazy_stack, manifest
from restore.checkpoints.locks import one_at_a_time
from restore.onnx import session
from restore.onnx.stage import OnnxNetwork, OnnxStage
from restore.storage import sealed

if TYPE_CHECKING:
    from restore.checkpoints.arguments import Model
    from restore.diffusion.stack import Stack
    from restore.pixel.model import PixelModel


@sealed.sealing()
def load(name: str) -> "Model":
    """Load an exported folder. If it has a first stage, the rest is loaded when a task needs it.

    Raises:
        ModelError: If onnxruntime is missing, or the folder is damaged.
    """
    session.import_onnxruntime()
    path, digest = manifest.find_model(name)
    if configs.about(path).pixels:
        return pixels(path, name, digest)
    if not lazy_stack.has_first_stage(path):
        return stack(path, name, digest)
    with manifest.unchanged(path, digest):
        first = first_stage(path)
    made = lazy_stack.about(path, first, name, digest, partial(stack, path, name, digest))
    made.engine = "onnx"
    return made


def first_stage(folder: Path) -> OnnxStage | None:
    """Load the first stage of a folder; None if it has none. Raises ModelError."""
    if not sealed.is_dir(folder / "restorer"):
        return None
    fusion = None
    if sealed.is_dir(folder / "fusion"):
        path = folder / "fusion" / "model.onnx"
        halo = 2 * (configs.first_stage(folder, "fusion").layers + 2)
        fusion = OnnxNetwork(path, session.read(path), halo)
    halo = configs.first_stage(folder, "restorer").layers + 2
    return OnnxStage(folder / "restorer", halo, fusion)


def stack(path: Path, name: str, digest: str) -> "Stack":
    """Load the whole stack: UNet and VAE for ONNX Runtime, text encoders for torch."""
    from restore.checkpoints import load as loading
    from restore.checkpoints import weights

    @one_at_a_time
    def read() -> "Stack":
        loading.silence_libraries()
        return loading.read(
            path, lambda part, _: weights.read_weights(path, part), build, first_stage
        )

    with manifest.unchanged(path, digest):
        made = read()
    made.name, made.digest, made.engine = name, digest, "onnx"
    for part in made.parts:
        part.requires_grad_(False).eval()
    return made


def build(folder: Path, part: str, convert: object) -> Any:
    """Build a UNet or VAE with its config, without weights, that runs the folder's ONNX files."""
    from restore.checkpoints import components
    from restore.onnx import parts

    module = parts.hollow(components.empty(folder, part)[0])
    if part == "unet":
        parts.unet(module, folder / part / "model.onnx")
    else:
        parts.vae(module, folder / part)
    return module


def pixels(path: Path, name: str, digest: str) -> "PixelModel":
    """Load a pixel upscaler with the windows that it had at its export."""
    from restore.onnx.parts import OnnxPixels
    from restore.pixel.model import PixelModel
    from restore.pixel.windows import PixelWindows

    config = configs.about(path).pixels
    assert config is not None
    place = path / "network" / "model.onnx"
    with manifest.unchanged(path, digest):
        network = OnnxPixels(place, config.scale, config.multiple, config.least)
    model = PixelModel(network, config.scale, name=name, digest=digest, about=config.about)
    model.wants_whole, model.engine = config.wants_whole, "onnx"
    model.bytes_a_pixel = config.bytes_a_pixel
    model.windows = PixelWindows(config.inner, config.margin, config.ramp)
    return model
