"""Nothing in a stranger's model imports, connects, starts or hangs: every key, hostile values."""

import contextlib
import json
import shutil
import time
from types import SimpleNamespace

import pytest
import tiny
import torch
from audit import watched
from safetensors.torch import load_file, save_file

from restore import cli
from restore.checkpoints import engines, load, lora, manifest, model_paths, save, weights
from restore.errors import ModelError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tiny.checkpoint(tmp_path_factory.mktemp("model") / "base", "base")
    load.load(str(made), device="cpu")  # what is imported once, is
    return made


VALUES = [
    *("evil/kernel", "evil.module.Evil", "../evil", "http://evil.example/x", "evil", ""),
    *(None, True, -1, 0, 10**12, 1e308, float("nan"), [], ["evil", "Evil"], {"evil": "Evil"}),
    *([[[[["evil"]]]]], "a" * 10**6, ["evil"] * 10**5),
]
EXTRA = [
    *("attn_implementation", "_attn_implementation", "_attn_implementation_internal", "auto_map"),
    *(
        "_name_or_path",
        "quantization_config",
        "trust_remote_code",
        "custom_pipeline",
        "torch_dtype",
    ),
    *("dtype", "use_kernels", "kernel_config", "tokenizer_class", "tokenizer_file", "vocab_file"),
    *("chat_template", "processor_class", "architectures", "_class_name", "model_type"),
]
CONFIGS = [
    *("unet/config.json", "vae/config.json", "text_encoder/config.json", "model_index.json"),
    *("scheduler/scheduler_config.json", "tokenizer/tokenizer_config.json"),
]


XL_CONFIGS = {  # the keys that only SDXL's have, or that are read otherwise
    "text_encoder_2/config.json": ["projection_dim", "architectures"],
    "unet/config.json": [
        *("addition_embed_type", "addition_time_embed_dim", "transformer_layers_per_block"),
        "projection_class_embeddings_input_dim",
    ],
    "model_index.json": ["force_zeros_for_empty_prompt", "text_encoder_2", "tokenizer_2"],
}


@pytest.fixture(scope="module")
def folders(folder, tmp_path_factory):
    xl = tiny.checkpoint(tmp_path_factory.mktemp("model") / "xl", "xl")
    load.load(str(xl), device="cpu")
    return {"base": folder, "xl": xl}


@pytest.mark.filterwarnings("ignore")  # of the libraries, on values that make no sense
@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("base", CONFIGS[0]),  # the largest; the others take two minutes together
        *(pytest.param("base", config, marks=pytest.mark.slow) for config in CONFIGS[1:]),
        *(("xl", config) for config in XL_CONFIGS),
    ],
)
def test_no_key_of_a_config_imports_connects_or_starts_anything(folders, kind, config, monkeypatch):
    folder = folders[kind]
    path = folder / config
    if not path.exists():
        path.write_text("{}")
    kept = path.read_text()
    told = json.loads(kept)
    monkeypatch.setattr(load.components, "fill", lambda module, weights, what: None)
    monkeypatch.setattr(load.components, "read_weights", lambda *_: {})
    build, built = load.components.build, {}

    def build_anew(folder, part, *more):
        """Only what reads the config; the rest has nothing new to say."""
        if part not in built or config.startswith((f"{part}/", "model_index")):
            built[part] = build(folder, part, *more)
        return built[part]

    monkeypatch.setattr(load.components, "build", build_anew)
    try:
        keys = XL_CONFIGS[config] if kind == "xl" else dict.fromkeys([*told, *EXTRA])
        for number, key in enumerate(keys):
            values = VALUES if key in EXTRA[:4] else VALUES[number % 5 :: 5]
            for value in values:
                path.write_text(json.dumps({**told, key: value}))
                began = time.monotonic()
                with watched() as met, contextlib.suppress(ModelError):
                    load.read(folder, lambda part, _: {}, build_anew)
                assert met == [], (key, str(value)[:50])
                assert time.monotonic() - began < 20, (key, str(value)[:50])
    finally:
        path.write_text(kept)


