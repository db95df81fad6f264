"""The options of commands that a model works for: which one, where, and in which precision."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from restore.batch import environment
from restore.checkpoints import file_kinds, manifest, places
from restore.errors import ModelError, RestoreError, UsageError, printable
from restore.options import WalkOptions

if TYPE_CHECKING:
    from restore.tasks.run import Model as Loaded

Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"],
    typer.Option(help="auto: the accelerator, if there is one."),
]
Dtype = Annotated[
    Literal["auto", "fp32", "fp16", "bf16"], typer.Option(help="auto: fp32 on the CPU, else bf16.")
]
Offline = Annotated[
    bool, typer.Option("--offline", help="Use no network: only what the hub gave before.")
]


@dataclass(frozen=True)
class Model:
    """What every command is told about the model that does its work; each field is an option."""

    model: Annotated[
        str,
        typer.Option(
            help="One of `restore models list`, a folder, a .safetensors file, an upscaler's .pth, "
            "or a hub id: org/name@revision."
        ),
    ] = "nano"
    device: Device = "auto"
    dtype: Dtype = "auto"
    compiled: Annotated[
        bool,
        typer.Option("--compile", help="Compile the UNet first: minutes once, then quicker steps."),
    ] = False
    offload: Annotated[
        bool,
        typer.Option("--offload", help="Only the part at work is on the accelerator: slower."),
    ] = False
    lora: Annotated[
        list[str] | None, typer.Option("--lora", help="FILE or FILE=SCALE, as often as you like.")
    ] = None
    config_from: Annotated[
        str | None,
        typer.Option(help="A diffusers folder with configs for a single .safetensors file."),
    ] = None
    offline: Offline = False
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read the tensors of .ckpt and .bin files too.")
    ] = False

    @property
    def is_pixel(self) -> bool:
        """Whether it is a file of one network from rgb to rgb. Raises ModelError."""
        file = places.place_of(self.model)
        return not self.config_from and file.is_file() and file_kinds.is_pixel(file)

    @property
    def precision(self) -> dict[str, object]:
        """What of this decides the pixels, beside the weights."""
        told: dict[str, object] = {"dtype": self.dtype}
        if self.compiled:
            told["compiled"] = True
        if self.device != "auto":  # by which auto settles the precision
            told["device"] = self.device
        if self.config_from:
            told["config_from"] = self.config_from
        return told

    @property
    def loras(self) -> list[tuple[str, float]]:
        """(file, scale) of each. Raises UsageError."""
        found = []
        for given in self.lora or ():
            file, equals, scale = given.rpartition("=")
            try:
                found.append((file, float(scale)) if equals else (given, 1.0))
            except ValueError as error:
                mend = "write FILE=SCALE, such as a.safetensors=0.8"
                raise UsageError(f"--lora {given}: {mend}") from error
        return found

    def open(self, options: WalkOptions) -> tuple[Callable[[], "Loaded"], str]:
        """Loads the model at the first call, since torch takes seconds; and the weights' digest.

        Raises ConfigError if the options ask for a walk that it cannot take.
        """
        environment.require()
        place, weights = manifest.find_model(
            self.model, offline=self.offline, allow_pickle=self.allow_pickle
        )
        if self.config_from and not place.is_file():
            raise UsageError(f"--config-from: {self.model} is a folder and has configs of its own")

        asks = options.steps or options.sampler != "ddim" or options.sampler_options
        if asks and place.is_dir():
            from restore.checkpoints import walks  # which loads diffusers

            walks.refuse(place, options)

        digest = manifest.with_loras(weights, self.loras)

        @cache
        def stack() -> "Loaded":
            from restore.checkpoints.devices import load
            from restore.diffusion import torchvision

            if told := torchvision.complaint():
                print(f"restore: {printable(told)}", file=sys.stderr)
            try:
                more = {"compiled": self.compiled, "offload": self.offload, "loras": self.loras}
                more |= {"offline": self.offline, "allow_pickle": self.allow_pickle}
                made = load(self.model, self.device, self.dtype, config=self.config_from, **more)
                if getattr(made, "digest", "") not in ("", digest):
                    raise ModelError(f"{self.model}: changed since the run began; run it again")
                return made
            except (RestoreError, MemoryError):
                raise
            except Exception as error:  # else every file would try the same again
                told = f"{self.model}: cannot be loaded: {type(error).__name__}: {error}"
                raise ModelError(told) from error

        return stack, digest
