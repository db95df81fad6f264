"""Many pictures at once on the CPU: the same bytes as one by one, whatever the split."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from degradations.pipeline import Degraded, Recipe


def degrade_batch(
    recipe: Recipe,
    pictures: Sequence[np.ndarray],
    scale: float,
    seed: int,
    keys: Sequence[str],
    *,
    threads: int = 1,
) -> list[Degraded]:
    """Degrade each picture as `recipe.degrade` does; the results are in the same order.

    Args:
        recipe: The recipe.
        pictures: uint8 (H, W, 3) RGB, each of its own size.
        scale: HR size over LR size, 1 or more.
        seed: Seed of all draws.
        keys: One a picture; equal keys draw the same parameters.
        threads: Pictures that are processed at once: filters and codecs release Python's lock.

    Raises:
        ValueError: If there are not as many keys as pictures, or threads is below 1.
    """
    if len(pictures) != len(keys):
        raise ValueError(f"{len(pictures)} pictures and {len(keys)} keys; give each its own key")
    if threads < 1:
        raise ValueError(f"threads must be 1 or more, not {threads}")

    def one(picture: np.ndarray, key: str) -> Degraded:
        return recipe.degrade(picture, scale, seed, key)

    if threads == 1:
        return [one(picture, key) for picture, key in zip(pictures, keys, strict=True)]
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, pictures, keys))
