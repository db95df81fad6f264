"""VAEs that see the whole picture, by windows. Those that do not are exact: test_stack.py."""

import pytest
import torch
from diffusers import AutoencoderKL

from restore.diffusion import vae
from restore.diffusion.tiling import Windows

DOWN, UP = "DownEncoderBlock2D", "UpDecoderBlock2D"


@pytest.fixture(scope="module")
def kl():
    """As Stable Diffusion's, with group norms and attention in the middle, and tiny."""
    torch.manual_seed(0)
    made = AutoencoderKL(
        block_out_channels=(8, 16, 16),
        down_block_types=(DOWN,) * 3,
        up_block_types=(UP,) * 3,
        latent_channels=4,
        norm_num_groups=4,
    )
    return made.requires_grad_(False).eval()


def noise(height, width, seed=0):
    return torch.randn(1, 4, height, width, generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def decoded(kl, latent, size):
    made = torch.full((1, 3, *size), torch.nan)

    def write(rows, columns, rgb):
        assert torch.isnan(made[..., rows, columns]).all()  # no pixel twice
        made[..., rows, columns] = rgb

    vae.decode_canvas(kl, latent, write, size)
    return made


@torch.inference_mode()
@pytest.mark.parametrize(("height", "width"), [(64, 50), (80, 200), (128, 128)])
def test_one_window_is_the_stock_answer(kl, height, width):
    latent, size = noise(height, width), (4 * height, 4 * width)
    assert torch.equal(decoded(kl, latent, size), vae.decode(kl, latent))
    rgb = torch.rand(1, 3, *size)
    made = vae.encode_canvas(kl, lambda a, b: rgb[..., a:b, :], size)
    assert torch.equal(made, vae.encode(kl, rgb))


@pytest.mark.parametrize("length", [1, 63, 64, 65, 112, 160, 201])
@pytest.mark.parametrize("step", [1, 8])
def test_the_windows_weigh_one_everywhere(length, step):
    total = torch.zeros(length * step)
    for cut, weight in vae.spans(Windows(64, 48), length, step):
        assert len(weight) == min(64, length) * step
        total[cut] += weight
    torch.testing.assert_close(total, torch.ones(length * step))


@torch.inference_mode()
def test_windows_come_close_to_decoding_whole(kl):
    latent = noise(176, 130)
    away = (decoded(kl, latent, (704, 520)) - vae.decode(kl, latent)).abs()
    # each window is normalised by itself: with these random weights, of spread 0.15, this close
    assert away.mean() < 0.006
    assert away.max() < 0.08


@torch.inference_mode()
def test_encoding_by_windows_comes_close_to_encoding_whole(kl):
    rgb = torch.rand(1, 3, 704, 520)
    made = vae.encode_canvas(kl, lambda a, b: rgb[..., a:b, :], (704, 520))
    whole = vae.encode(kl, rgb)
    assert made.shape == whole.shape
    assert (made - whole).abs().mean() < 0.05 * whole.std()


def test_a_constant_latent_gives_a_constant_picture(kl):
    latent = noise(1, 1).expand(-1, -1, 160, 144)
    # 96 px: what the canvas's own border bends by zero padding
    inner = decoded(kl, latent, (640, 576))[..., 96:-96, 96:-96]
    assert (inner.amax((-2, -1)) - inner.amin((-2, -1))).max() < 0.03


def test_the_canvas_alone_decides(kl):
    latent = noise(144, 136)
    whole = decoded(kl, latent, (576, 544))
    for size in [(576, 544), (400, 544), (190, 61), (193, 540)]:
        assert torch.equal(decoded(kl, latent, size), whole[..., : size[0], : size[1]])


def test_a_long_canvas_takes_no_more_memory_than_a_row_of_windows(kl, monkeypatch):
    seen, written = [], []

    def decode(_, latent):
        seen.append(latent.shape[-2:])
        return torch.zeros(1, 3, *(n * 4 for n in latent.shape[-2:]))

    monkeypatch.setattr(vae, "decode", decode)
    size = 64 + 48 * 60
    vae.decode_canvas(
        kl, torch.zeros(1, 4, size, 64), lambda *part: written.append(part), (size * 4, 256)
    )
    assert set(seen) == {(64, 64)}
    assert max(rows.stop - rows.start for rows, _, _ in written) == 256
    assert sum(rows.stop - rows.start for rows, _, _ in written) == size * 4
    # what is handed over does not hold on to more than its row of windows
    assert max(rgb.untyped_storage().nbytes() for *_, rgb in written) <= 4 * 3 * 256 * 256
