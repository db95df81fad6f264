"""Which pass over a stream of photos is which epoch, in a loader's workers."""

import torch

from degradations.rng import Rng

MOST_WORKERS = 1024


class Passes:
    """Which epoch a pass is, agreed on by its workers without a word between them.

    Each worker has a number in shared memory: the epoch after its last pass, above 32 bits that
    name that pass. A worker that begins takes the epoch of those that began the same pass, or else
    the largest of all. One write of 64 bits is whole, so no lock is needed. Persistent workers see
    what set_next sets, and workers that end leave their numbers to those that follow.
    """

    def __init__(self):
        self._table = torch.zeros(MOST_WORKERS + 1, dtype=torch.int64, device="cpu")
        self._table.share_memory_()

    def set_next(self, epoch: int) -> None:
        self._table.fill_(epoch << 32)

    def begin(self, at: int, named: tuple[int, ...] | None) -> int:
        """The epoch of the pass that begins.

        Args:
            at: Number of the worker.
            named: What its workers alone have in common; None: it has no others.
        """
        name = Rng(0, f"{named}").bits() % 2**32
        rows = [divmod(row, 2**32) for row in self._table.tolist()]
        begun = max((epoch for epoch, other in rows if other == name), default=0)
        if named is None or not begun or rows[at] == (begun, name):  # the seed may come again
            begun = max(epoch for epoch, _ in rows) + 1
        self._table[at] = begun << 32 | name
        return begun - 1
