"""Speed of our degradations and their peers, and the difference of each JPEG to libjpeg's.

All take turns in one process: a noisy machine slows all alike, so trust the ratios first.
"""

import importlib
import platform
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks import peers
from benchmarks.timing import Contestant, race
from degradations import Recipe, recipes, sharpen
from degradations.ops import OPS
from degradations.ops.jpeg import jpeg, to_uint8

SIDE, SCALE, BATCH, GPU_BATCH = 256, 4, 8, 64
PEER, _USM = "BasicSR", ", USM"
QUALITIES = (30, 60, 90)
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"}
Codec = Callable[[int], np.ndarray]  # quality -> uint8 or float (B, H, W, 3), of 255


def load_crops(folder: Path | None, count: int = 64) -> list[np.ndarray]:
    """Load the centre of each large enough picture, uint8 (256, 256, 3), or make crops up."""
    if folder is None:
        return [_made_up(seed) for seed in range(16)]
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES):
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is not None and min(image.shape[:2]) >= SIDE:
            top, left = ((n - SIDE) // 2 for n in image.shape[:2])
            crop = image[top : top + SIDE, left : left + SIDE]
            found.append(cv2.cvtColor(crop, cv2.COLOR_BGR2RGB))
        if len(found) == count:
            break
    if not found:
        raise ValueError(f"{folder}: holds no picture of {SIDE}x{SIDE} px or more that can be read")
    return found


def _made_up(seed: int) -> np.ndarray:
    """Soft colour, edges and texture, about as a photo has them."""
    rng = np.random.default_rng(seed)
    image = cv2.resize(
        rng.uniform(30, 225, (9, 9, 3)).astype(np.float32),
        (SIDE, SIDE),
        interpolation=cv2.INTER_CUBIC,
    )
    for _ in range(12):
        points = rng.integers(-40, SIDE + 40, (4, 2)).astype(np.int32)
        cv2.fillPoly(image, [points], rng.uniform(0, 255, 3).tolist(), cv2.LINE_8)
    grain = cv2.GaussianBlur(rng.normal(0, 40, image.shape).astype(np.float32), (0, 0), 1.2)
    return np.clip(cv2.GaussianBlur(image, (0, 0), 0.7) + grain, 0, 255).astype(np.uint8)


def measure(hr: list[np.ndarray], threads: tuple[int, ...], rounds: int, seconds: float) -> dict:
    """Measure all tables; return them as a dict for JSON."""
    import torch

    before = cv2.getNumThreads(), torch.get_num_threads()
    tables = {}
    try:
        cv2.setNumThreads(1)  # pictures go in parallel, not their rows
        for count in threads:
            torch.set_num_threads(count)
            name = f"CPU, {count} thread{'s' * (count > 1)}, batches of {BATCH}"
            tables[name] = race(_on_cpu(hr, count), rounds, seconds)
        torch.set_num_threads(1)
        stages, codecs = _stages(hr), _codecs(hr, rounds, seconds)
        if torch.cuda.is_available():
            name = f"{torch.cuda.get_device_name()}, batches of {GPU_BATCH}"
            tables[name] = race(_in_batches(hr, "cuda", GPU_BATCH), rounds, seconds)
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])
    machine = {"cpu": _processor(), "python": platform.python_version(), "torch": torch.__version__}
    machine |= {"opencv": cv2.__version__, "numpy": np.__version__}
    return {"machine": machine, "speed": tables, "stages": stages, "codecs": codecs}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "")


