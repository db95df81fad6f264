"""Benchmarks against other packages: `python tools/benchmark.py` lists them."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

# this checkout as it is, and benchmarks beside this file
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def _commands() -> None:  # with it typer keeps `degradations` as a word of its own
    pass


@app.command()
def degradations(
    photos: Annotated[Path | None, typer.Argument(help="A folder; else made-up crops.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns each contestant takes.")] = 7,
    seconds: Annotated[float, typer.Option(min=0.01, help="Length of a turn, about.")] = 1.0,
    out: Annotated[Path | None, typer.Option("--json", help="A file for the figures.")] = None,
) -> None:
    """Crops a second by ours and others, on one and two threads and a GPU; stages; JPEG codecs."""
    from benchmarks import degradations

    try:
        hr = degradations.load_crops(photos)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    results = degradations.measure(hr, (1, 2), rounds, seconds)
    degradations.show(results)
    if out:
        out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


@app.command()
def training(
    photos: Annotated[Path | None, typer.Argument(help="A folder; else made-up photos.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Crops of a step.")] = 16,
    workers: Annotated[int, typer.Option(min=0, help="Processes that make samples.")] = 1,
    threads: Annotated[int, typer.Option(min=1, help="Of torch.")] = 2,
    steps: Annotated[int, typer.Option(min=1, help="Steps of a turn.")] = 20,
    rounds: Annotated[int, typer.Option(min=1, help="Turns that each takes.")] = 5,
    out: Annotated[Path | None, typer.Option("--json", help="A file for the figures.")] = None,
) -> None:
    """Images a second of `restore train` with live damage, beside a plain diffusers loop."""
    from benchmarks import training

    results = training.measure(photos, batch, workers, steps, rounds, threads)
    training.show(results)
    if out:
        out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


@app.command()
def quality(
    sets: Annotated[
        list[Path],
        typer.Argument(metavar="SETS", help="As --set of `restore evaluate` takes them."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for tables and sheets.")],
    reference: Annotated[
        Path | None, typer.Option(help="The originals, where SETS are inputs alone.")
    ] = None,
    names: Annotated[
        str,
        typer.Option(
            "--contestants",
            help="bicubic, realesrgan-x4plus, models as NAME, FOLDER or either@STEPS, by commas; "
            "else bicubic, every model that ships, and the peers.",
        ),
    ] = "",
    pictures: Annotated[
        int, typer.Option(min=0, help="So many of each set, evenly spread; 0: all.")
    ] = 0,
    peer_python: Annotated[
        str,
        typer.Option(envvar="RESTORE_PEER_PYTHON", help="An interpreter that has the peers."),
    ] = "",
) -> None:
    """Every model and its peers over sets of inputs: scores, CPU seconds, memory, sheets."""
    from benchmarks import quality

    from restore.cli.shared import check_output
    from restore.errors import RestoreError
    from restore.metrics.pairing import open_sets

    try:
        check_output(out)
        chosen = quality.parse_contestants([name for name in names.split(",") if name])
        results, table = {}, ""
        for one in open_sets(sets, reference):
            results[one.name] = quality.measure(one, chosen, out, pictures, peer_python)
            table = quality.write(results, out)  # a run that is killed leaves what it measured
        print(table, end="")
    except RestoreError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from error
    failures = sum(len(entry.scored.failed) for all_of in results.values() for entry in all_of)
    raise typer.Exit(1 if failures else 0)


@app.command()
def memory(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for memory.json and .svg.")],
    model: Annotated[str, typer.Option(help="Else a tiny one, untrained.")] = "",
    sizes: Annotated[str, typer.Option(help="Megapixels of the results.")] = "3,12,48,100,300",
    scales: Annotated[str, typer.Option(help="That they are made with.")] = "1,4",
    format: Annotated[str, typer.Option(help="Of the results.")] = "tiff",
) -> None:
    """Peak memory of `restore upscale` by the size of the result, measured on Linux."""
    from benchmarks import memory

    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out) as folder:
        here = Path(folder)
        chosen = model or str(memory.tiny_model(here))
        wanted, factors = ([float(n) for n in text.split(",")] for text in (sizes, scales))
        rows = memory.measure(here, chosen, wanted, [round(n) for n in factors], format)
    (out / "memory.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    memory.plot(rows, out / "memory.svg")
    for row in rows:
        line = "x{scale} {megapixels:g} MP: {all_mb:.0f} MB, told {told_mb:.0f}, {seconds} s"
        print(line.format(**row))


@app.command()
def speed(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for speed.json, .md and .svg.")],
    sizes: Annotated[str, typer.Option(help="Megapixels of the results.")] = "0.25,1,4,12,48",
    names: Annotated[str, typer.Option("--contestants", help="By semicolons; else all.")] = "",
    threads: Annotated[int, typer.Option(min=1, help="Of torch.")] = 1,
    limit_s: Annotated[
        float, typer.Option(min=1, help="Leave out a size that would take longer.")
    ] = 120,
    rounds: Annotated[
        int, typer.Option(min=1, help="Turns of each contestant; the fastest counts.")
    ] = 2,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Few contestants at 1 MP; names ratios that moved by 20 %."),
    ] = False,
) -> None:
    """CPU seconds and memory by size, beside peers and the limit of this machine."""
    from benchmarks import speed
    from benchmarks.speed_contestants import CONTESTANTS, QUICK

    chosen = [name.strip() for name in names.split(";") if name.strip()]
    chosen = chosen or list(QUICK if quick else CONTESTANTS)
    if unknown := [name for name in chosen if name not in CONTESTANTS]:
        problem = f"--contestants {', '.join(unknown)}: there are {'; '.join(CONTESTANTS)}"
        raise typer.BadParameter(problem)
    wanted = [1.0] if quick else [float(size) for size in sizes.split(",")]
    out.mkdir(parents=True, exist_ok=True)
    rows = speed.measure(chosen, wanted, out / "models", threads, limit_s, rounds)
    if quick:
        changes = speed.moved(speed.ratios(rows), speed.published()) + speed.unmeasured(
            chosen, rows
        )
        print("\n".join(changes) or "no ratio moved by more than 20 %")
        raise typer.Exit(1 if changes else 0)
    speed.write(rows, out)
    print(speed.table(rows), end="")


@app.command()
def words(
    photos: Annotated[Path, typer.Argument(help="A folder, as stage.data.photos takes it.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for tables and sheets.")],
    *,
    model: Annotated[str, typer.Option(help="One that reads words.")] = "nano",
    recipe: Annotated[str, typer.Option(help="A name, or a YAML file.")] = "realesrgan",
    count: Annotated[int, typer.Option("-n", min=2, help="Crops, one of each photo first.")] = 24,
    crop: Annotated[int, typer.Option(min=64, help="Pixels a side of the truth.")] = 256,
    scales: Annotated[str, typer.Option(help="That are enlarged by; 1 restores.")] = "4,1",
    steps: Annotated[int, typer.Option(min=1, help="Words are heard by steps alone.")] = 2,
    guidance: Annotated[
        float, typer.Option(min=1, max=30, help="Above 1: the right words with it as well.")
    ] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of crops, damage and walks.")] = 0,
) -> None:
    """Effect of words: the right description against none and a wrong one."""
    from benchmarks import wordings, words

    from degradations.errors import RecipeError
    from restore.cli.shared import check_output
    from restore.errors import RestoreError

    try:
        factors = tuple(float(text) for text in scales.split(","))
    except ValueError:
        factors = (0.0,)
    if not all(1 <= factor <= 16 for factor in factors):
        raise typer.BadParameter(f"--scales {scales}: numbers from 1 to 16 with commas, as in 4,1")
    settings = words.Settings(photos, model, recipe, count, crop, factors, steps, guidance, seed)
    try:
        check_output(out)
        groups, table = [], ""
        for group in words.measure(settings):
            groups.append(group)
            table = wordings.write(groups, settings, out)  # what was measured outlives a killed run
        print(table, end="")
    except (RestoreError, RecipeError) as error:
        print(f"benchmark: {error}", file=sys.stderr)
        raise typer.Exit(getattr(error, "exit_code", 2)) from error


if __name__ == "__main__":
    app()
