"""What the walk's later steps are asked for: texture, judged by its looks."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
import yaml
from PIL import Image
from torch import nn
from toy import assert_resumes

from restore.diffusion import vae
from restore.training import logs
from restore.training.losses.discriminator import AdversaryOptions, Patches, adversarial_losses
from restore.training.optim import compile_networks
from restore.training.rng import WHOLE, Part
from restore.training.stages.denoising_loss import (
    DenoisingOptions,
    draw,
    spaced_indices,
    train_step,
)

SIZE = 8  # samples of a batch, half of them on the walk
GAN = {"start": 1, "channels": 16, "layers": 1}
TEXTURE = {"own": 0.5, "perceptual": {"kind": "squeezenet"}, "adversary": GAN}
GIVEN = {"last_share": 0.5, "pixel_weight": 1, "pixel_samples": SIZE, "texture": TEXTURE}
LOOKS = {"walk_pixel", "walk_perceptual", "adversarial", "discriminator"}


@pytest.fixture
def learner(stack):
    return replace(stack, unet=deepcopy(stack.unet).requires_grad_(True))


def batch(stack, target=None):
    shape, rng = (SIZE, stack.channels, 16, 16), torch.Generator().manual_seed(0)
    known, other = torch.randn(2, *shape, generator=rng).unbind()
    side = 16 * stack.factor
    return {
        "conditioning": known,
        "target": other if target is None else target,
        "trust": torch.full((SIZE, 1, 16, 16), 0.5),
        "tokens": torch.stack([stack.context.inputs("noise")] * SIZE),
        "truth": torch.randint(0, 256, (SIZE, side, side, 3), generator=rng, dtype=torch.uint8),
    }


def losses(stack, step=1, given=GIVEN, part=WHOLE, **more):
    rng, judge = torch.Generator().manual_seed(0), Patches(16, 1)
    options = DenoisingOptions.model_validate(given)
    return train_step(stack, batch(stack, **more), options, step, rng, part, judge)


def test_both_ends_of_the_walk_are_judged_and_the_adversary_from_its_step(learner):
    assert losses(learner).keys() == {"latent", "pixel"} | LOOKS
    assert losses(learner, 0).keys() == {"latent", "pixel", "walk_pixel", "walk_perceptual"}


@pytest.mark.parametrize(("share", "there"), [(1, {"pixel"}), (0, LOOKS)])
def test_looks_are_asked_of_the_walk_and_fidelity_of_its_first_step(learner, share, there):
    assert losses(learner, given={**GIVEN, "last_share": share}).keys() == {"latent"} | there


@pytest.mark.parametrize("own", [0, 1])
def test_its_own_share_walks_on_from_the_first_answer(learner, own):
    """What the UNet is shown tells nothing of the truth then: another leaves it as it was."""
    given = {**GIVEN, "last_share": 0, "texture": {**TEXTURE, "own": own}}
    shown = []
    for truth in (torch.zeros, torch.ones):
        hook = learner.unet.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0]))
        losses(learner, given=given, target=truth(SIZE, learner.channels, 16, 16))
        hook.remove()
    assert len(shown) == (4 if own else 2)
    assert torch.equal(shown[-1], shown[len(shown) // 2 - 1]) == bool(own)


def test_samples_of_its_own_owe_the_latent_nothing(learner):
    """Which leads from them to the truth is no answer about noise."""
    alone = {**GIVEN, "last_share": 0, "texture": {**TEXTURE, "own": 1}}
    assert losses(learner, given=alone)["latent"] == 0


def test_the_share_that_is_decoded_is_spread_over_the_batch():
    assert spaced_indices(24, 4).tolist() == [0, 8, 15, 23]
    assert spaced_indices(3, 8).tolist() == [0, 1, 2]


def test_no_texture_no_other_losses(learner):
    plain = {key: value for key, value in GIVEN.items() if key != "texture"}
    assert losses(learner, given=plain).keys() == {"latent", "pixel"}


def test_an_adversary_of_the_walk_resumes_bit_for_bit(autoencoder, pixels, tmp_path):
    (tmp_path / "photos").mkdir()
    Image.fromarray(pixels(72, 80, 0)).save(tmp_path / "photos" / "0.png")
    data = {"photos": str(tmp_path / "photos"), "crop": 64, "count": 4, "window": 16, "workers": 0}
    shape = {"channels": [8, 16], "layers": 1, "groups": 4, "text_width": 16, "text_layers": 1}
    told = {"kind": "denoiser", "autoencoder": str(autoencoder), "data": data, **shape, **GIVEN}
    told["cache"] = str(tmp_path / "pairs")
    common = {"stage": told, "batch": 4, "save_every": 3, "show_every": 9, "steps": 4}
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(common))
    made = assert_resumes(path, tmp_path)
    assert any(name.startswith("model.") and "judge" in name for name in made)


def test_texture_that_would_do_nothing_is_refused():
    with pytest.raises(ValueError, match="set pixel_weight"):
        DenoisingOptions.model_validate({"texture": TEXTURE})


def test_the_number_that_is_decoded_is_of_the_whole_batch(learner, monkeypatch):
    counts = []
    decode = vae.decode_freely
    monkeypatch.setattr(vae, "decode_freely", lambda v, z: counts.append(len(z)) or decode(v, z))
    losses(learner, given=GIVEN | {"pixel_samples": 4})
    losses(learner, given=GIVEN | {"pixel_samples": 4}, part=Part(0, 2))
    assert counts == [4, 2]


@pytest.mark.parametrize("parts", [1, 2, 4, 8])
@pytest.mark.parametrize("some", [3, 4, 8])
def test_parts_decode_the_rows_that_the_whole_batch_would(stack, parts, some):
    options = DenoisingOptions.model_validate({**GIVEN, "pixel_samples": some})
    residual, rows = torch.zeros(SIZE, stack.channels, 4, 4), []
    for part in (Part(at, parts) for at in range(parts)):
        rng = torch.Generator().manual_seed(0)
        draws = draw(residual[part.at :: parts], stack.schedule, options, 1, rng, part)
        rows += [part.rows(SIZE)[row] for row in draws.decoded]
    assert sorted(rows) == spaced_indices(SIZE, some).tolist()


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_parts_teach_texture_as_the_whole_batch_does(learner, parts):
    """Some parts decode walk rows alone, some the others, some none."""
    given = {**GIVEN, "pixel_samples": 3, "texture": {"own": 0.5, "pixel_weight": 0.2}}
    options = DenoisingOptions.model_validate(given)

    def taught(of):
        found = []
        for part in (Part(at, of) for at in range(of)):
            own = {name: part.cut(tensor) for name, tensor in batch(learner).items()}
            rng = torch.Generator().manual_seed(0)
            found.append(train_step(learner, own, options, 1, rng, part))
        gradient = torch.autograd.grad(
            sum(sum(losses.values()) for losses in found) / of, learner.unet.conv_out.weight
        )
        return logs.average_losses(found), gradient[0]

    (losses, gradient), (whole, wanted) = taught(parts), taught(1)
    assert losses.keys() == whole.keys() == {"latent", "pixel", "walk_pixel"}
    for name, loss in losses.items():
        torch.testing.assert_close(loss, whole[name], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(gradient, wanted, rtol=1e-3, atol=1e-5)


def test_an_adversary_is_weighed_through_a_compiled_network():
    torch.manual_seed(0)
    network, judge = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 3, 1)), Patches(8, 1)
    compile_networks(nn.ModuleDict({"network": network}), backend="aot_eager")
    truth = torch.rand(2, 3, 16, 16)
    made = network(truth)
    fidelity = (made - truth).abs().mean()
    options = AdversaryOptions(start=0)
    told = adversarial_losses(judge, made, truth, fidelity, network[-1].weight, options)
    (fidelity + sum(told.values())).backward()
    assert network[0].weight.grad.any()
