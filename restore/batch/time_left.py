"""Estimate how long a run over files takes, without opening any of them."""

import time
from collections import Counter
from collections.abc import Collection

from restore.batch.jobs import Job

DENSITY = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), 0.4),
    **{".png": 1.9, ".webp": 0.25, ".avif": 0.15, ".heic": 0.15, ".gif": 0.6},
    **dict.fromkeys((".tif", ".tiff", ".bmp", ".dib", ".ppm", ".pnm", ".tga"), 3.0),
}
ENOUGH = 3  # files to do before the first estimate; of many files, a hundredth


class TimeLeft:
    """Estimates the time left from the seconds for each byte so far, by kind of file.

    The estimate for a kind that was not done yet comes from the others, by their usual number of
    bytes for each pixel.
    """

    def __init__(self, jobs: Collection[Job], workers: int = 1):
        self.workers = workers  # jobs done at a time
        self.began = time.monotonic()
        self.total = len(jobs)
        self.expected: float | None = None  # seconds for the whole run, after the first files
        self._remaining: Counter[str] = Counter()  # suffix -> bytes that are left
        self._done: Counter[str] = Counter()
        self._taken: Counter[str] = Counter()  # suffix -> seconds
        self._worked = 0
        for suffix, size in map(_weight, jobs):
            self._remaining[suffix] += size

    def add(self, job: Job, seconds: float) -> None:
        """Count a file as done; 0 seconds: nothing was made of it, so it measures nothing."""
        suffix, size = _weight(job)
        # It may have grown meanwhile.
        self._remaining[suffix] = max(0, self._remaining[suffix] - size)
        if not seconds:
            return
        self._worked += 1
        if self._worked == self.workers + 1:  # drop the first ones: they also waited for the model
            self._done.clear()
            self._taken.clear()
        self._done[suffix] += size
        self._taken[suffix] += seconds
        enough = max(ENOUGH, self.total // 100)
        if self.expected is None and self._worked >= min(enough, self.total):
            self.expected = round(time.monotonic() - self.began + (self.left or 0), 1)

    @property
    def left(self) -> float | None:
        """Seconds left; None until a file was done."""
        if not self._worked:
            return None
        pixels = sum(size / _density(suffix) for suffix, size in self._done.items())
        overall = sum(self._taken.values()) / max(1, pixels)

        def rate(suffix: str) -> float:
            done = self._done[suffix]
            return self._taken[suffix] / done if done else overall / _density(suffix)

        return sum(size * rate(suffix) for suffix, size in self._remaining.items()) / self.workers


def _density(suffix: str) -> float:
    """Bytes for each pixel in a usual file of that kind."""
    return DENSITY.get(suffix, DENSITY[".png"])


def _weight(job: Job) -> tuple[str, int]:
    """(suffix, bytes) of a job; 0 bytes if it is skipped."""
    if job.source is None:
        return "", 1
    try:
        size = 0 if job.skip else job.size if job.url else job.source.stat().st_size
    except OSError:  # its row will say so
        size = 0
    return job.source.suffix.casefold(), size
