"""Timing by turns, so that whatever disturbs the machine disturbs all contestants."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median


@dataclass
class Contestant:
    """A function that processes crops, or the reason why it cannot.

    Attributes:
        name: Name in the table.
        run: Processes a number of crops, a multiple of `batch`, and returns when all are done.
        batch: Crops at a time.
        against: Name of the contestant that its rate is divided by.
        missing: Why it cannot run.
        rates: Crops per second, one value per round.
    """

    name: str
    run: Callable[[int], None] | None
    batch: int = 1
    against: str = ""
    missing: str = ""
    rates: list[float] = field(default_factory=list)

    def summarize(self, peers: dict[str, "Contestant"]) -> dict:
        """Return the median rate, the extremes, and the ratio to `against` round by round."""
        row: dict = {"name": self.name, "crops_per_s": None, "missing": self.missing}
        if not self.rates:
            return row
        row |= {"crops_per_s": median(self.rates)}
        row |= {"least": min(self.rates), "most": max(self.rates)}
        peer = peers.get(self.against)
        if peer and peer.rates:
            ratios = [a / b for a, b in zip(self.rates, peer.rates, strict=True)]
            row |= {"against": self.against, "ratio": median(ratios)}
            row |= {"least_ratio": min(ratios), "most_ratio": max(ratios)}
        return row


def race(contestants: Sequence[Contestant], rounds: int, seconds: float) -> list[dict]:
    """Run contestants by turns, for about `seconds` per round; return a row for each."""
    counts = {}
    present = [(c, c.run) for c in contestants if c.run]
    for contestant, run in present:
        run(contestant.batch)  # tables, caches, kernels
        took = _timed(run, contestant.batch)
        counts[contestant.name] = contestant.batch * max(1, round(seconds / took))
    for _ in range(rounds):
        for contestant, run in present:
            count = counts[contestant.name]
            contestant.rates.append(count / _timed(run, count))
    peers = {contestant.name: contestant for contestant in contestants}
    return [contestant.summarize(peers) for contestant in contestants]


def _timed(run: Callable[[int], None], count: int) -> float:
    began = time.perf_counter()
    run(count)
    return time.perf_counter() - began
