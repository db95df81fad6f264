"""restore evaluate: every pair has its row, folders are compared fairly, bad input is named."""

import csv
import json
import re
import shutil
import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy import stats

from restore import cli
from restore.batch import evaluation_set
from restore.errors import ImageError, UsageError
from restore.images import picture as images
from restore.metrics import figures, measures, pairing, score
from restore.metrics.measures import MEASURES, Pair
from restore.metrics.score import ScoredFolder
from restore.options import UpscaleOptions

QUICK = ("--metrics", "psnr,ssim,pd")


@pytest.fixture
def evaluate(capsys, tmp_path):
    """Run it: (exit code, stdout, stderr, scores.json or None)."""

    def run(*words, out="told"):
        code = cli.main(
            ["evaluate", *map(str, words), *(["-o", str(tmp_path / out)] if out else [])]
        )
        said = capsys.readouterr()
        scores = tmp_path / out / "scores.json"
        told = json.loads(scores.read_text()) if out and scores.is_file() else None
        return code, said.out, said.err, told

    return run


@pytest.fixture
def folders(tmp_path, pixels):
    """Originals, and two folders of restored ones: the second is worse."""
    for number, name in enumerate(("a", "b", "deep/c")):
        rgb = pixels(64, 80, number)
        for folder, sigma in (("hr", 0), ("good", 4), ("bad", 25)):
            noise = np.random.default_rng(number).normal(0, sigma, rgb.shape)
            path = tmp_path / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noisy = np.clip(np.rint(rgb + noise), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(path)
    return tmp_path


def rows_of(told, folder=0):
    return {row["key"]: row for row in told["sets"][0]["folders"][folder]["rows"]}


def test_a_folder_is_measured_against_its_originals(evaluate, folders):
    Image.open(folders / "good/b.png").save(folders / "good/b.webp", lossless=True)
    (folders / "good/b.png").unlink()  # paired by name, whatever the format
    code, out, err, told = evaluate(folders / "good", "--reference", folders / "hr", *QUICK)
    assert code == 0, err
    rows = rows_of(told)
    assert list(rows) == ["a", "b", "deep/c"]
    both = (measures.picture_levels(images.read(folders / f / "a.png")) for f in ("good", "hr"))
    pair = Pair(*both)
    expected = {name: MEASURES[name].of(pair) for name in ("psnr", "ssim", "pd")}
    assert rows["a"]["scores"] == expected
    means = told["sets"][0]["folders"][0]["means"]
    assert means["psnr"]["mean"] == pytest.approx(
        np.mean([row["scores"]["psnr"] for row in rows.values()])
    )
    assert f"{means['psnr']['mean']:.2f}" in out and "report.html" in out
    with (folders / "told/scores.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["key"] for row in table] == list(rows)
    assert float(table[0]["pd"]) == expected["pd"]


def test_the_page_shows_the_worst_first_beside_what_it_was_made_from(evaluate, folders):
    noisy = folders / "good/deep/c.png"
    Image.open(folders / "bad/deep/c.png").save(noisy)
    words = (folders / "good", "--reference", folders / "hr", "--inputs", folders / "bad")
    code, *_ = evaluate(*words, "--metrics", "psnr,ssim", "--sort", "psnr", "--worst", 2)
    page = (folders / "told/report.html").read_text()
    assert code == 0 and page.count("data:image/png") == 2 * 3
    shown = re.findall(r"(\S+)<br>original", page)
    assert len(shown) == 2 and shown[0] == "deep/c"
    assert "input, 80x64" in page and "http:" not in page.replace("http://www.w3.org", "")


def test_two_folders_are_compared_picture_by_picture(evaluate, folders):
    code, out, _, told = evaluate(
        folders / "good", folders / "bad", "--reference", folders / "hr", *QUICK
    )
    assert code == 0 and "bad against good" in out
    found = {one["measure"]: one for one in told["sets"][0]["comparisons"]}
    for name, one in found.items():
        gaps = [
            rows_of(told, 1)[key]["scores"][name] - rows_of(told, 0)[key]["scores"][name]
            for key in ("a", "b", "deep/c")
        ]
        assert one["difference"] == pytest.approx(np.mean(gaps))
        assert (one["wins"], one["ties"], one["losses"], one["verdict"]) == (0, 0, 3, "worse")
        inside = [min(gaps), one["low"], one["difference"], one["high"], max(gaps)]
        assert inside == pytest.approx(sorted(inside))
    assert found["psnr"]["difference"] < 0 < found["pd"]["difference"]
    _, _, _, told = evaluate(
        folders / "bad", folders / "good", "--reference", folders / "hr", *QUICK
    )
    assert {one["verdict"] for one in told["sets"][0]["comparisons"]} == {"better"}
    same = shutil.copytree(folders / "bad", folders / "same")
    words = (folders / "bad", same, "--reference", folders / "hr", *QUICK)
    _, _, _, told = evaluate(*words)
    one = told["sets"][0]["comparisons"][0]
    assert (one["ties"], one["low"], one["high"], one["verdict"]) == (3, 0, 0, "undecided")


def test_a_bad_file_costs_only_its_own_row(evaluate, folders):
    (folders / "good/a.png").write_bytes((folders / "good/a.png").read_bytes()[:200])
    Image.open(folders / "good/b.png").resize((40, 32)).save(folders / "good/b.png")
    code, _, err, told = evaluate(folders / "good", "--reference", folders / "hr", *QUICK)
    rows = rows_of(told)
    assert code == 1 and len(rows) == 3 and rows["deep/c"]["status"] == "done"
    assert rows["a"]["code"] == "TRUNCATED" and "good/a.png: the file is cut short" in err
    assert rows["b"]["code"] == "SIZE"
    assert "good/b.png: is 40x32, its original 80x64" in rows["b"]["error"]
    assert told["sets"][0]["folders"][0]["means"]["psnr"]["pictures"] == 1
    assert "is 40x32" in (folders / "told/report.html").read_text()


def test_what_does_not_pair_is_listed(evaluate, folders):
    (folders / "good/a.png").rename(folders / "good/z<b>.png")
    code, _, err, told = evaluate(folders / "good", "--reference", folders / "hr", *QUICK)
    one = told["sets"][0]["folders"][0]
    assert code == 0 and list(rows_of(told)) == ["b", "deep/c"]
    assert [Path(path).name for path in one["unpaired"]] == ["z<b>.png"]
    assert [Path(path).name for path in one["missing"]] == ["a.png"]
    assert "no original:" in err and "not restored:" in err
    assert "z&lt;b&gt;.png" in (folders / "told/report.html").read_text()


def test_names_pair_whatever_their_unicode_form(evaluate, folders):
    for folder, form in (("good", "NFD"), ("hr", "NFC")):
        name = unicodedata.normalize(form, "é.png")
        (folders / folder / "a.png").rename(folders / folder / name)
    code, _, _, told = evaluate(folders / "good", "--reference", folders / "hr", *QUICK)
    assert code == 0 and set(rows_of(told)) == {"b", "deep/c", "\u00e9"}


def test_names_of_others_pair_by_their_suffix(evaluate, folders):
    for path in sorted((folders / "good").rglob("*.png")):
        path.rename(path.with_stem(path.stem + "_out"))
    words = (folders / "good", "--reference", folders / "hr", *QUICK)
    code, _, err, _ = evaluate(*words)
    assert code == 2 and "a_out.png, a.png" in err and "--suffix" in err
    code, _, _, told = evaluate(*words, "--suffix", "_out")
    assert code == 0 and list(rows_of(told)) == ["a", "b", "deep/c"]


@pytest.mark.parametrize(
    "words, message",
    [
        ((), "takes folders with --reference, or --model with --set"),
        (("good",), "--reference is missing"),
        (("good", "--model", "nano"), "takes folders with --reference, or --model"),
        (("good", "--reference", "nowhere"), "nowhere: no such file or folder"),
        (("empty", "--reference", "hr"), "empty: no picture here"),
        (("good", "bad", "./good", "--reference", "hr"), "good: given twice"),
        (("good", "--reference", "hr", "--metrics", "psnr,snr"), "no measure snr"),
        (("good", "--reference", "hr", "--sort", "pd", *QUICK[:1], "psnr"), "is not among"),
        (("good", "--reference", "hr", "--steps", "3"), "--steps: --reference has no use"),
        (("good", "--reference", "hr", "--set", "hr"), "--set: --reference has no use"),
        (("--model", "nano", "--set", "hr", "--suffix", "_x"), "--suffix: --model has no use"),
        (("--model", "nano"), "--model needs --set: a set is a folder with lr/ and hr/"),
        (("--model", "nano", "--set", "good/deep"), "good/deep: is no set; a set is"),
        (("--model", "nano", "--set", "nowhere"), "nowhere: no such folder"),
        (("--model", "nowhere", "--set", "good"), "nowhere: no model of that name"),
    ],
)
def test_what_cannot_be_is_refused_with_the_mend(evaluate, folders, monkeypatch, words, message):
    (folders / "empty").mkdir()
    monkeypatch.chdir(folders)
    code, _, err, told = evaluate(*words)
    assert code in (2, 3) and message in err and told is None, err


def test_the_report_needs_a_folder(evaluate, folders):
    words = (folders / "good", "--reference", folders / "hr", *QUICK)
    code, out, _, _ = evaluate(*words, out="")
    assert code == 0 and "PSNR" in out and "report" not in out
    assert "--sort: the report needs -o" in evaluate(*words, "--sort", "pd", out="")[2]


def test_two_pictures_for_one_original_are_refused(evaluate, folders):
    Image.open(folders / "good/a.png").save(folders / "good/a.jpg")
    code, _, err, _ = evaluate(folders / "good", "--reference", folders / "hr")
    assert code == 2 and "two pictures for a; remove one" in err


def test_what_an_evaluation_wrote_is_not_evaluated(evaluate, folders):
    words = (folders / "good", "--reference", folders / "hr", *QUICK)
    assert evaluate(*words, out="good/told")[0] == 0
    Image.open(folders / "hr/a.png").save(folders / "good/told/a.png")
    assert len(rows_of(evaluate(*words, out="good/told")[3])) == 3


def test_two_files_are_a_pair(evaluate, folders):
    code, _, _, told = evaluate(folders / "bad/a.png", "--reference", folders / "hr/b.png", *QUICK)
    assert code == 0 and list(rows_of(told)) == ["b"]


def test_one_picture_of_a_folder_of_originals_misses_no_other(evaluate, folders):
    code, _, err, told = evaluate(folders / "good/a.png", "--reference", folders / "hr", *QUICK)
    assert code == 0 and list(rows_of(told)) == ["a"]
    assert "not restored" not in err and not told["sets"][0]["folders"][0]["missing"]


def test_grey_alpha_and_16_bits_are_measured_as_they_look(tmp_path, evaluate, pixels):
    for folder in ("hr", "made"):
        (tmp_path / folder).mkdir()
    rgb = pixels(40, 48)
    grey = rgb[..., 0]
    Image.fromarray(grey).save(tmp_path / "made/grey.png")
    Image.fromarray(np.dstack([grey] * 3)).save(tmp_path / "hr/grey.png")
    deep = rgb.astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / "made/deep.png"), deep[..., ::-1])
    Image.fromarray(rgb).save(tmp_path / "hr/deep.png")
    half = np.full((40, 48), 51, np.uint8)
    Image.fromarray(np.dstack([rgb, half])).save(tmp_path / "made/alpha.png")
    flat = Image.fromarray(np.rint(rgb * 0.2 + 255 * 0.8).astype(np.uint8))
    flat.save(tmp_path / "hr/alpha.png")
    code, _, err, told = evaluate(
        tmp_path / "made", "--reference", tmp_path / "hr", "--metrics", "psnr_rgb"
    )
    rows = rows_of(told)
    scores = {key: row["scores"]["psnr_rgb"] for key, row in rows.items()}
    assert code == 0, err
    assert scores["grey"] > 160 and scores["deep"] > 160 and scores["alpha"] > 55
    notes = {key: "; ".join(row["warnings"]) for key, row in rows.items()}
    assert notes["grey"] == "the restored is grey, the original has colours"
    assert notes["deep"] == "16 bits against 8" and "laid on white" in notes["alpha"]


