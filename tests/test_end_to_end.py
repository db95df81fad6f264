"""The command over real files and a real, if untrained, stack: the same bytes whatever the way."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from restore import cli
from restore.checkpoints.save import save
from restore.diffusion.stack import Stack

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "tests" / "samples"


@pytest.fixture(scope="module")
def model(stack: Stack, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    save(stack, folder, card="# tiny\n", dtype=torch.float32)
    return folder


def digests(folder: Path) -> dict[str, str]:
    """Of the pictures under their final names; temporary files begin with a dot."""
    files = [p for p in sorted(folder.glob("[!.]*")) if p.suffix in (".png", ".jpg")]
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def run(out: Path, model: Path, *words: object) -> int:
    given = ["upscale", *words, "-o", out, "--model", model, "-s", 1.5, "--device", "cpu"]
    return cli.main([str(word) for word in given])


def test_a_picture_has_the_same_bytes_alone_in_a_folder_and_in_any_number_of_windows(
    model, tmp_path
):
    assert run(tmp_path / "folder", model, SAMPLES) == 0
    assert run(tmp_path / "windows", model, SAMPLES, "--windows", 1) == 0
    assert run(tmp_path / "alone", model, SAMPLES / "portrait.jpg") == 0
    together = digests(tmp_path / "folder")
    assert len(together) == 6
    assert digests(tmp_path / "windows") == together
    assert digests(tmp_path / "alone") == {"portrait.jpg": together["portrait.jpg"]}


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_run_leaves_nothing_torn_and_ends_in_the_same_bytes(model, tmp_path):
    assert run(tmp_path / "whole", model, SAMPLES) == 0
    out = tmp_path / "killed"
    words = ["upscale", SAMPLES, "-o", out, "--model", model, "-s", 1.5, "--device", "cpu"]
    command = [sys.executable, ROOT / "tools" / "upscale.py", *words[1:]]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE)
    deadline = time.monotonic() + 100
    while not digests(out) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    whole, finished = digests(tmp_path / "whole"), digests(out)
    assert finished
    assert finished.items() <= whole.items()
    assert run(out, model, SAMPLES) == 0
    assert digests(out) == whole
    rows = [json.loads(line) for line in (out / "report.jsonl").read_text().splitlines()]
    assert len({row["key"] for row in rows}) == len(rows) == 7  # the samples and their README


def test_a_broken_file_costs_no_other(model, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    shutil.copy(SAMPLES / "portrait.jpg", folder)
    (folder / "cut.jpg").write_bytes((SAMPLES / "portrait.jpg").read_bytes()[:1500])
    (folder / "text.jpg").write_text("not a picture")
    (folder / "empty.png").write_bytes(b"")
    assert run(tmp_path / "out", model, folder) == 1
    rows = (tmp_path / "out" / "report.jsonl").read_text().splitlines()
    told = {row["key"]: row.get("code", row["status"]) for row in map(json.loads, rows)}
    assert told == {
        "portrait.jpg": "done",
        "cut.jpg": "TRUNCATED",
        "text.jpg": "NOT_IMAGE",
        "empty.png": "NOT_IMAGE",
    }
    assert list(digests(tmp_path / "out")) == ["portrait.jpg"]
