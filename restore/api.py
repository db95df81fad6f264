"""The Python face: `restore.load("nano")`, then pictures in and pictures of the same kind out."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from restore.checkpoints import devices
from restore.config import Options, explain
from restore.diffusion import watch
from restore.errors import CancelledError, ConfigError, UsageError
from restore.images.arrays import OneImage, convert_like, to_list, to_mask, to_picture
from restore.images.picture import Picture
from restore.options import Img2imgOptions, InpaintOptions, Text2imgOptions, UpscaleOptions
from restore.tasks import run

Seeds = int | Sequence[int]
Callback = Callable[[int, int, Tensor], bool | None]
"""(steps done, steps of the walk, latent) -> False to cancel"""
Progress = Callable[[int, int, watch.What], bool | None]
"""(done, of, what) -> False to cancel; what is encode, walk, decode, enlarge or colour"""

Kind = Literal["pil", "np", "pt"]
LIKE: dict[Kind, OneImage] = {  # what text2img gives
    "pil": Image.new("RGB", (1, 1)),
    "np": np.zeros((1, 1, 3), np.uint8),
    "pt": torch.zeros(3, 1, 1),
}
Some = TypeVar("Some", bound=Options)


def load(
    model: str = "nano",
    device: str = "auto",
    dtype: str = "auto",
    *,
    compiled: bool = False,
    offload: bool = False,
    **more: Any,
) -> "Restorer":
    """A model, its weights in memory once for every task.

    model     the name of one that ships or of the user's own, a folder, a .safetensors file, an
              upscaler's .pth, or a hub id.
    device    auto, cpu, cuda or mps.
    dtype     fp32, bf16 or fp16; auto is fp32 on the CPU and bf16 elsewhere.
    compiled  compile the UNet: minutes now, quicker steps.
    offload   only the part at work is on the device.
    more      of restore.checkpoints.load.load.
    Raises ModelError.
    """
    return Restorer(devices.load(model, device, dtype, compiled=compiled, offload=offload, **more))


@dataclass(frozen=True)
class Restorer:
    """One stack, four tasks; or one pixel upscaler, which enlarges or restores.

    Every method takes one picture or a list, and gives one or a list, of the kind that came in.
    Further options are those of the task's options class in restore.options. A seed gives the same
    picture alone and anywhere in a list; `seed` may be a list, one for each.

    Two functions may look on. Each may return False, or raise, to end the work: restore.Cancelled
    comes out.

    callback  (step, steps, latent) after each step of the walk.
    progress  (done, of, what) between the windows, blocks and bands that a picture is made by:
              `done` of `of` parts of the stage `what`: encode, walk, decode, then colour; enlarge
              instead of the first three where a pixel upscaler does it.
              One that takes long tells the same again meanwhile, so that the work ends soon.
              Stages come anew for each lap, hole and pass.
    """

    stack: run.Model

    def text2img(
        self,
        prompt: str | Sequence[str] = "",
        *,
        n: int | None = None,
        seed: Seeds = 0,
        callback: Callback | None = None,
        progress: Progress | None = None,
        output_type: Kind = "pil",
        **options: Any,
    ) -> Any:
        """A picture of options `width` x `height` for each prompt.

        n            so many pictures of one prompt, of the seeds seed, seed + 1, ...
        output_type  pil, np (uint8) or pt (float in [0, 1]).
        """
        if output_type not in LIKE:
            raise UsageError(f"output_type {output_type!r}: there are {', '.join(LIKE)}")
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if n is not None:
            if n < 1 or len(prompts) != 1 or not isinstance(seed, int):
                raise UsageError("n is at least 1, for one prompt and one seed")
            prompts, seed = prompts * n, list(range(seed, seed + n))
        chosen = [
            chosen_by(Text2imgOptions, "text2img", options, prompt=words) for words in prompts
        ]
        onlookers = Onlookers(callback, progress)
        made = [
            convert_like(onlookers.restore(None, each, self.stack, own), LIKE[output_type])
            for each, own in zip(chosen, seeds_for(seed, len(prompts)), strict=True)
        ]
        return made[0] if isinstance(prompt, str) and n is None else made

    def img2img(
        self,
        image: OneImage | Sequence[OneImage],
        prompt: str = "",
        *,
        seed: Seeds = 0,
        callback: Callback | None = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> Any:
        """The picture made anew, at its own size; `strength` near 0 keeps it, 1 forgets it."""
        chosen = chosen_by(Img2imgOptions, "img2img", options, prompt=prompt)
        return self._each(image, None, chosen, seed, Onlookers(callback, progress))

    def upscale(
        self,
        image: OneImage | Sequence[OneImage],
        scale: float | None = None,
        *,
        damage: OneImage | Sequence[OneImage] | None = None,
        seed: Seeds = 0,
        callback: Callback | None = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> Any:
        """The picture enlarged; at scale 1, restored.

        scale   4 if it is not given, or what a pixel upscaler is made for.
        damage  a mask, white on the scratches that are filled in the same pass.
        """
        if scale is not None:
            options["scale"] = scale
        chosen = chosen_by(UpscaleOptions, "upscale", options)
        return self._each(image, damage, chosen, seed, Onlookers(callback, progress))

    def inpaint(
        self,
        image: OneImage | Sequence[OneImage],
        mask: OneImage | Sequence[OneImage],
        prompt: str = "",
        *,
        seed: Seeds = 0,
        callback: Callback | None = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> Any:
        """The picture with its hole, white in the mask, made anew; outside not a byte moves."""
        chosen = chosen_by(InpaintOptions, "inpaint", options, prompt=prompt)
        return self._each(image, mask, chosen, seed, Onlookers(callback, progress))

    def _each(
        self,
        image: Any,
        mask: Any,
        options: run.TaskOptions,
        seed: Seeds,
        onlookers: "Onlookers",
    ) -> Any:
        images, gather = to_list(image)
        masks = [None] * len(images) if mask is None else to_list(mask)[0]
        if len(masks) == 1:  # one mask for all
            masks = masks * len(images)
        if len(masks) != len(images):
            raise UsageError(f"{len(masks)} masks for {len(images)} pictures")
        # all are looked at before any is worked on
        pictures = [to_picture(one) for one in images]
        holes = [None if one is None else to_mask(one) for one in masks]
        made = []
        for like, picture, hole, own in zip(
            images, pictures, holes, seeds_for(seed, len(images)), strict=True
        ):
            done = onlookers.restore(picture, options, self.stack, own, hole)
            made.append(convert_like(done, like))
        return gather(made)


def chosen_by(kind: type[Some], task: str, options: dict[str, Any], **given: object) -> Some:
    """The options class made of keyword arguments. ConfigError names the near key."""
    try:
        return kind.model_validate({**options, **given})
    except ValidationError as error:
        lines = explain(error, kind, (), lambda way: task)
        raise ConfigError("\n".join(lines)) from error


def seeds_for(seed: Seeds, count: int) -> list[int]:
    seeds = [seed] * count if isinstance(seed, int) else [int(one) for one in seed]
    if len(seeds) != count:
        raise UsageError(f"{len(seeds)} seeds for {count} pictures; give one, or one for each")
    if any(not 0 <= one < 2**63 for one in seeds):
        raise UsageError("a seed is 0 to 2^63 - 1")
    return seeds


@dataclass(frozen=True)
class Onlookers:
    """Who is told while a picture is made: False from either becomes CancelledError."""

    callback: Callback | None = None
    progress: Progress | None = None

    def restore(
        self,
        picture: Picture | None,
        options: run.TaskOptions,
        stack: run.Model,
        seed: int,
        hole: np.ndarray | None = None,
    ) -> Picture:
        is_watched = self.progress is not None
        with watch.watching(self.part, *stack.parts) if is_watched else nullcontext():
            return run.restore(picture, options, stack, seed, self.step, hole)

    def step(self, step: int, steps: int, latent: Tensor) -> None:
        if self.callback is not None and self.callback(step, steps, latent) is False:
            raise CancelledError(f"cancelled by the callback after step {step} of {steps}")

    def part(self, done: int, of: int, what: watch.What) -> None:
        if self.progress is not None and self.progress(done, of, what) is False:
            raise CancelledError(f"cancelled by progress at {what}, {done} of {of}")
