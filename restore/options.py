"""What each task can be told. Free of torch, so that a wrong option is refused in no time."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from restore.config import Options

Sampler = Literal[
    "ddim",
    "ddpm",
    "pndm",
    "euler",
    "euler_a",
    "heun",
    "dpm++_2m",
    "dpm++_2m_karras",
    "dpm++_sde",
    "unipc",
    "lcm",
]
Side = Annotated[int, Field(ge=0, le=32768)]
Colour = Literal["none", "wavelet", "adain", "lowpass"]


class WalkOptions(Options):
    """How the walk from noise goes, whatever the task."""

    run_only: ClassVar[frozenset[str]] = frozenset({"windows"})

    steps: int | None = Field(default=None, ge=1, le=1000)  # None: as many as the model asks for
    sampler: Sampler = "ddim"
    sampler_options: dict[str, Any] = {}  # of diffusers' scheduler, by its names
    eta: float = Field(default=0, ge=0, le=1)  # ddim: the share of fresh noise a step
    guidance: float = Field(default=1, ge=0, le=30)  # 1 is off
    rescale: float = Field(default=0, ge=0, le=1)  # of guidance; 0 is off
    prompt: str = ""
    negative: str = ""
    clip_skip: int = Field(default=0, ge=0, le=48)  # last layers of the text encoder left out
    windows: int = Field(default=4, ge=1, le=256)  # run at once: memory against speed

    @property
    def words(self) -> dict[str, str]:
        """What the picture is to show, and what not, as far as that is said."""
        said = {"prompt": self.prompt, "negative": self.negative}
        return {name: words for name, words in said.items() if words}

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the result of a picture of `size`."""
        return size


class UpscaleOptions(WalkOptions):
    """How a picture is enlarged, or restored at its own size (scale 1), for a phone photo."""

    task: Literal["upscale"] = "upscale"
    scale: float = Field(default=4, ge=1, le=16)
    # of a walk after the model's first stage, 0 for none; None: as many as the model asks for
    steps: int | None = Field(default=None, ge=0, le=1000)
    # of a model with a first stage: 0 rich, 1 faithful; None: what the model is made for
    fidelity: float | None = Field(default=None, ge=0, le=1)
    # share of the fading that is undone where a picture below twice its size is noisy, as old
    # prints are; 0: its blacks stay as they are
    unfade: float = Field(default=0.5, ge=0, le=1)
    strength: float = Field(default=1, gt=0, le=1)  # 1 starts from pure noise
    noise_level: int = Field(default=20, ge=0, le=350)  # SD's x4 upscaler: noise on what it reads
    colour: Colour = "none"  # how the input's colours are given back

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the result of a picture of `size`, never below one pixel."""
        return max(1, round(size[0] * self.scale)), max(1, round(size[1] * self.scale))


class Text2imgOptions(WalkOptions):
    """How a picture is made from words alone; without a prompt, from nothing."""

    task: Literal["text2img"] = "text2img"
    height: int = Field(default=512, ge=1, le=32768)
    width: int = Field(default=512, ge=1, le=32768)
    guidance: float = Field(default=5, ge=0, le=30)


class InpaintOptions(WalkOptions):
    """How holes are filled; the defaults serve scratches and small objects."""

    task: Literal["inpaint"] = "inpaint"
    strength: float = Field(default=1, gt=0, le=1)  # below 1 what is in the hole counts
    guidance: float = Field(default=5, ge=0, le=30)
    threshold: int = Field(default=128, ge=1, le=255)  # of the mask; what reaches it is repainted
    invert: bool = False  # what does not reach it is
    extend: tuple[Side, Side, Side, Side] = (0, 0, 0, 0)  # px at left, top, right, bottom
    aspect: str = Field(default="", pattern=r"^(\d+(\.\d+)?:\d+(\.\d+)?)?$")  # or so far: 16:9
    grow: int = Field(default=0, ge=0, le=1024)  # px that the hole is widened by
    feather: int = Field(default=4, ge=0, le=1024)  # px round the hole where old and new blend
    context: float = Field(default=0.5, ge=0, le=8)  # seen on each side, a share of the hole's size
    engine: Literal["model", "telea", "navier_stokes"] = "model"

    def sides(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Pixels added at the left, top, right and bottom of a picture of `size`."""
        if not self.aspect:
            return self.extend
        height, width = size
        across, down = map(float, self.aspect.split(":"))
        wide = max(0, round(height * across / down) - width)
        tall = max(0, round(width * down / across) - height)
        return wide // 2, tall // 2, wide - wide // 2, tall - tall // 2

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        left, top, right, bottom = self.sides(size)
        return size[0] + top + bottom, size[1] + left + right

    @model_validator(mode="after")
    def _one_way_to_extend(self) -> Self:
        if self.aspect and any(self.extend):
            raise ValueError("extend or aspect, not both")
        if self.aspect and not all(map(float, self.aspect.split(":"))):
            raise ValueError(f"an aspect of {self.aspect} has no area")
        return self


class Img2imgOptions(WalkOptions):
    """How a picture is made from another one and words."""

    task: Literal["img2img"] = "img2img"
    strength: float = Field(default=0.6, gt=0, le=1)  # 1 leaves nothing of the input
    guidance: float = Field(default=5, ge=0, le=30)
    loopback: int = Field(default=1, ge=1, le=1000)  # times the result is fed back
    colour: Literal["none", "wavelet", "adain"] = "none"  # of the first input, in every frame
