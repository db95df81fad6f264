"""Everybody's checkpoints: what loads, what is refused, and with which words."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import diffusers
import huggingface_hub
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from restore import cli
from restore.checkpoints import components, manifest, pixel
from restore.checkpoints import load as loading
from restore.checkpoints.load import load, windows_of
from restore.checkpoints.save import save
from restore.checkpoints.weights import read_file
from restore.diffusion import rehearsal
from restore.diffusion import stack as stacks
from restore.diffusion.layouts import LAYOUTS
from restore.diffusion.tiling import Windows
from restore.errors import ModelError
from restore.options import Img2imgOptions, InpaintOptions, Text2imgOptions, UpscaleOptions
from restore.tasks.run import restore

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folders of each kind, saved by the stock pipelines."""
    top = tmp_path_factory.mktemp("models")
    return {kind: tiny.checkpoint(top / kind, kind) for kind in tiny.KINDS}


@pytest.fixture
def copied(saved, tmp_path):
    """A folder of a kind to do damage to."""
    return lambda kind: Path(shutil.copytree(saved[kind], tmp_path / kind))


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    old, new = one.state_dict(), other.state_dict()
    return old.keys() == new.keys() and all(torch.equal(old[key], new[key]) for key in old)


def equal(one, other) -> bool:
    return all(same(*pair) for pair in zip(one.parts, other.parts, strict=True))


def weights(folder: Path, part: str) -> Path:
    return next((folder / part).glob("*.safetensors"))


def refused(name, *words: str, **how) -> None:
    with pytest.raises(ModelError) as caught:
        load(str(name), device="cpu", **how)
    for word in words:
        assert word in str(caught.value), str(caught.value)


# What loads


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_a_stack_round_trips_bit_for_bit(saved, tmp_path, kind):
    one = load(str(saved[kind]), device="cpu")
    save(one, tmp_path / "again", "# tiny\n", torch.float32)
    other = load(str(tmp_path / "again"), device="cpu")
    assert equal(one, other)
    assert other.layout == one.layout
    assert other.windows == one.windows
    assert dict(other.schedule.config) == dict(one.schedule.config)
    assert (other.low_schedule is None) == (one.low_schedule is None)


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_what_we_save_loads_as_the_stock_pipeline_it_came_from(saved, tmp_path, kind):
    save(load(str(saved[kind]), device="cpu"), tmp_path / "again", "# tiny\n", torch.float32)
    one, other = (
        diffusers.DiffusionPipeline.from_pretrained(folder)
        for folder in (saved[kind], tmp_path / "again")
    )
    assert type(one) is type(other)
    for name, part in one.components.items():
        if isinstance(part, torch.nn.Module):
            assert same(part, other.components[name]), name
    ids = [p.tokenizer("a red bird").input_ids for p in (one, other) if kind != "ldm"]
    assert kind == "ldm" or ids[0] == ids[1]


def test_a_saved_text_encoder_is_named_as_published_ones_are(saved, tmp_path):
    save(load(str(saved["base"]), device="cpu"), tmp_path / "again", "# tiny\n")
    held = load_file(weights(tmp_path / "again", "text_encoder"))
    assert all(key.startswith("text_model.") for key in held)


@pytest.mark.parametrize("kind", tiny.KINDS)
def test_other_ways_to_keep_the_weights_load_as_well(saved, copied, kind):
    """The fp16 variant alone, shards, and attention by the names of old diffusers."""
    folder, whole = copied(kind), load(str(saved[kind]), device="cpu")
    path = weights(folder, "unet")
    path.rename(path.with_name("diffusion_pytorch_model.fp16.safetensors"))
    path = weights(folder, "vqvae" if kind == "ldm" else "vae")
    held = load_file(path)
    for new, old in {
        "to_q": "query",
        "to_k": "key",
        "to_v": "value",
        "to_out.0": "proj_attn",
    }.items():
        held = {key.replace(f"{new}.", f"{old}."): tensor for key, tensor in held.items()}
    half = len(held) // 2
    path.unlink()
    for number, items in enumerate((list(held.items())[:half], list(held.items())[half:]), 1):
        name = f"diffusion_pytorch_model-{number:05d}-of-00002.safetensors"
        save_file(dict(items), path.with_name(name))
    again = load(str(folder), device="cpu")
    assert equal(whole, again)


