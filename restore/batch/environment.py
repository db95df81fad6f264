"""Check what this machine has and lacks, before a run touches any file."""

import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from restore.errors import ModelError

OURS = "restore-toolkit"
SAME = {"opencv-python-headless": ("opencv-python", "opencv-contrib-python")}  # have cv2 too
PYTHON = (3, 11), (3, 14)
LITTLE_DISK, LITTLE_MEMORY = 1e9, 2e9
ADDS = {
    "train": "training: TensorBoard, WebDataset shards, LoRA, metrics",
    "video": "the degradations of video codecs",
    "pixel": "other people's upscalers, .pth and .safetensors",
    "onnx": "`restore export` and --engine onnx, which starts in a second",
    "ui": "`restore serve`: the page and the HTTP API",
    "formats": "HEIC, TIFF results, TIFFs above 33 megapixels",
    "basicsr": "NIQE, and the reference that degradations are checked against",
}


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        state: ok; note: it could be better; broken: something does not work.
        message: What was found.
        mend: What to do about it; empty if there is nothing to do.
    """

    state: Literal["ok", "note", "broken"]
    message: str
    mend: str = ""


def require() -> None:
    """Check Python and the required packages without importing any of them.

    Raises:
        ModelError: Python is out of range, or a package is missing or out of range.
    """
    broken = [one for one in needs() if one.state == "broken"]
    if broken:
        lines = [f"{one.message}; {one.mend}" for one in broken]
        raise ModelError("\n".join([*lines, "`restore doctor` looks at everything"]))


@cache
def needs() -> tuple[Finding, ...]:
    """Check the versions of Python and of the required packages."""
    found = []
    version = ".".join(map(str, sys.version_info[:3]))
    if not PYTHON[0] <= sys.version_info[:2] < PYTHON[1]:
        mend = "make an environment with a Python from 3.11 to 3.13"
        found.append(Finding("broken", f"Python {version} is out of range", mend))
    else:
        found.append(Finding("ok", f"Python {version}"))
    wrong = [one for one in map(_unmet, _requirements()) if one]
    found += wrong
    if not wrong:
        found.append(Finding("ok", f"{len(_requirements())} packages are there, in range"))
    return tuple(found)


def examine(out: Path) -> Iterator[Finding]:
    """Run all checks, one after the other.

    Args:
        out: The folder whose disk is checked; it need not exist.
    """
    yield from needs()
    yield torch()
    yield torchvision()
    yield from codecs()
    yield from models()
    yield fonts()
    yield from room(out)
    yield from extras()


def torch() -> Finding:
    """Whether torch loads and computes, and where."""
    try:
        import torch

        from restore.checkpoints import accelerators

        names = [f"cpu, {torch.get_num_threads()} threads"]
        if accelerators.cpu_computes_bf16():
            names.append("it computes bf16: --dtype bf16 is faster")
        if torch.cuda.is_available():
            for nth in range(torch.cuda.device_count()):
                about = torch.cuda.get_device_properties(nth)
                names.append(f"{about.name}, {about.total_memory / 1e9:.0f} GB")
        if torch.backends.mps.is_available():
            names.append("mps")
        device = "cuda" if torch.cuda.is_available() else "cpu"
        if float(torch.ones(2, device=device).sum()) != 2:
            raise ValueError(f"1 + 1 is not 2 on {device}")
    except Exception as error:  # a torch that does not fit its driver fails in many ways
        return Finding("broken", f"torch: {_short(error)}", "install torch again, for this machine")
    return Finding("ok", f"torch {torch.__version__}: {'; '.join(names)}")


def torchvision() -> Finding:
    """Whether torchvision works. It is not required, but a broken one breaks other packages."""
    from restore.diffusion import torchvision as looked_at

    state, why = looked_at.tried()
    if state == "broken":
        message = f"torchvision {_version('torchvision')} cannot be imported: {why}"
        return Finding("broken", message, looked_at.MEND)
    if state == "absent":
        return Finding("ok", "torchvision is absent, which does no harm")
    return Finding("ok", f"torchvision {_version('torchvision')} works")


def codecs() -> Iterator[Finding]:
    """Write and read each result format once."""
    import numpy as np

    from restore.images import encode
    from restore.images.picture import Picture, read

    works, pixels = [], np.full((16, 16, 3), 128, np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        for name, form in encode.FORMATS.items():
            if name == "tiff" and find_spec("tifffile") is None:
                continue  # `extras` reports it
            path = Path(folder) / f"picture{form.suffix}"
            try:
                encode.encode(Picture(pixels), path, name)
                if abs(int(read(path).pixels[8, 8, 0]) - 128) >= 8:
                    raise ValueError("what is read is not what was written")
            except Exception as error:  # builds of these libraries differ
                mend = "pip install --force-reinstall pillow tifffile"
                yield Finding("broken", f"{name}: {_short(error)}", mend)
            else:
                works.append(name)
    yield Finding("ok", f"written and read: {', '.join(works)}")


def models() -> Iterator[Finding]:
    """Whether the shipped models are intact, and the user's own can be read."""
    from restore.checkpoints import library, manifest, model_paths

    for name in model_paths.list_shipped():
        try:
            manifest.check(model_paths.SHIPPED / name)
        except ValueError as error:
            yield Finding("broken", str(error), f"install {OURS} again")
        else:
            yield Finding("ok", f"model {name}: every file as it was shipped")
    for one in library.list_user_models():
        if one.fault:
            mend = f"rename or delete {one.path}"
            if model_paths.has_user_model(one.name):
                mend = f"restore models remove {one.name}, and add it again"
            yield Finding("broken", f"model {one.name}: {one.fault}", mend)


