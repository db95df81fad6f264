"""The model card of an export: data and licences, recipe, steps, hardware, scores, limits."""

import csv
import platform
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from restore.checkpoints import card, manifest
from restore.errors import counted

SCORES = "| score | value |\n| --- | --- |"
FOLDERS = (
    *("photos", "low", "held_out", "fonts", "recipe"),
    *("output", "autoencoder", "start", "cache", "images", "restorer"),
    "path",  # of a teacher, or of weights to blend with
)
MODELS = ("model", "teacher", "student", "stack", "first_stage")  # a folder, or a public name
NOTES = "photos.csv"  # beside or in a folder of photos
NEEDED = {"file", "source"}  # its columns; a table with others is not copied
COLUMNS = NEEDED | {"licence", "license", "commit", "path", "width", "height"}
COLUMNS |= {"author", "title", "url"}


@dataclass(frozen=True)
class About:
    """What a card is written from."""

    options: dict[str, Any]
    """Options of the run, as JSON holds them."""
    scores: dict[str, float]
    """Scores of the last preview."""
    seconds: float
    """Seconds that training took."""
    machine: Any
    """An Accelerator, or anything with num_processes and device."""


def write(folder: Path, about: About) -> None:
    """Write README.md, and photos.csv if the sources are known, into an exported folder."""
    data = about.options["stage"].get("data") or {}
    notes = find_notes(data.get("photos"))
    if notes:
        shutil.copyfile(notes, folder / "photos.csv")
    (folder / "README.md").write_text(render(folder.parent.name, about, notes), encoding="utf-8")
    manifest.write(folder)


def find_notes(photos: object) -> Path | None:
    """The CSV with the sources of the photos: within their folder, beside it, or of its name.

    Tables with other columns than ours are ignored; they are not meant for us.
    """
    if not isinstance(photos, str):
        return None
    place = Path(photos).resolve()  # "." has no name
    near = [place.with_suffix(".csv"), place / NOTES, place.parent / NOTES]
    return next((path for path in near if path.is_file() and _tells_sources(path)), None)


def _tells_sources(path: Path) -> bool:
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        head = set(next(csv.reader(file), []))
    return head >= NEEDED and bool(head & {"licence", "license"}) and head <= COLUMNS


def render(name: str, about: About, notes: Path | None) -> str:
    parts = {
        f"# {name}": _purpose(about.options["stage"]),
        "## Training": _training(about),
        "## Scores": _scores(about),
        "## Data": _data(about.options["stage"].get("data") or {}, notes),
        "## Limits": _limits(about.options["stage"]),
        "## Configuration": f"```yaml\n{_configuration(about.options)}```",
    }
    body = "\n\n".join(f"{head}\n\n{body}" for head, body in parts.items()) + "\n"
    held_out = (about.options["stage"].get("data") or {}).get("held_out")
    shown = "held-out pictures" if held_out else "other crops of the training photos"
    return card.headed(body, name, scores=about.scores, of=shown)


def _purpose(stage: dict[str, Any]) -> str:
    made = f"Made by `restore train`, stage {stage['kind']}."
    if stage["kind"] in ("denoiser", "finetune", "distil"):
        return f"{made} `restore upscale IN -o OUT --model FOLDER` uses it."
    if stage["kind"] in ("restorer", "fusion"):
        if stage.get("stack"):
            return f"{made} `restore upscale IN -o OUT --model FOLDER` uses it."
        return (
            f"{made} It is a part of a model alone, which `--model` does not take: the same "
            "training with `stage.stack=nano` exports a whole model."
        )
    return made


