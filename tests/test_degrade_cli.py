"""restore degrade: the same files whatever the workers, kills and order; refusals with the mend."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import psutil
import pytest
import yaml
from PIL import Image

from degradations import Recipe, RecipeError, Trace, consent, pair_folder, pairs, recipes, sharpen
from degradations.ops import plugins
from restore import cli
from restore.cli.degrade import read_rgb

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "tests" / "samples"
RUST = """
import numpy as np
from degradations.ops import Op
from degradations.ranges import Range, Uniform

class Rust(Op):
    amount: Range = Uniform(0.2, 0.6)

    def draw(self, rng):
        return {"amount": self.amount.draw(rng)}

    @staticmethod
    def apply(rgb, params, target):
        return rgb * np.float32(1 - params["amount"])
"""


@pytest.fixture(autouse=True)
def forget(monkeypatch, tmp_path_factory):
    """No own op outlives its test, nor consent to it."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
    yield
    consent._here.clear()
    plugins._registered.clear()
    plugins._runs.clear()
    sys.modules.pop("my_ops", None)


@pytest.fixture
def call(capsys):
    def run(*words):
        code = cli.main(["degrade", *map(str, words)])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.fixture
def make(call, tmp_path):
    """apply on the samples, small and without processes; options can be given again."""

    def run(out, *words, folder=SAMPLES, recipe="realesrgan"):
        base = ("-r", recipe, "-o", tmp_path / out, "--pairs", 8, "--workers", 0, "--crop", 64)
        return call("apply", folder, *base, *words)

    return run


def files(folder: Path) -> dict[str, bytes]:
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def own_recipe(folder: Path, *steps) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "my_ops.py").write_text(RUST, encoding="utf-8")
    path = folder / "mine.yaml"
    steps = steps or ({"kind": "my_ops.Rust"}, {"kind": "jpeg"})
    path.write_text(yaml.safe_dump({"name": "mine", "steps": list(steps)}), encoding="utf-8")
    return path


def test_any_number_of_workers_makes_the_same_files(make, tmp_path):
    said = [make(f"out{n}", "--pairs", 20, "--workers", n) for n in (0, 1, 2)]
    assert [code for code, _, _ in said] == [0, 0, 0]
    assert "20 pairs made in" in said[0][1] and "0 there before" in said[0][1]
    made = [files(tmp_path / f"out{n}") for n in (0, 1, 2)]
    assert made[0] == made[1] == made[2]
    assert len(made[0]) == 3 * 20 + 2 and "hr/000019.png" in made[0]


@pytest.mark.parametrize("scale", [1, 3, 2.5])
def test_whole_photos_are_degraded_as_they_are_one_pair_each(call, tmp_path, scale):
    words = (SAMPLES, "-r", "old_photo", "-o", tmp_path / "out", "--workers", 0)
    code, out, _ = call("apply", *words, "--whole", "-s", scale)
    assert code == 0 and "6 pairs made" in out
    met = set()
    for path in (tmp_path / "out" / "traces").iterdir():
        trace = Trace.load(path)
        marked = tmp_path / "marked.json"
        marked.write_text(path.read_text(), encoding="utf-8-sig")  # as editors of Windows save it
        assert Trace.load(marked) == trace
        photo = trace.key.partition("/")[2].rpartition("@")[0]
        hr, lr = (read_rgb(tmp_path / "out" / kind / f"{path.stem}.png") for kind in ("hr", "lr"))
        whole = read_rgb(SAMPLES / photo)
        assert (hr == whole[: hr.shape[0], : hr.shape[1]]).all()
        for low, high, side in zip(lr.shape, hr.shape, whole.shape[:2], strict=False):
            assert low * scale == high and side - high < 2 * scale
        met.add(photo)
    assert len(met) == 6
    code, _, err = call("apply", *words, "--pairs", 6)
    assert code == 2 and "crop whole, now 256" in err


def test_how_many_pairs_and_of_what_is_asked_for(call, tmp_path):
    words = ("apply", SAMPLES, "-r", "phone", "-o", tmp_path / "out")
    code, _, err = call(*words)
    assert code == 2 and "give --pairs N; or --whole" in err
    code, _, err = call(*words, "--whole", "--crop", 64)
    assert code == 2 and "give one of the two" in err
    assert not (tmp_path / "out").exists()


