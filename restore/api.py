"""The Python interface: `restore.load("nano")`, then pictures in, the same kind of pictures out."""

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, Unpack

import torch

from restore.checkpoints import accelerators, arguments, engines, reloading
from restore.diffusion.defaults import making_on_cpu
from restore.diffusion.lazy_stack import LazyStack
from restore.errors import UsageError
from restore.images.arrays import Kind, OneImage, convert_like, example_of, to_picture
from restore.options import Img2imgOptions, InpaintOptions, Text2imgOptions, UpscaleOptions
from restore.tasks import keywords
from restore.tasks.callbacks import Callback, Callbacks, Progress
from restore.tasks.keywords import Seeds


def load(
    model: str | Path = "nano",
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    *,
    compiled: bool = False,
    offload: bool = False,
    engine: Literal["torch", "onnx"] = "torch",
    first_stage: str | Path = "",
    **more: Unpack[arguments.Loading],
) -> "Restorer":
    """Load a model. Its weights are in memory once and serve every task.

    Args:
        model: The name of a model that ships or of one of the user's own, a folder, a .safetensors
            file, an upscaler's .pth, or a hub id.
        device: auto, cpu, cuda or mps; or a torch.device.
        dtype: fp32, bf16 or fp16, or a torch.dtype. auto is fp32 on the CPU and bf16 elsewhere.
        compiled: Compile the UNet. This takes minutes once and makes the steps faster.
        offload: Keep on the device only the part that is computing.
        engine: torch; or onnx, ONNX Runtime on the CPU, for a folder that `restore export` wrote.
        first_stage: The file of a pixel upscaler. `upscale` starts from its result.
        more: Further arguments of restore.checkpoints.load.load.

    Raises:
        ModelError: If there is no such model, or it cannot be loaded.
        ConfigError: If an argument is unknown, or the model or the engine would ignore it.
        UsageError: If a ControlNet's picture or scale is given without one.
    """
    how: dict[str, Any] = {"compiled": compiled, "offload": offload, "engine": engine}
    name, where = arguments.to_place("model", model), str(device)
    first = arguments.to_place("first_stage", first_stage)
    kind = accelerators.named_dtype(dtype)
    with making_on_cpu():
        made = engines.load(name, where, kind, lazily=True, first_stage=first, **how, **more)
    return Restorer(made)