def _on_cpu(hr: list[np.ndarray], threads: int) -> list[Contestant]:
    ours = [
        _contestant(f"ours{_USM * usm}", partial(_ours, hr, usm, threads), 8 * threads)
        for usm in (False, True)
    ]
    chains = {
        "BSRGAN's order, cv2 and scipy": partial(_chain, hr, threads, lambda: peers.bsrgan),
        "albumentations, two passes": partial(
            _chain, hr, threads, partial(peers.albumentations, (SIDE // SCALE,) * 2)
        ),
    }
    alone = [_contestant(name, make, 2 * threads) for name, make in chains.items()]
    return [*ours, *_in_batches(hr, "cpu", BATCH), *alone]


def _in_batches(hr: list[np.ndarray], device: str, batch: int) -> list[Contestant]:
    """Our device backend and BasicSR, each without and with USM."""
    return [
        _contestant(f"{name}{_USM * usm}", partial(make, hr, usm, device, batch), batch)
        for name, make in (("ours, device backend", _device), (PEER, _basicsr))
        for usm in (False, True)
    ]


def _contestant(name: str, make: Callable[[], Callable[[int], None]], batch: int) -> Contestant:
    against = PEER + _USM * name.endswith(_USM)
    try:
        return Contestant(name, make(), batch, against)
    except ImportError as error:
        return Contestant(name, None, missing=_mend(error))


def _mend(error: ImportError) -> str:
    package = (error.name or str(error)).partition(".")[0]
    return f"not installed: {peers.INSTALL.get(package, f'pip install {package}')}"


def _ours(hr: list[np.ndarray], usm: bool, threads: int) -> Callable[[int], None]:
    recipe = _recipe(usm)
    return _each(lambda i: recipe.degrade(hr[i % len(hr)], SCALE, 0, str(i)), threads)


def _chain(hr: list[np.ndarray], threads: int, make: Callable[[], Any]) -> Callable[[int], None]:
    chain = make()
    return _each(lambda i: chain(hr[i % len(hr)]), threads)


def _recipe(usm: bool) -> Recipe:
    return recipes.named("realesrgan").model_copy(update={"sharpen": usm})


def _each(work: Callable[[int], Any], threads: int) -> Callable[[int], None]:
    """One crop at a time, or as many as there are threads."""

    def run(count: int) -> None:
        peers.reseed()
        if threads == 1:
            for i in range(count):
                work(i)
            return
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(count)))

    return run


def _device(hr: list[np.ndarray], usm: bool, device: str, batch: int) -> Callable[[int], None]:
    backend, recipe = _backend(), _recipe(usm)

    def work(levels: Any, first: int) -> None:
        size = tuple(levels.shape[2:])
        keys = map(str, range(first, first + len(levels)))
        backend.degrade(recipe.draw_batch(size, SCALE, 0, keys), levels)

    return _batched(work, hr, device, batch)


def _basicsr(hr: list[np.ndarray], usm: bool, device: str, batch: int) -> Callable[[int], None]:
    feed = peers.realesrgan(usm, device)
    return _batched(lambda levels, first: feed(levels / 255), hr, device, batch)


def _batched(
    work: Callable[[Any, int], Any], hr: list[np.ndarray], device: str, batch: int
) -> Callable[[int], None]:
    """uint8 (B, 3, H, W), on the device already, and the number of the first."""
    import torch

    levels = torch.from_numpy(np.stack([hr[i % len(hr)] for i in range(batch)]))
    levels = levels.permute(0, 3, 1, 2).contiguous().to(device)

    def run(count: int) -> None:
        peers.reseed()
        with torch.no_grad():
            for first in range(0, count, batch):
                work(levels, first)
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def _backend() -> Any:
    """degradations.device; ImportError where this version has none."""
    return importlib.import_module("degradations.device")