def test_a_pair_is_what_its_trace_and_the_recipe_say(make, tmp_path):
    assert make("out", "--severity", 0.5, "--scale", 2)[0] == 0
    recipe = Recipe.load(tmp_path / "out" / "recipe.yaml")
    assert recipe == recipes.named("realesrgan").at(0.5)
    for k in range(8):
        trace = Trace.load(tmp_path / "out" / "traces" / f"{k:06d}.json")
        number, _, place = trace.key.partition("/")
        photo, _, corner = place.rpartition("@")
        y, x = map(int, corner.split(","))
        hr, lr = (read_rgb(tmp_path / "out" / name / f"{k:06d}.png") for name in ("hr", "lr"))
        assert (int(number), trace.digest, trace.scale) == (k, recipe.digest(), 2)
        assert (hr == read_rgb(SAMPLES / photo)[y : y + 64, x : x + 64]).all()
        assert (recipe.degrade(hr, 2, 0, trace.key).lr == lr).all() and lr.shape == (32, 32, 3)


def test_a_killed_run_leaves_nobody_behind_and_is_gone_on_with(make, tmp_path):
    recipe = own_recipe(tmp_path / "mine")
    slow = "import os, time; time.sleep(float(os.environ.get('SLOW', 0)))\n"
    text = RUST.replace("return rgb", f"{slow}        return rgb")
    (tmp_path / "mine" / "my_ops.py").write_text(text)
    words = ("-r", recipe, "--pairs", "40", "--crop", "64", "--workers", "1", "--allow-code")
    tool = [sys.executable, ROOT / "tools" / "degrade.py", "apply", SAMPLES, *words]
    traces = tmp_path / "cut" / "traces"
    with subprocess.Popen(
        [*tool, "-o", tmp_path / "cut"], env=os.environ | {"SLOW": "0.05"}
    ) as process:
        while len(list(traces.glob("*.json"))) < 5:
            assert process.poll() is None
            time.sleep(0.005)
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
    assert family and not psutil.wait_procs(family, timeout=60)[1]
    left = len(list(traces.glob("*.json")))
    assert left < 40
    (tmp_path / "cut" / "lr" / ".000039.png.0123456789abcdef.part").write_bytes(b"half")
    code, out, _ = make("cut", "--pairs", 40, recipe=recipe)
    assert code == 0 and f"{left} there before" in out
    make("whole", "--pairs", 40, recipe=recipe)
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_a_second_run_does_only_what_is_missing(make, tmp_path):
    make("out")
    before, stamps = files(tmp_path / "out"), {}
    for path in (tmp_path / "out").glob("*/*"):
        stamps[path] = path.stat().st_mtime_ns
    lost = tmp_path / "out" / "lr" / "000003.png"
    for lose in (lost.unlink, lambda: lost.write_bytes(b"")):
        lose()
        code, out, _ = make("out")
        assert code == 0 and "1 pair made" in out and "7 there before" in out
        assert files(tmp_path / "out") == before
    again = {path for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp}
    assert {path.stem for path in again} == {"000003"}
    assert "4 pairs made" in make("out", "--pairs", 12)[1]
    make("straight", "--pairs", 12)
    assert files(tmp_path / "out") == files(tmp_path / "straight")


def test_every_photo_is_used_before_any_is_used_twice(make, tmp_path):
    photos = [path for path in SAMPLES.iterdir() if path.suffix != ".md"]
    make("out", "--pairs", 2 * len(photos))
    used = [json.loads(text)["key"] for name, text in files(tmp_path / "out").items()
            if name.startswith("traces/")]  # fmt: skip
    names = [key.split("/", 1)[1].rpartition("@")[0] for key in used]
    assert sorted(names[: len(photos)]) == sorted(names[len(photos) :])
    assert set(names) == {path.name for path in photos}


