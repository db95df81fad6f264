"""Reference pages, generated from the commands, the options' models and the docstrings."""

import importlib
import inspect
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

import restore

ROOT = Path(__file__).resolve().parents[2]
NOTE = "This page is made by `python tools/docs.py reference`; a test holds it to the code.\n"
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
PYTHON = {
    "restore": ("load", "Restorer", "RestorationPipeline", "Cancelled", "RestoreError"),
    "degradations": (
        *("Recipe", "Trace", "Degraded", "replay", "rebuild", "degrade_batch", "keyed"),
        *("sharpen", "RecipeError"),
    ),
    "degradations.recipes": ("named",),
    "degradations.torch": ("PairDataset", "PairStream", "Degrade", "Epochs"),
    "degradations.device": ("degrade", "degrade_each"),
}


def make_pages() -> dict[str, str]:
    """Make the pages; Markdown by file name."""
    return {
        "commands.md": describe_commands(),
        "options.md": describe_options(),
        "python.md": describe_python(),
    }


def write(folder: Path) -> None:
    """Write the pages to a folder."""
    for name, text in make_pages().items():
        (folder / name).write_text(text, encoding="utf-8")


def describe_commands() -> str:
    """Describe every command and its options."""
    import typer

    from restore import cli

    parts = ["# All commands\n", NOTE, cli.EXITS + "\n"]
    for name, command in _leaves(typer.main.get_command(cli.app), "restore"):
        parts += [f"## {name}\n", _marked(inspect.cleandoc(command.help or "")) + "\n"]
        kinds = inspect.signature(command.callback).parameters
        params = [param for param in command.params if not _is_of_help(param)]
        rows = [_param(param, kinds[param.name].annotation) for param in params]
        parts.append(_table(("option", "meaning"), rows))
        if command.epilog:
            parts.append(f"{command.epilog}\n")
    return "\n".join(parts)


def _leaves(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    inner = getattr(command, "commands", None)
    if not inner:
        yield name, command
        return
    for word, one in inner.items():
        yield from _leaves(one, f"{name} {word}")


def _is_of_help(param: Any) -> bool:
    return param.name in ("help", "help_all", "install_completion", "show_completion")


def _param(param: Any, annotation: Any) -> tuple[str, str]:
    """Return how an option is written, and what it means."""
    if param.param_type_name == "argument":
        names = f"`{param.metavar or param.name.upper()}`"
    else:
        names = ", ".join(f"`{name}`" for name in sorted(param.opts, key=len))
    texts = [getattr(param, "help", None) or ""]
    if choices := _choices(annotation):
        texts.append("One of " + ", ".join(f"`{choice}`" for choice in choices) + ".")
    if param.required:
        texts.append("Required.")
    elif param.default not in (None, False, (), []) and not callable(param.default):
        texts.append(f"Default: `{param.default}`.")
    return names, " ".join(filter(None, texts))


def _choices(annotation: Any) -> list[str]:
    if str(get_origin(annotation)) == "typing.Literal":
        return [str(value) for value in get_args(annotation)]
    inner = get_args(annotation)
    inner = inner[:1] if hasattr(annotation, "__metadata__") else inner
    return [choice for one in inner for choice in _choices(one)]


def describe_options() -> str:
    """Describe every key of the YAML files, in a table per class of options."""
    from restore import options as tasks
    from restore.training.options import TrainOptions

    parts = [
        "# All options\n",
        NOTE,
        "Keys of a YAML file, of `--set TASK.KEY=VALUE`, and of `KEY=VALUE` after `restore train`.",
        "A type such as `LowOptions` is a group of keys, listed under its name. They are written",
        "with dots: `stage.data.crop=64`.\n",
        "## Of a task\n",
    ]
    kinds = (tasks.UpscaleOptions, tasks.InpaintOptions, tasks.Img2imgOptions)
    for kind in (*kinds, tasks.Text2imgOptions):
        parts += [f"### {kind.__name__}\n", _first(kind), _keys(kind)]
    parts.append("## Of training\n")
    for kind in find_options(TrainOptions):
        parts += [f"### {kind.__name__}\n", _first(kind), _keys(kind)]
    return "\n".join(parts)


def find_options(kind: type[BaseModel]) -> list[type[BaseModel]]:
    """Find the classes of options that a model contains, at any depth."""
    found: dict[type[BaseModel], None] = {}

    def visit(annotation: Any) -> None:
        if hasattr(annotation, "__metadata__") or get_origin(annotation) is not None:
            for inner in get_args(annotation):
                visit(inner)
        elif is_ours(annotation) and annotation not in found:
            found[annotation] = None
            for field in annotation.model_fields.values():
                visit(field.annotation)

    visit(kind)
    return list(found)


def is_ours(one: Any) -> bool:
    """Whether it is a class of options of this package."""
    is_model = inspect.isclass(one) and issubclass(one, BaseModel)
    return is_model and one.__module__.startswith("restore")


def _keys(kind: type[BaseModel]) -> str:
    rows = []
    for name, field in kind.model_fields.items():
        bounds = [
            f"{words} {_short(getattr(one, bound))}"
            for one in field.metadata
            for bound, words in BOUNDS.items()
            if getattr(one, bound, None) is not None
        ]
        default = (
            ""
            if field.is_required()
            else f"`{_short(field.get_default(call_default_factory=True))}`"
        )
        limits = f"{', '.join(bounds)}.".capitalize() if bounds else ""
        means = " ".join([*(field.description or "").split(), limits]).strip()
        rows.append((f"`{name}`", f"`{_typed(field.annotation)}`", default, means))
    return _table(("key", "type", "default", "meaning"), rows)


def _typed(annotation: Any) -> str:
    """Format a type for users, without its bounds, which are listed apart."""
    if hasattr(annotation, "__metadata__"):
        return _typed(get_args(annotation)[0])
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(_typed, inner)))
    if annotation is type(None):
        return "None"
    if origin is not None and str(origin) == "typing.Literal":
        return " or ".join(repr(value) for value in inner)
    if origin is not None:
        return f"{origin.__name__} of {', '.join(_typed(one) for one in inner if one is not ...)}"
    return getattr(annotation, "__name__", str(annotation))


