"""The first stage: exact by parts, any size and scale, and a start from published weights."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from restore.checkpoints import devices, engines
from restore.checkpoints.load import load
from restore.checkpoints.save import save
from restore.diffusion import compact
from restore.diffusion.compact import FirstStage
from restore.diffusion.restorer import Fusion, Restorer
from restore.errors import ConfigError, ModelError, NonFiniteError
from restore.images.picture import Picture
from restore.options import UpscaleOptions
from restore.tasks import first_stage, upscale
from restore.tasks.first_stage import restored
from restore.tasks.run import restore
from restore.training.losses import teachers

RNG = np.random.default_rng(0)


def network(seed: int = 0, layers: int = 3) -> Restorer:
    torch.manual_seed(seed)
    return Restorer(channels=8, layers=layers).eval().requires_grad_(False)


def picture(height: int, width: int, dtype=np.uint8) -> Picture:
    top = np.iinfo(dtype).max
    return Picture(RNG.integers(0, top + 1, (height, width, 3)).astype(dtype))


def fusion(seed: int = 0) -> Fusion:
    torch.manual_seed(seed)
    made = Fusion(channels=8, layers=1).eval().requires_grad_(False)
    nn.init.normal_(made.body[-1].weight, 0, 0.05)
    return made


def stage() -> FirstStage:
    return FirstStage(network(0), network(1), fusion())


@pytest.mark.parametrize("scale", [4, 2, 1.4, 1])
@pytest.mark.parametrize("size", [(37, 51), (4, 4), (1, 7)])
def test_parts_give_what_the_whole_gives(scale, size, monkeypatch):
    low, made = picture(*size), stage()
    wanted = UpscaleOptions(scale=scale).output_size(size)
    whole = restored(low, wanted, made, 0.5).pixels
    monkeypatch.setattr(first_stage, "BLOCK", 6)  # of the fusion
    monkeypatch.setattr(first_stage, "WIDTH", 6)
    monkeypatch.setattr(compact, "ROWS", 2)
    monkeypatch.setattr(compact, "CACHED", 1)
    parts = restored(low, wanted, made, 0.5).pixels
    assert parts.shape == (*wanted, 3)
    assert np.abs(parts.astype(int) - whole).max() <= 1  # kernels round by the block's size


@pytest.mark.parametrize("height", [1, 3, 9, 10, 12, 16, 40, 41])
def test_a_network_by_strips_gives_what_it_gives_whole(height, monkeypatch):
    made, rgb = network(), torch.rand(1, 3, height, 11).numpy()
    monkeypatch.setattr(compact, "ROWS", 4)
    monkeypatch.setattr(compact, "CACHED", 1)
    heights = made.cut(height, 11)
    assert len(heights) == max(1, -(-(height - made.halo) // 4))
    strips = np.split(rgb, np.cumsum(heights[:-1]), 2)
    assert [strip.shape[2] for strip in strips] == heights
    parts = [*made.by_strips(strips, height)]
    np.testing.assert_allclose(np.concatenate(parts, 2), made.answer(rgb), atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("scale", [1, 1.5, 3, 4, 6.3])
def test_any_scale_gives_that_size_and_depth(scale, dtype):
    low = picture(20, 31, dtype)
    size = UpscaleOptions(scale=scale).output_size(low.size)
    made = restored(low, size, stage(), 0)
    assert (made.size, made.pixels.dtype) == (size, np.dtype(dtype))


def test_grey_stays_grey_and_alpha_is_enlarged_with_it():
    grey = RNG.integers(0, 256, (16, 16, 1), dtype=np.uint8).repeat(3, 2)
    low = Picture(grey, alpha=np.full((16, 16), 200, np.uint8), grey=True)
    made = restored(low, (64, 64), stage(), 0)
    assert (made.pixels == made.pixels[..., :1]).all()
    assert made.alpha is not None and (made.alpha == 200).all()


def test_what_leaves_the_finite_numbers_is_not_written():
    made = network()
    nn.init.constant_(made.body[-1].weight, float("nan"))
    with pytest.raises(NonFiniteError, match="first stage"):
        restored(picture(8, 8), (32, 32), FirstStage(made), 0)


def test_it_is_the_published_network_by_the_published_names():
    made, rgb = network(), torch.rand(2, 3, 12, 10)
    torch.testing.assert_close(made(rgb), teachers.compact(made.state_dict(), rgb))


def test_without_a_fusion_little_scales_go_without(monkeypatch):
    monkeypatch.setattr(first_stage, "NOISE", (998.0, 999.0))  # random networks look like noise
    low = picture(20, 20)
    alone = restored(low, (20, 20), FirstStage(network()), 0).pixels
    fresh = Fusion(channels=8, layers=1).eval()  # it begins as the restored picture
    with torch.no_grad():
        beside = restored(low, (20, 20), FirstStage(network(), None, fresh), 0).pixels
    assert np.abs(alone.astype(int) - beside).max() <= 1
    assert (restored(low, (20, 20), stage(), 0).pixels != alone).any()


def test_noise_is_measured_where_the_picture_is_flattest():
    flat = Picture(np.full((64, 80, 3), 100, np.uint8))
    levels = RNG.normal(0, 10, (64, 80, 1))
    noisy = Picture((flat.pixels + levels).round().astype(np.uint8))
    detail = Picture(flat.pixels.copy())
    detail.pixels[:, 16:] = noisy.pixels[:, 16:]  # flat in a fifth
    assert first_stage.noise(flat, flat.pixels) == 0
    assert 8 < first_stage.noise(noisy, flat.pixels) < 11
    assert first_stage.noise(detail, flat.pixels) == 0
    assert first_stage.noise(picture(5, 70), picture(5, 70).pixels) == 0  # no block of eight


@pytest.mark.parametrize("kind", ["uint8", "uint16"])
def test_what_a_picture_does_not_show_says_nothing_of_its_noise(monkeypatch, kind):
    unit = np.iinfo(kind).max // 255
    flat = np.full((64, 64, 3), 128 * unit, kind)
    levels = np.random.default_rng(0).normal(0, 12, (64, 64, 1)) * unit
    noisy = Picture((flat + levels).round().astype(kind))
    monkeypatch.setattr(first_stage, "enlarged", lambda low, *_: np.full_like(flat, 128 * unit))
    heard: list[float] = []
    monkeypatch.setattr(first_stage, "unfaded", lambda _, share, hidden: heard.append(share))
    covered = np.zeros((64, 64), bool)
    covered[20:40] = True
    noisy.pixels[covered] = 128 * unit  # as filled and as bled
    alpha = np.where(covered, 0, np.iinfo(kind).max).astype(kind)
    asked = {"size": (64, 64), "stage": FirstStage(network()), "fidelity": 0, "unfade": 1.0}
    restored(noisy, **asked)
    restored(noisy, **asked, damage=covered)
    restored(replace(noisy, alpha=alpha), **asked)
    restored(replace(noisy, alpha=np.zeros_like(alpha)), **asked)
    assert heard == [0, 1, 1, 0]


def test_the_fusion_is_silent_in_noise(monkeypatch):
    low = picture(40, 40)
    alone = restored(low, (40, 40), FirstStage(network()), 0).pixels
    monkeypatch.setattr(first_stage, "NOISE", (0.0, 1e-9))
    assert (restored(low, (40, 40), stage(), 0).pixels == alone).all()


def test_only_a_noisy_faded_picture_gets_its_blacks_back(monkeypatch):
    pale = Picture(RNG.integers(40, 220, (48, 48, 3)).astype(np.uint8))
    first = FirstStage(network())
    monkeypatch.setattr(first_stage, "NOISE", (0.0, 1e-9))
    monkeypatch.setattr(first_stage, "enlarged", lambda low, *_: low.pixels)
    asked = {"size": (48, 48), "stage": first, "fidelity": 0}
    made = restored(pale, **asked, unfade=0.5)
    assert made.pixels.min() < 30 and "faded" in made.warnings[-1]
    assert not restored(pale, **asked).warnings
    assert not restored(pale, **{**asked, "size": (96, 96)}, unfade=0.5).warnings
    monkeypatch.setattr(first_stage, "NOISE", (998.0, 999.0))
    assert not restored(pale, **asked, unfade=0.5).warnings


def test_the_ends_are_what_they_are_and_between_them_weights_are_mixed():
    rich, faithful = network(0), network(1)
    both = FirstStage(rich, faithful)
    assert (both.at(0), both.at(1)) == (rich, faithful)
    middle = both.at(0.25)
    torch.testing.assert_close(
        middle.body[2].weight, 0.75 * rich.body[2].weight + 0.25 * faithful.body[2].weight
    )
    assert both.at(0.25) is middle
    assert len(both.state_dict()) == 2 * len(rich.state_dict())  # no third copy is saved
    assert FirstStage(rich).at(0.7) is rich


@pytest.fixture(scope="module")
def two_stages(tmp_path_factory):
    """The shipped stack with a tiny random first stage, saved and loaded."""
    stack = load("nano", "cpu")
    stack.restorer = stage()
    stack.fidelity, stack.restore_steps = 0.5, 0
    folder = tmp_path_factory.mktemp("model") / "two"
    save(stack, folder, "a card", torch.float32)
    return folder


def test_a_folder_keeps_both_ends_and_the_defaults(two_stages):
    stack = load(str(two_stages), "cpu")
    assert stack.restorer is not None and stack.restorer.faithful is not None
    assert (stack.fidelity, stack.restore_steps) == (0.5, 0)
    for end, seed in ((stack.restorer.rich, 0), (stack.restorer.faithful, 1)):
        for one, two in zip(end.parameters(), network(seed).parameters(), strict=True):
            assert torch.equal(one, two)
    assert stack.restorer.fusion is not None
    for one, two in zip(stack.restorer.fusion.parameters(), fusion().parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_damaged_first_stage_is_refused_by_its_file(two_stages, tmp_path):
    import shutil

    from restore.checkpoints import manifest

    folder = shutil.copytree(two_stages, tmp_path / "cut")
    file = folder / "restorer" / "diffusion_pytorch_model.faithful.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ModelError, match="faithful"):
        load(str(folder), "cpu")
    manifest.write(folder)
    with pytest.raises(ModelError, match="faithful"):
        load(str(folder), "cpu")


def test_damage_is_filled_over_the_first_stages_answer(two_stages):
    stack = load(str(two_stages), "cpu")
    low = Picture(np.asarray(Image.new("RGB", (32, 32), (90, 120, 60))).copy())
    mask = np.zeros((32, 32), np.uint8)
    mask[14:18, 4:28] = 255
    hurt = low.pixels.copy()
    hurt[mask > 0] = 255
    options = UpscaleOptions(scale=2)
    clear = np.ascontiguousarray(low.pixels)
    whole = restore(Picture(clear), options, stack, 0).pixels
    made = restore(Picture(hurt), options, stack, 0, mask=mask).pixels
    far = np.ones((64, 64), bool)
    far[20:44, :] = False
    assert (made[far] == whole[far]).all()  # beyond the feather nothing knows of the scratch


def test_a_model_of_damage_fills_damage_without_its_unet(two_stages, monkeypatch):
    stack = replace(load(str(two_stages), "cpu"), prompts_describe="damage")
    low, mask = picture(40, 40), np.zeros((40, 40), np.uint8)
    mask[12:28, 12:28] = 255
    hole = np.kron(mask, np.ones((2, 2), np.uint8)) > 0
    painted = restore(low, UpscaleOptions(scale=2, prompt="noise"), stack, 0, mask=mask).pixels
    monkeypatch.setattr(upscale, "filled", None)  # what paints with the UNet
    patches = restore(low, UpscaleOptions(scale=2), stack, 0, mask=mask).pixels
    assert (patches[hole] != painted[hole]).any()


def test_words_that_nobody_hears_are_told(two_stages):
    stack = load(str(two_stages), "cpu")
    made = restore(picture(8, 8), UpscaleOptions(scale=1, prompt="noise"), stack, 0)
    assert "the prompt is for sampling alone" in made.warnings[-1]
    nano = engines.load("nano", "cpu", lazily=True)
    for name, value in {"strength": 0.5, "negative": "a", "guidance": 3}.items():
        for model in (stack, nano):
            told = UpscaleOptions(scale=2, **{name: value})
            (note,) = restore(picture(8, 8), told, model, 0).warnings
            assert note.startswith(f"the {name} is for sampling alone")
    walked = UpscaleOptions(scale=2, steps=2, strength=0.5)
    assert not restore(picture(8, 8), walked, stack, 0).warnings
    assert not restore(picture(8, 8), UpscaleOptions(scale=2), stack, 0).warnings


@pytest.mark.parametrize("steps", [None, 2])
def test_a_noise_level_is_refused_by_models_that_read_none(two_stages, steps):
    """With a walk and without: it is no option of the walk, but of one model."""
    told = UpscaleOptions(scale=2, noise_level=9, steps=steps)
    for model in (load(str(two_stages), "cpu"), engines.load("nano", "cpu", lazily=True)):
        with pytest.raises(ConfigError, match="noise_level is for SD's x4 upscaler"):
            restore(picture(8, 8), told, model, 0)


def test_each_part_is_told(two_stages, monkeypatch):
    stack, told = load(str(two_stages), "cpu"), []
    monkeypatch.setattr(first_stage, "WIDTH", 8)
    options = UpscaleOptions(scale=4)
    restore(picture(8, 16), options, stack, 0, lambda done, of, _: told.append((done, of)))
    assert told == [(1, 2), (2, 2)]


def test_what_a_model_lacks_is_said(tmp_path):
    stack = load("nano", "cpu")
    stack.restorer = None
    for more in ({"fidelity": 0.5}, {"steps": 0}, {"unfade": 0.2}):
        options = UpscaleOptions(**more)
        with pytest.raises(ConfigError, match="first stage"):
            restore(picture(8, 8), options, stack, 0)


@pytest.mark.parametrize("error", [ValueError("odd"), RuntimeError("odd")])
def test_what_a_library_raises_on_a_late_load_is_an_error_of_the_model(monkeypatch, error):
    def broken(*_, **__):
        raise error

    nano = engines.load("nano", "cpu", lazily=True)
    monkeypatch.setattr(devices, "load", broken)
    with pytest.raises(ModelError, match=r"nano: cannot be loaded: .*Error: odd"):
        nano.load()


@pytest.mark.parametrize("lazily", [True, False])
def test_a_first_stage_computes_in_the_precision_that_was_asked_for(lazily):
    low, options = picture(40, 30), UpscaleOptions(scale=1.5, fidelity=0.5)
    exact, reduced = (
        engines.load("nano", "cpu", dtype, lazily=lazily) for dtype in ("fp32", "bf16")
    )
    one, other = (restore(low, options, model, 0).pixels for model in (exact, reduced))
    assert reduced.is_half and not exact.is_half
    assert 0 < np.abs(one.astype(int) - other).max() < 20
    with reduced.in_fp32():
        assert (restore(low, options, reduced, 0).pixels == one).all()
    assert (restore(low, options, reduced, 0).pixels == other).all()


def test_a_picture_narrower_than_a_block_of_noise_is_restored():
    narrow = Picture(np.full((70, 5, 3), 90, np.uint8))
    assert first_stage.noise(narrow, narrow.pixels) == 0
    assert restored(narrow, (70, 5), stage(), 0).size == (70, 5)
