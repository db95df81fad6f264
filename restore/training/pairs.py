"""Training pairs for the denoiser: what a damaged picture shows, how far to trust it, the truth.

The pairs are encoded once and kept as latents on disk, which lets training see several times more
crops; each visit cuts another window out of its pair.
"""

import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from PIL import Image
from pydantic import Field
from rich.progress import track
from torch import Tensor
from torch.utils.data import Dataset

from degradations import Recipe, recipes
from restore import vae
from restore.errors import ConfigError
from restore.layouts import KEEP, REPAINT, RESTORE
from restore.masks import mended
from restore.training.captions import caption
from restore.training.data import PhotoOptions, Photos, Samples, batches, to_rgb

log = logging.getLogger(__name__)
GREY = 128
Task = Literal["restore", "fill", "both", "nothing"]


class PairOptions(PhotoOptions):
    """How pairs are made from photos, and how many are kept."""

    recipe: str = "realesrgan"  # a named recipe of `degradations`, or a YAML file
    scales: dict[float, float] = {4: 0.6, 2: 0.2, 1: 0.2}  # scale: weight
    tasks: dict[Task, float] = {"restore": 0.7, "fill": 0.15, "both": 0.1, "nothing": 0.05}
    clean: float = Field(0.15, ge=0, le=1)  # share that is only made smaller, not damaged
    described: float = Field(0.5, ge=0, le=1)  # share whose caption is not dropped
    count: int = Field(12_000, ge=1)  # pairs kept on disk
    workers: int = Field(2, ge=0)
    window: int = Field(32, ge=8)  # latents a side that a training sample shows


def draw(weights: dict, rng: np.random.Generator):
    """One of the keys, by weight."""
    odds = np.array(list(weights.values()), np.float64)
    return list(weights)[rng.choice(len(odds), p=odds / odds.sum())]


