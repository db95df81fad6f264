"""Make frozen options from YAML, `--set` and the command line; refuse what is wrong by name."""

import hashlib
import json
import re
import types
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from restore.errors import ConfigError, meant, near
from restore.files import expand_home
from restore.storage.urls import was_url


class Options(BaseModel):
    """Base class of options: frozen, without unknown names, NaN or infinity.

    Attributes:
        run_only: Names of the fields that do not change pixels.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        defer_build=True,  # otherwise building unused validators takes half of the start
        use_attribute_docstrings=True,  # JSON schemas, `help()` and the reference show them
    )
    run_only: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Copy the description of a field from the base class if only its default is new."""
        super().__pydantic_init_subclass__(**kwargs)
        for base in cls.__mro__[1:]:
            for name, field in getattr(base, "model_fields", {}).items():
                if cls.model_fields[name].description is None:
                    cls.model_fields[name].description = field.description

    @classmethod
    def found_beside(cls, values: dict[str, Any], folder: Path) -> dict[str, Any]:
        """The values of a YAML file in a folder, with the paths of files that lie beside it."""
        return values

    def digest(self, **more: object) -> str:
        """Return the SHA-256 of all values that decide the pixels.

        Args:
            more: Further values that decide them, such as the seed and the format.
        """
        values = self.dump_beside(more, self.run_only)
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def dump_beside(self, more: Mapping[str, object], without: Iterable[str]) -> dict[str, Any]:
        """Return the values and `more` as one, in which nothing hides anything else.

        A name that both have is that of `more`, as in all earlier digests; an option of it that was
        set is named apart.
        """
        values = self.model_dump(mode="json", exclude=set(without))
        fields = type(self).model_fields
        hidden = {
            name: values[name]
            for name in more
            if name in values and values[name] != fields[name].get_default()
        }
        return {**values, **more, **({"own options": hidden} if hidden else {})}


Model = TypeVar("Model", bound=BaseModel)
Way = tuple[str, ...]  # keys that lead to a value: ("upscale", "steps")


def load_options(
    model_class: type[Model],
    section: str,
    config: Path | None = None,
    sets: Sequence[str] = (),
    sections: Collection[str] = (),
    **given: object,
) -> Model:
    """Make options from defaults, a YAML file, `section.key=value` pairs and given values.

    Later sources override earlier ones.

    Args:
        model_class: The class of the options.
        section: The section of the file that holds them.
        config: The YAML file.
        sets: `section.key=value` pairs.
        sections: Other sections that the file may have; any further name is an error.
        given: Values of the command line; None means not given.

    Raises:
        ConfigError: With a line for each mistake.
    """
    tree = read_yaml(config) if config else {}
    names = {section, *sections}
    for name in tree:
        if name not in names:
            raise ConfigError(f"{config}: {name} is not a section{near(name, names)}")
    values = {section: tree.get(section) or {}}
    if not isinstance(values[section], dict):
        raise ConfigError(f"{config}: {section} must hold `key: value` lines")
    origins: dict[Way, str] = {(section,): str(config)} if config else {}
    for pair in sets:
        way, value = _pair(pair)
        if way[0] not in names or len(way) < 2:
            raise ConfigError(f"--set {pair}: write {section}.KEY=VALUE")
        if way[0] == section:
            _put(values, way, value)
            origins[way] = f"--set {pair}"
    for name, value in given.items():
        if value is not None:
            _put(values, (section, name), value)
            origins[section, name] = f"--{name.replace('_', '-')}"
    return _validated(model_class, values[section], (section,), origins)


def load_config(model_class: type[Model], path: Path, overrides: Sequence[str] = ()) -> Model:
    """Make options from a whole YAML file, with `a.b=c` overrides. ~/ is the home folder.

    Args:
        model_class: The class of the options.
        path: The YAML file.
        overrides: `a.b=c` pairs.

    Raises:
        ConfigError: With a line for each mistake.
    """
    values = read_yaml(path)
    if issubclass(model_class, Options):
        values = model_class.found_beside(values, path.parent)
    origins: dict[Way, str] = {(): str(path)}
    for pair in overrides:
        way, value = _pair(pair)
        _put(values, way, value)
        origins[way] = pair
    return _validated(model_class, expand_home(values), (), origins)


