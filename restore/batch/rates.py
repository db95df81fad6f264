"""How long a megapixel takes on this machine: measured once, saved, and updated by every run."""

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from restore.errors import counted
from restore.files import home_folder, write_text
from restore.options import Img2imgOptions, InpaintOptions, UpscaleOptions

if TYPE_CHECKING:
    from restore.checkpoints.arguments import Model

    FileOptions = UpscaleOptions | Img2imgOptions | InpaintOptions

MEGAPIXEL = 1_000_000
LARGE = 50 * MEGAPIXEL  # larger results take so long that they get a warning
ENOUGH = MEGAPIXEL // 4  # pixels of results before a rate is saved
MOST = 200  # rates that are saved
FEW, MORE = 2, 4  # steps of two short runs, which give the time of a longer one
SLOW_S = 2  # a probe that took longer is not repeated to leave out its warm-up
UNTIMED = {"scale", "prompt", "negative", "windows"}  # options without effect on the rate


class Rate:
    """Seconds for a megapixel of results, by one task, model and machine.

    Args:
        options: The task and its options.
        stack: Returns the model.
        made_by: What else decides the pixels, and so the time.
        count: Results of each picture.
        note: Called with messages for the user.
    """

    def __init__(
        self,
        options: "FileOptions",
        stack: "Callable[[], Model]",
        made_by: dict[str, object],
        count: int = 1,
        note: Callable[[str], None] = lambda text: None,
    ):
        self.options, self.stack, self.count, self.note = options, stack, count, note
        facts = {**options.dump_beside(made_by, UNTIMED), "count": count}
        facts |= {"machine": platform.node(), "cores": os.cpu_count()}
        self.key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
        self.seconds = self.pixels = 0.0  # of this run

    def add(self, seconds: float, pixels: int) -> None:
        """Add the time that a result of this many pixels took."""
        self.seconds += seconds
        self.pixels += pixels

    def get(self) -> float | None:
        """Seconds for a megapixel, measured by this run, an earlier one or a probe.

        None for inpaint, where the number and size of the holes decide. A probe may raise the
        errors of the task.
        """
        if isinstance(self.options, InpaintOptions):
            return None
        if self.pixels >= ENOUGH:
            return self._measured()
        rate = _read().get(self.key)
        if rate is None:
            model = self.stack()  # which may be refused
            self.note("measuring how fast this machine is, once")
            rate = probed(self.options, model) * self.count
            self._keep(rate)
        return rate

    def keep(self) -> None:
        """Save the rate of this run for the next one."""
        if self.pixels >= ENOUGH and not isinstance(self.options, InpaintOptions):
            self._keep(self._measured())

    def _measured(self) -> float:
        return self.seconds / self.pixels * MEGAPIXEL * self.count

    def _keep(self, rate: float) -> None:
        rates = _read()
        rates.pop(self.key, None)
        rates[self.key] = rate  # the newest is the last
        with suppress(OSError):  # without a cache every run measures again
            place = _file()
            place.parent.mkdir(parents=True, exist_ok=True)
            write_text(place, json.dumps(dict([*rates.items()][-MOST:]), indent=1) + "\n")


def probed(options: "FileOptions", model: "Model") -> float:
    """Measure the seconds for a megapixel with pictures of one window.

    Windows overlap: one counts only for the area that it adds to a large picture.
    """
    span = getattr(model, "span", None)
    if span is None:  # a pixel upscaler
        side = 128
        return _seconds(options, model, side) / (side * model.scale) ** 2 * MEGAPIXEL
    scale = options.scale if isinstance(options, UpscaleOptions) else 1
    side = max(1, int(span[0] / scale))
    steps = model.steps if options.steps is None else options.steps
    if steps <= MORE:
        taken = _seconds(options, model, side)
    else:
        few, more = (
            _seconds(options.model_copy(update={"steps": count}), model, side)
            for count in (FEW, MORE)
        )
        taken = few + max(0, more - few) / (MORE - FEW) * (steps - FEW)
    return taken / span[1] ** 2 * MEGAPIXEL


def _seconds(options: "FileOptions", model: "Model", side: int) -> float:
    """Seconds that a square picture takes."""
    import numpy as np

    from restore.images.picture import Picture
    from restore.tasks.run import restore

    ramp = np.linspace(0, 255, side, dtype=np.uint8)
    low: Picture = Picture(np.broadcast_to(ramp[:, None], (side, side, 3)).copy())
    taken = SLOW_S + 1.0
    for _ in range(2):  # the first call includes the warm-up
        began = time.monotonic()
        restore(low, options, model, seed=0)
        taken = time.monotonic() - began
        if taken > SLOW_S:
            break
    return taken


def warning(
    name: str, size: tuple[int, int], options: "FileOptions", rate: float | None, more: int = 0
) -> str:
    """A warning that a result is large, with its time, and smaller scales with theirs.

    Args:
        name: Of the picture.
        size: Its (height, width) in px.
        rate: Seconds for a megapixel; None: not known.
        more: The number of other pictures with large results.
    """
    height, width = options.output_size(size)

    def takes(pixels: float) -> str:
        time = f", about {format_duration(pixels / MEGAPIXEL * rate)}" if rate is not None else ""
        return f"{pixels / MEGAPIXEL:.0f} megapixels{time}"

    also = f" (and {counted(more, 'other picture')} more than {LARGE // MEGAPIXEL})" * (more > 0)
    scale = getattr(options, "scale", 1)
    less = [f"-s {s} makes {takes(size[0] * size[1] * s * s)}" for s in (2, 1) if s < scale]
    return "; ".join([f"{name}: its result has {takes(height * width)}{also}", *less])


def is_large(size: tuple[int, int]) -> bool:
    """Whether a result of (height, width) is so large that it gets a warning."""
    return size[0] * size[1] > LARGE


def format_duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


def _file() -> Path:
    return home_folder("cache") / "rates.json"


def _read() -> dict[str, float]:
    with suppress(OSError, ValueError, TypeError):
        rates = json.loads(_file().read_text(encoding="utf-8"))
        return {str(key): float(rate) for key, rate in dict(rates).items()}
    return {}
