"""The options of each task. Free of torch, so that a wrong option is refused in no time."""

import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

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
    """How a picture is sampled, whatever the task."""

    run_only: ClassVar[frozenset[str]] = frozenset({"windows"})

    steps: int | None = Field(default=None, ge=1, le=1000)
    """Steps of sampling; None: as many as the model asks for."""
    sampler: Sampler = "ddim"
    """The scheduler of diffusers that samples."""
    sampler_options: dict[str, Any] = {}
    """More arguments of diffusers' scheduler, by its own names."""
    eta: float = Field(default=0, ge=0, le=1)
    """Share of fresh noise in each step of ddim."""
    guidance: float = Field(default=1, ge=0, le=30)
    """Scale of classifier-free guidance; as in diffusers, 0 to 1 is off."""
    rescale: float = Field(default=0, ge=0, le=1)
    """Share by which guidance is rescaled (Lin et al. 2024); 0 is off."""
    prompt: str = ""
    """What the picture is to show."""
    negative: str = ""
    """What the picture is not to show."""
    clip_skip: int = Field(default=0, ge=0, le=48)
    """Number of last layers of the text encoder that are left out."""
    windows: int = Field(default=4, ge=1, le=256)
    """Windows that run at once: more are faster and take more memory."""

    @field_validator("sampler_options")
    @classmethod
    def _numbers_are_no_text(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key, one in value.items():
            if isinstance(one, str) and re.fullmatch(r"[-+]?[\d.]+e[-+]?\d+", one, re.IGNORECASE):
                mend = "write a point, and a sign after the e, as in 1.0e-4"
                raise ValueError(f"YAML reads {one} of {key} as text; {mend}")
        return value

    @model_validator(mode="after")
    def _eta_is_of_ddim(self) -> Self:
        if self.eta and self.sampler != "ddim":
            raise ValueError(f"eta {self.eta:g} is for the sampler ddim, not {self.sampler}")
        return self

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
    """How many times larger the result is on each side; 1 restores at the same size."""
    steps: int | None = Field(default=None, ge=0, le=1000)
    """Steps of sampling after the model's first stage, 0 for none; None: as many as the model asks
    for.
    """
    fidelity: float | None = Field(default=None, ge=0, le=1)
    """0 is sharp, 1 is faithful; None: what the model is made for. A pixel upscaler's own result,
    0, is blended with nano's faithful one.
    """
    unfade: float = Field(default=0.5, ge=0, le=1)
    """Share of the fading that is undone where a result below twice the input's size comes from a
    noisy picture, as old prints are; 0 leaves its blacks as they are.
    """
    strength: float = Field(default=1, gt=0, le=1)
    """Share of the noise that sampling starts from; 1 is pure noise."""
    noise_level: int = Field(default=20, ge=0, le=350)
    """For SD's x4 upscaler: level of the noise that is added to its input."""
    colour: Colour = "none"
    """How the colours of the input are given back."""

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the result of a picture of `size`, never below one pixel."""
        return max(1, round(size[0] * self.scale)), max(1, round(size[1] * self.scale))


class Text2imgOptions(WalkOptions):
    """How a picture is made from words alone; without a prompt, from nothing."""

    task: Literal["text2img"] = "text2img"
    height: int = Field(default=512, ge=1, le=32768)
    """Pixels."""
    width: int = Field(default=512, ge=1, le=32768)
    """Pixels."""
    guidance: float = Field(default=5, ge=0, le=30)


class InpaintOptions(WalkOptions):
    """How holes are filled; the defaults serve scratches and small objects."""

    task: Literal["inpaint"] = "inpaint"
    strength: float = Field(default=1, gt=0, le=1)
    """Share of the noise that sampling starts from; below 1 the old content of the hole counts."""
    guidance: float = Field(default=5, ge=0, le=30)
    threshold: int = Field(default=128, ge=1, le=255)
    """Value of the mask from which on a pixel is repainted."""
    invert: bool = False
    """Repaint the pixels below the threshold instead."""
    extend: tuple[Side, Side, Side, Side] = (0, 0, 0, 0)
    """Pixels added at the left, top, right and bottom."""
    aspect: str = Field(default="", pattern=r"^(\d+(\.\d+)?:\d+(\.\d+)?)?$")
    """Aspect that the picture is extended to, such as 16:9; instead of `extend`."""
    grow: int = Field(default=0, ge=0, le=1024)
    """Pixels by which the hole is widened."""
    feather: int = Field(default=4, ge=0, le=1024)
    """Pixels round the hole over which old and what a model paints are blended."""
    context: float = Field(default=0.5, ge=0, le=8)
    """What the model sees on each side of the hole, as a share of the hole's size."""
    engine: Literal["auto", "model", "patchmatch", "telea", "navier_stokes"] = "auto"
    """What fills the hole: the model, patches from elsewhere in the picture, or OpenCV.

    `auto` is the model if it was taught subjects, or if there are words or a strength below 1;
    else `patchmatch`.
    """

    def engine_for(self, prompts_describe: str) -> str:
        """Return what fills the hole, with a model of "subjects" or of "damage".

        A model of subjects was chosen for what it paints. A model of damage restores, and has seen
        too few pictures to invent: patches of the picture itself are closer to the truth.
        """
        if self.engine != "auto":
            return self.engine
        paints = prompts_describe != "damage" or self.words or self.strength < 1
        return "model" if paints else "patchmatch"

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
    strength: float = Field(default=0.6, gt=0, le=1)
    """Share of the noise that sampling starts from; 1 leaves nothing of the input."""
    guidance: float = Field(default=5, ge=0, le=30)
    loopback: int = Field(default=1, ge=1, le=1000)
    """How many times the result is fed back as the next input."""
    colour: Literal["none", "wavelet", "adain"] = "none"
    """How each frame takes over the colours of the first input."""