def hole(size: int, rng: np.random.Generator) -> np.ndarray:
    """A mask of scratches, blobs or both, uint8 (size, size), 255 in the hole."""
    mask = np.zeros((size, size), np.uint8)
    kind = rng.integers(3)
    if kind != 0:  # blobs
        for _ in range(rng.integers(1, 4)):
            centre, axes = rng.integers(0, size, 2), rng.integers(size // 24, size // 4, 2)
            angle = float(rng.uniform(0, 180))
            cv2.ellipse(mask, centre.tolist(), axes.tolist(), angle, 0, 360, 255, -1)
    if kind != 1:  # scratches
        for _ in range(rng.integers(1, 7)):
            point, heading = rng.uniform(0, size, 2), rng.uniform(0, 2 * np.pi)
            points = [point]
            for _ in range(rng.integers(2, 7)):
                heading += rng.normal(0, 0.3)
                point = point + size / 6 * np.array([np.cos(heading), np.sin(heading)])
                points.append(point)
            line = np.rint(points).astype(np.int32)
            cv2.polylines(mask, [line], False, 255, int(rng.integers(1, 7)))
    return mask


def make_pair(
    photos: Photos, recipe: Recipe, options: PairOptions, rng, key: str, factor: int = 4
) -> dict:
    """One pair: uint8 `truth` and `known` (S, S, 3), `trust` (S, S) / factor, and its `caption`.

    trust holds 0, 128 or 255 for keep, restore and repaint; a latent that the hole touches at all
    is repainted.

    factor  pixels a latent, on a side.
    """
    truth = photos.crop(options.crop, options.detail, rng)
    task = draw(options.tasks, rng)
    known, trust, words = truth, np.full(truth.shape[:2], round(KEEP * 255), np.uint8), ""
    if task in ("restore", "both"):
        scale = draw(options.scales, rng)
        # Recipes are written for x4; the same damage on a picture that keeps its size is harsher.
        severity = (
            0.0 if rng.random() < options.clean else rng.uniform(0.02, min(1, scale**0.5 / 2))
        )
        seed = int(rng.integers(2**62))
        degraded = recipe.at(severity).degrade(truth, scale=scale, seed=seed, key=key)
        low = Image.fromarray(degraded.lr)
        known = np.array(low.resize((options.crop, options.crop), Image.Resampling.BICUBIC))
        trust = np.full_like(trust, round(RESTORE * 255))
        words = caption(degraded.trace) if rng.random() < options.described else ""
    if task in ("fill", "both"):
        mask = hole(options.crop, rng) > 0  # at full size: its rim is sharp in use too
        known = mended(known, mask)
        trust = np.where(mask, np.uint8(REPAINT * 255), trust)
    if task == "nothing":
        known, trust = np.full_like(known, GREY), np.full_like(trust, round(REPAINT * 255))
    blocks = trust.reshape(options.crop // factor, factor, options.crop // factor, factor)
    return {"truth": truth, "known": known, "trust": blocks.max((1, 3)), "caption": words}


class Pairs(Dataset):
    """Encoded pairs on disk. Sample `index` is a window of one, a function of (seed, index).

    Gives float tensors: target and known (C, w, w) scaled latents, trust (1, w, w), truth
    (factor * w, factor * w, 3) uint8 pixels, tokens (length,).
    """

    def __init__(self, folder: Path, window: int, seed: int):
        self.parts = {path.stem: np.load(path, mmap_mode="r") for path in folder.glob("*.npy")}
        self.window, self.seed = window, seed
        self.factor = self.parts["truth"].shape[1] // self.parts["trust"].shape[1]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((self.seed, index))
        pair = rng.integers(len(self.parts["trust"]))
        y, x = rng.integers(self.parts["trust"].shape[-1] - self.window + 1, size=2)
        rows, columns = slice(y, y + self.window), slice(x, x + self.window)
        wide = tuple(slice(self.factor * n, self.factor * (n + self.window)) for n in (y, x))
        latent = {k: self.parts[k][pair][:, rows, columns] for k in ("target", "known")}
        return {
            **{k: torch.from_numpy(v.astype(np.float32)) for k, v in latent.items()},
            "trust": torch.from_numpy(
                self.parts["trust"][pair][None, rows, columns] / np.float32(255)
            ),
            "truth": torch.from_numpy(self.parts["truth"][pair][wide].copy()),
            "tokens": torch.from_numpy(self.parts["tokens"][pair].astype(np.int64)),
        }


@torch.inference_mode()
def store(folder: Path, options: PairOptions, stack, digest: str, seed: int) -> Path:
    """Make and encode options.count pairs, unless the same ones lie in `folder` already.

    Returns the folder of .npy files. bf16 halves the time; a latent is kept in fp16.
    """
    asked = options.model_dump_json(exclude={"window", "workers"})
    name = hashlib.sha256(f"{asked} {digest} {seed}".encode()).hexdigest()[:16]
    target, partial = folder / name, folder / f".{name}.partial"
    if target.is_dir():
        return target
    if options.crop % stack.factor or options.window * stack.factor > options.crop:
        raise ConfigError(
            f"data.crop {options.crop}: must be a multiple of the autoencoder's factor, "
            f"{stack.factor}, and hold data.window ({options.window}) latents of it"
        )
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    photos = Photos(options.photos, options.crop)
    recipe, factor = recipes.find(options.recipe), stack.factor
    samples = Samples(
        lambda rng, index: make_pair(photos, recipe, options, rng, str(index), factor), seed
    )
    latents, size = options.crop // factor, (options.count,)
    channels, words = stack.channels, len(stack.context.tokenizer)
    shapes = {
        "target": ((channels, latents, latents), np.float16),
        "known": ((channels, latents, latents), np.float16),
        "trust": ((latents, latents), np.uint8),
        "truth": ((options.crop, options.crop, 3), np.uint8),
        "tokens": (
            (stack.context.tokenizer.model_max_length,),
            np.int16 if words <= np.iinfo(np.int16).max else np.int32,
        ),
    }
    out = {
        key: np.lib.format.open_memmap(partial / f"{key}.npy", "w+", dtype, size + shape)
        for key, (shape, dtype) in shapes.items()
    }
    feed = batches(samples, 8, 0, -(-options.count // 8), options.workers)
    for number, batch in enumerate(track(feed, "encoding pairs")):
        rows = slice(number * 8, min(options.count, number * 8 + 8))
        count = rows.stop - rows.start
        with torch.autocast(stack.device.type, torch.bfloat16):
            for key, source in (("target", "truth"), ("known", "known")):
                latent = vae.encode(stack.vae, to_rgb(batch[source].to(stack.device)))
                out[key][rows] = latent[:count].half().cpu().numpy()
        out["truth"][rows], out["trust"][rows] = batch["truth"][:count], batch["trust"][:count]
        tokens = torch.stack([stack.context.inputs(words) for words in batch["caption"]])
        out["tokens"][rows] = tokens[:count].numpy()
    for array in out.values():
        array.flush()
    (partial / "options.json").write_text(json.dumps(json.loads(asked), indent=1))
    partial.rename(target)
    return target
