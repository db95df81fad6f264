"""The commands of `restore degrade`: parsing and printing; `degradations` does the work."""

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from restore import file_search, files
from restore.batch import ownership
from restore.cli.progress import counting, print_table
from restore.cli.recipe_options import (
    AllowCode,
    Crop,
    RecipeOption,
    Scale,
    Severity,
    Workers,
    refusals,
)
from restore.cli.settings import Seed
from restore.cli.shared import GO_ON, stop
from restore.errors import ImageError, OutputError, UsageError, counted, printable
from restore.storage import digests

if TYPE_CHECKING:  # cv2 and the rest are slow to load: the cheap checks come first
    import numpy as np

    from degradations import Recipe
    from degradations.pairs import PairCounts

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Make good pictures bad: training pairs, previews, recipes.",
)


CROP = 256
CORES = os.cpu_count() or 1


@app.command(epilog="Example: restore degrade apply PHOTOS -r phone -o pairs --pairs 100")
def apply(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Good photos.")],
    recipe: RecipeOption,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for the pairs.")],
    pairs: Annotated[
        int | None,
        typer.Option(min=1, max=999_999, help="How many there shall be. [--whole: one a photo]"),
    ] = None,
    seed: Seed = 0,
    workers: Workers = CORES,
    scale: Scale = 4,
    crop: Annotated[
        int | None, typer.Option(min=1, help="Pixels a side that are cut from a photo. [256]")
    ] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="Take whole photos, of any size, instead of crops.")
    ] = False,
    severity: Severity = 1,
    allow_code: AllowCode = False,
) -> None:
    """Make training pairs of good photos.

    OUT/hr holds crops of them, or the whole ones; OUT/lr the degraded ones; OUT/traces all values
    that were drawn. OUT/damage holds masks if the recipe draws damage, OUT/hr_sharp the training
    target if it sharpens. Pair k depends on the seed, k and the photos alone. Run the same command
    again to go on where it stopped; a larger --pairs adds to what is there.
    """
    photos = _find_photos(folder, out)
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out}: is a file; -o takes a folder")
    if whole and crop:
        raise UsageError("--whole takes whole photos, --crop cuts from them; give one of the two")
    pairs = pairs or (len(photos) if whole else None)
    if pairs is None:
        _recipe(recipe, severity, allow_code)  # else a wrong one is told only at the second try
        raise UsageError("how many? give --pairs N; or --whole, for a pair of each photo")
    from degradations import pairs as stored_pairs

    cut = None if whole else crop or CROP
    pair_set = stored_pairs.PairSet(recipe, seed, scale, cut, severity)
    began = time.monotonic()
    try:
        with refusals(allow_code), counting(pairs, "pairs") as show:
            counts = stored_pairs.make(
                photos,
                pair_set,
                out,
                pairs,
                read_rgb,
                workers=workers,
                show=show,
                digests=digests.of,
            )
    except KeyboardInterrupt:
        raise typer.Exit(stop(f"stopped; {GO_ON}", 130)) from None
    _report(counts, photos, out, time.monotonic() - began)
    raise typer.Exit(1 if counts.refused else 0)


def _find_photos(folder: Path, out: Path) -> dict[str, Path]:
    """Return the photos by name. Raises OutputError if a folder cannot be listed."""
    photos = {file.key: file.path for file in file_search.find([folder], out) if not file.skip}
    for path in photos.values():
        if path.is_dir():  # which photos are there decides every pair
            raise OutputError(f"{path}: could not be listed; check the disk, and run again")
    return photos


def _report(report: "PairCounts", photos: dict[str, Path], out: Path, took_s: float) -> None:
    another = "" if report.missing else "; another photo stands in"
    for key, reason in sorted(report.refused.items()):
        _complain(f"{key}: {reason.removeprefix(f'{photos[key]}: ')}{another}")
    message = (
        f"{counted(report.new, 'pair')} made in {took_s:.1f} s, {report.existing} there before"
    )
    if report.missing:
        message += f", {report.missing} missing: no photo can be used"
    print(f"{message}; in {printable(str(out))}")


