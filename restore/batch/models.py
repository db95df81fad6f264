"""The model of a run: found and identified at once, loaded only when the first picture needs it."""

import hashlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restore.batch import environment
from restore.checkpoints import arguments, configs, engines, file_kinds, manifest, model_paths
from restore.checkpoints import controlnet as controlnets
from restore.errors import ModelError, UsageError
from restore.files import sha256
from restore.images.allocator import keep_freed_memory
from restore.options import InpaintOptions, UpscaleOptions, WalkOptions

if TYPE_CHECKING:
    from restore.checkpoints.arguments import Model


@dataclass(frozen=True)
class OpenedModel:
    """A model that was found and identified, but need not be in memory yet.

    Attributes:
        name: As the user gave it.
        stack: Loads the model at the first call and returns the same one from then on.
        weights: A digest of all its weights, LoRAs, first stage and ControlNet included.
        precision: What else decides the pixels, such as dtype and device.
        is_pixel: Whether it is one network from rgb to rgb.
        steered: The ControlNet and its settings, and the folder of --config-from, as results record
            them; `weights` or `precision` has what they hold.
        pinned: How another process opens the same model; None if none can.
    """

    name: str
    stack: "Callable[[], Model]"
    weights: str
    precision: dict[str, object]
    is_pixel: bool = False
    steered: dict[str, object] = field(default_factory=dict)
    pinned: "PinnedModel | None" = None

    @property
    def made_by(self) -> dict[str, object]:
        """What makes the pictures, as each result records it."""
        return {"model": self.name, "weights": self.weights, **self.precision, **self.steered}

    def for_options(self, options: WalkOptions) -> "OpenedModel":
        """The same model; its precision names what the options blend its results with."""
        has_upscaler = self.is_pixel or "first_stage" in self.precision
        if not (has_upscaler and getattr(options, "fidelity", None)):
            return self
        nano = manifest.find_model(model_paths.FAITHFUL)[1]
        return replace(self, precision={**self.precision, "faithful_sha256": nano})

    def computed_on(self, kind: str) -> "OpenedModel":
        """The same model, as other processes compute on this kind of device if none is named."""
        if self.pinned is None or self.pinned.choice.device != "auto" or "engine" in self.precision:
            return self
        facts = {name: value for name, value in self.precision.items() if name != "device"}
        return replace(self, precision=facts if kind == "cpu" else {**facts, "device": kind})


