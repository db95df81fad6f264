"""A folder through somebody's upscaler: every promise of the runner holds."""

import json
import sys

import cv2
import numpy as np
import pixel_nets
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from restore import cli
from restore.pixel import model as pixel_model


@pytest.fixture
def run(tmp_path, capsys):
    """`restore COMMAND in -o out ...`: (exit code, rows by key, what was said)."""

    def go(*words, command="upscale", out="out"):
        given = [command, tmp_path / "in", "-o", tmp_path / out, "--device", "cpu", *words]
        code = cli.main(list(map(str, given)))
        said = capsys.readouterr()
        report = tmp_path / out / "report.jsonl"
        lines = report.read_text().splitlines() if report.exists() else []
        return code, {row["key"]: row for row in map(json.loads, lines)}, said.out + said.err

    return go


@pytest.fixture
def folder(tmp_path, pixels):
    """A picture of 8 bits, one of 16, a transparent one and a grey one, and no picture."""
    place = tmp_path / "in" / "deep"
    place.mkdir(parents=True)
    rgb = pixels(20, 28)
    profile = b"not looked at"
    Image.fromarray(rgb).save(tmp_path / "in" / "plain.jpg")
    deep = rgb.astype(np.uint16) * 257 + np.arange(28, dtype=np.uint16)[:, None]
    cv2.imwrite(str(place / "deep.png"), deep[..., ::-1])
    alpha = np.linspace(0, 255, 28).astype(np.uint8)[None].repeat(20, 0)
    Image.fromarray(np.dstack([rgb, alpha])).save(place / "alpha.png", icc_profile=profile)
    Image.fromarray(rgb[..., 0]).save(place / "grey.png")
    (place / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return tmp_path


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", pixel_nets.EIGHT)
def test_a_folder_is_enlarged_and_a_second_run_has_nothing_to_do(folder, run, kind, suffix):
    file = pixel_nets.save(folder / "models", kind, suffix)
    code, rows, said = run("--model", file)
    assert code == 1 and rows["deep/broken.png"]["status"] == "failed"
    done = {key: row for key, row in rows.items() if row["status"] == "done"}
    assert len(done) == 4, said
    scale = 4 if kind in ("RRDBNet", "SRVGGNetCompact") else 2
    assert all(row["size_out"] == [20 * scale, 28 * scale] for row in done.values())
    made = cv2.imread(str(folder / "out" / "deep" / "deep.png"), cv2.IMREAD_UNCHANGED)
    assert made.dtype == np.uint16 and made.shape == (20 * scale, 28 * scale, 3)
    with Image.open(folder / "out" / "deep" / "alpha.png") as image:
        assert image.mode == "RGBA"
        alpha = np.asarray(image)[..., 3]
        assert (np.diff(alpha[0].astype(int)) >= 0).all() and alpha.max() > 250
    with Image.open(folder / "out" / "deep" / "grey.png") as image:
        assert image.mode == "L"
    written = {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*.png")}
    code, again, said = run("--model", file)
    assert code == 1 and "4 finished" in said
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert {k: again[k]["output_sha256"] for k in done} == {
        k: row["output_sha256"] for k, row in done.items()
    }


def test_what_was_lost_is_made_again_and_other_weights_are_other_results(folder, run):
    file = pixel_nets.save(folder / "models", "SPAN")
    run("--model", file)
    lost = folder / "out" / "deep" / "grey.png"
    first = lost.read_bytes()
    lost.unlink()
    assert "3 finished" in run("--model", file)[2] and lost.read_bytes() == first
    state = load_file(file)
    state["conv_1.sk.bias"] += 0.05
    save_file(state, file)
    _, rows, said = run("--model", file)
    assert "4 done" in said and lost.read_bytes() != first
    assert {row["weights"] for row in rows.values() if row["status"] == "done"} != {""}


def test_the_scale_given_is_the_scale_made(folder, run):
    file = pixel_nets.save(folder / "models", "SPAN")
    rows = run("--model", file, "-s", 3)[1]
    assert rows["plain.jpg"]["size_out"] == [60, 84]
    own = run("--model", file, "-s", 2, out="two")[1]["plain.jpg"]
    unsaid = run("--model", file, out="own")[1]["plain.jpg"]
    assert own["output_sha256"] == unsaid["output_sha256"]
    assert own["options"] == unsaid["options"]


@pytest.mark.parametrize(
    ("command", "words", "code", "told"),
    [
        ("upscale", ["--steps", 2, "--prompt", "x"], 2, "prompt, steps: "),
        ("upscale", ["--windows", 2], 2, "windows: "),
        ("upscale", ["--set", "upscale.strength=0.5"], 2, "strength: "),
        ("upscale", ["--compile"], 2, "--compile"),
        ("upscale", ["--dtype", "fp16", "--model", "SwinIR"], 3, "does not compute in fp16"),
        ("img2img", ["--prompt", "x"], 3, "upscale, but not img2img"),
        ("inpaint", ["--extend", "0,0,8,0"], 3, "upscale, but not inpaint"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(folder, run, command, words, code, told):
    for kind in ("SPAN", "SwinIR"):
        pixel_nets.save(folder / "models", kind)
    words = [folder / "models" / "SwinIR.safetensors" if w == "SwinIR" else w for w in words]
    given = ["--model", folder / "models" / "SPAN.safetensors", *words]
    got, rows, said = run(*given, command=command)
    assert (got, rows) == (code, {}) and told in said
    assert not (folder / "out").exists()


def test_a_hostile_or_cut_file_is_3_with_its_name_and_touches_nothing(folder, run):
    path = folder / "models" / "evil.pth"
    path.parent.mkdir()
    path.write_bytes(b"\x80\x02cposix\nsystem\nX\x05\x00\x00\x00touch\x85R.")
    code, rows, said = run("--model", path)
    assert (code, rows) == (3, {}) and "evil.pth" in said and "--allow-pickle" not in said
    assert not (folder / "out").exists()


def test_a_dry_run_tells_the_models_own_needs(folder, run, monkeypatch):
    file = pixel_nets.save(folder / "models", "SPAN")
    code, rows, said = run("--model", file, "--dry-run")
    assert code == 0 and not rows and "28x20 -> 56x40" in said
    assert "memory: about 1.3 GB" in said
    assert not (folder / "out").exists()


def test_damage_is_mended_and_scratches_are_found(folder, run):
    file = pixel_nets.save(folder / "models", "SPAN")
    mask = np.zeros((20, 28), np.uint8)
    mask[5:8] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    masked = run("--model", file, "--damage", folder / "mask.png")[1]["plain.jpg"]
    plain = run("--model", file, out="plain")[1]["plain.jpg"]
    assert masked["output_sha256"] != plain["output_sha256"]


def test_windows_and_workers_change_no_byte(folder, run, pixels, monkeypatch):
    file = pixel_nets.save(folder / "models", "SRVGGNetCompact")
    Image.fromarray(pixels(100, 90)).save(folder / "in" / "large.png")
    whole = run("--model", file)[1]["large.png"]
    monkeypatch.setattr(pixel_model, "LARGEST", 64)
    parts = run("--model", file, out="parts")[1]["large.png"]
    shard = run("--model", file, "--shard", "1/1", "--include", "large.png", out="one")[1]
    assert shard["large.png"]["output_sha256"] == parts["output_sha256"]
    one, other = (np.asarray(Image.open(folder / out / "large.png")) for out in ("out", "parts"))
    assert np.abs(one.astype(int) - other).max() <= 1, whole


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_flat_and_what_the_plan_tells(tmp_path):
    from benchmarks import memory

    file = pixel_nets.save(tmp_path, "SPAN")
    rows = memory.measure(tmp_path, str(file), [6, 24], [2], "tiff")
    assert rows[1]["own_mb"] < rows[0]["own_mb"] + 300
    for row in rows:
        assert row["own_mb"] < row["told_mb"] < 2.5 * row["own_mb"]


def test_an_upscaler_is_measured_on_a_set_and_its_device_is_part_of_the_result(folder, capsys):
    file = pixel_nets.save(folder / "models", "SPAN")
    for name, shrink in (("hr", 1), ("lr", 2)):
        (folder / "set" / name).mkdir(parents=True)
        with Image.open(folder / "in" / "deep" / "grey.png") as image:
            image.reduce(shrink).save(folder / "set" / name / "a.png")
    words = ["evaluate", "--model", file, "--set", folder / "set", "-o", folder / "scores"]
    words += ["--border", 0, "--metrics", "psnr"]
    options = set()
    for more in ([], ["--device", "cpu"]):
        assert cli.main([str(word) for word in [*words, *more]]) == 0, capsys.readouterr().err
        report = folder / "scores" / "restored" / "set" / "report.jsonl"
        options.add(json.loads(report.read_text())["options"])
    assert len(options) == 2
