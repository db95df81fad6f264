"""Write networks to ONNX files and compare ONNX Runtime's results with torch's."""

import json
import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel, VQModel
from safetensors.torch import save_file
from torch import Tensor, nn

from restore.diffusion.vae import Vae
from restore.errors import ModelError
from restore.onnx.session import MEND, MOST, opened, weights_path

OPSET = 17  # what ONNX Runtime has read since 2022
CLOSE = 1e-3  # error of ONNX Runtime that the trial accepts, relative to the largest value
Axes = dict[int, str]


class Unet(nn.Module):
    """A UNet with positional inputs.

    They are x (B, C, h, w), timesteps (B,), then context (B, n, width) and class labels (B,) if it
    has them.
    """

    def __init__(self, unet: Any):
        super().__init__()
        self.unet, self.reads_text = unet, isinstance(unet, UNet2DConditionModel)

    def forward(self, x: Tensor, t: Tensor, *more: Tensor) -> Tensor:
        text, labels = more[:1] if self.reads_text else (), more[1:] if self.reads_text else more
        return self.unet(x, t, *text, class_labels=labels[0] if labels else None).sample


class Encoder(nn.Module):
    """rgb in [-1, 1] -> latent, not scaled."""

    def __init__(self, vae: Vae):
        super().__init__()
        self.vae = vae

    def forward(self, signed: Tensor) -> Tensor:
        if isinstance(self.vae, AutoencoderTiny):
            return self.vae.encoder(signed)
        made: Any = self.vae.encode(signed)
        return made.latents if isinstance(self.vae, VQModel) else made.latent_dist.mode()


class Decoder(nn.Module):
    """latent, not scaled -> rgb in [-1, 1]."""

    def __init__(self, vae: Vae):
        super().__init__()
        self.vae = vae

    def forward(self, latent: Tensor) -> Tensor:
        if isinstance(self.vae, AutoencoderTiny):
            return self.vae.decoder(latent)
        return self.vae.decode(latent).sample


def write(
    network: nn.Module,
    path: Path,
    axes: Sequence[Axes],
    example: Callable[[int], tuple[Tensor, ...]],
    name: str,
    trials: int = 2,
) -> None:
    """Write a network to an ONNX file, and compare ONNX Runtime's result with torch's.

    Args:
        network: What is written.
        path: The file.
        axes: For each input the axes of variable length, by name.
        example: Returns inputs for the trial 0, 1, ...; of different sizes where these vary.
        name: Its name in messages.
        trials: How many of them there are.

    Raises:
        ModelError: If it cannot be exported, or the results differ.
    """
    size = sum(part.numel() * part.element_size() for part in network.state_dict().values())
    given = example(0)
    inputs = [f"input{nth}" for nth in range(len(given))]
    try:
        import onnx  # noqa: F401  # torch's exporter uses it
    except ImportError as error:
        raise ModelError(f"exporting needs the package onnx: {MEND} ({error})") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # about tracing; the trial below checks the result
            logging.getLogger("torch.onnx").setLevel(logging.ERROR)
            # The exporter of torch.export needs onnxscript, and gives weights other names.
            torch.onnx.export(
                network,
                given,
                str(path),
                input_names=inputs,
                output_names=["made"],
                dynamic_axes=dict(zip(inputs, axes, strict=True)),
                opset_version=OPSET,
                do_constant_folding=False,  # the weights keep their names
                dynamo=False,
                export_params=size <= MOST,
            )
            if size > MOST:
                _put_beside(network, path, inputs)
    except (MemoryError, OSError):  # the disk's refusals are the caller's to tell
        raise
    except Exception as error:  # the exporter and networks raise anything
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise ModelError(f"{name}: cannot be exported: {reason}") from error
    _compare(network, path, [example(nth) for nth in range(trials)], name)


def _put_beside(network: nn.Module, path: Path, inputs: Sequence[str]) -> None:
    """Write the weights that an ONNX file lacks to a .safetensors file beside it.

    The ONNX file refers to them as external data, by their places in the other file.

    Args:
        network: Has the weights.
        path: The ONNX file. Its weights are inputs so far.
        inputs: Those of its inputs that stay.
    """
    import onnx

    weights = {**dict(network.named_parameters()), **dict(network.named_buffers())}
    model = onnx.load(path)
    missing = [info for info in model.graph.input if info.name not in inputs]
    tensors = {info.name: weights[info.name].detach().contiguous() for info in missing}
    file = weights_path(path)
    save_file(tensors, file)
    header, start = _places(file)
    for info in missing:
        model.graph.input.remove(info)
        entry = model.graph.initializer.add(name=info.name, dims=tensors[info.name].shape)
        entry.data_type = info.type.tensor_type.elem_type
        entry.data_location = onnx.TensorProto.EXTERNAL
        begin, end = header[info.name]["data_offsets"]
        entries = {"location": file.name, "offset": start + begin, "length": end - begin}
        for key, value in entries.items():
            entry.external_data.add(key=key, value=str(value))
    onnx.save(model, path)


def _places(path: Path) -> tuple[dict[str, Any], int]:
    """Return where a .safetensors file has its tensors, and where the first begins."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(length)), 8 + length


def _compare(
    network: nn.Module, path: Path, trials: Sequence[tuple[Tensor, ...]], name: str
) -> None:
    """Raise ModelError if ONNX Runtime's result differs from torch's, at any size."""
    session = opened(path)
    for inputs in trials:
        with torch.inference_mode():
            expected = network(*inputs).numpy()
        try:
            result = session(*(tensor.numpy() for tensor in inputs))
        except ModelError as error:
            problem = f"its ONNX file does not compute {[tuple(tensor.shape) for tensor in inputs]}"
            raise ModelError(f"{name}: cannot be exported: {problem}") from error
        difference = np.abs(result - expected).max() if result.shape == expected.shape else np.inf
        if not difference <= CLOSE * max(1.0, float(np.abs(expected).max())):
            raise ModelError(
                f"{name}: cannot be exported: ONNX Runtime's answer to another size is not torch's"
            )
