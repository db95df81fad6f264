"""Requests of the HTTP API: the options of the command line, by the same names."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from restore.batch.picture_options import PictureOptions
from restore.config import Options
from restore.config_errors import explain
from restore.errors import ConfigError
from restore.options import Img2imgOptions, InpaintOptions, Text2imgOptions, UpscaleOptions

Seed = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(ge=1, le=16)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Folder = Annotated[str, Field(max_length=2000)]
Find = Literal["", "propose", "apply"]


class BaseRequest(Options):
    """Base of the requests. FastAPI needs models that are built at import."""

    model_config = ConfigDict(defer_build=False, use_attribute_docstrings=True)


class TaskRequest(BaseRequest):
    """Fields of every request that runs a model."""

    kind: str
    model: Annotated[str, Field(max_length=200)] = ""
    """A name of /v1/models; empty: the first of them."""
    seed: Seed = 0
    """Seed of all randomness; the same seed gives the same result."""
    lora: list[Name] = Field(default=[], max_length=8)
    """LoRAs, as `--lora`: each a name of /v1/adapters, or NAME=SCALE."""
    controlnet: Name | None = None
    """A ControlNet, as `--controlnet`: a name of /v1/adapters."""
    controlnet_scale: float = Field(default=1.0, ge=0, le=10)
    """How much the ControlNet counts; 1 is usual."""

    @property
    def task(self) -> str:
        """The task that the model must be able to do."""
        return self.kind


class UpscaleRequest(TaskRequest):
    """As `restore upscale`."""

    kind: Literal["upscale"] = "upscale"
    upscale: UpscaleOptions = UpscaleOptions()
    """How the picture is enlarged or restored."""
    pictures: PictureOptions = PictureOptions()
    """How the picture is read and written."""
    find_scratches: Find = ""
    """"propose" makes a mask of scratches and nothing else, "apply" repairs them too."""
    fit_mask: bool = False
    """Scale a mask of another size to the picture."""


class InpaintRequest(TaskRequest):
    """As `restore inpaint`."""

    kind: Literal["inpaint"] = "inpaint"
    inpaint: InpaintOptions = InpaintOptions()
    """How the hole is filled."""
    pictures: PictureOptions = PictureOptions()
    """How the picture is read and written."""
    count: Count = 1
    """Candidates to make."""
    fit_mask: bool = False
    """Scale a mask of another size to the picture."""


class Img2imgRequest(TaskRequest):
    """As `restore img2img`."""

    kind: Literal["img2img"] = "img2img"
    img2img: Img2imgOptions = Img2imgOptions()
    """How the picture is made."""
    pictures: PictureOptions = PictureOptions()
    """How the picture is read and written."""


class Text2imgRequest(TaskRequest):
    """As `restore text2img`."""

    kind: Literal["text2img"] = "text2img"
    text2img: Text2imgOptions = Text2imgOptions()
    """How the pictures are made."""
    count: Count = 1
    """Pictures to make."""


class BatchRequest(TaskRequest):
    """One task on a folder of the server, as one run of the command line."""

    kind: Literal["batch"] = "batch"
    root: Name
    """Name of a root, from /v1/folders."""
    folder: Folder = ""
    """Folder of pictures, relative to the root."""
    out: Folder
    """Folder for results, relative to the root."""
    upscale: UpscaleOptions | None = None
    """How pictures are enlarged or restored; the default task."""
    img2img: Img2imgOptions | None = None
    """How pictures are made anew; not together with `upscale`."""
    pictures: PictureOptions = PictureOptions()
    """How pictures are read and written."""
    find_scratches: Find = ""
    """"propose" makes masks of scratches and nothing else, "apply" repairs them too."""

    @property
    def options(self) -> UpscaleOptions | Img2imgOptions:
        """The options of the task."""
        return self.img2img or self.upscale or UpscaleOptions()

    @property
    def task(self) -> str:
        """The task that the model must be able to do."""
        return self.options.task

    @model_validator(mode="after")
    def _one_task(self) -> Self:
        if self.upscale and self.img2img:
            raise ValueError("upscale or img2img, not both")
        if self.img2img and self.find_scratches:
            raise ValueError("find_scratches is of upscale")
        return self


class ScratchesRequest(BaseRequest):
    """A mask of what looks scratched."""

    kind: Literal["scratches"] = "scratches"


class RecipeRequest(BaseRequest):
    """What a recipe does to the pictures: a contact sheet, or pairs to train on."""

    recipe: Name
    """A name of /v1/recipes."""
    seed: Seed = 0
    """Seed of the damage; the same seed gives the same damage."""
    scale: float = Field(default=4, ge=1, le=16)
    """How much smaller the damaged picture is."""
    severity: float = Field(default=1, ge=0, le=1)
    """Strength of the damage, from 0, none, to 1, the recipe's own."""
    crop: int = Field(default=256, ge=16, le=2048)
    """Side in pixels of the square that is cut from a picture."""