@pytest.mark.parametrize(
    ("kind", "open_clip"),
    [
        *(("base", False), ("inpainting", False), ("x4", True)),
        *(("xl", True), ("xl inpainting", True)),
    ],
)
def test_a_single_file_loads_with_the_configs_of_a_folder(saved, tmp_path, kind, open_clip):
    whole = load(str(saved[kind]), device="cpu")
    pipe = diffusers.DiffusionPipeline.from_pretrained(saved[kind])
    tensors = {name: t.contiguous() for name, t in tiny.single_file(pipe, open_clip).items()}
    save_file(tensors, tmp_path / "model.safetensors")
    again = load(str(tmp_path / "model.safetensors"), device="cpu", config=str(saved[kind]))
    assert equal(whole, again)
    assert again.layout == whole.layout
    assert (again.low_schedule is None) == (whole.low_schedule is None)


def test_the_digest_changes_with_weights_and_configs_only(copied):
    folder = copied("base")
    _, first = manifest.find_model(str(folder))
    (folder / "notes.txt").write_text("a note")
    assert manifest.find_model(str(folder))[1] == first
    edit(folder / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")
    assert manifest.find_model(str(folder))[1] != first
    assert load(str(folder), device="cpu").schedule.config.prediction_type == "v_prediction"


@pytest.mark.parametrize(
    ("size", "levels", "windows"),
    [
        *((64, 4, (64, 48)), (96, 4, (96, 72)), (128, 4, (128, 96)), (None, 4, (64, 48))),
        *(((32, 40), 3, (32, 24)), (8, 4, (8, 8)), (16, 4, (16, 8)), (70, 4, (64, 48))),
    ],
)
def test_windows_are_what_the_unet_was_trained_at(size, levels, windows):
    config = {"sample_size": size, "block_out_channels": (8,) * levels}
    assert windows_of(config) == Windows(*windows)


def test_a_samplers_options_hold_where_the_checkpoint_left_them_to_defaults(copied):
    folder = copied("base")
    path = folder / "scheduler" / "scheduler_config.json"
    held = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in held.items() if k != "timestep_spacing"}))
    stack = load(str(folder), device="cpu")
    made = stack.scheduler("ddim", 4, {"timestep_spacing": "trailing"})
    assert made.timesteps.tolist() == [999, 749, 499, 249]


# The hub


@pytest.fixture
def cache(tmp_path, saved, monkeypatch):
    """A hub cache that holds org/tiny at one commit."""
    here = tmp_path / "hub" / "models--org--tiny"
    shutil.copytree(saved["base"], here / "snapshots" / COMMIT)
    (here / "refs").mkdir()
    (here / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)


@pytest.mark.parametrize("name", ["org/tiny", f"org/tiny@{COMMIT}", "org/tiny@main"])
def test_what_the_hub_gave_once_loads_offline_and_is_named_by_its_commit(cache, name):
    stack = load(name, device="cpu", offline=True)
    assert stack.name == f"org/tiny@{COMMIT}"


def test_a_model_of_ours_loads_from_the_hub_with_all_that_its_manifest_lists(
    cache, stack, tmp_path
):
    here = tmp_path / "hub" / "models--org--tiny" / "snapshots" / COMMIT
    shutil.rmtree(here)
    save(stack, here, "# tiny\n", torch.float32)
    assert equal(load("org/tiny", device="cpu", offline=True), stack)


@pytest.mark.parametrize("name", ["org/other", "org/tiny@v2"])
def test_what_is_not_cached_is_refused_offline_with_the_mend(cache, name):
    refused(name, "offline", f"hf download {name.split('@')[0]}", offline=True)


def test_a_hub_id_is_refused_in_words_by_a_process_that_has_loaded_nothing():
    code = """
from restore.checkpoints import hub
from restore.errors import ModelError
try:
    hub.fetch("org/other", None, False, [])
except ModelError as error:
    print(error)
"""
    here = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=here, capture_output=True, text=True, check=True
    )
    assert "hf download org/other" in done.stdout


@pytest.fixture
def lonely(cache, monkeypatch):
    """As a machine would be that must reach nobody."""

    def connect(*_, **__):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr("socket.socket.connect", connect)


def test_offline_opens_no_connection(lonely):
    load("org/tiny", device="cpu", offline=True)
    refused("org/other", "offline", offline=True)


