"""Noise as a function of seed and absolute position, not of window, batch, shard or device."""

import hashlib

import torch
from torch import Tensor

BLOCK = 64  # latents; each block has its own generator


def seed_of(*parts: object) -> int:
    """Hash the parts to 63 bits, the same in every process."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def generator(device: torch.device | str, *parts: object) -> torch.Generator:
    """Return a generator seeded with the parts, such as (seed, step)."""
    return torch.Generator(device).manual_seed(seed_of(*parts))


def canvas_noise(shape: tuple[int, ...], seed: int, origin: tuple[int, int] = (0, 0)) -> Tensor:
    """Draw standard normal noise for a canvas, on the CPU.

    Each block has a generator of its own, so a larger canvas begins with the noise of a smaller
    one.

    Args:
        shape: (1, C, h, w).
        seed: Seed of the noise.
        origin: (row, column) of the canvas in its picture, in latents.
    """
    _, channels, height, width = shape
    top, left = (n % BLOCK for n in origin)  # within the first block
    noise = torch.empty(1, channels, top + height, left + width)
    for y in range(0, top + height, BLOCK):
        for x in range(0, left + width, BLOCK):
            rng = generator("cpu", seed, origin[0] - top + y, origin[1] - left + x)
            block = torch.randn(channels, BLOCK, BLOCK, generator=rng)
            room = noise[0, :, y : y + BLOCK, x : x + BLOCK]
            room.copy_(block[:, : room.shape[1], : room.shape[2]])
    return noise[..., top:, left:]
