"""What strangers wrote, be it a picture, a model, a folder or a configuration, runs no code, leads
nothing out of the output folder, and learns no secret.
"""

import ast
import importlib.metadata
import json
import os
import pickle
import re
import socket
import stat
import subprocess
import sys
import tomllib
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from PIL import Image
from tiny import checkpoint

from restore import config, files
from restore.batch.journal import HIDDEN, Journal
from restore.checkpoints import load
from restore.errors import ConfigError, ModelError, OutputError, UsageError
from restore.files import replacing, write_text

ROOT = Path(__file__).resolve().parents[1]
posix = pytest.mark.skipif(os.name != "posix", reason="speaks of POSIX")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


# 1: no version with a known hole


def requirements():
    extras = PROJECT["optional-dependencies"].values()
    texts = [*PROJECT["dependencies"], *(text for extra in extras for text in extra)]
    return [Requirement(text) for text in texts]


@pytest.mark.parametrize(
    ("name", "holed"),
    [
        ("torch", "2.9.1"),  # CVE-2026-24747, CVE-2025-32434: weights_only
        ("transformers", "5.2.0"),  # CVE-2026-4372, CVE-2026-1839, CVE-2026-5241
        ("diffusers", "0.37.1"),  # CVE-2026-44513
        ("pillow", "12.2.0"),  # CVE-2026-59199: writes out of bounds
    ],
)
def test_versions_with_known_holes_are_not_installed(name, holed):
    asked = [each for each in requirements() if each.name == name]
    assert asked and not any(holed in each.specifier for each in asked)


def test_lightning_is_not_needed():
    assert not {"lightning", "pytorch-lightning"} & {each.name for each in requirements()}


# 2 and 3: models


class Calls:
    def __init__(self, function, *words):
        self.asked = function, words

    def __reduce__(self):
        return self.asked


def harms(canary):
    """Ten pickles, each of which would leave a file if it were obeyed."""
    made = f"open({str(canary)!r}, 'w').close()"
    shell = f"touch {canary}"
    return {
        "eval": Calls(eval, made),
        "exec": Calls(exec, made),
        "system": Calls(os.system, shell),
        "popen": Calls(os.popen, shell),
        "subprocess": Calls(subprocess.call, ["touch", str(canary)]),
        "check_output": Calls(subprocess.check_output, ["touch", str(canary)]),
        "open": Calls(open, str(canary), "w"),
        "touch": Calls(Path.touch, canary),
        "remove": Calls(os.rename, str(canary.parent / "model"), str(canary)),
        "mkdir": Calls(os.mkdir, str(canary)),
    }


@pytest.mark.parametrize("kind", harms(Path("x")))
def test_no_pickle_is_obeyed_even_where_pickles_are_allowed(tmp_path, kind):
    folder = checkpoint(tmp_path / "model", "base")
    canary = tmp_path / "canary"
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save({"x": harms(canary)[kind]}, path.with_suffix(".bin"))
    path.unlink()
    for allowed in (False, True):
        with pytest.raises(ModelError):
            load.load(str(folder), device="cpu", allow_pickle=allowed)
    (tmp_path / "bare.ckpt").write_bytes(pickle.dumps(harms(canary)[kind], protocol=2))
    with pytest.raises(ModelError):
        load.load(str(tmp_path / "bare.ckpt"), device="cpu", config=str(folder), allow_pickle=True)
    assert not canary.exists()


def test_code_beside_weights_is_neither_asked_for_nor_run(tmp_path):
    folder = checkpoint(tmp_path / "model", "base")
    canary = tmp_path / "canary"
    code = f"open({str(canary)!r}, 'w').close()\nclass Evil: pass\n"
    for place in ("pipeline.py", "unet/evil.py", "text_encoder/modeling_evil.py", "evil.py"):
        (folder / place).write_text(code)
    for part in ("unet", "text_encoder", "vae"):
        path = folder / part / "config.json"
        told = json.loads(path.read_text())
        told["auto_map"] = {"AutoModel": "modeling_evil.Evil", "AutoConfig": "evil.Evil"}
        told["_attn_implementation_internal"] = "evil/kernel"
        path.write_text(json.dumps(told))
    with suppress(ModelError):  # refused is as good as ignored
        load.load(str(folder), device="cpu")
    index = folder / "model_index.json"
    for name, value in [
        ("_class_name", ["pipeline", "Evil"]),
        ("unet", ["evil", "Evil"]),
        ("unet", ["diffusers_modules.local.evil", "Evil"]),
        ("custom_pipeline", "evil"),
    ]:
        told = json.loads(index.read_text())
        index.write_text(json.dumps({**told, name: value}))
        with suppress(ModelError):
            load.load(str(folder), device="cpu")
        index.write_text(json.dumps(told))
    assert not canary.exists()


