"""`--fidelity` for other people's upscalers: their result, tempered by nano's faithful one."""

import json
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pixel_nets
import pytest
from PIL import Image

import restore
from restore import batch, file_search
from restore.checkpoints import faithful
from restore.checkpoints.manifest import find_model
from restore.cli import main
from restore.errors import ModelError
from restore.images.masks import without_damage
from restore.images.picture import Picture, deepen
from restore.options import UpscaleOptions
from restore.tasks import first_stage, pixel_upscale, run

pytestmark = pytest.mark.skipif(not find_spec("spandrel"), reason="the extra pixel")


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return pixel_nets.save(tmp_path_factory.mktemp("upscaler"), "SPAN", ".safetensors")  # x2


@pytest.fixture(scope="module")
def upscaler(file):
    return restore.load(str(file), "cpu").stack


@pytest.fixture(scope="module")
def nano():
    return restore.load("nano", "cpu").model


def photo(dtype=np.uint8, **more) -> Picture:
    top = np.iinfo(dtype).max
    pixels = np.random.default_rng(0).integers(0, top + 1, (24, 31, 3)).astype(dtype)
    return Picture(pixels, **more)


def made(model, low=None, **options) -> np.ndarray:
    pixels = run.restore(low or photo(), UpscaleOptions(**options), model, 0).pixels
    return pixels.astype(np.float64)


@pytest.mark.parametrize("scale", [1, 2, 3.3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_it_leads_from_the_upscalers_own_result_to_the_faithful_one(upscaler, nano, scale, dtype):
    low = photo(dtype)
    own = made(upscaler, low, scale=scale)
    assert np.array_equal(own, made(upscaler, low, scale=scale, fidelity=0))
    true = made(nano, low, scale=scale, fidelity=1, unfade=0)
    assert np.abs(own - true).max() > 20
    for share in (0.3, 1):
        wanted = (1 - share) * own + share * true
        found = made(upscaler, low, scale=scale, fidelity=share)
        # rounded once, of 16 bits, where the two are rounded before
        assert np.abs(found - wanted).max() <= (1.01 if dtype == np.uint8 else 3)


@pytest.mark.parametrize("share", [0.5, 1])
def test_filled_damage_says_nothing_of_the_noise(file, upscaler, nano, share):
    """A quarter of this noisy picture is damaged; its faithful share is nano's, damage and all."""
    levels = np.random.default_rng(0).normal(128, 30, (64, 64, 3)).clip(0, 255)
    low = Picture(np.rint(levels).astype(np.uint8))
    damage = np.zeros((64, 64), np.uint8)
    damage[30:46] = 255
    asked = {"scale": 1, "fidelity": share}
    filled = without_damage(low, damage > 0)
    stage = nano.restorer
    true = first_stage.restored(deepen(filled), (64, 64), stage, 1, damage=damage > 0).pixels / 257
    own = run.restore(low, UpscaleOptions(scale=1), upscaler, 0, mask=damage).pixels
    stack = restore.load("nano", "cpu", first_stage=str(file)).stack
    for model in (upscaler, stack):
        options = UpscaleOptions(**asked) if model is upscaler else UpscaleOptions(**asked, steps=0)
        made = run.restore(low, options, model, 0, mask=damage).pixels[:16]
        assert np.abs(made - ((1 - share) * own + share * true)[:16]).max() <= 1.01


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_network_without_a_share_is_not_run(upscaler, nano, monkeypatch, dtype):
    low, told = photo(dtype), []
    deep = photo(dtype).pixels.astype(np.uint16) * (257 if dtype == np.uint8 else 1)
    true = made(nano, Picture(deep), scale=2, fidelity=1)
    monkeypatch.setattr(pixel_upscale, "run_network", lambda *_: pytest.fail("run in vain"))
    options = UpscaleOptions(scale=2, fidelity=1)
    result = run.restore(low, options, upscaler, 0, lambda *step: told.append(step[:2])).pixels
    assert result.dtype == dtype
    assert np.array_equal(result, true if dtype == np.uint16 else np.rint(true / 257))
    assert told == [(1, 1)]


def test_grey_alpha_and_profile_stay(upscaler):
    grey = np.repeat(photo().pixels[..., :1], 3, 2)
    low = replace(photo(), pixels=grey, grey=True, alpha=photo().pixels[..., 0])
    plain, told = (
        run.restore(low, UpscaleOptions(scale=2, fidelity=share), upscaler, 0) for share in (0, 0.5)
    )
    assert np.ptp(told.pixels, axis=2).max() == 0
    assert np.array_equal(plain.alpha, told.alpha) and told.grey


def test_a_first_stage_heeds_it_too(file, upscaler):
    stack = restore.load("nano", "cpu", first_stage=str(file)).stack
    asked = {"scale": 2, "fidelity": 0.4}
    assert np.array_equal(made(stack, **asked), made(upscaler, **asked))


def test_rows_name_what_it_was_blended_with_and_runs_of_old_are_made_again(file, tmp_path, capsys):
    Image.fromarray(photo().pixels).save(tmp_path / "a.png")
    asked = ["upscale", str(tmp_path / "a.png"), "-o", str(tmp_path / "out"), "--device", "cpu"]
    asked += ["--model", str(file)]
    rows = []
    for more in ([], ["--fidelity", "0.5"], ["--fidelity", "0.5"]):
        assert main([*asked, *more]) == 0, capsys.readouterr().err
        lines = (tmp_path / "out" / "report.jsonl").read_text().splitlines()
        rows.append(json.loads(lines[-1]))
    assert "faithful_sha256" not in rows[0]
    assert rows[1]["faithful_sha256"] == find_model("nano")[1]
    assert rows[0]["options"] != rows[1]["options"]
    assert rows[2] == rows[1]  # finished: nothing was written
    assert rows[1]["output_sha256"] != rows[0]["output_sha256"]


def test_a_model_opened_without_options_goes_on_with_a_run_of_the_command(file, tmp_path, capsys):
    """As the server opens it, and as scripts do."""
    Image.fromarray(photo().pixels).save(tmp_path / "a.png")
    out = tmp_path / "out"
    asked = ["upscale", str(tmp_path / "a.png"), "-o", str(out), "--model", str(file)]
    assert main([*asked, "--fidelity", "0.5"]) == 0, capsys.readouterr().err
    model = batch.open_model(str(file))
    files = file_search.find([tmp_path / "a.png"], out)
    made = batch.run(files, UpscaleOptions(fidelity=0.5), out, model)
    assert (made.done, made.finished) == (0, 1)


def test_nano_is_read_once_and_a_damaged_one_is_told(upscaler, monkeypatch):
    made(upscaler, scale=2, fidelity=0.5)
    monkeypatch.setattr(faithful.lazy_stack, "read", lambda path: pytest.fail("read again"))
    made(upscaler, scale=2, fidelity=0.5)
    faithful.load.cache_clear()

    def fails(path):
        raise ModelError(f"{path}: was changed")

    monkeypatch.setattr(faithful.lazy_stack, "read", fails)
    with pytest.raises(ModelError, match="was changed"):
        made(upscaler, scale=2, fidelity=0.5)
