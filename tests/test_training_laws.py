"""What each weight weighs: doubled, exactly its loss doubles. What the optimiser makes of it."""

from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import TypeAdapter
from safetensors.torch import save_file
from torch import nn
from toy import tensors, train

from degradations import recipes, sharpen
from restore.diffusion.restorer import Restorer
from restore.training import loop
from restore.training.data.loading import Samples
from restore.training.losses.discriminator import AdversaryOptions
from restore.training.losses.pixel import PIXEL_LOSSES, gradient
from restore.training.registry import STAGES, StageOptions
from restore.training.rng import WHOLE
from restore.training.stages.autoencoder import build, reconstruct
from restore.training.stages.denoising_loss import DenoisingOptions, train_step
from restore.training.stages.restorer import LowOptions, LowPairs

SEEN = {"kind": "squeezenet"}
GAN = {"start": 0, "channels": 16, "layers": 1}
TINY = {"channels": 8, "encoder_blocks": [0, 1], "decoder_blocks": [1, 1]}
SMALL = {"channels": 8, "layers": 1}


@pytest.fixture(scope="module")
def place(tmp_path_factory, pixels):
    """Photos, and two little restorers."""
    folder = tmp_path_factory.mktemp("laws")
    (folder / "photos").mkdir()
    Image.fromarray(pixels(104, 100)).save(folder / "photos" / "0.png")
    torch.manual_seed(1)
    Restorer(8, 1).save_pretrained(folder / "first" / "restorer")
    save_file(Restorer(8, 1).state_dict(), folder / "teacher.safetensors")
    return folder


def begun(place, kind, **more):
    """A stage and a batch of its samples."""
    if kind == "fusion":
        more["restorer"] = str(place / "first")
    if "teacher" in more:
        more["teacher"] = {"path": str(place / "teacher.safetensors")}
    data = {"photos": str(place / "photos"), "crop": 32, **more.pop("data", {})}
    options = TypeAdapter(StageOptions).validate_python({"kind": kind, "data": data, **more})
    torch.manual_seed(0)
    stage = STAGES[kind](options, 0, torch.device("cpu"))
    return stage, torch.utils.data.default_collate([stage.samples[n] for n in range(4)])


def scaled(options, way, factor):
    """The options with a value, at a way of names, times a factor."""
    values = deepcopy(options.model_dump())
    *parents, last = way.split(".")
    held = values
    for name in parents:
        held = held[name]
    held[last] *= factor
    return type(options).model_validate(values)


def assert_doubles(before, after, name):
    assert before.keys() == after.keys() and before[name] != 0
    for key, loss in before.items():
        wanted = loss * (2 if key == name else 1)
        torch.testing.assert_close(after[key], wanted, atol=0, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "more", "way", "name"),
    [
        ("autoencoder", {**TINY, "perceptual": SEEN}, "perceptual.weight", "perceptual"),
        ("autoencoder", {**TINY, "adversary": GAN}, "adversary.weight", "adversarial"),
        ("autoencoder_kl", {"widths": [8], "layers": 1, "groups": 4}, "kl_weight", "kl"),
        ("restorer", {**SMALL, "perceptual": SEEN}, "perceptual.weight", "perceptual"),
        ("restorer", {**SMALL, "teacher": None}, "teacher.weight", "teacher"),
        ("restorer", {**SMALL, "adversary": GAN}, "adversary.weight", "adversarial"),
        ("fusion", {**SMALL, "perceptual": SEEN}, "perceptual.weight", "perceptual"),
        ("scratches", {"data": {"hurt": 1}}, "overlap", "overlap"),
    ],
)
def test_a_weight_that_doubles_doubles_its_loss_alone(place, kind, more, way, name):
    stage, batch = begun(place, kind, **more)
    before = stage.loss(batch, 0)
    stage.options = scaled(stage.options, way, 2)
    assert_doubles(before, stage.loss(batch, 0), name)


@pytest.mark.parametrize("kind", ["restorer", "fusion"])
def test_edges_weigh_the_gradient_beside_l1(place, kind):
    losses = []
    for edges in (0.0, 0.5, 1.0):
        stage, batch = begun(place, kind, edges=edges, **SMALL)
        losses.append(stage.loss(batch, 0)["pixel"])
    none, half, whole = losses
    torch.testing.assert_close(whole - half, half - none)
    assert half > none > 0


