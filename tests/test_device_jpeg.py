"""JPEG in tensors is the codec itself: not one value differs, on any device."""

import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from degradations.device import jpeg
from degradations.ops.jpeg import jpeg as real

CHROMA = ("4:4:4", "4:2:2", "4:2:0", "4:4:0")
QUALITIES = list(range(1, 101))


def pictures(height: int, width: int) -> np.ndarray:
    """uint8 (100, height, width, 3): half of them noise, half nearly flat."""
    rng = np.random.default_rng(height * 1000 + width)
    rgb = rng.integers(0, 256, (100, height, width, 3))
    rgb[::2] = rgb[::2] // 8 + rng.integers(0, 225, (50, 1, 1, 3))
    return rgb.astype(np.uint8)


def tensor(rgb: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(rgb).permute(0, 3, 1, 2)


def differing(rgb: np.ndarray, chroma: str, device: str = "cpu") -> int:
    """Values that differ from libjpeg-turbo's, each picture at a quality of its own."""
    ours = jpeg(tensor(rgb).to(device), QUALITIES, chroma).permute(0, 2, 3, 1).cpu().numpy()
    theirs = [
        real(picture, quality, chroma) for picture, quality in zip(rgb, QUALITIES, strict=True)
    ]
    return int((ours != np.stack(theirs)).sum())


SIZES = [(64, 48), (37, 41), (17, 16), (16, 33), (70, 1), (65, 7), (1, 1)]
NARROW = [(2, 3), (3, 2), (4, 4), (9, 5), (5, 6), (200, 3), (3, 200)]


@pytest.mark.parametrize("chroma", CHROMA)
@pytest.mark.parametrize("size", SIZES + NARROW)
def test_no_value_differs_from_libjpeg_turbo_at_any_quality(chroma, size):
    assert differing(pictures(*size), chroma) == 0


@pytest.mark.gpu
@pytest.mark.parametrize("chroma", CHROMA)
def test_no_value_differs_on_a_gpu(chroma):
    torch.set_float32_matmul_precision("medium")
    try:
        for size in (*SIZES, *NARROW, (256, 384)):
            assert differing(pictures(*size), chroma, "cuda") == 0
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("chroma", CHROMA)
def test_pillows_libjpeg_turbo_reads_the_same(chroma):
    rgb = pictures(37, 41)
    options = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR]
    options += [getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{chroma.replace(':', '')}")]
    for index in (0, 31, 88, 99):
        options += [cv2.IMWRITE_JPEG_QUALITY, QUALITIES[index]]
        _, file = cv2.imencode(".jpg", np.ascontiguousarray(rgb[index, ..., ::-1]), options)
        theirs = np.asarray(Image.open(io.BytesIO(file.tobytes())).convert("RGB"))
        ours = jpeg(tensor(rgb[index : index + 1]), QUALITIES[index], chroma)
        assert (ours[0].permute(1, 2, 0).numpy() == theirs).all()


def test_what_is_set_outside_spoils_nothing_and_stays():
    rgb = pictures(40, 56)
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert differing(rgb, "4:2:0") == 0
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_levels_come_back_in_their_type():
    rgb = tensor(pictures(20, 24)[:2])
    assert jpeg(rgb, 80).dtype == torch.uint8
    assert torch.equal(jpeg(rgb.float(), 80), jpeg(rgb, 80).float())


@pytest.mark.parametrize("chroma", CHROMA)
def test_the_gradient_follows_the_chain_without_rounding(chroma):
    rgb = tensor(pictures(32, 48)[:2]).float().requires_grad_()
    jpeg(rgb, 50, chroma).sum().backward()
    assert rgb.grad is not None
    # what leaves a pixel goes somewhere: as much in all as without the codec
    assert rgb.grad.sum() == pytest.approx(rgb.numel(), rel=1e-4)
    assert (rgb.grad.abs() > 0.1).float().mean() > 0.9
    if chroma == "4:4:4":
        assert torch.equal(rgb.grad, torch.ones_like(rgb))


def test_at_the_best_quality_the_gradient_is_the_slope():
    rgb = torch.full((1, 3, 32, 32), 128.0, requires_grad=True)
    weight = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 3, 32, 32))).float()
    (jpeg(rgb, 100, "4:2:0") * weight).sum().backward()
    step = torch.zeros_like(rgb)
    step[0, 1, 8:24, 8:24] = 1  # one level more, over whole blocks
    with torch.no_grad():
        risen = ((jpeg(rgb + 40 * step, 100) - jpeg(rgb - 40 * step, 100)) * weight).sum() / 80
    assert rgb.grad is not None
    assert float((rgb.grad * step).sum()) == pytest.approx(float(risen), abs=0.05 * 16)


@pytest.mark.parametrize(
    ("shape", "quality", "chroma", "told"),
    [
        ((1, 3, 8, 8), 0, "4:2:0", "1 to 100"),
        ((1, 3, 8, 8), 101, "4:2:0", "1 to 100"),
        ((1, 3, 8, 8), 50, "4:1:0", "4:2:0"),
        ((3, 8, 8), 50, "4:2:0", "(B, 3, H, W)"),
    ],
)
def test_what_jpeg_cannot_take_is_refused(shape, quality, chroma, told):
    with pytest.raises(ValueError, match=told.replace("(", r"\(").replace(")", r"\)")):
        jpeg(torch.zeros(shape), quality, chroma)