def fonts() -> Finding:
    """The fonts that training draws letters with and figures in reports use."""
    import matplotlib

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    count = len(list(folder.glob("*.ttf")))
    if not count:
        return Finding(
            "broken", f"no fonts in {folder}", "pip install --force-reinstall matplotlib"
        )
    return Finding("ok", f"{count} fonts")


def room(out: Path) -> Iterator[Finding]:
    """Free disk space where results go, and free memory."""
    import psutil

    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    for what, free, least, mend in (
        (f"disk of {there}", shutil.disk_usage(there).free, LITTLE_DISK, "make room"),
        ("memory", psutil.virtual_memory().available, LITTLE_MEMORY, "end other programs"),
    ):
        message = f"{what}: {free / 1e9:.1f} GB are free"
        yield Finding("ok", message) if free > least else Finding("note", message, mend)


def extras() -> Iterator[Finding]:
    """What each optional extra adds, and which of its packages are missing."""
    for extra, adds in ADDS.items():
        wrong = [one for one in map(_unmet, _requirements(extra)) if one]
        if not any(one.state == "broken" for one in wrong):
            yield Finding("ok", f"extra {extra}: {adds}")
            continue
        lacking = ", ".join(one.message for one in wrong)
        mend = f"pip install '{OURS}[{extra}]'"
        yield Finding("note", f"extra {extra} would add {adds}: {lacking}", mend)


@cache
def _requirements(extra: str = "") -> tuple[str, ...]:
    """Our requirements: from pyproject.toml beside the code, else from the installed package."""
    from importlib import metadata

    from packaging.requirements import Requirement

    about = Path(__file__).parents[2] / "pyproject.toml"
    if about.is_file():
        project = tomllib.loads(about.read_text(encoding="utf-8"))["project"]
        given = project["optional-dependencies"][extra] if extra else project["dependencies"]
        lines = [Requirement(line) for line in given]
        lines = [line for line in lines if not line.marker or line.marker.evaluate()]
    else:
        lines = [Requirement(line) for line in metadata.requires(OURS) or []]
        others = [line for line in lines if not line.marker or line.marker.evaluate({"extra": ""})]
        lines = [
            line for line in lines if not line.marker or line.marker.evaluate({"extra": extra})
        ]
        lines = [line for line in lines if not extra or line not in others]
    return tuple(f"{line.name}{line.specifier}" for line in lines)


def _unmet(wanted: str) -> Finding | None:
    """What is wrong with a requirement; None if it is met. A newer version is only a note."""
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

    need = Requirement(wanted)
    there = [v for name in (need.name, *SAME.get(need.name, ())) if (v := _version(name))]
    mend = f"pip install '{wanted}'"
    if not there:
        return Finding("broken", f"{need.name} is missing", mend)
    least = SpecifierSet(",".join(str(one) for one in need.specifier if one.operator != "<"))
    for version in there:
        if need.specifier.contains(version, prereleases=True):
            return None
        if least.contains(version, prereleases=True):
            return Finding("note", f"{need.name} {version} is newer than what was tried", mend)
    return Finding("broken", f"{need.name} {there[0]} is too old", mend)


def _version(name: str) -> str:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
