"""Faults: what is injected here costs at most the file in hand.

After each: a row for every input, no torn file, nothing left in the making, old files whole. The
`stress` marker has the same at full counts.
"""

import errno
import json
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from restore import batch, cli, cli_stop, flow, journal, windows
from restore.batch import run_all
from restore.errors import (
    DiskFullError,
    ImageError,
    NonFiniteError,
    OutOfMemoryError,
    OutputError,
)
from restore.files import TEMPORARY, find
from restore.flow import restore
from restore.jobs import plan
from restore.journal import HIDDEN, Journal
from restore.options import UpscaleOptions
from restore.windows import Windows, windowed

ROOT = Path(__file__).resolve().parents[1]
posix = pytest.mark.skipif(os.name != "posix", reason="speaks of POSIX")


def counts(few, many):
    """Two sets of counts, the second for `-m stress`."""
    return [few, pytest.param(*many, marks=pytest.mark.stress)]


# Folders of stand-in pictures, and their work


@pytest.fixture
def photos(tmp_path):
    return fill(tmp_path / "in", 8)


def fill(folder: Path, count: int) -> Path:
    for index in range(count):
        path = folder / f"{index % 7}" / f"{index:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(index).randbytes(2000))
    return folder


def copying(job, path):
    path.write_bytes(job.source.read_bytes()[::-1])
    return {"size_in": [1, 1], "size_out": [4, 4], "warnings": []}


def run(inputs, out, work=copying, exists="skip", **more):
    jobs = plan(find([inputs], out), out, lambda source: ".png")
    return run_all(jobs, work, Journal(out, "o", "w"), exists, **more)


def rows(out):
    lines = (out / "report.jsonl").read_text().splitlines()
    return {row["key"]: row for row in map(json.loads, lines)}


def tree(out):
    """Every result, by name."""
    files = (path for path in out.rglob("*.png") if HIDDEN not in path.parts)
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def check_all(inputs, out):
    """A row an input, every result whole, nothing in the making."""
    wanted = {p.relative_to(inputs).as_posix(): p.read_bytes()[::-1] for p in inputs.rglob("*.png")}
    assert rows(out).keys() == wanted.keys()
    assert tree(out) == {key: wanted[key] for key in tree(out)}
    assert not list(out.rglob(f"{TEMPORARY}*"))


# F1: kill -9

WORKER = """
import os, sys, time
from pathlib import Path
from restore.batch import run_all
from restore.files import find
from restore.jobs import plan
from restore.journal import Journal
inputs, out, log = map(Path, sys.argv[1:4])
def work(job, path):
    with log.open("a") as file:
        file.write(job.key + "\\n")
    data = job.source.read_bytes()[::-1]
    with path.open("wb") as file:
        file.write(data[:1000])
        file.flush()
        time.sleep(float(sys.argv[4]))
        file.write(data[1000:])
    return {"size_in": [1, 1], "size_out": [4, 4], "warnings": []}
jobs = plan(find([inputs], out), out, lambda source: ".png")
print("begun", flush=True)
run_all(jobs, work, Journal(out, "o", "w"))
"""


def killed_at_random(command, kills, span_s, rng):
    """Run a command so often, killed each time; returns how many of the kills met it at work."""
    met = 0
    for _ in range(kills):
        process = subprocess.Popen(
            command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE
        )
        process.stdout.readline()
        time.sleep(rng.uniform(0, span_s))
        process.kill()
        met += process.wait() == -signal.SIGKILL
        process.stdout.close()
    return met


@posix
@pytest.mark.parametrize(("count", "kills"), counts((60, 5), (500, 20)))
@pytest.mark.timeout(600)
def test_f1_killed_at_random_and_resumed_it_ends_as_if_never_killed(tmp_path, count, kills):
    inputs, out, log = fill(tmp_path / "in", count), tmp_path / "out", tmp_path / "log"
    command = [sys.executable, "-c", WORKER, str(inputs), str(out), str(log), "0.002"]
    met = killed_at_random(command, kills, 0.03 * count / kills, random.Random(1))
    assert met > kills // 2, "the kills came too late"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    begun = log.read_text().split()
    assert count <= len(begun) <= count + met, "more was done again than was in flight"
    run(inputs, tmp_path / "unkilled")
    assert tree(out) == tree(tmp_path / "unkilled") and len(tree(out)) == count
    check_all(inputs, out)
    print(f"F1: {count} files, {met} of {kills} kills at work, {len(begun) - count} done again")


