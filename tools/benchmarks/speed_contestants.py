"""One contestant of the speed benchmark in a process of its own.

`python speed_contestants.py ASKED FOLDER`: ASKED is JSON {name, sizes, threads, limit_s}; FOLDER
keeps the models with random weights. A line of JSON a size goes to stdout.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

if TYPE_CHECKING:
    from torch import nn

SCALE = 4
STEPS = 2
TILE, PAD = 256, 10  # of Real-ESRGAN's own tiling, in pixels of the input
Run = Callable[[np.ndarray], np.ndarray]
"""uint8 (h, w, 3) -> uint8 (H, W, 3)"""


@dataclass(frozen=True)
class Contestant:
    """What makes pictures larger, or fills the hole in their middle.

    Attributes:
        build: Loads it; gives what runs, and the network whose time is the limit, if one is.
        scale: Of the result.
        against: The peer that its CPU seconds are divided by.
        keeps: Whether the process keeps freed memory, as our command line does.
    """

    build: Callable[[Path], "tuple[Run, nn.Module | None]"]
    scale: int = SCALE
    against: str = ""
    keeps: bool = False


def nano(folder: Path) -> "tuple[Run, nn.Module | None]":
    """What ships, as Python users call it."""
    import restore

    model = restore.load("nano")
    stage = model.stack.restorer
    assert stage is not None
    return lambda rgb: model.upscale(rgb, scale=SCALE), stage.at(0.0)


def nano_bf16(folder: Path) -> "tuple[Run, nn.Module | None]":
    """The same in bf16, which some CPUs compute in hardware."""
    import restore

    model = restore.load("nano", dtype="bf16")
    return lambda rgb: model.upscale(rgb, scale=SCALE), None


def nano_onnx(folder: Path) -> "tuple[Run, nn.Module | None]":
    """The same by ONNX Runtime."""
    import restore
    from restore.checkpoints.export import export

    place = folder / "nano_onnx"
    if not place.exists():
        export("nano", place)
    model = restore.load(str(place), engine="onnx")
    return lambda rgb: model.upscale(rgb, scale=SCALE), None


def ours(kind: str) -> Callable[[Path], "tuple[Run, nn.Module | None]"]:
    """A pixel upscaler of random weights in our windows."""

    def build(folder: Path) -> "tuple[Run, nn.Module | None]":
        import restore
        from benchmarks.speed_models import pixel_file

        model = restore.load(str(pixel_file(folder, kind)))
        return lambda rgb: model.upscale(rgb, scale=SCALE), None

    return build


def plain(kind: str, tile: int = 0) -> Callable[[Path], "tuple[Run, nn.Module | None]"]:
    """The same network as its authors call it: the whole picture, or tiles cut with a border."""

    def build(folder: Path) -> "tuple[Run, nn.Module | None]":
        import torch

        from benchmarks.speed_models import pixel_network

        network = pixel_network(kind).eval().to(memory_format=torch.channels_last)

        @torch.inference_mode()
        def run(rgb: np.ndarray) -> np.ndarray:
            low = torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255
            low = low.contiguous(memory_format=torch.channels_last)  # the faster layout on a CPU
            made = by_tiles(network, low, tile) if tile else network(low)
            return (made[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()

        return run, network if not tile else None

    return build


def ncnn_x4v3(folder: Path) -> "tuple[Run, nn.Module | None]":
    """general-x4v3's shape by ncnn on the CPU, the whole picture: `pip install ncnn`."""
    import ncnn
    import torch

    from benchmarks.speed_models import ncnn_files

    network = ncnn.Net()
    network.opt.num_threads, network.opt.use_vulkan_compute = torch.get_num_threads(), False
    param, weights = ncnn_files(folder)
    if network.load_param(str(param)) or network.load_model(str(weights)):
        raise RuntimeError("ncnn does not load its files")

    def run(rgb: np.ndarray) -> np.ndarray:
        extractor = network.create_extractor()
        low = np.ascontiguousarray(rgb.transpose(2, 0, 1), np.float32) / 255
        extractor.input("rgb", ncnn.Mat(low))
        failed, made = extractor.extract("result")
        if failed:
            raise RuntimeError("ncnn failed")
        levels = np.rint(np.array(made).clip(0, 1) * np.float32(255))
        return levels.astype(np.uint8).transpose(1, 2, 0)

    return run, None