def test_a_local_model_opens_no_connection(tmp_path, monkeypatch):
    folder = checkpoint(tmp_path / "model", "base")

    def refused(*_, **__):
        raise AssertionError("a connection was tried")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refused)
    monkeypatch.setattr(socket, "create_connection", refused)
    load.load(str(folder), device="cpu")


# 4: configurations, and our own lines


@pytest.mark.parametrize(
    "payload",
    [
        "!!python/object/apply:os.system ['touch {}']",
        "!!python/object/new:subprocess.Popen [['touch', '{}']]",
        "!!python/name:os.system",
        "!!python/module:antigravity",
        "!!python/object/apply:builtins.eval [\"open('{}', 'w')\"]",
    ],
)
def test_no_yaml_is_obeyed(tmp_path, payload):
    canary = tmp_path / "canary"
    path = tmp_path / "evil.yaml"
    path.write_text(f"upscale: {payload.format(canary)}\n")
    with pytest.raises(ConfigError, match="is not YAML"):
        config.read_yaml(path)
    assert not canary.exists()


@cache
def sources():
    parts = ("restore", "degradations", "tools")
    found = [path for part in parts for path in (ROOT / part).rglob("*.py")]
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text("utf-8")) for path in found}


FORBIDDEN = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.hub.load"),
    *("yaml.load", "yaml.full_load", "yaml.unsafe_load", "pickle.load", "marshal.loads"),
    *("shelve.open", "joblib.load", "dill.load", "tempfile.mktemp"),
    *("subprocess.getoutput", "subprocess.getstatusoutput"),
}
WORDS = {"trust_remote_code", "custom_pipeline", "custom_revision"}  # never forwarded


def test_no_line_of_ours_runs_a_shell_or_what_it_reads():
    for name, tree in sources().items():
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            function = ast.unparse(call.func)
            where = f"{name}:{call.lineno}"
            told = {word.arg: ast.unparse(word.value) for word in call.keywords}
            assert function not in FORBIDDEN, where
            assert told.get("shell", "False") == "False", where
            assert not WORDS & told.keys(), where
            if function == "torch.load":
                assert told.get("weights_only") == "True", where
            if function.endswith("Image.open"):
                assert "formats" in told, where


def test_pickle_is_for_our_own_processes_alone():
    using = {
        name
        for name, tree in sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import) and any(alias.name == "pickle" for alias in node.names)
    }
    ours = {"restore/images/worker_pool.py", "restore/checkpoints/components.py"}
    ours |= {"restore/checkpoints/weights.py"}  # the name of the error that torch raises
    assert using <= ours | {"restore/batch/ray_executor.py"}  # jobs and rows, to workers and back


# 8: paths


@posix
def test_what_is_in_the_making_is_nobodys_business(tmp_path, monkeypatch):
    opened = []
    whole = os.open

    def noting(path, flags, *words, **more):
        opened.append((Path(path).name, flags))
        return whole(path, flags, *words, **more)

    monkeypatch.setattr(os, "open", noting)
    with replacing(tmp_path / "a.png") as temporary:
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
        temporary.write_bytes(b"x")
    flags = dict(opened)[temporary.name]
    assert flags & os.O_EXCL and flags & os.O_NOFOLLOW and flags & os.O_CREAT
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == 0o666 & ~files.UMASK


@posix
def test_a_planted_temporary_is_not_written_through(tmp_path, monkeypatch):
    (tmp_path / "secret").write_text("secret")
    monkeypatch.setattr(files.secrets, "token_hex", lambda size: "0" * 2 * size)
    files.temporary_for(tmp_path / "a.png").symlink_to(tmp_path / "secret")
    with pytest.raises(FileExistsError), replacing(tmp_path / "a.png") as path:
        path.write_text("written")
    assert (tmp_path / "secret").read_text() == "secret"


