from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler

from restore.diffusion.conditioning import as_velocity
from restore.diffusion.sampling import sample, start
from restore.diffusion.stack import SCHEDULERS
from restore.errors import NonFiniteError

MEAN, SPREAD = 0.3, 0.5


def gaussian(scheduler: DDIMScheduler):
    """The exact clean latent where the data is normal with MEAN and SPREAD."""

    def predict(x, t, corners=()):
        a = scheduler.alphas_cumprod[t]
        alpha, sigma = a.sqrt(), (1 - a).sqrt()
        gain = alpha * SPREAD**2 / (a * SPREAD**2 + sigma**2)
        return MEAN + gain * (x - alpha * MEAN)

    return predict


def gaussian_v(scheduler: DDIMScheduler):
    """The exact v of that."""
    clean = gaussian(scheduler)

    def predict(x, t):
        a = scheduler.alphas_cumprod[t]
        noise = (x - a.sqrt() * clean(x, t)) / (1 - a).sqrt().clamp(min=1e-6)
        return a.sqrt() * noise - (1 - a).sqrt() * clean(x, t)

    return predict


WALKS = ["ddim", "ddpm", "euler_a", "dpm++_2m", "dpm++_sde", "unipc", "heun", "euler"]


@pytest.mark.parametrize("name", WALKS)
def test_a_scheduler_carries_gaussian_data_to_its_mean_and_spread(stack, name):
    scheduler = stack.scheduler(name, 40)
    noise = torch.randn(1, 4, 48, 48, generator=torch.Generator().manual_seed(0))
    predict = gaussian_v(stack.schedule)

    def at(x, t):
        # Heun and Euler pass fractional timesteps; the nearest is close enough for the law
        return predict(x, t.round().long())

    rng = torch.Generator().manual_seed(0)  # the ancestral ones draw while they walk
    made = sample(at, start(scheduler, noise), scheduler, rng=rng)
    assert abs(made.mean() - MEAN) < 0.05
    assert abs(made.std() - SPREAD) < 0.08


@pytest.mark.parametrize("name", [*WALKS, "dpm++_2m_karras"])
def test_a_model_that_names_the_clean_latent_walks_by_every_scheduler(stack, name):
    told = DDIMScheduler.from_config(stack.schedule.config, prediction_type="sample")
    scheduler = replace(stack, schedule=told).scheduler(name, 40)
    asked = as_velocity(lambda x, t, _: gaussian(told)(x, t.round().long()), told)
    noise = torch.randn(1, 4, 48, 48, generator=torch.Generator().manual_seed(0))
    rng = torch.Generator().manual_seed(0)
    made = sample(lambda x, t: asked(x, t, []), start(scheduler, noise), scheduler, rng=rng)
    assert abs(made.mean() - MEAN) < 0.05
    assert abs(made.std() - SPREAD) < 0.08


def test_what_names_v_already_is_asked_as_it_is(stack):
    assert as_velocity(asked := object(), stack.schedule) is asked


@pytest.mark.parametrize("name", SCHEDULERS)
def test_one_step_gives_the_mean(stack, name):
    if name in ("heun",):
        pytest.skip("a second-order method has no single evaluation")
    scheduler = stack.scheduler(name, 1)
    noise = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    predict = gaussian_v(stack.schedule)
    x = start(scheduler, noise)
    made = sample(lambda x, t: predict(x, t.long()), x, scheduler)
    assert abs(made.mean() - MEAN) < 0.02


def test_less_strength_takes_fewer_steps_and_starts_near_the_picture(stack):
    scheduler = stack.scheduler("ddim", 10)
    clean = torch.full((1, 4, 32, 32), 2.0)
    x = start(scheduler, torch.zeros_like(clean), clean, strength=0.3)
    assert len(scheduler.timesteps) == 3
    a = stack.schedule.alphas_cumprod[scheduler.timesteps[0]]
    torch.testing.assert_close(x, a.sqrt() * clean)


def test_a_nan_names_its_step(stack):
    scheduler = stack.scheduler("ddim", 3)
    with pytest.raises(NonFiniteError, match="step 1"):
        sample(lambda x, t: x * float("nan"), torch.zeros(1, 1, 4, 4), scheduler)
