"""Propose where an old photo is scratched, for its user to correct."""

import cv2
import numpy as np

from restore.images.masks import labelled
from restore.images.picture import Picture

WIDTH = 9  # px, a scratch is narrower
ANGLES = 12
LENGTH = 21  # px, of the lines that gather evidence along a scratch


def find(picture: Picture, threshold: float = 5) -> np.ndarray:
    """uint8 (H, W), 255 on thin lines and specks, light or dark, that stand out.

    Top-hats for what is narrower than WIDTH, averaged along lines of every direction, then
    hysteresis (cf. Joyeux et al. 1999, Detection and Removal of Line Scratches in Film).

    threshold  in units of the residue's spread round the pixel; lower finds more, and more wrongly.
    """
    grey = picture.pixels.astype(np.float32).mean(2) / np.iinfo(picture.pixels.dtype).max * 255
    square = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (WIDTH, WIDTH))
    found = np.zeros(grey.shape, bool)
    for kind in (cv2.MORPH_TOPHAT, cv2.MORPH_BLACKHAT):
        hat = cv2.morphologyEx(grey, kind, square)
        along = np.max([cv2.filter2D(hat, -1, line) for line in _lines()], 0)
        usual = cv2.GaussianBlur(along, (0, 0), 3 * LENGTH)
        spread = np.sqrt(cv2.GaussianBlur((along - usual) ** 2, (0, 0), 3 * LENGTH)) + 0.5
        score = (along - usual) / spread
        strong, weak = score > threshold, score > threshold / 3
        marks = labelled(weak & (hat > usual))
        sure = np.unique(marks[strong])
        found |= np.isin(marks, sure[sure > 0])
    return np.where(found, 255, 0).astype(np.uint8)


def _lines() -> list[np.ndarray]:
    """Averages along straight lines of LENGTH, one a direction."""
    middle = LENGTH // 2
    lines = []
    for angle in np.arange(ANGLES) * np.pi / ANGLES:
        line = np.zeros((LENGTH, LENGTH), np.float32)
        reach = middle * np.array([np.cos(angle), np.sin(angle)])
        ends = [tuple(np.rint(middle + sign * reach).astype(int).tolist()) for sign in (-1, 1)]
        cv2.line(line, *ends, 1)
        lines.append(line / line.sum())
    return lines
