"""What a wheel and an sdist hold, and that configurations are found by name."""

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
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
    first, rest = copied.read_text().split("\n", 1)
    assert rest == (ROOT / "configs/train/nano_denoiser.yaml").read_text().split("\n", 1)[1]
    schema = Path(first.partition("$schema=")[2])  # editors find it from anywhere
    assert schema.is_absolute() and json.loads(schema.read_text())["title"] == "TrainOptions"
    assert cli.main(["configs", "copy", "train/nano_denoiser", "-o", str(copied)]) == 2
    assert cli.main(["configs", "copy", "nothing", "-o", str(tmp_path / "new.yaml")]) == 2


def test_training_finds_a_configuration_by_name(monkeypatch, tmp_path):
    from restore.training import loop

    heard = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(loop, "run", lambda config, overrides: heard.append(config))
    assert cli.main(["train", "nano_denoiser"]) == 0
    assert cli.main(["train", "train/nano_denoiser"]) == 0
    for unknown in ("nothing.yaml", "elsewhere/nano_denoiser"):
        assert cli.main(["train", unknown]) == 2
    found, again = heard  # of a checkout, or of what was installed from it
    assert found == again
    assert found.read_bytes() == (ROOT / "configs/train/nano_denoiser.yaml").read_bytes()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(the wheel, the sdist), built of what is committed."""
    place = tmp_path_factory.mktemp("built")
    code = (
        "import sys; from setuptools import build_meta as b; place = sys.argv[1]; "
        "b.build_sdist(place); b.build_wheel(place)"  # which leave other words in argv
    )
    copy = place / "copy"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(copy)], check=True)
    subprocess.run([sys.executable, "-c", code, str(place)], cwd=copy, check=True)
    return next(place.glob("*.whl")), next(place.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def command(built, tmp_path_factory):
    """`restore` of the wheel in an environment of its own, run in a folder outside of the clone.

    What the wheel depends on comes from the environment of the tests.
    """
    place = tmp_path_factory.mktemp("elsewhere")
    venv.create(place / "venv", with_pip=False)
    scripts = place / "venv" / ("Scripts" if os.name == "nt" else "bin")
    python = scripts / "python"
    install = ["pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([sys.executable, "-m", *install, str(built[0])], check=True)
    ask = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    own = subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip()
    Path(own, "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    told = {**os.environ, "XDG_CACHE_HOME": str(place / "cache"), "HF_HUB_OFFLINE": "1"}
    told.pop("PYTHONPATH", None)

    def run(*words, program="restore"):
        done = subprocess.run(
            [str(scripts / program), *map(str, words)],
            cwd=place,
            env=told,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout

    run.place = place
    return run


@pytest.mark.slow
def test_a_wheel_and_an_sdist_hold_what_is_needed(built):
    with zipfile.ZipFile(built[0]) as file:
        wheel = file.namelist()
    with tarfile.open(built[1]) as file:
        sdist = [name.partition("/")[2] for name in file.getnames()]
    for name in ("configs/train/nano_denoiser.yaml", "py.typed", "web/page/index.html"):
        assert f"restore/{name}" in wheel
    assert "restore/configs/schemas/train.json" in wheel
    for name in ("restore/weights/nano/stack.json", "degradations/py.typed"):
        assert name in wheel
    assert not [name for name in wheel if name.startswith(("tests/", "tools/", "docs/"))]
    for name in ("configs/train/nano_denoiser.yaml", "LICENSE", "README.md", "setup.py"):
        assert name in sdist


@pytest.mark.slow
def test_the_wheel_works_outside_of_the_clone(command):
    found = command("-c", "import restore; print(restore.__file__)", program="python")
    assert Path(found.strip()).is_relative_to(command.place / "venv")
    samples, scratched = ROOT / "tests/samples", ROOT / "tests/scratched"
    rows = command("upscale", samples / "portrait.jpg", "-s", 2, "-o", "big.png", "--json", "-q")
    assert json.loads(rows)["size_out"] == [324, 256]
    words = ("inpaint", scratched / "osprey.jpg", "--mask", scratched / "masks")
    assert "1 done" in command(*words, "-o", "filled")
    command("degrade", "apply", samples, "-o", "pairs", "-r", "phone", "--pairs", 2, "--crop", 96)
    few = ("steps=2", "batch=2", "warmup=1", "stage.data.crop=64", "log_with=[]")
    photos = f"stage.data.photos={samples}"
    command("train", "nano_autoencoder", photos, "output=run", "device=cpu", *few)
    assert (command.place / "run" / "export").is_dir()
    said = command("evaluate", "pairs/hr", "--reference", "pairs/hr", "-o", "scores")
    assert "PSNR" in said and (command.place / "scores" / "report.html").is_file()