def test_that_only_the_first_of_several_frames_is_measured_is_told(tmp_path, evaluate, pixels):
    first, second = (Image.fromarray(pixels(40, 48, seed)) for seed in (0, 1))
    for folder in ("hr", "made"):
        (tmp_path / folder).mkdir()
        for name in ("one.tif", "two.tif"):
            more = [second] if name == "two.tif" and folder == "made" else []
            path = tmp_path / folder / name
            first.save(path, save_all=True, append_images=more)
    words = [tmp_path / "made", "--reference", tmp_path / "hr", "--metrics", "psnr_rgb"]
    code, _, err, told = evaluate(*words)
    assert code == 0 and "made: only the first frame is measured: 1 of 2" in err
    notes = {key: row["warnings"] for key, row in rows_of(told).items()}
    assert notes == {"one": [], "two": ["only the first frame is measured"]}


def test_a_picture_too_small_for_a_measure_has_the_others(tmp_path, evaluate):
    for folder in ("hr", "made"):
        (tmp_path / folder).mkdir()
        for side in (6, 12, 40):
            path = tmp_path / folder / f"{side}.png"
            Image.fromarray(np.full((side, side, 3), side, np.uint8)).save(path)
    code, out, err, told = evaluate(tmp_path / "made", "--reference", tmp_path / "hr")
    rows = rows_of(told)
    assert "made: too small for ms_ssim: 2 of 2" in err and "too small for ssim: 1 of 2" in err
    assert code == 1 and "--border 0" in rows["6"]["error"]
    assert rows["12"]["scores"]["psnr"] > 160 and rows["12"]["scores"]["ssim"] is None
    assert rows["40"]["scores"]["ssim"] == 1 and rows["40"]["scores"]["ms_ssim"] is None
    assert "too small for ms_ssim" in rows["40"]["warnings"] and "MS-SSIM" in out


