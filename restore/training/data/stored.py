"""Encoded pairs on disk. Row n of the arrays is pair n, made when it is first needed, never twice.

The arrays are as long as `data.count` from the beginning; where nothing was made, a file has a hole
that takes no disk. What is made is written down now and then, so a run that was killed goes on.
"""

import hashlib
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from degradations import recipes
from degradations.pair_folder import plugin_sources
from restore.diffusion import vae
from restore.diffusion.stack import Stack
from restore.errors import ConfigError, DiskFullError, counted
from restore.files import locked, write_text
from restore.storage import digests
from restore.training.data import enlarging, sources
from restore.training.data.loading import Samples, build_loader, to_rgb
from restore.training.data.pairs import Pair, PairOptions, draw_pair, make_pair
from restore.training.data.procedural import lettering
from restore.training.logs import track

log = logging.getLogger(__name__)
RUN_ONLY = {"window", "workers", "mode", "held_out", "memory_gb"}  # do not change stored pairs
# left out of the names of stored pairs where they have their default
NEWER = {"low", "small", "turns", "geometry", "severity", "drawn", "fonts", "keeps"} | {"low_name"}
TOGETHER = 8  # pairs encoded at once, always: rounding may depend on the batch size
KNOWN = "known"  # the file of the conditioning latents, as earlier releases named it
SHOWN = "shown"  # the first stage's results in pixels, of a stack that has one
MADE = "made"  # the array of which pairs exist; without it all do
SAFE_S = 10  # between two writes of that array


class StoredPairs(Dataset):
    """Encoded pairs on disk. Sample `index` is a window of one of them.

    Samples hold target and conditioning (C, w, w), scaled float latents; trust (1, w, w); truth
    and, if the stack has a first stage, shown: uint8 (factor * w, factor * w, 3); tokens (length,).

    Args:
        folder: The folder of .npy files.
        window: Side of a sample, latents.
        seed: Seed of the windows.
        again: Makes a pair once more from its photo, by its number.
        fill: Makes the pairs of these numbers, where they are missing; None: all are there.
    """

    def __init__(
        self,
        folder: Path,
        window: int,
        seed: int,
        again: Callable[[int], Pair] | None = None,
        fill: Callable[[Iterable[int]], object] | None = None,
    ):
        self.folder, self.window, self.seed = folder, window, seed
        self.again, self.fill = again, fill
        self.length = len(self.parts["trust"])
        self.factor = self.parts["truth"].shape[1] // self.parts["trust"].shape[1]

    @cached_property
    def parts(self) -> dict[str, np.ndarray]:
        return {path.stem: np.load(path, mmap_mode="r") for path in self.folder.glob("*.npy")}

    def prepare(self, first: int, last: int) -> None:
        """Make the pairs that the samples from `first` to before `last` are windows of."""
        if not self.fill or self.parts.get(MADE, np.True_).all():
            return
        seen: set[int] = set()
        for index in range(first, last):
            seen.add(self.number(index))
            if len(seen) == self.length:
                break
        self.fill(seen)

    def number(self, index: int) -> int:
        """The number of the pair that sample `index` is a window of."""
        return int(self._rng(index).integers(self.length))

    def _rng(self, index: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, index))

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        rng = self._rng(index)
        pair = int(rng.integers(self.length))
        if MADE in self.parts and not self.parts[MADE][pair]:
            assert self.fill, f"{self.folder}: pair {pair} was never made"
            self.fill([pair])
        y, x = rng.integers(self.parts["trust"].shape[-1] - self.window + 1, size=2)
        rows, columns = slice(y, y + self.window), slice(x, x + self.window)
        wide = tuple(slice(self.factor * n, self.factor * (n + self.window)) for n in (y, x))
        arrays = {"target": self.parts["target"], "conditioning": self.parts[KNOWN]}
        latent = {name: array[pair][:, rows, columns] for name, array in arrays.items()}
        return {
            **{name: torch.from_numpy(x.astype(np.float32)) for name, x in latent.items()},
            "trust": torch.from_numpy(
                self.parts["trust"][pair][None, rows, columns] / np.float32(255)
            ),
            **{
                name: torch.from_numpy(self.parts[name][pair][wide].copy())
                for name in ("truth", SHOWN)
                if name in self.parts
            },
            "tokens": torch.from_numpy(self.parts["tokens"][pair].astype(np.int64)),
        }

    def pair(self, index: int) -> Pair:
        """The whole pair that sample `index` is a window of."""
        assert self.again
        return self.again(self.number(index))