DENOISED = {"pixel_weight": 0.7, "pixel_samples": 8, "perceptual": SEEN}
DENOISED |= {"texture": {"own": 0, "perceptual": SEEN}}


@pytest.fixture
def learner(stack):
    return replace(stack, unet=deepcopy(stack.unet).requires_grad_(True))


def denoised(stack, options, trust=0.5):
    shape, rng = (8, stack.channels, 16, 16), torch.Generator().manual_seed(0)
    known, target = torch.randn(2, *shape, generator=rng).unbind()
    side = 16 * stack.factor
    truth = torch.randint(0, 256, (8, side, side, 3), generator=rng, dtype=torch.uint8)
    batch = {"conditioning": known, "target": target, "truth": truth}
    batch["trust"] = torch.full((8, 1, 16, 16), trust)
    batch["tokens"] = torch.stack([stack.reader.inputs("noise")] * 8)
    return train_step(stack, batch, options, 0, rng)


@pytest.mark.parametrize(
    ("way", "name"),
    [
        ("pixel_weight", "pixel"),
        ("perceptual.weight", "perceptual"),
        ("texture.pixel_weight", "walk_pixel"),
        ("texture.perceptual.weight", "walk_perceptual"),
    ],
)
def test_a_weight_of_decoded_pictures_doubles_its_loss_alone(learner, way, name):
    given = DenoisingOptions.model_validate(DENOISED)
    before, after = (denoised(learner, scaled(given, way, factor)) for factor in (1, 2))
    assert_doubles(before, after, name)


@pytest.mark.parametrize(
    ("name", "share", "trust", "factor"),
    [
        ("walk_weight", 0, 0.5, 2),
        ("walk_weight", 1, 0.5, 1),
        ("repaint_weight", 0.5, 1.0, 2),
        ("repaint_weight", 0.5, 0.5, 1),
    ],
)
def test_the_latent_loss_is_weighed_where_the_option_says(stack, name, share, trust, factor):
    plain, doubled = (
        DenoisingOptions.model_validate({"last_share": share, name: weight}) for weight in (1, 2)
    )
    before, after = (denoised(stack, given, trust)["latent"] for given in (plain, doubled))
    torch.testing.assert_close(after, factor * before)


def test_the_noise_of_latents_is_as_large_as_is_asked():
    rgb, moved = torch.rand(8, 3, 16, 16), []
    for sigma in (0.0, 0.1, 0.2):
        given = {"kind": "autoencoder", "data": {"photos": "."}, **TINY, "latent_noise": sigma}
        options = TypeAdapter(StageOptions).validate_python(given)
        torch.manual_seed(0)
        coder = build(options)
        coder.decoder.register_forward_pre_hook(lambda _, given: moved.append(given[0]))
        reconstruct(coder, rgb, options, torch.Generator().manual_seed(0))
    none, some, more = moved
    torch.testing.assert_close(more - none, 2 * (some - none), atol=1e-5, rtol=1e-3)
    assert 0.02 < (some - none).std() < 0.1  # sigma is drawn up to the option


def test_the_gradient_asks_for_edges_both_ways():
    one, other = torch.rand(2, 2, 3, 8, 8)
    torch.testing.assert_close(gradient(one, other), gradient(one.mT, other.mT))
    ramp = torch.linspace(0, 1, 9).expand(1, 3, 9, 9)
    assert gradient(ramp, 0 * ramp).item() == pytest.approx(1 / 8)
    assert gradient(ramp.mT, 0 * ramp).item() == pytest.approx(1 / 8)


@pytest.mark.parametrize("error", [0.1, 0.4])
def test_pixel_losses_of_an_even_error(error):
    """It has no edges, so that L1 and MSE are seen alone."""
    flat = torch.full((1, 3, 8, 8), 0.5)
    told = {name: loss(flat + error, flat).item() for name, loss in PIXEL_LOSSES.items()}
    wanted = {"l1": error, "l2": error**2, "edges": error + error**2 / 2}
    assert told == pytest.approx(wanted, rel=1e-4)


