"""restore(): run the task of the options on one picture."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from restore.diffusion.lazy_stack import SCALE, LazyStack
from restore.diffusion.watch import OnStep, ignore
from restore.errors import NonFiniteError, OutOfMemoryError, UsageError
from restore.images import memmap
from restore.images.colours import is_linear
from restore.images.masks import without_damage
from restore.images.picture import Picture, bleed
from restore.options import Img2imgOptions, InpaintOptions, Text2imgOptions, UpscaleOptions
from restore.tasks import first_stage, unheard
from restore.tasks.fill import fill_without_model

if TYPE_CHECKING:  # torch loads where it is needed
    from restore.checkpoints.arguments import Model
    from restore.tasks.img2img import OnFrame

BAND = 256  # rows checked together
TaskOptions = UpscaleOptions | Img2imgOptions | InpaintOptions | Text2imgOptions


def restore(
    picture: Picture | None,
    options: TaskOptions,
    stack: "Model",
    seed: int,
    on_step: OnStep = ignore,
    mask: np.ndarray | None = None,
    on_frame: "OnFrame" = lambda lap, frame: None,
) -> Picture:
    """Run the task of the options on one picture. Commands, page and workers all call this.

    A picture without colour is enlarged without colour, also if its file is not grey. If half
    precision gives NaN or an all black result, it is computed again in fp32. If the device
    has too little memory for one window, the CPU computes it. The picture's warnings say so.

    Args:
        picture: The picture; None for text2img only.
        options: Of one of the tasks.
        stack: The model.
        seed: Of the noise.
        on_step: Called after each sampling step; without sampling, after each block or window.
        mask: uint8 (H, W): the hole of inpaint, the damage of upscale.
        on_frame: Called after each lap of img2img.

    Raises:
        UsageError: If a picture or mask is missing.
        ModelError: If the model cannot do the task.
        NonFiniteError: If fp32 did not help either.
        OutOfMemoryError: If the CPU has too little memory too.
    """
    stack = needed(stack, options, mask is not None)
    notes = (*beyond(options, picture, stack), *of_tones(options, picture))
    seen = without_tints(picture, options, stack)

    def attempt() -> Picture:
        result = dispatch(seen, options, stack, seed, on_step, mask, on_frame)
        if is_lost(result, picture):
            raise NonFiniteError("the result is black all over, and what it was made from is not")
        has_words = getattr(stack, "context", True) is not None
        result = unheard.warn_of_words(result, options, stack.name, has_words=has_words)
        if picture is not None and seen is not picture:  # the file keeps its channels
            result = replace(result, grey=picture.grey)
        return replace(result, warnings=(*result.warnings, *notes)) if notes else result

    try:
        return on_some_device(attempt, stack)
    except NonFiniteError as error:
        if not stack.is_half:
            raise
        note = f"computed again in fp32: {error}"
    with stack.in_fp32():
        result = on_some_device(attempt, stack)
    return replace(result, warnings=(*result.warnings, note))


def needed(stack: "Model", options: TaskOptions, has_hole: bool) -> "Model":
    """Return the model that the task needs: of a partly loaded one, the whole if necessary, or if
    it is there already.
    """
    if not isinstance(stack, LazyStack):
        return stack
    if stack.whole is not None:
        return stack.whole
    if isinstance(options, InpaintOptions):
        is_ready = options.engine_for(stack.prompts_describe) != "model"
    else:
        is_ready = stack.suffices(options, has_hole)
    return stack if is_ready else stack.load()


def beyond(options: TaskOptions, picture: Picture | None, stack: "Model") -> tuple[str, ...]:
    """Return warnings if a model that was trained on damage is asked for subjects."""
    if getattr(stack, "prompts_describe", "") != "damage":
        return ()
    notes = []
    if not isinstance(options, UpscaleOptions) and options.prompt:
        notes.append("draws nothing from words: it was taught what damage is; give a --model")
    paints = isinstance(options, InpaintOptions) and options.engine_for("damage") == "model"
    if paints and picture and any(options.sides(picture.size)):
        notes.append(
            "paints no scene beyond the edges, it continues their colours, soon flat; give a "
            "--model that was taught what pictures show"
        )
    return tuple(f"{stack.name} {note}" for note in notes)


def of_tones(options: TaskOptions, picture: Picture | None) -> tuple[str, ...]:
    """Return a warning if a network is to read a picture in linear light, which none was taught."""
    if picture is None or picture.icc is None or isinstance(options, InpaintOptions):
        return ()
    if not is_linear(picture.icc, picture.grey):
        return ()
    return ("its profile is of linear light, in which dark parts come out worse; see --icc srgb",)


def on_some_device(attempt: Callable[[], Picture], stack: "Model") -> Picture:
    """Call `attempt`, and once more on the CPU if the device runs out of memory.

    Raises:
        OutOfMemoryError: If the CPU has too little memory too.
    """
    try:
        return attempt()
    except (RuntimeError, MemoryError) as error:
        from restore.diffusion.tiling import is_out_of_memory

        if not is_out_of_memory(error):
            raise
    # Outside of the block the error no longer holds tensors.
    try:
        with stack.on_cpu():
            result = attempt()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        mend = "not enough memory even for one window; use a smaller scale, or cut it into parts"
        raise OutOfMemoryError(mend) from error
    note = "computed on the CPU: there was not enough memory on its device"
    return replace(result, warnings=(*result.warnings, note))


def dispatch(
    picture: Picture | None,
    options: TaskOptions,
    stack: "Model",
    seed: int,
    on_step: OnStep,
    mask: np.ndarray | None,
    on_frame: "OnFrame",
) -> Picture:
    if isinstance(options, InpaintOptions):
        picture, mask = with_mask(picture, mask, options)
    if isinstance(stack, LazyStack):
        return without_sampling(picture, options, stack, seed, on_step, mask)
    from restore.pixel.model import PixelModel
    from restore.tasks.img2img import img2img
    from restore.tasks.inpaint import inpaint
    from restore.tasks.pixel_upscale import pixel_upscale, with_scale_of
    from restore.tasks.text2img import text2img
    from restore.tasks.upscale import upscale

    if isinstance(stack, PixelModel):
        settings = with_scale_of(options, stack)
        if picture is None:
            raise UsageError("upscale needs a picture")
        damage = None if mask is None else fitting(mask, picture) >= 128
        undamaged = without_damage(picture, damage)
        return pixel_upscale(undamaged, settings, stack, on_step, damage)
    if isinstance(options, Text2imgOptions):
        return text2img(options, stack, seed, on_step)
    if picture is None:
        raise UsageError(f"{options.task} needs a picture")
    if isinstance(options, Img2imgOptions):
        return img2img(picture, options, stack, seed, on_step, on_frame)
    if mask is not None:
        mask = fitting(mask, picture)
    if isinstance(options, UpscaleOptions):
        damage = None if mask is None else mask >= 128
        return upscale(picture, options, stack, seed, on_step, damage)
    assert mask is not None  # of with_mask
    return inpaint(picture, mask, options, stack, seed, on_step)


def without_sampling(
    picture: Picture | None,
    options: TaskOptions,
    stack: LazyStack,
    seed: int,
    on_step: OnStep,
    mask: np.ndarray | None,
) -> Picture:
    """Do what `needed` has found to need no more than a first stage; see dispatch."""
    assert picture is not None
    if isinstance(options, InpaintOptions):
        assert mask is not None  # of with_mask
        return fill_without_model(picture, mask, options, seed)
    assert isinstance(options, UpscaleOptions)
    return first_stage.upscale(picture, options, stack, on_step)


def with_mask(
    picture: Picture | None, mask: np.ndarray | None, options: InpaintOptions
) -> tuple[Picture, np.ndarray]:
    """Return the picture and its mask, black for a picture that is only extended.

    Raises:
        UsageError: If there is none, or its size is not the picture's.
    """
    if picture is None:
        raise UsageError("inpaint needs a picture")
    if mask is not None:
        return picture, fitting(mask, picture)
    if not (options.aspect or any(options.extend)):
        raise UsageError("inpaint needs a mask, white where it is to repaint, or sides to extend")
    return picture, np.zeros(picture.size, np.uint8)


def fitting(mask: np.ndarray, picture: Picture) -> np.ndarray:
    """Return the mask. Raises UsageError if its size is not the picture's."""
    if mask.shape != picture.size:
        raise UsageError(f"the mask is {mask.shape}, the picture {picture.size} (height, width)")
    return mask


def without_tints(picture: Picture | None, options: TaskOptions, stack: "Model") -> Picture | None:
    """Return a picture to enlarge marked as grey if it shows no colour: networks would tint it.

    A level between the channels is no colour: WebP decodes grey so. What does not enlarge stays as
    it is: words, and restorers at their own size, may be there to give colour.
    """
    if picture is None or not isinstance(options, UpscaleOptions):
        return picture
    if picture.grey or getattr(stack, "scale", SCALE) == 1:
        return picture
    bands = in_bands(bleed(picture).pixels)
    is_colourless = all((rows.max(2) - rows.min(2)).max() <= 1 for rows in bands)
    return replace(picture, grey=True) if is_colourless else picture


def is_lost(result: Picture, source: Picture | None) -> bool:
    """Whether the result is all black although its source is not nearly so."""
    if any(rows.any() for rows in in_bands(result.pixels)):
        return False
    if source is None:
        return True
    least = np.iinfo(source.pixels.dtype).max // 16
    return any(rows.max() > least for rows in in_bands(bleed(source).pixels))


def in_bands(pixels: np.ndarray) -> Iterator[np.ndarray]:
    for first in range(0, len(pixels), BAND):
        yield pixels[first : first + BAND]
        memmap.release_pages()
