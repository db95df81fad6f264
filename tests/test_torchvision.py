"""torchvision absent, broken and good: each in a process of its own, as each is met."""

import os
import subprocess
import sys
from pathlib import Path

import pixel_nets
import pytest
import torch
from PIL import Image

from restore.diffusion import torchvision

ROOT = Path(__file__).resolve().parents[1]
BROKEN = "raise RuntimeError('operator torchvision::nms does not exist')"
FILES = {
    "absent": {},
    "broken": {"__init__": BROKEN},
    "good": {
        "__init__": "__version__ = '0.28.0'",
        "transforms/__init__": "",
        "transforms/functional": "class normalize: pass\nrotate = InterpolationMode = normalize",
    },
}


@pytest.fixture
def python(tmp_path):
    """Run Python where torchvision is as it is said: what it printed, and its exit code."""

    def run(kind: str, *words: str):
        place = tmp_path / kind / "torchvision"
        for name, text in FILES[kind].items():
            path = place / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        hidden = "import sys; sys.modules['torchvision'] = None\n" if kind == "absent" else ""
        (tmp_path / kind).mkdir(exist_ok=True)
        (tmp_path / kind / "sitecustomize.py").write_text(hidden)
        paths = os.pathsep.join([str(tmp_path / kind), str(ROOT)])
        return subprocess.run(
            [sys.executable, *words],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": paths},
            cwd=tmp_path,
        )

    return run


@pytest.mark.parametrize("kind", ["absent", "broken", "good"])
def test_an_upscaler_loads_and_a_torchvision_that_works_is_not_shadowed(python, tmp_path, kind):
    file = pixel_nets.save(tmp_path, "SPAN")
    code = f"""
import sys
from importlib.util import find_spec
from pathlib import Path
from restore.checkpoints import pixel
from restore.diffusion import torchvision
model = pixel.read(Path({str(file)!r}), 'x')
from spandrel.architectures.RestoreFormer import tv_normalize
real = tv_normalize.__module__ == 'torchvision.transforms.functional'
print(model.scale, torchvision.tried()[0], find_spec('torchvision') is not None, real)
"""
    done = python(kind, "-c", code)
    wanted = {"absent": "2 absent False False", "broken": "2 broken False False"}
    assert done.stdout.strip() == wanted.get(kind, "2 works True True"), done.stderr


def test_a_broken_one_costs_no_picture_and_is_told_once(python, tmp_path, pixels):
    (tmp_path / "in").mkdir()
    for seed in range(2):
        Image.fromarray(pixels(16, 16, seed)).save(tmp_path / "in" / f"{seed}.png")
    words = ("-m", "restore", "upscale", "in", "-o", "out", "-s", "1", "--device", "cpu")
    done = python("broken", *words)
    assert done.returncode == 0 and "2 done" in done.stdout, done.stderr
    assert "torchvision" not in done.stderr  # nothing that it hurts was loaded
    done = python("broken", *words, "--steps", "1")
    assert done.returncode == 0 and "2 done" in done.stdout, done.stderr
    assert done.stderr.count("nms does not exist") == 1 and "pip uninstall" in done.stderr


def test_the_doctor_says_what_is_broken_and_how_it_is_mended(python):
    done = python("broken", "-m", "restore", "doctor")
    assert done.returncode == 3
    line = next(line for line in done.stdout.splitlines() if line.startswith("broken"))
    assert "torchvision" in line and "nms does not exist" in line
    assert "mend: pip uninstall torchvision" in done.stdout
    assert python("good", "-m", "restore", "doctor").returncode == 0


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("size", [(8, 8), (9, 9)])
def test_a_turn_by_right_angles_moves_pixels(size, turns):
    rgb = torch.rand(2, 3, *size)
    for way in torchvision.InterpolationMode:
        made = torchvision.rotate(rgb, 90 * turns, way)
        torch.testing.assert_close(made, rgb.rot90(turns, (2, 3)), atol=1e-5, rtol=0)


def test_a_turn_keeps_shapes_round_where_pictures_are_not_square():
    down, across = torch.meshgrid(torch.arange(41.0), torch.arange(61.0), indexing="ij")
    disc = ((down - 20).hypot(across - 30) < 12).float()[None, None]
    turned = torchvision.rotate(disc, 37, torchvision.InterpolationMode.BILINEAR)
    assert (turned - disc).abs().mean() < 0.02


def test_normalize_is_less_the_mean_over_the_spread():
    rgb = torch.rand(2, 3, 4, 5)
    made = torchvision.normalize(rgb, [0.1, 0.2, 0.3], [2.0, 4.0, 8.0])
    torch.testing.assert_close(made[:, 2], (rgb[:, 2] - 0.3) / 8)
    assert torchvision.normalize(rgb, [0.5] * 3, [0.5] * 3, inplace=True) is rgb
