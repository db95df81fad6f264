"""A denoiser that goes on from a first stage is trained on what that first stage makes."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from test_first_stage import stage

from degradations import replay
from restore.checkpoints.load import load
from restore.checkpoints.save import save
from restore.diffusion import vae
from restore.errors import ConfigError
from restore.images.picture import Picture
from restore.options import UpscaleOptions
from restore.tasks.first_stage import run_first_stage
from restore.training import loop
from restore.training.data import enlarging, latent_pairs
from restore.training.data.pairs import PairOptions
from restore.training.data.stored import PairStore
from restore.training.stages.decoding import decode_result

CPU = torch.device("cpu")


@pytest.fixture
def photos(tmp_path, pixels):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(pixels(90, 100, 0)).save(folder / "0.png")
    return folder


@pytest.fixture
def staged(stack):
    return replace(stack, restorer=stage(), fidelity=0.3)


def options(photos, **more):
    told = {"photos": str(photos), "crop": 64, "window": 16, "count": 8, "workers": 0}
    return PairOptions.model_validate({**told, "tasks": {"restore": 1}, **more})


@pytest.mark.parametrize("scale", [4, 2, 1])
def test_the_denoiser_is_shown_what_upscale_samples_over(staged, photos, scale):
    given = options(photos, scales={scale: 1}, mode="live")
    live = latent_pairs.open_pairs(given, staged, photos, "digest", 5)
    pair = live.pair(0)
    low = Picture(replay(pair.trace, pair.original))
    made = run_first_stage(low, UpscaleOptions(scale=scale, unfade=0), staged)
    assert np.array_equal(pair.conditioning, made.pixels)


def test_stored_pairs_are_the_live_ones_and_keep_their_pixels(staged, photos, tmp_path):
    given = options(photos, window=16)
    store = latent_pairs.open_pairs(given, staged, tmp_path / "pairs", "digest", 5)
    live = latent_pairs.open_pairs(options(photos, mode="live"), staged, photos, "digest", 5)
    kept, pair = store[0], live.pair(store.number(0))
    assert np.array_equal(kept["shown"].numpy(), pair.conditioning)
    made = torch.utils.data.default_collate([live[store.number(0)]])
    batch = latent_pairs.prepare_batch(made, staged, CPU)
    assert torch.equal(batch["shown"][0], kept["shown"])
    assert (batch["conditioning"][0] - kept["conditioning"]).abs().max() < 0.05  # bf16, fp16


def test_another_first_stage_has_pairs_of_its_own(stack, staged, photos, tmp_path):
    other = replace(staged, restorer=deepcopy(staged.restorer))
    other.restorer.rich.body[0].bias.add_(1)
    stacks = stack, staged, other, replace(staged, fidelity=0.0)
    made = {PairStore(options(photos), one, tmp_path, "digest", 5).path for one in stacks}
    assert len(made) == len(stacks)
    assert enlarging.digest(stack) == ""  # names of stores from before stay as they were


def test_a_device_that_degrades_is_refused_beside_a_first_stage(staged, photos):
    with pytest.raises(ConfigError, match=r"workers run: data\.mode cached or live"):
        latent_pairs.open_pairs(options(photos, mode="device"), staged, photos, "digest", 5)


def test_losses_of_the_autoencoder_are_not_learnt_from(staged):
    """Where sampling changes nothing, the picture is the first stage's, to the last bit."""
    shown = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    batch = {"shown": shown, "conditioning": torch.randn(2, staged.channels, 8, 8)}
    same = decode_result(staged, batch["conditioning"], batch)
    before = vae.decode_freely(staged.vae, batch["conditioning"])
    clipped = before - before.clamp(0, 1)  # of which only the part in the range is taken off
    torch.testing.assert_close(same - clipped, shown.permute(0, 3, 1, 2) / 255)


def told(photos, tmp_path, **more):
    data = {**options(photos).model_dump(mode="json", exclude_defaults=True), "tasks": {"both": 1}}
    texture = {"every_step": True, "adversary": {"start": 0, "channels": 16, "layers": 1}}
    return {
        **{"data": data, "cache": str(tmp_path / "pairs"), "shown_steps": 1, **more},
        **{"pixel_weight": 1, "last_share": 1, "texture": texture},
    }


def train(tmp_path, stage):
    run = {"batch": 2, "steps": 2, "show_every": 2, "save_every": 2, "stage": stage}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**run, "output": str(tmp_path / "run")}))
    loop.run(tmp_path / "run.yaml", [])
    return load(str(tmp_path / "run" / "export"), "cpu")


def test_a_tuned_model_keeps_its_first_stage_and_its_unet_is_judged_at_the_last_step(
    staged, photos, tmp_path
):
    save(staged, tmp_path / "model", card="")
    made = train(tmp_path, told(photos, tmp_path, kind="finetune", model=str(tmp_path / "model")))
    assert made.fidelity == staged.fidelity
    for name, weight in made.restorer.state_dict().items():
        assert torch.equal(weight, staged.restorer.state_dict()[name].half().float()), name
    assert not torch.equal(made.unet.conv_out.weight, staged.unet.conv_out.weight)
    log = (tmp_path / "run" / "log.csv").read_text()
    assert "adversarial" in log and "walk_pixel" in log


def test_a_new_denoiser_takes_the_first_stage_of_a_model(
    stack, staged, photos, tmp_path, autoencoder
):
    save(staged, tmp_path / "model", card="")
    save(stack, tmp_path / "bare", card="")
    shape = {"channels": [8, 16], "layers": 1, "groups": 4, "text_width": 16, "text_layers": 1}
    shape = {"kind": "denoiser", "autoencoder": str(autoencoder), **shape}
    given = told(photos, tmp_path, first_stage=str(tmp_path / "model"), **shape)
    with pytest.raises(ConfigError, match="bare has none"):
        train(tmp_path, {**given, "first_stage": str(tmp_path / "bare")})
    made = train(tmp_path, given)
    assert made.restorer.faithful is not None and made.fidelity == staged.fidelity
