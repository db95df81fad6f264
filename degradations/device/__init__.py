"""Whole batches in torch, on any device, from the traces of the same recipes.

traces = recipe.draw_batch(hr.shape[2:], scale=4, seed=0, keys=keys)
lr = degradations.device.degrade(traces, hr)  # what degradations.replay gives, to rounding
target = degradations.device.sharpen(hr)  # for recipes with `sharpen: true`
"""

from degradations.device.batching import degrade, degrade_each
from degradations.device.blur import sharpen_target as sharpen
from degradations.device.codec import jpeg

__all__ = ["degrade", "degrade_each", "jpeg", "sharpen"]
