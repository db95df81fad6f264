"""Faults of the model: memory that runs out, numbers that leave the finite ones, and company.

None changes a byte of a picture, or it is a row and no file.
"""

import json
from copy import deepcopy

import numpy as np
import pytest
import torch
from folders import counts, rows, tree
from PIL import Image

from restore import cli
from restore.diffusion import tiling
from restore.diffusion.tiling import Windows, windowed
from restore.errors import NonFiniteError, OutOfMemoryError
from restore.options import UpscaleOptions
from restore.tasks import run
from restore.tasks.run import restore

# F5: out of memory


def told(kind):
    return {
        "device": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        "cublas": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
        "allocator": RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        "host": MemoryError(),
    }[kind]


@pytest.mark.parametrize("kind", ["device", "cublas", "allocator", "host"])
@pytest.mark.parametrize("most", [1, 2, 3])
def test_f5_fewer_windows_at_once_give_the_same_bytes(monkeypatch, kind, most):
    x = torch.randn(1, 2, 28, 40, generator=torch.Generator().manual_seed(0))
    asked = []

    def predict(crops, t, corners):
        asked.append(len(corners))
        if len(corners) > most:
            raise told(kind)
        return crops * 2 + torch.tensor(corners).sum(1).view(-1, 1, 1, 1)

    whole = windowed(predict_free, Windows(16, 12), 8)
    monkeypatch.setattr(tiling, "windows_at_once", lambda device, wanted: wanted)
    careful = windowed(predict, Windows(16, 12), 8)
    first, again = careful(x, torch.tensor(0)), careful(x, torch.tensor(0))
    assert torch.equal(first, whole(x, torch.tensor(0))) and torch.equal(first, again)
    assert max(asked[-2:]) <= most, "what did not fit once is not tried again"


def predict_free(crops, t, corners):
    return crops * 2 + torch.tensor(corners).sum(1).view(-1, 1, 1, 1)


def test_f5_one_window_that_does_not_fit_is_the_callers(monkeypatch):
    def predict(crops, t, corners):
        raise told("device")

    with pytest.raises(torch.OutOfMemoryError):
        windowed(predict, Windows(16, 12), 8)(torch.zeros(1, 1, 16, 16), torch.tensor(0))

    def wrong(crops, t, corners):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(tiling, "windows_at_once", lambda device, wanted: wanted)
    with pytest.raises(RuntimeError, match="shapes"):
        windowed(wrong, Windows(16, 12), 8)(torch.zeros(1, 1, 16, 16), torch.tensor(0))


def failing_at(stack, monkeypatch, fails):
    """The UNet raises what `fails(call)` gives; returns the counter of its calls."""
    calls = []
    forward = stack.unet.forward

    def flaky(*words, **more):
        calls.append(None)
        error = fails(len(calls))
        if error:
            raise error
        return forward(*words, **more)

    monkeypatch.setattr(stack.unet, "forward", flaky)
    return calls


@pytest.mark.parametrize(("steps", "width"), counts((1, 44), (6, 84)))
def test_f5_out_of_memory_at_any_window_gives_the_same_picture(
    stack, picture, monkeypatch, steps, width
):
    options, low = UpscaleOptions(scale=2, steps=steps), picture(44, width)
    whole = restore(low, options, stack, 5)
    with monkeypatch.context() as patch:
        calls = failing_at(stack, patch, lambda call: None)
        restore(low, options, stack, 5)
    assert len(calls) >= 4 * steps
    for k in range(1, len(calls) + 1):
        with monkeypatch.context() as patch:
            failing_at(stack, patch, lambda call, k=k: told("device") if call == k else None)
            made = restore(low, options, stack, 5)
        assert np.array_equal(made.pixels, whole.pixels), k
        assert "computed on the CPU" in made.warnings[0]


def test_f5_without_any_memory_it_is_a_row(stack, picture, monkeypatch, call, tmp_path):
    Image.fromarray(picture(20, 20).pixels).save(tmp_path / "a.png")
    for kind in ("device", "host"):
        with monkeypatch.context() as patch:
            failing_at(stack, patch, lambda call, kind=kind: told(kind))
            with pytest.raises(OutOfMemoryError, match="smaller scale"):
                restore(picture(20, 20), UpscaleOptions(scale=2), stack, 5)
            assert call("upscale", tmp_path / "a.png", "-s", 2)[0] == 1
        assert rows(tmp_path / "out")["a.png"]["code"] == "OOM"
        assert not tree(tmp_path / "out")


@pytest.mark.gpu
def test_f5_a_small_card_gives_the_picture_of_a_large_one(stack, picture):
    ours = deepcopy(stack)
    for part in ours.parts:
        part.to("cuda")
    low, options = picture(200, 260), UpscaleOptions(scale=2, windows=64)
    whole = restore(low, options, ours, 5).pixels.astype(int)
    taken = torch.cuda.max_memory_allocated()
    torch.cuda.empty_cache()
    everything = torch.cuda.get_device_properties(0).total_memory
    for share in (0.5, 0.25, 0.02):  # of what it took
        torch.cuda.set_per_process_memory_fraction(share * taken / everything)
        try:
            made = restore(low, options, ours, 5)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        assert np.abs(made.pixels.astype(int) - whole).max() <= 2, share
        assert made.pixels.any(axis=2).mean() > 0.5


# F8: NaN, infinity, black


