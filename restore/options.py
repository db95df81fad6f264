"""What each task can be told. Free of torch, so that a wrong option is refused in no time."""

from typing import ClassVar, Literal

from pydantic import Field

from restore.config import Options

Sampler = Literal["ddim", "ddpm", "euler", "euler_a", "heun", "dpm++_2m", "unipc", "lcm"]


class UpscaleOptions(Options):
    """How a picture is enlarged, or restored at its own size (scale 1), for a phone photo."""

    run_only: ClassVar[frozenset[str]] = frozenset({"windows"})

    task: Literal["upscale"] = "upscale"
    scale: float = Field(default=4, ge=1, le=16)
    steps: int = Field(default=1, ge=1, le=1000)  # 1 is the faithful average
    strength: float = Field(default=1, gt=0, le=1)  # 1 starts from pure noise
    sampler: Sampler = "ddim"
    guidance: float = Field(default=1.0, ge=0, le=30)  # 1 is off
    prompt: str = ""
    negative: str = ""
    windows: int = Field(default=4, ge=1, le=256)  # run at once: memory against speed

    def output_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the result of a picture of `size`, never below one pixel."""
        return max(1, round(size[0] * self.scale)), max(1, round(size[1] * self.scale))
