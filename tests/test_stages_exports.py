"""Every stage's export, on the way and at the end: it reads the weights and leaves them alone."""

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from toy import assert_equal

from restore.checkpoints.save import save
from restore.diffusion.restorer import Restorer
from restore.training import loop
from restore.training.registry import STAGES
from restore.training.stages import autoencoder
from restore.training.toys import scene_stage

STOCK = {"widths": [8, 16], "layers": 1, "groups": 4}
UNET = {"channels": [8, 16], "layers": 1, "groups": 4, "text_width": 16, "text_layers": 1}


@pytest.fixture(scope="module")
def stages(tmp_path_factory, pixels, request, stack):
    """The smallest options of each stage."""
    folder = tmp_path_factory.mktemp("stages")
    (folder / "photos").mkdir()
    for seed in range(2):
        Image.fromarray(pixels(104, 100, seed)).save(folder / "photos" / f"{seed}.png")
    coder = str(request.getfixturevalue("autoencoder"))
    save(stack, folder / "model", "# test\n", torch.float32)
    Restorer(8, 1).save_pretrained(folder / "first" / "restorer")
    save_file(Restorer(8, 1).state_dict(), folder / "teacher.safetensors")
    for name, shape in (("images-idx3", (16, 8, 8)), ("labels-idx1", (16,))):
        head = bytes((0, 0, 8, len(shape))) + b"".join(n.to_bytes(4) for n in shape)
        (folder / name).write_bytes(head + bytes(n % 10 for n in range(np.prod(shape))))
    data = {"photos": str(folder / "photos"), "crop": 32}
    pairs = data | {"window": 8, "mode": "live", "recipe": "clean_bicubic"}
    model, first = str(folder / "model"), str(folder / "first")
    return {
        "autoencoder": {"data": data, "channels": 8, "encoder_blocks": [0], "decoder_blocks": [1]},
        "autoencoder_kl": {"data": data, **STOCK},
        "autoencoder_vq": {"data": data, "codes": 16, **STOCK},
        "denoiser": {"data": pairs, "autoencoder": coder, **UNET},
        "finetune": {"data": pairs, "model": model, "shown_steps": 1},
        "distil": {"data": pairs, "teacher": model, "few": 1, "each": 2},
        "scenes": {**UNET, "walk_steps": 1, "shown": 1, "autoencoder": coder},
        "scratches": {"data": data},
        "pixels": {"images": str(folder / "images-idx3"), "channels": [8, 16], "steps": 1},
        "restorer": {"data": data, "channels": 8, "layers": 1},
        "fusion": {"data": data, "restorer": first, "channels": 8, "layers": 1},
    }


@pytest.mark.parametrize("kind", STAGES)
def test_an_export_on_the_way_changes_no_bit(stages, kind, tmp_path, monkeypatch):
    monkeypatch.setattr(scene_stage, "scores", lambda answers: {})
    monkeypatch.setattr(autoencoder, "MEASURED", autoencoder.TOGETHER)
    config = tmp_path / "config.yaml"
    common = {"batch": 2, "steps": 3, "save_every": 3, "show_every": 3, "warmup": 0}
    common |= {"device": "cpu", "channels_last": True, "learning_rate": 0.01, "log_with": ()}
    config.write_text(
        yaml.safe_dump({**common, "output": "x", "stage": {"kind": kind, **stages[kind]}})
    )
    loop.run(config, [f"output={tmp_path / 'once'}"])
    loop.run(config, [f"output={tmp_path / 'often'}", "export_every_s=1e-9"])
    assert_equal(tmp_path / "once" / "step_00000003", tmp_path / "often" / "step_00000003")
