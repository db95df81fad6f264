"""The picture so far of the job at work: made only while a client asks for it, kept in memory."""

import io
import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from restore.errors import RestoreError

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger(__name__)
PATIENCE_S = 10  # after a client has asked, previews are made for so long
PAUSE_S = 0.5  # between two previews, at least
SHARE = 10  # and at least so many times the time that one took: the job loses a tenth at most
QUALITY = 80


class Previews:
    """The latest preview of the one job that is at work."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.begin("")

    def begin(self, job_id: str) -> None:
        """Forget the preview of the job before; `job_id` is at work now, "" is none."""
        with self._lock:
            self._job, self._jpeg, self._number = job_id, b"", 0
            self._requested_s, self._next, self._is_broken = float("-inf"), 0.0, False

    def ask(self, job_id: str) -> bytes:
        """Return the latest preview of a job as a JPEG, b"" if there is none; have more made."""
        with self._lock:
            if job_id != self._job:
                return b""
            self._requested_s = time.monotonic()
            return self._jpeg

    @property
    def is_due(self) -> bool:
        """Whether a client waits for a preview, and the last one is old enough."""
        now = time.monotonic()
        return not self._is_broken and now - self._requested_s < PATIENCE_S and now >= self._next

    def take(self, sketch: "Callable[[], np.ndarray]") -> int:
        """Make a preview if one is due.

        Args:
            sketch: Makes a small picture, uint8 (h, w, 3).

        Returns:
            Its number, counted from 1; 0 if none was made.
        """
        if not self.is_due:
            return 0
        began = time.monotonic()
        try:
            jpeg = as_jpeg(sketch())
        except RestoreError:  # the job was cancelled meanwhile
            raise
        except Exception:  # whatever a sketch raises: the job goes on without previews
            log.exception("no preview of job %s", self._job)
            self._is_broken = True
            return 0
        now = time.monotonic()
        with self._lock:
            self._next = now + max(PAUSE_S, SHARE * (now - began))
            self._jpeg, self._number = jpeg, self._number + 1
            return self._number


def as_jpeg(pixels: "np.ndarray") -> bytes:
    """Encode uint8 (h, w, 3)."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()
