"""Whole model folders of strangers: what is in them is read as data or refused; none of it runs."""

import contextlib
import json
import os
import pickle
import shutil
import time
from pathlib import Path

import pytest
import tiny
import torch
from audit import watched
from folders import posix
from safetensors.torch import load_file, save_file

from restore.checkpoints import load, manifest, model_paths
from restore.errors import ModelError

EVIL = "open({!r}, 'w').close()\n"
PARTS = "unet", "vae", "text_encoder", "tokenizer", "scheduler"


class Payload:
    """Pickled, it is a call."""

    def __init__(self, ran: Path):
        self.ran = ran

    def __reduce__(self):
        return open, (str(self.ran), "w")


def told(path: Path, **change) -> None:
    config = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**config, **change}))


def weights(folder: Path, part: str) -> Path:
    return next((folder / part).glob("*.safetensors"))


def index(**change):
    return lambda folder, ran: told(folder / "model_index.json", **change)


def config(part, file="config.json", **change):
    return lambda folder, ran: told(folder / part / file, **change)


def text(name, content):
    def write(folder, ran):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(content)

    return write


def module(name):
    return lambda folder, ran: text(name, EVIL.format(str(ran)))(folder, ran)


def pickled(name, instead=""):
    def write(folder, ran):
        if instead:
            weights(folder, instead).unlink()
        with (folder / name).open("wb") as file:
            pickle.dump({"x": Payload(ran)}, file)

    return write


def torch_pickle(part):
    def write(folder, ran):
        path = weights(folder, part)
        torch.save({"state_dict": {"x": Payload(ran)}}, path.with_suffix(".bin"))
        path.unlink()

    return write


def extra_tensors(part, name, count=1):
    def write(folder, ran):
        path = weights(folder, part)
        held = {**load_file(path), **{f"{name}{n}": torch.zeros(1) for n in range(count)}}
        save_file(held, path, metadata={"format": "pt", "auto_map": "evil.Evil", "code": "evil"})

    return write


def header(part, data):
    return lambda folder, ran: weights(folder, part).write_bytes(data)


def linked(name, target):
    def write(folder, ran):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return write


def with_module(change, *names):
    """A config that names code, and the code beside it."""

    def write(folder, ran):
        for name in names:
            module(name)(folder, ran)
        change(folder, ran)

    return write


