"""Ray does the work: what one run makes, whatever becomes of actors and of the driver."""

import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from folders import TEMPORARY, counts, posix, rows
from teams import Watch, check_equal, model, photos, run

from restore import cli
from restore.batch import ray_executor
from restore.errors import UsageError

fixtures = model, photos
needs_ray = [
    pytest.mark.ray,
    pytest.mark.skipif(find_spec("ray") is None, reason="ray is not installed: the extra ray"),
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore"),  # theirs
]
DRIVER = """
import sys
from pathlib import Path
from restore.batch.ray_executor import Cluster
from teams import Watch, run
if __name__ == "__main__":
    inputs, out, model = map(Path, sys.argv[1:4])
    show = Watch(lambda row: print(row["key"], flush=True))
    run(inputs, out, model, cluster=Cluster(2), show=show)
"""


@pytest.fixture
def here(monkeypatch):
    """Actors are processes that find what tests send them."""
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)


def actors(driver: psutil.Process) -> list[psutil.Process]:
    found = []
    for process in driver.children(recursive=True):
        try:
            if process.name().startswith("ray::MapWorker"):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def counting(processes: int) -> float:
    """How often so many processes together count to ten million in a second."""
    command = [sys.executable, "-c", "for _ in range(4): sum(i * i for i in range(10**7))"]
    began = time.monotonic()
    for process in [subprocess.Popen(command) for _ in range(processes)]:
        assert process.wait() == 0
    return 4 * processes / (time.monotonic() - began)


def check_parquet(out: Path) -> None:
    from pyarrow import parquet

    table = parquet.read_table(out / "report.parquet").to_pylist()
    told = {json.loads(line["row"])["key"]: line["status"] for line in table}
    assert len(table) == len(told) and told == {k: row["status"] for k, row in rows(out).items()}


class Test:
    pytestmark = needs_ray

    @pytest.mark.parametrize("count", counts(30, [1000]))
    def test_two_workers_make_what_one_process_makes(self, tmp_path, photos, model, here, count):
        inputs = photos(count)
        alone = run(inputs, tmp_path / "alone", model)
        watch = Watch()
        made = run(inputs, tmp_path / "out", model, cluster=ray_executor.Cluster(2), show=watch)
        broken = len(range(3, count, 100))
        assert (made.done, made.failed, made.left) == (alone.done, alone.failed, 0)
        assert made.failed == broken and len(watch.keys) == len(set(watch.keys)) == count
        check_equal(tmp_path / "alone", tmp_path / "out")
        check_parquet(tmp_path / "out")
        assert not list((tmp_path / "out" / ".restore").glob("rows/*/*"))

    @posix
    @pytest.mark.parametrize("count", counts(30, [1000]))
    def test_an_actor_that_dies_costs_nothing(self, tmp_path, photos, model, here, count):
        inputs = photos(count)
        run(inputs, tmp_path / "alone", model)
        killed = []

        def kill(row):
            if not killed and (found := actors(psutil.Process())):
                killed.append(found[0].pid)
                found[0].kill()

        watch = Watch(kill)
        run(inputs, tmp_path / "out", model, cluster=ray_executor.Cluster(2), show=watch)
        assert killed and len(watch.keys) == len(set(watch.keys)) == count
        check_equal(tmp_path / "alone", tmp_path / "out")
        assert not list((tmp_path / "out").rglob(f"{TEMPORARY}*"))

    @posix
    @pytest.mark.parametrize("count", counts(60, [1000]))
    def test_a_driver_that_is_killed_goes_on(self, tmp_path, photos, model, here, count):
        inputs = photos(count)
        script = tmp_path / "driver.py"
        script.write_text(DRIVER)
        words = [sys.executable, str(script), inputs, tmp_path / "out", model]
        with subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE) as process:
            assert process.stdout
            for _ in range(count // 5):
                assert process.stdout.readline()
            working = actors(psutil.Process(process.pid))
            process.kill()
        gone, left = psutil.wait_procs(working, timeout=60)
        assert gone and not left
        made = run(inputs, tmp_path / "out", model, cluster=ray_executor.Cluster(2))
        assert made.finished >= count // 5 - 1 and made.done and made.left == 0
        run(inputs, tmp_path / "alone", model)
        check_equal(tmp_path / "alone", tmp_path / "out")

    @pytest.mark.stress
    def test_two_workers_do_what_two_processes_can(self, tmp_path, photos, model, here):
        """Cores may share what they compute with: processes that only count tell how far."""
        inputs, rates = photos(300, 96), []
        for workers in (1, 2):
            times = []
            watch = Watch(lambda row, times=times: times.append(time.monotonic()))
            run(
                inputs,
                tmp_path / str(workers),
                model,
                cluster=ray_executor.Cluster(workers),
                show=watch,
            )
            begun = len(times) // 4  # both have their model by then
            rates.append((len(times) - begun) / (times[-1] - times[begun]))
        scaling, possible = rates[1] / rates[0], counting(2) / counting(1)
        print(f"\n{rates[0]:.2f} and {rates[1]:.2f} pictures/s: x{scaling:.2f} of x{possible:.2f}")
        assert scaling > 0.8 * possible

    def test_the_command_line_and_what_it_left(self, tmp_path, photos, model, here, capsys):
        inputs, out = photos(4), tmp_path / "out"
        words = ["upscale", inputs, "-s", 1, "--steps", 1, "--model", model, "--device", "cpu"]
        words += ["-o", out, "--runner", "ray", "--workers", 2]
        assert cli.main(list(map(str, words))) == 1
        assert "3 done, 1 failed" in capsys.readouterr().out
        assert run(inputs, out, model).finished == 3  # one process goes on where Ray stopped


def test_what_is_of_ray_alone_is_refused_without_it(tmp_path, photos, capsys):
    words = ["upscale", photos(2), "-o", tmp_path / "out", "--workers", 3]
    assert cli.main(list(map(str, words))) == 2
    assert "--runner ray" in capsys.readouterr().err


def test_without_ray_the_mend_is_told(tmp_path, photos, model, monkeypatch):
    monkeypatch.setattr(ray_executor, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'restore-toolkit\[ray\]'"):
        run(photos(2), tmp_path / "out", model, cluster=ray_executor.Cluster())