class PairStore:
    """The folder of the pairs of these options, and what makes them.

    Args:
        options: How pairs are made.
        stack: Encodes pairs and captions.
        folder: The folder of all such stores.
        digest: Digest of the autoencoder that encodes them.
        seed: Seed of all pairs.
        held_out: Use the photos that training does not see, if there are any.
    """

    def __init__(
        self,
        options: PairOptions,
        stack: Stack,
        folder: Path,
        digest: str,
        seed: int,
        held_out: bool = False,
    ):
        self.options, self.stack, self.seed, self.held_out = options, stack, seed, held_out
        digest += enlarging.digest(stack)
        self.path = folder / name_of(options, digest, seed, held_out)

    def samples(self) -> StoredPairs:
        """The stream of samples; the pairs may be made later."""
        if not self.path.is_dir():
            with locked(self.path.parent, waits=True):
                self._begin()
        return StoredPairs(self.path, self.options.window, self.seed, self.again, self.fill)

    def again(self, number: int) -> Pair:
        """A pair as it was made, from its photo."""
        rng, options = np.random.default_rng((self.seed, number)), self.options
        photos, recipe = options.pictures(options.crop, self.held_out), recipes.find(options.recipe)
        more = {"enlarge": enlarging.enlarger(self.stack)}
        return draw_pair(photos, recipe, options, rng, str(number), options.crop, **more)

    @torch.inference_mode()
    def fill(self, numbers: Iterable[int]) -> Path:
        """Make and encode those pairs that are missing; returns the folder of .npy files.

        Encoding in bf16 halves the time; latents are stored in fp16.

        Args:
            numbers: Numbers of the pairs.

        Raises:
            DiskFullError: If they do not fit on the disk.
        """
        with locked(self.path.parent, waits=True):  # what another run is making is not made twice
            self._begin()
            if not (self.path / f"{MADE}.npy").exists():
                return self.path
            out = {file.stem: np.load(file, mmap_mode="r+") for file in self.path.glob("*.npy")}
            made = out.pop(MADE)
            missing = [number for number in sorted(set(numbers)) if not made[number]]
            if missing:
                self._tell(missing, out, int(made.sum()))
                self._make(missing, out, made)
        return self.path

    def _begin(self) -> None:
        """Lay out the arrays, empty."""
        if self.path.is_dir():
            return
        options, factor = self.options, self.stack.factor
        if options.crop % factor or options.window * factor > options.crop:
            raise ConfigError(
                f"data.crop {options.crop}: must be a multiple of the autoencoder's factor, "
                f"{factor}, and hold data.window ({options.window}) latents of it"
            )
        partial = self.path.with_name(f".{self.path.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for key, (each, dtype) in self._shapes().items():
            shape = (options.count, *each)
            np.lib.format.open_memmap(partial / f"{key}.npy", "w+", dtype, shape).flush()
        write_text(partial / "options.json", options.model_dump_json(indent=1))
        partial.rename(self.path)

    def _shapes(self) -> dict[str, tuple[tuple[int, ...], type]]:
        """What is kept of a pair."""
        tokenizer, side = self.stack.reader.tokenizer, self.options.crop
        latents = side // self.stack.factor
        is_short = len(tokenizer) <= np.iinfo(np.int16).max
        shown = {SHOWN: ((side, side, 3), np.uint8)} if self.stack.restorer is not None else {}
        return shown | {
            "target": ((self.stack.channels, latents, latents), np.float16),
            KNOWN: ((self.stack.channels, latents, latents), np.float16),
            "trust": ((latents, latents), np.uint8),
            "truth": ((side, side, 3), np.uint8),
            "tokens": ((tokenizer.model_max_length,), np.int16 if is_short else np.int32),
            MADE: ((), np.bool_),
        }

    def _tell(self, missing: list[int], out: dict[str, np.ndarray], there: int) -> None:
        needed = len(missing) * sum(math.prod(a.shape[1:]) * a.itemsize for a in out.values())
        message = f"{counted(len(missing), 'pair')} to encode, {there:,} there"
        log.info("%s: %.2f GB in %s, made once", message, needed / 1e9, self.path)
        free = shutil.disk_usage(self.path).free
        if needed > free:  # a disk that fills up under a mapped file kills the process
            mend = "make room, or set stage.cache=FOLDER or a smaller stage.data.count"
            raise DiskFullError(f"{self.path}: {needed / 1e9:.1f} GB do not fit; {mend}")

    def _make(self, missing: list[int], out: dict[str, np.ndarray], is_stored: np.ndarray) -> None:
        options, stack = self.options, self.stack
        photos, recipe = options.pictures(options.crop, self.held_out), recipes.find(options.recipe)
        photos.refused.keep_in(self.path / "unreadable.jsonl")
        more = stack.factor, enlarging.enlarger(stack)
        samples = Samples(
            lambda rng, index: make_pair(photos, recipe, options, rng, str(index), *more),
            self.seed,
        )
        chunks = [missing[n : n + TOGETHER] for n in range(0, len(missing), TOGETHER)]
        full = [chunk + chunk[-1:] * (TOGETHER - len(chunk)) for chunk in chunks]
        feed = zip(chunks, build_loader(samples, full, options.workers), strict=True)
        fresh: list[int] = []
        last = time.monotonic()
        try:
            for chunk, batch in track(feed, len(missing), "encoding pairs", TOGETHER):
                for key, rows in self._encode_batch(batch).items():
                    out[key][chunk] = rows[: len(chunk)]
                fresh += chunk
                if time.monotonic() - last > SAFE_S:
                    _write_down(fresh, out, is_stored)
                    last = time.monotonic()
        finally:
            _write_down(fresh, out, is_stored)

    def _encode_batch(self, batch: dict) -> dict[str, np.ndarray]:
        stack = self.stack
        kept = {name: batch[name].numpy() for name in ("truth", "trust")}
        with torch.autocast(stack.device.type, torch.bfloat16):
            for key, source in (("target", "truth"), (KNOWN, "conditioning")):
                latent = vae.encode(stack.vae, to_rgb(batch[source].to(stack.device)))
                kept[key] = latent.half().cpu().numpy()
        if stack.restorer is not None:
            kept[SHOWN] = batch["conditioning"].numpy()
        kept["tokens"] = torch.stack([stack.reader.inputs(it) for it in batch["caption"]]).numpy()
        return kept


def _write_down(fresh: list[int], out: dict[str, np.ndarray], is_stored: np.ndarray) -> None:
    """Write the pairs first, then the array of which exist: a crash may come in between."""
    for array in out.values():
        array.flush()
    is_stored[fresh] = True
    is_stored.flush()
    fresh.clear()


def name_of(options: PairOptions, digest: str, seed: int, held_out: bool) -> str:
    """A name that is the same for the same pairs.

    Args:
        options: How pairs are made.
        digest: Digest of the autoencoder.
        seed: Seed of all pairs.
        held_out: Whether the photos are those that training does not see.
    """
    default = PairOptions.model_fields
    unsaid = {name for name in NEWER if getattr(options, name) == default[name].default}
    asked = options.model_dump_json(exclude=RUN_ONLY | unsaid)
    asked += contents(options, held_out)
    return hashlib.sha256(f"{asked} {digest} {seed}".encode()).hexdigest()[:16]


def contents(options: PairOptions, held_out: bool = False) -> str:
    """A digest of what the options only name: pictures, fonts, and a recipe that is not ours.

    Args:
        options: How pairs are made.
        held_out: Whether the photos are those that training does not see.
    """
    place = options.held_out if held_out and options.held_out else options.photos
    recipe, places = recipes.find(options.recipe), (place, options.low)
    parts = (
        []
        if options.recipe in recipes.NAMED
        else [recipe.digest(), *plugin_sources(recipe).values()]
    )
    for found in [sources.find(place) for place in places if place is not None]:
        parts += found.identity()
    if options.fonts:
        parts += digests.of(lettering.font_files(options.fonts))
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()
