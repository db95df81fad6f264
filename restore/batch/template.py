"""The report's page. Its policy allows no network, and no script but the one here."""

import base64
import hashlib

SCRIPT = """
"use strict";
const pairOf = event => event.target.closest(".pair");
const cut = (pair, share) => {
  const percent = Math.round(100 * Math.min(1, Math.max(0, share)));
  pair.style.setProperty("--cut", percent + "%");
  pair.setAttribute("aria-valuenow", percent);
};
const toggle = pair => {
  const isOver = pair.classList.toggle("over");
  pair.setAttribute("role", isOver ? "slider" : "button");
  if (isOver) cut(pair, 0.5); else pair.removeAttribute("aria-valuenow");
};
document.addEventListener("click", event => { if (pairOf(event)) toggle(pairOf(event)); });
document.addEventListener("pointermove", event => {
  const pair = pairOf(event);
  if (!pair || !pair.classList.contains("over")) return;
  const box = pair.getBoundingClientRect();
  cut(pair, (event.clientX - box.left) / box.width);
});
document.addEventListener("keydown", event => {
  const pair = pairOf(event);
  if (!pair) return;
  const step = {ArrowLeft: -0.05, ArrowRight: 0.05}[event.key];
  if (event.key === "Enter" || event.key === " ") toggle(pair);
  else if (step && pair.classList.contains("over"))
    cut(pair, parseFloat(pair.style.getPropertyValue("--cut")) / 100 + step);
  else return;
  event.preventDefault();
});
"""
POLICY = "; ".join(
    (
        "default-src 'none'",
        "img-src data:",
        "style-src 'unsafe-inline'",
        "script-src 'sha256-"
        + base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
        + "'",
    )
)

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<meta name="generator" content="restore-toolkit">
<meta http-equiv="Content-Security-Policy" content="{{ policy }}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light dark; --ink: #1a1a1a; --dim: #666; --line: #d8d8d8; --bad: #a1260d }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --dim: #9a9a9a; --line: #3a3a3a; --bad: #ff9580 }
  body { background: #161616 }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); margin: 2rem auto;
  max-width: 62rem; padding: 0 1rem; overflow-wrap: anywhere }
h1 { font-size: 1.6rem; margin-bottom: .2rem }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .4rem }
h3 { font-size: 1rem; margin: 0 }
p { margin: .2rem 0 }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem } a { color: inherit }
.dim { color: var(--dim) } .bad { color: var(--bad) }
article { border-top: 1px solid var(--line); padding: .8rem 0 }
.row { display: flex; flex-wrap: wrap; gap: .8rem; align-items: flex-start; margin-top: .5rem }
.row img { display: block; max-width: 100% }
.pair { display: flex; flex-wrap: wrap; gap: 2px; cursor: ew-resize; position: relative;
  touch-action: pan-y }
.pair i { display: block; position: relative; width: var(--w); height: var(--h);
  background: var(--u) 0 0 no-repeat; overflow: hidden; print-color-adjust: exact }
.pair i + i { background-position: calc(-1 * var(--w)) 0 }
.pair i::after { content: attr(data-is); position: absolute; left: 0; bottom: 0; padding: 0 .4em;
  font: 12px/1.6 system-ui, sans-serif; color: #fff; background: #0009 }
.pair.over { width: var(--w); display: block }
.pair.over i + i { position: absolute; inset: 0; clip-path: inset(0 0 0 var(--cut)) }
.pair.over i + i::after { left: auto; right: 0 }
.pair.over::after { content: ""; position: absolute; top: 0; bottom: 0; left: var(--cut);
  width: 2px; margin-left: -1px; background: #fff; box-shadow: 0 0 3px #000 }
@media print { article { break-inside: avoid } h2 { break-after: avoid } }
</style></head><body><h1>{{ title }}</h1>
<p class="dim">{{ summary }}</p>
{% if has_pairs %}<p class="dim">With each picture: the place that changed most, at 100 %,
the input enlarged to the size of the result. Click for a slider.</p>{% endif %}
{% if parts | length > 1 %}<nav aria-label="Parts">{% for heading, rows in parts -%}
<a href="#part{{ loop.index }}">{{ heading }}</a> {% endfor %}</nav>
{% endif %}{% for heading, rows in parts %}<h2 id="part{{ loop.index }}">{{ heading }}</h2>
{% for row in rows %}<article><h3>{{ row.name }}</h3>
<p class="{{ 'bad' if row.is_bad else 'dim' }}">{{ row.facts | join(' · ') }}</p>
{% for note in row.notes %}<p>{{ note }}</p>{% endfor -%}
{% if row.thumb %}<div class="row"><img src="{{ row.thumb }}" alt="before and after, small">
{%- if row.crops %}<div class="pair" role="button" tabindex="0" aria-label="before and after"
style="--w: {{ row.width }}px; --h: {{ row.height }}px; --u: url({{ row.crops }})"
><i data-is="before"></i><i data-is="after"></i></div>
{%- endif %}</div>{% endif %}</article>
{% endfor %}{% endfor %}
{%- if more %}<p class="dim">and {{ more }} more, in report.jsonl</p>{% endif %}
<script>{{ script }}</script></body></html>
"""
