"""DDPM on pixels: the closed form is the law that its single steps add up to."""

import gzip

import numpy as np
import pytest
import torch
import yaml
from diffusers import DDPMScheduler, UNet2DModel

from restore.diffusion.noise import generator
from restore.errors import ConfigError
from restore.training import loop
from restore.training.toys import digits as digits_stage

SCHEDULE = DDPMScheduler(1000, beta_schedule="squaredcos_cap_v2")


@pytest.mark.parametrize("t", [0, 10, 300, 700, 999])
def test_the_closed_form_has_the_mean_and_variance_of_step_by_step_noising(t):
    clean, rng = torch.tensor([-1.0, -0.2, 0.9]), torch.Generator().manual_seed(t)
    mean, variance = clean.double(), torch.zeros(3).double()
    for beta in SCHEDULE.betas[: t + 1].double():  # x_t ~ N(sqrt(1 - beta) x_{t-1}, beta)
        mean, variance = (1 - beta).sqrt() * mean, (1 - beta) * variance + beta
    x = clean[:, None].expand(3, 200_000)
    noise = torch.randn(x.shape, generator=rng)
    made = SCHEDULE.add_noise(x, noise, torch.full((3,), t))
    torch.testing.assert_close(made.mean(1).double(), mean, rtol=0, atol=0.01)
    torch.testing.assert_close(made.var(1).double(), variance, rtol=0.02, atol=1e-5)


def test_training_shows_the_network_the_closed_form_and_asks_for_its_noise():
    asked = {}

    class Spy(torch.nn.Module):
        def forward(self, x, t, class_labels):
            asked.update(x=x, t=t, labels=class_labels)
            return type("Made", (), {"sample": torch.zeros_like(x)})

    clean = torch.full((512, 1, 8, 8), 0.5)
    batch = {"pixels": clean, "labels": torch.arange(512) % 11}
    loss = digits_stage.train_step(Spy(), SCHEDULE, batch, generator("cpu", 0))
    assert abs(loss.item() - 1) < 0.02  # the noise's own variance, since nothing was predicted
    share = SCHEDULE.alphas_cumprod[asked["t"]].view(-1, 1, 1, 1)
    noise = (asked["x"] - share.sqrt() * clean) / (1 - share).sqrt()
    assert abs(noise.std() - 1) < 0.02
    assert abs(noise.mean()) < 0.02
    assert asked["t"].min() < 50
    assert asked["t"].max() > 950
    assert torch.equal(asked["labels"], batch["labels"])


def test_sampling_with_the_exact_noise_ends_at_the_data():
    """With two pictures the best answer is known: their posterior mean."""
    pair = torch.stack([torch.full((8, 8), -0.7), torch.full((8, 8), 0.7)])[:, None]

    class Exact(torch.nn.Module):
        config = type("Config", (), {"sample_size": 8})
        device = torch.device("cpu")

        def forward(self, x, t, class_labels):
            share = SCHEDULE.alphas_cumprod[t]
            away = (x[:, None] - share.sqrt() * pair).square().sum((2, 3, 4))
            odds = (-away / (2 * (1 - share))).softmax(1)
            clean = (odds[..., None, None, None] * pair).sum(1)
            noise = (x - share.sqrt() * clean) / (1 - share).sqrt()
            return type("Made", (), {"sample": noise})

    made = digits_stage.sample_digits(Exact(), SCHEDULE, [0] * 64, guidance=1, steps=50, seed=0)
    assert ((made.abs() - 0.7).abs() < 0.02).all()
    assert 10 < (made[:, 0, 0, 0] > 0).sum() < 54


def write_idx(path, array):
    head = bytes((0, 0, 8, array.ndim)) + b"".join(n.to_bytes(4) for n in array.shape)
    data = head + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.fixture
def mnist(tmp_path):
    """Two dozen 8x8 pictures whose brightness is their digit."""
    digits = np.arange(24) % 10
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", digits)
    bright = np.broadcast_to(digits[:, None, None] * 25, (24, 8, 8))
    return write_idx(tmp_path / "train-images-idx3-ubyte.gz", bright)


def test_mnist_files_are_read_as_they_come(mnist):
    images, digits = digits_stage.pictures(mnist)
    assert images.shape == (24, 8, 8)
    assert digits[13] == 3
    np.testing.assert_allclose(images[13], 75 / 127.5 - 1, atol=1e-6)


def test_a_file_that_is_no_idx_says_so(mnist, tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        digits_stage.pictures(tmp_path / "none")
    torn = tmp_path / "torn-images-idx3-ubyte"
    torn.write_bytes(gzip.decompress(mnist.read_bytes())[:-1])
    with pytest.raises(ConfigError, match="no IDX file of bytes with 3 axes"):
        digits_stage.pictures(torn)


def test_scikit_learns_digits_lie_in_the_range_of_the_walk():
    pytest.importorskip("sklearn")
    images, digits = digits_stage.pictures(None)
    assert images.shape == (1797, 8, 8)
    assert (images.min(), images.max()) == (-1, 1)
    assert set(digits) == set(range(10))


def test_three_steps_train_and_export_what_diffusers_loads(mnist, tmp_path):
    stage = {"kind": "pixels", "images": str(mnist), "channels": [8, 16], "layers": 1, "steps": 2}
    config = {"output": str(tmp_path / "run"), "stage": stage, "steps": 3, "batch": 4}
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump({**config, "log_every": 1}))
    folder = loop.run(path, [])
    unet = UNet2DModel.from_pretrained(folder / "unet")
    schedule = DDPMScheduler.from_pretrained(folder / "scheduler")
    made = digits_stage.sample_digits(unet, schedule, [3, 3], guidance=2, steps=3, seed=0)
    assert made.shape == (2, 1, 8, 8)
    assert torch.equal(
        made, digits_stage.sample_digits(unet, schedule, [3, 3], guidance=2, steps=3, seed=0)
    )
    assert (tmp_path / "run" / "preview_00000003.png").is_file()


def test_the_judge_knows_real_digits_from_noise():
    pytest.importorskip("sklearn")
    images, digits = digits_stage.pictures(None)
    noise = np.random.default_rng(0).uniform(-1, 1, (50, 8, 8))
    scores = digits_stage.score(noise, np.zeros(50, int), images, digits)
    assert scores["real_agree"] > 0.97
    assert scores["real_sure"] > 0.9
    assert scores["agree"] < 0.5
    assert scores["sure"] < 0.5
    assert digits_stage.score(images, digits, images, digits)["spread"] == 1
