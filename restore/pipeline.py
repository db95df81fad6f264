"""A model in the form of diffusers' pipelines, for programs that are written for those.

pipe = restore.RestorationPipeline.from_pretrained("nano")
large = pipe(image=photo, scale=4).images[0]
"""

import inspect
from collections.abc import Sequence
from typing import Any, Literal, NoReturn, Self

import numpy as np
import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput

from restore.api import Restorer
from restore.checkpoints import devices
from restore.diffusion.contexts.text import TextContext
from restore.diffusion.stack import SCHEDULERS, Stack
from restore.errors import ConfigError, ModelError, UsageError
from restore.images.arrays import OneImage
from restore.keywords import OnStepEnd
from restore.options import Sampler

Task = Literal["upscale", "inpaint", "img2img", "text2img"]


class RestorationPipeline(DiffusionPipeline):
    """One stack, four tasks, called as diffusers' pipelines are.

    Its parts (unet, vae, text_encoder, tokenizer, scheduler, restorer) are those of the folder, of
    diffusers' and transformers' classes where there are such. Another scheduler may be put in its
    place; what is called is a `Restorer`, which is at hand as `.tasks`.

    diffusers looks classes up in its own package, so that this one has to be named:
    `DiffusionPipeline.from_pretrained` does not find it.
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
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, pretrained_model_name_or_path: Any = "nano", **how: Any
    ) -> Self:
        """A model by all the names that `restore.load` knows: it is read, and checked, by that.

        how  of Restorer.from_pretrained. Raises ModelError.
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
        """Its parts, by name."""
        return {name: getattr(self, name) for name in self._parts}

    @property
    def tasks(self) -> Restorer:
        """The same model with one method a task."""
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

    def enable_model_cpu_offload(self, *args: Any, **kwargs: Any) -> None:
        """Have the parts take turns on the device, as `offload` at loading does."""
        devices.take_turns(self._stack)

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
        """Pictures, by the task that what is given asks for.

        Without an image it is text2img, with a mask_image inpaint, else upscale; img2img is named.

        num_images_per_prompt  of text2img.
        output_type            pil, np (N, H, W, 3) or pt (N, 3, H, W), both float in [0, 1]; a list
                               where pictures differ in size.
        options                of the task's class in restore.options, or diffusers' names.
        Raises RestoreError.
        """
        self._refuse_swapped()
        if task is None:
            task = "upscale" if mask_image is None else "inpaint"
            task = "text2img" if image is None else task
        given: dict[str, Any] = {**self._sampler(), **options, "output_type": output_type}
        if callback := options.get("callback_on_step_end"):
            given["callback_on_step_end"] = self._watched(callback)
        if task == "text2img":
            made = self._face.text2img(prompt or "", n=num_images_per_prompt, **given)
        elif num_images_per_prompt != 1:
            raise UsageError("num_images_per_prompt is of text2img; give a list of images")
        elif not isinstance(prompt or "", str):
            raise UsageError("one prompt, a text, is what images are made with")
        elif task == "upscale":
            made = self._face.upscale(image, damage=mask_image, prompt=prompt or "", **given)
        elif task == "img2img":
            made = self._face.img2img(image, prompt or "", **given)
        else:
            made = self._face.inpaint(image, mask_image, prompt or "", **given)
        images = together(made if isinstance(made, list) else [made], output_type)
        return ImagePipelineOutput(images=images) if return_dict else (images,)

    def _watched(self, callback: OnStepEnd) -> OnStepEnd:
        """The callback, told of this pipeline, by which it may stop the work as in diffusers."""
        self._interrupt = False

        def told(_: Any, step: int, timestep: Any, held: dict[str, Any]) -> Any:
            answer = callback(self, step, timestep, held)
            return False if self._interrupt else answer

        return told

    def _refuse_swapped(self) -> None:
        """Raises ConfigError if a part was exchanged that more than its own weights depend on."""
        for name, part in self._parts.items():
            if name != "scheduler" and getattr(self, name) is not part:
                told = f"{name} was exchanged, which changes what fits it"
                raise ConfigError(f"{told}; save the parts as a folder and load that")

    def _sampler(self) -> dict[str, Any]:
        """The sampler and its options that are the scheduler somebody has put in its place."""
        scheduler, base = self.scheduler, self._stack.schedule
        if scheduler is base:
            return {}
        kind, held = type(scheduler), dict(scheduler.config)
        able = {name: own for name, (of, own) in SCHEDULERS.items() if of == kind.__name__}
        if not able:
            known = ", ".join(sorted({of for of, _ in SCHEDULERS.values()}))
            raise ConfigError(f"scheduler: a {kind.__name__} is not walked by here; use {known}")

        def strange(sampler: Sampler) -> dict[str, Any]:
            usual = kind.from_config(base.config, **able[sampler]).config
            names = inspect.signature(kind).parameters.keys() & held.keys()
            return {key: held[key] for key in sorted(names) if held[key] != usual.get(key)}

        sampler = min(able, key=lambda name: len(strange(name)))
        return {"sampler": sampler, "sampler_options": strange(sampler)}


def together(made: list[Any], output_type: str) -> Any:
    """Pictures as diffusers gives them: arrays and tensors in one, of floats in [0, 1]."""
    if output_type == "np":
        made = [image.astype(np.float32) / 255 for image in made]
    if output_type == "pil" or len({image.shape for image in made}) > 1:
        return made
    return np.stack(made) if output_type == "np" else torch.stack(made)
