"""Errors of pydantic in the words of a file: the source, the key, the mistake, the nearest key."""

import re
import types
from collections.abc import Callable
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from restore.errors import meant, near

Way = tuple[str, ...]  # keys that lead to a value: ("upscale", "steps")


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
    lines: list[str] = []
    places: dict[Way, int] = {}  # of the line on each value that is not as it must be
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
            text = f"{name}: {shorten(fault['input'])} does not fit; it is: {meaning}"
        elif spelled in places:  # another member of a union, which the value does not fit either
            lines[places[spelled]] += f", or {_must(fault, field).removeprefix('must ')}"
            continue
        else:
            places[spelled] = len(lines)
            text = f"{name} {_must(fault, field)}, not {shorten(fault['input'])}".lstrip()
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
    if kind in ("bool_type", "bool_parsing"):
        return "must be true or false"
    return found["msg"].replace("Input should be", "must be")


def shorten(value: object) -> str:
    """Its repr, cut where it is long."""
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
