"""Help in panels: everyday options first, all of them with --help-all."""

import inspect
import io
import re
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

EVERYDAY = {
    *("inputs", "out", "scale", "steps", "prompt", "damage", "find_scratches", "fidelity"),
    *("mask", "strength", "count", "size", "model", "format", "exists", "dry_run"),
    *("grow", "feather", "extend", "loopback", "negative", "grid", "restored", "reference"),
    *("sets", "quiet", "rows", "help_all", "help"),
}
ALL = "restore.help_all"  # its key in a context's meta
# At the end of a help text, without its limits
_DEFAULT = re.compile(r"\[(?:default: )?([^][]*?)(?:; \S*x\S*)?\]$")


class Panels(TyperCommand):
    """A command that shows its everyday options by default.

    Errors stay plain lines, since they end up in logs; only the help has panels.
    """

    def __init__(self, *args: Any, **named: Any):
        super().__init__(*args, **named)
        self.params.append(_help_all())

    def format_help(self, ctx: Any, formatter: Any) -> None:
        is_whole = bool(ctx.meta.get(ALL))
        formatter.write(f"{self.get_usage(ctx)}\n\n")
        formatter.write_text(inspect.cleandoc(self.help or ""))
        formatter.write("\n")
        panels: dict[str, list[tuple[str, str]]] = {"Everyday options": [], "More options": []}
        for param in self.get_params(ctx):
            is_everyday = param.name in EVERYDAY
            if is_everyday or is_whole:
                panels[list(panels)[not is_everyday]].append(_row(param, ctx, is_whole))
        for title, rows in panels.items():
            if rows:
                formatter.write(_draw_panel(title, rows, formatter.width))
        formatter.write(f"\n{self.epilog}\n" if self.epilog else "")


def _row(param: Any, ctx: Any, is_whole: bool) -> tuple[str, str]:
    """An option's names and its help: one sentence and the default; if `is_whole`, all of it."""
    names, text = param.get_help_record(ctx) or (param.name, param.help)
    if is_whole:
        return names, text
    names = ", ".join(sorted(param.opts, key=len)) if param.param_type_name == "option" else names
    default = _DEFAULT.search(text or "")
    told = text[: default.start()] if default else text
    first = re.split(r"[.;] ", f"{told} ")[0].strip().rstrip(".")
    return names.strip(), f"{first} [{default[1]}]" if default else first


def _draw_panel(title: str, rows: list[tuple[str, str]], width: int) -> str:
    """The rows as a panel of characters; plain text, without markup."""
    from rich.console import Console
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(max_width=26)
    for names, text in rows:
        grid.add_row(Text(names), Text(text))
    console = Console(width=width, file=io.StringIO(), color_system=None)
    with console.capture() as captured:
        console.print(Panel(grid, title=title, title_align="left"))
    return captured.get()


def _show_all(ctx: Any, param: Any, value: bool) -> None:
    if value:
        ctx.meta[ALL] = True
        print(ctx.get_help(), end="")
        raise typer.Exit()


def _help_all() -> Any:
    """The option --help-all, which typer makes from a function's parameter."""
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
