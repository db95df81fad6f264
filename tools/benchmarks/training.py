"""Images a second of `restore train` beside a plain loop, each learning from live damage.

The plain loop is shaped like the training examples of diffusers: Accelerator, DDPMScheduler,
AdamW, an EMA, mean squared error on the noise, a Dataset that opens, crops, damages and returns.
Both have the same networks, batch, crop, recipe, precision and workers. Each has a process of its
own, as it would have alone, and they take turns, so that a busy machine slows both alike.
"""

import platform
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
import yaml
from accelerate import Accelerator
from diffusers import DDPMScheduler
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from benchmarks import degradations as crops
from benchmarks.timing import Contestant
from degradations import Recipe, recipes
from restore.checkpoints import model_paths
from restore.config import load_config
from restore.images.allocator import keep_freed_memory
from restore.training import loop, processes
from restore.training.logs import Clock
from restore.training.stages.denoiser import DenoiserOptions
from restore.training.stages.networks import build

SIDE, WARM = 128, 2  # px of a crop; steps before the clock runs
Turn = Callable[[int], dict[str, float]]  # steps -> images_per_s and data_wait


class PlainPairs(Dataset):
    """A Dataset as in common examples: open, crop, mirror, damage, enlarge.

    Args:
        photos: Folder of photos.
        degrade: Maps a crop and its index to the damaged crop, uint8 (h, w, 3).
        words: What is given as words with every sample.
    """

    def __init__(self, photos: Path, degrade: Callable[[np.ndarray, int], np.ndarray], words: Any):
        self.paths = sorted(p for p in photos.rglob("*") if p.suffix.lower() in crops.SUFFIXES)
        self.degrade, self.words = degrade, words

    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        with Image.open(
            self.paths[index % len(self.paths)], formats=["JPEG", "PNG", "WEBP", "TIFF", "BMP"]
        ) as file:
            image = file.convert("RGB")
        x, y = (int(torch.randint(side - SIDE + 1, ())) for side in image.size)
        image = image.crop((x, y, x + SIDE, y + SIDE))
        if torch.rand(()) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        low = Image.fromarray(self.degrade(np.asarray(image), index))
        known = low.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        pair = {name: _tensor(rgb) for name, rgb in (("truth", image), ("known", known))}
        return pair | {"tokens": self.words}


def _tensor(rgb: Image.Image) -> torch.Tensor:
    """(3, H, W), [-1, 1], as torchvision's ToTensor and Normalize give it."""
    return torch.from_numpy(np.array(rgb)).permute(2, 0, 1).float().div(127.5).sub(1).contiguous()


def plain_loop(options: DenoiserOptions, pairs: PlainPairs, batch: int, workers: int) -> Turn:
    """Prepare the plain loop; each call of the result trains for some steps."""
    torch.manual_seed(0)
    accelerator = Accelerator(cpu=True, mixed_precision="no")
    stack = build(options)
    stack.vae.requires_grad_(False).eval()
    unet = accelerator.prepare_model(stack.unet)
    text = accelerator.prepare_model(stack.reader.module)
    weights = [*unet.parameters(), *text.parameters()]
    optimizer = torch.optim.AdamW(weights, lr=1e-4, betas=(0.9, 0.99), weight_decay=1e-2)
    rate = get_scheduler("constant_with_warmup", optimizer, num_warmup_steps=200)
    ema = EMAModel(weights, decay=0.999)
    schedule = DDPMScheduler(beta_schedule="scaled_linear")
    scale = stack.vae.config.scaling_factor

    def step(inputs: dict[str, torch.Tensor]) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                latents, conditioning = (
                    stack.vae.encode(inputs[name]).latents * scale for name in ("truth", "known")
                )
            noise = torch.randn_like(latents)
            t = torch.randint(0, schedule.config.num_train_timesteps, (len(latents),))
            noisy = schedule.add_noise(latents, noise, t)
            trust = torch.full_like(latents[:, :1], 0.5)
            hidden = text(inputs["tokens"])[0]
            out = unet(torch.cat([noisy, trust, conditioning], 1), t, hidden).sample
            loss = F.mse_loss(out.float(), noise.float())
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        rate.step()
        optimizer.zero_grad()
        ema.step(weights)
        loss.item()

    def turn(steps: int) -> dict[str, float]:
        how = {"num_workers": workers, "multiprocessing_context": "fork" if workers else None}
        feed = iter(DataLoader(pairs, batch, shuffle=False, **how))
        clock = Clock()
        for number in range(WARM + steps):
            if number == WARM:
                clock.restart()
            with clock.waiting():
                inputs = next(feed)
            step(inputs)
            clock.images += batch
        return clock.read()

    return turn


def our_loop(config: Path) -> Turn:
    """Prepare `restore train`; each call of the result trains for some steps."""
    options = load_config(loop.TrainOptions, config)
    options.output.mkdir()
    keep_freed_memory()  # as it does
    training = loop.Training(options, processes.setup_accelerator(options))
    done = 0

    def turn(steps: int) -> dict[str, float]:
        nonlocal done
        clock, last = Clock(), done + WARM + steps
        with closing(training.feed(done, last)) as feed:
            for number in range(done, last):
                if number == done + WARM:
                    clock.restart()
                training.step(number, feed, clock)
            measured = clock.read()
        done = last
        return measured

    return turn


