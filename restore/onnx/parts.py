"""Parts of a stack with torch's classes and ONNX Runtime's arithmetic.

They keep configs and layers, which decide windows and halos, but no weights.
"""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny, UNet2DConditionModel, VQModel
from torch import Tensor, nn

from restore.diffusion.vae import Vae
from restore.onnx.session import Session, opened

Run = Callable[..., Tensor]


def hollow(module: nn.Module) -> nn.Module:
    """Fill a module that was built without weights with zeros that take no memory."""
    state = {name: _zeros(tensor) for name, tensor in module.state_dict().items()}
    module.load_state_dict(state, assign=True)
    return module


def _zeros(tensor: Tensor) -> Tensor:
    return torch.zeros((), dtype=tensor.dtype).expand(tensor.shape)


def runner(session: Session) -> Run:
    """Return a function from tensors to a tensor. Arguments that are None are left out."""

    def run(*given: Tensor | None) -> Tensor:
        arrays = [one.detach().contiguous().numpy() for one in given if one is not None]
        return torch.from_numpy(session(*arrays))

    return run


def unet(module: Any, path: Path) -> None:
    """Make a UNet compute by an ONNX file; see restore.onnx.traced.Unet."""
    run, reads_text = runner(opened(path)), isinstance(module, UNet2DConditionModel)

    def forward(x: Tensor, t: Tensor, *more: Tensor, class_labels: Tensor | None = None) -> Any:
        moments = torch.as_tensor(t, dtype=torch.float32).expand(len(x))
        text = more[0] if reads_text and more else None
        return SimpleNamespace(sample=run(x, moments, text, class_labels))

    module.forward = forward


class OnnxPixels(nn.Module):
    """A pixel upscaler's network: rgb (1, 3, h, w) -> rgb (1, 3, scale h, scale w).

    The input is padded to the right and below by mirroring, as spandrel does.

    Args:
        path: The ONNX file.
        scale: How much it enlarges.
        multiple: Sides of its input are multiples of this.
        least: The smallest side of its input.
    """

    def __init__(self, path: Path, scale: int, multiple: int = 1, least: int = 0):
        super().__init__()
        self.here = nn.Parameter(torch.zeros(()), requires_grad=False)  # gives the device
        self._run, self._scale = runner(opened(path)), scale
        self._multiple, self._least = multiple, least

    def forward(self, rgb: Tensor) -> Tensor:
        size = rgb.shape[-2:]
        wanted = [-(-max(n, self._least) // self._multiple) * self._multiple for n in size]
        mirrored = [min(big - n, n - 1) for big, n in zip(wanted, size, strict=True)]
        rgb = F.pad(rgb, (0, mirrored[1], 0, mirrored[0]), "reflect")
        rest = [big - n for big, n in zip(wanted, rgb.shape[-2:], strict=True)]
        made = self._run(F.pad(rgb, (0, rest[1], 0, rest[0]), "replicate"))
        return made[..., : size[0] * self._scale, : size[1] * self._scale]


def vae(module: Vae, folder: Path) -> None:
    """Make an autoencoder compute by the ONNX files of a folder; see restore.onnx.traced."""
    encode, decode = (runner(opened(folder / f"{one}.onnx")) for one in ("encoder", "decoder"))
    wrapped: Any = module
    if isinstance(module, AutoencoderTiny):
        wrapped.encoder.forward, wrapped.decoder.forward = encode, decode
        return
    if isinstance(module, VQModel):
        wrapped.encode = lambda signed: SimpleNamespace(latents=encode(signed))
    else:
        wrapped.encode = lambda signed: SimpleNamespace(
            latent_dist=SimpleNamespace(mode=lambda: encode(signed))
        )
    wrapped.decode = lambda latent: SimpleNamespace(sample=decode(latent))
