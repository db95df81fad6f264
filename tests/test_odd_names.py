"""Names that are no UTF-8, that move the cursor, or that other programs take for their words."""

import csv
import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from degradations.page import plain
from restore import cli
from restore.cli.streams import plain_handler
from restore.metrics import figures
from restore.metrics.report import escape_cell
from restore.training.data import sources

NAMES = [b"caf\xe9.png", b"\x1b[31mred\n.png", b"$x_{1$ $.png", b"=1+1.png", b"_hidden.png"]


def folder(at: Path, size: int, seed: int = 0) -> Path:
    at.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for name in NAMES:
        rgb = rng.integers(0, 256, (size, size, 3), np.uint8)
        Image.fromarray(rgb).save(at / os.fsdecode(name))
    return at


def test_evaluate_takes_any_name(tmp_path, capsys):
    made, truth = folder(tmp_path / "$ma_{de$", 48, 1), folder(tmp_path / "_hr", 48)
    out = tmp_path / "out"
    words = ["evaluate", made, "--reference", truth, "-o", out, "--metrics", "psnr,ssim"]
    assert cli.main([str(word) for word in words]) == 0
    said = capsys.readouterr()
    assert "\x1b[31m" not in said.out + said.err
    with (out / "scores.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert len(rows) == 1 + len(NAMES)
    assert not any(value.startswith("=") for row in rows for value in row)
    assert "caf" in (out / "report.html").read_text()


def test_the_plane_shows_folders_called_anything(tmp_path):
    from restore.metrics.measures import choose
    from restore.metrics.score import ScoredFolder

    psnr, ssim = choose(["psnr", "ssim"])[0]
    rows = [
        {"key": str(n), "status": "done", "scores": {"psnr": 20.0 + n, "ssim": 0.5 + n / 10}}
        for n in range(3)
    ]
    names = ["_out", "$x_{1$", os.fsdecode(b"caf\xe9")]
    figure = figures.plot_plane(
        [("$t_{$", [ScoredFolder(name, rows, {}) for name in names])], psnr, ssim
    )
    figure.savefig(tmp_path / "a.png")
    told = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert len(told) == 3 and told[1] == r"\$x_{1\$"
    assert all(t.encode() for t in map(plain, names))


def test_preview_and_estimate_take_any_name(tmp_path, capsys):
    photos = folder(tmp_path / "in", 96)
    page, sheet = tmp_path / "a.html", tmp_path / "a.png"
    words = ["degrade", "preview", photos, "-r", "bsrgan", "-o", page, "-o", sheet, "--seeds", 1]
    assert cli.main([*map(str, words), "--crop", "32"]) == 0
    found = tmp_path / "mine.yaml"
    words = ["degrade", "estimate", photos, "-o", found, "--page", tmp_path / "b.html"]
    assert cli.main([*map(str, words), "--workers", "1"]) == 0
    said = capsys.readouterr()
    assert "\x1b[31m" not in said.out + said.err and found.exists() and sheet.exists()


def test_training_logs_move_no_cursor(capsys):
    refused = sources.Refused()
    handler = plain_handler()
    logger = logging.getLogger("restore.training.data.sources")
    logger.addHandler(handler)
    try:
        refused.add("\x1b[31mred.png", "is \x1b[2Jbroken")
        logger.warning("plain %s", "\x1b[31mred\r")
    finally:
        logger.removeHandler(handler)
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@x", "\tx", "\rx"])
def test_no_cell_is_a_formula(text):
    assert escape_cell(text) == "'" + text and escape_cell("plain") == "plain"


def test_evaluate_pairs_names_that_differ_in_their_extensions_alone(tmp_path, capsys):
    for place in ("made", "truth"):
        (tmp_path / place).mkdir()
        for number, name in enumerate(("a.png", "a.bmp", "b.png")):
            rgb = np.random.default_rng(number).integers(0, 256, (48, 48, 3), np.uint8)
            Image.fromarray(rgb).save(tmp_path / place / name)
    words = ["evaluate", tmp_path / "made", "--reference", tmp_path / "truth", "-o"]
    words = [*map(str, words), str(tmp_path / "out"), "--metrics", "ssim"]
    assert cli.main(words) == 0
    keys = {row["key"] for row in _scores(tmp_path / "out")}
    assert keys == {"a.png", "a.bmp", "b"}
    (tmp_path / "truth" / "a.bmp").unlink()
    assert cli.main(words) == 2 and "two pictures for a" in capsys.readouterr().err


def _scores(out: Path) -> list[dict]:
    [group] = json.loads((out / "scores.json").read_text())["sets"]
    return group["folders"][0]["rows"]