@app.command(epilog="Example: restore degrade preview photo.jpg -r phone -o preview.html")
def preview(
    inputs: Annotated[list[Path], typer.Argument(metavar="IN", help="Pictures or folders.")],
    recipe: RecipeOption,
    outs: Annotated[
        list[Path] | None,
        typer.Option("-o", "--out", help=".html or .png; may be given twice. [preview.html]"),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, max=32, help="Columns.")] = 6,
    rows: Annotated[int, typer.Option(min=1, max=64, help="How many of a folder's pictures.")] = 6,
    scale: Scale = 4,
    crop: Crop = CROP,
    severity: Severity = 1,
    allow_code: AllowCode = False,
) -> None:
    """Show what a recipe does to pictures.

    A row for each picture, a column a seed, and what was drawn.
    """
    outs = outs or [Path("preview.html")]
    for out in outs:
        _check_file(out, ".html", ".png")
        if out.suffix == ".png":
            ownership.refuse_sheet(out)
    ours = {out.absolute() for out in outs}
    found = [
        f for f in file_search.find(inputs, outs[0]) if not f.skip and f.path.absolute() not in ours
    ]
    if len(found) > rows:
        found = [found[i * len(found) // rows] for i in range(rows)]
    from degradations import preview as sheet

    chosen, pictures, broken = _recipe(recipe, severity, allow_code), {}, 0
    for file in found:
        try:
            pictures[file.key] = sheet.middle(read_rgb(file.path), crop)
        except ImageError as error:
            _complain(str(error))
            broken += 1
    if not pictures:
        raise typer.Exit(1)
    with refusals():
        made = sheet.rows(pictures, chosen, range(seeds), scale, crop)
    for out in outs:
        write = sheet.write_png if out.suffix == ".png" else sheet.write_page
        with files.replacing(out) as path:
            write(made, chosen, path)
        print(out)
    raise typer.Exit(1 if broken else 0)


@app.command(epilog="Example: restore degrade histogram -r phone -o histogram.html")
def histogram(
    recipe: RecipeOption,
    samples: Annotated[
        int, typer.Option("-n", "--samples", min=1, max=10_000_000, help="How many are drawn.")
    ] = 10_000,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="A .html with figures.")] = None,
    seed: Seed = 0,
    severity: Severity = 1,
    allow_code: AllowCode = False,
) -> None:
    """Tell what a recipe draws.

    How often each op comes, in what order, with which values.
    """
    if out:
        _check_file(out, ".html")
    from degradations import histogram as drawn

    chosen = _recipe(recipe, severity, allow_code)
    with refusals():
        draws = drawn.draw(chosen, samples, seed)
    print(f"{chosen.name}: {counted(samples, 'sample')}; 5 %, 50 % and 95 % quantiles of numbers")
    print_table(("op", "in", "parameter", "values"), drawn.table(draws))
    if out:
        with files.replacing(out) as path:
            drawn.write_page(draws, chosen, path)
        print(out)


@app.command(epilog="Example: restore degrade estimate BAD_PHOTOS -o mine.yaml --page mine.html")
def estimate(
    photos: Annotated[list[Path], typer.Argument(metavar="PHOTOS", help="Real, bad ones.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The recipe, a new .yaml.")],
    page: Annotated[Path | None, typer.Option(help="A .html on what was measured.")] = None,
    clean: Annotated[
        list[Path] | None,
        typer.Option(help="Good photos, degraded for the page; else the bad ones, made small."),
    ] = None,
    workers: Workers = CORES,
) -> None:
    """Measure bad photos, and write a recipe that makes such."""
    _check_new(out, ".yaml")
    if page:
        _check_file(page, ".html")
    found = [file.path for file in file_search.find(photos, out) if not file.skip]
    good = [file.path for file in file_search.find(clean, out) if not file.skip] if clean else []
    from degradations.estimate import estimate as measure
    from degradations.estimate import write_page

    with refusals():
        result = measure(found, out.stem, workers)
    for path, reason in result.refused:
        _complain(f"{path}: {reason.removeprefix(f'{path}: ')}")
    with files.replacing(out) as path:
        result.save(path)
    if page:
        with files.replacing(page) as path:
            write_page(result, path, clean=good)
        print(page)
    message = f"{counted(len(result.photos), 'photo')}, {len(result.refused)} refused"
    print(f"{out}: the recipe of {message}")
    raise typer.Exit(1 if result.refused else 0)