AUTO = {"AutoModel": "evil.Evil", "AutoConfig": "evil.Config", "AutoTokenizer": ["evil.T", None]}
QUANTISED = {"quant_method": "bitsandbytes", "load_in_4bit": True, "modules_to_not_convert": []}
ADAPTER = {"peft_type": "LORA", "base_model_name_or_path": "evil/model", "auto_mapping": AUTO}
LARGE_REGEX = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated"}
HOSTILE = {
    # a pipeline that brings its class along
    "own class": with_module(index(_class_name=["pipeline", "Evil"]), "pipeline.py"),
    "own class by text": with_module(index(_class_name="pipeline.Evil"), "pipeline.py"),
    "custom pipeline": with_module(index(custom_pipeline="pipeline"), "pipeline.py"),
    "auto map": with_module(index(auto_map=AUTO), "evil.py"),
    **{
        f"{part} of a module": with_module(
            index(**{part: ["evil", "Evil"]}), "evil.py", f"{part}/evil.py"
        )
        for part in PARTS
    },
    **{f"{part} of os": index(**{part: ["os", "system"]}) for part in PARTS},
    "part of a url": index(unet=["http://evil.example/x.py", "Evil"]),
    "part that is none": index(safety_checker=["evil", "Evil"], feature_extractor=["os", "x"]),
    "index of our class": index(_class_name="RestorationPipeline", restorer=["evil", "Evil"]),
    "index that is deep": text("model_index.json", "[" * 10**5),
    "index of nothing": text("model_index.json", "null"),
    # configs
    **{
        f"{part} auto map": with_module(
            config(part, auto_map=AUTO, trust_remote_code=True), f"{part}/evil.py"
        )
        for part in ("unet", "vae", "text_encoder")
    },
    **{
        f"{part} class": config(part, _class_name="evil.Evil", architectures=["evil.Evil"])
        for part in ("unet", "vae", "text_encoder")
    },
    **{
        f"{part} quantised": config(part, quantization_config=QUANTISED)
        for part in ("unet", "vae", "text_encoder")
    },
    "kernels": config("text_encoder", _attn_implementation="evil/kernels", use_kernels=True),
    "attention": config("text_encoder", attn_implementation="kernels-community/flash-attn"),
    "name of a url": config("text_encoder", _name_or_path="http://evil.example/model"),
    "scheduler class": config("scheduler", "scheduler_config.json", _class_name="evil.Evil"),
    "scheduler of os": config("scheduler", "scheduler_config.json", _class_name="os"),
    "scheduler tensors": config("scheduler", "scheduler_config.json", trained_betas="evil.npy"),
    "tokenizer class": with_module(
        config("tokenizer", "tokenizer_config.json", tokenizer_class="Evil", auto_map=AUTO),
        "tokenizer/evil.py",
    ),
    "tokenizer file": config("tokenizer", "tokenizer_config.json", tokenizer_file="/etc/passwd"),
    "chat template": config(
        "tokenizer", "tokenizer_config.json", chat_template="{{ ''.__class__.__mro__ }}"
    ),
    "chat template file": text("tokenizer/chat_template.jinja", "{% include '/etc/passwd' %}"),
    "slow pattern": config("tokenizer", "tokenizer.json", pre_tokenizer=LARGE_REGEX),
    "processor": text("tokenizer/preprocessor_config.json", json.dumps({"auto_map": AUTO})),
    "generation": text("text_encoder/generation_config.json", json.dumps({"auto_map": AUTO})),
    "generate": with_module(
        text("text_encoder/custom_generate/requirements.txt", "evil"),
        "text_encoder/custom_generate/generate.py",
    ),
    **{
        f"{part} adapter": text(f"{part}/adapter_config.json", json.dumps(ADAPTER))
        for part in ("unet", "text_encoder")
    },
    "context": text("stack.json", '{"context": "evil.module.Evil"}'),
    "context of a path": text("stack.json", '{"context": "../../evil"}'),
    "stack": text("stack.json", '{"trust": true, "windows": {"size": 1e9, "stride": "evil"}}'),
    # modules that an import may find
    **{
        name: module(name)
        for name in (
            *("__init__.py", "sitecustomize.py", "torch.py", "unet/__init__.py", "unet/model.py"),
            *("text_encoder/modeling_clip.py", "scheduler/scheduler.py", "tokenizer/tokenizers.py"),
        )
    },
    # weights
    **{f"{part} pickled": torch_pickle(part) for part in ("unet", "vae", "text_encoder")},
    **{
        f"pickle called {name}": pickled(name, part)
        for name, part in (
            ("unet/diffusion_pytorch_model.safetensors", "unet"),
            ("vae/diffusion_pytorch_model.bin", "vae"),
            ("text_encoder/pytorch_model.bin", "text_encoder"),
            ("text_encoder/model.safetensors", "text_encoder"),
        )
    },
    "pickle beside": pickled("unet/diffusion_pytorch_model.bin"),
    "pickle in the tokenizer": pickled("tokenizer/added_tokens.json"),
    "long header": header("unet", (2**62).to_bytes(8, "little") + b"{}"),
    "deep header": header("unet", (10**5).to_bytes(8, "little") + b"[" * 10**5),
    "no weights": header("vae", b""),
    "shards elsewhere": text(
        "unet/diffusion_pytorch_model.safetensors.index.json",
        json.dumps({"weight_map": {"conv_in.weight": "../../evil.safetensors"}}),
    ),
    "many tensors": extra_tensors("unet", "evil", 2000),
    "dora": extra_tensors("unet", "lora_magnitude_vector"),
    "link out": linked("unet/diffusion_pytorch_model.safetensors", "/etc/passwd"),
    "link to nothing": linked("vae/config.json", "/nowhere/config.json"),
    "link round": linked("scheduler/scheduler_config.json", "scheduler_config.json"),
}
QUICK = list(HOSTILE)[::4]  # of every kind some
OWN = {  # of a folder as ours, whose manifest says that all of this belongs to it
    "own restorer": config("restorer", _class_name="evil.Evil", auto_map=AUTO),
    "own fusion": config("fusion", _class_name="os.system"),
    "own index": index(restorer=["evil", "Evil"], unet=["os", "system"]),
    "own manifest": text("manifest.json", json.dumps({"../../evil.py": "0" * 64})),
    "own code": module("restorer/__init__.py"),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    made = tiny.checkpoint(tmp_path_factory.mktemp("model") / "base", "base")
    load.load(str(made), device="cpu")  # what is imported once, is
    with contextlib.suppress(ModelError):
        torch_pickle("vae")(shutil.copytree(made, made.parent / "warm"), made.parent / "ran")
        load.load(str(made.parent / "warm"), device="cpu", allow_pickle=True)
    return made


def refused_or_read(folder: Path, ran: Path, name: str) -> None:
    for allow_pickle in (False, True):
        began = time.monotonic()
        with watched() as met, contextlib.suppress(ModelError):
            load.load(str(folder), device="cpu", allow_pickle=allow_pickle)
        assert met == [] and not ran.exists(), name
        assert time.monotonic() - began < 20, name


def test_there_are_sixty():
    assert len(HOSTILE) + len(OWN) >= 60


@posix
@pytest.mark.filterwarnings("ignore")  # of the libraries, on values that make no sense
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n in QUICK else pytest.mark.slow) for n in HOSTILE],
)
def test_a_strangers_folder_imports_connects_and_starts_nothing(base, tmp_path, monkeypatch, name):
    folder = shutil.copytree(base, tmp_path / "model")
    HOSTILE[name](folder, tmp_path / "ran")
    monkeypatch.chdir(folder)  # where modules would be found
    monkeypatch.syspath_prepend(folder)
    refused_or_read(folder, tmp_path / "ran", name)


@posix
@pytest.mark.parametrize("name", OWN)
def test_a_folder_as_ours_imports_connects_and_starts_nothing(base, tmp_path, name):
    folder = shutil.copytree(model_paths.find_path("nano"), tmp_path / "model")
    OWN[name](folder, tmp_path / "ran")
    if name != "own manifest":
        manifest.write(folder)
    refused_or_read(folder, tmp_path / "ran", name)


@posix
def test_a_pipe_in_place_of_a_config_is_not_waited_for(base, tmp_path):
    folder = shutil.copytree(base, tmp_path / "model")
    path = folder / "scheduler" / "scheduler_config.json"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ModelError, match="it is no plain file"):
        load.load(str(folder), device="cpu")