def shipped() -> dict[str, Path]:
    """Return the YAML files of the package by name, such as train/nano_denoiser."""
    here = Path(__file__).resolve().parent
    folder = here / "configs"  # in a wheel
    if not folder.is_dir():
        folder = here.parent / "configs"  # in a clone
    files = sorted(folder.rglob("*.yaml"))
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the mapping in a YAML file; {} if the file is empty.

    Raises:
        ConfigError: If the file cannot be read or holds no mapping.
    """
    from degradations import RecipeError, plain_yaml  # loads cv2: only where a file is given

    try:
        tree = plain_yaml.read(path)
    except RecipeError as error:
        raise ConfigError(str(error)) from error
    if tree is None:
        return {}
    if not isinstance(tree, dict) or not all(isinstance(name, str) for name in tree):
        raise ConfigError(f"{path}: must hold `key: value` lines at its top level")
    return tree


def _pair(text: str) -> tuple[Way, Any]:
    name, equals, value = text.partition("=")
    way = tuple(name.strip().split("."))
    if not equals or not all(way):
        raise ConfigError(f"{text}: write KEY=VALUE, such as upscale.steps=2")
    from degradations import plain_yaml  # as in read_yaml

    try:
        return way, plain_yaml.loads(value)
    except ValueError as error:
        raise ConfigError(f"{_short(text)}: {_short(value)} is not a YAML value") from error


def _put(values: dict[str, Any], way: Way, value: object) -> None:
    *parents, last = way
    for depth, name in enumerate(parents, 1):
        if values.get(name) is None:
            values[name] = {}
        values = values[name]
        if not isinstance(values, dict):
            raise ConfigError(f"{'.'.join(way)}: {'.'.join(way[:depth])} holds one value, no keys")
    values[last] = value


def _validated(
    model_class: type[Model], values: dict[str, Any], base: Way, origins: dict[Way, str]
) -> Model:
    def origin(way: Way) -> str:  # the most specific source of a value
        cuts = (way[:length] for length in range(len(way), -1, -1))
        return next((origins[cut] for cut in cuts if cut in origins), "")

    try:
        options = model_class.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(explain(error, model_class, base, origin))) from error
    for way, path in _paths(options, base):
        if was_url(path):
            says = f"{'.'.join(way)} takes a path of this machine, no URL such as {path}"
            raise ConfigError(f"{origin(way)}: {says}")
    return options


def _paths(value: object, way: Way) -> Iterator[tuple[Way, Path]]:
    """All paths in a value, with the ways that lead to them."""
    if isinstance(value, Path):
        yield way, value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _paths(getattr(value, name), (*way, name))
    elif isinstance(value, list | tuple):
        for nth, one in enumerate(value):
            yield from _paths(one, (*way, str(nth)))


def explain(
    error: ValidationError,
    model_class: type[BaseModel],
    base: Way,
    origin: Callable[[Way], str],
) -> list[str]:
    """Format pydantic's errors as lines: the source, the key, the mistake and the nearest key.

    Args:
        error: The error of pydantic.
        model_class: The class of the options.
        base: The way to the options in the file.
        origin: Returns the source of the value at a way, such as a file or `--steps`.
    """
    lines = []
    faults = [(*_spelled(model_class, it["loc"]), it) for it in error.errors(include_url=False)]
    for spelled, owner, fault in faults:
        if any(other[: len(spelled)] == spelled != other for other, *_ in faults):
            continue  # a union, of which another member fits but for a part: that one was meant
        context = fault.get("ctx", {})
        tag = [context["discriminator"].strip("'")] if "discriminator" in context else []
        way = (*base, *spelled, *tag)
        name, field = ".".join(way), owner.model_fields.get(spelled[-1] if spelled else "")
        if fault["type"] == "extra_forbidden":
            fields = [field.alias or key for key, field in owner.model_fields.items()]
            text = f"{name} is not an option of {owner.__name__}{near(way[-1], fields)}"
        elif fault["type"] in ("missing", "union_tag_not_found"):
            text = f"{name} is missing"
        elif fault["type"] == "value_error":  # from our own validators, a whole sentence
            text = f"{name}: {fault['msg'].removeprefix('Value error, ')}".removeprefix(": ")
        elif fault["type"] == "union_tag_invalid":
            kinds = re.findall("'(.*?)'", context["expected_tags"])
            text = f"{name}: there is no {context['tag']!r}{near(context['tag'], kinds)}"
        elif fault["type"] == "string_pattern_mismatch" and field and field.description:
            meaning = " ".join(field.description.split()).rstrip(".")
            text = f"{name}: {_short(fault['input'])} does not fit; it is: {meaning}"
        else:
            text = f"{name} {_must(fault, field)}, not {_short(fault['input'])}".lstrip()
            text += meant(fault["input"], re.findall("'(.*?)'", str(context.get("expected"))))
        lines.append(f"{origin(way)}: {text}".removeprefix(": "))
    return lines


def _must(found: Any, field: Any) -> str:
    """What the value of a field must be, in the words of a file instead of pydantic's."""
    kind, members = found["type"], _members(field.annotation) if field else []
    if kind in ("tuple_type", "list_type", "too_long"):
        counts = {len(get_args(it)) for it in members if get_origin(it) is tuple}
        if len(counts) == 1 and not any(... in get_args(it) for it in members):
            return f"must be a list of {counts.pop()} values"
        if kind != "too_long":
            return "must be a list: [ONE, TWO]"
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        models = [it for it in members if isinstance(it, type) and issubclass(it, BaseModel)]
        fields = [item for it in models[:1] for item in it.model_fields.items()]
        keys = [key for key, its in fields if key == "kind" or its.is_required()]
        shown = keys or [key for key, _ in fields[:1]] or ["KEY"]
        return f"must hold keys, such as {{{', '.join(f'{key}: ...' for key in shown)}}}"
    if kind == "path_type":
        return "must be a path"
    return found["msg"].replace("Input should be", "must be")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _spelled(
    model_class: type[BaseModel], loc: tuple[int | str, ...]
) -> tuple[Way, type[BaseModel]]:
    """Return a pydantic location as a file spells it, and the class of the field where it ends.

    It follows lists, options and tagged unions, and leaves the tags of unions out.
    """
    here: list[Any] = [model_class]
    way, owner = [], model_class
    for part in loc:
        models = [kind for kind in here if isinstance(kind, type) and issubclass(kind, BaseModel)]
        tagged = [kind for kind in models if part in _tags(kind)]
        if len(models) > 1 and tagged:  # a union's tag, even if a member has such a field
            here = tagged
            continue
        if _is_member(part, here) and not any(part in kind.model_fields for kind in models):
            here = [kind for kind in models if kind.__name__ == part] or here
            continue
        way.append(str(part))
        owner = models[0] if models else owner
        inner = [kind.model_fields[part] for kind in models if part in kind.model_fields]
        if inner:
            here = _members(inner[0].annotation)
        elif isinstance(part, int):
            here = [kind for listed in here for arg in get_args(listed) for kind in _members(arg)]
    return tuple(way), owner


def _is_member(part: int | str, union: list[Any]) -> bool:
    """Whether it only says which member of a union was tried: its class, or pydantic's words."""
    some = [kind for kind in union if kind is not types.NoneType]
    names = {kind.__name__ for kind in some if isinstance(kind, type)}
    return len(some) > 1 and isinstance(part, str) and ("[" in part or part in names)


def _members(annotation: Any) -> list[Any]:
    if get_origin(annotation) in (Union, types.UnionType):
        return [kind for arg in get_args(annotation) for kind in _members(arg)]
    if hasattr(annotation, "__metadata__"):  # Annotated
        return _members(get_args(annotation)[0])
    return [annotation]


def _tags(model_class: type[BaseModel]) -> list[Any]:
    return [
        tag for field in model_class.model_fields.values() for tag in get_args(field.annotation)
    ]
