"""Stage one for every regularisation, with what its pictures are judged by."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from diffusers import AutoencoderKL, AutoencoderTiny, VQModel
from PIL import Image
from pydantic import TypeAdapter
from torch.nn import functional as F
from toy import assert_resumes

from restore.diffusion import vae
from restore.errors import ConfigError
from restore.metrics.perceptual import pd
from restore.training import loop
from restore.training.losses import discriminator, perceptual
from restore.training.registry import StageOptions
from restore.training.stages.autoencoder import AutoencoderStage, build, last_layer, reconstruct

TINY = {"kind": "autoencoder", "channels": 8, "encoder_blocks": [0, 1], "decoder_blocks": [1, 1]}
STOCK = {"widths": [8, 16], "layers": 1, "groups": 4}
KL, VQ = {"kind": "autoencoder_kl", **STOCK}, {"kind": "autoencoder_vq", "codes": 16, **STOCK}
GAN = {"start": 2, "channels": 16, "layers": 2}
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def photos(tmp_path_factory, pixels):
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(2):
        Image.fromarray(pixels(144, 140, seed)).save(folder / f"{seed}.png")
    return folder


def options(photos, shape, **more):
    given = {**shape, "data": {"photos": str(photos), "crop": 32}, **more}
    return TypeAdapter(StageOptions).validate_python(given)


def stage(photos, shape, **more):
    torch.manual_seed(0)
    return AutoencoderStage(options(photos, shape, **more), 0, CPU)


def batch(made, size=4):
    return torch.stack([torch.from_numpy(made.samples[i]) for i in range(size)])


def rgb(seed=0, size=32):
    return torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("shape", "kind", "pixel_loss"),
    [(TINY, AutoencoderTiny, "edges"), (KL, AutoencoderKL, "l1"), (VQ, VQModel, "l2")],
)
def test_every_regularisation_trains_and_loads_with_stock_classes(
    photos, tmp_path, shape, kind, pixel_loss
):
    config = {
        "stage": {**shape, "data": {"photos": str(photos), "crop": 32}, "pixel_loss": pixel_loss},
        **{"output": str(tmp_path / "run"), "steps": 2, "batch": 2, "log_every": 1},
    }
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(config))
    folder = loop.run(path, [])
    exported = kind.from_pretrained(folder / "vae", local_files_only=True)
    latent = vae.encode(exported, rgb())
    assert latent.shape == (2, exported.config.latent_channels, 16, 16)
    assert vae.decode(exported, latent).shape == (2, 3, 32, 32)


def test_a_scaled_latent_has_a_spread_of_one(photos, tmp_path):
    made = stage(photos, KL)
    made.export(tmp_path)
    exported = AutoencoderKL.from_pretrained(tmp_path / "vae", local_files_only=True)
    crops = batch(made, 256).permute(0, 3, 1, 2) / 255
    with torch.inference_mode():
        assert abs(vae.encode(exported, crops).std() - 1) < 0.01


def test_the_scale_is_measured_by_parts_as_on_all_crops_at_once(photos, tmp_path, monkeypatch):
    """So that an export takes no more memory than a step of training."""
    made, encode, counts = stage(photos, TINY), vae.encode, []
    monkeypatch.setattr(vae, "encode", lambda v, x: counts.append(len(x)) or encode(v, x))
    made.export(tmp_path)
    assert sum(counts) == 256 and max(counts) <= 8
    exported = AutoencoderTiny.from_pretrained(tmp_path / "vae", local_files_only=True)
    with torch.inference_mode():
        whole = made.vae.encoder(batch(made, 256).permute(0, 3, 1, 2) / 127.5 - 1)
    assert exported.config.scaling_factor == pytest.approx(1 / whole.double().std().item())


def test_the_vq_one_quantises_in_decode(photos):
    coder = build(options(photos, VQ))
    latent = coder.encode(rgb()).latents
    codes = coder.quantize.embedding.weight
    read = []
    coder.post_quant_conv.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    made, losses = reconstruct(coder, (rgb() + 1) / 2, options(photos, VQ), torch.Generator())
    vectors = read[0].permute(0, 2, 3, 1).reshape(-1, codes.shape[1])
    nearest = codes[torch.cdist(latent.permute(0, 2, 3, 1).flatten(0, 2), codes).argmin(1)]
    torch.testing.assert_close(vectors, nearest)
    (made.sum() + losses["codebook"]).backward()
    assert coder.encoder.conv_in.weight.grad.abs().sum() > 0  # straight through
    assert codes.grad.abs().sum() > 0


def test_the_commitment_weighs_the_term_that_moves_the_latents(photos):
    """Loss = |sg(z) - e|^2 + beta |z - sg(e)|^2 (van den Oord et al. 2017)."""
    gradients = []
    for commitment in (0.25, 0.5):
        torch.manual_seed(0)
        coder = build(options(photos, VQ, commitment=commitment))
        latent = coder.encode(rgb()).latents.detach().requires_grad_()
        coder.decode(latent).commit_loss.backward()
        gradients.append((latent.grad, coder.quantize.embedding.weight.grad))
    (weak, codes), (strong, same) = gradients
    torch.testing.assert_close(2 * weak, strong)
    torch.testing.assert_close(codes, same)


def test_the_kl_term_is_the_divergence_from_a_standard_normal(photos):
    given = options(photos, KL, kl_weight=1.0)
    coder = build(given)
    _, losses = reconstruct(coder, rgb(), given, torch.Generator().manual_seed(0))
    latents = coder.encode(rgb() * 2 - 1).latent_dist
    normal = torch.distributions.Normal(latents.mean, latents.std)
    wanted = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0, 1)).sum()
    torch.testing.assert_close(losses["kl"], wanted / rgb().numel())


@pytest.mark.parametrize("shape", [TINY, KL, VQ])
def test_the_adversary_begins_at_its_step_and_not_before(photos, shape):
    made = stage(photos, shape, adversary=GAN)
    pixels = batch(made)
    assert not {"adversarial", "discriminator"} & made.loss(pixels, 1).keys()
    losses = made.loss(pixels, 2)
    assert {"adversarial", "discriminator"} <= losses.keys()
    assert 0.5 < losses["discriminator"] < 1.5  # it cannot tell yet: both margins are missed
    before = made.loss(pixels, 1)
    sum(before.values()).backward()
    assert all(p.grad is None for p in made.discriminator.parameters())


def test_the_adversary_is_smoothed_as_asked(photos):
    for spectral in (False, True):
        judge = stage(photos, TINY, adversary={**GAN, "spectral": spectral}).discriminator
        groups = [module for module in judge if isinstance(module, torch.nn.GroupNorm)]
        assert bool(groups) != spectral


def test_each_side_descends_its_own_loss_alone(photos):
    made = stage(photos, TINY, adversary={**GAN, "start": 0})
    losses = made.loss(batch(made), 0)
    alone = {
        name: torch.autograd.grad(
            losses[name], list(made.model.parameters()), retain_graph=True, allow_unused=True
        )
        for name in ("adversarial", "discriminator")
    }
    own = len(list(made.vae.parameters()))
    assert all(g is not None for g in alone["adversarial"][:own])
    assert all(g is None for g in alone["adversarial"][own:])
    assert all(g is None for g in alone["discriminator"][:own])
    assert all(g is not None for g in alone["discriminator"][own:])


@pytest.mark.parametrize("shape", [TINY, KL, VQ])
def test_the_adaptive_weight_brings_both_gradients_to_one_size(photos, shape):
    made = stage(photos, shape, adversary={**GAN, "start": 0, "weight": 0.5})
    losses, layer = made.loss(batch(made), 0), last_layer(made.vae)
    kept, adverse = (
        torch.autograd.grad(losses[name], layer, retain_graph=True)[0].norm()
        for name in ("reconstruction", "adversarial")
    )
    torch.testing.assert_close(adverse, 0.5 * kept, rtol=0.02, atol=0)


@pytest.mark.parametrize("spectral", [False, True])
def test_the_judge_is_normalised_as_its_options_say(photos, spectral):
    made = stage(photos, TINY, adversary={**GAN, "spectral": spectral})
    grouped = [isinstance(layer, torch.nn.GroupNorm) for layer in made.discriminator]
    bounded = [torch.nn.utils.parametrize.is_parametrized(layer) for layer in made.discriminator]
    assert (any(grouped), any(bounded)) == (not spectral, spectral)


def test_the_judge_learns_to_tell(photos):
    """Its loss falls from 1, that of no opinion, when what it sees does not change."""
    torch.manual_seed(0)
    judge = discriminator.Patches(16, 2)
    real, made = rgb(0), F.avg_pool2d(rgb(1), 5, 1, 2).requires_grad_()
    given = discriminator.AdversaryOptions(start=0, adaptive=False)
    optimizer = torch.optim.AdamW(judge.parameters(), 1e-3)
    for _ in range(20):
        optimizer.zero_grad()
        told = discriminator.adversarial_losses(judge, made, real, made.mean(), made, given)
        told["discriminator"].backward()
        optimizer.step()
    assert told["discriminator"] < 0.3
    assert told["adversarial"] > 0


def test_an_adversary_resumes_bit_for_bit(photos, tmp_path):
    stage_of = {**TINY, "data": {"photos": str(photos), "crop": 32}, "adversary": GAN}
    common = {"stage": stage_of, "batch": 2, "save_every": 3, "show_every": 9, "steps": 4}
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(common))
    assert_resumes(path, tmp_path)


def test_squeezenet_sees_blur_and_teaches_the_autoencoder(photos):
    made = stage(photos, TINY, perceptual={"kind": "squeezenet"})
    losses = made.loss(batch(made), 0)
    losses["perceptual"].backward()
    assert last_layer(made.vae).grad.abs().sum() > 0
    sharp = rgb(size=64)
    soft = [F.avg_pool2d(sharp, n, 1, n // 2, count_include_pad=False) for n in (1, 3, 5)]
    same, near, far = (made.distance(blurred, sharp) for blurred in soft)
    assert same == 0
    assert 0 < near < far


def test_the_loss_is_what_pd_measures():
    one, other = (np.rint(255 * x[0].permute(1, 2, 0).numpy()) for x in (rgb(64), rgb(64) ** 2))
    tensors = (torch.from_numpy(x / 255).permute(2, 0, 1)[None].float() for x in (one, other))
    apart = perceptual.distance(perceptual.SqueezeNetOptions(), CPU)(*tensors)
    assert apart.item() == pytest.approx(pd(one, other), rel=1e-3)


def test_no_gradient_leaves_the_finite_numbers_where_nothing_is_seen():
    black = torch.zeros(1, 3, 64, 64, requires_grad=True)
    perceptual.squeezenet(black, torch.zeros(1, 3, 64, 64)).backward()
    assert torch.isfinite(black.grad).all()


def test_lpips_without_its_package_or_weights_names_the_mend(tmp_path, monkeypatch):
    asked = perceptual.LpipsOptions(net="alex")
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(ConfigError, match="pip install lpips"):
        perceptual.distance(asked, CPU)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    package = SimpleNamespace(LPIPS=lambda net, verbose: torch.nn.Identity())
    monkeypatch.setitem(sys.modules, "lpips", package)
    with pytest.raises(ConfigError, match="fetches nothing"):
        perceptual.distance(asked, CPU)


def test_lpips_reads_pictures_of_minus_one_to_one(tmp_path, monkeypatch):
    class Lpips(torch.nn.Module):
        def __init__(self, net, verbose):
            super().__init__()
            assert net == "alex"

        def forward(self, one, other):
            assert one.min() < 0
            return (one - other).abs().amax((1, 2, 3), keepdim=True)

    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / perceptual.BACKBONES["alex"]).touch()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setitem(sys.modules, "lpips", SimpleNamespace(LPIPS=Lpips))
    apart = perceptual.distance(perceptual.LpipsOptions(net="alex"), CPU)
    assert apart(torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32)) == 2
