"""The time left: the model's loading is not counted, and a byte of PNG is less of a picture."""

import json
import time

from restore.batch.jobs import Job
from restore.batch.time_left import TimeLeft
from restore.checkpoints import devices


def jobs(folder, **sizes):
    folder.mkdir()
    made = []
    for name, size in sizes.items():
        path = folder / name.replace("_", ".")
        path.write_bytes(bytes(size))
        made.append(Job(path, path.name, folder / "out" / path.name))
    return made


def test_a_kind_that_was_not_met_is_told_by_its_pixels(tmp_path):
    planned = jobs(tmp_path / "in", a_jpg=4_000, b_png=19_000, c_bmp=30_000)
    left = TimeLeft(planned)
    assert left.left is None
    left.add(planned[0], 2.0)  # all three have about ten thousand pixels
    assert abs(left.left - 4.0) < 0.1
    left.add(planned[1], 2.0)
    assert abs(left.left - 2.0) < 0.1
    left.add(planned[2], 2.0)
    assert left.left == 0


def test_what_failed_or_was_finished_tells_nothing(tmp_path):
    planned = jobs(tmp_path / "in", a_png=1_000, b_png=1_000, c_png=1_000)
    left = TimeLeft(planned)
    left.add(planned[0], 0)
    assert left.left is None
    left.add(planned[1], 3.0)
    assert abs(left.left - 3.0) < 0.1


def test_the_models_loading_is_not_counted_in_the_time_left(
    call, photo, tmp_path, monkeypatch, stack
):
    def slow(*_, **__):
        time.sleep(2)
        return stack

    monkeypatch.setattr(devices, "load", slow)
    for index in range(4):
        photo(f"{index}.png", index)
    told = call("upscale", tmp_path / "in", "-s", 1)[2]
    first, *rest = map(json.loads, (tmp_path / "out" / "report.jsonl").read_text().splitlines())
    assert 2 <= first["load_s"] <= first["seconds"] and not any("load_s" in row for row in rest)
    left = float(told.splitlines()[0].rpartition(", ")[2].removesuffix(" s left"))
    work_s = first["seconds"] - first["load_s"]
    assert left < 3 * work_s + 3  # not three times the two seconds more
