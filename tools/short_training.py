"""Train every first stage in one short run of one GPU, on a machine without package indexes.

python tools/short_training.py pack PHOTOS BUNDLE --start FILE --teacher FILE
python tools/short_training.py run BUNDLE OUT --seconds 480

`pack` shrinks the photos and halves the teacher's weights: 527 photos travel in under 50 MB.
`run` trains what LANES names, lane beside lane, each stage by the trainer and its YAML in
configs/train, and keeps in OUT what is exported on the way: a run that is cut off has lost 45 s.
What FILE and TEACHER are, configs/train/base_restorer.yaml says.
"""

import hashlib
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from os import cpu_count
from pathlib import Path
from threading import Event, Thread
from typing import Annotated

import torch
import typer
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs" / "train"
QUALITY, SHORTEST = 82, 384  # of the WebPs; px of the shorter side that is left
START, TEACHER = "realesr-general-x4v3.safetensors", "realesrgan-x4plus.safetensors"
SETUP_S, MARGIN_S = 22, 15  # a stage's start; what is left at the end to write everything
EXPORT_S = 45
app = typer.Typer(add_completion=False, help=__doc__, rich_markup_mode=None)


@dataclass(frozen=True)
class Stage:
    """One run of the trainer.

    Attributes:
        config: Name of its YAML file in configs/train.
        share: Share of the time of its lane.
        part: Folder of the export that holds the weights.
        sets: Options that replace those of the YAML; values are names of files in the bundle.
    """

    config: str
    share: float
    part: str = "restorer"
    sets: dict[str, str] = field(default_factory=dict)


PUBLISHED = {"stage.start": START, "stage.teacher.path": TEACHER}
LANES = {
    "base": (
        Stage("base_restorer", 0.62, sets=PUBLISHED),
        Stage("base_faithful", 0.22),
        Stage("base_fusion", 0.16, "fusion"),
    ),
    "nano": (
        Stage("nano_restorer", 0.64, sets=PUBLISHED),
        Stage("nano_faithful", 0.18),
        Stage("nano_fusion", 0.18, "fusion"),
    ),
}


@app.command()
def pack(
    photos: Annotated[Path, typer.Argument(exists=True)],
    bundle: Path,
    start: Annotated[Path, typer.Option(help="realesr-general-x4v3 as .safetensors.")],
    teacher: Annotated[Path, typer.Option(help="realesrgan-x4plus as .safetensors.")],
) -> None:
    """Make a folder that travels: photos at half size or so, and the teacher in eight bits."""
    from degradations.cutting import files_in  # found only once the checkout is on the path
    from degradations.errors import RecipeError
    from degradations.samples import read

    read_weights(start)
    small_teacher = quantize(read_weights(teacher))
    try:
        paths = list(files_in(photos))
    except RecipeError as error:
        raise typer.BadParameter(str(error)) from error
    (bundle / "photos").mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(paths):
        try:
            photo = Image.fromarray(read(path))
        except RecipeError as error:
            print(f"left out: {error}")
            continue
        factor = min(1.0, max(0.5, SHORTEST / min(photo.size)))
        size = tuple(round(side * factor) for side in photo.size)
        small = photo if factor == 1 else photo.resize(size, Image.Resampling.LANCZOS)
        small.save(bundle / "photos" / f"{number:05d}_{path.stem}.webp", quality=QUALITY)
    shutil.copyfile(start, bundle / START)
    save_file(small_teacher, bundle / f"eight_bits_{TEACHER}")
    size = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())
    print(f"{bundle}: {size / 2**20:.1f} MiB")


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        mend = "fetch or pack it again"
        raise typer.BadParameter(f"{path}: is no readable .safetensors: {error}; {mend}") from error


