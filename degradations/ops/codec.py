"""WebP and AVIF through Pillow, H.264 through PyAV (the extra `video`): the real codecs."""

import io
from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal

import cv2
import numpy as np
from PIL import Image, features

from degradations.errors import RecipeError
from degradations.ops.jpeg import to_uint8
from degradations.ops.op import Op, Params, Size, refuse_longer
from degradations.ranges import Choice, Range, Uniform, Words, among, within
from degradations.rng import Rng

PRESETS = ("ultrafast", "veryfast", "medium", "slow")
_WEBP_SIDE, _AVIF_SIDE, _H264_SIDE = 16383, 32768, 16384  # RFC 9649; libavif's and x264's own


class WebP(Op):
    """Save as lossy WebP (RFC 9649) and read again; the chroma is always 4:2:0."""

    kind: Literal["webp"] = "webp"
    neutral: ClassVar = {"quality": 100}
    fades: ClassVar = False
    quality: Annotated[Range, within(1, 100)] = Uniform(30, 95)
    """Quality on libwebp's scale, rounded."""

    def draw(self, rng: Rng) -> Params:
        return {"quality": round(self.quality.draw(rng))}

    @staticmethod
    def apply(rgb: np.ndarray, params: Params, target: Size) -> np.ndarray:
        refuse_longer("webp", rgb, _WEBP_SIDE)
        return through_pillow(rgb, "WEBP", quality=params["quality"])


class Avif(Op):
    """Save as AVIF (AV1 image format, AOMedia 2019) and read again."""

    kind: Literal["avif"] = "avif"
    neutral: ClassVar = {"quality": 100}
    fades: ClassVar = False
    quality: Annotated[Range, within(1, 100)] = Uniform(25, 90)
    """Quality on Pillow's scale, rounded."""
    chroma: Annotated[Words, among(("4:4:4", "4:2:2", "4:2:0"))] = Choice(("4:2:0",))
    """Chroma subsampling."""

    def draw(self, rng: Rng) -> Params:
        return {"quality": round(self.quality.draw(rng)), "chroma": self.chroma.draw(rng)}

    @staticmethod
    def apply(rgb: np.ndarray, params: Params, target: Size) -> np.ndarray:
        if not features.check("avif"):
            raise RecipeError("avif: this Pillow cannot write AVIF; pip install 'pillow>=11.3'")
        refuse_longer("avif", rgb, _AVIF_SIDE)
        options = {"quality": params["quality"], "subsampling": params["chroma"]}
        return through_pillow(rgb, "AVIF", **options, speed=8, max_threads=1)


class H264(Op):
    """A frame of a video (ITU-T H.264 by x264): an I-frame and one P-frame of the same picture."""

    kind: Literal["h264"] = "h264"
    neutral: ClassVar = {"crf": 0}  # lossless, but for the chroma
    fades: ClassVar = False
    crf: Annotated[Range, within(0, 51)] = Uniform(20, 38)
    """x264's constant rate factor."""
    preset: Annotated[Words, among(PRESETS)] = Choice(("veryfast", "medium"))
    """x264's preset."""

    def draw(self, rng: Rng) -> Params:
        return {"crf": self.crf.draw(rng), "preset": self.preset.draw(rng)}

    @staticmethod
    def apply(rgb: np.ndarray, params: Params, target: Size) -> np.ndarray:
        refuse_longer("h264", rgb, _H264_SIDE)
        coded = h264(to_uint8(rgb), params["crf"], params["preset"])
        return coded.astype(np.float32) * np.float32(1 / 255)


def through_pillow(rgb: np.ndarray, form: str, **options: Any) -> np.ndarray:
    """float32 (H, W, 3) -> the same, through a file in memory."""
    file = io.BytesIO()
    Image.fromarray(to_uint8(rgb)).save(file, form, **options)
    with Image.open(file, formats=[form]) as coded:
        return np.asarray(coded.convert("RGB"), np.float32) * np.float32(1 / 255)


def h264(rgb: np.ndarray, crf: float, preset: str) -> np.ndarray:
    """The second frame of a 4:2:0 stream of the same picture.

    Args:
        rgb: uint8 (H, W, 3).
        crf: x264's constant rate factor.
        preset: x264's preset.

    Raises:
        RecipeError: If PyAV is missing.
    """
    try:
        import av
    except ImportError as error:
        mend = "pip install 'restore-toolkit[video]', or av"
        raise RecipeError(f"h264: needs PyAV; {mend}") from error
    height, width = rgb.shape[:2]
    even = cv2.copyMakeBorder(rgb, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    encoder = av.CodecContext.create("libx264", "w")
    encoder.height, encoder.width = even.shape[:2]
    encoder.pix_fmt, encoder.time_base = "yuv420p", Fraction(1, 25)
    # one thread: x264 divides its rate control among them, which changes the pixels
    encoder.options = {"crf": f"{crf:.3f}", "preset": preset, "bf": "0", "threads": "1"}
    # with its macroblock tree, one run in a thousand gave other pixels
    encoder.options |= {"x264-params": "mbtree=0"}
    packets = []
    for pts in range(2):
        frame = av.VideoFrame.from_ndarray(even, format="rgb24")
        frame.pts = pts
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    decoder = av.CodecContext.create("h264", "r")
    frames = [frame for packet in (*packets, None) for frame in decoder.decode(packet)]
    return frames[-1].to_ndarray(format="rgb24")[:height, :width]