class SheetRequest(RecipeRequest):
    """A contact sheet of what a recipe does to pictures."""

    kind: Literal["sheet"] = "sheet"
    columns: int = Field(default=4, ge=1, le=8)
    """Damaged versions of each picture."""


class PairsRequest(RecipeRequest):
    """Pairs of damaged and clean pictures to train on."""

    kind: Literal["pairs"] = "pairs"
    pairs: int = Field(default=16, ge=1, le=1000)
    """Pairs to make."""


class EstimateRequest(BaseRequest):
    """A recipe fitted to photos, and a page on how well it fits."""

    kind: Literal["estimate"] = "estimate"
    name: str = Field(default="mine", pattern=r"^[a-z0-9_]{1,40}$")
    """Name for the recipe and its files."""


AnyRequest = Annotated[
    UpscaleRequest
    | InpaintRequest
    | Img2imgRequest
    | Text2imgRequest
    | BatchRequest
    | ScratchesRequest
    | SheetRequest
    | PairsRequest
    | EstimateRequest,
    Field(discriminator="kind"),
]
Chosen = TypeVar("Chosen", bound=BaseModel)


def parse(kind: type[Chosen], text: str) -> Chosen:
    """Parse the request in a form's JSON.

    Args:
        kind: Class of the request.
        text: JSON; "" means all defaults.

    Raises:
        ConfigError: It is wrong; the text has a line for each mistake.
    """
    try:
        return kind.model_validate_json(text or "{}")
    except ValidationError as error:
        lines = explain(error, kind, (), lambda way: "request")
        raise ConfigError("\n".join(lines)) from error


def safe_name(given: str | None, fallback: str = "picture") -> str:
    """Make an uploaded file's name safe: no folder, no leading dot, no control characters."""
    name = re.split(r"[/\\]", given or "")[-1]
    name = "".join(c for c in name if c.isprintable() and c not in '<>:"|?*').strip(" .")
    stem, dot, suffix = name.rpartition(".")
    if not dot:
        stem, suffix = name, ""
    room = 180 - len(suffix.encode()) if len(suffix) < 20 else 180
    stem = stem.encode()[:room].decode("utf-8", "ignore").strip(" .")
    if not stem.strip("_-"):
        stem = fallback
    return f"{stem}.{suffix}" if dot and 0 < len(suffix) < 20 else stem


def format_errors(errors: list[Mapping[str, Any]]) -> str:
    """Format pydantic's errors of a request's body, a line each."""
    lines = []
    for error in errors:
        if error["type"] == "json_invalid":
            place, why = error["loc"][-1], error["ctx"]["error"]
            lines.append(f"request: is no JSON: {why}, at character {place}")
            continue
        name = ".".join(str(part) for part in error["loc"] if part != "body")
        lines.append(f"request: {name}: {error['msg']}" if name else f"request: {error['msg']}")
    return "\n".join(lines)