@dataclass(frozen=True, eq=False, repr=False)  # a model is itself; weights are no words
class Restorer:
    """One stack with four tasks, or one pixel upscaler, which enlarges or restores.

    Every method takes one picture or a list, and returns the same. `options` are fields of the
    task's class in restore.options, or diffusers' generator, num_inference_steps, guidance_scale,
    negative_prompt and callback_on_step_end. False from a callback raises restore.Cancelled.

    Processes that use it are spawned. In one that is forked torch may wait forever, if its threads
    were at work before; torch.set_num_threads(1) at the start avoids that.

    Args of all methods:
        seed: One, or a list with one for each picture. A picture is the same alone and in a list.
        output_type: pil, np (uint8) or pt (float in [0, 1]) instead of the kind that was given.
        callback: (step, steps, latent) after each sampling step.
        progress: (done, of, what) after each window, block or band, and again during a long one:
            `done` of `of` parts of stage `what` are finished. Stages are encode, walk (sampling),
            decode, enlarge and colour; they start again for each lap, hole and pass.
    """

    model: "arguments.Model"

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = "nano",
        *,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        torch_dtype: str | torch.dtype | None = None,
        local_files_only: bool = False,
        compiled: bool = False,
        offload: bool = False,
        engine: arguments.Engine = "torch",
        first_stage: str | Path = "",
        **more: Unpack[arguments.Loading],
    ) -> Self:
        """Load a model, as `restore.load` does, also by diffusers' names of arguments.

        Args:
            model: As in `restore.load`.
            device: As in `restore.load`.
            dtype: As in `restore.load`.
            torch_dtype: Diffusers' name of `dtype`; it wins.
            local_files_only: Diffusers' name of `offline`: use no network.
            compiled: As in `restore.load`.
            offload: As in `restore.load`.
            engine: As in `restore.load`.
            first_stage: As in `restore.load`.
            more: Further arguments of restore.checkpoints.load.load.

        Raises:
            RestoreError: As `restore.load`.
        """
        if local_files_only:
            more["offline"] = True
        kind = dtype if torch_dtype is None else torch_dtype
        how: dict[str, Any] = {"compiled": compiled, "offload": offload, "engine": engine}
        return cls(load(model, device, kind, first_stage=first_stage, **how, **more).model)

    @property
    def stack(self) -> "arguments.Model":
        """The whole model. A model that can work without sampling loads it at the first use."""
        if isinstance(self.model, LazyStack) and self.model.engine == "torch":
            with making_on_cpu():
                return self.model.load()
        return self.model

    def __repr__(self) -> str:
        model = self.model
        return f"<{type(self).__name__} of {model.name}: {model.engine} on {model.device}>"

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: the whole model, since loading cannot go on elsewhere.

        Pixel upscalers and ONNX exports are loaded again, from the same file or folder.
        """
        return {"model": reloading.pack(self.stack)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        with making_on_cpu():
            object.__setattr__(self, "model", reloading.unpack(state["model"]))

    def __copy__(self) -> Self:
        return replace(self, model=self.stack)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return replace(self, model=copy.deepcopy(self.stack, memo))

    def save_pretrained(self, folder: str | Path, *, card: str | None = None) -> None:
        """Write the model without loss, as `restore.load` reads it. Fused LoRAs stay fused.

        Args:
            card: README.md. By default it is copied, as licences and the list of photos are.

        Raises:
            UsageError: If a first stage or a ControlNet would be lost, or it is no stack.
            OutputError: If the folder holds files that we did not write, or the disk is full.
        """
        from restore.checkpoints import publish

        publish.save(self.stack, Path(folder), card)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        card: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        commit_message: str = "Upload model",
    ) -> str:
        """Upload what `save_pretrained` writes to `org/name` on the hub, created if necessary.

        Args:
            private: Whether a new repository is private; None is the organisation's default.
            token: By default that of `hf auth login`.

        Returns:
            The URL of the commit.

        Raises:
            UsageError: As `save_pretrained`.
            OutputError: If the hub refuses it; with the hub's message.
        """
        from restore.checkpoints import publish

        how = {"revision": revision, "create_pr": create_pr, "commit_message": commit_message}
        return publish.push(self.stack, repo_id, card, private=private, token=token, **how)

    def to(
        self,
        *where: str | torch.device | torch.dtype,
        device: str | torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """Move the model in place, as torch's modules do. A dtype changes a stack's UNet only."""
        from restore.checkpoints import devices

        for one in where:
            if isinstance(one, torch.dtype):
                dtype = one
            else:
                device = one
        devices.move(self.stack, device, dtype)
        return self

    @property
    def device(self) -> torch.device:
        return self.model.device

    def text2img(
        self,
        prompt: str | Sequence[str] = "",
        *,
        n: int | None = None,
        seed: Seeds = 0,
        callback: Callback | None = None,
        progress: Progress | None = None,
        output_type: Kind = "pil",
        **options: Unpack[keywords.Text2img],
    ) -> Any:
        """Make a picture of `width` x `height` (options) from each prompt.

        Args:
            n: How many pictures to make of one prompt, with the seeds seed, seed + 1, ...
        """
        like, arguments = example_of(output_type), keywords.translate(options)
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if n is not None:
            if n < 1 or len(prompts) != 1 or not isinstance(seed, int):
                raise UsageError("n is at least 1, for one prompt and one seed")
            prompts = prompts * n
            seed = list(range(seed, seed + n)) if arguments.generators is None else seed
        chosen = [
            keywords.build_options(Text2imgOptions, "text2img", arguments, prompt=words)
            for words in prompts
        ]
        callbacks = Callbacks(callback, progress, arguments.on_step_end, self)
        results = [
            convert_like(callbacks.restore(None, each, self.model, own), like)
            for each, own in zip(chosen, arguments.seeds(seed, len(prompts)), strict=True)
        ]
        return results[0] if isinstance(prompt, str) and n is None else results

    def img2img(
        self,
        image: OneImage | Sequence[OneImage],
        prompt: str = "",
        *,
        seed: Seeds = 0,
        callback: Callback | None = None,
        progress: Progress | None = None,
        output_type: Kind | None = None,
        **options: Unpack[keywords.Img2img],
    ) -> Any:
        """Make the picture again at its own size.

        Args:
            image: The picture, or a list.
            prompt: What it becomes.
            options: `strength` near 0 keeps the picture, 1 ignores it.
        """
        arguments = keywords.translate(options)
        chosen = keywords.build_options(Img2imgOptions, "img2img", arguments, prompt=prompt)
        callbacks = Callbacks(callback, progress, arguments.on_step_end, self)
        seeds = partial(arguments.seeds, seed)
        return callbacks.restore_all(image, None, chosen, self.model, seeds, output_type)

    def upscale(
        self,
        image: OneImage | Sequence[OneImage],
        scale: float | None = None,
        *,
        damage: OneImage | Sequence[OneImage] | None = None,
        seed: Seeds = 0,
        callback: Callback | None = None,
        progress: Progress | None = None,
        output_type: Kind | None = None,
        **options: Unpack[keywords.Upscale],
    ) -> Any:
        """Enlarge the picture; at scale 1, restore it.

        Args:
            scale: By default 4, or the scale that a pixel upscaler is made for.
            damage: A mask, white on scratches. They are filled in the same pass.
        """
        arguments = keywords.translate(options)
        given = {} if scale is None else {"scale": scale}
        chosen = keywords.build_options(UpscaleOptions, "upscale", arguments, **given)
        callbacks = Callbacks(callback, progress, arguments.on_step_end, self)
        seeds = partial(arguments.seeds, seed)
        return callbacks.restore_all(image, damage, chosen, self.model, seeds, output_type)

    def inpaint(
        self,
        image: OneImage | Sequence[OneImage],
        mask: OneImage | Sequence[OneImage] | None = None,
        prompt: str = "",
        *,
        seed: Seeds = 0,
        callback: Callback | None = None,
        progress: Progress | None = None,
        output_type: Kind | None = None,
        **options: Unpack[keywords.Inpaint],
    ) -> Any:
        """Fill the hole. Outside it no byte changes.

        Args:
            image: The picture, or a list.
            mask: White is the hole. One mask serves all pictures, or each has its own. None: there
                is no hole; `extend` or `aspect` paints beyond the edges.
            prompt: What fills the hole.
        """
        arguments = keywords.translate(options)
        chosen = keywords.build_options(InpaintOptions, "inpaint", arguments, prompt=prompt)
        callbacks = Callbacks(callback, progress, arguments.on_step_end, self)
        seeds = partial(arguments.seeds, seed)
        return callbacks.restore_all(image, mask, chosen, self.model, seeds, output_type)

    def with_control_image(self, image: OneImage) -> "Restorer":
        """Return the same model with this picture, of any size, as its ControlNet's input."""
        control = getattr(self.model, "control", None)
        if control is None:
            raise UsageError("there is no ControlNet to steer; load(..., controlnet=FOLDER)")
        control = replace(control, picture=to_picture(image))
        return replace(self, model=replace(self.model, control=control))

    def shown(self, image: OneImage) -> "Restorer":
        """Deprecated: the former name of `with_control_image`."""
        warnings.warn("shown is now with_control_image", DeprecationWarning, stacklevel=2)
        return self.with_control_image(image)
