"""A model as a diffusers pipeline, for programs that expect one.

pipe = restore.RestorationPipeline.from_pretrained("nano")
large = pipe(image=photo, scale=4).images[0]
"""

import inspect
import operator
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NoReturn, Self, SupportsIndex

import numpy as np
import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput

from restore.api import Restorer
from restore.checkpoints import accelerators, devices
from restore.diffusion.contexts.text import TextContext
from restore.diffusion.stack import SCHEDULERS, Stack
from restore.errors import ConfigError, ModelError, UsageError
from restore.images.arrays import OneImage
from restore.options import Sampler
from restore.tasks.keywords import OnStepEnd

Task = Literal["upscale", "inpaint", "img2img", "text2img"]


class RestorationPipeline(DiffusionPipeline):
    """One stack with four tasks, called like diffusers' pipelines.

    Its components (unet, vae, text_encoder, tokenizer, scheduler, restorer) are those of the model
    folder, objects of diffusers' and transformers' classes where these exist. The scheduler may be
    replaced. `.tasks` is the `Restorer` that does the work.

    Load it by this class: `DiffusionPipeline.from_pretrained` looks for classes in diffusers only
    and does not find it.

    Args:
        face: The loaded model. It must hold a diffusion stack.

    Raises:
        ModelError: If the model is a pixel upscaler.
    """

    config_name = "model_index.json"

    def __init__(self, face: Restorer):
        super().__init__()
        if not isinstance(face.stack, Stack):
            raise ModelError(f"{face.stack.name}: is one network, which is no diffusion pipeline")
        self._face, self._stack = face, face.stack
        parts: dict[str, Any] = {
            "vae": self._stack.vae,
            "unet": self._stack.unet,
            "scheduler": self._stack.schedule,
        }
        if isinstance(self._stack.context, TextContext):
            context = self._stack.context
            parts |= {"text_encoder": context.module, "tokenizer": context.tokenizer}
        if self._stack.restorer is not None:
            parts["restorer"] = self._stack.restorer.rich
        self.register_modules(**parts)
        self._parts = parts

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any = "nano", **how: Any) -> Self:
        """Load and check a model by any name that `restore.load` accepts.

        Args:
            pretrained_model_name_or_path: As `model` in `restore.load`.
            how: Further arguments of Restorer.from_pretrained.

        Raises:
            ModelError: If there is no such model, or it cannot be loaded.
        """
        return cls(Restorer.from_pretrained(pretrained_model_name_or_path, **how))

    def save_pretrained(self, save_directory: Any, *, card: str | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """As Restorer.save_pretrained."""
        self._refuse_swapped()
        self._face.save_pretrained(save_directory, card=card)

    def push_to_hub(self, repo_id: str, **how: Any) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        """As Restorer.push_to_hub."""
        self._refuse_swapped()
        return self._face.push_to_hub(repo_id, **how)

    @property
    def components(self) -> dict[str, Any]:
        """The components by name."""
        return {name: getattr(self, name) for name in self._parts}

    @property
    def tasks(self) -> Restorer:
        """The same model as a Restorer, with one method for each task."""
        return self._face

    @property
    def device(self) -> torch.device:
        return self._stack.device

    @property
    def dtype(self) -> torch.dtype:
        return self._stack.unet.dtype

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """As Restorer.to."""
        kwargs.pop("silence_dtype_warnings", None)
        if "torch_device" in kwargs:
            kwargs["device"] = kwargs.pop("torch_device")
        if "torch_dtype" in kwargs:
            kwargs["dtype"] = kwargs.pop("torch_dtype")
        self._face.to(*args, **kwargs)
        return self

    def enable_model_cpu_offload(
        self, gpu_id: int | None = None, device: torch.device | str = "auto"
    ) -> None:
        """Keep on the device only the part that is computing, as `offload` does at loading.

        Args:
            gpu_id: The number of the device.
            device: As in `restore.load`.

        Raises:
            ModelError: If there is no such device.
        """
        name = str(device)
        if gpu_id is not None:
            name = accelerators.pick() if name == "auto" else name.split(":", maxsplit=1)[0]
            name = f"{name}:{gpu_id}"
        devices.take_turns(self._stack, name)

    def enable_sequential_cpu_offload(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise ConfigError("the parts take turns as wholes here: call enable_model_cpu_offload()")

    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        image: OneImage | Sequence[OneImage] | None = None,
        mask_image: OneImage | Sequence[OneImage] | None = None,
        *,
        task: Task | None = None,
        num_images_per_prompt: int = 1,
        output_type: Literal["pil", "np", "pt"] = "pil",
        return_dict: bool = True,
        **options: Any,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Run a task and return its pictures.

        Args:
            prompt: What the result should show. For text2img it may be a list.
            image: One picture or a list.
            mask_image: White where the picture is filled; for upscale, white on scratches.
            task: By default text2img without an image, inpaint with a mask_image, else upscale.
                img2img has to be named.
            num_images_per_prompt: For text2img.
            output_type: pil; or np (N, H, W, 3) or pt (N, 3, H, W), both float in [0, 1], and a
                list if the pictures differ in size.
            return_dict: Whether to return ImagePipelineOutput or a tuple.
            options: Fields of the task's class in restore.options, or diffusers' names.

        Raises:
            RestoreError: If the task fails; the class says why.
        """
        self._refuse_swapped()
        prompts = (
            [prompt] if isinstance(prompt, str) or not isinstance(prompt, Iterable) else [*prompt]
        )
        if not all(words is None or isinstance(words, str) for words in prompts):
            raise UsageError("the prompt comes first, and is words; write pipe(image=...)")
        if task is None:
            task = "upscale" if mask_image is None else "inpaint"
            task = "text2img" if image is None else task
        given: dict[str, Any] = {**self._sampler(), **options}
        given["output_type"] = "pt" if output_type == "np" else output_type
        if callback := options.get("callback_on_step_end"):
            given["callback_on_step_end"] = self._watched(callback)
        if task == "text2img":
            each = [words or "" for words in prompts for _ in range(num_images_per_prompt)]
            seed = given.get("seed", 0)
            if isinstance(seed, SupportsIndex) and given.get("generator") is None:
                given["seed"] = [operator.index(seed) + nth for nth in range(len(each))]
            result = self._face.text2img(each, **given)
        elif num_images_per_prompt != 1:
            raise UsageError("num_images_per_prompt is of text2img; give a list of images")
        elif not isinstance(prompt or "", str):
            raise UsageError("one prompt, a text, is what images are made with")
        elif task == "upscale":
            result = self._face.upscale(image, damage=mask_image, prompt=prompt or "", **given)
        elif task == "img2img":
            result = self._face.img2img(image, prompt or "", **given)
        else:
            result = self._face.inpaint(image, mask_image, prompt or "", **given)
        images = together(result if isinstance(result, list) else [result], output_type)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _watched(self, callback: OnStepEnd) -> OnStepEnd:
        """Wrap the callback so that it gets this pipeline and can interrupt it, as in diffusers."""
        self._interrupt = False

        def on_step_end(_: Any, step: int, timestep: Any, held: dict[str, Any]) -> Any:
            answer = callback(self, step, timestep, held)
            return False if self._interrupt else answer

        return on_step_end

    def _refuse_swapped(self) -> None:
        """Raise ConfigError if a component other than the scheduler was replaced."""
        for name, part in self._parts.items():
            if name != "scheduler" and getattr(self, name) is not part:
                problem = f"{name} was exchanged, which changes what fits it"
                raise ConfigError(f"{problem}; save the parts as a folder and load that")

    def _sampler(self) -> dict[str, Any]:
        """Return the sampler and sampler_options that match a replaced scheduler."""
        scheduler, base = self.scheduler, self._stack.schedule
        if scheduler is base:
            return {}
        kind, config = type(scheduler), dict(scheduler.config)
        able = {name: own for name, (of, own) in SCHEDULERS.items() if of == kind.__name__}
        if not able:
            known = ", ".join(sorted({of for of, _ in SCHEDULERS.values()}))
            raise ConfigError(f"scheduler: a {kind.__name__} is not supported here; use {known}")

        def strange(sampler: Sampler) -> dict[str, Any]:
            usual = kind.from_config(base.config, **able[sampler]).config
            names = inspect.signature(kind).parameters.keys() & config.keys()
            return {key: config[key] for key in sorted(names) if config[key] != usual.get(key)}

        sampler = min(able, key=lambda name: len(strange(name)))
        return {"sampler": sampler, "sampler_options": strange(sampler)}


def together(images: list[Any], output_type: str) -> Any:
    """Return pictures or float tensors as diffusers does: arrays or tensors, stacked."""
    if output_type == "np":
        images = [image.movedim(0, -1).numpy() for image in images]
    if output_type == "pil" or len({image.shape for image in images}) > 1:
        return images
    return np.stack(images) if output_type == "np" else torch.stack(images)
