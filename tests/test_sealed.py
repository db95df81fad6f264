"""An adversary changes files while they are loaded: what was hashed is loaded, or nothing is."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pixel_nets
import pytest
import tiny
import torch
from safetensors.torch import save_file
from test_lora import LINEARS

from restore.checkpoints import devices, engines, export, manifest, model_paths, weights
from restore.checkpoints.load import load
from restore.checkpoints.save import save
from restore.diffusion.contexts.text import TextContext
from restore.errors import RestoreError
from restore.training import checkpoint

REFUSED = "refused"
NANO = ("stack.json", "manifest.json", "vae/config.json", "restorer/config.json")
NANO += ("restorer/diffusion_pytorch_model.safetensors", "fusion/config.json")
NANO += ("restorer/diffusion_pytorch_model.faithful.safetensors",)


class Adversary:
    """Puts other bytes in a file's place, by an audit hook, before its opening of some number."""

    def __init__(self):
        self.path, self.put, self.opened = "", None, 0
        sys.addaudithook(self.see)

    def see(self, event: str, given: tuple) -> None:
        if not self.path or event != "open" or isinstance(given[0], int):
            return
        if os.path.abspath(os.fsdecode(given[0])) == self.path:
            path, self.path = self.path, ""
            if self.put:
                self.put(self.opened)
            self.opened, self.path = self.opened + 1, path

    def watch(self, path: Path, put: Callable[[int], None] | None) -> None:
        self.put, self.opened = put, 0
        self.path = os.path.abspath(path)


@pytest.fixture(scope="session")
def adversary():
    return Adversary()


