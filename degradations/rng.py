"""Counter-based draws: every number is a function of (seed, image key, op slot) alone.

No generator is shared, so batch size, order, worker and thread count cannot change a result.
"""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15  # SplitMix64 (Steele et al. 2014)
MULTIPLIERS = 0x7FEB352D, 0x846CA68B  # of lowbias32
_MIXERS = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB  # of SplitMix64
_PREDRAWN = 10  # draws made ahead: what most ops take
_SLOTS = [slot.to_bytes(4, "little") for slot in range(64)]


def _mix(x: int) -> int:
    x = ((x ^ (x >> 30)) * _MIXERS[0]) & _MASK
    x = ((x ^ (x >> 27)) * _MIXERS[1]) & _MASK
    return x ^ (x >> 31)


class Rng:
    """The draws of one slot of one image: draw n is a hash of the slot's digest and n.

    Args:
        seed: Seed of the recipe.
        key: Names the image.
    """

    __slots__ = ("_count", "_digest", "_state")

    def __init__(self, seed: int, key: str):
        self._start(root(seed, key))

    def _start(self, text: bytes) -> None:
        self._digest = blake2b(text, digest_size=16).digest()
        self._state = int.from_bytes(self._digest[:8], "little")
        self._count = 0

    def at(self, slot: int) -> "Rng":
        """The draws of a slot within this one; they do not depend on what was drawn here."""
        child = object.__new__(Rng)
        child._start(self.slot_key(slot))
        return child

    def slot_key(self, slot: int) -> bytes:
        """What the digest of a slot within this one is made of: see `make_rngs`."""
        return self._digest + (_SLOTS[slot] if slot < len(_SLOTS) else slot.to_bytes(4, "little"))

    def bits(self) -> int:
        """A 53-bit integer: exact in JSON wherever it is read, hence the seed of pixel noise."""
        self._count += 1
        return _mix((self._state + self._count * _GOLDEN) & _MASK) >> 11

    def uniform(self) -> float:
        """In [0, 1)."""
        return self.bits() * 2.0**-53


class _PredrawnRng(Rng):
    """An Rng whose first draws are known."""

    __slots__ = ("_first",)

    def __init__(self, digest: bytes, state: int, first: list[int]):
        self._digest, self._state, self._count, self._first = digest, state, 0, first

    def bits(self) -> int:
        if self._count < _PREDRAWN:
            self._count += 1
            return self._first[self._count - 1]
        return super().bits()

    def uniform(self) -> float:
        if self._count < _PREDRAWN:
            self._count += 1
            return self._first[self._count - 1] * 2.0**-53
        return super().bits() * 2.0**-53


def root(seed: int, key: str) -> bytes:
    """What the digest of an image is made of."""
    # A digest, not hash(): Python salts the hash of a string per process.
    # surrogateescape: a file name that is not UTF-8 is still a key.
    try:
        is_whole = int(seed) == seed
    except (TypeError, ValueError, OverflowError):  # None, "a", NaN, infinity
        is_whole = False
    if not is_whole:
        raise ValueError(f"a seed is a whole number, not {seed!r}")
    text = f"{int(seed)}\n{key}"
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a character, as Windows allows in a name
        return text.encode("utf-8", "surrogatepass")


def make_rngs(keys: Sequence[bytes]) -> list[Rng]:
    """The Rng of each key, with all their first draws made in one go.

    Args:
        keys: What `root` and `Rng.slot_key` return.
    """
    digests = [blake2b(key, digest_size=16).digest() for key in keys]
    states = np.frombuffer(b"".join(digests), "<u8")[::2]
    x = states[:, None] + np.arange(1, _PREDRAWN + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    x ^= x >> np.uint64(30)
    x *= np.uint64(_MIXERS[0])
    x ^= x >> np.uint64(27)
    x *= np.uint64(_MIXERS[1])
    x ^= x >> np.uint64(31)
    x >>= np.uint64(11)
    return list(map(_PredrawnRng, digests, states.tolist(), x.tolist()))


def words16(seed: int, count: int) -> np.ndarray:
    """`count` uniform uint16 numbers: words 2n and 2n + 1 are the halves of a 32-bit hash of n.

    The hash is the finaliser `lowbias32` (Wellons 2018), with one key before it and one within. It
    needs only 32-bit integers, so a device draws the same field without the state of a generator.
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
    """The two 32-bit keys of a field; every bit of the seed affects both."""
    mixed = _mix((seed * _GOLDEN) & _MASK)
    return mixed & 0xFFFFFFFF, mixed >> 32
