"""Find the files of published checkpoints: in a folder, in the hub's cache, or on the hub."""

import hashlib
import json
import re
from pathlib import Path

from restore.checkpoints import families
from restore.checkpoints.families import PARTS
from restore.errors import ModelError
from restore.storage import sealed

WEIGHED = ("vae", "vqvae", "unet", "text_encoder", "text_encoder_2")  # the parts with weights
# What diffusers and transformers call them; the last are the pickles of transformers
STEMS = "diffusion_pytorch_model", "model", "pytorch_model"
KINDS = {  # files of weights, or of their shards, the kind that is wanted most first
    "safetensors": ("{}.safetensors", "{}-?????-of-?????.safetensors"),
    "fp16": (
        *("{}.fp16.safetensors", "{}.fp16-?????-of-?????.safetensors"),
        "{}-?????-of-?????.fp16.safetensors",  # as diffusers wrote them before 0.28
    ),
    "pickles": ("{}.bin", "{}-?????-of-?????.bin"),
}
OURS = "stack.json", "restorer/diffusion_pytorch_model.faithful.safetensors"
LORA_FILES = "pytorch_lora_weights.safetensors", "adapter_model.safetensors"
PEFT_CONFIG = "adapter_config.json"  # beside a LoRA that PEFT saved
OF_PEFT = "base_model.model."  # prefix of the keys in such a LoRA
PICKLED = (".ckpt", ".bin", ".pt", ".pth")
HUB_ID = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


def fetch(name: str, revision: str | None, offline: bool, patterns: list[str]) -> Path:
    """Download a snapshot of the hub to its cache, and return its folder.

    Without network, or with HF_HUB_OFFLINE=1, only cached files are found.

    Args:
        name: `org/name` or `org/name@revision`.
        revision: Overrides that of the name.
        offline: Do not use the network.
        patterns: Globs of the files to download.

    Raises:
        ModelError: If files are missing; it says how to get them.
    """
    from huggingface_hub import constants, snapshot_download

    parts = HUB_ID.fullmatch(name)
    assert parts is not None
    repo, revision = parts["repo"], revision or parts["revision"]
    offline = offline or constants.HF_HUB_OFFLINE
    try:
        folder = snapshot_download(
            repo, revision=revision, allow_patterns=patterns, local_files_only=offline
        )
    except (OSError, ValueError) as error:  # no such entry, no network, no permission
        named = f"{repo}@{revision}" if revision else repo
        cause = str(error).partition("\n")[0]
        why = "and this run is offline" if offline else f"and the hub did not give it ({cause})"
        raise ModelError(
            f"{named}: no such folder or file, not in the hub's cache, {why}; check the name, or "
            f"fetch it once where there is a network: hf download {repo}"
            + (f" --revision {revision}" if revision else "")
        ) from error
    return Path(folder)


@sealed.apart()
def fetch_model(name: str, revision: str | None, offline: bool, allow_pickle: bool) -> Path:
    """Download a model with one kind of weights: safetensors, or else their fp16 variant.

    Configs are downloaded and checked first, so that nothing large is downloaded in vain.

    Args:
        name: `org/name` or `org/name@revision`.
        revision: Overrides that of the name.
        offline: Do not use the network.
        allow_pickle: Accept .bin weights if there are no others.

    Raises:
        ModelError: If it is no model that can be read, or files are missing.
    """
    tops = ["model_index.json", "stack.json", "manifest.json"]
    folder = fetch(name, revision, offline, tops)
    if not any((folder / top).is_file() for top in tops):
        raise ModelError(
            f"{name}: is no model: it has neither stack.json, as ours do, nor model_index.json, "
            "as a diffusers pipeline does"
        )
    families.refuse(folder, name)
    revision = folder.name  # its commit, so that the next fetches get the same one
    configs = [*(f"{part}/config.json" for part in PARTS), "scheduler/scheduler_config.json"]
    folder = fetch(name, revision, offline, [*tops, *configs])
    families.refuse(folder, name)
    rest = [*tops, *(f"{part}/*.{kind}" for part in PARTS for kind in ("json", "txt"))]
    for kind in KINDS if allow_pickle else [*KINDS][:2]:
        names = [name.format(stem) for name in KINDS[kind] for stem in STEMS]
        patterns = [f"{part}/{name}" for part in WEIGHED for name in names]
        folder = fetch(name, revision, offline, rest + patterns)
        if (folder / "manifest.json").is_file():  # ours: the manifest lists all files
            listed = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            return fetch(name, revision, offline, ["manifest.json", *listed])
        present = [folder / part for part in WEIGHED if (folder / part).is_dir()]
        if present and all(weight_files(part) for part in present):
            break
    return folder


