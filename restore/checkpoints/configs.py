"""Read configs of unknown origin: only fields that a class accepts, only plain values."""

import inspect
import json
import math
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from restore.errors import ModelError
from restore.storage import sealed

MOST = 2**26  # bytes of a config or a vocabulary
LARGEST, LONGEST, DEEPEST = 10**6, 10**4, 3  # largest number, longest list, deepest nesting
REPEATED = re.compile(r"layers|blocks|repeat")  # fields that count layers or blocks
REPEATS = 128
WORD = re.compile(r"[\w.+:-]{0,64}")
KEPT = {"_class_name", "_diffusers_version", "_use_default_values"}  # diffusers' own fields
UNCLIPPED = "lambda_min_clipped", -math.inf  # as diffusers saves it for DPM solvers
FILES = ("tokenizer.json", "vocab.json", "merges.txt")
Count = Annotated[int, Field(ge=1, le=65536)]
Share = Annotated[float, Field(ge=0, le=1000)]
Token = Annotated[int, Field(ge=-1, le=LARGEST)]


class Told(BaseModel):
    """Base class of configs that are read here; other fields are ignored."""

    model_config = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)


class Clip(Told):
    """Config of CLIP's text encoder."""

    vocab_size: Annotated[int, Field(ge=1, le=LARGEST)] = 49408
    hidden_size: Count = 512
    intermediate_size: Count = 2048
    projection_dim: Count | None = 512
    num_hidden_layers: Annotated[int, Field(ge=0, le=REPEATS)] = 12
    num_attention_heads: Count = 8
    max_position_embeddings: Count = 77
    hidden_act: Literal["quick_gelu", "gelu", "gelu_new", "relu", "silu"] = "quick_gelu"
    layer_norm_eps: Share | None = 1e-5
    attention_dropout: Share | None = 0
    initializer_range: Share = 0.02
    initializer_factor: Share | None = 1
    pad_token_id: Token | None = 1
    bos_token_id: Token | None = 49406
    eos_token_id: Token | None = 49407


class Grid(Told):
    """The grid of a UNet's windows, in latents."""

    size: Annotated[int, Field(ge=1, le=4096)]
    stride: Annotated[int, Field(ge=1, le=4096)]

    @model_validator(mode="after")
    def _overlaps_by_half_at_most(self) -> Self:
        if not self.size / 2 <= self.stride <= self.size:
            raise ValueError(f"a stride of {self.stride} does not suit windows of {self.size}")
        return self


class Pixels(Told):
    """ "pixels" in stack.json, of an exported pixel upscaler; see PixelModel and PixelWindows."""

    scale: Annotated[int, Field(ge=1, le=64)]
    inner: Annotated[int, Field(ge=1, le=65536)]
    margin: Annotated[int, Field(ge=0, le=4096)]
    ramp: Annotated[int, Field(ge=0, le=4096)]
    bytes_a_pixel: Annotated[int, Field(ge=1)]
    multiple: Annotated[int, Field(ge=1, le=4096)] = 1
    least: Annotated[int, Field(ge=0, le=4096)] = 0
    wants_whole: bool = False
    about: dict[str, str] = {}


class About(Told):
    """stack.json; see Stack for the fields."""

    trust: bool = False
    residual_scale: Annotated[float, Field(gt=0, le=1000)] | None = None
    fills: bool | None = None
    steps: Annotated[int, Field(ge=1, le=1000)] = 20
    hears: Literal["subjects", "damage"] = "subjects"
    fidelity: Annotated[float, Field(ge=0, le=1)] = 0.0
    restore_steps: Annotated[int, Field(ge=0, le=1000)] = 0
    context: Annotated[str, Field(max_length=64)] | None = None
    windows: Grid | None = None
    engine: Literal["", "onnx"] = ""  # what computes its networks; empty for torch
    pixels: Pixels | None = None  # if it is an exported pixel upscaler


def about(folder: Path) -> About:
    """Read stack.json; the defaults if there is none. Raises ModelError."""
    path = folder / "stack.json"
    try:
        return _checked(About, json.loads(sealed.read(path, MOST)))
    except FileNotFoundError:
        return About()
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: cannot be used: {error}; copy it again") from error


