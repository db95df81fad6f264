"""Devices that this torch can use."""

from pathlib import Path

import torch

from restore.errors import ConfigError, ModelError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick() -> str:
    """Return the best device: cuda, mps or cpu."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def cpu_computes_bf16() -> bool:
    """Whether the CPU multiplies in bf16, by AMX or AVX-512; known on Linux only."""
    info = Path("/proc/cpuinfo")
    flags = info.read_text(encoding="utf-8", errors="replace").split() if info.is_file() else []
    return not {"amx_bf16", "avx512_bf16"}.isdisjoint(flags)


def precision(dtype: str, device: torch.device) -> torch.dtype:
    """Return a precision by name; auto is fp32 on a CPU, where it is exact, and bf16 elsewhere."""
    if dtype == "auto":
        dtype = "fp32" if device.type == "cpu" else "bf16"
    return DTYPES[dtype]


def named_dtype(dtype: str | torch.dtype) -> str:
    """Return the name of a precision: auto, or one of DTYPES. Raises ConfigError."""
    names = {value: name for name, value in DTYPES.items()}
    name = names.get(dtype, str(dtype)) if isinstance(dtype, torch.dtype) else dtype
    if name not in ("auto", *DTYPES):
        raise ConfigError(f"dtype {name}: there are auto, {', '.join(DTYPES)}")
    return name


def find(device: str) -> torch.device:
    """Return a device by name, or the best one for `auto`. Raises ModelError if it is missing."""
    there = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    name = pick() if device == "auto" else device
    if not there.get(name.split(":")[0], False):
        found = ", ".join(name for name, is_there in there.items() if is_there)
        raise ModelError(f"{device}: no such device for this torch; there are {found}")
    place = torch.device(name)
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise ModelError(f"{device}: no such device; the last one is cuda:{count - 1}")
    return place
