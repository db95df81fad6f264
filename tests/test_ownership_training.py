"""What training may prune, put aside and export over; what `degrade apply` writes through."""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from folders import posix
from toy import ToyStage, train

from degradations import RecipeError, pairs
from restore.checkpoints import manifest
from restore.errors import ConfigError, OutputError
from restore.training import checkpoint, loop, model_card
from restore.training.ownership import LATER


@pytest.fixture(autouse=True)
def stage(monkeypatch):
    monkeypatch.setitem(loop.STAGES, "pixels", ToyStage)
    monkeypatch.setattr(ToyStage, "met", [])


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(loop.STAGES, "pixels", ToyStage)
        folder = tmp_path_factory.mktemp("trained") / "run"
        train(folder, steps=4, save_every=2)
    return folder


@pytest.fixture
def run(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "run"))


def save(path: Path, text: str = "mine") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_pruning_takes_our_checkpoints_alone(run):
    shutil.copytree(run / "step_00000004", run / "step_00000002_best")
    kept = [
        save(run / "step_00000001.zip"),
        save(run / "step_00000000" / "notes.txt"),
        save(run / "step_9" / "model.safetensors"),
        save(run / "step_00000002" / "notes.txt"),
        save(run / ".step_1.partial" / "mine.txt"),
        save(run / ".step_00000009.partial" / "mine.txt"),
        save(run / "damaged_step_00000004" / "mine.txt"),
        run / "step_00000002_best" / "model.safetensors",
    ]
    (run / "step_00000004" / "ema.safetensors").write_bytes(b"")
    train(run, steps=6, save_every=1, keep=1)
    assert [path.name for path in checkpoint.steps(run)] == ["step_00000006"]
    assert all(path.exists() for path in kept)
    assert (run / "damaged_step_00000004_2").is_dir()


def test_a_folder_at_a_checkpoints_place_is_not_replaced(run):
    mine = save(run / "step_00000005" / "mine.txt")
    with pytest.raises(OutputError, match="those before it stay"):
        train(run, steps=6, save_every=1)
    assert mine.read_text() == "mine"
    assert checkpoint.latest(run).name == "step_00000004"


@pytest.mark.parametrize(
    "name",
    [
        *("config.yaml", "options.json", "log.csv", "unreadable.jsonl", "trackers.json"),
        *("export", "export/notes.txt"),
    ],
)
def test_a_users_own_file_in_a_runs_place_is_refused_before_work(run, name):
    if name == "export":
        shutil.rmtree(run / name)
    mine = save(run / name, "mine: 1\n")
    with pytest.raises(ConfigError, match="replace"):
        train(run, steps=6)
    assert mine.read_text() == "mine: 1\n" and ToyStage.met == []


def test_a_card_that_was_edited_is_not_replaced(run):
    card = run / "export" / "README.md"
    card.write_text(card.read_text() + "and my own words\n")
    with pytest.raises(ConfigError, match="not as a run of ours wrote it"):
        train(run, steps=6)
    assert "my own words" in card.read_text()


