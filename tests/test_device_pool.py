"""A process on each device: what one run makes, whatever becomes of the processes."""

import os
import signal
import subprocess
import sys
from multiprocessing import active_children
from pathlib import Path

import hostile
import psutil
import pytest
import torch
from folders import TEMPORARY, posix, rows, tree
from teams import Deadly, DeadlyAtOnce, Watch, check_equal, model, photos, report, run

from restore import cli
from restore.batch import device_pool, devices, folder
from restore.checkpoints import accelerators
from restore.errors import ModelError, UsageError

fixtures = model, photos
ONE, TWO = ["cpu"], ["cpu", "cpu"]
DRIVER = """
import sys
from pathlib import Path
from teams import Watch, run
if __name__ == "__main__":
    inputs, out, model = map(Path, sys.argv[1:4])
    show = Watch(lambda row: print(row["key"], flush=True))
    run(inputs, out, model, devices=["cpu", "cpu"], show=show)
"""


def begun(place: Path, *words: Path) -> subprocess.Popen:
    """A run by two workers in a process of its own, that has done two files."""
    script = place / "driver.py"
    script.write_text(DRIVER)
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    command = [sys.executable, str(script), *map(str, words)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    assert process.stdout
    for _ in range(2):
        assert process.stdout.readline()
    return process


def test_two_workers_make_what_one_process_makes(tmp_path, photos, model):
    inputs = photos(12)
    alone = run(inputs, tmp_path / "alone", model)
    watch = Watch()
    both = run(inputs, tmp_path / "both", model, devices=TWO, show=watch)
    check_equal(tmp_path / "alone", tmp_path / "both")
    assert (both.done, both.failed, both.left) == (alone.done, alone.failed, alone.left)
    assert (both.done, both.failed) == (11, 1)
    assert sorted(watch.keys) == sorted(rows(tmp_path / "both"))
    again = run(inputs, tmp_path / "both", model, devices=ONE)
    assert (again.finished, again.done, again.failed) == (11, 0, 1)
    other = run(inputs, tmp_path / "both", model)  # one process goes on where two stopped
    assert (other.finished, other.done) == (11, 0)


def test_three_shards_run_apart_and_merged_are_one_run(tmp_path, photos, model):
    inputs = photos(12)
    run(inputs, tmp_path / "one", model)
    parts = [tmp_path / f"part{nth}" for nth in (1, 2, 3)]
    words = ["-s", 1, "--steps", 1, "--model", model, "--device", "cpu"]
    for nth, part in enumerate(parts, 1):
        given = ["upscale", inputs, *words, "--shard", f"{nth}/3", "-o", part]
        assert cli.main(list(map(str, given))) in (0, 1)  # one of them has the broken file
    merging = ["report", "merge", *parts, "-o", tmp_path / "merged"]
    assert cli.main(list(map(str, merging))) == 1  # for the broken file
    made = [tree(part) for part in parts]
    assert all(made) and sum(map(len, made)) == 11
    assert {name: data for part in made for name, data in part.items()} == tree(tmp_path / "one")
    merged = report(tmp_path / "merged")
    for row in merged:  # it names the results where they are
        if "output" in row:
            assert (tmp_path / "merged" / row["output"]).exists()
            row["output"] = row["output"].split("/", 2)[2]
    assert merged == report(tmp_path / "one")


@posix
def test_a_worker_that_dies_is_replaced_and_its_file_is_done_again(tmp_path, photos):
    inputs = photos(12)
    run(inputs, tmp_path / "alone", "nano")
    killed = []

    def kill(row):
        others = [one for one in active_children() if one.name.startswith("restore worker")]
        fresh = [one for one in others if one.pid not in killed]
        if len(killed) < 2 and fresh and int(row["key"][2:-4]) in (1, 9):
            killed.append(fresh[0].pid)
            fresh[0].kill()

    made = run(inputs, tmp_path / "out", "nano", devices=TWO, show=Watch(kill))
    # a worker may die between its commit and its row: the file is finished then
    assert len(killed) == 2 and made.done + made.finished == 11
    check_equal(tmp_path / "alone", tmp_path / "out")


@posix
@pytest.mark.slow
@pytest.mark.parametrize(("kind", "names"), [(Deadly, TWO), (Deadly, ONE), (DeadlyAtOnce, ONE)])
def test_a_file_that_ends_its_workers_costs_no_other(
    tmp_path, photos, model, monkeypatch, kind, names
):
    monkeypatch.setattr(folder, "RunSpec", kind)
    made = run(photos(8), tmp_path / "out", model, devices=names)
    row = rows(tmp_path / "out")[kind.key]
    assert row["code"] == "CRASHED" and "SIGKILL" in row["error"]
    assert (made.done, made.failed) == (6, 2)


@posix
def test_workers_that_die_without_a_model_end_the_run(tmp_path, photos, model, monkeypatch):
    monkeypatch.setattr(device_pool, "_serve", hostile.die)
    monkeypatch.setattr(device_pool, "STILLBORN", 2)  # each takes a second or more to start
    with pytest.raises(ModelError, match=r"end before they have a model \(SIGKILL\)"):
        run(photos(3), tmp_path / "out", model, devices=ONE)


@posix
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_is_killed_goes_on(tmp_path, photos, model, number):
    inputs = photos(24)
    process = begun(tmp_path, inputs, tmp_path / "out", model)
    family = psutil.Process(process.pid).children(recursive=True)
    with process:
        process.send_signal(number)
        process.wait(30)
    gone, left = psutil.wait_procs(family, timeout=30)
    assert gone and not left
    if number == signal.SIGINT:
        assert not list((tmp_path / "out").rglob(f"{TEMPORARY}*.png"))
    made = run(inputs, tmp_path / "out", model, devices=TWO)
    assert made.finished >= 2 and made.done and made.left == 0
    run(inputs, tmp_path / "alone", model)
    check_equal(tmp_path / "alone", tmp_path / "out")
    assert not list((tmp_path / "out").rglob(f"{TEMPORARY}*"))


@pytest.mark.slow
def test_who_looks_on_may_end_it_and_the_rest_is_left(tmp_path, photos, model):
    stopped = []
    told = {"devices": TWO, "show": Watch(stopped.append), "stop": lambda: "ASKED" * bool(stopped)}
    made = run(photos(24), tmp_path / "out", model, **told)
    assert made.stopped == "ASKED" and made.left >= 24 - 4
    assert made.left + made.done + made.failed == 24 == len(rows(tmp_path / "out"))


@pytest.mark.parametrize("given", [["cpu", "0"], [], [""]])
def test_devices_are_of_one_kind(given):
    with pytest.raises(UsageError, match="--devices"):
        devices.parse_devices(given)
    assert devices.parse_devices(["0", "cuda:1"]) == ["cuda:0", "cuda:1"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="speaks of machines without one")
def test_devices_that_are_not_there_are_told_before_any_work(tmp_path, photos, model):
    with pytest.raises(ModelError, match="cuda:0: no such device"):
        run(photos(1), tmp_path / "out", model, "auto", devices=["0"])


def test_devices_need_not_be_of_the_best_kind(tmp_path, photos, monkeypatch):
    inputs = photos(2)
    run(inputs, tmp_path / "alone", "nano")
    monkeypatch.setattr(accelerators, "pick", lambda: "cuda")
    run(inputs, tmp_path / "out", "nano", "auto", devices=ONE)
    assert tree(tmp_path / "out") == tree(tmp_path / "alone")