@dataclass(frozen=True)
class ModelChoice:
    """Which model is wanted, and how it is loaded: values alone, to be sent to other processes.

    Attributes:
        name: A name of `restore models list`, a folder, a weight file or a hub id.
        device: auto, cpu, cuda, cuda:1, mps.
        dtype: auto, fp32, fp16 or bf16.
        compiled: Compile the UNet first.
        offload: Keep only the part that is running on the accelerator.
        loras: (file, scale) of each LoRA.
        config_from: A diffusers folder with the configs of a single weight file.
        offline: Fetch nothing from the hub.
        allow_pickle: Read the tensors of pickled files too.
        controlnet: The folder or hub id of a ControlNet that steers the model.
        controlnet_scale: The strength of the ControlNet; 1 is usual.
        control_image: The picture that the ControlNet gets; None: the picture that is restored.
        engine: torch; or onnx, for a folder that `restore export` wrote.
        first_stage: A pixel upscaler that runs first, in `upscale`; the model refines its result.
    """

    name: str
    device: str = "auto"
    dtype: str = "auto"
    compiled: bool = False
    offload: bool = False
    loras: Sequence[tuple[str, float]] = ()
    config_from: str | None = None
    offline: bool = True
    allow_pickle: bool = False
    controlnet: str | None = None
    controlnet_scale: float = 1.0
    control_image: str | Path | None = None
    engine: engines.Engine = "torch"
    first_stage: str = ""

    def open(
        self,
        options: WalkOptions | None = None,
        note: Callable[[str], None] = lambda text: None,
    ) -> OpenedModel:
        """Find the model and identify its weights, as `open_model` does."""
        environment.require()
        if self.engine == "onnx":  # before the digest, which may take long
            engines.refuse_options(self.device, self.dtype, **self._more())
        how = {"offline": self.offline, "allow_pickle": self.allow_pickle}
        place, weights = manifest.find_model(self.name, **how)
        self._refuse(place, options)
        digest = manifest.with_loras(weights, self.loras)
        steering = controlnets.find(
            self.controlnet, self.controlnet_scale, self.control_image, **how
        )
        if steering:
            steering.require(getattr(options, "task", ""))
            digest = steering.with_digest(digest)
        first_stage = self._first_stage_digest()
        if first_stage:
            digest = engines.combine_digests(digest, first_stage)

        @cache
        def stack() -> "Model":
            return self._load(digest, options, note)

        return OpenedModel(
            self.name,
            stack,
            digest,
            self._precision(first_stage),
            not self.config_from and is_pixel(self.name),
            self._record(steering.record if steering else {}),
            PinnedModel(self, digest),
        )

    def _refuse(self, path: Path, options: WalkOptions | None) -> None:
        """Raise what `open` raises, before any weight is read."""
        arguments.refuse_configs(self.name, path, self.config_from)
        self.refuse_beside_pixel()
        if options and path.is_dir() and _needs_sampling(options):
            from restore.checkpoints import sampling_check  # which loads diffusers

            sampling_check.refuse(path, options)
        if self.engine == "onnx":
            engines.refuse(self.name, self.device, self.dtype, **self._more())
        elif path.is_dir() and configs.about(path).engine:
            raise UsageError(f"{self.name}: is an ONNX export; run it by --engine onnx")

    def refuse_beside_pixel(self) -> None:
        """Raise ConfigError if it is a pixel upscaler, and options are only for other models."""
        place = model_paths.find_path(self.name)
        if not self.config_from and place.is_file() and file_kinds.is_pixel(place):
            given = self.compiled, self.offload, self.loras, self.controlnet
            file_kinds.refuse_beside_pixel(self.name, *given)

    def _first_stage_digest(self) -> str:
        if not self.first_stage:
            return ""
        if not is_pixel(self.first_stage):
            problem = f"--first-stage {self.first_stage}: is no pixel upscaler"
            raise UsageError(f"{problem}, .pth or .safetensors")
        return manifest.find_model(self.first_stage)[1]

    def _load(
        self, digest: str, options: WalkOptions | None, note: Callable[[str], None]
    ) -> "Model":
        """Load the model. Raises ModelError if it cannot, or if its files have changed since."""
        steering = {
            "controlnet_scale": self.controlnet_scale,
            "control_image": self.control_image,
        }
        keep_freed_memory()
        model = engines.load(
            self.name,
            self.device,
            self.dtype,
            engine=self.engine,
            lazily=_may_load_lazily(options),
            note=note,
            offline=self.offline,
            allow_pickle=self.allow_pickle,
            **self._more(),
            **(steering if self.controlnet else {}),
        )
        if getattr(model, "digest", "") not in ("", digest):
            raise ModelError(f"{self.name}: changed since the run began; run it again")
        return model

    def _more(self) -> dict[str, Any]:
        """The options that not every engine supports, by the names in `engines.load`."""
        more: dict[str, Any] = {"compiled": self.compiled, "offload": self.offload}
        more |= {"loras": self.loras, "config": self.config_from}
        return {**more, "controlnet": self.controlnet, "first_stage": self.first_stage}

    def _precision(self, first_stage: str) -> dict[str, object]:
        facts: dict[str, object] = {"dtype": self.dtype}
        if self.compiled:
            facts["compiled"] = True
        if self.engine != "torch":
            facts["engine"] = self.engine
        if first_stage:
            facts["first_stage"] = Path(self.first_stage).name
            facts["first_stage_sha256"] = first_stage
        if self.device != "auto":  # with dtype auto it decides the precision
            facts["device"] = self.device
        elif self.engine == "torch" and (kind := engines.kind_of_auto()) != "cpu":
            facts["device"] = kind
        if self.config_from and (digest := _digest_configs(Path(self.config_from))):
            facts["config_sha256"] = digest
        elif self.config_from:  # a hub id
            facts["config_from"] = self.config_from
        return facts

    def _record(self, steering: dict[str, object]) -> dict[str, object]:
        """What results record beside what decides the pixels."""
        return {**steering, **({"config_from": self.config_from} if self.config_from else {})}