REAL = """
import sys
from restore import cli, devices
devices.load  # torch is in memory from here on
print("begun", flush=True)
sys.exit(cli.main(sys.argv[1:]))
"""


@posix
@pytest.mark.stress
@pytest.mark.timeout(600)
def test_f1_the_command_killed_at_random_gives_the_same_bytes(tmp_path, stack, pixels):
    from restore.loading import save

    save(stack, tmp_path / "tiny", "a tiny stack", dtype=torch.float32)
    (tmp_path / "in").mkdir()
    for index in range(8):
        Image.fromarray(pixels(40, 56, index)).save(tmp_path / "in" / f"{index}.png")
    words = ["upscale", str(tmp_path / "in"), "-s", "2", "--model", str(tmp_path / "tiny"), "-o"]
    command = [sys.executable, "-c", REAL, *words]
    met = killed_at_random([*command, str(tmp_path / "out")], 4, 3, random.Random(2))
    for out in ("out", "unkilled"):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([*command, str(tmp_path / out)], env=environment, check=True)
    assert tree(tmp_path / "out") == tree(tmp_path / "unkilled")
    assert len(tree(tmp_path / "out")) == 8 and met
    assert not list((tmp_path / "out").rglob(f"{TEMPORARY}*"))


# F2: signals


@posix
@pytest.mark.parametrize("repeats", counts(1, (10,)))
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_f2_a_signal_ends_the_run_within_ten_seconds(tmp_path, pixels, number, code, repeats):
    (tmp_path / "in").mkdir()
    for index in range(40):
        Image.fromarray(pixels(8, 8, index)).save(tmp_path / "in" / f"{index:02}.png")
    for repeat in range(repeats):
        out = tmp_path / f"out{repeat}"
        process = subprocess.Popen(
            [sys.executable, "-c", SLOW, "upscale", str(tmp_path / "in"), "-o", str(out)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        while "done" not in process.stderr.readline():
            pass
        time.sleep(random.Random(repeat).uniform(0, 0.3))
        began = time.monotonic()
        process.send_signal(number)
        told = process.communicate(timeout=10)[1]
        assert process.returncode == code and time.monotonic() - began < 10
        assert "run the same command again to go on" in told
        report = rows(out)
        assert len(report) == 40
        done = [row for row in report.values() if row["status"] == "done"]
        left = [row for row in report.values() if row["status"] == "left"]
        assert done and left and len(done) + len(left) == 40
        assert len(tree(out)) == len(done) and not list(out.rglob(f"{TEMPORARY}*"))
        assert json.loads((out / "summary.json").read_text())["stopped"] == number.name


SLOW = """
import sys, time
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from restore import cli, cli_batch
cli_batch.manifest.find_model = lambda name, **_: (Path(name), "digest")
module = ModuleType("restore.flow")
def restore(picture, *_):
    time.sleep(0.1)
    return replace(picture, pixels=picture.pixels.repeat(4, 0).repeat(4, 1))
module.restore = restore
sys.modules["restore.flow"] = module
module = ModuleType("restore.devices")
module.load = lambda *_, **__: None
sys.modules["restore.devices"] = module
sys.exit(cli.main(sys.argv[1:]))
"""


@posix
def test_f2_a_long_file_is_finished_if_that_is_quick_and_else_dropped(
    photos, tmp_path, monkeypatch
):
    monkeypatch.setattr(cli_stop, "GRACE_S", 0.3)

    def interrupted(seconds):
        with cli_stop.Stop() as halt:

            def work(job, path):
                signal.raise_signal(signal.SIGINT)
                until = time.monotonic() + seconds
                while time.monotonic() < until:
                    time.sleep(0.01)
                return copying(job, path)

            limits = batch.Limits(stop=lambda: halt.asked)
            return run(photos, tmp_path / "out", work, limits=limits)

    assert interrupted(0.01).done == 1
    before = tree(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt):
        interrupted(30)
    assert tree(tmp_path / "out") == before and len(rows(tmp_path / "out")) == 8
    assert run(photos, tmp_path / "out").done == 7
    check_all(photos, tmp_path / "out")
    assert threading.active_count() == 1, "the timer ended with the run"


# F3: the disk is full


@posix
@pytest.mark.parametrize("repeats", counts(2, (20,)))
def test_f3_a_size_limit_ends_the_run_and_spares_what_was_there(tmp_path, repeats):
    for repeat in range(repeats):
        inputs, out = tmp_path / f"in{repeat}", tmp_path / f"out{repeat}"
        fill(inputs, 6)
        run(inputs, out)
        before = tree(out)
        large = sorted(inputs.rglob("*.png"))[repeat % 6]
        large.write_bytes(bytes(3 << 20))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
        try:
            with pytest.raises(DiskFullError, match="run the same command again"):
                run(inputs, out)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert tree(out) == before
        key = large.relative_to(inputs).as_posix()
        assert rows(out)[key]["code"] == "DISK_FULL" and len(rows(out)) == 6
        assert json.loads((out / "summary.json").read_text())["stopped"] == "DISK_FULL"
        assert run(inputs, out).done == 1
        check_all(inputs, out)


@pytest.fixture
def small_disk(tmp_path):
    """8 MB, where this user may mount such a thing."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("repeats", counts(2, (20,)))
def test_f3_a_full_disk_ends_the_run_and_spares_what_was_there(tmp_path, small_disk, repeats):
    inputs = fill(tmp_path / "in", 20)
    run(inputs, small_disk / "first")
    before = tree(small_disk / "first")
    for path in inputs.rglob("*.png"):
        path.write_bytes(random.Random(path.name).randbytes(700_000))
    for repeat in range(repeats):
        with pytest.raises(DiskFullError):
            run(inputs, small_disk / "first", exists="overwrite" if repeat % 2 else "skip")
        now = tree(small_disk / "first")
        assert now.keys() == before.keys()
        whole = {
            p.relative_to(inputs).as_posix(): p.read_bytes()[::-1] for p in inputs.rglob("*.png")
        }
        assert all(data in (before[key], whole[key]) for key, data in now.items())
        assert not list(small_disk.rglob(f"{TEMPORARY}*"))
    for path in inputs.rglob("*.png"):
        path.write_bytes(path.read_bytes()[:1000])
    run(inputs, small_disk / "first")
    check_all(inputs, small_disk / "first")


# F4: the output folder goes away, or is read-only, or the disk breaks


def test_f4_a_folder_that_cannot_be_written_is_3_before_any_work(photos, tmp_path, monkeypatch):
    def closed(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(journal, "appending", closed)
    begun = []
    with pytest.raises(OutputError, match="Read-only") as caught:
        run(photos, tmp_path / "out", lambda *words: begun.append(words))
    assert caught.value.exit_code == 3 and not begun


@posix
def test_f4_a_folder_that_vanishes_is_not_continued_in_another(photos, tmp_path):
    out = tmp_path / "out"

    def work(job, path):
        facts = copying(job, path)
        if job.key.startswith("3"):
            out.rename(tmp_path / "unplugged")
            out.mkdir()
        return facts

    with pytest.raises(OutputError):
        run(photos, out, work)
    assert not tree(out)
    assert len(tree(tmp_path / "unplugged")) >= 3


@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS, errno.EACCES])
def test_f4_an_error_of_the_disk_costs_one_file(photos, tmp_path, monkeypatch, code):
    whole, calls = os.fsync, []

    def fsync(handle):
        calls.append(handle)
        if "/.restore-" in os.readlink(f"/proc/self/fd/{handle}") and len(calls) < 6:
            raise OSError(code, os.strerror(code))
        return whole(handle)

    if not Path("/proc/self/fd").exists():
        pytest.skip("needs /proc")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fsync)
        summary = run(photos, tmp_path / "out")
    assert summary.failed >= 1 and summary.done + summary.failed == 8
    codes = {row["code"] for row in rows(tmp_path / "out").values() if "code" in row}
    assert codes == {errno.errorcode[code]}
    check_all(photos, tmp_path / "out")
    assert run(photos, tmp_path / "out").failed == 0


def test_f4_a_journal_that_cannot_be_written_ends_the_run(photos, tmp_path, monkeypatch):
    def broken(self, row):
        with journal.as_output_error(self.path):
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Journal, "add", broken)
    with pytest.raises(OutputError, match="Input/output error"):
        run(photos, tmp_path / "out")
    assert not tree(tmp_path / "out"), "no result without its row"


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
    monkeypatch.setattr(windows, "at_a_time", lambda device, wanted: wanted)
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

    monkeypatch.setattr(windows, "at_a_time", lambda device, wanted: wanted)
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
    dispatch = flow.dispatch
    with monkeypatch.context() as patch:
        patch.setattr(flow, "dispatch", lambda *words: zeroed(dispatch(*words)))
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


# F13: clocks, two runs, stale locks


def test_f13_a_clock_that_jumps_does_nothing_again(photos, tmp_path, monkeypatch):
    run(photos, tmp_path / "out")
    for hours in (-1, 24 * 3650):
        now = time.time() + hours * 3600
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda now=now: now)
            for path in (tmp_path / "out").rglob("*.png"):
                os.utime(path, (now, now))
            assert run(photos, tmp_path / "out").finished == 8


@posix
def test_f13_a_second_run_is_told_and_nothing_is_written_twice(tmp_path):
    inputs, out, log = fill(tmp_path / "in", 30), tmp_path / "out", tmp_path / "log"
    command = [sys.executable, "-c", WORKER, str(inputs), str(out), str(log), "0.03"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    first = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    first.stdout.readline()
    while not log.exists():
        time.sleep(0.01)
    (out / "report.jsonl").unlink()  # even then
    with pytest.raises(OutputError, match="another run writes here") as caught:
        run(inputs, out)
    assert caught.value.exit_code == 3
    assert first.wait() == 0
    first.stdout.close()
    assert sorted(log.read_text().split()) == sorted(rows(out))
    check_all(inputs, out)


@posix
def test_f13_a_lock_is_never_stale(tmp_path):
    inputs, out, log = fill(tmp_path / "in", 10), tmp_path / "out", tmp_path / "log"
    command = [sys.executable, "-c", WORKER, str(inputs), str(out), str(log), "0.2"]
    assert killed_at_random(command, 1, 0.5, random.Random(0)) == 1
    assert run(inputs, out).failed == 0
    check_all(inputs, out)


@posix
def test_f13_shards_share_a_folder_and_a_whole_run_is_told(photos, tmp_path):
    out = tmp_path / "out"
    one, other, again, whole = (
        Journal(out, "o", "w", ending) for ending in (".1-of-2", ".2-of-2", ".1-of-2", "")
    )
    tidied = []
    with one.open(lambda: tidied.append(1)), other.open(lambda: tidied.append(2)):
        assert tidied == [1], "what the first one is making is not swept away by the second"
        for held in (again, whole):
            with pytest.raises(OutputError, match="another run"), held.open():
                pass
    with whole.open():
        pass


# F14: a torn line, a lost report


def test_f14_a_torn_last_line_costs_nothing(photos, tmp_path):
    out = tmp_path / "out"
    run(photos, out)
    whole = rows(out)
    data = (out / "report.jsonl").read_bytes()
    for cut in (1, 30, 200):
        (out / "report.jsonl").write_bytes(data[:-cut])
        assert run(photos, out).finished == 8
        assert rows(out) == whole


def test_f14_a_lost_report_is_rebuilt_from_what_is_there(photos, tmp_path):
    out = tmp_path / "out"
    run(photos, out)
    whole = rows(out)
    (out / "report.jsonl").unlink()
    (out / "summary.json").unlink()
    spoilt = out / next(iter(whole.values()))["output"]
    spoilt.write_bytes(b"torn")
    work = []

    def again(job, path):
        work.append(job.key)
        return copying(job, path)

    summary = run(photos, out, again)
    assert (summary.finished, summary.failed, len(work)) == (7, 1, 0)
    code = rows(out)[next(iter(whole))]
    assert code["code"] == "EXISTS", "a file that changed is not taken for ours"
    spoilt.unlink()
    assert run(photos, out, again).done == 1 and work == [next(iter(whole))]
    for key, row in whole.items():
        assert rows(out)[key]["output_sha256"] == row["output_sha256"]


def test_f14_without_its_copy_too_nothing_is_taken_for_ours(photos, tmp_path):
    out = tmp_path / "out"
    run(photos, out)
    for path in (out / "report.jsonl", out / HIDDEN / "report.jsonl"):
        path.unlink()
    before = tree(out)
    assert run(photos, out).failed == 8 and tree(out) == before
    assert {row["code"] for row in rows(out).values()} == {"EXISTS"}


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
    assert page.count("data:image/jpeg") == 5 and page.index("text.png") < page.index("0.png")


def test_an_image_error_stays_what_it_is(photos, tmp_path):
    def work(job, path):
        raise ImageError("CORRUPT", "broken")

    assert run(photos, tmp_path / "out", work).failed == 8
    limits = batch.Limits(max_failures=3)
    summary = run(photos, tmp_path / "other", work, limits=limits)
    assert (summary.failed, summary.left, summary.stopped) == (3, 5, "MAX_FAILURES")
    assert len(rows(tmp_path / "other")) == 8