@pytest.mark.parametrize("text", ["", "[]", "1", "null", "[" * 10**5, '{"a":' * 10**4, "\0", "{"])
def test_a_config_that_is_none_is_refused(folder, text):
    for config in CONFIGS:
        path = folder / config
        kept = path.read_text() if path.exists() else None
        path.write_text(text)
        try:
            with pytest.raises(ModelError):
                load.load(str(folder), device="cpu")
        finally:
            path.write_text(kept) if kept is not None else path.unlink()


# LoRAs


@pytest.fixture(scope="module")
def stack(folder):
    return load.load(str(folder), device="cpu")


def a_lora(path, stack, metadata, **more):
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    layer = stack.unet.get_submodule(name)
    held = {
        f"unet.{name}.lora_A.weight": torch.ones(2, layer.in_features),
        f"unet.{name}.lora_B.weight": torch.ones(layer.out_features, 2),
        **more,
    }
    save_file(held, path, metadata={"format": "pt", "lora_adapter_metadata": json.dumps(metadata)})
    return path


HOSTILE = [
    {"unet.auto_mapping": {"base_model_class": "Evil", "parent_library": "evil"}},
    {"unet.base_model_name_or_path": "evil/model", "unet.revision": "evil"},
    {"unet.layer_replication": [[0, 10**9]]},
    {"unet.init_lora_weights": "pissa_niter_1000"},
    {"unet.init_lora_weights": "loftq", "unet.loftq_config": {"loftq_bits": 4}},
    {"unet.init_lora_weights": "corda", "unet.corda_config": {"cache_file": "/tmp/evil"}},
    {"unet.megatron_config": {"x": 1}, "unet.megatron_core": "evil.core"},
    {"unet.modules_to_save": [".*"], "unet.exclude_modules": "(a+)+$"},
    {"unet.target_modules": "(.*a){30}$", "unet.layers_pattern": "(a+)+$"},
    {"unet.target_parameters": ["evil"], "unet.trainable_token_indices": [1]},
    {"unet.runtime_config": {"ephemeral_gpu_offload": True}, "unet.lora_bias": True},
    {"unet.peft_type": "EVIL", "unet.task_type": "EVIL", "unet.bias": "all"},
    {"evil.r": 1, "r": "evil", "unet": {"r": 1}},
    {"unet.eva_config": {"rho": 9}, "unet.qalora_group_size": 10**9, "unet.use_qalora": True},
    {"unet.rank_pattern": {"(a+)+$": 2}},
    {"unet.alpha_pattern": {"(.*a){40}$": 2}},
    {"unet.alpha_pattern": {"x": "evil"}, "unet.r": 2},
    {"unet.r": -1},
    {"unet.r": 10**9},
    {"unet.lora_alpha": float("inf")},
    {"unet.use_dora": True},
    {"unet.use_rslora": "evil"},
    {"unet.rank_pattern": [], "unet.r": 2},
    [],
]


@pytest.mark.parametrize("metadata", HOSTILE)
def test_a_loras_metadata_reach_no_library(stack, tmp_path, metadata):
    path = a_lora(tmp_path / "lora.safetensors", stack, {"unet.r": 2})
    with watched():
        lora.add(stack, path)  # what is imported once, is
    lora.remove(stack)
    path = a_lora(path, stack, metadata)
    began = time.monotonic()
    with watched() as met, contextlib.suppress(ModelError):
        lora.add(stack, path)
    lora.remove(stack)
    assert met == [] and time.monotonic() - began < 20


@pytest.mark.parametrize("name", ["unet.x.lora_magnitude_vector", "lora_unet_x.dora_scale"])
def test_a_dora_is_not_applied_as_a_lora(stack, tmp_path, name):
    path = a_lora(tmp_path / "lora.safetensors", stack, {"unet.r": 2}, **{name: torch.ones(2)})
    with pytest.raises(ModelError, match="is a DoRA"):
        lora.add(stack, path)
    path = a_lora(path, stack, {"unet.r": 2, "unet.use_dora": True})
    with pytest.raises(ModelError, match="is a DoRA"):
        lora.add(stack, path)


