"""What a word of the command line cannot be: a URL where a path is meant, no number, no command."""

import os
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperGroup

from restore.cli.aliases import OVER_FILES
from restore.errors import UsageError
from restore.storage.urls import is_url, redact_url

URLS = {name: {"inputs", "out"} for name in OVER_FILES} | {"text2img": {"out"}}  # that take URLs
WORDS = {"prompt", "negative", "address", "host", "name", "licence"}  # no paths


class Commands(TyperGroup):
    """All commands; their options refuse URLs where none is read, and say what they were given."""

    def __init__(self, *given: Any, **named: Any):
        super().__init__(*given, **named)
        refuse_urls(self)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands and os.path.exists(args[0]):
            problem = f"{args[0]}: is a file or folder, and the first word is a command"
            raise UsageError(f"{problem}; write restore upscale {args[0]} -o OUT")
        return super().resolve_command(ctx, args)


def refuse_urls(command: Any, name: str = "") -> None:
    """Make the options of a command, and of those below it, refuse URLs where none is read.

    Args:
        command: As typer made it.
        name: What it is called.
    """
    for below, one in getattr(command, "commands", {}).items():
        refuse_urls(one, below)
    for param in command.params:
        if param.name not in URLS.get(name, set()) | WORDS:
            param.consume_value = _careful(param)
        param.process_value = _quoting(param)


def _careful(param: Any) -> Any:
    consume = param.consume_value
    called = max(param.opts, key=len) if param.param_type_name == "option" else param.name.upper()

    def consumed(*given: Any) -> Any:
        value, *more = consume(*given)
        for word in _words(value):
            if is_url(word):
                mend = "URLs are for IN, --list files and -o of upscale, inpaint and img2img"
                problem = f"{called} {redact_url(word)}: takes a path of this machine; {mend}"
                raise UsageError(problem)
        return value, *more

    return consumed


def _quoting(param: Any) -> Any:
    process = param.process_value

    def processed(ctx: Any, value: Any) -> Any:
        try:
            return process(ctx, value)
        except typer.BadParameter as error:
            # pydantic's words, which tell what a program cannot do instead of what was written
            text = error.message.removeprefix("Value error, ").partition(", unable to parse")[0]
            is_told = not isinstance(value, str) or value in text
            text = text.replace("Input should be", "must be")
            error.message = text if is_told else f"{text}, not {value!r}"
            raise

    return processed


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _words(one)