def quantize(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Quantize convolutions to 8 bits, with a scale for each kernel, and the rest to fp16.

    With one scale for each filter the mean error of the output was 2.4 of 255 levels.
    """
    quantized = {}
    for name, weight in weights.items():
        if weight.ndim < 2:
            quantized[name] = weight.half()
            continue
        scale = (weight.float().abs().amax((2, 3), keepdim=True).clamp(min=1e-4) / 127).half()
        quantized[name] = (weight.float() / scale.float()).round().clamp(-127, 127).to(torch.int8)
        quantized[f"{name}.scale"] = scale
    return quantized


def dequantize(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Undo `quantize`, up to rounding."""
    return {
        name: weight.float() * weights[f"{name}.scale"].float()
        if weight.dtype == torch.int8
        else weight.float()
        for name, weight in weights.items()
        if not name.endswith(".scale")
    }


@app.command()
def run(
    # the trainers run in another folder
    bundle: Annotated[Path, typer.Argument(exists=True, file_okay=False, resolve_path=True)],
    out: Path,
    seconds: Annotated[float, typer.Option(help="Of all of it, this process's start included.")],
    device: str = "cuda",
    precision: str = "bf16",
    only: Annotated[
        list[str] | None, typer.Option(help="Lanes to train: base, nano. One alone is faster.")
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE of every stage.")
    ] = None,
) -> None:
    """Train, and leave fp16 weights, logs and previews in OUT. Exit 1 if a stage failed."""
    end = time.monotonic() + seconds - MARGIN_S
    unknown = sorted({*(only or ())} - {*LANES})
    if unknown:
        raise typer.BadParameter(f"no lane is named {unknown[0]}; there are {', '.join(LANES)}")
    lanes = [LANES[name] for name in dict.fromkeys(only or LANES)]
    if odd := [pair for pair in sets or () if "=" not in pair]:
        raise typer.BadParameter(f"--set {odd[0]}: write KEY=VALUE")
    last = dict(pair.split("=", 1) for pair in sets or ())
    teacher = dequantize(read_weights(bundle / f"eight_bits_{TEACHER}"))
    out.mkdir(parents=True, exist_ok=True)
    runs = ROOT / "runs"  # where the YAMLs look for one another's exports
    runs.mkdir(exist_ok=True)
    refuse_others(runs, lanes, identify(bundle))
    save_file(teacher, bundle / TEACHER)
    common = {
        "device": device,
        "precision": precision,
        "workers": str(max(0, (cpu_count() or 1) // len(lanes) - 2)),
        "stage.data.photos": str(bundle / "photos"),
        "export_every_s": str(EXPORT_S),
        "show_every": "1000000",
        "save_every": "1000000",
        "log_every": "100",
        "log_with": "[]",
    }
    over = Event()
    keeper = Thread(target=keep_collecting, args=(runs, out, lanes, over))
    keeper.start()
    with ThreadPoolExecutor(len(lanes)) as pool:
        try:
            done = pool.map(lambda lane: run_lane(lane, bundle, end, common, last, over), lanes)
            failed = [name for names in done for name in names]
        finally:  # by Ctrl-C, too: it ends the stages that run, and no lane begins another
            over.set()
    keeper.join()
    print(f"failed: {', '.join(failed)}" if failed else "all stages are done")
    raise typer.Exit(bool(failed))


def identify(bundle: Path) -> str:
    """A digest of what was packed."""
    found = hashlib.sha256()
    for path in sorted(bundle.rglob("*")):
        if path.is_file() and path != bundle / TEACHER:  # which `run` makes
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            found.update(f"{path.relative_to(bundle).as_posix()} {digest}\n".encode())
    return found.hexdigest()


def refuse_others(runs: Path, lanes: list[tuple[Stage, ...]], bundle: str) -> None:
    """Note the bundle of each stage, and refuse to go on with what learnt from another one."""
    for stage in (stage for lane in lanes for stage in lane):
        note = runs / f"{stage.config}.bundle"
        is_same = note.is_file() and note.read_text() == bundle
        if not is_same and any((runs / stage.config).glob("step_*")):
            mend = "move that folder away to start anew"
            raise typer.BadParameter(
                f"{runs / stage.config}: holds checkpoints of another bundle; {mend}"
            )
        note.write_text(bundle)


def run_lane(
    lane: tuple[Stage, ...],
    bundle: Path,
    end: float,
    common: dict[str, str],
    last: dict[str, str],
    over: Event,
) -> list[str]:
    """Run the stages of a lane one after another, until `over` is set.

    Returns:
        The names of those that failed.
    """
    failed, runs = [], ROOT / "runs"
    for at, stage in enumerate(lane):
        if over.is_set():
            break
        share = stage.share / sum(later.share for later in lane[at:])
        allowed = (end - time.monotonic()) * share - SETUP_S
        sets = {name: str(bundle / file) for name, file in stage.sets.items()}
        sets |= {
            "output": str(runs / stage.config),
            "seconds": f"{max(5.0, allowed):.0f}",
            "steps": "1000000",
        }
        words = [f"{name}={value}" for name, value in (common | sets | last).items()]
        config = CONFIGS / f"{stage.config}.yaml"
        with (runs / f"{stage.config}.log").open("w") as log:
            command = [sys.executable, "-m", "restore", "train", str(config), *words]
            code = subprocess.call(command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT)
        ended = (runs / f"{stage.config}.log").read_text().splitlines()[-4:]
        print(f"{stage.config}: exit {code}", *ended, sep="\n  ", flush=True)
        failed += [stage.config] if code else []
    return failed


def keep_collecting(runs: Path, out: Path, lanes: list[tuple[Stage, ...]], over: Event) -> None:
    """Collect exports every 15 s until `over` is set, and then once more."""
    while not over.wait(15):
        collect(runs, out, lanes)
    collect(runs, out, lanes)


def collect(runs: Path, out: Path, lanes: list[tuple[Stage, ...]]) -> None:
    """Copy newer exports to OUT as fp16, and logs and previews as one archive."""
    for stage in (stage for lane in lanes for stage in lane):
        found = runs / stage.config / "export" / stage.part
        found /= "diffusion_pytorch_model.safetensors"
        target = out / f"{stage.config}.safetensors"
        try:
            if target.exists() and target.stat().st_mtime >= found.stat().st_mtime:
                continue
            weights = {name: weight.half() for name, weight in load_file(found).items()}
        except (OSError, SafetensorError):  # none yet, or just being replaced
            continue
        beside = target.with_suffix(".part")
        save_file(weights, beside)
        beside.replace(target)
    logs = runs / "logs"
    logs.mkdir(exist_ok=True)
    for path in [*runs.glob("*.log"), *runs.glob("*/log.csv"), *runs.glob("*/preview_*.png")]:
        shutil.copyfile(path, logs / "_".join(path.relative_to(runs).parts))
    shutil.make_archive(str(out / "logs"), "gztar", logs)


if __name__ == "__main__":
    # the checkout in place of tools/, whose file names would hide modules
    sys.path[0] = str(ROOT)
    app()