# what is listed is all that is loaded


@pytest.mark.parametrize(
    "name",
    [
        *("unet/diffusion_pytorch_model.safetensors", "unet/model.safetensors", "unet/x.bin"),
        *("vae/config.json", "text_encoder/model.fp16.safetensors", "tokenizer/vocab.json"),
        *("scheduler/scheduler_config.json", "model_index.json"),
    ],
)
def test_an_unlisted_file_that_a_loader_takes_is_refused(folder, tmp_path, name):
    stack = load.load(str(folder), device="cpu")
    saved = tmp_path / "saved"
    save.save(stack, saved, "# tiny\n")
    path, digest = manifest.find_model(str(saved))
    (saved / "notes.txt").write_text("mine")
    assert manifest.find_model(str(saved)) == (path, digest)
    place = saved / name
    if place.exists():  # as if it had been added beside what is listed
        listed = json.loads((saved / manifest.NAME).read_text())
        del listed[name]
        (saved / manifest.NAME).write_text(json.dumps(listed))
    else:
        save_file({"x": torch.zeros(1)}, place)
    with pytest.raises(ModelError, match="loaded unseen"):
        manifest.find_model(str(saved))


def test_weights_that_change_between_digest_and_load_are_refused(folder, monkeypatch):
    real = load.components.read_weights
    path = next((folder / "unet").glob("*.safetensors"))
    kept = path.read_bytes()

    def swapped(*args):
        if path.parent.name == args[1]:
            held = load_file(path)
            save_file({k: t + 1 for k, t in held.items()}, path)
        return real(*args)

    monkeypatch.setattr(load.components, "read_weights", swapped)
    try:
        with pytest.raises(ModelError, match="changed while it was read"):
            load.load(str(folder), device="cpu")
    finally:
        path.write_bytes(kept)


def test_a_swap_and_a_swap_back_while_it_is_read_are_met(tmp_path, monkeypatch):
    """The digests before and after are the same; what the disk says of the files is not."""
    folder = shutil.copytree(model_paths.find_path("nano"), tmp_path / "nano")
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    read = weights.read_file

    def swapping(file):
        if file != path:
            return read(file)
        good = path.read_bytes()
        path.write_bytes(good[:-4] + bytes(4))
        made = read(file)
        path.write_bytes(good)
        return made

    monkeypatch.setattr(weights, "read_file", swapping)
    with pytest.raises(ModelError, match="changed while it was read"):
        load.load(str(folder), "cpu")


def test_a_first_stage_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    folder = shutil.copytree(model_paths.find_path("nano"), tmp_path / "nano")
    path = folder / "fusion" / "diffusion_pytorch_model.safetensors"
    read = weights.read_weights

    def swapping(place, part):
        good = path.read_bytes()
        path.write_bytes(good[:-4] + bytes(4))
        made = read(place, part)
        path.write_bytes(good)
        return made

    monkeypatch.setattr(weights, "read_weights", swapping)
    with pytest.raises(ModelError, match="changed while it was read"):
        engines.load(str(folder), "cpu", lazily=True)


def test_a_model_swapped_after_the_run_was_planned_ends_it(tmp_path, photo, capsys, monkeypatch):
    photo("a.png")
    folder = shutil.copytree(model_paths.find_path("nano"), tmp_path / "nano")
    find = manifest.find_model
    monkeypatch.setattr(
        manifest, "find_model", lambda name, *a, **k: (find(name, *a, **k)[0], "0" * 64)
    )
    words = ["upscale", tmp_path / "in", "-o", tmp_path / "out", "--model", folder, "-s", 1]
    made = SimpleNamespace(digest="1" * 64, parts=[])
    monkeypatch.setattr(engines, "load", lambda *a, **k: made)
    assert cli.main([str(word) for word in words]) == 3
    assert "changed since the run began" in capsys.readouterr().err


def test_there_are_twenty_loras():
    assert len(HOSTILE) >= 20
