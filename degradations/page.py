"""One self-contained HTML page of figures, pictures and tables: no script, nothing fetched."""

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ page.title }}</title>
<meta name="generator" content="restore-toolkit">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light; --ink: #1a1a1a; --dim: #666; --line: #d8d8d8; }
body { font: 15px/1.5 Charter, Georgia, serif; color: var(--ink); margin: 2.5rem auto;
  max-width: 78rem; padding: 0 1.5rem; }
h1 { font-size: 1.7rem; margin-bottom: .3rem } h2 { font-size: 1.2rem; margin-top: 2.2rem }
p { max-width: 46rem } figure { margin: 1.2rem 0; overflow-x: auto }
figcaption { color: var(--dim); font-size: .9rem; max-width: 46rem }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums }
th { border-bottom: 1px solid var(--ink); text-align: left; padding: .25rem .9rem .25rem 0 }
td { border-bottom: 1px solid var(--line); padding: .25rem .9rem .25rem 0; vertical-align: top }
td.number { text-align: right } img { max-width: none; vertical-align: top }
.grid { display: grid; gap: .9rem .7rem; width: max-content }
.cell { font: 11px/1.35 ui-monospace, Menlo, monospace; color: var(--dim); overflow-wrap: anywhere }
.cell img { display: block; margin-bottom: .3rem } pre { font-size: .8rem; overflow-x: auto }
svg { max-width: 100%; height: auto }
</style></head><body><h1>{{ page.title }}</h1>
{% for part in page.parts %}
{%- if part.kind == "heading" %}<h2>{{ part.text }}</h2>
{% elif part.kind == "text" %}<p>{{ part.text }}</p>
{% elif part.kind == "code" %}<pre>{{ part.text }}</pre>
{% elif part.kind == "figure" %}<figure>
<div role="img" aria-label="{{ part.caption }}">{{ part.svg | safe }}</div>
<figcaption>{{ part.caption }}</figcaption></figure>
{% elif part.kind == "table" %}<figure><table><tr>{% for name in part.head %}<th>{{ name }}</th>
{%- endfor %}</tr>
{% for row in part.rows %}<tr>{% for cell in row %}
<td{% if cell is number %} class="number"{% endif %}>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table><figcaption>{{ part.caption }}</figcaption></figure>
{% elif part.kind == "grid" %}<figure>
<div class="grid" style="grid-template-columns: repeat({{ part.columns }}, max-content)">
{% for cell in part.cells %}<div class="cell" style="width: {{ cell.width }}px">
<img src="{{ cell.source }}" width="{{ cell.width }}" alt="{{ cell.caption }}">
{% for line in cell.caption.splitlines() %}{{ line }}<br>{% endfor %}</div>
{% endfor %}</div><figcaption>{{ part.caption }}</figcaption></figure>
{% endif %}{% endfor %}</body></html>
"""


def plain(text: str) -> str:
    """Text for matplotlib, which reads dollars as mathematics and cannot show broken UTF-8."""
    whole = text.encode("utf-8", "backslashreplace").decode()
    kept = "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in whole)
    return kept.replace("$", r"\$")


@dataclass(frozen=True)
class Cell:
    """A picture of a grid and the text below it."""

    pixels: np.ndarray
    """uint8 (H, W, 3) or (H, W)."""
    caption: str = ""
    """Text below the picture; line breaks are kept."""
    width: int = 0
    """Width on the page, CSS pixels; 0: as wide as the picture."""

    def render(self) -> dict[str, Any]:
        """Return what the template needs, with the picture as a data URL."""
        file = io.BytesIO()
        Image.fromarray(self.pixels).save(file, "PNG")
        source = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
        width = self.width or self.pixels.shape[1]
        return {"source": source, "width": width, "caption": self.caption}


@dataclass
class Page:
    """A page to which parts are added from top to bottom; all text is escaped.

    Attributes:
        title: Its title.
        parts: What the template renders, in order.
    """

    title: str
    parts: list[dict[str, Any]] = field(default_factory=list)

    def heading(self, text: str) -> None:
        """Add a heading."""
        self.parts.append({"kind": "heading", "text": text})

    def text(self, text: str) -> None:
        """Add a paragraph."""
        self.parts.append({"kind": "text", "text": text})

    def code(self, text: str) -> None:
        """Add text as it stands, in a fixed-width font."""
        self.parts.append({"kind": "code", "text": text})

    def figure(self, figure: Any, caption: str) -> None:
        """Add a matplotlib Figure, drawn as SVG."""
        file = io.StringIO()
        figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None})
        svg = file.getvalue()
        self.parts.append({"kind": "figure", "svg": svg[svg.index("<svg") :], "caption": caption})

    def table(self, head: Sequence[str], rows: Iterable[Sequence[Any]], caption: str) -> None:
        """Add a table."""
        rows = [list(row) for row in rows]
        self.parts.append({"kind": "table", "head": head, "rows": rows, "caption": caption})

    def grid(self, cells: Iterable[Cell], columns: int, caption: str) -> None:
        """Add pictures in rows of `columns`."""
        rendered = [cell.render() for cell in cells]
        self.parts.append(
            {"kind": "grid", "cells": rendered, "columns": columns, "caption": caption}
        )

    def write(self, path: Path) -> None:
        """Write the page as one HTML file."""
        from jinja2 import Environment  # only pages need it

        html = Environment(autoescape=True).from_string(_TEMPLATE).render(page=self)
        path.write_text(html, encoding="utf-8", errors="backslashreplace")