def describe_python() -> str:
    """Describe what a program may import, by its docstrings."""
    parts = ["# Python\n", NOTE]
    for module, names in PYTHON.items():
        imported = importlib.import_module(module)
        parts += [f"## {module}\n", _doc(imported)]
        for name in names:
            parts += _described(getattr(imported, name), f"{module}.{name}")
    return "\n".join(parts)


def _described(one: Any, name: str) -> list[str]:
    parts = [f"### {name}\n", f"```text\n{_signature(one, name)}\n```\n", _doc(one)]
    if not inspect.isclass(one) or issubclass(one, Exception):
        return parts
    for word, member in vars(one).items():
        is_callable = callable(member) or isinstance(member, classmethod | staticmethod)
        method = getattr(one, word)
        if word.startswith("_") or not is_callable or not method.__doc__:  # none that is inherited
            continue
        parts += [f"```text\n.{_signature(method, word)}\n```\n", _doc(method)]
    return parts


def _signature(one: Any, name: str) -> str:
    if inspect.isclass(one) and issubclass(one, Exception):
        return name
    names = [str(p).split(":")[0].split("=")[0].strip() for p in _parameters(one)]
    return f"{name}({', '.join(names)})"


def _parameters(one: Any) -> list[inspect.Parameter]:
    try:
        return [p for p in inspect.signature(one).parameters.values() if p.name != "self"]
    except (TypeError, ValueError):
        return []


def _first(kind: type[BaseModel]) -> str:
    return _marked((inspect.getdoc(kind) or "").partition("\n\n")[0].replace("\n", " ")) + "\n"


def _marked(text: str) -> str:
    """Escape brackets, which Markdown would take for links, outside of code."""
    return re.sub(r"(`[^`]*`)|([\[\]])", lambda found: found[1] or "\\" + found[2], text)


def _doc(one: Any) -> str:
    return f"```text\n{inspect.getdoc(one) or ''}\n```\n"


def _short(value: Any) -> str:
    if isinstance(value, BaseModel):
        return type(value).__name__
    if isinstance(value, Path):
        home = Path(restore.__file__).parents[1]  # this checkout, or where it is installed
        return value.relative_to(home if value.is_relative_to(home) else Path()).as_posix()
    return str(value) if value != "" else '""'


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    def line(cells: tuple[str, ...]) -> str:
        plain = (_marked(cell).replace("|", "\\|").replace("\n", " ") for cell in cells)
        return f"| {' | '.join(plain)} |"

    return "\n".join([line(head), line(("---",) * len(head)), *map(line, rows), ""])
