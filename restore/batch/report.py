"""The report as a page: what failed first, then each picture before and after.

Text in it is escaped, whoever wrote it. It stays small whatever the run: thumbnails of the first
few hundred pictures, a line for each of some thousands; report.jsonl has all.
"""

import base64
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from restore.batch import ours
from restore.batch.journal import HIDDEN, as_output_error, reports
from restore.batch.rows import Row, read_rows
from restore.errors import OutputError, UsageError, printable
from restore.files import replacing, write_text
from restore.images import memmap

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

SIDE = 160  # px, of a thumbnail
PICTURES = 300  # shown with thumbnails, about 10 kB each
LINES = 5000
ORDER = ("failed", "left", "done", "skipped")  # of the page
GOOD = ("left", "skipped", "failed", "done")  # of two rows on one file the better one counts

_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<meta name="generator" content="restore-toolkit">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light; --ink: #1a1a1a; --dim: #666; --line: #d8d8d8; }
body { font: 15px/1.5 Charter, Georgia, serif; color: var(--ink); margin: 2.5rem auto;
  max-width: 78rem; padding: 0 1.5rem; }
h1 { font-size: 1.7rem; margin-bottom: .3rem } h2 { font-size: 1.2rem; margin-top: 2.2rem }
.dim { color: var(--dim) }
table { border-collapse: collapse; font-size: .85rem; width: 100% }
th { border-bottom: 1px solid var(--ink); text-align: left; padding: .25rem .9rem .25rem 0 }
td { border-bottom: 1px solid var(--line); padding: .35rem .9rem .35rem 0; vertical-align: top;
  overflow-wrap: anywhere }
