"""Enlargement, from the period it leaves in the second differences (Gallagher 2005).

Between the pixels of a small picture an interpolator weighs its neighbours the same way every
`factor` pixels, so the mean size of the second difference repeats with that period.
"""

import numpy as np

_CLEAR = 9.0  # times the median of the spectrum
_BLOCKS = 0.006  # cycles a pixel to each side of the multiples of 1/8, where JPEG has its own
_LARGEST = 8.0
_SOFT = 0.27  # pixels of blur for each time of enlargement; half of what most photos show


def enlargement(luma: np.ndarray, blur: float | None = None) -> float | None:
    """Find the factor by which both sides were enlarged.

    Factors of 2, 4 and 8 cannot be found: each pixel's distance to the middle of its neighbours is
    then the same, or the period is that of JPEG's blocks. Nor can enlargement under noise.

    Args:
        luma: float32 (H, W).
        blur: Measured sigma, pixels. One period stands for a factor below 2 and one above; the
            larger one leaves a softer picture.

    Returns:
        The factor, 1 to 8; None if no period is clear.
    """
    peaks = [_peak(luma), _peak(luma.T)]
    if peaks[0] is None or peaks[1] is None or abs(peaks[0] - peaks[1]) > 0.01:
        return None
    frequency = (peaks[0] + peaks[1]) / 2
    # 1 / factor in (0.5, 1) is seen as 1 - 1 / factor
    small, large = 1 / (1 - frequency), 1 / frequency
    return large if (blur or 0) > _SOFT * large else small


def _peak(luma: np.ndarray) -> float | None:
    """Cycles a pixel along a row, in (0, 0.5]."""
    second = np.abs(np.diff(luma, 2, axis=1)).mean(0)
    width = len(second)
    if width < 64:
        return None
    signal = np.log(second + 1e-3)
    signal = signal - np.convolve(np.pad(signal, 8, "edge"), np.full(17, 1 / 17), "valid")
    spectrum = np.abs(np.fft.rfft(signal * np.hanning(width), 8 * width))
    frequency = np.arange(len(spectrum)) / (8 * width)
    blocks = np.abs(frequency * 8 - np.rint(frequency * 8)) / 8 < _BLOCKS
    usable = (frequency > 1 / _LARGEST) & ~blocks
    at = int(np.where(usable, spectrum, 0).argmax())
    clear = spectrum[at] > _CLEAR * np.median(spectrum[usable])
    return float(frequency[at]) if clear else None