def test_an_own_op_reaches_the_workers_and_the_record(make, tmp_path):
    recipe = own_recipe(tmp_path / "mine")
    code, _, err = make("two", "--workers", 2, recipe=recipe)
    assert code == 2 and "--allow-code" in err and not (tmp_path / "two").exists()
    assert make("two", "--workers", 2, "--allow-code", recipe=recipe)[0] == 0
    assert make("none", recipe=recipe)[0] == 0
    made = files(tmp_path / "two")
    assert made == files(tmp_path / "none")
    assert made["my_ops.py"].decode() == RUST
    assert json.loads(made["traces/000000.json"])["steps"][0]["kind"] == "my_ops.Rust"
    sys.modules.pop("my_ops")
    plugins._registered.clear()
    assert (
        Recipe.load(tmp_path / "two" / "recipe.yaml", allow_code=True).steps[0].kind
        == "my_ops.Rust"
    )
    sys.modules.pop("my_ops")
    plugins._registered.clear()
    (tmp_path / "mine" / "my_ops.py").write_text(RUST + "\n# other pixels\n", encoding="utf-8")
    assert "--allow-code" in make("two", recipe=recipe)[2]
    code, _, err = make("two", "--allow-code", recipe=recipe)
    assert code == 2 and "other options: own ops" in err


def test_an_own_op_that_fails_ends_the_run_with_its_name(make, tmp_path):
    recipe = own_recipe(tmp_path / "mine")
    (tmp_path / "mine" / "my_ops.py").write_text(RUST.replace("rgb *", "1 / 0 *"))
    for workers in (0, 1):
        code, _, err = make(f"out{workers}", "--workers", workers, "--allow-code", recipe=recipe)
        assert code == 2 and "my_ops.Rust: apply failed: ZeroDivisionError" in err


