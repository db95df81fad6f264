"""Training pairs in latents. Each sample is a function of (seed, index).

Stored pairs (stored.py) are encoded once and kept on disk; each sample is another window of one of
them. Live pairs are made during training; the workers degrade them, or the device does it by the
batch.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from degradations import Trace, device, recipes
from restore.diffusion import vae
from restore.diffusion.contexts import Context
from restore.diffusion.stack import Stack
from restore.errors import ConfigError
from restore.images.masks import fill_smoothly
from restore.training.data.enlarging import Enlarge, bicubic, enlarger
from restore.training.data.loading import to_rgb
from restore.training.data.pairs import Pair, PairOptions, draw_pair
from restore.training.data.stored import PairStore, StoredPairs

MOST_TOKENS = 1000  # captions whose tokens are kept


class LivePairs(Dataset):
    """New pairs without end, each of the window's size; `prepare_batch` encodes them.

    Samples are as those of StoredPairs, but `conditioning` is uint8 pixels, as truth is, and there
    is no target. For mode "device" there are also trace (JSON, or empty) and hole (H, W), and
    conditioning is what these have yet to be applied to.

    Args:
        options: How pairs are made.
        context: Turns captions into tokens; None: samples have none.
        seed: Seed of all pairs.
        held_out: Use the photos that training does not see, if there are any.
        factor: Pixels a latent, on a side.
        enlarge: Gives degraded pictures their size.
    """

    def __init__(
        self,
        options: PairOptions,
        context: Context | None,
        seed: int,
        held_out: bool = False,
        factor: int = 4,
        enlarge: Enlarge = bicubic,
    ):
        self.options, self.seed, self.enlarge = options, seed, enlarge
        self.factor, self.side = factor, factor * options.window
        self.photos = options.pictures(self.side, held_out)
        self.recipe = recipes.find(options.recipe)
        self.context, self.tokens = context, {}  # tokens by caption

    def pair(self, index: int, apply: bool = True) -> Pair:
        """The pair of sample `index`.

        Args:
            index: Number of the sample.
            apply: False leaves degradation and filling to the device.
        """
        rng = np.random.default_rng((self.seed, index))
        more = {"apply": apply, "factor": self.factor, "enlarge": self.enlarge}
        return draw_pair(self.photos, self.recipe, self.options, rng, str(index), self.side, **more)

    def __getitem__(self, index: int) -> dict[str, Tensor | str]:
        on_device = self.options.mode == "device"
        pair = self.pair(index, apply=not on_device)
        sample: dict[str, Tensor | str] = {
            "truth": torch.from_numpy(pair.truth),
            "conditioning": torch.from_numpy(pair.conditioning),
            "trust": torch.from_numpy(pair.trust[None] / np.float32(255)),
        }
        if self.context:
            if len(self.tokens) < MOST_TOKENS and pair.caption not in self.tokens:
                self.tokens[pair.caption] = self.context.inputs(pair.caption)
            tokens = self.tokens.get(pair.caption)
            sample["tokens"] = self.context.inputs(pair.caption) if tokens is None else tokens
        # not degraded, so it can be filled now
        if on_device and pair.trace is None and pair.hole.any():
            sample["conditioning"] = torch.from_numpy(
                fill_smoothly(pair.conditioning, pair.hole > 0)
            )
            pair.hole.fill(0)
        if on_device:
            sample["trace"] = pair.trace.to_json() if pair.trace else ""
            sample["hole"] = torch.from_numpy(pair.hole)
        return sample


def prepare_batch(batch: dict[str, Any], stack: Stack, where: torch.device) -> dict[str, Tensor]:
    """Move a collated batch to the device; degrade and encode it if that is not done yet.

    Args:
        batch: Samples of StoredPairs or LivePairs; `trace` and `hole` are removed from it.
        stack: Its autoencoder encodes.
        where: The device.

    Returns:
        target and conditioning (B, C, h, w), scaled latents; trust (B, 1, h, w); truth and, for a
        stack with a first stage, its result `shown`, uint8 (B, H, W, 3); tokens.
    """
    traces, holes = batch.pop("trace", None), batch.pop("hole", None)
    moved = {name: tensor.to(where, non_blocking=True) for name, tensor in batch.items()}
    if traces:
        moved["conditioning"] = degrade_pixels(moved, traces, holes)
    if "target" not in moved:
        if stack.restorer is not None:
            moved["shown"] = moved["conditioning"]
        with torch.no_grad():
            both = torch.cat([to_rgb(moved["truth"]), to_rgb(moved["conditioning"])])
            moved["target"], moved["conditioning"] = vae.encode(stack.vae, both).float().chunk(2)
    return moved


@torch.no_grad()
def degrade_pixels(batch: dict[str, Tensor], traces: list[str], holes: Tensor) -> Tensor:
    """Apply traces and fill holes.

    Args:
        batch: conditioning, uint8 (B, H, W, 3), on the device.
        traces: JSON, or "" for pictures that are not degraded.
        holes: uint8 (B, H, W), on the CPU, where they are filled.

    Returns:
        uint8 (B, H, W, 3).
    """
    conditioning = batch["conditioning"].clone()
    pixels = batch["conditioning"].permute(0, 3, 1, 2)
    by_row = {row: Trace.from_json(trace) for row, trace in enumerate(traces) if trace}
    if by_row:
        lows = device.degrade_each([*by_row.values()], pixels[list(by_row)])
        of_scale = {trace.scale: [] for trace in by_row.values()}
        for (row, trace), low in zip(by_row.items(), lows, strict=True):
            of_scale[trace.scale].append((row, low))
        for group in of_scale.values():
            rows, low = [row for row, _ in group], torch.stack([low for _, low in group])
            large = F.interpolate(low, pixels.shape[2:], mode="bicubic", antialias=True)
            conditioning[rows] = (large * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1)
    rows = holes.flatten(1).any(1).nonzero().flatten()
    if len(rows):
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            pictures, cut = conditioning[rows].cpu().numpy(), (holes[rows] > 0).numpy()
            filled = np.stack([*pool.map(fill_smoothly, pictures, cut)])
        conditioning[rows] = torch.from_numpy(filled).to(conditioning.device)
    return conditioning


def open_pairs(
    options: PairOptions, stack: Stack, folder: Path, digest: str, seed: int, held_out: bool = False
) -> StoredPairs | LivePairs:
    """The stream of samples that the options ask for.

    Args:
        options: How pairs are made, and whether they are stored.
        stack: Encodes pairs and captions.
        folder: Where encoded pairs are kept.
        digest: Digest of the autoencoder that encodes them.
        seed: Seed of all pairs.
        held_out: Use the photos that training does not see, if there are any.

    Raises:
        ConfigError: If the device would have to enlarge by a first stage.
    """
    if options.mode == "device" and stack.restorer is not None:
        raise ConfigError(
            f"{stack.name} has a first stage, which workers run: data.mode cached or live"
        )
    if options.mode != "cached":
        args = options, stack.context, seed, held_out, stack.factor
        return LivePairs(*args, enlarge=enlarger(stack))
    return PairStore(options, stack, folder, digest, seed, held_out).samples()
