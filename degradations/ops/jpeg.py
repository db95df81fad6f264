"""JPEG by the real codec: what libjpeg-turbo writes and reads."""

from typing import Annotated, ClassVar, Literal

import cv2
import numpy as np

from degradations.ops.op import Op, Params, Size, refuse_longer
from degradations.ranges import Choice, Range, Uniform, Words, among, within
from degradations.rng import Rng

_SIDE = 65500  # libjpeg's own
_SAMPLING = {
    "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    "4:2:2": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "4:4:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
}
# ITU-T T.81, tables K.1 and K.2
LUMA_TABLE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
CHROMA_TABLE = np.full((8, 8), 99)
CHROMA_TABLE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]


class Jpeg(Op):
    """Save as JPEG and read again; out of the range [0, 1] is clipped first."""

    kind: Literal["jpeg"] = "jpeg"
    neutral: ClassVar = {"quality": 100}
    fades: ClassVar = False  # the chroma is still subsampled
    quality: Annotated[Range, within(1, 100)] = Uniform(30, 95)
    """Quality on libjpeg's scale, rounded."""
    chroma: Annotated[Words, among(tuple(_SAMPLING))] = Choice(("4:2:0",))
    """Chroma subsampling."""

    def draw(self, rng: Rng) -> Params:
        return {"quality": round(self.quality.draw(rng)), "chroma": self.chroma.draw(rng)}

    @staticmethod
    def apply(rgb: np.ndarray, params: Params, target: Size) -> np.ndarray:
        refuse_longer("jpeg", rgb, _SIDE)
        coded = jpeg(to_uint8(rgb), params["quality"], params["chroma"])
        return coded.astype(np.float32) * np.float32(1 / 255)


def to_uint8(rgb: np.ndarray) -> np.ndarray:
    """float32 [0, 1] -> uint8, clipped and rounded."""
    _, above = cv2.threshold(rgb, 0, 0, cv2.THRESH_TOZERO)  # or the absolute values would be taken
    return cv2.convertScaleAbs(above, alpha=255)


def jpeg(rgb: np.ndarray, quality: int, chroma: str) -> np.ndarray:
    """uint8 (H, W, 3) -> uint8 (H, W, 3), through a baseline JPEG file in memory."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality]
    options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, _SAMPLING[chroma]]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), options)
    decoded = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
    assert decoded is not None
    return decoded
