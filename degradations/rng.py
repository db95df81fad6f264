"""Counter-based draws: every number is a function of (seed, image key, op slot) alone.

No generator is shared, so batch size, order, worker and thread count cannot change a result.
"""

from hashlib import blake2b
from typing import Self

import numpy as np

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15  # SplitMix64 (Steele et al. 2014)
MULTIPLIERS = 0x7FEB352D, 0x846CA68B  # of lowbias32


def _mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


class Rng:
    """The draws of one slot of one image: the n-th draw is a hash of the slot's digest and n."""

    __slots__ = ("_count", "_digest", "_state")

    def __init__(self, seed: int, key: str):
        # A digest, not hash(): Python salts the hash of a string per process.
        # surrogateescape: a file name that is not UTF-8 is still a key.
        self._start(f"{int(seed)}\n{key}".encode("utf-8", "surrogateescape"))

    def _start(self, text: bytes) -> None:
        self._digest = blake2b(text, digest_size=16).digest()
        self._state = int.from_bytes(self._digest[:8], "little")
        self._count = 0

    def at(self, slot: int) -> Self:
        """The draws of a slot within this one; they do not depend on what was drawn here."""
        child = object.__new__(type(self))
        child._start(self._digest + slot.to_bytes(4, "little"))
        return child

    def bits(self) -> int:
        """A 53-bit integer: exact in JSON wherever it is read, hence the seed of pixel noise."""
        self._count += 1
        return _mix((self._state + self._count * _GOLDEN) & _MASK) >> 11

    def uniform(self) -> float:
        """In [0, 1)."""
        return self.bits() * 2.0**-53


def words16(seed: int, count: int) -> np.ndarray:
    """`count` uniform uint16: words 2n and 2n + 1 are the halves of a 32-bit hash of n.

    The hash is the finaliser `lowbias32` of Wellons (2018) with a key before and a key within. It
    needs 32-bit integers alone, so that a device draws the same field without a generator's state.
    """
    before, within = field_keys(seed)
    x = np.arange(-(-count // 2), dtype=np.uint32)
    x += np.uint32(before)
    shifted = np.empty_like(x)
    x ^= np.right_shift(x, 16, out=shifted)
    x *= np.uint32(MULTIPLIERS[0])
    x ^= np.uint32(within)
    x ^= np.right_shift(x, 15, out=shifted)
    x *= np.uint32(MULTIPLIERS[1])
    x ^= np.right_shift(x, 16, out=shifted)
    return x.astype("<u4", copy=False).view("<u2")[:count]


def field_keys(seed: int) -> tuple[int, int]:
    """Two 32-bit keys of a field; every bit of the seed has a part in both."""
    mixed = _mix((seed * _GOLDEN) & _MASK)
    return mixed & 0xFFFFFFFF, mixed >> 32
