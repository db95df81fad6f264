"""The model of a run: found and identified at once, loaded only when the first picture needs it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from restore.batch import environment
from restore.checkpoints import controlnet as controlnets
from restore.checkpoints import file_kinds, manifest, places
from restore.errors import ModelError, RestoreError, UsageError
from restore.options import WalkOptions

if TYPE_CHECKING:
    from restore.tasks.run import Model


@dataclass(frozen=True)
class OpenedModel:
    """A model that is known but need not be in memory yet.

    Attributes:
        name: As the user gave it.
        stack: Loads the model at the first call and returns the same one from then on.
        weights: A digest of all its weights, LoRAs and a ControlNet included.
        precision: What else decides the pixels, such as dtype and device.
        is_pixel: Whether it is one network from rgb to rgb.
        steered: What a ControlNet beside it is, and is told; its digest is in `weights` too.
    """

    name: str
    stack: "Callable[[], Model]"
    weights: str
    precision: dict[str, object]
    is_pixel: bool = False
    steered: dict[str, object] = field(default_factory=dict)

    @property
    def made_by(self) -> dict[str, object]:
        """What makes the pictures, as each result keeps it."""
        return {"model": self.name, "weights": self.weights, **self.precision, **self.steered}


def open_model(
    name: str,
    device: str = "auto",
    dtype: str = "auto",
    *,
    compiled: bool = False,
    offload: bool = False,
    loras: Sequence[tuple[str, float]] = (),
    config_from: str | None = None,
    offline: bool = True,
    allow_pickle: bool = False,
    controlnet: str | None = None,
    controlnet_scale: float = 1.0,
    control_image: str | Path | None = None,
    options: WalkOptions | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> OpenedModel:
    """Find a model and tell what it is made of; its weights load later.

    Args:
        name: A name of `restore models list`, a folder, a weight file or a hub id.
        device: auto, cpu, cuda or mps.
        dtype: auto, fp32, fp16 or bf16.
        compiled: Compile the UNet first.
        offload: Keep only the part at work on the accelerator.
        loras: (file, scale) of each LoRA.
        config_from: A diffusers folder with the configs of a single weight file.
        offline: Fetch nothing from the hub.
        allow_pickle: Read the tensors of pickled files too.
        controlnet: The folder or hub id of a ControlNet that steers the model.
        controlnet_scale: How much it counts; 1 is usual.
        control_image: What it is shown; without it, the picture that is worked on.
        options: Refuse the model now if it cannot do the steps and sampler that they ask for.
        note: Is told what the user should know when the model loads.

    Raises:
        UsageError: The options contradict one another.
        ConfigError: The model cannot be sampled as `options` ask.
        ModelError: There is no such model, or this machine cannot run any.
    """
    environment.require()
    place, weights = manifest.find_model(name, offline=offline, allow_pickle=allow_pickle)
    if config_from and not place.is_file():
        raise UsageError(f"--config-from: {name} is a folder and has configs of its own")
    if options and place.is_dir() and _asks_for_a_walk(options):
        from restore.checkpoints import walks  # which loads diffusers

        walks.refuse(place, options)
    digest = manifest.with_loras(weights, loras)
    more = {"offline": offline, "allow_pickle": allow_pickle}
    steering = controlnets.find(controlnet, controlnet_scale, control_image, **more)
    if steering:
        steering.require(getattr(options, "task", ""))
        digest = steering.with_digest(digest)

    @cache
    def stack() -> "Model":
        from restore.checkpoints.devices import load
        from restore.diffusion import torchvision

        if complaint := torchvision.complaint():
            note(complaint)
        try:
            made = load(
                name,
                device,
                dtype,
                config=config_from,
                compiled=compiled,
                offload=offload,
                loras=loras,
                controlnet=controlnet,
                controlnet_scale=controlnet_scale,
                control_image=control_image,
                **more,
            )
            if getattr(made, "digest", "") not in ("", digest):
                raise ModelError(f"{name}: changed since the run began; run it again")
            return made
        except (RestoreError, MemoryError):
            raise
        except Exception as error:  # else every file would try the same again
            told = f"{name}: cannot be loaded: {type(error).__name__}: {error}"
            raise ModelError(told) from error

    precision: dict[str, object] = {"dtype": dtype}
    if compiled:
        precision["compiled"] = True
    if device != "auto":  # by which auto settles the precision
        precision["device"] = device
    if config_from:
        precision["config_from"] = config_from
    pixel, steered = not config_from and is_pixel(name), steering.told if steering else {}
    return OpenedModel(name, stack, digest, precision, pixel, steered)


def is_pixel(name: str) -> bool:
    """Whether the name leads to a file of one network from rgb to rgb. Raises ModelError."""
    file: Path = places.place_of(name)
    return file.is_file() and file_kinds.is_pixel(file)


def _asks_for_a_walk(options: WalkOptions) -> bool:
    return bool(options.steps or options.sampler != "ddim" or options.sampler_options)
