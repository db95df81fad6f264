"""`restore evaluate`: parsing and printing; restore.metrics does the measuring."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from restore.batch import ownership
from restore.batch.folder_lock import alone_in
from restore.batch.models import open_model
from restore.cli import shared
from restore.cli.folder import takes
from restore.cli.model import Device, Dtype, Engine, Offline
from restore.cli.progress import counting, print_table
from restore.cli.settings import Seed
from restore.config import load_options
from restore.errors import UsageError, printable
from restore.options import UpscaleOptions

if TYPE_CHECKING:  # torch and cv2 are slow to load: the cheap checks come first
    from restore.metrics.measures import Measure
    from restore.metrics.pairing import PicturePair
    from restore.metrics.report import Group, Report
    from restore.metrics.score import ScoredFolder

SHOWN = 5  # of a list of files that did not pair


@dataclass(frozen=True)
class Scoring:
    """What is measured and shown; each field is an option."""

    metrics: Annotated[
        str,
        typer.Option(
            help="Of psnr, ssim, psnr_rgb, ssim_rgb, ms_ssim, gmsd, detail, pd, lpips, niqe, "
            "between commas; else all that are there."
        ),
    ] = ""
    border: Annotated[
        int, typer.Option(min=0, max=1024, help="px left out on each side; pd, LPIPS see all.")
    ] = 4
    sort: Annotated[
        str | None, typer.Option(help="The measure that worst cases are sorted by. [pd]")
    ] = None
    worst: Annotated[int, typer.Option(min=0, max=200, help="Cases that the report shows.")] = 8

    def choose(self) -> "Chosen":
        """Choose the measures.

        Raises:
            UsageError: A measure is not available, or --sort is not among --metrics.
        """
        from restore.metrics import measures

        names = self.metrics.replace(",", " ").split()
        if self.sort and names and self.sort not in names:
            raise UsageError(f"--sort {self.sort}: is not among --metrics {self.metrics}")
        chosen, absent = measures.choose(names)
        sort = measures.choose([self.sort])[0][0] if self.sort else _usual(chosen)
        return Chosen(chosen, absent, sort.name, self.border)


@dataclass(frozen=True)
class ModelRun:
    """How --model is run over the sets; each field is an option."""

    steps: Annotated[int | None, typer.Option(help="Of the model, as in upscale.")] = None
    seed: Seed = 0
    device: Device = "auto"
    dtype: Dtype = "auto"
    engine: Engine = "torch"
    offline: Offline = False

    @property
    def given(self) -> dict[str, object]:
        """Each option, and whether it differs from its default."""
        return {f"--{f.name}": getattr(self, f.name) != f.default for f in fields(self)}


@dataclass(frozen=True)
class Chosen:
    """The measures, and how pictures are measured.

    Attributes:
        measures: In the order of the report.
        absent: Why other measures are not available.
        sort: The measure that worst cases are sorted by.
        border: px left out on each side.
    """

    measures: "Sequence[Measure]"
    absent: Sequence[str]
    sort: str
    border: int

    def score(self, name: str, pairs: "Sequence[PicturePair]") -> "ScoredFolder":
        from restore.metrics.score import score

        with counting(len(pairs), f"pictures of {name} measured") as count:
            return score(name, pairs, self.measures, self.border, lambda row: count(1))


@takes("scoring", Scoring)
@takes("run", ModelRun)
def evaluate(
    scoring: Scoring,
    run: ModelRun,
    restored: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RESTORED", help="Folders; the later against the first."),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option("--reference", help="The originals, of the same names.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Instead of folders: a model, to restore the --set with.")
    ] = None,
    sets: Annotated[
        list[Path] | None,
        typer.Option(
            "--set",
            help="Inputs and originals: DIR/lr and DIR/hr, or inputs beside a folder hr, or a "
            "folder with hr and folders of inputs; or inputs alone, with --reference.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder for scores.json, scores.csv and report.html."),
    ] = None,
    suffix: Annotated[
        str, typer.Option(help="What the restored names end with beyond the originals', as _out.")
    ] = "",
    inputs: Annotated[
        Path | None, typer.Option(help="What was restored, to be shown in the report.")
    ] = None,
) -> None:
    """Measure restored pictures against their originals, or a model.

    Means come with 95 % bootstrap intervals; of two folders, the second is compared with the first
    picture by picture. Pictures are paired by relative path and name, whatever their format.
    """
    if bool(restored) == bool(model):
        raise UsageError("evaluate takes folders with --reference, or --model with --set")
    idle = {"--suffix": suffix, "--inputs": inputs} if model else {"--set": sets, **run.given}
    _refuse(f"--{'model' if model else 'reference'} has no use for it", idle)
    if out:
        shared.check_output(out)
        ownership.refuse_scores(out)
    else:
        _refuse("the report needs -o", {"--sort": scoring.sort, "--inputs": inputs})
    chosen = scoring.choose()
    if model:
        groups = _sets(model, sets, reference, out, run, chosen)
    else:
        groups = [_folders(restored or [], reference, out, suffix, inputs, chosen)]
    from restore.metrics.report import Report

    report = Report(tuple(groups), tuple(chosen.measures), chosen.border, tuple(chosen.absent))
    _finish(report, out, chosen.sort, scoring.worst)


def _refuse(why: str, given: dict[str, object]) -> None:
    """Raise UsageError for options that would be ignored."""
    named = [name for name, value in given.items() if value]
    if named:
        raise UsageError(f"{', '.join(named)}: {why}")


def _usual(measures: "Sequence[Measure]") -> "Measure":
    return next((one for one in measures if one.name == "pd"), measures[0])


def _folders(
    restored: list[Path],
    reference: Path | None,
    out: Path | None,
    suffix: str,
    inputs: Path | None,
    chosen: Chosen,
) -> "Group":
    from restore.metrics import pairing
    from restore.metrics.report import Group

    if not reference:
        raise UsageError("--reference is missing: the folder of the originals")
    named = _names(restored)
    found = [pairing.pair(folder, reference, out, suffix, inputs) for folder in restored]
    folders = []
    for name, pairs in zip(named, found, strict=True):
        for what, paths in (("no original", pairs.unpaired), ("not restored", pairs.missing)):
            _complain(f"{name}: {what}", [str(path) for path in paths])
        one = chosen.score(name, pairs.pairs)
        folders.append(replace(one, unpaired=[*pairs.unpaired], missing=[*pairs.missing]))
    return Group("", tuple(folders))


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names where they differ, else their paths. Raises UsageError."""
    places = [folder.resolve() for folder in folders]
    twice = next((folder for folder in folders if places.count(folder.resolve()) > 1), None)
    if twice:
        raise UsageError(f"{twice}: given twice; a folder is compared with others")
    names = [place.name for place in places]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _sets(
    model: str,
    sets: list[Path] | None,
    reference: Path | None,
    out: Path | None,
    run: ModelRun,
    chosen: Chosen,
) -> "list[Group]":
    from restore.batch.evaluation_set import restore_set
    from restore.metrics import pairing
    from restore.metrics.report import Group
    from restore.metrics.score import failed_row

    if not out:
        raise UsageError("--model needs -o: the restored pictures are kept there")
    options = load_options(UpscaleOptions, "upscale", None, [], ("upscale",), steps=run.steps)
    if not sets:
        raise UsageError(f"--model needs --set: {pairing.LAYOUTS}")
    opened = pairing.open_sets(sets, reference)
    loaded = open_model(model, run.device, run.dtype, engine=run.engine, offline=run.offline)
    loaded = loaded.for_options(options)
    groups = []
    for group in opened:
        matched = pairing.pair(group.inputs, group.originals, out)
        _complain(f"{group.name}: no original", [str(path) for path in matched.unpaired])
        _complain(f"{group.name}: no input", [str(path) for path in matched.missing])
        with counting(len(matched.pairs), f"pictures of {group.name} restored") as count:
            restored, failures = restore_set(
                matched.pairs,
                loaded.stack,
                loaded.weights,
                options,
                out / "restored" / group.name,
                run.seed,
                lambda row, count=count: count(1),
                **loaded.precision,
            )
        scored = chosen.score(Path(model).name, restored)
        scored.rows += [failed_row(key, *why) for key, why in failures.items()]
        unmatched = {"unpaired": [*matched.unpaired], "missing": [*matched.missing]}
        groups.append(Group(group.name, (replace(scored, **unmatched),)))
    return groups


def _finish(report: "Report", out: Path | None, sort: str, worst: int) -> None:
    """Print the tables, write the report if -o is given, and exit: with 1 if a picture failed."""
    from restore.metrics import report as tables

    print_table(*tables.mean_table(report, list(report.titled())))
    for group in report.groups:
        for table in tables.difference_tables(report, group):
            print_table(*table)
    for line in report.absent:
        _complain("not measured", [line])
    for name, one in report.titled():
        _complain(f"{name}: failed", [row["error"] for row in one.failed])
        notes = Counter(note for row in one.done.values() for note in row["warnings"])
        for note, count in notes.items():
            _complain(f"{name}: {note}", [f"{count} of {len(one.done)}"])
    if out:
        from restore.metrics import page

        with alone_in(out):
            tables.write(report, out)
            page.write(report, out, sort, worst)
        print(out / "report.html")
    raise typer.Exit(1 if report.failures else 0)


def _complain(what: str, about: Sequence[str]) -> None:
    for line in about[:SHOWN]:
        print(f"restore: {printable(f'{what}: {line}')}", file=sys.stderr)
    if len(about) > SHOWN:
        print(f"restore: {printable(what)}: {len(about) - SHOWN} more", file=sys.stderr)