def poisoned(value, at):
    """A hook that spoils the at-th answer of a module."""
    seen = []

    def hook(module, args, answer):
        seen.append(None)
        if len(seen) == at or at == 0:
            tensor = answer if isinstance(answer, torch.Tensor) else answer.sample
            tensor[..., 0, 0] = value
        return answer

    return hook


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["unet first", "unet last", "decoder", "encoder"])
def test_f8_what_is_not_finite_is_a_row_and_no_file(stack, picture, call, tmp_path, where, value):
    Image.fromarray(picture(20, 20).pixels).save(tmp_path / "a.png")
    spoilt = deepcopy(stack)
    part, *which = where.split()
    module = spoilt.unet if part == "unet" else getattr(spoilt.vae, part)
    module.register_forward_hook(poisoned(value, {"first": 1, "last": 2}.get(*which or ["x"], 0)))
    options = UpscaleOptions(scale=2, steps=2)
    if part == "decoder" and not np.isnan(value):
        made = restore(picture(20, 20), options, spoilt, 1)  # infinite light is white: finite
        assert made.pixels.any()
        return
    with pytest.raises(NonFiniteError):
        restore(picture(20, 20), options, spoilt, 1)


def test_f8_black_and_nan_leave_no_file_behind(stack, picture, call, tmp_path, monkeypatch):
    Image.fromarray(picture(20, 20).pixels).save(tmp_path / "a.png")
    handle = stack.unet.register_forward_hook(poisoned(float("nan"), 0))
    codes = [call("upscale", tmp_path / "a.png", "-s", 2)[0]]
    handle.remove()
    dispatch = run.dispatch
    with monkeypatch.context() as patch:
        patch.setattr(run, "dispatch", lambda *words: zeroed(dispatch(*words)))
        codes.append(call("upscale", tmp_path / "a.png", "-s", 2)[0])
    assert codes == [1, 1] and rows(tmp_path / "out")["a.png"]["code"] == "NONFINITE"
    assert not tree(tmp_path / "out")
    assert call("upscale", tmp_path / "a.png", "-s", 2)[0] == 0


def zeroed(made):
    made.pixels[:] = 0
    return made


@pytest.mark.parametrize("at", range(1, 11))
def test_f8_half_precision_is_computed_again_in_fp32(stack, picture, at):
    half = deepcopy(stack)
    torch.nn.Module.to(half.unet, dtype=torch.bfloat16)
    full = deepcopy(half)
    options = UpscaleOptions(scale=2, steps=10)
    low = picture(8, 8)
    seen = []

    def overflow(module, args, answer):
        seen.append(None)
        if module.dtype == torch.bfloat16 and len(seen) == at:
            answer.sample[..., 0, 0] = float("nan")
        return answer

    half.unet.register_forward_hook(overflow)
    made = restore(low, options, half, 3)
    assert "computed again in fp32" in made.warnings[-1]
    with full.in_fp32():
        assert np.array_equal(made.pixels, restore(low, options, full, 3).pixels)


# F16: determinism


def test_f16_windows_shards_and_company_change_no_byte(tmp_path, call, pixels):
    (tmp_path / "in").mkdir()
    for index in range(5):
        Image.fromarray(pixels(30, 44, index)).save(tmp_path / "in" / f"{index}.png")
    assert call("upscale", tmp_path / "in", "-s", 2, out="whole")[0] == 0
    whole = tree(tmp_path / "whole")
    for at_once in (1, 4, 8):
        out = f"windows{at_once}"
        assert call("upscale", tmp_path / "in", "-s", 2, "--windows", at_once, out=out)[0] == 0
        assert tree(tmp_path / out) == whole
    codes = [
        call("upscale", tmp_path / "in", "-s", 2, "--shard", f"{nth}/3", out="shards")[0]
        for nth in (3, 1, 2)
    ]
    assert set(codes) <= {0, 2} and tree(tmp_path / "shards") == whole
    assert call("upscale", tmp_path / "in" / "3.png", "-s", 2, out="alone")[0] == 0
    assert tree(tmp_path / "alone")["3.png"] == whole["3.png"]
    code, out, _ = call("upscale", tmp_path / "in", "-s", 2, out="shards")
    assert code == 0 and "5 finished" in out, "a run without shards knows what they did"
    assert len(rows(tmp_path / "shards")) == 5


def test_f16_reports_of_shards_become_one(tmp_path, call, pixels):
    (tmp_path / "in").mkdir()
    for index in range(5):
        Image.fromarray(pixels(9, 9, index)).save(tmp_path / "in" / f"{index}.png")
    (tmp_path / "in" / "text.png").write_text("no picture")
    for nth in (1, 2):
        call("upscale", tmp_path / "in", "--shard", f"{nth}/2", out=f"part{nth}")
    words = ["report", "merge", tmp_path / "part1", tmp_path / "part2", "-o", tmp_path / "one"]
    assert cli.main([*map(str, words)]) == 1
    merged = rows(tmp_path / "one")
    assert sorted(merged) == [*(f"{index}.png" for index in range(5)), "text.png"]
    for row in merged.values():
        if row["status"] == "done":
            assert (tmp_path / "one" / row["output"]).read_bytes()
    assert json.loads((tmp_path / "one" / "summary.json").read_text())["failed"] == 1
    page = (tmp_path / "one" / "report.html").read_text()
    assert page.count("data:image/jpeg") == 2 * 5  # input and result
    assert page.index("text.png") < page.index("0.png")
