"""report.html of an evaluation: means, the perception-distortion plane, the worst pictures."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from degradations.page import Cell, Page
from restore.errors import ImageError
from restore.files import replacing
from restore.metrics import figures, report
from restore.metrics.measures import MEASURES, Measure
from restore.metrics.report import Group, Report
from restore.metrics.score import ScoredFolder

SIDE = 192  # px of a crop
LISTED = 300  # pictures in the page's table; scores.csv has all
NOTES = (
    "Mean over the pictures and, in brackets, its 95 % interval (bootstrap over pictures): how far "
    "the mean may move with other pictures of the kind. Y is BT.601 luma; {border} px are left out "
    "on each side by all but pd and LPIPS. pd has LPIPS's formula over SqueezeNet features."
)


def write(evaluation: Report, out: Path, sort: str, worst: int) -> None:
    """Write OUT/report.html.

    Args:
        evaluation: What was measured.
        out: The folder.
        sort: Name of the measure that ranks the pictures.
        worst: How many of the worst pictures each group shows.
    """
    names = [one.name for group in evaluation.groups for one in group.folders]
    page = Page(f"Evaluation of {', '.join(dict.fromkeys(names))}")
    folders = list(evaluation.titled())
    page.table(*report.mean_table(evaluation, folders), NOTES.format(border=evaluation.border))
    for line in evaluation.absent:
        page.text(f"Not measured: {line}.")
    for group in evaluation.groups:
        if group.name:
            page.heading(group.name)
        _group(page, evaluation, group, MEASURES[sort], worst)
    with replacing(out / "report.html") as path:
        page.write(path)


def _group(page: Page, evaluation: Report, group: Group, sort: Measure, worst: int) -> None:
    for table in report.difference_tables(evaluation, group):
        page.table(
            *table,
            "Differences on the pictures that both have, with the 95 % interval of their mean; "
            "wins, ties and losses by picture.",
        )
    axes = choose_axes(evaluation.measures)
    if axes and any(folder.done for folder in group.folders):
        page.figure(
            figures.plot_plane([("", group.folders)], *axes),
            "A point a picture; the large ones are means with their 95 % intervals.",
        )
    first = group.folders[0]
    keys = first.worst(sort)
    if keys and worst:
        cells = [cell for key in keys[:worst] for cell in _crops(group.folders, key, sort)]
        columns = len(cells) // min(worst, len(keys))
        page.grid(
            cells,
            columns,
            f"The worst by {sort.label}, worst first, one pixel each, where the luma is furthest "
            "from the original's.",
        )
    for folder in group.folders:
        if folder.failed:
            rows = [[row["key"], row["code"], row["error"]] for row in folder.failed]
            page.table(("not measured", "", "why"), rows, f"In {folder.name}.")
        _left_over(page, folder)
    head = ("picture", *(m.label for m in evaluation.measures), "notes")
    for folder in group.folders:
        rows = list(_rows(folder, evaluation.measures, sort))
        title = f"The worst {LISTED} of {len(rows)}" if len(rows) > LISTED else "All pictures"
        page.table(head, rows[:LISTED], f"{title} of {folder.name}, worst by {sort.label} first.")


def choose_axes(measures: Sequence[Measure]) -> tuple[Measure, Measure] | None:
    """Choose the measures for distortion and perception; None if one of them is missing."""
    names = {measure.name: measure for measure in measures}
    found = [
        next((names[name] for name in order if name in names), None)
        for order in (("psnr", "psnr_rgb", "ssim", "ssim_rgb", "ms_ssim"), ("pd", "lpips", "niqe"))
    ]
    return (found[0], found[1]) if found[0] and found[1] else None


def _crops(folders: Sequence[ScoredFolder], key: str, sort: Measure) -> Iterator[Cell]:
    """Yield crops of the input, where there is one, of each result, and of the original."""
    pair = folders[0].pairs[key]
    original = figures.read_rgb(pair.original)
    corner = figures.find_largest_error(figures.read_rgb(pair.restored), original, SIDE)

    def cell(rgb: np.ndarray, caption: str) -> Cell:
        return Cell(figures.crop(rgb, corner, SIDE), caption, SIDE)

    blank = np.full_like(original, 255)
    if any(one.source for folder in folders for one in folder.pairs.values()):
        yield cell(*_input(pair.source, blank))
    for one in folders:
        row = one.done.get(key)
        value = f"{sort.label} {sort.format(row['scores'][sort.name])}" if row else "failed"
        yield cell(
            figures.read_rgb(one.pairs[key].restored) if row else blank, f"{one.name}\n{value}"
        )
    yield cell(original, f"{key}\noriginal, at {corner[1]}, {corner[0]}")


def _input(path: Path | None, blank: np.ndarray) -> tuple[np.ndarray, str]:
    """Return the input resized to the size of `blank`, or `blank` if there is none; a caption."""
    if path is None:
        return blank, "no input"
    try:
        small = figures.read_rgb(path)
    except ImageError as error:
        return blank, f"no input: {error.code}"
    return figures.enlarge(small, blank.shape[:2]), f"input, {small.shape[1]}x{small.shape[0]}"


def _left_over(page: Page, one: ScoredFolder) -> None:
    for what, paths in (("without an original", one.unpaired), ("not restored", one.missing)):
        if paths:
            rows = [[str(path)] for path in paths[:50]]
            page.table((f"{one.name}: {what}",), rows, f"{len(paths)} in all.")


def _rows(one: ScoredFolder, measures: Sequence[Measure], sort: Measure) -> Iterator[list[str]]:
    done = one.done
    order = one.worst(sort)
    for key in [*order, *(key for key in done if key not in set(order))]:
        scores = done[key]["scores"]
        notes = "; ".join(done[key]["warnings"])
        yield [key, *(m.format(scores[m.name]) for m in measures), notes]
