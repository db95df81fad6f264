"""What this machine lacks is told in words, with the mend, before any file is touched."""

import re
import subprocess
import sys
from importlib import metadata

import pytest

from restore import cli
from restore.batch import environment
from restore.checkpoints import model_paths
from restore.diffusion import torchvision
from restore.errors import ModelError


@pytest.fixture(autouse=True)
def forgetful():
    """What was found out of another machine is looked at anew, and forgotten again."""
    yield environment.needs.cache_clear()
    environment.needs.cache_clear()


@pytest.fixture
def versions(monkeypatch):
    """Sets what is installed, by name; None is nothing."""
    real = metadata.version

    def version(name):
        if name not in told:
            return real(name)
        if told[name] is None:
            raise metadata.PackageNotFoundError(name)
        return told[name]

    told: dict[str, str | None] = {}
    monkeypatch.setattr(metadata, "version", version)
    # whether this machine's own works is not what is asked
    monkeypatch.setattr(torchvision, "tried", lambda: ("absent", ""))
    return told.update


def doctor(capsys, *words) -> tuple[int, str]:
    code = cli.main(["doctor", *map(str, words)])
    return code, capsys.readouterr().out


def test_everything_is_looked_at(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(torchvision, "tried", lambda: ("absent", ""))
    code, said = doctor(capsys, "-o", tmp_path / "not" / "yet")
    assert code == 0 and "broken" not in said
    for word in ("Python 3.", "torch 2.", "torchvision", "png, jpeg, webp, avif", "nano", "fonts"):
        assert word in said
    assert f"disk of {tmp_path}: " in said and re.search(r"memory: \d+\.\d GB are free", said)
    for extra in environment.ADDS:
        assert f"extra {extra}" in said


def test_a_package_out_of_range_stops_a_run_before_it_begins(versions, photo, tmp_path, capsys):
    photo("a.png")
    versions({"diffusers": "0.20.0", "safetensors": None})
    code = cli.main(["upscale", str(tmp_path / "in"), "-o", str(tmp_path / "out")])
    said = capsys.readouterr().err
    assert code == 3 and not (tmp_path / "out").exists()
    assert "diffusers 0.20.0 is too old; pip install 'diffusers" in said
    assert "safetensors is missing; pip install 'safetensors<" in said
    code, said = doctor(capsys)
    assert code == 3 and said.count("broken") == 2


def test_what_is_newer_than_what_was_tried_is_told_and_works(versions, capsys, monkeypatch):
    monkeypatch.setattr(torchvision, "tried", lambda: ("absent", ""))
    versions({"rich": "99.0", "spandrel": "9.0"})
    environment.require()
    code, said = doctor(capsys)
    assert code == 0 and "note    rich 99.0 is newer than what was tried" in said


def test_either_opencv_will_do(versions):
    versions({"opencv-python-headless": None, "opencv-python": "4.12.0"})
    environment.require()
    versions({"opencv-python": None, "opencv-contrib-python": None})
    environment.needs.cache_clear()
    with pytest.raises(ModelError, match="opencv-python-headless is missing"):
        environment.require()


def test_another_python_is_told(monkeypatch):
    class Version(tuple):
        major, minor = 3, 10

    monkeypatch.setattr(sys, "version_info", Version((3, 10, 2, "final", 0)))
    with pytest.raises(ModelError, match=r"Python 3\.10\.2 is out of range; make an environment"):
        environment.require()


def test_an_extra_that_is_missing_says_what_it_would_add(versions, capsys, monkeypatch):
    monkeypatch.setattr(torchvision, "tried", lambda: ("absent", ""))
    versions({"spandrel": None, "pillow-heif": None})
    code, said = doctor(capsys)
    assert code == 0
    assert "note    extra pixel would add other people's upscalers" in said
    assert "spandrel is missing" in said and "pip install 'restore-toolkit[pixel]'" in said
    assert "pillow-heif is missing" in said


def test_requirements_are_the_same_installed_and_run_from_the_folder(monkeypatch, tmp_path):
    """An installed package tells them in its metadata, marked by their extras."""
    own = {extra: environment._requirements(extra) for extra in ("", *environment.ADDS)}
    assert len(own[""]) > 10 and own["pixel"]
    lines = [*own[""]]
    for extra in environment.ADDS:
        lines += [f"{line}; extra == '{extra}'" for line in own[extra]]
    monkeypatch.setattr(metadata, "requires", lambda name: lines)
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    environment._requirements.cache_clear()
    try:
        for extra, wanted in own.items():
            assert set(environment._requirements(extra)) == set(wanted)
    finally:
        environment._requirements.cache_clear()


def test_a_damaged_model_of_the_users_and_a_missing_codec_are_broken(capsys, monkeypatch, tmp_path):
    from restore.images import encode

    monkeypatch.setattr(torchvision, "tried", lambda: ("absent", ""))
    monkeypatch.setenv(model_paths.FOLDER_VARIABLE, str(tmp_path))
    (tmp_path / "torn.safetensors").write_bytes(b"abc")
    real = encode.encode

    def without_avif(picture, path, name, *more):
        if name == "avif":
            raise OSError("encoder avif not available")
        return real(picture, path, name, *more)

    monkeypatch.setattr(encode, "encode", without_avif)
    code, said = doctor(capsys)
    assert code == 3
    assert "broken  model torn: is cut or damaged" in said and "restore models remove torn" in said
    assert "broken  avif: OSError: encoder avif not available" in said


def test_a_codec_that_changes_pixels_is_found_also_where_python_leaves_out_assertions():
    code = (
        "import numpy as np; from restore.batch import environment as e; "
        "from restore.images import picture as p; "
        "p.read = lambda path: p.Picture(np.zeros((16, 16, 3), np.uint8)); "
        "print({f.state for f in e.codecs() if 'written and read' not in f.message})"
    )
    command = [sys.executable, "-O", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "{'broken'}\n"