def by_tiles(network, low, tile: int):
    """As Real-ESRGAN tiles: each tile with a border of PAD, the border cut off again."""
    import torch

    height, width = low.shape[2:]
    out = torch.empty(1, 3, height * SCALE, width * SCALE)
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            bottom, right = min(top + tile, height), min(left + tile, width)
            above, before = max(0, top - PAD), max(0, left - PAD)
            answer = network(low[:, :, above : bottom + PAD, before : right + PAD])
            y, x = (top - above) * SCALE, (left - before) * SCALE
            tall, wide = (bottom - top) * SCALE, (right - left) * SCALE
            place = out[:, :, top * SCALE : bottom * SCALE, left * SCALE : right * SCALE]
            place.copy_(answer[:, :, y : y + tall, x : x + wide])
    return out


def hole_in(rgb: np.ndarray) -> np.ndarray:
    """uint8 (h, w): a hole of a third of each side in the middle."""
    height, width = rgb.shape[:2]
    mask = np.zeros((height, width), np.uint8)
    mask[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3] = 255
    return mask


def diffusion_ours(task: str) -> Callable[[Path], "tuple[Run, nn.Module | None]"]:
    def build(folder: Path) -> "tuple[Run, nn.Module | None]":
        import restore
        from benchmarks.speed_models import diffusion_folder

        model = restore.load(str(diffusion_folder(folder, task)))
        if task == "inpaint":
            return lambda rgb: model.inpaint(rgb, hole_in(rgb), steps=STEPS, guidance=1), None
        return lambda rgb: model.upscale(rgb, scale=SCALE, steps=STEPS), None

    return build