@app.command("import")
def import_(
    options: Annotated[Path, typer.Argument(metavar="OPTIONS.yml", help="Of BasicSR.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The recipe, a new .yaml.")],
    compat: Annotated[
        bool, typer.Option("--compat", help="With the faults of the published code.")
    ] = False,
) -> None:
    """Turn an option file of BasicSR or Real-ESRGAN into a recipe."""
    _check_new(out, ".yaml")
    from degradations import basicsr_options

    with refusals():
        imported = basicsr_options.load(options, compat)
    for note in imported.notes:
        _complain(note)
    with files.replacing(out) as path:
        imported.recipe.save(path)
    message = f"; it is for --scale {imported.scale:g}" if imported.scale else ""
    print(f"{out}: the recipe {printable(imported.recipe.name)}{message}")


@app.command(epilog="Example: restore degrade replay traces/000003.json hr/000003.png -o again.png")
def replay(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="A .json, or a .jsonl.")],
    hr: Annotated[Path, typer.Argument(metavar="HR", help="The good picture it was made from.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The bad one again, a new .png.")],
    key: Annotated[str, typer.Option(help="Which trace of a .jsonl.")] = "",
    recipe: Annotated[
        str, typer.Option("-r", "--recipe", help="Needed for ops of your own: it names them.")
    ] = "",
    allow_code: AllowCode = False,
) -> None:
    """Make a bad picture again from its trace, bit for bit."""
    _check_new(out, ".png")
    import degradations
    from degradations.pairs import png

    with refusals(allow_code):
        if recipe:
            degradations.recipes.find(recipe)
        record = degradations.Trace.load(trace, key)
        lr = degradations.replay(record, read_rgb(hr))
    with files.replacing(out) as path:
        path.write_bytes(png(lr))
    print(f"{out}: {lr.shape[1]}x{lr.shape[0]}")


@app.command("list")
def list_(
    ops: Annotated[
        bool, typer.Option("--ops", help="The kinds of steps and their ranges.")
    ] = False,
) -> None:
    """List the named recipes, or all that a recipe's steps can be."""
    from degradations import catalogue

    entries = catalogue.kinds() if ops else catalogue.named_recipes()
    rows = ((entry.name, entry.line, entry.more) for entry in entries)
    print_table(
        ("kind", "what it is", "options") if ops else ("recipe", "what it is", "source"), rows
    )


def read_rgb(path: Path) -> "np.ndarray":
    """Read a picture: uint8 (H, W, 3), upright; 16 bits are rounded, transparency lies on white."""
    from restore.images import picture, sandbox

    return picture.to_rgb8(sandbox.read(path))


def _recipe(word: str, severity: float, allow_code: bool) -> "Recipe":
    from degradations import recipes

    with refusals(allow_code):
        return recipes.find(word).at(severity)


def _check_file(out: Path, *suffixes: str) -> None:
    if out.suffix not in suffixes or out.is_dir():
        raise UsageError(f"{out}: this output is a file, {' or '.join(suffixes)}; name it so")
    if not out.parent.is_dir():
        raise UsageError(f"{out}: there is no folder {out.parent}; make it first")
    if out.suffix == ".html":
        ownership.refuse_page(out)


def _check_new(out: Path, suffix: str) -> None:
    _check_file(out, suffix)
    if os.path.lexists(out):
        raise UsageError(f"{out}: is there already; give another name, or delete it")


def _complain(text: str) -> None:
    print(f"restore: {printable(text)}", file=sys.stderr)