def test_the_command_line_stays_offline_if_told(lonely, tmp_path):
    words = ["text2img", "--size", "32x32", "--steps", "1", "--device", "cpu", "--offline"]
    assert cli.main([*words, "--model", f"org/tiny@{COMMIT}", "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "0000000000.png").is_file()


@pytest.mark.parametrize("words", [["text2img"], ["upscale", "IN/lr"], ["evaluate", "--set", "IN"]])
def test_a_command_says_what_it_lacks_offline(lonely, tmp_path, photo, capsys, words):
    for folder in ("lr", "hr"):
        photo(f"{folder}/a.png")
    words = [word.replace("IN", str(tmp_path / "in")) for word in words]
    code = cli.main([*words, "--model", "org/tiny@v2", "--offline", "-o", str(tmp_path / "out")])
    said = capsys.readouterr().err
    assert code == 3 and not (tmp_path / "out").exists()
    for told in ("org/tiny@v2", "offline", "hf download org/tiny --revision v2"):
        assert told in said


# What is refused


def test_missing_and_foreign_tensors_are_named_with_their_part(copied):
    for part, word in (("unet", "conv_in"), ("text_encoder", "token_embedding"), ("vae", "conv")):
        folder = copied("base")
        path = weights(folder, part)
        held = load_file(path)
        gone = next(key for key in held if word in key)
        save_file({key: t for key, t in held.items() if key != gone}, path)
        refused(folder, part, "lacks 1 tensors", gone.removeprefix("text_model."))
        save_file({**held, "extra.weight": torch.zeros(2)}, path)
        refused(folder, part, "unknown 1 tensors", "extra.weight")
        save_file({**held, gone: torch.zeros(3)}, path)
        refused(folder, part, "other shapes", "(3,)")
        shutil.rmtree(folder)


def test_a_cut_file_is_refused(copied):
    folder = copied("base")
    path = weights(folder, "unet")
    path.write_bytes(path.read_bytes()[:-100])
    refused(folder, path.name, "copy it again")


def test_an_unknown_scheduler_class_is_named(copied):
    folder = copied("base")
    for name in ("MagicScheduler", "StableDiffusionPipeline", "__name__", None):
        edit(folder / "scheduler" / "scheduler_config.json", _class_name=name)
        refused(folder, "scheduler", str(name), "_class_name")


def test_classes_outside_the_allow_list_are_refused(copied):
    for part, name, able in (
        ("unet", "UNet3DConditionModel", "UNet2DConditionModel, UNet2DModel"),
        ("vae", "AutoencoderDC", "AutoencoderKL, AutoencoderTiny, VQModel"),
    ):
        folder = copied("base")
        edit(folder / part / "config.json", _class_name=name)
        refused(folder, part, name, able)
        shutil.rmtree(folder)


def test_pickled_weights_load_only_when_allowed(copied):
    folder = copied("base")
    path = weights(folder, "unet")
    torch.save(load_file(path), path.with_name("diffusion_pytorch_model.bin"))
    path.unlink()
    refused(folder, "diffusion_pytorch_model.bin", "pickled", "--allow-pickle")
    load(str(folder), device="cpu", allow_pickle=True)


def test_pickles_by_transformers_name_and_in_shards_load_if_allowed(saved, copied):
    folder = copied("base")
    path = weights(folder, "text_encoder")
    torch.save(load_file(path), path.with_name("pytorch_model.bin"))
    path.unlink()
    path = weights(folder, "unet")
    held = list(load_file(path).items())
    for number, items in enumerate((held[:9], held[9:]), 1):
        name = f"diffusion_pytorch_model-{number:05d}-of-00002.bin"
        torch.save(dict(items), path.with_name(name))
    path.unlink()
    refused(folder, "pickled", "--allow-pickle")
    again = load(str(folder), device="cpu", allow_pickle=True)
    assert equal(load(str(saved["base"]), device="cpu"), again)


def test_shards_of_the_fp16_variant_are_not_mixed_with_whole_ones(saved, copied):
    """Old names end in .fp16.safetensors, new ones have it before the number."""
    folder = copied("base")
    path = weights(folder, "unet")
    held = load_file(path)
    save_file(held, path.with_name("diffusion_pytorch_model-00001-of-00001.safetensors"))
    path.unlink()
    name = "diffusion_pytorch_model-00002-of-00002.fp16.safetensors"
    save_file({key: tensor.half() for key, tensor in held.items()}, path.with_name(name))
    assert equal(load(str(saved["base"]), device="cpu"), load(str(folder), device="cpu"))
    weights(folder, "unet").with_name("diffusion_pytorch_model-00001-of-00001.safetensors").unlink()
    load(str(folder), device="cpu")


def test_a_variant_of_another_name_is_named_with_its_mend(copied):
    folder = copied("base")
    path = weights(folder, "vae")
    path.rename(path.with_name("diffusion_pytorch_model.bf16.safetensors"))
    refused(folder, "diffusion_pytorch_model.bf16.safetensors", "call it")


class Harm:
    def __reduce__(self):
        return print, ("this ran",)


def test_a_pickle_that_runs_code_is_refused_even_when_allowed(copied, capsys):
    folder = copied("base")
    path = weights(folder, "unet")
    torch.save({"x": Harm()}, path.with_name("diffusion_pytorch_model.bin"))
    path.unlink()
    refused(folder, "more than tensors", allow_pickle=True)
    assert "this ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "words"),
    [("text_encoder_2", ["text_encoder_2", "another family"]), ("safety_checker", [])],
)
def test_components_of_other_families_are_refused_and_those_of_no_matter_ignored(
    copied, name, words
):
    folder = copied("base")
    edit(folder / "model_index.json", **{name: ["transformers", "CLIPTextModelWithProjection"]})
    if words:
        refused(folder, *words)
    else:
        load(str(folder), device="cpu")


def test_a_folder_or_file_that_is_no_model_says_so(tmp_path):
    refused(tmp_path, "neither stack.json", "model_index.json")
    (tmp_path / "notes.md").write_text("hello")
    refused(tmp_path / "notes.md", ".safetensors")
    refused(tmp_path / "gone", "no model of that name ships")


@pytest.mark.parametrize(("part", "words"), [("text_encoder", "reads text"), ("unet", "config")])
def test_a_missing_part_is_named(copied, part, words):
    folder = copied("base")
    shutil.rmtree(folder / part)
    refused(folder, part, words)


def test_a_tokenizer_without_its_vocabulary_is_refused(copied):
    folder = copied("base")
    (folder / "tokenizer" / "tokenizer.json").unlink()
    refused(folder, "vocab.json")


def test_a_unet_that_asks_for_more_than_a_layout_gives_is_refused(copied):
    folder = copied("base")
    edit(folder / "unet" / "config.json", addition_embed_type="text_time")
    refused(folder, "addition_embed_type", "SDXL")


def test_a_single_file_says_what_it_needs(saved, tmp_path):
    pipe = diffusers.DiffusionPipeline.from_pretrained(saved["base"])
    held = {name: t.contiguous() for name, t in tiny.single_file(pipe).items()}
    path = tmp_path / "model.safetensors"
    save_file(held, path)
    refused(path, "vocabulary", "config=FOLDER", "--config-from", offline=True)
    refused(path, "unet", config=str(saved["inpainting"]))
    save_file({name: t for name, t in held.items() if "first_stage" not in name}, path)
    refused(path, "no vae", config=str(saved["base"]))
    save_file({**held, "conditioner.embedders.0.x": torch.zeros(1)}, path)
    refused(path, "another family", config=str(saved["base"]))
    save_file({"conditioner.embedders.0.model.ln_final.bias": torch.zeros(1)}, path)
    refused(path, "SDXL's refiner", "take that one", config=str(saved["base"]))
    save_file({**held, "v_pred": torch.zeros(1)}, path)
    refused(path, "predicts v", "--config-from", config=str(saved["base"]))
    for key in ("double_blocks.0.x", "model.diffusion_model.joint_blocks.0.x"):
        save_file({key: torch.zeros(1)}, path)
        refused(path, "another family", "SDXL", config=str(saved["base"]))
    torch.save(held, tmp_path / "model.ckpt")
    refused(tmp_path / "model.ckpt", "pickled", config=str(saved["base"]))
    load(str(tmp_path / "model.ckpt"), "cpu", config=str(saved["base"]), allow_pickle=True)


@pytest.mark.parametrize("content", [torch.zeros(1), [torch.zeros(1)], 3, {"state_dict": None}])
def test_a_pickled_file_without_a_state_dict_is_refused_by_name(content, tmp_path):
    path = tmp_path / "model.ckpt"
    torch.save(content, path)
    with pytest.raises(ModelError, match=r"model\.ckpt: cannot be read, copy it again"):
        read_file(path)


def test_pickled_bytes_cut_anywhere_are_refused_by_name(tmp_path):
    path = tmp_path / "model.ckpt"
    torch.save({"x": torch.zeros(3)}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    for end in range(0, len(data), 7):
        path.write_bytes(data[:end])
        with pytest.raises(ModelError, match=r"model\.ckpt: "):
            read_file(path)


# What it can do


OPTIONS = {
    "text2img": Text2imgOptions(height=50, width=34, steps=2, prompt="a bird"),
    "img2img": Img2imgOptions(steps=2, prompt="a bird"),
    "inpaint": InpaintOptions(steps=2, prompt="a bird"),
    "upscale": UpscaleOptions(steps=1),
}


def run(task: str, stack, picture, **more):
    low = picture(50, 34) if task != "upscale" else picture(25, 17)
    hole = (low.pixels[..., 0] > 128).astype("uint8") * 255 if task == "inpaint" else None
    options = OPTIONS[task].model_copy(update=more)
    return restore(None if task == "text2img" else low, options, stack, 3, mask=hole)


@pytest.mark.parametrize(
    ("kind", "task"),
    [
        *product(["base", "inpainting"], ["text2img", "img2img", "inpaint"]),
        *product(["x4", "ldm"], ["upscale"]),
    ],
)
def test_larger_canvases_run_on_every_layout_whatever_runs_at_once(saved, picture, kind, task):
    stack = load(str(saved[kind]), device="cpu")
    one, two = (run(task, stack, picture, windows=count) for count in (1, 3))
    assert one.size == ((100, 68) if task == "upscale" else (50, 34))
    assert (one.pixels == two.pixels).all()
    assert one.pixels.std() > 1


@pytest.mark.parametrize(
    ("kind", "task"), [("base", "upscale"), ("x4", "text2img"), ("ldm", "inpaint")]
)
def test_a_task_that_a_layout_cannot_do_lists_those_that_can(saved, picture, kind, task):
    stack = load(str(saved[kind]), device="cpu")
    with pytest.raises(ModelError) as caught:
        run(task, stack, picture)
    assert f"not {task}" in str(caught.value)
    for layout in LAYOUTS:
        assert (layout.name in str(caught.value).split(";")[1]) == (task in layout.tasks)


def test_all_tasks_share_one_set_of_weights(stack, picture):
    """No task copies, moves or converts a tensor, so that four need the memory of one."""

    def addresses():
        return [p.data_ptr() for module in stack.parts for p in module.parameters()]

    before = addresses()
    for task in OPTIONS:
        run(task, stack, picture)
        assert addresses() == before
    total = sum(p.nbytes for module in stack.parts for p in module.parameters())
    assert total == sum(
        {p.data_ptr(): p.nbytes for m in stack.parts for p in m.parameters()}.values()
    )


def test_models_load_in_threads_at_once():
    with ThreadPoolExecutor(4) as pool:
        stacks = list(pool.map(lambda _: load("nano", "cpu"), range(8)))
    for stack in stacks:
        assert not any(weight.is_meta for part in stack.parts for weight in part.parameters())


def test_a_full_memory_is_no_damaged_file(tmp_path, monkeypatch):
    def full(*_, **__):
        raise MemoryError

    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("{}")
    (tmp_path / "a.safetensors").write_bytes(b"")
    for place, name in (
        (components.configs, "tokenizer"),
        (loading.contexts, "load"),
        (pixel, "recognise"),
        (pixel.tensor_files, "load"),
    ):
        monkeypatch.setattr(place, name, full)
    for what in (
        lambda: components.build_tokenizer(tmp_path, 9),
        lambda: loading.read_context(tmp_path, full, "labels"),
        lambda: pixel.read_state(tmp_path / "a.safetensors"),
        lambda: pixel.build(pixel.import_spandrel(), {}, tmp_path),
        lambda: pixel.try_out(SimpleNamespace(scale=1, network=full), tmp_path),
        lambda: rehearsal.most_steps(full, 5),
        lambda: stacks._rehearse(full, "ddim", 5, False),
    ):
        with pytest.raises(MemoryError):
            what()