@dataclass(frozen=True)
class PinnedModel:
    """What another process needs to open the same model.

    Attributes:
        choice: The model that was asked for.
        weights: The digest of its weights; the other process must find the same.
    """

    choice: ModelChoice
    weights: str

    def on(self, device: str) -> "PinnedModel":
        """The same on another device."""
        return replace(self, choice=replace(self.choice, device=device))

    def open(self, options: WalkOptions) -> OpenedModel:
        """Open the model. Raises ModelError if it is missing, or its weights are not the same."""
        model = self.choice.open(options)
        if model.weights != self.weights:
            problem = f"{self.choice.name}: is another model here, or changed"
            raise ModelError(f"{problem}; run it again")
        return model


def open_model(
    name: str,
    device: str = "auto",
    dtype: str = "auto",
    *,
    options: WalkOptions | None = None,
    note: Callable[[str], None] = lambda text: None,
    **more: Any,
) -> OpenedModel:
    """Find a model and identify its weights, which load later.

    Args:
        name: A name of `restore models list`, a folder, a weight file or a hub id.
        device: auto, cpu, cuda or mps.
        dtype: auto, fp32, fp16 or bf16.
        options: If given, a model that cannot do their steps and sampler is refused now.
        note: Called with messages for the user when the model loads.
        **more: Further fields of ModelChoice.

    Raises:
        UsageError: The options contradict one another.
        ConfigError: The model cannot do what `options` ask.
        ModelError: There is no such model, or this machine cannot run any.
    """
    return ModelChoice(name, device, dtype, **more).open(options, note)


def parse_lora(given: str) -> tuple[str, float]:
    """Parse FILE or FILE=SCALE.

    Raises:
        UsageError: The scale is no number, or behind a colon.
    """
    file, equals, scale = given.rpartition("=")
    if not equals:
        name, colon, scale = given.rpartition(":")  # as in other tools' prompts
        if colon and re.fullmatch(r"-?\d*\.?\d+>?", scale) and not Path(given).exists():
            name = name.removeprefix("<lora:")
            raise UsageError(f"--lora {given}: write {name}={scale.removesuffix('>')}")
        return given, 1.0
    try:
        found = float(scale)
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise UsageError(f"--lora {given}: write FILE=SCALE, such as a.safetensors=0.8")
    return file, found


def is_pixel(name: str) -> bool:
    """Whether the name is a pixel upscaler: one network from rgb to rgb. Raises ModelError."""
    file: Path = model_paths.find_path(name)
    if file.is_dir():
        return configs.about(file).pixels is not None
    return file.is_file() and file_kinds.is_pixel(file)


def _digest_configs(folder: Path) -> str:
    """A digest of the configs and vocabularies of a diffusers folder; empty if it is none."""
    paths = (path for kind in ("json", "txt") for path in folder.rglob(f"*.{kind}"))
    found = {path.relative_to(folder).as_posix(): path for path in paths if path.is_file()}
    lines = [f"{name} {sha256(path)}" for name, path in sorted(found.items())]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest() if lines else ""


def _needs_sampling(options: WalkOptions) -> bool:
    return bool(options.steps or options.sampler != "ddim" or options.sampler_options)


def _may_load_lazily(options: WalkOptions | None) -> bool:
    """Whether a model of damage needs no sampling for these options; without any, it is loaded as
    its tasks need it.
    """
    if options is None:
        return True
    if isinstance(options, InpaintOptions):
        return options.engine_for("damage") != "model"
    return isinstance(options, UpscaleOptions) and not options.steps
