"""What a pipeline is, is told by its configs: nothing large is fetched of what is not read."""

import json

import pytest
import tiny
import torch
from hubs import COMMIT
from safetensors.torch import load_file

from restore import cli
from restore.checkpoints import components, families, hub, manifest
from restore.checkpoints.load import load
from restore.errors import ModelError

CLIP = ["transformers", "CLIPTextModel"]
SECOND = ["transformers", "CLIPTextModelWithProjection"]
UNET, VAE = ["diffusers", "UNet2DConditionModel"], ["diffusers", "AutoencoderKL"]
SDXL = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
    "in_channels": 4,
}
REFUSED = {  # name: (model_index.json, unet/config.json, what is said)
    "flux": (
        {"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]},
        None,
        ["FluxPipeline (Flux)", "transformer", "SDXL"],
    ),
    "sd3": (
        {"_class_name": "StableDiffusion3Pipeline", "text_encoder": CLIP, "text_encoder_3": CLIP},
        None,
        ["(Stable Diffusion 3)", "text_encoder_3", "another family"],
    ),
    "if": (
        {"_class_name": "IFPipeline", "unet": UNET, "text_encoder": ["transformers", "T5Encoder"]},
        None,
        ["(DeepFloyd IF)", "text_encoder T5Encoder"],
    ),
    "refiner": (
        {
            "_class_name": "StableDiffusionXLImg2ImgPipeline",
            "requires_aesthetics_score": True,
            "text_encoder": [None, None],
            "text_encoder_2": SECOND,
            "unet": UNET,
        },
        None,
        ["SDXL's refiner", "take that one"],
    ),
    "refiner without a mark": (
        {"_class_name": "X", "text_encoder": CLIP, "text_encoder_2": SECOND, "unet": UNET},
        {**SDXL, "projection_class_embeddings_input_dim": 2560},
        ["2560", "2816", "refiner"],
    ),
    "pix2pix": (
        {"_class_name": "StableDiffusionInstructPix2PixPipeline", "unet": UNET, "vae": VAE},
        {"in_channels": 8, "cross_attention_dim": 768},
        ["8 input channels", "no known layout"],
    ),
    "lcm": (
        {"_class_name": "LatentConsistencyModelPipeline", "unet": UNET},
        {"in_channels": 4, "time_cond_proj_dim": 256},
        ["time_cond_proj_dim"],
    ),
    "no pipeline": (None, None, ["neither stack.json", "model_index.json"]),
}


def pretended(folder, index, unet):
    """A repository of such a pipeline, whose weights are there to be fetched."""
    for part in ("unet", "vae", "text_encoder", "text_encoder_2", "transformer"):
        (folder / part).mkdir(parents=True)
        for stem in hub.STEMS:
            (folder / part / f"{stem}.safetensors").write_bytes(bytes(10**6))
    if index is not None:
        (folder / "model_index.json").write_text(json.dumps(index))
    if unet is not None:
        (folder / "unet" / "config.json").write_text(json.dumps(unet))
    (folder / "vae" / "config.json").write_text(json.dumps({"latent_channels": 4}))
    (folder / "text_encoder_2" / "config.json").write_text(json.dumps({"projection_dim": 1280}))


@pytest.mark.parametrize("kind", REFUSED)
def test_of_a_refused_family_no_byte_but_configs_is_fetched(online, kind):
    top, given = online
    index, unet, words = REFUSED[kind]
    pretended(top / "model", index, unet)
    with pytest.raises(ModelError) as caught:
        manifest.find_model("org/model")
    said = str(caught.value)
    assert "\n" not in said
    for word in words:
        assert word in said, said
    assert sum(size for path, size in given.items() if not path.endswith(".json")) == 0
    assert sum(given.values()) < 2000


def test_of_a_model_of_another_walk_no_byte_but_configs_is_fetched(online):
    """Its parts are known, its scheduler is not: it was tuned to flow matching."""
    top, given = online
    parts = {"text_encoder": CLIP, "text_encoder_2": SECOND, "unet": UNET}
    pretended(top / "model", {"_class_name": "StableDiffusionXLPipeline", **parts}, SDXL)
    (top / "model" / "scheduler").mkdir()
    config = json.dumps({"_class_name": "FlowMatchEulerDiscreteScheduler"})
    (top / "model" / "scheduler" / "scheduler_config.json").write_text(config)
    with pytest.raises(ModelError, match="scheduler is a FlowMatchEulerDiscreteScheduler"):
        manifest.find_model("org/model")
    assert all(path.endswith(".json") for path in given)


def test_the_command_refuses_before_it_fetches(online, tmp_path, capsys):
    top, given = online
    pretended(top / "model", *REFUSED["sd3"][:2])
    out = tmp_path / "out"
    assert cli.main(["text2img", "--prompt", "x", "--model", "org/model", "-o", str(out)]) == 3
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("restore: ")]
    assert len(told) == 1 and "Stable Diffusion 3" in told[0]
    assert set(given) == {"model_index.json"} and not out.exists()


def test_pickles_of_both_libraries_are_fetched_if_allowed(online):
    top, given = online
    folder = tiny.checkpoint(top / "model", "base")
    for part, stem in (
        ("unet", hub.STEMS[0]),
        ("vae", hub.STEMS[0]),
        ("text_encoder", "pytorch_model"),
    ):
        (path,) = (folder / part).glob("*.safetensors")
        torch.save(load_file(path), path.with_name(f"{stem}.bin"))
        path.unlink()
    load("org/model", device="cpu", allow_pickle=True)
    assert given["text_encoder/pytorch_model.bin"]


@pytest.mark.parametrize("kind", ["base", "xl"])
def test_what_can_be_read_is_fetched_whole_and_no_file_twice(online, kind):
    top, given = online
    folder = tiny.checkpoint(top / "model", kind)
    (folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").write_bytes(bytes(10**6))
    (folder / "flax_model.msgpack").write_bytes(bytes(10**6))
    stack = load("org/model", device="cpu")
    assert stack.name == f"org/model@{COMMIT}"
    for path, size in given.items():
        assert size == (folder / path).stat().st_size, f"{path} was fetched twice"
        assert "fp16" not in path and "flax" not in path


@pytest.mark.parametrize("kind", [kind for kind in REFUSED if kind != "no pipeline"])
def test_a_folder_of_such_a_family_is_refused_in_the_same_words(tmp_path, kind):
    index, unet, words = REFUSED[kind]
    pretended(tmp_path / "model", index, unet)
    with pytest.raises(ModelError) as caught:
        manifest.find_model(str(tmp_path / "model"))
    assert all(word in str(caught.value) for word in words)


def test_the_classes_told_by_name_are_those_that_are_built():
    for part, names in families.CLASSES.items():
        if not part.startswith("tokenizer"):
            assert names == tuple(kind.__name__ for kind in components.KINDS[part])
    assert {*families.CLASSES} <= {*families.PARTS}
