"""The page on damage of one's own: its commands run as they stand, on less of everything."""

import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from pages import ROOT, commands, run
from PIL import Image

from degradations import Recipe, consent, replay
from degradations.ops import plugins
from restore.checkpoints import manifest
from restore.metrics.pairing import find_pictures

PLACE = ROOT / "configs" / "train"


@pytest.fixture(autouse=True)
def forget(monkeypatch, tmp_path_factory):
    """The step of the page does not outlive its test, nor the consent to it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
    yield
    consent._here.clear()
    for kept in (plugins._registered, plugins._files, plugins._runs):
        kept.clear()
    sys.modules.pop("tape", None)


def photograph(folder: Path, name: str, rgb: np.ndarray, **how) -> None:
    folder.mkdir(exist_ok=True)
    Image.fromarray(rgb).save(folder / name, **how)


def test_the_page_runs_as_it_is_written(tmp_path, pixels, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for n in range(2):
        photograph(tmp_path / "my_photos", f"{n}.png", pixels(96, 128, n))
        photograph(tmp_path / "my_test", f"{n}.png", pixels(96, 96, 10 + n))
    for n in range(4):  # half with even noise, half with a sensor's, as the page's own had
        light = pixels(128, 160, 20 + n) * np.linspace(0.05, 1, 160)[:, None]
        sigma = np.sqrt(light) if n % 2 else 6
        rgb = np.clip(light + sigma * rng.normal(size=light.shape), 0, 255).astype(np.uint8)
        photograph(tmp_path / "my_scans", f"{n}.jpg", rgb, quality=95)
    monkeypatch.setenv("TOOLKIT", str(ROOT))
    for command in commands((PLACE / "README.md").read_text(encoding="utf-8")):
        if not command.startswith("TOOLKIT="):
            run(command)
    kinds = [step.kind for step in Recipe.load("mine.yaml").steps]
    assert kinds[kinds.index("tape.Tape") + 1] == "one_of" and kinds[-1] == "jpeg"
    stock, tuned = (find_pictures(tmp_path / name) for name in ("stock", "tuned"))
    assert len(stock) == len(tuned) == 2
    for key, path in stock.items():
        assert path.read_bytes() != tuned[key].read_bytes()
    assert len(find_pictures(tmp_path / "restored")) == 4
    assert manifest.check(tmp_path / "runs" / "tape" / "export")
    assert "difference" in (tmp_path / "scores" / "report.html").read_text().lower()


def test_the_pages_step_does_nothing_at_its_mildest_and_replays(tmp_path, pixels):
    (tmp_path / "tape.py").write_bytes((PLACE / "tape.py").read_bytes())
    path, hr = tmp_path / "mine.yaml", pixels(64, 64)
    none = {"kind": "tape.Tape", "jitter": 0, "fields": 0, "smear": 0}
    path.write_text(yaml.safe_dump({"name": "mine", "steps": [none]}))
    assert (
        np.abs(Recipe.load(path, allow_code=True).degrade(hr, 1, 0, "a").lr.astype(int) - hr).max()
        <= 1
    )
    path.write_text(yaml.safe_dump({"name": "mine", "steps": [{"kind": "tape.Tape"}]}))
    worn = Recipe.load(path, allow_code=True).degrade(hr, 1, 0, "a")
    assert (replay(worn.trace, hr) == worn.lr).all()
    rows = worn.lr.astype(float).mean((1, 2))
    assert rows[0::2].mean() > rows[1::2].mean() + 2  # the fields differ
    assert abs(rows.mean() - hr.mean()) < 1.5  # the light stays