@sealed.apart()
def fetch_controlnet(name: str, offline: bool, allow_pickle: bool) -> Path:
    """Download the config of a ControlNet, check it, and download its weights."""
    folder = fetch(name, None, offline, ["config.json"])
    families.refuse_controlnet(folder, name)
    for kind in KINDS if allow_pickle else [*KINDS][:2]:
        patterns = [name.format(STEMS[0]) for name in KINDS[kind]]
        folder = fetch(name, folder.name, offline, ["config.json", "*.index.json", *patterns])
        if weight_files(folder):
            break
    return folder


def weight_files(part: Path) -> list[Path]:
    """Return a component's weight files: safetensors, else their fp16 variant, else pickles."""
    for whole, *shards in KINDS.values():
        for stem in STEMS:
            if sealed.is_file(part / whole.format(stem)):
                return [part / whole.format(stem)]
            for shard in shards:
                if found := sorted(part.glob(shard.format(stem))):
                    return found
    return []


def refuse_pickles(files: list[Path], allow_pickle: bool) -> None:
    """Raise ModelError for pickled weights, unless they are allowed."""
    for path in files:
        if path.suffix in PICKLED and not allow_pickle:
            raise ModelError(
                f"{path}: these weights are pickled, and a pickle may run code; take a "
                ".safetensors of them, or, if you trust who made it, allow pickles "
                "(allow_pickle=True, --allow-pickle)"
            )


def digest(path: Path) -> str:
    """Return the SHA-256 of all that is read of a diffusers folder, or of one file.

    Raises:
        ModelError: If one of them is missing, a pipe or a device.
    """
    if path.is_file():
        return _sum(path)
    used = [path / "model_index.json"]
    for part in PARTS:
        used += sorted((path / part).glob("*.json")) + sorted((path / part).glob("*.txt"))
        used += weight_files(path / part)
    # what our own folders have besides, in case one lost its manifest
    used += [path / name for name in OURS if (path / name).is_file()]
    used += sorted((path / "context").glob("*.json")) + weight_files(path / "context")
    sums = [f"{file.relative_to(path).as_posix()} {_sum(file)}" for file in used]
    return hashlib.sha256("\n".join(sums).encode()).hexdigest()


def _sum(file: Path) -> str:
    try:
        return sealed.sha256(file)
    except OSError as error:
        problem = f"{file}: cannot be read: {error.strerror or error}"
        raise ModelError(f"{problem}; copy it again") from error


def lora_file(file: str | Path) -> Path:
    """Return the file of a LoRA. Raises ModelError if there is none, or if it is pickled."""
    path = Path(file)
    if path.is_dir():
        held = [path / name for name in LORA_FILES if (path / name).is_file()]
        if not held:
            raise ModelError(f"{path}: holds no LoRA, which is called {' or '.join(LORA_FILES)}")
        path = held[0]
    if not path.is_file():
        raise ModelError(f"{path}: no such LoRA file or folder")
    refuse_pickles([path], allow_pickle=False)
    if path.suffix != ".safetensors":
        raise ModelError(f"{path}: a LoRA is a .safetensors file")
    return path