def test_bad_photos_are_told_of_and_others_stand_in(make, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(SAMPLES, folder)
    whole = (folder / "portrait.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (200, 63)).save(folder / "low.png")
    said = [make(f"out{n}", "--pairs", 20, "--workers", n, folder=folder) for n in (0, 2)]
    for code, out, err in said:
        assert code == 1 and "20 pairs made" in out
        assert "cut.jpg: the file is cut short; fetch it again; another photo stands in" in err
        assert "low.png: 200x63 px is smaller than the crop of 64 px" in err
    assert files(tmp_path / "out0") == files(tmp_path / "out2")


def test_where_no_photo_can_be_used_nothing_is_made(make, tmp_path):
    code, out, err = make("out", "--crop", 1024)
    assert code == 1 and "0 pairs made" in out and "8 missing: no photo can be used" in out
    assert err.count("is smaller than the crop of 1024 px") == 6 and "stands in" not in err
    assert not list((tmp_path / "out" / "hr").iterdir())


def test_no_photos_make_no_folder(tmp_path):
    with pytest.raises(RecipeError, match="no photos"):
        pairs.make({}, pairs.PairSet("phone"), tmp_path / "out", 1, read_rgb)
    assert not (tmp_path / "out").exists()


def test_damage_has_masks_and_sharpened_targets_a_folder(make, tmp_path):
    make("old", recipe="old_photo")
    masks = [cv2.imread(str(p), -1) for p in sorted((tmp_path / "old" / "damage").iterdir())]
    assert len(masks) == 8 and all(m.shape == (16, 16) and m.dtype == np.uint8 for m in masks)
    assert any(mask.any() for mask in masks)
    make("sharp", "--pairs", 2, recipe="realesrgan_compat")
    hr, sharp = (read_rgb(tmp_path / "sharp" / name / "000001.png") for name in ("hr", "hr_sharp"))
    assert (sharp == sharpen(hr)).all() and (sharp != hr).any()


def test_an_output_folder_among_the_photos_is_no_input(make, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(SAMPLES, folder)
    make("out", folder=folder)
    for _ in range(2):
        assert make("photos/out", folder=folder)[0] == 0
        assert files(tmp_path / "out") == files(folder / "out")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--seed", 1], "seed 0, now 1"),
        (["--crop", 32], "crop 64, now 32"),
        (["--scale", 2], "scale 4, now 2"),
        (["--severity", 0.5], "severity 1, now 0.5"),
        (["-r", "phone"], "recipe realesrgan ("),
    ],
)
def test_other_options_in_an_old_folder_are_refused(make, tmp_path, words, told):
    make("out", "--pairs", 1)
    before = files(tmp_path / "out")
    code, _, err = make("out", *words)
    assert code == 2 and "out: holds pairs made with other options: " in err
    assert told in err and "give another folder" in err
    assert files(tmp_path / "out") == before


def test_other_photos_foreign_files_and_a_second_run_are_refused(make, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(SAMPLES, folder)
    make("out", folder=folder)
    (folder / "web_1998.jpg").unlink()
    assert "photos 6 (" in make("out", folder=folder)[2]
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").write_text("")
    code, _, err = make("foreign")
    assert code == 2 and "holds files but no pairs.json; give a folder of its own" in err
    text = json.loads((tmp_path / "out" / "pairs.json").read_text())
    with pair_folder.hold(tmp_path / "out", text):
        code, _, err = make("out")
    assert code == 3 and "another run writes here" in err


def test_photos_that_changed_in_place_make_no_pairs_beside_the_old_ones(make, tmp_path):
    """Their names and sizes are the same, as those of a BMP that was inverted."""
    photo = tmp_path / "photos" / "a.bmp"
    photo.parent.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    Image.fromarray(pixels).save(photo)
    assert make("out", "--pairs", 1, folder=photo.parent)[0] == 0
    kept = json.loads((tmp_path / "out" / "pairs.json").read_text())
    Image.fromarray(255 - pixels).save(photo)
    code, _, err = make("out", "--pairs", 2, folder=photo.parent)
    assert code == 2 and f"{pair_folder.CONTENT} {kept[pair_folder.CONTENT]}, now" in err
    Image.fromarray(pixels).save(photo)
    assert make("out", "--pairs", 2, folder=photo.parent)[0] == 0
    del kept[pair_folder.CONTENT]  # by an older release
    (tmp_path / "out" / "pairs.json").write_text(json.dumps(kept))
    assert make("out", "--pairs", 3, folder=photo.parent)[0] == 0


def test_what_a_disk_refuses_once_decides_no_pair(tmp_path):
    photos, asked = {}, pairs.PairSet("phone", crop=32)
    for number in range(3):
        photos[str(number)] = tmp_path / f"{number}.png"
        Image.fromarray(np.full((40, 40, 3), 50 * number, np.uint8)).save(photos[str(number)])
    failed = []

    def once(path):
        if path not in failed:
            failed.append(path)
            raise OSError(errno.EIO, "Input/output error")
        return read_rgb(path)

    made = pairs.make(photos, asked, tmp_path / "once", 3, once)
    assert not made.refused and len(failed) == 3
    pairs.make(photos, asked, tmp_path / "out", 3, read_rgb)
    assert files(tmp_path / "once") == files(tmp_path / "out")


def test_photos_that_cannot_be_listed_make_no_pairs(make, tmp_path, monkeypatch):
    real = os.scandir

    def broken(path="."):
        if str(path).endswith("sub"):
            raise OSError(errno.EIO, "Input/output error")
        return real(path)

    shutil.copytree(SAMPLES, tmp_path / "photos")
    (tmp_path / "photos" / "sub").mkdir()
    monkeypatch.setattr(os, "scandir", broken)
    code, _, err = make("out", folder=tmp_path / "photos")
    assert code == 3 and "sub: could not be listed" in err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("share", [0, 0.5, 1])
def test_a_record_that_a_full_disk_cut_is_written_anew(make, tmp_path, share):
    assert make("out", "--pairs", 1)[0] == 0
    record = tmp_path / "out" / "pairs.json"
    whole = record.read_text()
    record.write_text(whole[: int(len(whole) * share)])
    assert make("out", "--pairs", 1)[0] == 0 and record.read_text() == whole


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["-r", "realersgan"], "no recipe is called 'realersgan'; did you mean 'realesrgan'?"),
        (["-r", "none.yaml"], "none.yaml: cannot be read"),
        (["--scale", 0], "'--scale'"),
        (["--scale", "nan"], "'--scale'"),
        (["--pairs", 0], "'--pairs'"),
        (["--crop", 0], "'--crop'"),
        (["--severity", 1.5], "'--severity'"),
        (["--severity", "nan"], "'--severity'"),
        (["--workers", -1], "'--workers'"),
        (["--crop", 66], "no multiple of the scale 4; give one that is, such as 68"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(make, tmp_path, words, told):
    code, _, err = make("out", *words)
    assert code == 2 and told in err
    assert not (tmp_path / "out").exists()


def test_a_wrong_recipe_is_told_before_the_number_of_pairs_is_asked_for(call, tmp_path):
    words = "apply", SAMPLES, "-o", tmp_path / "out", "-r"
    code, _, err = call(*words, "realersgan")
    assert code == 2 and "did you mean 'realesrgan'?" in err
    code, _, err = call(*words, "realesrgan")
    assert code == 2 and "how many?" in err


def test_folders_that_cannot_be_are_refused(make, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    code, _, err = make("out", folder=tmp_path / "empty")
    assert code == 2 and "empty: no picture here" in err
    code, _, err = make("empty", folder=tmp_path / "empty")
    assert code == 2 and "is the input folder too" in err
    code, _, err = make("file")
    assert code == 2 and "file: is a file; -o takes a folder" in err
    path = tmp_path / "wrong.yaml"
    path.write_text("name: a\nsteps: [{kind: jpeg, quality: [95, 30]}]")
    code, _, err = make("out", recipe=path)
    assert code == 2 and "quality: a range goes from low to high, not from 95 to 30" in err
    assert not (tmp_path / "out").exists()


def test_a_dead_worker_and_ctrl_c_are_told_with_the_way_on(make, monkeypatch, tmp_path):
    recipe = own_recipe(tmp_path / "mine")
    dying = "import os, multiprocessing as m\n        if m.parent_process(): os._exit(9)\n"
    text = RUST.replace("return rgb", f"{dying}        return rgb")
    (tmp_path / "mine" / "my_ops.py").write_text(text)
    code, _, err = make("out", "--workers", 1, "--allow-code", recipe=recipe)
    assert code == 3 and "a worker process was ended from outside" in err
    assert make("out", recipe=recipe)[0] == 0  # alone it lives

    def stopped(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(pairs, "make", stopped)
    code, _, err = make("out", recipe=recipe)
    assert code == 130 and "run the same command again to go on" in err


def test_photos_are_read_upright_in_8_bits_without_transparency(tmp_path):
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    cv2.imwrite(str(tmp_path / "deep.png"), ramp)
    expected = np.rint(ramp / 257).astype(np.uint8)
    assert (read_rgb(tmp_path / "deep.png") == expected[..., None]).all()
    pixels = np.zeros((4, 6, 4), np.uint8)
    pixels[:, 3:] = 100, 50, 0, 255
    pixels[:, 5:, 3] = 51
    Image.fromarray(pixels).save(tmp_path / "clear.png")
    clear = read_rgb(tmp_path / "clear.png")
    assert (clear[:, :3] == 255).all() and (clear[:, 3] == (100, 50, 0)).all()
    assert (clear[:, 5] == (224, 214, 204)).all()
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side
    Image.fromarray(pixels[..., :3]).save(tmp_path / "side.png", exif=exif)
    assert read_rgb(tmp_path / "side.png").shape == (6, 4, 3)


def test_a_trace_is_replayed_bit_for_bit(make, call, tmp_path):
    make("out")
    out = tmp_path / "out"
    lines = [text.decode() for name, text in files(out).items() if name.startswith("traces/")]
    (tmp_path / "all.jsonl").write_text("".join(lines))
    key = json.loads(lines[5])["key"]
    hr = out / "hr" / "000005.png"
    for trace, more in [(out / "traces" / "000005.json", ()), ("all.jsonl", ("--key", key))]:
        again = tmp_path / "again.png"
        again.unlink(missing_ok=True)
        code, said, _ = call("replay", tmp_path / trace, hr, "-o", again, *more)
        assert code == 0 and "16x16" in said
        assert again.read_bytes() == (out / "lr" / "000005.png").read_bytes()
    code, _, err = call("replay", tmp_path / "all.jsonl", hr, "-o", tmp_path / "b.png")
    assert code == 2 and "holds 8 traces; give a key" in err
    near = key[:-1] + "_"
    code, _, err = call(
        "replay", tmp_path / "all.jsonl", hr, "-o", tmp_path / "b.png", "--key", near
    )
    assert code == 2 and f"did you mean {key!r}?" in err
    code, _, err = call("replay", tmp_path / "all.jsonl", hr, "-o", again)
    assert code == 2 and "again.png: is there already" in err


def test_a_trace_that_cannot_be_replayed_says_why(make, call, tmp_path):
    make("out", "--pairs", 1)
    path, hr = tmp_path / "trace.json", tmp_path / "out" / "hr" / "000000.png"
    trace = json.loads((tmp_path / "out" / "traces" / "000000.json").read_text())

    def refusal(text, *words, picture=hr):
        path.write_text(text if isinstance(text, str) else json.dumps(text))
        code, _, err = call("replay", path, picture, "-o", tmp_path / "lr.png", *words)
        assert code == 2 and not (tmp_path / "lr.png").exists()
        return err

    assert "of (height, width) (64, 64), not (162, 128); replay it on" in refusal(
        trace, picture=SAMPLES / "portrait.jpg"
    )
    assert "unknown kind 'rust'" in refusal(trace | {"steps": [{"kind": "rust"}]})
    assert "steps[0] (jpeg) cannot be done: lacks 'quality'" in refusal(
        trace | {"steps": [{"kind": "jpeg"}]}
    )
    assert "trace.json: not a trace" in refusal("{}")
    assert "trace.json: not a trace" in refusal("nothing")
    mine = trace | {"steps": [{"kind": "my_ops.Rust", "amount": 0.5}]}
    assert "load the recipe that names it first" in refusal(mine)
    recipe = own_recipe(tmp_path / "mine")
    assert call("replay", path, hr, "-o", tmp_path / "lr.png", "-r", recipe, "--allow-code")[0] == 0
    assert call("replay", tmp_path / "none.json", hr, "-o", tmp_path / "b.png")[0] == 2
    assert (
        call("replay", path, tmp_path / "none.png", "-o", tmp_path / "b.png", "-r", recipe)[0] == 1
    )


def test_a_preview_is_written_as_page_and_as_picture(call, tmp_path):
    out = tmp_path / "a.html", tmp_path / "a.png"
    words = ("-r", "phone", "--seeds", 2, "--rows", 2, "--crop", 64)
    code, said, _ = call("preview", SAMPLES, *words, "-o", out[0], "-o", out[1])
    assert code == 0 and said.split() == [str(path) for path in out]
    assert out[0].read_text().count("<img") == 2 * 3
    assert read_rgb(out[1]).std() > 20
    (tmp_path / "text.jpg").write_text("no picture")
    code, said, err = call(
        "preview", SAMPLES / "portrait.jpg", tmp_path / "text.jpg", *words, "-o", out[0]
    )
    assert code == 1 and "text.jpg: the file is not a picture" in err
    assert out[0].read_text().count("<img") == 3
    code, _, err = call("preview", tmp_path / "text.jpg", *words, "-o", tmp_path / "b.html")
    assert code == 1 and not (tmp_path / "b.html").exists()


@pytest.mark.parametrize("name", ["photo.png", "photo.html"])
def test_a_preview_takes_the_place_of_a_preview_alone(call, tmp_path, name):
    words = ("preview", SAMPLES / "portrait.jpg", "-r", "phone", "--seeds", 1, "--crop", 32)
    out = tmp_path / name
    Image.new("RGB", (9, 9)).save(out, "PNG")
    mine = out.read_bytes()
    code, _, err = call(*words, "-o", out)
    assert code == 2 and "is no report of ours" in err and out.read_bytes() == mine
    out.unlink()
    assert [call(*words, "-o", out)[0] for _ in range(2)] == [0, 0]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["preview", SAMPLES, "-r", "phone", "-o", "a.jpg"], ".html or .png"),
        (["preview", SAMPLES, "-r", "phon", "-o", "a.html"], "did you mean 'phone'?"),
        (["preview", SAMPLES, "-r", "phone", "-o", "none/a.html"], "no folder none; make it"),
        (["histogram", "-r", "phone", "-o", "a.png"], "a.png: this output is a file, .html"),
        (["histogram", "-r", "phone", "-n", "0"], "'--samples'"),
        (["import", "x.yml", "-o", "a.txt"], "a.txt: this output is a file, .yaml"),
        (["import", "x.yml", "-o", "a.yaml"], "x.yml: cannot be read"),
        (["estimate", SAMPLES, "-o", "a.txt"], "a.txt: this output is a file, .yaml"),
    ],
)
def test_a_wrong_command_is_refused(call, tmp_path, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    code, _, err = call(*words)
    assert code == 2 and told in err
    assert not list(tmp_path.iterdir())


def test_a_histogram_is_told_and_drawn(call, tmp_path):
    code, said, _ = call("histogram", "-r", "phone", "-n", 200, "-o", tmp_path / "h.html")
    assert code == 0 and "phone: 200 samples" in said and "sensor_noise" in said
    assert "<svg" in (tmp_path / "h.html").read_text()


def test_options_of_basicsr_become_a_recipe(call, tmp_path):
    path, out = tmp_path / "x2.yml", tmp_path / "mine.yaml"
    path.write_text("scale: 2\njpeg_range: [50, 95]\njpeg_rnage2: [60, 95]\n")
    code, said, err = call("import", path, "-o", out)
    assert code == 0 and "mine.yaml: the recipe x2; it is for --scale 2" in said
    assert "jpeg_rnage2 is left out: not a known option; did you mean 'jpeg_range2'?" in err
    assert "no sinc_prob: assumed 0.1, as in x4plus" in err
    assert Recipe.load(out).steps[3].quality.low == 50
    code, _, err = call("import", path, "-o", out)
    assert code == 2 and "is there already; give another name" in err


def test_what_there_is_is_listed(call, monkeypatch):
    code, said, _ = call("list")
    assert code == 0 and "arXiv:2107.10833" in said
    assert all(name in said for name in recipes.NAMED)
    points = [
        EntryPoint("my_word", "degradations.ops.jpeg:Jpeg", plugins.ENTRY_POINTS),
        EntryPoint("my_broken", "no_such_module:Op", plugins.ENTRY_POINTS),
    ]
    monkeypatch.setattr("degradations.catalogue.entry_points", lambda group: points)
    monkeypatch.setenv("COLUMNS", "160")
    code, said, _ = call("list", "--ops")
    assert code == 0 and "sigma_levels: 1 to 30" in said and "one_of" in said
    assert "my_word" in said and "cannot be loaded: ModuleNotFoundError" in said


def test_an_estimate_is_saved_and_the_refused_are_told(call, tmp_path, monkeypatch):
    asked = []

    def estimate(paths, name, workers):
        asked.append((sorted(path.name for path in paths), name, workers))
        refused = [(str(paths[0]), "too small")]
        recipe = Recipe(name=name, steps=recipes.named("phone").steps)
        return SimpleNamespace(save=recipe.save, photos=[1, 2], refused=refused)

    module = ModuleType("degradations.estimate")
    module.estimate = estimate
    module.write_page = lambda found, path, clean: path.write_text(
        f"{len(found.photos)} photos, {len(clean)} clean"
    )
    monkeypatch.setitem(sys.modules, "degradations.estimate", module)
    page, out = tmp_path / "page.html", tmp_path / "mine.yaml"
    words = ("--page", page, "--workers", 1, "--clean", SAMPLES / "portrait.jpg")
    code, said, err = call("estimate", SAMPLES, "-o", out, *words)
    assert code == 1 and "mine.yaml: the recipe of 2 photos, 1 refused" in said
    assert "landscape.jpg: too small" in err
    assert Recipe.load(out).name == "mine" and page.read_text() == "2 photos, 1 clean"
    assert len(asked[0][0]) == 6 and asked[0][1:] == ("mine", 1)
