"""Seconds and memory a megapixel takes, ours beside its peers, and how far from what is possible.

Each contestant has a process of its own (speed_contestants.py) and takes pictures of growing size.
The limit is the time of the network's own convolutions on this machine, each alone at its shape.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MOVED = 0.2  # a ratio that changed by more is named by --quick
Row = dict[str, Any]


def measure(
    names: Sequence[str],
    sizes: Sequence[float],
    out: Path,
    threads: int,
    limit_s: float,
    rounds: int = 1,
) -> list[Row]:
    """A row for each contestant and size.

    Args:
        names: Of `speed_contestants.CONTESTANTS`.
        sizes: Megapixels of the results, growing.
        out: A folder for models with random weights, kept for a second run.
        threads: Of torch.
        limit_s: A contestant is not asked for a size that it would take longer for.
        rounds: The contestants take turns so often; `best` keeps what a quiet machine gave.
    """
    rows = []
    for name in [name for _ in range(rounds) for name in names]:
        asked = {"name": name, "sizes": list(sizes), "threads": threads, "limit_s": limit_s}
        command = [sys.executable, str(HERE / "speed_contestants.py"), json.dumps(asked), str(out)]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
        made = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode and not made:
            made = [{"name": name, "missing": f"ended with {done.returncode}"}]
        for row in made:
            print(json.dumps(row), file=sys.stderr, flush=True)
        rows += made
    return best(rows)


def best(rows: Sequence[Row]) -> list[Row]:
    """One row for each contestant and size: of all rounds the least time, the most memory.

    Other work on the machine only ever adds time. The slowest round is in `most_cpu_s`.
    """
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault((row["name"], row.get("mp")), []).append(row)
    kept = []
    for group in groups.values():
        row = min(group, key=lambda row: row.get("cpu_s", float("inf")))
        if "cpu_s" in row:
            row = row | {"most_cpu_s": max(row["cpu_s"] for row in group)}
        for key, choose in (("peak_mb", max), ("limit_cpu_s", min)):
            if key in row:
                row[key] = choose(row[key] for row in group)
        kept.append(row)
    return kept


def published() -> dict[str, float]:
    """The ratios at one megapixel that were measured for the documents."""
    return json.loads((HERE / "speed" / "speed.json").read_text(encoding="utf-8"))["ratios_1mp"]


def slopes(rows: Sequence[Row], key: str) -> dict[str, float]:
    """Of each contestant, the exponent p of key ~ megapixels ** p: 1 is linear, 0 is flat."""
    found = {}
    for name in dict.fromkeys(row["name"] for row in rows):
        own = [row for row in rows if row["name"] == name and key in row and row["mp"] >= 1]
        if len(own) > 1:
            across, up = (np.log([max(1e-9, row[k]) for row in own]) for k in ("mp", key))
            found[name] = float(np.polyfit(across, up, 1)[0])
    return found


def ratios(rows: Sequence[Row], size: float | None = None) -> dict[str, float]:
    """CPU seconds of each contestant over its peer's.

    Args:
        size: In megapixels; None: the largest that both took.
    """
    found = {}
    for row in rows:
        peers = [
            other
            for other in rows
            if other["name"] == row.get("against") and other.get("mp") == row.get("mp")
        ]
        if "cpu_s" in row and size in (None, row["mp"]) and peers and "cpu_s" in peers[0]:
            found[f"{row['name']} / {row['against']}"] = row["cpu_s"] / peers[0]["cpu_s"]
    return found


def moved(now: dict[str, float], before: dict[str, float]) -> list[str]:
    """Ratios that differ from the published ones by more than a fifth."""
    return [
        f"{name}: {before[name]:.2f} before, {ratio:.2f} now"
        for name, ratio in now.items()
        if name in before and abs(ratio / before[name] - 1) > MOVED
    ]


def unmeasured(names: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Contestants without a figure, and why: their ratios would be left out in silence."""
    measured = {row["name"] for row in rows if "cpu_s" in row}
    why = {row["name"]: row["missing"] for row in rows if "missing" in row}
    return [
        f"{name}: not measured, {why.get(name, 'it takes too long')}"
        for name in names
        if name not in measured
    ]


def table(rows: Sequence[Row]) -> str:
    """The figures in Markdown: CPU seconds for each megapixel of the result, and peak memory."""
    sizes = sorted({row["mp"] for row in rows if "mp" in row})
    head = " | ".join(f"{size:g} MP" for size in sizes)
    lines = [
        "CPU seconds for each megapixel of the result, and the peak of memory beyond the model:",
        "",
        f"| | {head} | over its limit |",
        f"| --- |{' --- |' * (len(sizes) + 1)}",
    ]
    for name in dict.fromkeys(row["name"] for row in rows):
        own = {row["mp"]: row for row in rows if row["name"] == name and "mp" in row}
        cells = [_cell(own.get(size, {})) for size in sizes]
        limits = [row["cpu_s"] / row["limit_cpu_s"] for row in own.values() if "limit_cpu_s" in row]
        missing = next(
            (row["missing"] for row in rows if row["name"] == name and "missing" in row), ""
        )
        last = f"{limits[-1]:.2f}" if limits else missing
        lines.append(f"| {name} | {' | '.join(cells)} | {last} |")
    lines += ["", "Ratios of CPU seconds, at the largest size that both took:", ""]
    lines += [f"- {name}: {ratio:.2f}" for name, ratio in ratios(rows).items()]
    for what, key in (("Time", "cpu_s"), ("Memory", "peak_mb")):
        message = ", ".join(f"{name} {slope:.2f}" for name, slope in slopes(rows, key).items())
        lines += ["", f"{what} grows from 1 megapixel on with this power of the size: {message}."]
    return "\n".join(lines) + "\n"


def _cell(row: Row) -> str:
    if "cpu_s" not in row:
        return ""
    memory = f", {row['peak_mb']:.0f} MB" if "peak_mb" in row else ""
    return f"{row['cpu_s'] / row['mp']:.2f} s{memory}"


def write(rows: Sequence[Row], out: Path) -> None:
    """speed.json, speed.md and speed.svg in `out`."""
    made = {"rows": list(rows), "ratios": ratios(rows), "ratios_1mp": ratios(rows, 1.0)}
    (out / "speed.json").write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    (out / "speed.md").write_text(table(rows), encoding="utf-8")
    plot(rows, out / "speed.svg")


def plot(rows: Sequence[Row], path: Path) -> None:
    """Seconds and memory against the size of the result."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for number, name in enumerate(dict.fromkeys(row["name"] for row in rows)):
        own = [row for row in rows if row["name"] == name and "cpu_s" in row]
        if own:
            across = [row["mp"] for row in own]
            line = "o-" if number < 10 else "s--"  # the colours begin again
            left.loglog(across, [row["cpu_s"] for row in own], line, label=name, markersize=3)
            right.loglog(across, [row.get("peak_mb") for row in own], line, markersize=3)
    left.set(xlabel="megapixels of the result", ylabel="CPU seconds")
    right.set(xlabel="megapixels of the result", ylabel="peak memory beyond the model, MB")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.legend(loc="outside right center", frameon=False, fontsize=7)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)
