"""What may befall a run: kills, torn and flipped files, full disks, batches that are no numbers."""

import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
import toy
from folders import closed
from toy import ToyStage, assert_equal, train

from degradations import RecipeError
from restore import cli, files
from restore.checkpoints import manifest
from restore.errors import ConfigError, DiskFullError, ImageError, NonFiniteError, OutputError
from restore.training import checkpoint, logs, loop, optim

NEWEST, BEFORE = "step_00000006", "step_00000003"


@pytest.fixture(autouse=True)
def stage(monkeypatch):
    monkeypatch.setitem(loop.STAGES, "pixels", ToyStage)
    monkeypatch.setattr(ToyStage, "met", [])
    monkeypatch.setattr(ToyStage, "broken", set())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run with two checkpoints."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(loop.STAGES, "pixels", ToyStage)
        folder = tmp_path_factory.mktemp("trained") / "run"
        train(folder, steps=6, save_every=3)
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """A copy of it, to be harmed."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


class KilledError(BaseException):
    """Nothing catches it, as nothing catches kill -9."""


@pytest.mark.parametrize(
    ("steps", "kills"), [(40, 4), pytest.param(200, 20, marks=pytest.mark.slow)]
)
def test_f11_kills_change_no_bit_and_no_sample(tmp_path, monkeypatch, steps, kills):
    rng = random.Random(11)
    train(tmp_path / "whole", steps=steps, save_every=7, show_every=50)
    whole = list(ToyStage.met)
    rate_at, write = optim.rate_at, manifest.write
    deadline = 0

    def at_step(step, *args):
        if step == deadline:
            raise KilledError
        return rate_at(step, *args)

    def while_saving(folder):
        if folder.name.startswith(".step_") and int(folder.name[6:14]) >= deadline:
            raise KilledError
        return write(folder)

    torn = tmp_path / "torn"
    met: dict[int, list[int]] = {}
    for kill in range(kills):
        ToyStage.met, deadline = [], 9 * (kill + 1) + rng.randrange(8)
        with monkeypatch.context() as patched, pytest.raises(KilledError):
            if kill % 2:
                patched.setattr(manifest, "write", while_saving)
            else:
                patched.setattr(optim, "rate_at", at_step)
            train(torn, steps=steps, save_every=7, show_every=50)
        met |= {min(ToyStage.met, default=0): ToyStage.met}
    ToyStage.met = []
    train(torn, steps=steps, save_every=7, show_every=50)
    met |= {min(ToyStage.met): ToyStage.met}
    assert_equal(tmp_path / "whole" / f"step_{steps:08d}", torn / f"step_{steps:08d}")
    for first, order in met.items():  # each run took up the order where its checkpoint had left it
        assert order == whole[first : first + len(order)]
    assert not list(torn.glob(".step_*"))
    assert steps_logged(torn) == steps_logged(tmp_path / "whole")


def steps_logged(folder):
    lines = (folder / "log.csv").read_text().splitlines()
    return Counter(tuple(line.split(",")[:2]) for line in lines)


def test_f9_a_cut_file_is_met_before_use(run, caplog):
    good = run / NEWEST
    for name in sorted(path.name for path in good.iterdir()):
        whole = (good / name).read_bytes()
        for length in (0, 1, len(whole) // 2, len(whole) * 99 // 100, len(whole) - 1):
            (good / name).write_bytes(whole[:length])
            assert not checkpoint.is_valid(good), (name, length)
            (good / name).write_bytes(whole)
    assert checkpoint.is_valid(good)
    (good / "ema.safetensors").write_bytes(b"")
    assert checkpoint.latest(run).name == BEFORE
    assert f"{NEWEST} is damaged" in caplog.text
    assert (run / f"damaged_{NEWEST}").is_dir()  # put aside, not lost


def test_f9_a_hundred_flipped_bits_are_met_before_use(run):
    rng, files = random.Random(9), sorted((run / NEWEST).iterdir())
    for _ in range(100):
        file = rng.choice(files)
        data = bytearray(file.read_bytes())
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        whole = file.read_bytes()
        file.write_bytes(data)
        assert not checkpoint.is_valid(run / NEWEST), file.name
        file.write_bytes(whole)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json"])
def test_f9_training_goes_on_from_before_a_missing_file(run, name, trained):
    (run / NEWEST / name).unlink()
    train(run, steps=6, save_every=3)
    assert_equal(run / NEWEST, trained / NEWEST)


def test_f9_a_checkpoint_of_another_shape_is_refused_by_name(run, monkeypatch):
    monkeypatch.setattr(toy, "WIDTH", 12)
    with pytest.raises(ConfigError, match=r"0.bias has the shape \[16\], .* asks for \[24\]"):
        train(run, steps=8)
    assert checkpoint.is_valid(run / NEWEST)


def test_f9_a_checkpoint_of_another_configuration_is_refused_by_name(run):
    with pytest.raises(ConfigError, match="seed was 0, now 1"):
        train(run, steps=8, seed=1)
    with pytest.raises(ConfigError, match=r"stage\.layers was 2, now 3"):
        train(run, steps=8, stage={"kind": "pixels", "layers": 3})


def test_what_may_change_on_the_way_is_told(run, caplog):
    train(run, steps=8, learning_rate=1e-4, workers=0, log_every=2)
    assert "learning_rate was 0.0005, now 0.0001" in caplog.text
    assert "log_every" not in caplog.text


def test_another_batch_goes_on_with_the_samples_after_those_it_has_met(run):
    train(run, steps=8, batch=6, resume=str(run / NEWEST))
    assert ToyStage.met == list(range(24, 36))


def test_a_fresh_start_does_not_mix_with_an_old_run(run):
    with pytest.raises(ConfigError, match="holds checkpoints of another run"):
        train(run, steps=8, resume=False)


@pytest.mark.parametrize("name", ["best", "zeroth"])  # before and after step_ in the alphabet
def test_a_renamed_checkpoint_goes_on_unless_the_folder_holds_a_newer_one(run, name):
    kept = Path(shutil.copytree(run / BEFORE, run.with_name(name)))
    with pytest.raises(ConfigError, match=rf"holds {NEWEST}, newer than .*{name}.* step 3; give"):
        train(run, steps=8, resume=str(kept))
    newest = (run / NEWEST).rename(run.with_name(f"{name}_6"))
    train(run, steps=8, resume=str(newest))
    assert (run / "step_00000008").is_dir()


@pytest.mark.parametrize(
    "wrong",
    [
        {"resume": False},
        {"resume": "nowhere"},
        {"seed": 1},
        {"batch": 6},
        {"stage": {"kind": "pixels", "layers": 3}},
    ],
)
def test_where_it_goes_on_is_settled_before_data_are_read(wrong, run, monkeypatch):
    def read(*_):
        raise AssertionError("the data were read")

    monkeypatch.setitem(loop.STAGES, "pixels", read)
    with pytest.raises(ConfigError, match="resume"):
        train(run, steps=8, **wrong)


def test_what_a_killed_run_had_not_finished_writing_is_removed(run, tmp_path, monkeypatch):
    def replaced(*_):
        raise KilledError

    with monkeypatch.context() as patched, pytest.raises(KilledError):
        patched.setattr(files.os, "replace", replaced)
        patched.setattr(Path, "unlink", lambda *_, **__: None)
        train(run, steps=8)
    left = [path.name for path in run.iterdir() if files.is_temporary(path)]
    (run / ".restore-of-mine").write_text("")
    assert left
    train(run, steps=8)
    assert not [path for path in run.iterdir() if files.is_temporary(path)]
    assert (run / ".restore-of-mine").exists()


def test_a_checkpoint_from_before_options_were_kept_goes_on(run, trained):
    for folder in run.glob("step_*"):
        step = json.loads((folder / "state.json").read_text())["step"]
        (folder / "state.json").write_text(json.dumps({"step": step}))
        manifest.write(folder)
    shutil.rmtree(run / NEWEST)
    train(run, steps=6, save_every=3)
    assert_equal(run / NEWEST, trained / NEWEST)


def test_pruning_never_takes_the_new_one_for_an_old(run):
    """The newest is damaged, so a valid one of a smaller number is written beside it."""
    (run / NEWEST / "ema.safetensors").write_bytes(b"")
    train(run, steps=5, save_every=5, keep=1)
    assert [path.name for path in run.glob("step_*")] == ["step_00000005"]


def killer(*words) -> str:
    """What tests/killer.py prints."""
    script = Path(__file__).with_name("killer.py")
    env = os.environ | {"PYTHONPATH": str(script.parents[1])}
    command = [sys.executable, str(script), *map(str, words)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("keep", "kills"),
    [(1, 5), *(pytest.param(keep, 25, marks=pytest.mark.slow) for keep in (1, 3))],
)
def test_f10_a_kill_while_saving_leaves_a_valid_checkpoint(tmp_path, keep, kills):
    torn = killer("save", tmp_path, keep, kills)
    if kills > 20:
        assert int(torn)  # some met a checkpoint half written


def test_a_full_disk_costs_no_checkpoint(run):
    before = {path.name for path in run.glob("step_*")}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = (run / NEWEST / "optimizer.safetensors").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, hard))
    try:
        with pytest.raises(OutputError, match=r"cannot be written \(.*\); those before it stay"):
            train(run, steps=9, save_every=3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name for path in run.glob("step_*")} == before
    assert not list(run.glob(".step_*"))
    train(run, steps=9, save_every=3)
    assert checkpoint.latest(run).name == "step_00000009"


@pytest.mark.parametrize("method", ["scalars", "pictures"])
def test_a_full_disk_is_told_with_its_place_and_its_mend(run, monkeypatch, method):
    def write(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as a write does: it names no file

    monkeypatch.setattr(logs.Record, method, write)
    with pytest.raises(DiskFullError, match=rf"{run}: cannot be written: .*; make room, then run"):
        train(run, steps=9, save_every=3)


def test_two_runs_do_not_share_a_folder(run):
    with files.locked(run), pytest.raises(OutputError, match="another run writes here; wait"):
        train(run, steps=9)
    train(run, steps=9)


def test_a_file_is_no_folder_of_a_run(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file: is a file, or lies within one; give a folder"):
        train(tmp_path / "file", steps=1)
    within = files.locked(tmp_path / "file" / "within")
    with pytest.raises(OutputError, match="within: is a file, or lies within one"), within:
        pass


def test_a_batch_that_is_no_number_stops_before_the_update_and_is_kept(tmp_path):
    ToyStage.broken = {18}  # of step 4
    folder = tmp_path / "run"
    with pytest.raises(NonFiniteError, match=r"step 4: .*samples 16 to 19: nan"):
        train(folder, steps=6, save_every=2)
    kept = folder / "failed_00000004"
    assert json.loads((kept / "samples.json").read_text()) == {"samples": [16, 17, 18, 19]}
    assert toy.load_file(kept / "batch.safetensors")["x"].isnan().any(1).tolist() == [
        *(False, False, True, False)
    ]
    assert not closed(folder)
    assert checkpoint.latest(folder).name == "step_00000004"
    ToyStage.broken = set()
    train(folder, steps=6, save_every=2)
    train(tmp_path / "whole", steps=6, save_every=2)
    assert_equal(folder / NEWEST, tmp_path / "whole" / NEWEST)


def test_a_gradient_that_is_no_number_stops_before_the_update(tmp_path, monkeypatch):
    class Steep(ToyStage):
        def loss(self, batch, step, part):
            losses = super().loss(batch, step, part)
            weight = self.model[0].weight
            root = (weight - weight.detach()).square().sum().sqrt()  # 0, its gradient 0 / 0
            return {**losses, "root": root}

    monkeypatch.setitem(loop.STAGES, "pixels", Steep)
    with pytest.raises(NonFiniteError, match=r"step 0: the loss or its gradient is not finite"):
        train(tmp_path / "run", steps=2)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_f11_kill_9_twenty_times_on_a_real_stage(tmp_path):
    pytest.importorskip("sklearn")  # it has the digits
    config = tmp_path / "c.yaml"
    config.write_text(
        "output: unsaid\nstage: {kind: pixels, channels: [8, 16], layers: 1, steps: 2}\n"
        "steps: 200\nbatch: 4\nsave_every: 3\nshow_every: 100\nlog_with: []\ndevice: cpu\n"
    )
    killer("train", tmp_path, config, 20)
    assert_equal(tmp_path / "whole" / "step_00000200", tmp_path / "torn" / "step_00000200")


def test_the_command_tells_a_wrong_run_by_its_exit_code(run, tmp_path, capsys):
    config = run.with_suffix(".yaml")
    shutil.copy(run / "config.yaml", config)
    assert cli.main(["train", str(config), f"output={run}", "seed=3"]) == 2
    assert "seed was 0, now 3" in capsys.readouterr().err
    ToyStage.broken = {25}
    assert cli.main(["train", str(config), f"output={run}", "steps=8"]) == 1
    assert "samples 24 to 27: nan" in capsys.readouterr().err


FAULTS = {
    "image": (ImageError("CORRUPT", "a.png: broken data"), 1, "a.png: broken data"),
    "config": (ConfigError("photos: gone; give others"), 2, "photos: gone; give others"),
    "recipe": (RecipeError("my.Rust: apply gives None"), 2, "my.Rust: apply gives None"),
    "system": (
        OSError(5, "Input/output error", "b.png"),
        3,
        "[Errno 5] Input/output error: 'b.png'",
    ),
}


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_refused_in_a_worker_is_told_in_a_line(run, monkeypatch, capsys, fault, workers):
    error, exit_code, line = FAULTS[fault]
    example = ToyStage.example

    def broken(self, rng, index):
        if index == 26:
            raise error
        return example(self, rng, index)

    monkeypatch.setattr(ToyStage, "example", broken)
    more = [f"output={run}", "steps=8", f"workers={workers}"]
    assert cli.main(["train", str(run / "config.yaml"), *more]) == exit_code
    said = capsys.readouterr().err.splitlines()
    assert [told for told in said if told.startswith("restore:")] == [f"restore: {line}"]
    assert not any("Traceback" in told for told in said)


# Torch raises where a death finds it: while multiprocessing connects, a socket stays open.
@pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_a_worker_that_is_killed_is_told_in_a_line(run, monkeypatch, capsys):
    example = ToyStage.example

    def killed(self, rng, index):
        if index == 26 and torch.utils.data.get_worker_info():
            os.kill(os.getpid(), signal.SIGKILL)
        return example(self, rng, index)

    monkeypatch.setattr(ToyStage, "example", killed)
    words = ["train", str(run / "config.yaml"), f"output={run}", "steps=8"]
    assert cli.main([*words, "workers=2"]) == 1
    said = capsys.readouterr().err
    assert "ended from outside" in said and "set workers lower" in said and "Traceback" not in said
    assert cli.main([*words, "workers=0"]) == 0


def test_a_mistake_in_a_worker_keeps_its_traceback(run, monkeypatch):
    monkeypatch.setattr(ToyStage, "example", lambda self, rng, index: int("a"))
    with pytest.raises(ValueError, match=r"(?s)worker process 0.*test_training_faults"):
        cli.main(["train", str(run / "config.yaml"), f"output={run}", "steps=8", "workers=1"])


def test_resumed_moments_lie_in_memory_as_their_weights_do(tmp_path):
    """A fused update reads both in one order; moments in another order belong to other weights."""

    def fresh():
        torch.manual_seed(0)
        model = torch.nn.Conv2d(4, 8, 3).to(memory_format=torch.channels_last)
        return model, torch.optim.AdamW(model.parameters(), 0.1, fused=True)

    def step(model, optimizer):
        model(torch.linspace(-1, 1, 4 * 64).view(1, 4, 8, 8)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    model, optimizer = fresh()
    state = checkpoint.State(model, [p.detach().clone() for p in model.parameters()], optimizer)
    step(model, optimizer)
    saved = checkpoint.save(tmp_path, checkpoint.Progress(1), state, keep=1)
    step(model, optimizer)
    again, other = fresh()
    state = checkpoint.State(again, [p.detach().clone() for p in again.parameters()], other)
    checkpoint.resume(saved, state)
    step(again, other)
    assert torch.equal(again.weight, model.weight)
