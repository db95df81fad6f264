"""Whole batches in torch, on any device, from the traces of the same recipes.

traces = [recipe.draw(hr.shape[2:], scale=4, seed=0, key=key) for key in keys]
lr = degradations.device.degrade(traces, hr)  # what degradations.replay gives, to rounding
target = degradations.device.sharpen(hr)  # for recipes with `sharpen: true`
"""

from degradations.device.batching import degrade
from degradations.device.blur import sharpen_target as sharpen
from degradations.device.codec import jpeg

__all__ = ["degrade", "jpeg", "sharpen"]