def test_a_full_disk_leaves_the_export_that_was_there(run, monkeypatch):
    before = {p.name: p.read_bytes() for p in (run / "export").rglob("*") if p.is_file()}

    def full(folder, about):
        save(folder / "README.md", "half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OutputError, match="No space"):
        patched.setattr(model_card, "write", full)
        train(run, steps=4)
    assert {p.name: p.read_bytes() for p in (run / "export").rglob("*") if p.is_file()} == before
    assert not [
        path for path in run.iterdir() if path.name.startswith(".restore-") and path.is_dir()
    ]
    train(run, steps=4)
    assert manifest.foreign(run / "export") is None


@pytest.mark.parametrize("is_between", [False, True])
def test_what_a_killed_export_left_goes_once_there_is_another(run, is_between):
    from restore.files import temporary_for

    left = temporary_for(run / "folder")
    (run / "export").rename(left) if is_between else shutil.copytree(run / "export", left)
    mine = save(run / ".restore-notes" / "mine.txt")
    for _ in range(2):
        train(run, steps=4)
    assert not left.exists() and mine.exists() and manifest.foreign(run / "export") is None


def test_a_table_that_is_no_list_of_sources_is_not_copied(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("train.csv", "sources.csv", "photos/train.csv", "photos.csv"):
        save(tmp_path / name, "file,source,licence,customer\na.png,x,CC0,Ann\n")
    assert model_card.find_notes(str(photos)) is None
    save(photos / "photos.csv", "file,source,licence\na.png,x,CC0\n")
    assert model_card.find_notes(str(photos)) == photos / "photos.csv"


# pairs

HR = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)


def read(path):
    return HR


def apply(tmp_path, count=2):
    asked = pairs.PairSet("clean_bicubic", crop=32)
    return pairs.make({"a": tmp_path / "a.png"}, asked, tmp_path / "out", count, read)


@posix
@pytest.mark.parametrize("name", ["hr", "lr", "traces", "pairs.json", "recipe.yaml"])
def test_pairs_are_written_through_no_link(tmp_path, name):
    assert apply(tmp_path).new == 2
    victim = tmp_path / "victim"
    is_folder = (tmp_path / "out" / name).is_dir()
    (tmp_path / "out" / name).rename(victim)
    (tmp_path / "out" / name).symlink_to(victim)
    before = sorted(victim.iterdir()) if is_folder else victim.read_bytes()
    with pytest.raises(RecipeError, match="is a link"):
        apply(tmp_path, 4)
    assert before == (sorted(victim.iterdir()) if is_folder else victim.read_bytes())


@posix
def test_pairs_replace_planted_files_and_sweep_their_own_alone(tmp_path):
    assert apply(tmp_path).new == 2
    victim, out = save(tmp_path / "victim"), tmp_path / "out"
    (out / "lr" / "000002.png").symlink_to(victim)
    (out / "hr" / "000002.png").hardlink_to(victim)
    (out / "hr" / f".000002.png.{os.getpid()}.part").symlink_to(victim)
    mine = save(out / "hr" / ".notes.part")
    ours = save(out / "hr" / ".000001.png.0123456789abcdef.part")
    assert apply(tmp_path, 3).new == 1
    assert victim.read_text() == "mine" and mine.exists() and not ours.exists()


@pytest.mark.parametrize(
    "text", ["[1]", "{}", '{"seed": 3}', "[[1, 2]]", "null", '{"a": null}', "\0"]
)
def test_a_pairs_json_that_is_none_is_told(tmp_path, text):
    assert apply(tmp_path).new == 2
    (tmp_path / "out" / "pairs.json").write_text(text)
    with pytest.raises(RecipeError, match=r"pairs\.json cannot be read|other options"):
        apply(tmp_path)


# manifests


@posix
@pytest.mark.parametrize(
    "told",
    [
        *([], None, 1, "x", {"a": 1}, {"a": None}, {"../x": "0" * 64}, {"/dev/zero": "0" * 64}),
        *({"": "0" * 64}, {"zero": "0" * 64}, {"pipe": "0" * 64}, {"a\0": "0" * 64}, {"a": "0"}),
    ],
)
def test_a_manifest_that_is_none_makes_a_checkpoint_damaged(run, told):
    newest = run / "step_00000004"
    (newest / "zero").symlink_to("/dev/zero")
    os.mkfifo(newest / "pipe")
    (newest / manifest.NAME).write_text(json.dumps(told))
    assert not checkpoint.is_valid(newest)
    assert checkpoint.latest(run).name == "step_00000002"


def test_a_run_of_an_older_version_goes_on(run):
    """Its record lacks the options that were added since, and has some that are gone."""
    file = run / "options.json"
    kept = {k: v for k, v in json.loads(file.read_text()).items() if k not in LATER}
    file.write_text(json.dumps(kept | {"tensorboard": False}))
    train(run, steps=6)
    assert checkpoint.latest(run).name == "step_00000006"