def _training(about: About) -> str:
    o, machine = about.options, about.machine
    if machine.device.type == "cuda":
        where = f"{machine.num_processes} x {torch.cuda.get_device_name()}"
    else:
        threads = machine.num_processes * torch.get_num_threads()
        where = f"{threads} threads of {_processor()} ({machine.device.type})"
    shape = f"{o['steps']:,} steps of {o['batch']} samples in {o['precision']}"
    rate = f"AdamW at {o['learning_rate']:g}, {o['warmup']} steps of warm-up, then {o['schedule']}"
    spent = f"{about.seconds / 3600:.1f} hours" if about.seconds > 5400 else ""
    spent = spent or f"{about.seconds / 60:.0f} minutes"
    return f"{shape}; {rate}; EMA {o['ema']:g}; seed {o['seed']}. {spent} on {where}."


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def _scores(about: About) -> str:
    if not about.scores:
        return "None was measured."
    data = about.options["stage"].get("data") or {}
    text = "By the averaged weights at the last step."
    if data.get("held_out"):
        text = f"{text[:-1]}, on pictures that training did not see."
    elif data:
        text = f"{text[:-1]}, on other crops of the training photos, so they flatter."
    rows = "\n".join(f"| {name} | {value:.4g} |" for name, value in about.scores.items())
    return f"{text} `restore evaluate` judges on a set of yours.\n\n{SCORES}\n{rows}"


def _data(data: dict[str, Any], notes: Path | None) -> str:
    if not data:
        return "None from outside: pictures are drawn, or come with a package."
    names = [data["recipe"]] if "recipe" in data else data.get("recipes", ())
    recipe = " and ".join(f"`{Path(name).name}`" for name in names)
    recipe = f"Recipe {recipe}" if recipe else ""
    if data.get("low"):
        recipe = "Given pairs of good and bad pictures"
    drawn = ""
    if share := data.get("drawn"):
        kinds = "text, line art, screens, gradients and dead leaves"
        drawn = f"{share:.0%} of the pictures were no photos but drawn by chance: {kinds}."
    lines = [f"{recipe}." if recipe else "", drawn, _sources(notes)]
    return "\n\n".join(line for line in lines if line)


def _sources(notes: Path | None) -> str:
    if not notes:
        return (
            "Sources and licences of the photos are not known here: a photos.csv beside them, with "
            "the columns file, source and licence, would be told in this place."
        )
    with notes.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = list(csv.DictReader(file))
    licences = Counter((row.get("licence") or row.get("license") or "unknown") for row in rows)
    sources = len({row.get("source") for row in rows if row.get("source")})
    table = "\n".join(f"| {_cell(name)} | {count} |" for name, count in licences.most_common())
    text = f"{counted(len(rows), 'photo')} from {counted(sources, 'source')}, listed in photos.csv."
    return f"{text}\n\n| licence | photos |\n| --- | --- |\n{table}"


def _cell(value: str) -> str:
    return value.replace("|", "\\|").replace("\n", " ")


def _limits(stage: dict[str, Any]) -> str:
    data, lines = stage.get("data") or {}, []
    tasks = data.get("tasks") or {}
    if tasks and not data.get("low"):
        lines.append(
            f"Scales it was trained for: {', '.join(f'x{float(s):g}' for s in data['scales'])}."
        )
    if tasks and not (tasks.get("fill") or tasks.get("both")):
        lines.append("It was shown no holes: it restores and enlarges, it does not fill.")
    if tasks and not tasks.get("nothing"):
        lines.append("It was never left without a picture: it makes none from words alone.")
    if data:
        lines.append("Other damage than the recipe's, and pictures unlike its photos, are untried.")
    lines.append("Nothing but the scores above was measured.")
    return "\n".join(f"- {line}" for line in lines)


def _configuration(options: dict[str, Any]) -> str:
    """The options as YAML; of a folder only the last name, since the rest is private."""

    def plain(name: str, value: Any) -> Any:
        if name == "recipes":
            return {Path(recipe).name: weight for recipe, weight in value.items()}
        if isinstance(value, dict):
            return {key: plain(key, inner) for key, inner in value.items()}
        is_place = name in FOLDERS or (name in MODELS and Path(str(value)).exists())
        return Path(value).name if is_place and isinstance(value, str) else value

    return yaml.safe_dump(plain("", options), sort_keys=False)
