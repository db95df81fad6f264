"""Peak memory of `restore upscale` by picture size, each measured in a process of its own."""

import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from restore.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
LISTEN_S = 0.05
OPTIONS: dict[str, dict[str, Any]] = {  # of the kind that ships, and next to nothing to compute
    "vae": {"channels": 8, "encoder_blocks": (0, 0, 0), "decoder_blocks": (0, 0, 0)},
    "denoiser": {
        **{"channels": (4, 8), "layers": 1, "groups": 2},
        **{"text_width": 8, "text_layers": 1},
    },
}
WINDOWS = (128, 112)  # larger than those that ship: fewer calls, and if anything more memory


def tiny_model(folder: Path) -> Path:
    """Save an untrained model of one step in `folder`."""
    import torch

    from restore.checkpoints import save
    from restore.diffusion.tiling import Windows
    from restore.training.stages import autoencoder, denoiser

    data: dict[str, Any] = {"data": {"photos": "."}}
    torch.manual_seed(0)
    first = autoencoder.AutoencoderOptions.model_validate({**data, **OPTIONS["vae"]})
    autoencoder.build(first).save_pretrained(folder / "first" / "vae")
    more = {"autoencoder": folder / "first", **data, **OPTIONS["denoiser"]}
    made = denoiser.build(denoiser.DenoiserOptions.model_validate(more))
    torch.nn.init.normal_(made.unet.conv_out.weight, std=0.1)
    made.steps, made.windows = 1, Windows(*WINDOWS)
    save.save(made, folder / "tiny", "Untrained.")
    return folder / "tiny"


def picture_size(megapixels: float, scale: int) -> tuple[int, int]:
    """Return (height, width) of a 4:3 picture that has `megapixels` once enlarged by `scale`."""
    width = round((megapixels * 1e6 * 4 / 3) ** 0.5) // scale
    return round(width * 3 / 4), width


def write_picture(path: Path, size: tuple[int, int]) -> None:
    """Write soft waves as a tiled TIFF, band by band."""
    from restore.images import row_writers

    across = np.sin(np.arange(size[1]) / 97)[None, :, None]

    def layers(first: int, last: int) -> np.ndarray:
        down = np.cos(np.arange(first, last) / 61)[:, None, None]
        return (128 + 50 * (across + down) + np.zeros(3)).astype(np.uint8)

    with path.open("wb") as file:
        row_writers.write_tiff(file, layers, size, {"photometric": "rgb", "compression": "zlib"})


def measure(
    folder: Path, model: str, sizes: list[float], scales: list[int], format: str
) -> list[dict[str, Any]]:
    """Measure each scale and size of result, in megapixels; return a row for each."""
    rows = []
    for scale in scales:
        for megapixels in sizes:
            source = folder / f"{megapixels:g}mp_x{scale}.tif"
            write_picture(source, picture_size(megapixels, scale))
            out = folder / f"{source.stem}_out"
            words = [str(source), "-o", str(out), "-s", str(scale), "--model", model]
            words += ["--format", format, "--megapixels", str(max(134, round(megapixels) + 1))]
            estimate = run([*words, "--dry-run"])
            row = {"megapixels": megapixels, "scale": scale, **run(words)}
            row["told_mb"] = read_estimate(estimate["said"])
            rows.append(row)
            print(json.dumps({**row, "said": ""}), file=sys.stderr, flush=True)
            source.unlink()
            shutil.rmtree(out)
    return rows


def run(words: list[str]) -> dict[str, Any]:
    """Run a command; return its peak memory in MB, without and with workers, seconds and output."""
    command = [sys.executable, str(ROOT / "tools" / "upscale.py"), *words]
    began = time.monotonic()
    peaks = {"own_mb": 0.0, "all_mb": 0.0}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        stdout = process.stdout
        assert stdout
        output: list[bytes] = []
        reader = threading.Thread(target=lambda: output.append(stdout.read()))
        reader.start()
        while process.poll() is None:
            parts = [_resident_mb(pid) for pid in _family(process.pid)]
            peaks["own_mb"] = max(peaks["own_mb"], parts[0])
            peaks["all_mb"] = max(peaks["all_mb"], sum(parts))
            time.sleep(LISTEN_S)
        reader.join()
    text = b"".join(output).decode()
    if process.returncode:
        raise UsageError(f"{' '.join(words)}: {text[-2000:]}")
    return {**peaks, "seconds": round(time.monotonic() - began, 1), "said": text}


def read_estimate(output: str) -> float:
    """Read the memory that --dry-run estimates, in MB."""
    line = next(line for line in output.splitlines() if line.startswith("memory:"))
    number, unit = line.split()[2:4]
    return float(number) * (1000 if unit == "GB" else 1)


def _family(pid: int) -> list[int]:
    """List a process and all its descendants."""
    try:
        tasks = Path(f"/proc/{pid}/task").iterdir()
        children = [int(c) for task in tasks for c in (task / "children").read_text().split()]
    except OSError:  # it just ended
        return [pid]
    return [pid, *(each for child in children for each in _family(child))]


def _resident_mb(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/statm").read_text(encoding="ascii")
    except OSError:
        return 0.0
    return int(status.split()[1]) * 4096 / 1e6


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Plot memory against the size of the result."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.4), layout="constrained")
    for scale in sorted({row["scale"] for row in rows}):
        own = [row for row in rows if row["scale"] == scale]
        across, peaks, estimates = (
            [r[k] for r in own] for k in ("megapixels", "own_mb", "told_mb")
        )
        axes.plot(across, peaks, "o-", label=f"x{scale}, measured", zorder=3)
        axes.plot(across, estimates, ":", color="#444444", label="told by --dry-run, for nano")
    pixels = [min(r["megapixels"] for r in rows), max(r["megapixels"] for r in rows)]
    axes.plot(pixels, [3 * n for n in pixels], color="#999999", label="the result's own bytes")
    axes.set(xlabel="megapixels of the result", ylabel="peak memory, MB", ylim=(0, None))
    axes.set_title("restore upscale on a CPU, without its workers", fontsize=9, loc="left")
    axes.grid(alpha=0.3)
    lines, names = axes.get_legend_handles_labels()
    once = dict(zip(names, lines, strict=True))
    axes.legend(once.values(), once.keys(), frameon=False, fontsize=8, loc="center right")
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)
