import pytest
import torch

from restore.diffusion.tiling import Windows, windowed
from restore.images.strips import blocks


@pytest.mark.parametrize("size", [(64, 64), (112, 64), (160, 208), (8, 24), (72, 16), (120, 64)])
def test_tiling_the_identity_changes_nothing(size):
    x = torch.randn(1, 8, *size)
    tiled = windowed(lambda crop, t, corners: crop, Windows(64, 48))
    torch.testing.assert_close(tiled(x, torch.tensor(0)), x, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("length", "canvas"), [(1, 8), (8, 8), (64, 64), (65, 72), (112, 112)])
def test_a_canvas_ends_at_the_next_multiple_that_a_unet_can_halve(length, canvas):
    assert Windows(64, 48).canvas(length) == canvas


def test_neighbouring_weights_add_up_to_one():
    weight = Windows(64, 48).weight(112)
    torch.testing.assert_close(weight[48:] + weight[:16], torch.ones(16))


def test_a_window_sees_its_own_place_of_the_canvas():
    canvas = torch.randn(1, 4, 40, 24)
    seen = {}

    def predict(crop, t, corners):
        for at, one in zip(corners, crop, strict=True):
            seen[at] = one
        return crop

    windowed(predict, Windows(16, 12))(canvas, torch.tensor(0))
    assert sorted(seen) == [(r, c) for r in (0, 12, 24) for c in (0, 8)]
    for (r, c), crop in seen.items():
        assert torch.equal(crop, canvas[0, :, r : r + 16, c : c + 16])


def test_a_canvas_of_no_more_latents_than_a_window_is_one():
    shapes = []

    def predict(crop, t, corners):
        shapes.append((tuple(crop.shape[-2:]), corners))
        return crop

    for size in ((48, 40), (8, 80), (48, 80), (56, 80)):
        windowed(predict, Windows(64, 48))(torch.randn(1, 4, *size), torch.tensor(0))
    whole = [(size, [(0, 0)]) for size in ((48, 40), (8, 80), (48, 80))]
    assert shapes == [*whole, ((56, 64), [(0, 0)]), ((56, 64), [(0, 16)])]


def test_blocks_cover_every_pixel_once_and_keep_their_halo():
    count = torch.zeros(50, 37)
    for block in blocks((50, 37), (60, 40), size=16, halo=5):
        count[block.inner] += 1
        for inner, outer, limit in zip(block.inner, block.outer, (60, 40), strict=True):
            assert outer.start == max(0, inner.start - 5)
            assert outer.stop == min(limit, inner.stop + 5)
    assert (count == 1).all()
