"""Load stacks: our folders, diffusers' folders, the hub's, single files."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from torch import nn

from restore.checkpoints import (
    accelerators,
    arguments,
    components,
    configs,
    families,
    file_kinds,
    hub,
    lora,
    manifest,
    single_file,
)
from restore.checkpoints import controlnet as controlnets
from restore.checkpoints.locks import one_at_a_time
from restore.diffusion import contexts, vae
from restore.diffusion.compact import FirstStage
from restore.diffusion.contexts import Context
from restore.diffusion.contexts.text import TextContext
from restore.diffusion.contexts.two_texts import TwoEncoders, TwoTextContext
from restore.diffusion.layouts import X4, layout_of
from restore.diffusion.stack import Stack
from restore.diffusion.tiling import Windows
from restore.errors import ModelError, RestoreError
from restore.storage import sealed

SD_SCALE, X4_SCALE = 0.18215, 0.08333  # 1 / std of the latents
Build = Callable[[Path, str, components.Convert], nn.Module]


@one_at_a_time
@sealed.sealing()
def load(
    name: str,
    device: str = "auto",
    dtype: str = "auto",
    *,
    revision: str | None = None,
    offline: bool = False,
    allow_pickle: bool = False,
    config: str | Path | None = None,
    loras: Sequence[tuple[str | Path, float] | str | Path] = (),
    controlnet: str | Path | None = None,
    controlnet_scale: float = 1.0,
    control_image: str | Path | None = None,
) -> Stack:
    """Load a model that ships with the package, by its name, or any checkpoint.

    Args:
        name: The name of a model that ships; the path of a folder (ours, or a diffusers pipeline's)
            or of a .safetensors file of the SD family; or a hub id, `org/name@revision`.
        device: auto, cpu, cuda, mps. auto takes the accelerator if there is one.
        dtype: fp32, bf16 or fp16: what the UNet and the first stage compute in; the VAE stays in
            fp32. auto is fp32 on the CPU, where it is exact for any batch, and bf16 elsewhere.
        revision: Of a hub id.
        offline: Do not use the network, as HF_HUB_OFFLINE=1. Only a hub id ever needs it.
        allow_pickle: Also read tensors of .ckpt and .bin, by torch's restricted unpickler.
        config: For a single file: the diffusers folder with configs and vocabulary.
        loras: (path, scale) of each to fuse; a path alone has the scale 1.
        controlnet: A folder or a hub id.
        controlnet_scale: Its conditioning scale.
        control_image: Its input; None: the picture that is processed.

    Raises:
        ModelError: If the checkpoint is missing, damaged or of no known layout.
    """
    path, digest = manifest.find_model(name, revision, offline, allow_pickle)
    more = {"offline": offline, "allow_pickle": allow_pickle}
    net, adapters = controlnet and str(controlnet), arguments.parse_loras(loras)
    steering = controlnets.find(net, controlnet_scale, control_image, **more)
    adapted = manifest.with_loras(digest, adapters)
    silence_libraries()
    is_single = path.is_file()
    own = config and str(config)
    stack = read_single(path, own, **more) if is_single else _read_folder(path, allow_pickle)
    stack.name, stack.digest = full_name(name, path), adapted
    if steering:
        controlnets.steer(stack, steering, allow_pickle)
        stack.digest = steering.with_digest(adapted)
    stack.origin = path if path.is_dir() else None
    move(stack, device, dtype)
    _fuse(stack, adapters)
    return stack


def _read_folder(path: Path, allow_pickle: bool) -> Stack:
    return read(path, lambda part, _: components.read_weights(path, part, allow_pickle))


def _fuse(stack: Stack, loras: Sequence[tuple[str, float]]) -> None:
    for number, (file, scale) in enumerate(loras):
        lora.add(stack, file, scale, name=f"lora{number}")
    if loras:
        lora.fuse(stack)


def full_name(name: str, path: Path) -> str:
    """Return a model's name; for the hub with its commit instead of a branch."""
    is_hub = path.parent.name == "snapshots" and not Path(name).exists()
    return f"{name.partition('@')[0]}@{path.name}" if is_hub else name


def read_single(path: Path, config: str | None, *, offline: bool, allow_pickle: bool) -> Stack:
    """Load the stack of a single file, as `read` loads a folder.

    Args:
        path: A .safetensors, or a .ckpt where pickles are allowed.
        config: A diffusers folder or hub id with the configs; None: by the family of the weights.
        offline: Use only what the hub gave before.
        allow_pickle: Read the tensors of pickled files.

    Raises:
        ModelError: The file is of another kind, damaged, or its configs are missing.
    """
    if file_kinds.is_pixel(path) and config is None:
        raise ModelError(f"{path}: is a pixel upscaler; what is asked for here is diffusion's")
    hub.refuse_pickles([path], allow_pickle)
    weights = single_file.read(path)
    folder = single_file.configs_for(path, weights, config, offline)
    hub.digest(folder)  # no part of the model's own, but what is read must stay the same
    stack = read(folder, single_file.converter(weights))
    prediction = stack.schedule.config.prediction_type
    single_file.refuse_other_prediction(path, weights, prediction)
    return stack


def read(
    folder: Path,
    convert: components.Convert,
    build: Build = components.build,
    first_stage: Callable[[Path], FirstStage | None] = components.build_restorer,
) -> Stack:
    """Load the stack of a folder, in fp32 on the CPU.

    Args:
        folder: The model folder.
        convert: Gives the weights of its parts.
        build: Builds its VAE and UNet.
        first_stage: Builds its first stage.
    """
    config = configs.about(folder)
    if config.engine == "onnx" and build is components.build:
        raise ModelError(f"{folder}: is an ONNX export; run it by engine onnx")
    families.refuse(folder)
    vae_part = "vqvae" if sealed.is_dir(folder / "vqvae") else "vae"
    autoencoder: Any = build(folder, vae_part, convert)
    unet: Any = build(folder, "unet", convert)
    layout = layout_of(unet.config, vae.channels(autoencoder), config.trust)
    if layout == X4 and vae.scale(autoencoder) == SD_SCALE:
        # Its first published config lacked the scale; diffusers' pipeline corrects it too.
        autoencoder.register_to_config(scaling_factor=X4_SCALE)
    low = None
    if sealed.is_dir(folder / "low_res_scheduler"):
        low = components.build_scheduler(folder, "low_res_scheduler")
    if layout == X4 and unet.config.num_class_embeds and low is None:
        raise ModelError(
            f"{folder}: an x4 upscaler has a low_res_scheduler; copy that folder as well"
        )
    context = read_context(folder, convert, config.context or "text")
    width = unet.config.get("cross_attention_dim") and isinstance(
        unet, diffusers.UNet2DConditionModel
    )
    if width and context is None:
        raise ModelError(f"{folder}: its unet reads text, but there is no text_encoder; copy it")
    return Stack(
        vae=autoencoder,
        unet=unet,
        context=context if width else None,
        schedule=components.build_scheduler(folder),
        layout=layout,
        windows=Windows(**dict(config.windows)) if config.windows else windows_of(unet.config),
        residual_scale=config.residual_scale,
        low_schedule=low,
        fills=not config.trust if config.fills is None else config.fills,
        steps=config.steps,
        prompts_describe=config.hears,
        restorer=first_stage(folder),
        fidelity=config.fidelity,
        restore_steps=config.restore_steps,
    )


def read_context(folder: Path, convert: components.Convert, kind: str = "text") -> Context | None:
    """Load the context encoder, if the folder has one."""
    if kind != "text":
        try:
            return contexts.load(folder, kind)
        except (RestoreError, MemoryError):
            raise
        except Exception as error:  # a wrong config may raise anything in our classes or torch's
            raise ModelError(f"{folder}: its context cannot be read: {error!r}") from error
    if not sealed.is_dir(folder / "text_encoder"):
        return None
    text = components.build(folder, "text_encoder", convert)
    tokenizer = components.build_tokenizer(folder, text.config.vocab_size)
    if not sealed.is_dir(folder / "text_encoder_2"):
        return TextContext(text, tokenizer)
    second = components.build(folder, "text_encoder_2", convert)
    words = second.config.vocab_size
    tokenizers = tokenizer, components.build_tokenizer(folder, words, "tokenizer_2")
    index = families.read(folder / "model_index.json") or {}
    zeroes = index.get("force_zeros_for_empty_prompt", True) is not False
    return TwoTextContext(TwoEncoders(text, second), tokenizers, zeroes)


def windows_of(unet: Any) -> Windows:
    """Return windows of a foreign UNet's training size, which overlap by a quarter."""
    sizes = unet["sample_size"] or 64
    least = min(sizes) if isinstance(sizes, list | tuple) else sizes
    if not isinstance(least, int):
        raise ModelError(f"its unet's sample_size is {least!r}, not a number of latents")
    step = 2 ** (len(unet["block_out_channels"]) - 1)  # its downsampling factor
    size = max(step, least // step * step)
    return Windows(size, max(step, size * 3 // 4 // step * step))


def move(stack: Stack, device: str, dtype: str) -> None:
    """Move the parts to a device and freeze them."""
    where = torch.device(accelerators.pick() if device == "auto" else device)
    for part in stack.parts:
        part.requires_grad_(False).eval().to(where)
    for part in (stack.vae, stack.unet, *([stack.restorer] if stack.restorer else [])):
        part.to(memory_format=torch.channels_last)
    for layer in stack.vae.modules():
        if isinstance(layer, nn.ReLU):
            layer.inplace = True  # new memory costs page faults, a tenth of the time
    reduced = accelerators.precision(dtype, where)
    for part in (stack.unet, *([stack.control.net] if stack.control else [])):
        part.to(dtype=reduced)
    if isinstance(stack.restorer, FirstStage):
        stack.restorer.precision = reduced


def silence_libraries() -> None:
    """Turn off the libraries' messages about configs and their progress bars."""
    diffusers.utils.logging.set_verbosity_error()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
