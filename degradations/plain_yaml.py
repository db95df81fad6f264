"""Untrusted YAML: read by the safe loader, after the size that aliases unfold to is checked."""

import os
import stat
from pathlib import Path
from typing import Any

import yaml
from yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, NodeEvent

from degradations.errors import RecipeError

MAX_BYTES = 2**22
MAX_VALUES = 100_000  # with all that aliases stand for
MAX_DEPTH = 40


def read(path: str | Path) -> Any:
    """The value in a YAML file.

    Raises:
        RecipeError: If it cannot be read or would unfold to too much; one line.
    """
    data = plain_bytes(path, MAX_BYTES)
    try:
        return loads(data)
    except ValueError as error:
        raise RecipeError(f"{path}: {error}") from error


def plain_bytes(path: str | Path, most: int) -> bytes:
    """The content of a file; never waits for a pipe or a device.

    Args:
        path: The file.
        most: Bytes above which it is refused.

    Raises:
        RecipeError: If it is no plain file, cannot be read, or is too large.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise RecipeError(f"{path}: cannot be read: it is no plain file")
            data = file.read(most + 1)
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(data) > most:
        raise RecipeError(f"{path}: is larger than {most:,} bytes, the limit of such a file")
    return data


def _without_waiting(name: str, flags: int) -> int:
    return os.open(name, flags | getattr(os, "O_NONBLOCK", 0))


def loads(data: bytes | str) -> Any:
    """The value in some YAML.

    Raises:
        ValueError: If it is not YAML or would unfold to too much; one line with the place.
    """
    try:
        _measure(data)
        loader = _Loader(data)
        try:
            node = loader.get_single_node()
            _refuse_repeated_keys(node)
            return loader.construct_document(node) if node else None
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        message = f"it is neither UTF-8 nor UTF-16 at byte {error.position}; save it as UTF-8"
        raise ValueError(f"is not YAML: {message}") from error
    except yaml.YAMLError as error:
        raise ValueError(f"is not YAML: {' '.join(str(error).split())}") from error
    except (ValueError, OverflowError, RecursionError) as error:
        message = str(error) if isinstance(error, _RefusedError) else f"is not YAML: {error}"
        raise ValueError(" ".join(message.split())) from error


class _RefusedError(ValueError):
    pass


class _Loader(yaml.SafeLoader):
    """Without YAML 1.1's numbers to base 60: it reads an aspect of 16:9 as 969."""

    def resolve(self, kind: Any, value: str | None, implicit: Any) -> str:
        tag = super().resolve(kind, value, implicit)
        is_number = tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
        if kind is yaml.ScalarNode and implicit[0] and is_number and ":" in str(value):
            return self.DEFAULT_SCALAR_TAG
        return tag


def _refuse_repeated_keys(root: yaml.Node | None) -> None:
    """Raises ValueError for a key that stands twice in a mapping: one would be lost unseen."""
    nodes, met = [root] if root else [], set()
    while nodes:
        node = nodes.pop()
        if id(node) in met:  # an alias
            continue
        met.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            nodes += node.value
        elif isinstance(node, yaml.MappingNode):
            lines: dict[tuple[str, str], int] = {}
            for key, value in node.value:
                nodes += (key, value)
                if isinstance(key, yaml.ScalarNode):
                    name, line = (key.tag, key.value), key.start_mark.line + 1
                    if name in lines:
                        told = f"{key.value!r} stands in line {lines[name]} already; keep one"
                        raise _RefusedError(f"line {line}: {told}")
                    lines[name] = line


def _measure(data: bytes | str) -> None:
    """Raises ValueError if the values are too many or too deep, or stand within themselves."""
    sizes: dict[str, int] = {}  # anchor -> how many values it stands for
    depths: dict[str, int] = {}
    open_nodes: list[list[Any]] = []  # anchor, values, depth below
    total = 0
    for event in yaml.parse(data, yaml.SafeLoader):
        if isinstance(event, CollectionEndEvent):
            anchor, values, below = open_nodes.pop()
            if anchor:
                sizes[anchor], depths[anchor] = values, below
            _add(open_nodes, values, below + 1)
            continue
        if not isinstance(event, NodeEvent):
            continue
        where = f"line {event.start_mark.line + 1}"
        if isinstance(event, CollectionStartEvent):
            open_nodes.append([event.anchor, 1, 0])
            count, below = 1, 0
        elif isinstance(event, AliasEvent):
            if any(anchor == event.anchor for anchor, *_ in open_nodes):
                raise _RefusedError(f"{where}: *{event.anchor} stands within itself")
            count, below = sizes.get(event.anchor, 1), depths.get(event.anchor, 0)
            _add(open_nodes, count, below + 1)
        else:
            count, below = 1, 0
            if event.anchor:
                sizes[event.anchor], depths[event.anchor] = 1, 0
            _add(open_nodes, 1, 1)
        total += count
        if total > MAX_VALUES:
            raise _RefusedError(
                f"{where}: more than {MAX_VALUES:,} values, those of aliases among them"
            )
        if len(open_nodes) + below > MAX_DEPTH:
            raise _RefusedError(f"{where}: nested more than {MAX_DEPTH} deep")


def _add(open_nodes: list[list[Any]], values: int, below: int) -> None:
    if open_nodes:
        open_nodes[-1][1] += values
        open_nodes[-1][2] = max(open_nodes[-1][2], below)
