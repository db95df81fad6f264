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


def canvas_noise(shape: tuple[int, ...], seed: int, origin: tuple[int, int] = (0, 0)) -> Tensor:
    """Standard normal noise (1, C, h, w) for a canvas, on the CPU.

    Drawn block by block, each from a generator of its own, so that a larger canvas begins with the
    noise of a smaller one.

    origin  (row, column) in latents where the canvas lies in its picture.
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
