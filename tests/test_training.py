"""Both stages on a CPU in seconds: photos on disk, real steps, real checkpoints."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from folders import closed
from PIL import Image
from safetensors.torch import load_file

from degradations import recipes
from restore.checkpoints.load import load
from restore.config import load_config
from restore.errors import ConfigError
from restore.options import UpscaleOptions
from restore.tasks.run import restore
from restore.training import loop, optim
from restore.training.data.captions import caption
from restore.training.data.crops import Photos
from restore.training.data.pairs import PairOptions, draw_hole, make_pair
from restore.training.data.stored import StoredPairs
from restore.training.stages.denoising_loss import timesteps
from restore.training.stages.vocabulary import letters

QUICK = {"batch": 2, "log_every": 1, "show_every": 2, "save_every": 2, "log_with": ()}


@pytest.fixture(scope="module")
def photos(tmp_path_factory, pixels):
    folder = tmp_path_factory.mktemp("photos")
    for seed in range(3):
        Image.fromarray(pixels(160, 200, seed)).save(folder / f"{seed}.png")
    return folder


@pytest.fixture(scope="module")
def denoiser(photos, autoencoder, tmp_path_factory):
    """The config of a run over a tiny model; its pairs are encoded once."""
    return {
        **QUICK,
        "stage": {
            "kind": "denoiser",
            "autoencoder": str(autoencoder),
            "cache": str(tmp_path_factory.mktemp("pairs")),
            "data": {"photos": str(photos), "crop": 128, "count": 6, "window": 16, "workers": 0},
            "channels": [8, 16],
            "layers": 1,
            "groups": 4,
            "text_width": 16,
            "text_layers": 1,
            "pixel_weight": 1.0,
            "pixel_start": 2,
            "pixel_samples": 1,
        },
    }


def train(folder, config, steps, **more):
    config = {**config, "output": str(folder), "steps": steps, **more}
    path = folder.with_suffix(".yaml")
    path.write_text(yaml.safe_dump(config))
    return loop.run(path, [])


def test_the_autoencoder_learns_and_exports_what_diffusers_loads(photos, tmp_path):
    stage = {
        "kind": "autoencoder",
        "data": {"photos": str(photos), "crop": 32},
        "channels": 8,
        "encoder_blocks": [0, 1, 1],
        "decoder_blocks": [1, 1, 1],
    }
    folder = train(tmp_path / "run", {**QUICK, "stage": stage, "batch": 4}, steps=30)
    rows = [line.split(",") for line in (tmp_path / "run" / "log.csv").read_text().splitlines()]
    losses = [float(value) for _, name, value in rows if name == "reconstruction"]
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    config = json.loads((folder / "vae" / "config.json").read_text())
    assert config["scaling_factor"] != 1.0
    assert (tmp_path / "run" / "preview_00000030.png").is_file()
    assert not closed(tmp_path)


def test_training_resumed_equals_training_uninterrupted(denoiser, tmp_path, monkeypatch):
    train(tmp_path / "whole", denoiser, steps=4)
    rate_at = optim.rate_at

    def killed(step, *args):
        if step == 3:  # after the checkpoint of step 2
            raise KeyboardInterrupt
        return rate_at(step, *args)

    with monkeypatch.context() as patched:
        patched.setattr(optim, "rate_at", killed)
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "torn", denoiser, steps=4)
    train(tmp_path / "torn", denoiser, steps=4)
    for name in ("model", "ema", "optimizer"):
        whole, torn = (
            load_file(tmp_path / run / "step_00000004" / f"{name}.safetensors")
            for run in ("whole", "torn")
        )
        assert whole.keys() == torn.keys()
        assert all(torch.equal(whole[key], torn[key]) for key in whole)


def test_exported_weights_restore_a_picture(denoiser, tmp_path, picture):
    stack = load(str(train(tmp_path / "run", denoiser, steps=2)), device="cpu")
    made = restore(picture(20, 24), UpscaleOptions(scale=2), stack, seed=0)
    assert made.size == (40, 48)
    assert stack.channels == 8


def test_an_unknown_option_names_the_near_key(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("output: x\nstage: {kind: autoencoder, data: {photos: y}}\n")
    with pytest.raises(ConfigError, match="did you mean 'steps'"):
        loop.run(path, ["stesp=3"])


def test_a_folder_without_photos_says_so(tmp_path):
    with pytest.raises(ConfigError, match="none of its 0 pictures"):
        Photos(tmp_path, 64)


def options(photos, **more):
    return PairOptions.model_validate({"photos": str(photos), "crop": 64, "window": 16, **more})


def pair(photos, index=0, **more):
    given = options(photos, **more)
    rng = np.random.default_rng((0, index))
    return make_pair(Photos(photos, 64), recipes.named("realesrgan"), given, rng, str(index))


def test_each_task_has_its_known_and_its_trust(photos):
    restored = pair(photos, tasks={"restore": 1})
    assert (restored["trust"] == 128).all()
    assert not np.array_equal(restored["conditioning"], restored["truth"])
    filled = pair(photos, tasks={"fill": 1})
    assert set(np.unique(filled["trust"])) == {0, 255}
    kept = np.kron(filled["trust"], np.ones((4, 4))) == 0
    assert np.array_equal(filled["conditioning"][kept], filled["truth"][kept])
    both = pair(photos, tasks={"both": 1})
    assert set(np.unique(both["trust"])) == {128, 255}
    nothing = pair(photos, tasks={"nothing": 1})
    assert (nothing["trust"] == 255).all()
    assert (nothing["conditioning"] == 128).all()


def test_a_pair_is_a_function_of_its_index(photos):
    one, again, other = (pair(photos, index)["conditioning"] for index in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_a_sample_shows_matching_windows_of_latents_and_pixels(denoiser, tmp_path):
    train(tmp_path / "run", denoiser, steps=1)
    folder = Path(denoiser["stage"]["cache"])
    trusts = folder.glob("*/trust.npy")
    stored = next(path.parent for path in trusts if np.load(path).shape[0] == 6)
    samples, made = StoredPairs(stored, window=16, seed=0), np.load(stored / "made.npy")
    sample = samples[next(index for index in range(100) if made[samples.number(index)])]
    truth = np.load(stored / "truth.npy")
    assert sample["target"].shape == (8, 16, 16)
    assert sample["truth"].shape == (64, 64, 3)
    found = [
        (n, y, x)
        for n in range(6)
        for y in range(0, 68, 4)
        for x in range(0, 68, 4)
        if np.array_equal(truth[n, y : y + 64, x : x + 64], sample["truth"])
    ]
    (n, y, x), *_ = found
    target = np.load(stored / "target.npy")[n, :, y // 4 : y // 4 + 16, x // 4 : x // 4 + 16]
    assert np.array_equal(sample["target"].numpy().astype(np.float16), target)


def test_a_hole_is_neither_empty_nor_everything():
    shares = [(draw_hole(128, np.random.default_rng(seed)) > 0).mean() for seed in range(20)]
    assert min(shares) > 0
    assert max(shares) < 0.9


def test_the_share_of_last_timesteps_is_what_was_asked():
    t = timesteps(8, 0.5, last=999, rng=torch.Generator().manual_seed(0))
    assert (t[:4] == 999).all()
    assert (t[4:] < 999).any()


def test_timesteps_lean_to_the_noisy_end_as_asked():
    rng = torch.Generator().manual_seed(0)
    even, leaning = (timesteps(20_000, 0, 999, rng, lean).float() for lean in (1, 3))
    assert abs(even.mean() - 999 / 2) < 10
    assert abs(leaning.mean() - 999 * 3 / 4) < 10  # the mean of t where its density is 3 t ** 2
    assert (leaning.min(), leaning.max()) >= (0, 990)
    assert leaning.max() <= 999


def test_the_tokenizer_spells_any_word():
    tokenizer = letters()
    ids = tokenizer("jpeg 30, Ångström 日本").input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert ids[-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in ids[1:-1]


def test_a_caption_says_what_the_trace_did(pixels):
    recipe, hr = recipes.named("realesrgan"), pixels(64, 64)
    heavy = recipe.degrade(hr, scale=4, seed=0, key="a").trace
    assert "jpeg" in caption(heavy)
    assert caption(recipe.at(0).degrade(hr, scale=4, seed=0, key="a").trace) == "clean"


@pytest.mark.parametrize(
    "name", ["nano_autoencoder", "nano_denoiser", "nano_finish", "nano_texture"]
)
def test_the_shipped_training_configs_are_valid(name):
    path = Path(__file__).resolve().parents[1] / "configs" / "train" / f"{name}.yaml"
    assert load_config(loop.TrainOptions, path).output == Path("runs") / name
