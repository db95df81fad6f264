"""HR -> LR, and a trace of all draws; replay(trace, hr) makes the same bytes again."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np
import yaml
from pydantic import ValidationError

from degradations import consent, ops, plain_yaml
from degradations.draws import draw, draw_all
from degradations.errors import RecipeError, mend
from degradations.ops import plugins
from degradations.ops.compose import weaken
from degradations.ops.damage import Damage, to_mask
from degradations.ops.jpeg import to_uint8
from degradations.ops.op import Frozen, Op, Params, Size
from degradations.ops.sharpen import sharpen
from degradations.rng import Rng
from degradations.trace import Trace, plain_text

# A recipe need not end at the target size.
MISTAKES = (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError)
MISTAKES += (cv2.error, MemoryError, AssertionError, RuntimeError, OSError)
_ENDING = {"of": "target", "factor": 1, "mode": "bicubic", "antialias": True}


@dataclass(frozen=True)
class Degraded:
    """A degraded picture, and how it was made."""

    lr: np.ndarray
    """uint8 (h, w, 3) RGB."""
    trace: Trace
    """How lr was made."""
    damage: np.ndarray
    """uint8 (h, w): 255 where a scratch, fold or the like was drawn, or where blur, resizing or
    sharpening spread it; else 0. What a codec spreads within its blocks is not included.
    """


class Recipe(Frozen):
    """Steps from a good picture to a bad one. The target size is always met exactly."""

    name: str
    """Name of the recipe."""
    paper: str = ""
    """The paper, or another source of the numbers."""
    sharpen: bool = False
    """Apply unsharp masking to the input; the training target is to be sharpened as well."""
    steps: tuple[ops.Step, ...] = ()
    """The steps, in order."""

    @classmethod
    def load(cls, path: str | Path, allow_code: bool = False) -> Self:
        """Read a recipe from a YAML file.

        An op of your own (`kind: my_ops.Rust`) is loaded from my_ops.py beside the file, or from
        the Python path. Its code runs only if that was allowed, now or before, for the file as it
        is.

        Args:
            path: The YAML file.
            allow_code: Allow the code that the recipe names, and remember that.

        Raises:
            RecipeError: Names the file, the key and the mend.
        """
        values = plain_yaml.read(path)
        try:
            with consent.given(allow_code):
                return cls.model_validate(values, context=Path(path).parent)
        except ValidationError as error:
            raise RecipeError("\n".join(_explain(path, cls, error))) from error

    def __reduce__(self):
        """Pickle the values, and the files of user ops, which a new process has to load first."""
        values = self.model_dump(mode="json")
        return _unpickle, (type(self), values, plugins.files(values))

    def to_yaml(self) -> str:
        """The recipe as YAML that `load` reads back equal; defaults are left out."""
        how: dict[str, Any] = {"default_flow_style": None, "allow_unicode": True}
        return yaml.safe_dump(_spell(self), sort_keys=False, width=100, **how)

    def save(self, path: str | Path, *comments: str) -> None:
        """Write the recipe as YAML, with the comments at its head."""
        lines = (line for comment in comments for line in comment.splitlines())
        plain = ("".join(c if c.isprintable() else " " for c in line) for line in lines)
        head = "".join(f"# {line}\n" for line in plain)
        Path(path).write_text(head + self.to_yaml(), encoding="utf-8")

    def at(self, severity: float) -> Self:
        """The recipe at another severity.

        Every strength moves in proportion towards its neutral value: noise and blur to 0, the sinc
        cutoff to pi, resize factors to 1, JPEG quality to 100. Probabilities stay, except for steps
        that change the picture even then (codecs, sinc, a sensor's mosaic): below 0.25 these come
        less often, so that the limit at 0 is the picture of severity 0. `sharpen` stays as well,
        because the training target has it too.

        Args:
            severity: In [0, 1]: 1 is the recipe itself, 0 is only the resize to the target.
        """
        if not 0 <= severity <= 1:
            raise ValueError(f"severity must be from 0 to 1, not {severity}")
        if severity == 1:
            return self
        return type(self)(
            name=f"{self.name}@{severity:.4g}",
            paper=self.paper,
            sharpen=self.sharpen,
            steps=weaken(self.steps, severity),
        )

    def digest(self) -> str:
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return blake2b(self.model_dump_json().encode(), digest_size=8).hexdigest()

    def model_copy(self, **how: Any) -> Self:
        copied = super().model_copy(**how)
        copied.__dict__.pop("_digest", None)  # pydantic copies what was cached with the values
        return copied

    def degrade(self, hr: np.ndarray, scale: float, seed: int, key: str) -> Degraded:
        """Degrade one picture; the result is a function of (recipe, hr, scale, seed, key) alone.

        Args:
            hr: uint8 (H, W, 3) RGB.
            scale: 1 or more; lr is (round(H / scale), round(W / scale)), at least one pixel.
            seed: Seed of the draws.
            key: Names the picture, so that each has draws of its own.
        """
        _check(hr)
        return rebuild(self.draw(hr.shape[:2], scale, seed, key), hr)

    def draw(self, size: Size, scale: float, seed: int, key: str) -> Trace:
        """Draw what `degrade` would do to a picture of this size, without doing it.

        Args:
            size: (height, width) of the picture.
            scale: 1 or more.
            seed: Seed of the draws.
            key: Names the picture.
        """
        steps = [params for drawn in self.draw_by_step(seed, key) for params in drawn]
        return self._trace(size, scale, seed, key, steps)

    def draw_batch(self, size: Size, scale: float, seed: int, keys: Iterable[str]) -> list[Trace]:
        """Draw the traces of many pictures of one size, faster than by `draw`.

        Args:
            size: (height, width) of every picture.
            scale: HR size over LR size.
            seed: Seed of all draws.
            keys: One for each picture.

        Returns:
            The traces that `draw` gives for each key.
        """
        keys = list(keys)
        drawn = draw_all(self.steps, seed, keys)
        return [
            self._trace(size, scale, seed, key, steps)
            for key, steps in zip(keys, drawn, strict=True)
        ]

    def _trace(self, size: Size, scale: float, seed: int, key: str, steps: list[Params]) -> Trace:
        trace = Trace(
            recipe=self.name,
            digest=self.digest(),
            seed=int(seed),
            key=plain_text(key),
            scale=float(scale),
            hr_size=size,
            sharpen=self.sharpen,
            steps=steps,
        )
        try:
            trace.check()
        except ValueError as error:
            raise RecipeError(f"{self.name}: a trace of {key!r} cannot be: {error}") from error
        return trace

    def draw_by_step(self, seed: int, key: str) -> list[list[Params]]:
        """What `draw` draws, one list for each step of the recipe."""
        rng = Rng(seed, key)
        return [list(draw(step, rng.at(slot))) for slot, step in enumerate(self.steps)]


def _unpickle(
    model: type[Recipe], values: dict[str, Any], files: dict[str, tuple[str, str]]
) -> Recipe:
    with consent.by_sender():
        for module, (path, digest) in files.items():
            plugins.load(module, path, digest)
        return model.model_validate(values)


def replay(trace: Trace, hr: np.ndarray) -> np.ndarray:
    """Make the degraded picture again.

    It is the same bit for bit on the same kind of processor with the same versions of the packages.

    Args:
        trace: The trace of a degraded picture.
        hr: uint8 (H, W, 3), the picture it was made from.

    Returns:
        uint8 (h, w, 3).

    Raises:
        RecipeError: If the picture has another size, or a step cannot be done.
    """
    return rebuild(trace, hr).lr


def rebuild(trace: Trace, hr: np.ndarray) -> Degraded:
    """As `replay`, with the damage mask as well."""
    _check(hr)
    if hr.shape[:2] != trace.hr_size:
        raise RecipeError(
            f"the trace of {trace.key!r} is of a picture of (height, width) {trace.hr_size}, "
            f"not {hr.shape[:2]}; replay it on the picture it was made from"
        )
    target = target_size(trace.hr_size, trace.scale)
    hr = sharpen(hr) if trace.sharpen else hr
    rgb = hr.astype(np.float32, order="C")
    rgb *= np.float32(1 / 255)
    marks = None  # float32 (H, W): how much of each pixel is damage
    for number, params in enumerate(trace.steps):
        op, size = _op(params), rgb.shape[:2]
        with _named(number, params):
            rgb = apply_step(rgb, params, target)
            if marks is not None:
                marks = op.spread(marks, params, target)
            if issubclass(op, Damage):
                cover, _ = op.layer(params, size)
                marks = cover if marks is None else 1 - (1 - marks) * (1 - cover)
    rgb = ops.Resize.apply(rgb, _ENDING, target)
    if marks is None:
        return Degraded(to_uint8(rgb), trace, np.zeros(target, np.uint8))
    return Degraded(to_uint8(rgb), trace, to_mask(ops.Resize.spread(marks, _ENDING, target)))


@contextmanager
def _named(number: int, params: Params) -> Iterator[None]:
    """Name the step in errors that an op raises for values which it never draws."""
    try:
        yield
    except RecipeError:
        raise
    except MISTAKES as error:
        reason = (
            f"lacks {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
        )
        reason = " ".join(reason.split())[:300]
        raise RecipeError(f"steps[{number}] ({params['kind']}) cannot be done: {reason}") from error


def apply_step(rgb: np.ndarray, params: Params, target: Size) -> np.ndarray:
    """Apply one step of a trace: float32 (H, W, 3) -> the same, resized if the step resizes."""
    kind, op = params["kind"], _op(params)
    if kind in ops.OPS:
        return op.apply(rgb, params, target)
    return plugins.apply(kind, op, rgb, params, target)


def _check(hr: np.ndarray) -> None:
    if not isinstance(hr, np.ndarray):
        how = 'np.asarray(PIL.Image.open(path).convert("RGB")) makes one'
        kind = type(hr).__name__
        raise ValueError(f"hr must be a numpy array, uint8 (H, W, 3) RGB, not {kind}; {how}")
    if hr.dtype == np.uint8 and hr.ndim == 3 and hr.shape[2] == 3 and hr.size > 0:
        return
    how = "give uint8 RGB with at least one pixel"
    if hr.ndim == 2 or (hr.ndim == 3 and hr.shape[2] == 1):
        how = "repeat the grey: np.repeat(hr.reshape(*hr.shape[:2], 1), 3, 2)"
    elif hr.ndim == 3 and hr.shape[2] == 4:
        how = "leave out the alpha: hr[..., :3]"
    elif hr.dtype != np.uint8:
        how = "round it to 8 bits first"
    raise ValueError(f"hr must be uint8 (H, W, 3) RGB, not {hr.dtype} {hr.shape}; {how}")


def target_size(size: Size, scale: float) -> Size:
    """The (height, width) of a picture made smaller by `scale`.

    Raises:
        ValueError: If scale is below 1.
    """
    if not scale >= 1:
        raise ValueError(f"scale must be 1 or more, not {scale}")
    return max(1, round(size[0] / scale)), max(1, round(size[1] / scale))


def _spell(model: Frozen) -> dict[str, Any]:
    """Its values as YAML holds them, without defaults, but always with the kind."""
    values = model.model_dump(mode="json")
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if name != "kind" and repr(value) == repr(field.default):  # 1.0 is not 1 to a digest
            del values[name]
        elif isinstance(value, Frozen):
            values[name] = _spell(value)
        elif name == "steps":
            values[name] = [_spell(step) for step in value]
    return values


def _op(params: Params) -> type[Op]:
    kind = params["kind"]
    op = ops.OPS.get(kind) or plugins.find(kind)
    if op:
        return op
    message = f"the trace has a step of unknown kind {kind!r}"
    if "." in kind:
        raise RecipeError(
            f"{message}; a trace imports nothing, so load the recipe that names it first"
        )
    raise RecipeError(f"{message}; known: {', '.join(ops.OPS)}")


def _explain(path: str | Path, model: type[Frozen], error: ValidationError) -> Iterator[str]:
    """One line a mistake; for an unknown word, with the nearest known one."""
    kinds = ops.OPS | ops.GROUPS
    for detail in error.errors():
        place: list[Any] = [part for part in detail["loc"] if part not in kinds]
        tags = [part for part in detail["loc"] if part in kinds]
        where = f"{path}: {'.'.join(map(str, place)) or 'the whole file'}"
        if detail["type"] == "extra_forbidden":
            owner, title = (kinds[tags[-1]], tags[-1]) if tags else (model, "a recipe")
            yield f"{where} is not an option of {title}; {mend(place[-1], owner.model_fields)}"
        elif detail["type"] == "union_tag_invalid":
            tag = detail.get("ctx", {}).get("tag")
            yield f"{where}: {tag!r} is not a kind of step; {mend(tag, (*kinds, 'albumentations'))}"
        else:
            yield f"{where}: {detail['msg'].removeprefix('Value error, ')}"
