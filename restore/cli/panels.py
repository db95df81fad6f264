"""Help in panels: everyday options first, all of them with --help-all."""

from typing import Annotated, Any

import typer
from typer.core import TyperCommand

EVERYDAY = {
    *("inputs", "out", "scale", "steps", "prompt", "damage", "find_scratches", "fidelity"),
    *("mask", "strength", "count", "size", "model", "format", "exists", "dry_run"),
    *("grow", "feather", "extend", "loopback", "negative", "grid", "restored", "reference", "sets", "help_all", "help"),
}
ALL = "restore.help_all"  # in a context's meta


class Panels(TyperCommand):
    """A command that shows its everyday options by default.

    Errors stay plain lines, for they end up in logs; only the help is drawn.
    """

    def __init__(self, *args: Any, **named: Any):
        super().__init__(*args, **named)
        for param in self.params:
            param.help = (getattr(param, "help", None) or "").replace("[", r"\[")  # no markup
        self.params.append(_help_all())

    def format_help(self, ctx: Any, formatter: Any) -> None:
        from typer import rich_utils

        for param in self.params:
            is_everyday = param.name in EVERYDAY
            param.hidden = not is_everyday and not ctx.meta.get(ALL)
            param.rich_help_panel = None if is_everyday else "More options"
        rich_utils.rich_format_help(obj=self, ctx=ctx, markup_mode="rich")


def _show_all(ctx: Any, param: Any, value: bool) -> None:
    if value:
        ctx.meta[ALL] = True
        print(ctx.get_help(), end="")
        raise typer.Exit()


def _help_all() -> Any:
    """The option, as typer makes it of a function's parameter."""
    option = typer.Option(
        "--help-all",
        is_eager=True,
        expose_value=False,
        callback=_show_all,
        help="Show all options and exit.",
    )

    def command(help_all: Annotated[bool, option] = False) -> None:
        pass

    app = typer.Typer(add_completion=False)
    app.command()(command)
    return typer.main.get_command(app).params[0]
