"""A kind of damage of one's own: what a worn video tape does to a still that is taken from it."""

from typing import Annotated, ClassVar

import cv2
import numpy as np

from degradations.ops.op import Op, Params, Size
from degradations.ranges import Range, Uniform, within
from degradations.rng import Rng


class Tape(Op):
    """Lines out of step, one field brighter than the other, colour smeared along the line."""

    neutral: ClassVar = {"jitter": 0, "fields": 0, "smear": 0}  # where there is none of it
    jitter: Annotated[Range, within(0, 10)] = Uniform(0.3, 1.2)  # px, deviation of a line's place
    fields: Annotated[Range, within(0, 1)] = Uniform(0.05, 0.25)  # how far apart in brightness
    smear: Annotated[Range, within(0, 50)] = Uniform(2, 8)  # px of line that share one colour

    def draw(self, rng: Rng) -> Params:
        return {name: getattr(self, name).draw(rng) for name in self.neutral} | {"seed": rng.bits()}

    @staticmethod
    def apply(rgb: np.ndarray, params: Params, target: Size) -> np.ndarray:
        height, width = rgb.shape[:2]
        y, x = np.mgrid[:height, :width].astype(np.float32)
        lines = np.random.default_rng(params["seed"])  # its seed was drawn: replay gives the same
        x += lines.normal(0, params["jitter"], (height, 1)).astype(np.float32)
        moved = cv2.remap(rgb, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        luma = moved.mean(2, keepdims=True)
        colour = cv2.blur(moved - luma, (1 + round(params["smear"]), 1))
        made = luma + colour
        made[0::2] *= np.float32(1 + params["fields"] / 2)
        made[1::2] *= np.float32(1 - params["fields"] / 2)
        return np.clip(made, 0, 1)