class FirstStage(Told):
    """Config of a first stage's network; see restore.diffusion.restorer."""

    channels: Annotated[int, Field(ge=1, le=4096)]
    layers: Annotated[int, Field(ge=0, le=REPEATS)]


def first_stage(folder: Path, part: str) -> FirstStage:
    """Read the config of a first stage's network. Raises ModelError."""
    try:
        return _checked(FirstStage, of(folder, part))
    except ValueError as error:
        message = f"{folder / part}: no network can be built of its config: {error}"
        raise ModelError(message) from error


def of(folder: Path, part: str, file: str = "config.json") -> dict[str, Any]:
    """Read the config of a component. Raises ModelError if it cannot be read."""
    path = folder / part / file
    try:
        config = json.loads(sealed.read(path, MOST))
        if not isinstance(config, dict):
            raise ValueError("it holds no object")
        return config
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path}: the {part} has no readable config: {error}") from error


class Special(Told):
    """A special token of a tokenizer."""

    content: str = Field(max_length=256)
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = True
    single_word: bool = False
    special: bool = False


class Tokenizer(Told):
    """tokenizer_config.json and special_tokens_map.json."""

    bos_token: str | Special | None = None
    eos_token: str | Special | None = None
    pad_token: str | Special | None = None
    unk_token: str | Special | None = None
    added_tokens_decoder: dict[str, Special] = {}
    model_max_length: Annotated[int, Field(ge=3)] | None = None


def clip(config: Mapping[str, Any]) -> dict[str, Any]:
    """Check the config of CLIP's text encoder. Raises ValueError that names a wrong field."""
    return _checked(Clip, config).model_dump(exclude_unset=True)


def fields_of(config: Mapping[str, Any], *kinds: type) -> dict[str, Any]:
    """Return the fields that any of the diffusers classes accepts.

    Raises:
        ValueError: For an odd value.
    """
    known = KEPT.union(*(inspect.signature(kind).parameters for kind in kinds)) - {"kwargs", "args"}
    chosen = {name: value for name, value in config.items() if name in known}
    for name, value in chosen.items():
        if (name, value) != UNCLIPPED:
            _refuse_odd(name, value, name not in KEPT)
    return chosen


def _refuse_odd(name: str, value: Any, is_number: bool, depth: int = 0) -> None:
    if isinstance(value, list) and depth < DEEPEST and len(value) <= LONGEST:
        for inner in value:
            _refuse_odd(name, inner, is_number, depth + 1)
    elif isinstance(value, str):
        if not WORD.fullmatch(value):
            raise ValueError(f"{name}: {value[:64]!r} is no word that it can be")
    elif isinstance(value, int | float):
        most = REPEATS if REPEATED.search(name) else LARGEST
        if not math.isfinite(value) or abs(value) > most:
            raise ValueError(f"{name}: {value!r:.64} is beyond {most}")
    elif value is not None:
        raise ValueError(f"{name}: {str(value)[:64]} is no plain value")


def _checked(model: type[Told], config: object) -> Any:
    try:
        return model.model_validate(config)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ValueError(f"{place}: {first['msg']}, not {str(first['input'])[:64]!r}") from error


@contextmanager
def tokenizer(part: Path) -> Iterator[Path]:
    """Yield a temporary folder with a tokenizer's vocabulary and checked configs, nothing else.

    Raises:
        ModelError: If a config is wrong.
        OSError: If a file cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="restore-tokenizer-") as lent:
        for name in FILES:
            if sealed.is_file(part / name):
                (Path(lent) / name).write_bytes(sealed.read(part / name, MOST))
        for name in ("tokenizer_config.json", "special_tokens_map.json"):
            if not sealed.is_file(part / name):
                continue
            try:
                config = _checked(Tokenizer, json.loads(sealed.read(part / name, MOST)))
            except (ValueError, RecursionError) as error:
                raise ModelError(f"{part / name}: cannot be used: {error}") from error
            text = json.dumps(config.model_dump(exclude_unset=True))
            (Path(lent) / name).write_text(text, encoding="utf-8")
        yield Path(lent)