def evil(data: bytes, path: Path) -> bytes:
    """Other content of the same form: other numbers."""
    if path.suffix != ".json":
        return data[:-6] + bytes(byte ^ 1 for byte in data[-6:]) if data[-6:].strip() else data
    told, changed = json.loads(data), []

    def other(value):
        if changed or not isinstance(value, dict | list | float | bool):
            return value
        if isinstance(value, dict):
            return {key: other(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [other(inner) for inner in value]
        changed.append(True)
        return not value if isinstance(value, bool) else value * 0.75

    return json.dumps(other(told)).encode()


def edit(path: Path, data: bytes) -> None:
    """The same inode, other bytes."""
    with path.open("r+b") as file:
        file.write(data)
        file.truncate()


def swap(path: Path, data: bytes) -> None:
    other = path.with_name("other")
    other.write_bytes(data)
    os.replace(other, path)


def print_of(made) -> tuple[str, str]:
    """(digest, what decides the pixels) of a loaded model."""
    found = hashlib.sha256()
    for part in made.parts:
        for name, tensor in sorted(part.state_dict().items()):
            found.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    if hasattr(made, "schedule"):
        told = [dict(made.schedule.config), made.windows, made.residual_scale, made.layout.name]
        context = made.context
        told += (
            [sorted(context.tokenizer.get_vocab().items())]
            if isinstance(context, TextContext)
            else []
        )
        found.update(repr(told).encode())
    if control := getattr(made, "control", None):
        found.update(control.picture.pixels.tobytes() if control.picture else b"")
        found.update(str(control.scale).encode())
    if hasattr(made, "span"):
        found.update(repr((made.span, made.fidelity, made.restore_steps)).encode())
    return made.digest, found.hexdigest()


@dataclass
class Case:
    """Something that is loaded, and the files that it consists of."""

    load: Callable[[], tuple[str, str]]
    files: list[Path]

    def outcome(self):
        try:
            return self.load()
        except RestoreError:
            return REFUSED


def of(call: Callable, *files: Path) -> Case:
    found = [path for file in files for path in ([file] if file.is_file() else file.rglob("*"))]
    return Case(lambda: print_of(call()), sorted(path for path in found if path.is_file()))


def ours(top: Path, stack) -> Case:
    save(stack, top / "ours", "# tiny\n", torch.float32)
    return of(lambda: load(str(top / "ours"), "cpu"), top / "ours")


def diffusers_folder(top: Path, stack) -> Case:
    folder = tiny.checkpoint(top / "base", "base")
    return of(lambda: load(str(folder), "cpu"), folder)


def single_file(top: Path, stack) -> Case:
    import diffusers

    folder = tiny.checkpoint(top / "base", "base")
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder)
    tensors = {name: t.contiguous() for name, t in tiny.single_file(pipe, False).items()}
    save_file(tensors, top / "one.safetensors")
    configs = [path for path in folder.rglob("*.json") if path.parent.name in ("unet", "scheduler")]
    call = partial(load, str(top / "one.safetensors"), "cpu", config=str(folder))
    return of(call, top / "one.safetensors", *configs)


def pickled(top: Path, stack) -> Case:
    folder = tiny.checkpoint(top / "base", "base")
    path = folder / "vae" / "diffusion_pytorch_model.safetensors"
    torch.save(weights.read_file(path), path.with_suffix(".bin"))
    path.unlink()
    call = partial(load, str(folder), "cpu", allow_pickle=True)
    return of(call, path.with_suffix(".bin"))


def lora(top: Path, stack) -> Case:
    peft = pytest.importorskip("peft")
    folder = tiny.checkpoint(top / "base", "base")
    import diffusers

    unet = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet")
    config = peft.LoraConfig(r=2, lora_alpha=6.0, target_modules=LINEARS, init_lora_weights=False)
    peft.get_peft_model(unet, config).save_pretrained(top / "lora")
    place = top / "lora" / "adapter_config.json"
    told = {"r": 2, "lora_alpha": 6.0, "use_rslora": False}
    place.write_text(json.dumps(told))
    call = partial(load, str(folder), "cpu", loras=[(str(top / "lora"), 1.0)])
    return of(call, top / "lora" / "adapter_model.safetensors", place)


def with_controlnet(top: Path, stack) -> Case:
    import diffusers
    from PIL import Image

    folder = tiny.checkpoint(top / "base", "base")
    unet = diffusers.UNet2DConditionModel.from_pretrained(folder / "unet")
    net = tiny.controlnet(top / "tile", unet)
    image = top / "edges.bmp"
    Image.effect_noise((16, 16), 90).convert("RGB").save(image)
    call = partial(load, str(folder), "cpu", controlnet=str(net), control_image=image)
    return of(call, net, image)


def pixels(top: Path, stack, suffix: str) -> Case:
    path = pixel_nets.save(top, "SRVGGNetCompact", suffix)
    return of(lambda: devices.load(str(path), "cpu"), path)


def exported(top: Path, stack) -> Case:
    """Its numbers are inside ONNX Runtime: what it answers is compared."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    file = pixel_nets.save(top, "SRVGGNetCompact", ".safetensors")
    folder = export.export(str(file), top / "onnx")

    def call() -> tuple[str, str]:
        made = engines.load(str(folder), engine="onnx")
        answer = made.network(torch.linspace(0, 1, 3 * 24 * 24).view(1, 3, 24, 24))
        return made.digest, hashlib.sha256(answer.numpy().tobytes()).hexdigest()

    names = ("stack.json", "manifest.json", "network/model.onnx")
    return Case(call, [folder / name for name in names])


def first_stage(top: Path, stack) -> Case:
    folder = Path(shutil.copytree(model_paths.find_path("nano"), top / "nano"))
    call = partial(engines.load, str(folder), "cpu", lazily=True)
    return of(call, *(folder / name for name in NANO))


def training(top: Path, stack) -> Case:
    def fresh():
        torch.manual_seed(0)
        model = torch.nn.Conv2d(4, 8, 3)
        average = [weight.detach().clone() for weight in model.parameters()]
        return checkpoint.State(model, average, torch.optim.AdamW(model.parameters()))

    state = fresh()
    state.model(torch.ones(1, 4, 8, 8)).sum().backward()
    state.optimizer.step()
    path = checkpoint.save(top, checkpoint.Progress(1, seconds=2.0), state, keep=1)

    def call() -> tuple[str, str]:
        state = fresh()
        progress = checkpoint.resume(path, state)
        moments = [m["exp_avg"] for m in state.optimizer.state_dict()["state"].values()]
        held = [*state.model.parameters(), *state.ema, *moments]
        found = hashlib.sha256(b"".join(one.detach().numpy().tobytes() for one in held))
        found.update(repr(progress).encode())
        return "the only one", found.hexdigest()

    return Case(call, sorted(path.iterdir()))


CASES = {
    "ours": ours,
    "diffusers": diffusers_folder,
    "single file": single_file,
    "pickle": pickled,
    "LoRA": lora,
    "ControlNet": with_controlnet,
    ".safetensors": partial(pixels, suffix=".safetensors"),
    ".pth": partial(pixels, suffix=".pth"),
    "ONNX": exported,
    "first stage": first_stage,
    "training": training,
}
NEEDED = {".safetensors": "spandrel", ".pth": "spandrel", "ONNX": "spandrel"}


def put(
    path: Path, nth: int, change: Callable, is_lasting: bool, data: tuple[bytes, bytes], number: int
) -> None:
    """Before an opening of a file: other bytes at the nth; its own again if not lasting."""
    if number == nth:
        change(path, data[1])
    elif not is_lasting:
        change(path, data[0])


@pytest.mark.parametrize("kind", CASES)
def test_what_was_hashed_is_loaded_or_nothing_is(kind, tmp_path, stack, adversary):
    """Before each opening of each file other bytes take its place, for that one or for good."""
    if not find_spec(NEEDED.get(kind, "torch")):
        pytest.skip(f"needs {NEEDED[kind]}")
    case = CASES[kind](tmp_path, stack)
    good = case.outcome()
    assert good != REFUSED
    seen = 0
    for path in case.files:
        kept = path.read_bytes()
        bad = evil(kept, path)
        adversary.watch(path, None)
        assert case.outcome() == good
        adversary.path = ""
        opened = adversary.opened
        swap(path, bad)
        whole = case.outcome()  # of the other bytes from the beginning
        swap(path, kept)
        for nth in range(opened):
            change, is_lasting = ((edit, True), (swap, True), (edit, False))[seen % 3]
            seen += 1

            adversary.watch(path, partial(put, path, nth, change, is_lasting, (kept, bad)))
            found = case.outcome()
            adversary.path = ""
            swap(path, kept)
            assert found in (good, whole, REFUSED), (path.name, nth, change.__name__, is_lasting)
    assert seen >= len(case.files)


def test_a_file_that_is_added_or_taken_away_in_between_is_refused(tmp_path, monkeypatch):
    """Which parts a model has is decided by what is there, and that is checked as well."""
    folder = Path(shutil.copytree(model_paths.find_path("nano"), tmp_path / "nano"))
    find, change = manifest.find_model, []

    def found(name, *given, **how):
        answer = find(name, *given, **how)
        if change:
            change.pop()()
        return answer

    monkeypatch.setattr(manifest, "find_model", found)
    names = ("restorer/diffusion_pytorch_model.faithful.safetensors", "fusion", "restorer")
    for name in (*names, "text_encoder", "stack.json"):
        change.append(partial(os.rename, folder / name, tmp_path / "away"))
        with pytest.raises(RestoreError):
            load(str(folder), "cpu")
        os.rename(tmp_path / "away", folder / name)
    low = folder / "low_res_scheduler"
    change.append(partial(shutil.copytree, folder / "scheduler", low))
    with pytest.raises(RestoreError, match="added while the model was read"):
        load(str(folder), "cpu")
    shutil.rmtree(low)
    assert load(str(folder), "cpu").digest
