"""What a client can ask for: the options of the command line, by the same names."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from restore.batch.choices import PictureOptions
from restore.config import Options, explain
from restore.errors import ConfigError
from restore.options import Img2imgOptions, InpaintOptions, Text2imgOptions, UpscaleOptions

Seed = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(ge=1, le=16)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Folder = Annotated[str, Field(max_length=2000)]
Find = Literal["", "propose", "apply"]


class Request(Options):
    """FastAPI wants its models built, whatever the command line defers."""

    model_config = ConfigDict(defer_build=False)


class Asked(Request):
    """What every request may say; `model` is a name of /v1/models."""

    kind: str
    model: Name = "nano"
    seed: Seed = 0

    @property
    def task(self) -> str:
        return self.kind


class UpscaleAsked(Asked):
    """As `restore upscale`."""

    kind: Literal["upscale"] = "upscale"
    upscale: UpscaleOptions = UpscaleOptions()
    pictures: PictureOptions = PictureOptions()
    find_scratches: Find = ""
    fit_mask: bool = False


class InpaintAsked(Asked):
    """As `restore inpaint`."""

    kind: Literal["inpaint"] = "inpaint"
    inpaint: InpaintOptions = InpaintOptions()
    pictures: PictureOptions = PictureOptions()
    count: Count = 1
    fit_mask: bool = False


class Img2imgAsked(Asked):
    """As `restore img2img`."""

    kind: Literal["img2img"] = "img2img"
    img2img: Img2imgOptions = Img2imgOptions()
    pictures: PictureOptions = PictureOptions()


class Text2imgAsked(Asked):
    """As `restore text2img`."""

    kind: Literal["text2img"] = "text2img"
    text2img: Text2imgOptions = Text2imgOptions()
    count: Count = 1


class BatchAsked(Asked):
    """A folder of the server, as one run of the command line: one task, and where."""

    kind: Literal["batch"] = "batch"
    root: Name
    """One of /v1/folders."""
    folder: Folder = ""
    """Of pictures, told from the root."""
    out: Folder
    """Of results, told from the root."""
    upscale: UpscaleOptions | None = None
    img2img: Img2imgOptions | None = None
    pictures: PictureOptions = PictureOptions()
    find_scratches: Find = ""

    @property
    def options(self) -> UpscaleOptions | Img2imgOptions:
        return self.img2img or self.upscale or UpscaleOptions()

    @property
    def task(self) -> str:
        return self.options.task

    @model_validator(mode="after")
    def _one_task(self) -> Self:
        if self.upscale and self.img2img:
            raise ValueError("upscale or img2img, not both")
        if self.img2img and self.find_scratches:
            raise ValueError("find_scratches is of upscale")
        return self


class ScratchesAsked(Request):
    """A mask of what looks scratched."""

    kind: Literal["scratches"] = "scratches"


class RecipeAsked(Request):
    """What a recipe does to the pictures: a contact sheet, or pairs to train on."""

    recipe: Name
    """A name of /v1/recipes."""
    seed: Seed = 0
    scale: float = Field(default=4, ge=1, le=16)
    severity: float = Field(default=1, ge=0, le=1)
    crop: int = Field(default=256, ge=16, le=2048)


class SheetAsked(RecipeAsked):
    kind: Literal["sheet"] = "sheet"
    columns: int = Field(default=4, ge=1, le=8)


class PairsAsked(RecipeAsked):
    kind: Literal["pairs"] = "pairs"
    pairs: int = Field(default=16, ge=1, le=1000)


class EstimateAsked(Request):
    """A recipe fitted to photos, and a page on how well it fits."""

    kind: Literal["estimate"] = "estimate"
    name: str = Field(default="mine", pattern=r"^[a-z0-9_]{1,40}$")


AnyAsked = Annotated[
    UpscaleAsked
    | InpaintAsked
    | Img2imgAsked
    | Text2imgAsked
    | BatchAsked
    | ScratchesAsked
    | SheetAsked
    | PairsAsked
    | EstimateAsked,
    Field(discriminator="kind"),
]
Chosen = TypeVar("Chosen", bound=BaseModel)


def parsed(kind: type[Chosen], text: str) -> Chosen:
    """The request in a form's JSON. Raises ConfigError, a line a mistake."""
    try:
        return kind.model_validate_json(text or "{}")
    except ValidationError as error:
        lines = explain(error, kind, (), lambda way: "request")
        raise ConfigError("\n".join(lines)) from error


def safe_name(given: str | None, fallback: str = "picture") -> str:
    """An uploaded file's name as that of a plain file: no folder, nothing hidden, no control."""
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


def mistakes(errors: list[Mapping[str, Any]]) -> str:
    """pydantic's errors of a body as lines."""
    lines = []
    for error in errors:
        name = ".".join(str(part) for part in error["loc"] if part != "body")
        lines.append(f"request: {name}: {error['msg']}" if name else f"request: {error['msg']}")
    return "\n".join(lines)
