"""The 8x8 blocks of a plane and their discrete cosine transform, as JPEG takes it."""

import numpy as np

# (8, 8) orthonormal DCT-II: row u is the u-th frequency, so coefficients = DCT @ block @ DCT.T
_N = np.arange(8)
DCT = (np.cos(np.pi * np.outer(_N, 2 * _N + 1) / 16) * np.where(_N, 0.5, 8**-0.5)[:, None]).astype(
    np.float32
)


def blocks(plane: np.ndarray, top: int = 0, left: int = 0) -> np.ndarray:
    """(H, W) -> (n, 8, 8): the whole blocks of the grid whose corner is at (top, left)."""
    plane = plane[top:, left:]
    rows, columns = plane.shape[0] // 8, plane.shape[1] // 8
    cut = plane[: rows * 8, : columns * 8].reshape(rows, 8, columns, 8)
    return cut.transpose(0, 2, 1, 3).reshape(-1, 8, 8)


def dct(cut: np.ndarray) -> np.ndarray:
    """(n, 8, 8) pixels -> (n, 8, 8) coefficients; white noise keeps its deviation in each."""
    return DCT @ cut.astype(np.float32) @ DCT.T
