"""The callbacks of the Python interface: progress, cancelling, and those of diffusers."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from restore.diffusion import watch
from restore.diffusion.defaults import making_on_cpu
from restore.errors import CancelledError, UsageError
from restore.images import arrays
from restore.images.picture import Picture
from restore.tasks import keywords, run

if TYPE_CHECKING:
    from restore.checkpoints.arguments import Model

Callback = Callable[[int, int, Tensor], bool | None]
"""(steps done, all steps, latent) -> False to cancel"""
Progress = Callable[[int, int, watch.What], bool | None]
"""(done, of, what) -> False to cancel; `what` is encode, walk, decode, enlarge or colour"""


@dataclass(frozen=True)
class Callbacks:
    """The callbacks of one call. If one returns False, CancelledError is raised.

    NumPy's and torch's False are one too; None, of a function that returns nothing, is not.
    """

    callback: Callback | None = None
    progress: Progress | None = None
    on_step_end: keywords.OnStepEnd | None = None
    maker: object = None  # the first argument of diffusers' callback

    def restore(
        self,
        picture: Picture | None,
        options: run.TaskOptions,
        stack: "Model",
        seed: int,
        hole: np.ndarray | None = None,
    ) -> Picture:
        is_watched = self.progress is not None
        with making_on_cpu(), watch.own_timestep():
            stack = run.needed(stack, options, hole is not None)
            with watch.watching(self.part, *stack.parts) if is_watched else nullcontext():
                return run.restore(picture, options, stack, seed, self.step, hole)

    def restore_all(
        self,
        image: Any,
        mask: Any,
        options: run.TaskOptions,
        stack: "Model",
        seeds: Callable[[int], list[int]],
        output_type: arrays.Kind | None,
    ) -> Any:
        """Restore one picture, a list or a batch; the results come in the same form.

        Args:
            image: The picture, list or batch.
            mask: None, one mask for all pictures, or one for each.
            options: Of one of the tasks.
            stack: The model.
            seeds: Returns the seeds of a number of pictures.
            output_type: None: that of each picture.

        Raises:
            UsageError: If a picture or mask is none, or the counts differ.
        """
        as_asked = arrays.example_of(output_type) if output_type else None
        images, gather = arrays.to_list(image)
        masks = [None] * len(images) if mask is None else arrays.to_list(mask)[0]
        if len(masks) == 1:  # one mask for all
            masks = masks * len(images)
        if len(masks) != len(images):
            raise UsageError(f"{len(masks)} masks for {len(images)} pictures")
        # all are checked before work begins
        pictures = [arrays.to_picture(one) for one in images]
        holes = [None if one is None else arrays.to_mask(one) for one in masks]
        results = []
        for like, picture, hole, own in zip(
            images, pictures, holes, seeds(len(images)), strict=True
        ):
            done = self.restore(picture, options, stack, own, hole)
            results.append(arrays.convert_like(done, like if as_asked is None else as_asked))
        is_list = as_asked is not None and gather is not arrays.take_first
        return results if is_list else gather(results)

    def step(self, step: int, steps: int, latent: Any) -> None:
        if self.callback is None and self.on_step_end is None:
            return
        if isinstance(latent, np.ndarray):  # an engine's, which may be read-only
            latent = torch.from_numpy(latent.copy())
        if self.callback is not None and is_false(self.callback(step, steps, latent)):
            raise CancelledError(f"cancelled by the callback after step {step} of {steps}")
        if self.on_step_end is None:
            return
        values = {"latents": latent}
        answer = self.on_step_end(self.maker, step - 1, watch.timestep(), values)
        if is_false(answer):
            why = f"cancelled by callback_on_step_end after step {step} of {steps}"
            raise CancelledError(why)
        if isinstance(answer, dict) and answer.get("latents", latent) is not latent:
            raise UsageError("callback_on_step_end gave other latents: it may only look and stop")

    def part(self, done: int, of: int, what: watch.What) -> None:
        if self.progress is not None and is_false(self.progress(done, of, what)):
            raise CancelledError(f"cancelled by progress at {what}, {done} of {of}")


def is_false(answer: object) -> bool:
    """Whether an answer is False, of Python, NumPy or torch."""
    if isinstance(answer, Tensor):
        return answer.dtype == torch.bool and answer.numel() == 1 and not answer
    return isinstance(answer, bool | np.bool_) and not answer