@posix
@pytest.mark.parametrize("exists", ["skip", "overwrite"])
def test_a_planted_link_in_the_place_of_a_result_is_refused(photo, restored, tmp_path, exists):
    photo("a.png")
    photo("sub/b.png", 1)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "secret.png").write_text("secret")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "out" / "sub").symlink_to(tmp_path / "elsewhere")
    code, rows, _ = restored("--exists", exists)
    assert code == 1 and {row["code"] for row in rows.values()} == {"LINK"}
    assert (tmp_path / "secret.png").read_text() == "secret"
    assert not list((tmp_path / "elsewhere").iterdir())


@posix
@pytest.mark.parametrize(
    "name", ["report.jsonl", HIDDEN, f"{HIDDEN}/lock", f"{HIDDEN}/report.jsonl"]
)
def test_a_planted_link_in_the_place_of_the_report_is_refused(tmp_path, name):
    out, secret = tmp_path / "out", tmp_path / "secret"
    (out / name).parent.mkdir(parents=True)
    secret.mkdir() if name == HIDDEN else secret.write_text("secret")
    (out / name).symlink_to(secret)
    with pytest.raises((OutputError, UsageError)), Journal(out, "o", "w").open():
        pass
    assert name == HIDDEN or secret.read_text() == "secret"
    write_text(out / "summary.json", "{}")


# 9: secrets


CANARY = "hf_CANARYcanaryCANARY0123456789"


def test_tokens_are_in_no_report_log_or_picture(
    photo, restored, tmp_path, monkeypatch, stack, call
):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, CANARY)
    photo("a.png")
    (tmp_path / "in" / "bad.png").write_text("no picture")
    said = restored("--prompt", "a cat")[2]
    said += "".join(call("img2img", tmp_path / "in", "--prompt", "a", "--steps", 2, out="made")[1:])
    monkeypatch.setattr(stack.unet, "forward", lambda *_, **__: 1 / 0)  # with its trace
    said += restored("--prompt", "a cat", "--seed", 1)[2]
    assert CANARY not in said
    held = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(held) > 8 and not [path for path in held if CANARY.encode() in path.read_bytes()]
    with Image.open(tmp_path / "made" / "a.png") as image:
        assert "img2img" in image.text["restore"] and CANARY not in str(image.text)
    assert "ZeroDivisionError" in (tmp_path / "out" / "report.jsonl").read_text()


# 10: plug-ins


def test_listing_recipes_and_steps_imports_no_code_of_others(tmp_path):
    canary = tmp_path / "canary"
    (tmp_path / "my_ops.py").write_text(f"open({str(canary)!r}, 'w')")
    (tmp_path / "mine.yaml").write_text("name: mine\nsteps: [{kind: my_ops.Rust}]\n")
    for words in (["list"], ["list", "--ops"]):
        done = subprocess.run(
            [sys.executable, "-m", "restore", "degrade", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert not canary.exists()


# 11: licences

FREE = re.compile(
    r"apache|mit\b|bsd|isc|psf|python software|mpl|mozilla|hpnd|zlib|unlicense|cc0|public domain|"
    r"\b0bsd|nvidia|lgpl|lesser|historical",
    re.IGNORECASE,
)
BARRED = re.compile(
    r"agpl|affero|non-?commercial|\bnc\b|(?<!l)(?<!lesser )gpl(?!.*exception)", re.I
)


def installed(names, seen):
    """The installed distributions that these need, and what those need in turn."""
    for text in names:
        needed = Requirement(text)
        if needed.name.lower() in seen or (
            needed.marker and not needed.marker.evaluate({"extra": ""})
        ):
            continue
        try:
            found = importlib.metadata.distribution(needed.name)
        except importlib.metadata.PackageNotFoundError:
            continue
        seen[needed.name.lower()] = found
        installed(found.requires or [], seen)
    return seen


def licence(found):
    told = found.metadata
    kinds = [line for line in told.get_all("Classifier", []) if line.startswith("License")]
    short = (told.get("License") or "").strip().splitlines()
    return " ".join([told.get("License-Expression") or "", *kinds, *short[:1]])


def test_what_the_core_needs_is_free_for_any_use():
    needed = installed(PROJECT["dependencies"], {})
    assert len(needed) > 15
    for name, found in needed.items():
        told = licence(found)
        assert FREE.search(told) and not BARRED.search(told), f"{name}: {told!r}"
