"""The benchmark takes turns, names what is absent, and its peers give what they should."""

import json
import random

import cv2
import numpy as np
import pytest
from benchmarks import degradations, peers, speed, timing


def test_contestants_take_turns_and_are_divided_round_by_round(monkeypatch):
    clock, order = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    slow_rounds = iter((1, 1, 1, 1, 2, 2))  # the machine is twice as slow in the last round

    def work(name, each):
        def run(count):
            order.append(name)
            if len(order) > 4:
                clock[0] += count * each * next(slow_rounds)
            else:  # warming up, and finding out how many crops a round takes
                clock[0] += count * each

        return run

    rows = timing.race(
        [
            timing.Contestant("ours", work("ours", 0.01), 8, "theirs"),
            timing.Contestant("theirs", work("theirs", 0.04), 8),
            timing.Contestant("absent", None, missing="not installed: pip install it"),
        ],
        rounds=3,
        seconds=1.0,
    )
    assert order[4:] == ["ours", "theirs"] * 3
    assert rows[0]["crops_per_s"] == pytest.approx(100)
    assert rows[0]["least"] == pytest.approx(50)
    assert [rows[0][name] for name in ("ratio", "least_ratio")] == pytest.approx([4, 4])
    assert rows[2] == {
        "name": "absent",
        "crops_per_s": None,
        "missing": "not installed: pip install it",
    }


def test_a_peer_that_is_absent_is_a_row_with_the_mend():
    def make():
        raise ModuleNotFoundError("No module named 'kornia.enhance'", name="kornia.enhance")

    absent = degradations._contestant("kornia", make, 1)
    assert absent.run is None and absent.missing == "not installed: pip install kornia"


def test_the_peers_degrade_by_four():
    random.seed(0)
    crop = degradations.load_crops(None)[0]
    assert crop.shape == (256, 256, 3) and crop.dtype == np.uint8
    for degrade in (peers.bsrgan, peers.albumentations((64, 64))):
        small = cv2.resize(crop, (64, 64), interpolation=cv2.INTER_AREA).astype(float)
        for _ in range(3):
            out = degrade(crop)
            assert out.shape == (64, 64, 3) and out.dtype == np.uint8
            assert np.abs(out - small).mean() < 50


def test_stages_are_told_in_milliseconds_a_crop(capsys):
    hr = degradations.load_crops(None)[:2]
    stages = degradations._stages(hr, count=4, rounds=1)
    kinds = {row["stage"]: row for row in stages}
    assert kinds["jpeg"]["calls"] == 2 and kinds["resize"]["calls"] == 3
    assert all(row["ms"] > 0 for row in stages)
    row = {"name": "kornia", "crops_per_s": None, "missing": "not installed: pip install kornia"}
    results = {"machine": {"cpu": "this"}, "speed": {"CPU": [row]}, "stages": stages}
    results["codecs"] = [row | {"psnr": None}]
    degradations.show(json.loads(json.dumps(results)))
    assert "not installed" in capsys.readouterr().out


def test_a_folder_without_large_pictures_is_refused(tmp_path):
    cv2.imwrite(str(tmp_path / "small.png"), np.zeros((40, 40, 3), np.uint8))
    with pytest.raises(ValueError, match="holds no picture of 256x256 px"):
        degradations.load_crops(tmp_path)
    cv2.imwrite(str(tmp_path / "large.png"), np.full((300, 260, 3), (1, 2, 3), np.uint8))
    (crop,) = degradations.load_crops(tmp_path)
    assert crop.shape == (256, 256, 3) and crop[0, 0].tolist() == [3, 2, 1]


def test_a_contestant_that_could_not_be_measured_is_named():
    """Its ratio would be left out, and the weekly run would say that nothing moved."""
    rows = [{"name": "a", "mp": 1.0, "cpu_s": 2.0}, {"name": "b", "missing": "no spandrel"}]
    assert speed.unmeasured(["a", "b", "c"], rows) == [
        "b: not measured, no spandrel",
        "c: not measured, it takes too long",
    ]


def test_of_several_rounds_the_fastest_counts_and_the_most_memory():
    rows = [
        {"name": "nano", "mp": 1.0, "cpu_s": 2.0, "peak_mb": 60.0, "limit_cpu_s": 1.5},
        {"name": "peer", "missing": "not installed"},
        {"name": "nano", "mp": 1.0, "cpu_s": 1.0, "peak_mb": 50.0, "limit_cpu_s": 1.6},
        {"name": "peer", "missing": "not installed"},
    ]
    nano, peer = speed.best(rows)
    assert nano == {
        "name": "nano",
        "mp": 1.0,
        "cpu_s": 1.0,
        "most_cpu_s": 2.0,
        "peak_mb": 60.0,
        "limit_cpu_s": 1.5,
    }
    assert peer == {"name": "peer", "missing": "not installed"}
