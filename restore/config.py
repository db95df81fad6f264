"""Make frozen options from YAML, `--set` and the command line; refuse what is wrong by name."""

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails

from restore.config_errors import Way, explain, shorten
from restore.errors import ConfigError, near
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

    @model_validator(mode="wrap")
    @classmethod
    def _no_truth_for_a_number(cls, values: Any, validate: ModelWrapValidatorHandler) -> Any:
        """Refuse true, and what YAML takes for it, such as yes and on, where 1 would be read."""
        made = validate(values)
        wrong: list[InitErrorDetails] = [
            {"type": "float_type", "loc": (name, *way), "input": truth}
            for name, value in (values.items() if isinstance(values, Mapping) else ())
            for way, truth in _truths_for_numbers(value, getattr(made, name, None))
        ]
        if wrong:
            raise ValidationError.from_exception_data(cls.__name__, wrong)
        return made

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


def _truths_for_numbers(given: Any, made: Any) -> Iterator[tuple[tuple[int | str, ...], bool]]:
    """(way, true or false) of those within a given value that became numbers."""
    if isinstance(given, bool):
        if isinstance(made, int | float) and not isinstance(made, bool):
            yield (), given
        return
    pairs: Iterable[tuple[int | str, Any, Any]] = ()
    if isinstance(given, Mapping) and isinstance(made, Mapping):
        pairs = ((key, value, made.get(key)) for key, value in given.items())
    elif isinstance(given, list | tuple) and isinstance(made, list | tuple):
        pairs = ((n, *pair) for n, pair in enumerate(zip(given, made, strict=False)))
    for key, *pair in pairs:
        yield from (((key, *way), truth) for way, truth in _truths_for_numbers(*pair))


Model = TypeVar("Model", bound=BaseModel)


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
        raise ConfigError(f"{shorten(text)}: {shorten(value)} is not a YAML value") from error


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
