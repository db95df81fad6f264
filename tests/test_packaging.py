"""What a wheel and an sdist hold, and that configurations are found by name."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from restore import cli

ROOT = Path(__file__).resolve().parents[1]


def test_configurations_are_listed_and_copied_by_name(tmp_path, capsys):
    assert cli.main(["configs", "list"]) == 0
    assert "train/nano_denoiser" in capsys.readouterr().out.splitlines()
    copied = tmp_path / "mine.yaml"
    assert cli.main(["configs", "copy", "train/nano_denoiser", "-o", str(copied)]) == 0
    assert copied.read_bytes() == (ROOT / "configs/train/nano_denoiser.yaml").read_bytes()
    assert cli.main(["configs", "copy", "train/nano_denoiser", "-o", str(copied)]) == 2
    assert cli.main(["configs", "copy", "nothing", "-o", str(tmp_path / "new.yaml")]) == 2


def test_training_finds_a_configuration_by_name(monkeypatch, tmp_path):
    from restore.training import loop

    heard = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loop, "run", lambda config, overrides: heard.append(config))
    assert cli.main(["train", "nano_denoiser"]) == 0
    assert cli.main(["train", "nothing.yaml"]) == 0
    found, unknown = heard  # of a checkout, or of what was installed from it
    assert found.read_bytes() == (ROOT / "configs/train/nano_denoiser.yaml").read_bytes()
    assert unknown == Path("nothing.yaml")


@pytest.mark.slow
def test_a_wheel_and_an_sdist_hold_what_is_needed(tmp_path):
    code = (
        "import sys; from setuptools import build_meta as b; "
        "b.build_sdist(sys.argv[1]); b.build_wheel(sys.argv[1])"
    )
    copy = tmp_path / "copy"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(copy)], check=True)
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=copy, check=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as file:
        wheel = file.namelist()
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as file:
        sdist = file.getnames()
    for name in ("restore/configs/train/nano_denoiser.yaml", "restore/py.typed"):
        assert name in wheel
    assert "degradations/py.typed" in wheel
    assert any(name.endswith("configs/train/nano_denoiser.yaml") for name in sdist)
