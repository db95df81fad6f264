"""The options of commands that use a model: which one, on which device, in which precision."""

import sys
from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from restore.batch.models import OpenedModel, open_model, parse_lora
from restore.errors import printable
from restore.options import WalkOptions

Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"],
    typer.Option(
        help="auto: the accelerator, if there is one. CUDA_VISIBLE_DEVICES chooses a card."
    ),
]
Dtype = Annotated[
    Literal["auto", "fp32", "fp16", "bf16"],
    typer.Option(help="auto: fp32 on the CPU, else bf16, which some CPUs compute faster too."),
]
Engine = Annotated[
    Literal["torch", "onnx"],
    typer.Option(help="What computes the networks; onnx takes a folder of `restore export`."),
]
Offline = Annotated[
    bool, typer.Option("--offline", help="Use no network: only what the hub gave before.")
]


@dataclass(frozen=True)
class Model:
    """The options of every command that uses a model; each field is an option."""

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
    engine: Engine = "torch"
    lora: Annotated[
        list[str] | None, typer.Option("--lora", help="FILE or FILE=SCALE, as often as you like.")
    ] = None
    config_from: Annotated[
        str | None,
        typer.Option(help="A diffusers folder with configs for a single .safetensors file."),
    ] = None
    controlnet: Annotated[
        str | None,
        typer.Option(help="FOLDER or hub id: a ControlNet for the model; tile ones enlarge."),
    ] = None
    controlnet_scale: Annotated[
        float, typer.Option(help="How much the ControlNet counts; 1 is usual.")
    ] = 1.0
    control_image: Annotated[
        str | None,
        typer.Option(help="FILE that the ControlNet is shown, instead of the picture itself."),
    ] = None
    offline: Offline = False
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read the tensors of .ckpt and .bin files too.")
    ] = False

    @property
    def first(self) -> str:
        """The file of a pixel upscaler that runs first; only `Enlarger` has one."""
        return ""

    @property
    def loras(self) -> list[tuple[str, float]]:
        """(file, scale) of each. Raises UsageError."""
        return [parse_lora(given) for given in self.lora or ()]

    def open(self, options: WalkOptions) -> OpenedModel:
        """Find the model; it loads when the first picture needs it, since torch takes seconds.

        Raises:
            ConfigError: The model cannot do the steps or the sampler that the options ask for.
            ModelError: There is no such model.
        """
        return open_model(
            self.model,
            self.device,
            self.dtype,
            compiled=self.compiled,
            offload=self.offload,
            loras=self.loras,
            config_from=self.config_from,
            offline=self.offline,
            allow_pickle=self.allow_pickle,
            controlnet=self.controlnet,
            controlnet_scale=self.controlnet_scale,
            control_image=self.control_image,
            engine=self.engine,
            first_stage=self.first,
            options=options,
            note=lambda text: print(f"restore: {printable(text)}", file=sys.stderr),
        )


@dataclass(frozen=True)
class Enlarger(Model):
    """The options of `upscale` on its model: those of `Model`, and a first stage."""

    first_stage: Annotated[
        str | None,
        typer.Option(
            help="An upscaler's .pth or .safetensors: the model starts from its result. Without "
            "--steps nano adds nothing to it."
        ),
    ] = None

    @property
    def first(self) -> str:
        return self.first_stage or ""
