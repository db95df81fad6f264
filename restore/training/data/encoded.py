"""Pairs as the denoiser meets them: in latents. Each sample is a function of (seed, index).

They are encoded once and kept on disk, each visit cutting another window out of its pair; or made
as training goes on, the pictures damaged by the workers or, as batches, by the device.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor
from torch.utils.data import Dataset

from degradations import Trace, device, recipes
from degradations.pairs import own_code
from restore.diffusion import vae
from restore.diffusion.contexts import Context
from restore.errors import ConfigError
from restore.files import held
from restore.images.masks import mended
from restore.training.data import sources
from restore.training.data.crops import Samples, batches, to_rgb
from restore.training.data.pairs import Pair, PairOptions, draw_pair, make_pair

MOST_SAID = 1000  # captions whose tokens are kept
RUN_ONLY = {"window", "workers", "mode", "held_out", "memory_gb"}  # stored pairs are the same
# by default unsaid in the names of stored pairs
NEWER = {"low", "small", "turns", "geometry", "severity", "drawn", "fonts", "keeps"}


class StoredPairs(Dataset):
    """Encoded pairs on disk. Sample `index` is a window of one.

    Gives float tensors: target and known (C, w, w) scaled latents, trust (1, w, w), truth
    (factor * w, factor * w, 3) uint8 pixels, tokens (length,).

    again  makes the pair of a number once more, from its photo.
    """

    def __init__(
        self, folder: Path, window: int, seed: int, again: Callable[[int], Pair] | None = None
    ):
        self.parts = {path.stem: np.load(path, mmap_mode="r") for path in folder.glob("*.npy")}
        self.window, self.seed, self.again = window, seed, again
        self.length = len(self.parts["trust"])
        self.factor = self.parts["truth"].shape[1] // self.parts["trust"].shape[1]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((self.seed, index))
        pair = rng.integers(self.length)
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

    def pair(self, index: int) -> Pair:
        """The whole pair that sample `index` is a window of."""
        assert self.again
        return self.again(int(np.random.default_rng((self.seed, index)).integers(self.length)))


class LivePairs(Dataset):
    """New pairs without end, at the window's size; `ready` encodes them.

    Gives what StoredPairs gives, but for known, which is uint8 pixels as truth is, and target,
    which is missing. For the device also trace (JSON, or empty) and hole (H, W); known is then
    what these act on.
    """

    def __init__(
        self,
        options: PairOptions,
        context: Context | None,
        seed: int,
        held_out: bool = False,
        factor: int = 4,
    ):
        self.options, self.seed = options, seed
        self.factor, self.side = factor, factor * options.window
        self.photos = options.pictures(self.side, held_out)
        self.recipe = recipes.find(options.recipe)
        self.context, self.said = context, {}  # what was said before, mostly nothing, as tokens

    def pair(self, index: int, apply: bool = True) -> Pair:
        rng = np.random.default_rng((self.seed, index))
        more = {"apply": apply, "factor": self.factor}
        return draw_pair(self.photos, self.recipe, self.options, rng, str(index), self.side, **more)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        on_device = self.options.mode == "device"
        pair = self.pair(index, apply=not on_device)
        sample: dict[str, Tensor | str] = {
            "truth": torch.from_numpy(pair.truth),
            "known": torch.from_numpy(pair.known),
            "trust": torch.from_numpy(pair.trust[None] / np.float32(255)),
        }
        if self.context:
            if len(self.said) < MOST_SAID and pair.caption not in self.said:
                self.said[pair.caption] = self.context.inputs(pair.caption)
            said = self.said.get(pair.caption)
            sample["tokens"] = self.context.inputs(pair.caption) if said is None else said
        if on_device and pair.trace is None and pair.hole.any():  # nothing else is done to it
            sample["known"] = torch.from_numpy(mended(pair.known, pair.hole > 0))
            pair.hole.fill(0)
        if on_device:
            sample["trace"] = pair.trace.to_json() if pair.trace else ""
            sample["hole"] = torch.from_numpy(pair.hole)
        return sample


def ready(batch: dict, stack, where: torch.device) -> dict[str, Tensor]:
    """A collated batch on the device, damaged and encoded if it is not yet."""
    traces, holes = batch.pop("trace", None), batch.pop("hole", None)
    moved = {name: tensor.to(where, non_blocking=True) for name, tensor in batch.items()}
    if traces:
        moved["known"] = damaged(moved, traces, holes)
    if "target" not in moved:
        with torch.no_grad():
            both = torch.cat([to_rgb(moved["truth"]), to_rgb(moved["known"])])
            moved["target"], moved["known"] = vae.encode(stack.vae, both).float().chunk(2)
    return moved


@torch.no_grad()
def damaged(batch: dict[str, Tensor], traces: list[str], holes: Tensor) -> Tensor:
    """What the pairs show, uint8 (B, H, W, 3): traces and holes applied.

    holes  uint8 (B, H, W) on the CPU, where they are filled.
    """
    known = batch["known"].clone()
    pixels = batch["known"].permute(0, 3, 1, 2)
    drawn = {row: Trace.from_json(trace) for row, trace in enumerate(traces) if trace}
    if drawn:
        lows = device.degrade_each([*drawn.values()], pixels[list(drawn)])
        of_scale = {trace.scale: [] for trace in drawn.values()}
        for (row, trace), low in zip(drawn.items(), lows, strict=True):
            of_scale[trace.scale].append((row, low))
        for found in of_scale.values():
            rows, low = [row for row, _ in found], torch.stack([low for _, low in found])
            large = F.interpolate(low, pixels.shape[2:], mode="bicubic", antialias=True)
            known[rows] = (large * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1)
    rows = holes.flatten(1).any(1).nonzero().flatten()
    if len(rows):
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            shown, cut = known[rows].cpu().numpy(), (holes[rows] > 0).numpy()
            filled = np.stack([*pool.map(mended, shown, cut)])
        known[rows] = torch.from_numpy(filled).to(known.device)
    return known


def pairs(
    options: PairOptions, stack, folder: Path, digest: str, seed: int, held_out: bool = False
) -> StoredPairs | LivePairs:
    """The stream of samples that the options ask for.

    folder    where encoded pairs are kept.
    digest    of the autoencoder that encodes them.
    held_out  from the photos that training does not see, if there are any.
    """
    if options.mode != "cached":
        return LivePairs(options, stack.context, seed, held_out, stack.factor)
    stored = store(folder, options, stack, digest, seed, held_out)
    return StoredPairs(stored, options.window, seed, lambda n: remade(options, seed, n, held_out))


def remade(options: PairOptions, seed: int, number: int, held_out: bool) -> Pair:
    """Pair `number` as `store` made it, from its photo."""
    rng, photos = np.random.default_rng((seed, number)), options.pictures(options.crop, held_out)
    recipe = recipes.find(options.recipe)
    return draw_pair(photos, recipe, options, rng, str(number), options.crop)


@torch.inference_mode()
def store(
    folder: Path, options: PairOptions, stack, digest: str, seed: int, held_out: bool = False
) -> Path:
    """Make and encode options.count pairs, unless the same ones lie in `folder` already.

    Returns the folder of .npy files. bf16 halves the time; a latent is kept in fp16.
    """
    default = PairOptions.model_fields
    unsaid = {name for name in NEWER if getattr(options, name) == default[name].default}
    asked = options.model_dump_json(exclude=RUN_ONLY | unsaid)
    if held_out and options.held_out:
        asked += f" {options.held_out}"
    asked += contents(options)
    name = hashlib.sha256(f"{asked} {digest} {seed}".encode()).hexdigest()[:16]
    target = folder / name
    if not target.is_dir():
        with held(folder, waits=True):  # what another run is just making is not made twice
            if not target.is_dir():
                make(target, options, stack, seed, held_out)
    return target


def contents(options: PairOptions) -> str:
    """Digests of what the options only name: the photos, and a recipe of one's own."""
    recipe, places = recipes.find(options.recipe), (options.photos, options.low)
    parts = [] if options.recipe in recipes.NAMED else [recipe.digest(), *own_code(recipe).values()]
    for found in [sources.find(place) for place in places if place is not None]:
        parts += [*found.names, *map(str, found.sizes)]
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


def make(target: Path, options: PairOptions, stack, seed: int, held_out: bool = False) -> None:
    """Encode options.count pairs to .npy files in the folder, which is there when all is."""
    partial = target.with_name(f".{target.name}.partial")
    factor, words = stack.factor, len(stack.context.tokenizer)
    if options.crop % factor or options.window * factor > options.crop:
        raise ConfigError(
            f"data.crop {options.crop}: must be a multiple of the autoencoder's factor, {factor}, "
            f"and hold data.window ({options.window}) latents of it"
        )
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    photos = options.pictures(options.crop, held_out)
    photos.refused.keep_in(partial / "unreadable.jsonl")
    recipe = recipes.find(options.recipe)
    samples = Samples(
        lambda rng, index: make_pair(photos, recipe, options, rng, str(index), factor), seed
    )
    latents, size = options.crop // factor, (options.count,)
    channels = stack.channels
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
    (partial / "options.json").write_text(options.model_dump_json(indent=1))
    partial.rename(target)