def test_a_flat_picture_is_not_said_to_be_too_small(tmp_path, evaluate):
    for folder in ("hr", "made"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (40, 40), (90, 90, 90)).save(tmp_path / folder / "flat.png")
    _, _, err, told = evaluate(tmp_path / "made", "--reference", tmp_path / "hr")
    assert "made: too flat for detail: 1 of 1" in err and "too small for detail" not in err
    notes = rows_of(told)["flat"]["warnings"]
    assert "too flat for detail" in notes and "too small for ms_ssim" in notes


def test_the_help_and_the_page_name_every_measure(capsys):
    cli.main(["evaluate", "--help-all"])
    told = capsys.readouterr().out
    page = (Path(__file__).parents[1] / "docs/reference/evaluation.md").read_text()
    assert all(re.search(rf"\b{name}\b", told) and f"`{name}`" in page for name in MEASURES)


def test_a_model_is_measured_on_sets_of_every_layout(tmp_path, capsys, call, pixels):
    for name, scale in (("x2", 2), ("x1", 1)):
        for stem in ("one", "two"):
            hr = Image.fromarray(pixels(48, 64, len(stem)))
            for folder, picture in (("hr", hr), (name, hr.reduce(scale))):
                (tmp_path / "bench" / folder).mkdir(parents=True, exist_ok=True)
                picture.save(tmp_path / "bench" / folder / f"{stem}.png")
    (tmp_path / "bench/masks").mkdir()
    hr.save(tmp_path / "bench/masks/one_a.png")
    (tmp_path / "bench/x2/two.png").write_bytes(b"no picture")
    code, out, err = call("evaluate", "--model", "tiny", "--set", tmp_path / "bench", *QUICK)
    assert code == 1 and "x2: tiny" in out and "x2: tiny: failed" in err
    told = json.loads((tmp_path / "out/scores.json").read_text())
    assert [one["name"] for one in told["sets"]] == ["x1", "x2"]
    rows = {row["key"]: row for row in told["sets"][1]["folders"][0]["rows"]}
    assert rows["two"]["code"] == "NOT_IMAGE" and rows["one"]["scores"]["psnr"] > 5
    assert "input, 32x24" in (tmp_path / "out/report.html").read_text()

    made = (tmp_path / "out/restored/x2/one.png").read_bytes()
    call("upscale", tmp_path / "bench/x2", "-s", 2, out="plain")
    assert made == (tmp_path / "plain/one.png").read_bytes()  # as the command makes it

    before = (tmp_path / "out/restored/x1/one.png").stat().st_mtime_ns
    words = ("evaluate", "--model", "tiny", *QUICK, "--set")
    assert call(*words, tmp_path / "bench/x1")[0] == 0  # beside hr
    assert (tmp_path / "out/restored/x1/one.png").stat().st_mtime_ns == before  # it was done

    (tmp_path / "bench/x1").rename(tmp_path / "bench/lr")
    assert call(*words, tmp_path / "bench", out="pairs")[0] == 0  # lr and hr
    told = json.loads((tmp_path / "pairs/scores.json").read_text())
    assert [one["name"] for one in told["sets"]] == ["bench"]
    code, _, _ = call(
        *words, tmp_path / "bench/lr", "--reference", tmp_path / "bench/hr", out="apart"
    )
    assert code == 0