def diffusion_theirs(task: str) -> Callable[[Path], "tuple[Run, nn.Module | None]"]:
    def build(folder: Path) -> "tuple[Run, nn.Module | None]":
        import diffusers
        from PIL import Image

        from benchmarks.speed_models import diffusion_folder

        diffusers.utils.logging.disable_progress_bar()
        pipeline = diffusers.DiffusionPipeline.from_pretrained(diffusion_folder(folder, task))
        pipeline.set_progress_bar_config(disable=True)

        def run(rgb: np.ndarray) -> np.ndarray:
            given = {"prompt": "", "image": Image.fromarray(rgb), "num_inference_steps": STEPS}
            if task == "inpaint":
                height, width = (side // 8 * 8 for side in rgb.shape[:2])
                given |= {"mask_image": Image.fromarray(hole_in(rgb))}
                given |= {"height": height, "width": width, "guidance_scale": 1.0}
            else:
                given |= {"guidance_scale": 1.0}
            return np.asarray(pipeline(**given).images[0])

        return run, None

    return build


CONTESTANTS = {
    "nano": Contestant(nano, against="general-x4v3, whole picture", keeps=True),
    "nano, bf16": Contestant(nano_bf16, against="nano", keeps=True),
    "nano, ONNX": Contestant(nano_onnx, against="nano", keeps=True),
    "general-x4v3, whole picture": Contestant(plain("x4v3")),
    "general-x4v3, freed memory kept": Contestant(
        plain("x4v3"), against="general-x4v3, whole picture", keeps=True
    ),
    "general-x4v3, ncnn": Contestant(ncnn_x4v3),
    "general-x4v3, our windows": Contestant(
        ours("x4v3"), against="general-x4v3, freed memory kept", keeps=True
    ),
    "x4plus, whole picture": Contestant(plain("x4plus")),
    "x4plus, Real-ESRGAN's tiles": Contestant(plain("x4plus", TILE)),
    "x4plus, our windows": Contestant(
        ours("x4plus"), against="x4plus, Real-ESRGAN's tiles", keeps=True
    ),
    "SD x4 shape, diffusers": Contestant(diffusion_theirs("upscale")),
    "SD x4 shape, ours": Contestant(
        diffusion_ours("upscale"), against="SD x4 shape, diffusers", keeps=True
    ),
    "SD inpaint shape, diffusers": Contestant(diffusion_theirs("inpaint"), scale=1),
    "SD inpaint shape, ours": Contestant(
        diffusion_ours("inpaint"), scale=1, against="SD inpaint shape, diffusers", keeps=True
    ),
}
QUICK = (
    "nano",
    "general-x4v3, whole picture",
    "x4plus, Real-ESRGAN's tiles",
    "x4plus, our windows",
)


def picture(megapixels: float, scale: int) -> np.ndarray:
    """uint8 (h, w, 3): waves whose result has about so many megapixels, in sides of 64."""
    width = max(64, round((megapixels * 1e6 * 4 / 3) ** 0.5 / scale / 64) * 64)
    height = max(64, round(megapixels * 1e6 / scale**2 / width / 64) * 64)
    down, across = np.mgrid[:height, :width]
    wave = 128 + 50 * np.sin(across / 9.7) + 50 * np.cos(down / 6.1)
    return np.repeat(wave[..., None], 3, 2).astype(np.uint8)


def limit_cpu_s(network: "nn.Module", low: np.ndarray) -> float:
    """CPU seconds of its convolutions alone, each at its shape, the best of three.

    Convolutions of one shape are measured once; the rest of the network counts as nothing.
    """
    import torch

    shapes: dict[tuple, list] = {}
    hooks = [
        module.register_forward_hook(
            lambda module, given, made: shapes.setdefault(
                (given[0].shape, module.weight.shape, module.stride), []
            ).append((module, given[0].shape))
        )
        for module in network.modules()
        if isinstance(module, torch.nn.Conv2d)
    ]
    part = torch.from_numpy(low[:256, :256]).permute(2, 0, 1)[None].float() / 255
    part = part.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        network(part)
        for hook in hooks:
            hook.remove()
        total = 0.0
        for found in shapes.values():
            module, shape = found[0]
            given = torch.rand(shape).contiguous(memory_format=torch.channels_last)
            module(given)
            best = float("inf")
            for _ in range(3):
                began = time.process_time()
                module(given)
                best = min(best, time.process_time() - began)
            total += best * len(found)
    return total * low.shape[0] * low.shape[1] / (part.shape[2] * part.shape[3])


def peak_mb() -> float:
    """The most memory since `forget_peak`, Linux alone."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1e3


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def main(settings: dict, folder: Path) -> None:
    import torch

    torch.set_num_threads(settings["threads"])
    name = settings["name"]
    contestant = CONTESTANTS[name]
    if contestant.keeps:
        from restore.images.allocator import keep_freed_memory

        keep_freed_memory()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        run, network = contestant.build(folder)
    except Exception as error:  # a peer that is not there is a row
        reason = f"{type(error).__name__}: {error}"[:200]
        print(json.dumps({"name": name, "missing": reason}), flush=True)
        return
    forget_peak()
    model_mb = peak_mb()  # before any run: memory that is kept between runs counts
    run(picture(0.05, contestant.scale))  # kernels and caches
    per_mp = 0.0
    for megapixels in settings["sizes"]:
        low = picture(megapixels, contestant.scale)
        pixels = low.shape[0] * low.shape[1] * contestant.scale**2 / 1e6
        if per_mp * pixels > settings["limit_s"]:
            break
        forget_peak()
        began, clock = time.process_time(), time.perf_counter()
        try:
            run(low)
        except (RuntimeError, MemoryError) as error:
            print(json.dumps({"name": name, "missing": f"{megapixels:g} MP: {error}"[:200]}))
            break
        row = {"name": name, "against": contestant.against, "mp": megapixels, "pixels_mp": pixels}
        row["cpu_s"] = (time.process_time() - began) * megapixels / pixels
        row["wall_s"] = (time.perf_counter() - clock) * megapixels / pixels
        row["peak_mb"] = peak_mb() - model_mb
        if network is not None:
            row["limit_cpu_s"] = limit_cpu_s(network, low) * megapixels / pixels
        per_mp = row["wall_s"] / megapixels
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), Path(sys.argv[2]))
