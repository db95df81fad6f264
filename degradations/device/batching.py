"""Traces, each with steps of its own, run as few large steps of one kind."""

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from degradations.device import blur, codec, host_ops, noise, photo, resize, screen
from degradations.device.canvas import Canvas, exact_float32, quantise
from degradations.errors import RecipeError
from degradations.ops.op import Params, Size
from degradations.pipeline import Trace, target_size

# Pixels, at which a device spends about as long as on one more step's calls.
_WORTH_A_PART = {"cpu": 10_000, "cuda": 3_000_000}

Work = Callable[[Canvas, list[Params], list[Size]], Canvas]
_BY_KIND: dict[str, Work] = {
    **dict.fromkeys(("blur", "sinc", "motion_blur", "defocus"), blur.apply),
    "sharpen": blur.sharpen,
    "resize": resize.apply,
    **dict.fromkeys(("gaussian_noise", "poisson_noise", "speckle"), noise.apply),
    "film_grain": noise.film_grain,
    "sensor_noise": photo.sensor_noise,
    "fade": photo.fade,
    "cast": photo.cast,
    "chroma_shift": photo.chroma_shift,
    "banding": screen.banding,
    "halftone": screen.halftone,
    "scan_lines": screen.scan_lines,
    "jpeg": codec.apply,
    **dict.fromkeys(("scratches", "dust", "folds", "stains"), host_ops.damage),
}
_LAST = {"kind": "resize", "of": "target", "factor": 1, "mode": "bicubic", "antialias": True}


def degrade(traces: Sequence[Trace], hr: Tensor, differentiable: bool = False) -> Tensor:
    """Degrade a whole batch on its device, as `replay` does for each trace.

    Sizes and the order of steps follow from the traces, so nothing waits for the device, except for
    ops that run on the host: codecs other than JPEG, compat_*, and ops that are not ours.

    Args:
        traces: One a picture, all of one hr_size and one scale, from Recipe.draw or draw_batch.
        hr: (B, 3, H, W) RGB, uint8, or float in [0, 1].
        differentiable: Let gradients reach hr. They pass rounding, quantising and clipping
            unchanged, and noise is a constant.

    Returns:
        float32 (B, 3, h, w) in steps of 1 / 255.

    Raises:
        RecipeError: If the traces do not fit hr, or each other.
    """
    _check(traces, hr)
    for trace in traces:
        if trace.scale != traces[0].scale:
            raise RecipeError(
                f"the trace of {trace.key!r} is for scale {trace.scale:g}, the first one's for "
                f"{traces[0].scale:g}; make batches of one scale, or call degrade_each"
            )
    return _degrade(traces, hr, differentiable).rgb


def degrade_each(traces: Sequence[Trace], hr: Tensor, differentiable: bool = False) -> list[Tensor]:
    """As `degrade`, where each trace may have a scale of its own.

    A batch with three scales costs about as much as a batch with one, not three times as much.

    Args:
        traces: One a picture, all of one hr_size.
        hr: (B, 3, H, W) RGB, uint8, or float in [0, 1].
        differentiable: Let gradients reach hr.

    Returns:
        One float32 (3, h, w) a trace, in steps of 1 / 255.

    Raises:
        RecipeError: If the traces do not fit hr.
    """
    _check(traces, hr)
    canvas = _degrade(traces, hr, differentiable)
    rows = zip(canvas.rgb.unbind(0), canvas.sizes.tolist(), strict=True)
    return [rgb[:, :height, :width] for rgb, (height, width) in rows]


def _degrade(traces: Sequence[Trace], hr: Tensor, differentiable: bool) -> Canvas:
    targets = [target_size(trace.hr_size, trace.scale) for trace in traces]
    worth = _WORTH_A_PART.get(hr.device.type, _WORTH_A_PART["cuda"])
    with exact_float32(), torch.set_grad_enabled(differentiable and torch.is_grad_enabled()):
        rgb = hr / 255 if hr.dtype == torch.uint8 else hr.to(torch.float32, copy=True)
        canvas = Canvas(rgb, np.full((len(hr), 2), traces[0].hr_size))
        steps: list[list[Params]] = [list(trace.steps) for trace in traces]
        if sharpened := [i for i, trace in enumerate(traces) if trace.sharpen]:
            part = canvas.of(sharpened)
            canvas = canvas.put(sharpened, part.with_rgb(blur.sharpen_target(part.rgb)))
        while waiting := _waiting(steps, canvas, targets):
            together = _next(waiting, steps)
            work = waiting[together[0]][0]
            for rows in _by_size(together, canvas.sizes, worth):
                params = [steps[row].pop(0) if steps[row] else _LAST for row in rows]
                wanted = [targets[row] for row in rows]
                canvas = canvas.put(rows, work(canvas.of(rows), params, wanted))
        height, width = canvas.sizes.max(0)
        return canvas.with_rgb(quantise(canvas.rgb[..., :height, :width]) / 255)


def _waiting(
    steps: list[list[Params]], canvas: Canvas, targets: list[Size]
) -> dict[int, tuple[Work, str]]:
    """What each picture that is not done waits for; those that wait for the same go together."""
    waiting = {}
    for row, left in enumerate(steps):
        if left:
            params = left[0]
            # one chroma format at a time: the planes of each have another shape
            format_of = params["chroma"] if params["kind"] == "jpeg" else ""
            waiting[row] = _BY_KIND.get(params["kind"], host_ops.apply), format_of
        elif tuple(canvas.sizes[row]) != targets[row]:
            waiting[row] = resize.apply, ""
    return waiting


def _next(waiting: dict[int, tuple[Work, str]], steps: list[list[Params]]) -> list[int]:
    """The pictures to go on with: those that wait for what most of the furthest behind wait for.

    Pictures with fewer steps left can wait until the others have come to the same step.
    """
    most = max(len(steps[row]) for row in waiting)
    behind = Counter(what for row, what in waiting.items() if len(steps[row]) == most)
    wanted, _ = behind.most_common(1)[0]
    return [row for row, what in waiting.items() if what == wanted]


def _by_size(rows: list[int], sizes: np.ndarray, worth: int) -> list[list[int]]:
    """In parts, where that spares small pictures enough of a large canvas: `worth` pixels."""
    ordered = sorted(rows, key=lambda row: int(sizes[row].prod()))
    areas = np.maximum.accumulate(sizes[ordered]).prod(1)  # of a canvas for so many and one more
    spared = np.arange(1, len(rows) + 1) * (areas[-1] - areas)
    cut = int(spared.argmax()) + 1
    if spared[cut - 1] < worth:
        return [rows]
    return [*_by_size(sorted(ordered[:cut]), sizes, worth), sorted(ordered[cut:])]


def _check(traces: Sequence[Trace], hr: Tensor) -> None:
    if hr.ndim != 4 or hr.shape[1] != 3 or not (hr.is_floating_point() or hr.dtype == torch.uint8):
        raise ValueError(
            f"hr must be (B, 3, H, W), uint8 or float in [0, 1], not {hr.dtype} {tuple(hr.shape)}"
        )
    if len(traces) != len(hr) or not traces:
        raise RecipeError(f"{len(traces)} traces for {len(hr)} pictures; give one each")
    for trace in traces:
        if trace.hr_size != tuple(hr.shape[2:]):
            raise RecipeError(
                f"the trace of {trace.key!r} is of a picture of (height, width) {trace.hr_size}, "
                f"not {tuple(hr.shape[2:])}; replay it on the picture it was made from"
            )