def _stages(hr: list[np.ndarray], count: int = 200, rounds: int = 4) -> list[dict]:
    """Where the time of ours goes on one thread, by kind of step; the best of the rounds.

    USM is of the sharpened recipe alone.
    """
    recipe, target = _recipe(False), (SIDE // SCALE,) * 2
    calls, turns = Counter(), [defaultdict(float) for _ in range(rounds)]
    for took in turns:

        def timed(kind: str, work: Callable, *given: Any, took: dict = took) -> Any:
            began = time.perf_counter()
            result = work(*given)
            took[kind] += time.perf_counter() - began
            calls[kind] += 1
            return result

        for i in range(count):
            image = hr[i % len(hr)]
            trace = timed("draw", recipe.draw, image.shape[:2], SCALE, 0, str(i))
            timed("USM", sharpen, image)
            rgb = timed("to float", lambda x: x.astype(np.float32) * np.float32(1 / 255), image)
            for params in trace.steps:
                rgb = timed(params["kind"], OPS[params["kind"]].apply, rgb, params, target)
            timed("to 8 bits", to_uint8, rgb)
    best = {kind: min(turn[kind] for turn in turns) * 1e3 / count for kind in calls}
    each = count * rounds
    rows = ({"stage": kind, "calls": calls[kind] / each, "ms": ms} for kind, ms in best.items())
    return sorted(rows, key=lambda row: -row["ms"])


def _codecs(hr: list[np.ndarray], rounds: int, seconds: float) -> list[dict]:
    """JPEG of 256 px crops with 4:2:0 on one thread: time, and PSNR to libjpeg-turbo's pixels."""
    import torch

    batch = hr[:BATCH]
    levels = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).contiguous()
    real = {q: np.stack([jpeg(crop, q, "4:2:0") for crop in batch]) for q in QUALITIES}

    def ours() -> Codec:
        return lambda quality: np.stack([jpeg(crop, quality, "4:2:0") for crop in batch])

    def device() -> Codec:
        backend = _backend()
        return lambda q: backend.jpeg(levels, q).permute(0, 2, 3, 1).numpy()

    def floating(make: Callable[[], Callable]) -> Codec:
        code = make()
        return lambda q: code(levels / 255, q).mul(255).permute(0, 2, 3, 1).detach().numpy()

    codecs = {
        "libjpeg-turbo (ours on a CPU)": ours,
        "ours in tensors": device,
        "kornia": partial(floating, peers.kornia_jpeg),
        "BasicSR's DiffJPEG": partial(floating, peers.diff_jpeg),
    }
    contestants, quality = [], {}
    for name, make in codecs.items():
        try:
            code = make()
        except ImportError as error:
            contestants.append(Contestant(name, None, missing=_mend(error)))
            continue
        contestants.append(Contestant(name, partial(_repeat, code), len(batch)))
        quality[name] = {q: _psnr(code(q), real[q]) for q in QUALITIES}
    rows = race(contestants, rounds, seconds)
    return [row | {"psnr": quality.get(row["name"])} for row in rows]


def _repeat(code: Codec, count: int) -> None:
    for _ in range(0, count, BATCH):
        code(QUALITIES[1])


def _psnr(image: np.ndarray, wanted: np.ndarray) -> float | None:
    """In dB; None where the two are equal."""
    error = np.square(image.astype(np.float64) - wanted).mean()
    return float(10 * np.log10(255**2 / error)) if error else None


def show(results: dict) -> None:
    """Print the tables."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(", ".join(f"{name} {what}" for name, what in results["machine"].items()))
    for place, rows in results["speed"].items():
        table = Table(title=f"{SIDE} px crops to {SIDE // SCALE} px, {place}")
        for head in ("", "crops/s", "least .. most", "times BasicSR", "least .. most"):
            table.add_column(head, justify="right" if head else "left")
        for row in rows:
            table.add_row(row["name"], *_cells(row))
        console.print(table)
    table = Table(title="Ours on one thread, by stage (USM: of the sharpened recipe alone)")
    for head in ("", "calls a crop", "ms a crop"):
        table.add_column(head, justify="right" if head else "left")
    for row in results["stages"]:
        table.add_row(row["stage"], f"{row['calls']:.2f}", f"{row['ms']:.3f}")
    console.print(table)
    table = Table(title=f"JPEG of {SIDE} px crops, 4:2:0: one thread, PSNR to libjpeg-turbo")
    for head in ("", "ms a crop", *(f"quality {q}" for q in QUALITIES)):
        table.add_column(head, justify="right" if head else "left")
    for row in results["codecs"]:
        if row["missing"]:
            table.add_row(row["name"], row["missing"])
            continue
        psnr = ("equal" if value is None else f"{value:.1f} dB" for value in row["psnr"].values())
        table.add_row(row["name"], f"{1e3 / row['crops_per_s']:.2f}", *psnr)
    console.print(table)


def _cells(row: dict) -> tuple[str, ...]:
    if row["missing"]:
        return (row["missing"],)
    cells = f"{row['crops_per_s']:.1f}", f"{row['least']:.1f} .. {row['most']:.1f}"
    if "ratio" not in row:
        return cells
    return *cells, f"{row['ratio']:.2f}", f"{row['least_ratio']:.2f} .. {row['most_ratio']:.2f}"