def _plainly(config: Path) -> Turn:
    options = load_config(loop.TrainOptions, config)
    assert isinstance(options.stage, DenoiserOptions)
    recipe, photos = recipes.named("realesrgan"), Path(str(options.stage.data.photos))
    pairs = PlainPairs(photos, _naively(recipe), _no_words(options.stage))
    return plain_loop(options.stage, pairs, options.batch, options.workers)


def _serve(pipe: Connection, make: Callable[[Path], Turn], config: Path, threads: int) -> None:
    """Serve turns on request, in a process of its own."""
    torch.set_num_threads(threads)
    cv2.setNumThreads(1)
    turn = make(config)
    while steps := pipe.recv():
        pipe.send(turn(steps))


@contextmanager
def _apart(make: Callable[[Path], Turn], config: Path, threads: int) -> Iterator[Turn]:
    """Run a contestant in a process of its own."""
    context = get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_serve, args=(there, make, config, threads))
    process.start()
    there.close()

    def turn(steps: int) -> dict[str, float]:
        here.send(steps)
        return here.recv()

    try:
        yield turn
        here.send(0)
    finally:
        process.join(10)
        process.kill()


def measure(
    photos: Path | None, batch: int, workers: int, steps: int, rounds: int, threads: int
) -> dict[str, Any]:
    """The table as one JSON-able dict; see `show`."""
    with tempfile.TemporaryDirectory() as made, ExitStack() as living:
        place = photos or _made_up(Path(made) / "photos")
        config = Path(made) / "config.yaml"
        config.write_text(yaml.safe_dump(_config(place, Path(made), batch, workers)))
        contestants = {"restore train": our_loop, "plain loop": _plainly}
        turns = {
            name: living.enter_context(_apart(make, config, threads))
            for name, make in contestants.items()
        }
        rows = race(turns, steps, rounds)
    machine = {"cpu": crops._processor(), "python": platform.python_version()}
    machine |= {"torch": torch.__version__, "threads": threads, "workers": workers}
    return {"machine": machine, "batch": batch, "crop": SIDE, "steps": steps, "rows": rows}


def race(turns: dict[str, Turn], steps: int, rounds: int) -> list[dict[str, Any]]:
    """Each runs so many steps a round, by turns -> one row each, divided by the last one's."""
    last = list(turns)[-1]
    contestants = {name: Contestant(name, None, against=last) for name in turns}
    waits: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(rounds):
        for name, turn in turns.items():
            measured = turn(steps)
            contestants[name].rates.append(measured["images_per_s"])
            waits[name].append(measured["data_wait"])
    rows = []
    for name, contestant in contestants.items():
        row = contestant.summarize(contestants)
        row["images_per_s"] = row.pop("crops_per_s")
        rows.append(row | {"data_wait": median(waits[name])})
    return rows


def _config(photos: Path, folder: Path, batch: int, workers: int) -> dict[str, Any]:
    data = {"photos": str(photos), "crop": SIDE, "window": SIDE // 4, "mode": "live"}
    data |= {"tasks": {"restore": 1}, "scales": {"4": 1}, "clean": 0, "described": 0}
    stage = {"kind": "denoiser", "autoencoder": str(model_paths.SHIPPED / "nano"), "data": data}
    stage |= {"channels": [32, 64, 96, 128], "last_share": 0}
    run = {"output": str(folder / "run"), "stage": stage, "steps": 10**6, "batch": batch}
    run |= {"learning_rate": 1e-4, "weight_decay": 1e-2, "schedule": "constant"}
    return run | {"precision": "bf16", "workers": workers, "device": "cpu"}


def _naively(recipe: Recipe) -> Callable[[np.ndarray, int], np.ndarray]:
    return lambda crop, index: recipe.degrade(crop, 4, seed=0, key=str(index)).lr


def _no_words(options: DenoiserOptions) -> torch.Tensor:
    return build(options).reader.inputs("")


def _made_up(folder: Path) -> Path:
    """Sixteen JPEGs of 1.6 megapixels, about as large as photos on the web are."""
    folder.mkdir()
    for seed in range(16):
        large = cv2.resize(crops._made_up(seed), (1536, 1024), interpolation=cv2.INTER_CUBIC)
        grain = np.random.default_rng(seed).normal(0, 6, large.shape)
        pixels = np.clip(large + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed:02d}.jpg", quality=90)
    return folder


def show(results: dict[str, Any]) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print(", ".join(f"{name} {what}" for name, what in results["machine"].items()))
    about = f"batches of {results['batch']} crops of {results['crop']} px, bf16"
    table = Table(title=f"Training nano's denoiser, {about}; {results['steps']} steps a turn")
    for head in ("", "images/s", "least .. most", "times the plain loop", "waiting for data"):
        table.add_column(head, justify="right" if head else "left")
    for row in results["rows"]:
        ends = f"{row['least']:.1f} .. {row['most']:.1f}"
        ratio = f"{row['ratio']:.2f} ({row['least_ratio']:.2f} .. {row['most_ratio']:.2f})"
        table.add_row(
            row["name"], f"{row['images_per_s']:.1f}", ends, ratio, f"{row['data_wait']:.1%}"
        )
    console.print(table)