def test_inputs_of_one_name_are_held_against_their_own_originals(tmp_path, call, pixels):
    """a.png beside a.jpg on both sides: neither is the other's, nor is one dropped."""
    for number, name in enumerate(("a.png", "a.bmp", "b.png")):
        hr = Image.fromarray(pixels(48, 64, number))
        for folder, picture in (("hr", hr), ("lr", hr.reduce(2))):
            (tmp_path / "bench" / folder).mkdir(parents=True, exist_ok=True)
            picture.save(tmp_path / "bench" / folder / name)
    words = ("evaluate", "--model", "tiny", *QUICK, "--set")
    for number, place in enumerate(("bench", "bench/lr")):  # lr and hr; and inputs beside hr
        out = tmp_path / f"out{number}"
        code, _, err = call(*words, tmp_path / place, out=out.name)
        assert code == 0, err
        told = json.loads((out / "scores.json").read_text())["sets"]
        rows = told[0]["folders"][0]["rows"]
        assert sorted(row["key"] for row in rows) == ["a.bmp", "a.png", "b"]
        assert min(row["scores"]["psnr"] for row in rows) > 5
        made = next((out / "restored").iterdir())
        names = {path.name for path in made.glob("*.png")}
        assert names == {"a.png", "a.bmp.png", "b.png"}
    call("upscale", tmp_path / "bench/lr", "-s", 2, "--on-collision", "keep-ext", out="plain")
    for name in names:
        assert (made / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()


def test_inputs_of_one_name_without_such_originals_are_refused(tmp_path, call, pixels):
    hr = Image.fromarray(pixels(48, 64))
    for name in ("hr/a.png", "lr/a.png", "lr/a.bmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        hr.save(tmp_path / name)
    code, _, err = call("evaluate", "--model", "tiny", *QUICK, "--set", tmp_path / "lr")
    assert code == 2 and "two pictures for a" in err and not (tmp_path / "out/restored").exists()


def test_what_an_evaluation_restored_is_no_input_of_the_next(tmp_path, call, pixels):
    hr = Image.fromarray(pixels(48, 64))
    for folder in ("hr", "lr"):
        (tmp_path / folder).mkdir()
        hr.save(tmp_path / folder / "a.png")
    for _ in range(2):
        words = ("--set", tmp_path / "lr", "--reference", tmp_path / "hr")
        assert call("evaluate", "--model", "tiny", *QUICK, *words, out="lr/out")[0] == 0
    told = json.loads((tmp_path / "lr/out/scores.json").read_text())["sets"]
    assert [row["key"] for row in told[0]["folders"][0]["rows"]] == ["a"]


def test_a_suffix_makes_no_two_pictures_one(evaluate, folders):
    Image.open(folders / "good/a.png").save(folders / "good/a_out.png")
    words = (folders / "good", "--reference", folders / "hr", "--suffix", "_out", *QUICK)
    code, _, err, _ = evaluate(*words)
    assert code == 2 and "two pictures for a by --suffix _out" in err


def test_no_two_sets_share_a_name(tmp_path, folders):
    for name in ("left", "right"):
        (tmp_path / name / "x").mkdir(parents=True)
        (tmp_path / name / "hr").mkdir()
    with pytest.raises(UsageError, match="two sets are called x; rename one folder"):
        pairing.open_sets([tmp_path / "left/x", tmp_path / "right/x"])


def test_a_set_whose_sizes_fit_no_scale_is_refused():
    options = UpscaleOptions()
    assert evaluation_set.scaled(options, (10, 12), (25, 30)).scale == 2.5
    for wanted in ((40, 47), (5, 6), (170, 204)):
        with pytest.raises(ImageError, match="at no scale of 1 to 16"):
            evaluation_set.scaled(options, (10, 12), wanted)


def test_the_interval_is_that_of_the_mean():
    values = np.random.default_rng(0).normal(25, 2, 200)
    low, high = score.bootstrap_interval(values)
    student = stats.t.interval(0.95, 199, values.mean(), values.std(ddof=1) / 200**0.5)
    assert (low, high) == pytest.approx(student, abs=0.05)
    assert score.bootstrap_interval(values) == (low, high)  # seeded
    assert score.bootstrap_interval([3.0]) is None and score.bootstrap_interval([3.0, 3.0]) == (
        3,
        3,
    )
    low, high = score.bootstrap_interval([1.0, 2.0])
    assert 1 <= low < high <= 2
    low, high = score.bootstrap_interval([0.0] * 30 + [1e9])
    assert 0 <= low < high <= 1e9


def test_crops_lie_where_the_error_or_the_detail_is():
    flat = np.full((60, 90, 3), 100, np.uint8)
    hurt = flat.copy()
    hurt[40:50, 70:80] = 200
    top, left = figures.find_largest_error(hurt, flat, 16)
    assert top <= 40 and top + 16 >= 50 and left <= 70 and left + 16 >= 80
    checked = flat.copy()
    checked[4:12, 4:12] += (np.indices((8, 8)).sum(0) % 2 * 90).astype(np.uint8)[..., None]
    top, left = figures.find_most_detail(checked, 16)
    assert top <= 4 and left <= 4
    assert figures.find_largest_error(hurt, flat, 500) == (0, 0)  # larger than the picture


def test_the_plane_stands_without_a_single_picture():
    nothing = ScoredFolder("none", [], {})
    figure = figures.plot_plane([("", [nothing])], MEASURES["psnr"], MEASURES["pd"])
    assert figure.axes[0].get_xlabel() == "PSNR Y, dB (more is better)"