def drawn(place, monkeypatch, **more):
    """The sides of the crops and the severities of 60 pairs."""
    options = LowOptions(photos=place / "photos", crop=32, **more)
    sides, severities = [], []
    pairs = LowPairs(options.open(crop=round(32 * options.shrink)), options, 4)
    (name, recipe), crop = *pairs.found.items(), pairs.photos.picture
    told = SimpleNamespace(at=lambda share: severities.append(share) or recipe.at(0))
    monkeypatch.setitem(pairs.found, name, told)

    def picture(side, *more):
        sides.append(side)
        return crop(side, *more)

    monkeypatch.setattr(pairs.photos, "picture", picture)
    for number in range(60):
        made = pairs(np.random.default_rng(number), number)
        assert made["truth"].shape == (32, 32, 3) and made["low"].shape == (8, 8, 3)
    return np.array(sides), np.array(severities)


def test_low_pairs_are_clean_and_severe_as_is_asked(place, monkeypatch):
    sides, severities = drawn(place, monkeypatch, clean=0.5, severity=(0.3, 0.4))
    assert set(sides) == {32}
    assert 0.3 < (severities == 0).mean() < 0.7
    rest = severities[severities > 0]
    assert rest.min() >= 0.3 and rest.max() <= 0.4 and rest.std() > 0.01
    assert not drawn(place, monkeypatch, clean=1)[1].any()
    assert drawn(place, monkeypatch, clean=0)[1].all()


def test_low_pairs_are_shrunk_by_any_factor_up_to_the_largest(place, monkeypatch):
    sides, _ = drawn(place, monkeypatch, shrink=3)
    assert 32 <= sides.min() < 45 and 83 < sides.max() <= 96


@pytest.mark.parametrize("name", ["realesrgan", "realesrgan_compat"])
def test_the_target_of_a_first_stage_is_sharpened_where_the_recipe_sharpens(place, name):
    options = LowOptions(photos=place / "photos", crop=32, recipes=name)
    pairs = LowPairs(options.open(), options, 4)
    for number in range(2):
        original = pairs.draw(np.random.default_rng(number), number).original
        made = pairs(np.random.default_rng(number), number)
        sharp = sharpen(original)
        assert not np.array_equal(sharp, original)
        wanted = sharp if recipes.named(name).sharpen else original
        assert np.array_equal(made["truth"].numpy(), wanted)


PULL, RATE, OWN = 1000.0, 0.01, 0.003


class TwoSidedStage:
    """A network and its judge, whose 16 weights are 1 and whose gradients are PULL each."""

    def __init__(self, options, seed, device):
        sides = {name: nn.Linear(4, 4, bias=False) for name in ("network", "judge")}
        for side in sides.values():
            nn.init.ones_(side.weight)
        self.model = nn.ModuleDict(sides)
        self.discriminator = self.model["judge"]
        self.adversary = AdversaryOptions(start=0, learning_rate=OWN)
        self.samples = Samples(lambda rng, index: torch.zeros(1), seed)

    def loss(self, batch, step, part=WHOLE):
        return {name: PULL * side.weight.sum() for name, side in self.model.items()}

    def preview(self):
        return [], {}

    def export(self, folder):
        folder.mkdir(exist_ok=True)


@pytest.mark.parametrize("decay", [0.0, 0.5])
@pytest.mark.parametrize("clip", [1.0, 2.0])
def test_each_side_is_clipped_and_led_by_itself(tmp_path, monkeypatch, clip, decay):
    monkeypatch.setitem(loop.STAGES, "pixels", TwoSidedStage)
    how = {"learning_rate": RATE, "warmup": 0, "schedule": "constant", "clip": clip}
    train(tmp_path / "run", steps=1, weight_decay=decay, **how)
    held = tensors(tmp_path / "run" / "step_00000001")
    for number, (name, rate) in enumerate({"network": RATE, "judge": OWN}.items()):
        clipped = torch.full((4, 4), clip / 4)  # of norm `clip`
        moments = (held[f"optimizer.{number}.{moment}"] for moment in ("exp_avg", "exp_avg_sq"))
        for moment, wanted in zip(moments, (0.1 * clipped, 0.01 * clipped**2), strict=True):
            torch.testing.assert_close(moment, wanted, rtol=1e-4, atol=0)
        # the first step of Adam is the rate, whatever the gradient
        wanted = torch.full((4, 4), 1 - rate * decay - rate)
        torch.testing.assert_close(held[f"model.{name}.weight"], wanted)
