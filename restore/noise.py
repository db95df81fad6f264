"""Noise as a function of (seed, absolute position), whatever the window, batch, shard or card."""

import hashlib

import torch
from torch import Tensor

BLOCK = 64  # latents; the noise of a block depends on nothing outside it


def seed_of(*parts: object) -> int:
    """63 bits that depend on the parts alone, in every process."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def generator(device: torch.device | str, *parts: object) -> torch.Generator:
    """A generator whose draws are a function of the parts alone, such as (seed, step)."""
    return torch.Generator(device).manual_seed(seed_of(*parts))


def canvas_noise(shape: tuple[int, ...], seed: int) -> Tensor:
    """Standard normal noise (1, C, h, w) for a canvas, on the CPU.

    Drawn block by block, each from a generator of its own, so that a larger canvas begins with the
    noise of a smaller one.
    """
    _, channels, height, width = shape
    noise = torch.empty(shape)
    for y in range(0, height, BLOCK):
        for x in range(0, width, BLOCK):
            rng = generator("cpu", seed, y, x)
            block = torch.randn(channels, BLOCK, BLOCK, generator=rng)
            noise[0, :, y : y + BLOCK, x : x + BLOCK] = block[:, : height - y, : width - x]
    return noise
