"""How a run over many pictures is shown: bars on a terminal, elsewhere plain lines."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from restore.batch.journal import Row
from restore.batch.work import Progress
from restore.cli.console import Console
from restore.errors import printable, sides

PATIENCE_S = 5  # between progress lines, without a terminal
LONG_S = 30  # without a line: then the current picture gets one


class Lines:
    """A line for each picture, for logs; and one now and then on a slow picture."""

    def __init__(self, total: int):
        self.total, self.count, self.reported_s = total, 0, time.monotonic()

    def row(self, row: Row) -> None:
        self.count += 1
        self._tell(describe(row, left(row)))

    def note(self, text: str) -> None:
        print(f"restore: {printable(text)}", file=sys.stderr)

    def part(self, done: int, of: int, what: str) -> None:
        if time.monotonic() - self.reported_s > LONG_S:
            self._tell(f"{what}: {done} of {of} parts", self.count + 1)

    def _tell(self, text: str, number: int | None = None) -> None:
        self.reported_s = time.monotonic()
        print(f"[{number or self.count}/{self.total}] {text}", file=sys.stderr)


class Bars:
    """A bar for all pictures with the time left, and below it one for the current picture."""

    def __init__(self, bar: Any, total: int):
        self.bar = bar
        self.pictures = bar.add_task("pictures", total=total, left="")
        self.parts = bar.add_task("", total=None, visible=False, left="")

    def row(self, row: Row) -> None:
        self.bar.console.print(describe(row), markup=False, highlight=False, soft_wrap=True)
        self.bar.advance(self.pictures)
        self.bar.update(self.pictures, left=left(row))
        self.bar.update(self.parts, visible=False)

    def note(self, text: str) -> None:
        text = f"restore: {printable(text)}"
        self.bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def part(self, done: int, of: int, what: str) -> None:
        self.bar.update(self.parts, description=what, completed=done, total=of, visible=of > 1)


class Failures(Lines):
    """A line for each failed file, and no other lines."""

    def row(self, row: Row) -> None:
        self.count += 1
        if row["status"] == "failed":
            self._tell(describe(row))

    def note(self, text: str) -> None:
        pass

    def part(self, done: int, of: int, what: str) -> None:
        pass


class Aloud:
    """Passes progress on; also prints rows for programs, and tracebacks with --verbose."""

    def __init__(self, show: Progress, console: Console):
        self._show, self._console = show, console
        self.note, self.part = show.note, show.part

    def row(self, row: Row) -> None:
        self._console.row(row)
        self._show.row(row)
        if self._console.verbose and "trace" in row:
            for line in row["trace"].splitlines():
                self._show.note(line)


@contextmanager
def progress(total: int, console: Console) -> Iterator[Progress]:
    """Lend a `Progress`: bars on a terminal, else plain lines; rows for programs if asked."""
    with _choose_display(total, console.quiet) as show:
        yield Aloud(show, console)


@contextmanager
def _choose_display(total: int, is_quiet: bool) -> Iterator[Progress]:
    if is_quiet or not sys.stderr.isatty():
        yield Failures(total) if is_quiet else Lines(total)
        return
    from rich import progress as rich
    from rich.console import Console as RichConsole

    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.MofNCompleteColumn(),
        rich.TextColumn("{task.fields[left]}"),
    )
    with rich.Progress(*columns, console=RichConsole(stderr=True), redirect_stdout=False) as bar:
        yield Bars(bar, total)


def left(row: Row) -> str:
    """The time left in words, from the files so far; empty if it is not known."""
    seconds = row.get("left_s")
    if seconds is None:
        return ""
    return f", {seconds:.0f} s left" if seconds < 600 else f", {seconds / 60:.0f} min left"


def describe(row: dict[str, Any], left: str = "") -> str:
    """A report row as one line; `left`, the time left in words, follows the time taken."""
    key = printable(row["key"])
    if row["status"] in ("failed", "skipped"):
        return f"{row['status']:8} {key}: {row['code']}: {printable(row['error'])}"
    if "finished" in row:
        return f"finished {key}"
    grew = " -> ".join(sides(row[size]) for size in ("size_in", "size_out") if size in row)
    notes = "".join(f"; {printable(note)}" for note in row["warnings"])
    return f"done     {key}: {grew} in {row['seconds']:.1f} s{left}{notes}"


@contextmanager
def counting(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """Show a bar, or a line now and then; lend a function to call with how many more are done.

    Args:
        total: The number of all.
        what: What is counted, for the lines.
    """
    if sys.stderr.isatty():
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

        columns: tuple[Any, ...] = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=RichConsole(stderr=True), redirect_stdout=False) as bar:
            task = bar.add_task("", total=total)
            yield lambda count: bar.advance(task, count)
        return
    began = last = time.monotonic()
    done = 0

    def line(count: int) -> None:
        nonlocal done, last
        done += count
        if done and time.monotonic() - last > PATIENCE_S:
            last = time.monotonic()
            rate = done / (last - began)
            pace = f"{rate:.1f} a second" if rate >= 1 else f"{1 / rate:.1f} s each"
            print(f"[{done}/{total}] {what}, {pace}", file=sys.stderr)

    yield line


def print_table(head: Iterable[str], rows: Iterable[tuple[str, ...]]) -> None:
    """Print a table, with columns as wide as their content."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*head, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*(Text("\n".join(map(printable, cell.splitlines()))) for cell in row))
    Console().print(table)