td.name { min-width: 12rem; max-width: 28rem } td.short { white-space: nowrap; width: 1% }
img { display: block }
</style></head><body><h1>{{ title }}</h1>
<p class="dim">{{ told }}</p>
{% for heading, rows in parts %}<h2>{{ heading }}</h2>
<table>{% for row in rows %}<tr>
{%- if row.thumb %}<td class="short"><img src="{{ row.thumb }}" alt="before and after"></td>
{%- elif row.has_thumbs %}<td></td>{% endif -%}
<td class="name">{{ row.name }}</td><td class="short">{{ row.short }}</td><td>{{ row.text }}</td>
</tr>{% endfor %}</table>
{% endfor %}{% if more %}<p class="dim">and {{ more }} more, in report.jsonl</p>{% endif %}
</body></html>
"""


def keep_thumbs(out: Path, key: str, *shown: "tuple[np.ndarray, np.ndarray | None]") -> None:
    """Keep a small JPEG for the page: (pixels (H, W, 3), alpha (H, W) or None) side by side."""
    from PIL import Image

    panels = [_panel(*one) for one in shown]
    height = max(panel.height for panel in panels)
    strip = Image.new("RGB", (SIDE * len(panels) + 8 * (len(panels) - 1), height), "white")
    for place, panel in enumerate(panels):
        strip.paste(panel, (place * (SIDE + 8), 0))
    buffer = io.BytesIO()
    strip.save(buffer, "JPEG", quality=70)
    path = thumb_path(out, key)
    if not path.parent.resolve().is_relative_to((out / HIDDEN).resolve()):
        raise OutputError(f"{path.parent}: is a link that leads out of {out}; remove it")
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, is_lasting=False) as temporary:  # never through a link, soft or hard
        temporary.write_bytes(buffer.getvalue())


def _panel(pixels: "np.ndarray", alpha: "np.ndarray | None") -> "Image.Image":
    """One picture, at most SIDE on a side, on white where it is transparent."""
    import numpy as np
    from PIL import Image

    step = max(1, max(pixels.shape[:2]) // (4 * SIDE))  # a large picture is thinned out first

    def small(layer: np.ndarray) -> Image.Image:
        layer = _thinned(layer, step)
        eight = (layer >> 8).astype(np.uint8) if layer.dtype == np.uint16 else layer
        image = Image.fromarray(np.ascontiguousarray(eight))
        scale = min(SIDE / image.width, SIDE / image.height)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        return image.resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.NEAREST)

    image = small(pixels)
    if alpha is None:
        return image
    return Image.composite(image, Image.new("RGB", image.size, "white"), small(alpha))


def _thinned(layer: "np.ndarray", step: int) -> "np.ndarray":
    """Each step-th sample, by bands: one on disk is not to come into memory for it."""
    import numpy as np

    band, parts = -(-256 // step) * step, []
    for first in range(0, len(layer), band):
        parts.append(layer[first : first + band][::step, ::step].copy())
        memmap.let_go()
    return np.concatenate(parts)


def thumb_path(out: Path, key: str) -> Path:
    name = hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
    return out / HIDDEN / "thumbs" / name[:2] / f"{name}.jpg"


def publisher(out: Path, ending: str = "") -> Callable[[Sequence[Row], Row], None]:
    """Writes the page of a run into its folder."""

    def publish(rows: Sequence[Row], summary: Row) -> None:
        write_page(out / f"report{ending}.html", rows, summary, [out])

    return publish


def write_page(path: Path, rows: Sequence[Row], summary: Row, homes: Sequence[Path]) -> None:
    """Write the page of these rows in one step.

    homes  output folders, where thumbnails may be.
    """
    from jinja2 import Environment  # only pages need it

    ranked = sorted(rows, key=lambda row: (ORDER.index(row["status"]), not row.get("warnings")))
    shown = [_shown(row) for row in ranked[:LINES]]
    pictures = [line for line in shown if line["status"] == "done"]
    for line in pictures[:PICTURES]:
        line["thumb"] = _thumb(line["key"], homes)
    for line in pictures:
        line["has_thumbs"] = True
    parts = [
        (f"{status} ({count})", [line for line in shown if line["status"] == status])
        for status in ORDER
        if (count := sum(row["status"] == status for row in rows))
    ]
    counts = ", ".join(f"{count} {name}" for name, count in _counts(summary).items() if count)
    told = f"{counts}; {summary['seconds']:.0f} s" + (
        f"; stopped early: {summary['stopped']}" if summary.get("stopped") else ""
    )
    html = Environment(autoescape=True).from_string(_TEMPLATE)
    title = printable(f"Report of {path.parent.name or path.parent}")
    more = len(rows) - len(shown)
    with as_output_error(path):
        write_text(path, html.render(title=title, told=told, parts=parts, more=more))


def _counts(summary: Row) -> dict[str, int]:
    names = ("failed", "left", "done", "finished", "skipped")
    return {name: summary[name] for name in names if name in summary}


def _shown(row: Row) -> dict[str, object]:
    sizes = [f"{row[size][1]}x{row[size][0]}" for size in ("size_in", "size_out") if size in row]
    short = row.get("code", "") if row["status"] != "done" else " → ".join(sizes)
    texts = [row["error"]] if "error" in row else row.get("warnings", [])
    text = "; ".join(map(printable, texts))
    name = printable(row["key"])
    return {"status": row["status"], "key": row["key"], "name": name, "short": short, "text": text}


def _thumb(key: str, homes: Sequence[Path]) -> str:
    for out in homes:
        try:
            data = thumb_path(out, key).read_bytes()
        except OSError:
            continue
        return "data:image/jpeg;base64," + base64.b64encode(data).decode()
    return ""


def merge(given: Sequence[Path], out: Path) -> Row:
    """One report of several, such as those of shards; returns its summary.

    given  reports, or folders that hold some. The paths of outputs are told from `out`.
    Raises UsageError if there is no report, or if `out` holds one that is not given.
    """
    found = [path for one in given for path in (sorted(reports(one)) if one.is_dir() else [one])]
    missing = [str(path) for path in given if not path.exists()]
    if missing or not found:
        raise UsageError(f"{', '.join(missing or map(str, given))}: no report.jsonl there")
    held = {path.resolve() for path in found}
    ours.refuse_reports(out)
    strange = [path for path in reports(out) if path.resolve() not in held]
    if strange:
        raise UsageError(f"{strange[0]}: would be lost; merge it too, or give another -o")
    best: dict[tuple[str, str], Row] = {}
    for path in found:
        for row in _moved(read_rows(path), path.parent, out):
            name = row["key"], row.get("source", "")
            if name not in best or _rank(row) >= _rank(best[name]):
                best[name] = row
    rows = sorted(best.values(), key=lambda row: row["key"])
    counts = Counter(row["status"] for row in rows)
    seconds = round(sum(row.get("seconds", 0) for row in rows), 3)
    summary = {**{name: counts[name] for name in GOOD}, "seconds": seconds}
    with as_output_error(out):
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / "report.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        write_text(out / "summary.json", json.dumps(summary, indent=2) + "\n")
    write_page(out / "report.html", rows, summary, [path.parent for path in found])
    return summary


def _rank(row: Row) -> int:
    return GOOD.index(row["status"])


def _moved(rows: Iterable[Row], old: Path, new: Path) -> Iterable[Row]:
    """The rows with the paths of their outputs told from another folder."""

    def path(name: str) -> str:
        return Path(os.path.relpath(old / name, new)).as_posix()

    for row in rows:
        if "output" in row:
            row["output"] = path(row["output"])
        if "frames" in row:
            row["frames"] = {path(name): digest for name, digest in row["frames"].items()}
        yield row
