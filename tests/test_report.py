"""The report: a page for people, rows for machines, and what a run takes told before it."""

import base64
import hashlib
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from restore import cli
from restore.batch import report, template, views
from restore.batch.journal import Journal
from restore.images import colours, icc
from restore.images.picture import Picture, to_rgb8

EVIL = "bad <b>&\x1b[31m.png"


def test_a_report_shows_failures_first_and_each_picture_before_and_after(photo, restored, tmp_path):
    for index in range(3):
        photo(f"{index}.png", index)
    (tmp_path / "in" / EVIL).write_text("<script>alert(1)</script>")
    assert restored()[0] == 1
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/jpeg") == 6 and page.count('class="pair"') == 3
    assert page.index("failed (1)") < page.index("done (3)")
    assert "bad &lt;b&gt;&amp;\\x1b[31m.png" in page
    assert "<b>" not in page and "\x1b" not in page and "alert" not in page
    assert "http:" not in page and "https:" not in page
    told = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (told["done"], told["failed"], told["left"], told["stopped"]) == (3, 1, 0, "")
    assert told["expected_seconds"] is not None


def test_the_page_runs_one_script_and_its_policy_knows_no_other(photo, restored, tmp_path):
    photo("a.png")
    restored()
    page = (tmp_path / "out" / "report.html").read_text()
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    assert f"script-src &#39;sha256-{digest}&#39;" in policy and "default-src &#39;none" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2] and page.count("<script") == 1
    assert "prefers-color-scheme: dark" in page and script == template.SCRIPT


def test_a_row_tells_its_time_and_notes_on_the_page(tmp_path):
    row = {
        "key": "a.png",
        "status": "done",
        "size_in": [10, 20],
        "size_out": [40, 80],
        "seconds": 5.25,
        "load_s": 4.0,
        "warnings": ["its profile <i>was</i> broken"],
    }
    report.write_page(tmp_path / "report.html", [row], {"done": 1, "seconds": 6}, [tmp_path])
    page = (tmp_path / "report.html").read_text()
    assert "20x10 → 80x40 · 5.2 s · 4.0 s of it to load the model" in page
    assert "its profile &lt;i&gt;was&lt;/i&gt; broken" in page and "Click" not in page


def test_what_is_shown_is_where_most_changed():
    before = np.full((900, 1200, 3), 100, np.uint8)
    after = before.copy()
    after[700:720, 1000:1040] = 250  # in a result of the same size
    top, left, height, width = views.most_changed((before, None), (after, None))
    assert (height, width) == views.CROP
    assert top <= 700 and top + height >= 720 and left <= 1000 and left + width >= 1040
    large = np.repeat(np.repeat(before, 4, 0), 4, 1)
    top, left, *_ = views.most_changed((before, None), (large, None))  # nothing did: the middle
    assert abs(top - 1680) < 10 and abs(left - 2240) < 10
    large[200:300, 400:600] = 0
    top, left, *_ = views.most_changed((before, None), (large, None))
    assert top <= 200 and top + height >= 300 and left <= 400 and left + width >= 600


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_what_is_shown_is_not_where_transparency_hides_the_change(tmp_path, dtype):
    unit = np.iinfo(dtype).max // 255
    before = np.full((900, 1200, 3), 100 * unit, dtype)
    alpha = np.full((900, 1200), 255 * unit, dtype)
    alpha[:400] = 0
    after = before.copy()
    after[:400] = 0  # hidden
    after[700:720, 1000:1040] = 250 * unit
    shown = (before, alpha), (after, alpha)
    top, left, height, width = views.keep(tmp_path, "a.png", *shown, is_aligned=True)
    assert top <= 700 and top + height >= 720 and left <= 1000 and left + width >= 1040


def test_the_input_is_enlarged_to_lie_on_the_result(tmp_path, pixels):
    small = pixels(120, 160)
    large = np.asarray(Image.fromarray(small).resize((640, 480), Image.Resampling.BICUBIC))
    box = views.keep(tmp_path, "a.png", (small, None), (large, None), is_aligned=True)
    pair = Image.open(io.BytesIO(views.path_of(tmp_path, "a.png", "crops").read_bytes()))
    before, after = np.hsplit(np.asarray(pair).astype(int), 2)
    assert before.shape == (*box[2:], 3)
    assert np.abs(before - after).mean() < 1.5  # both by JPEG; a shift of half a pixel is 3


def shown(out, *layers, **options) -> list[np.ndarray]:
    """Input and result as the page shows them at 100 %."""
    views.keep(out, "a.png", *layers, is_aligned=True, **options)
    pair = Image.open(io.BytesIO(views.path_of(out, "a.png", "crops").read_bytes()))
    return np.hsplit(np.asarray(pair).astype(int), 2)


def test_red_lines_are_shown_as_sharp_as_they_are(tmp_path):
    red = np.full((64, 64, 3), 255, np.uint8)
    red[8::8, :, 1:] = 0  # a pixel wide; JPEG's usual colours are two
    _, after = shown(tmp_path, (red, None), (red, None))
    assert np.abs(after - red).max() < 40


def test_colours_that_transparency_hides_make_no_fringe_in_the_input_shown(tmp_path):
    pixels, alpha = np.full((16, 16, 3), 255, np.uint8), np.full((16, 16), 255, np.uint8)
    pixels[:8], alpha[:8] = (255, 0, 255), 0
    result = np.full((64, 64, 3), 255, np.uint8), np.full((64, 64), 255, np.uint8)
    before, _ = shown(tmp_path, (pixels, alpha), result)
    assert before.min() > 250


@pytest.mark.parametrize("grey", [False, True])
def test_pictures_are_shown_in_the_colours_of_their_profile(grey, tmp_path):
    pixels = np.full((32, 32, 3), (120, 120, 120) if grey else (200, 40, 90), np.uint8)
    profile = icc.build_profile(colours.ADOBE, (1.4,), grey, "another curve")
    picture = Picture(pixels, grey=grey, icc=profile)
    wanted = to_rgb8(picture)[0, 0].astype(int)
    assert np.abs(wanted - pixels[0, 0]).max() > 20
    for made in shown(tmp_path, (pixels, None), (pixels, None), like=picture):
        assert np.abs(made - wanted).max() < 5
    with Image.open(views.path_of(tmp_path, "a.png")) as thumbs:
        assert np.abs(np.asarray(thumbs)[16, 16].astype(int) - wanted).max() < 5


def test_deep_transparent_and_tiny_pictures_are_shown(tmp_path):
    deep = np.full((9, 7, 3), 40_000, np.uint16)
    alpha = np.zeros((9, 7), np.uint16)
    same = views.keep(tmp_path, "a.png", (deep, alpha), (deep, alpha), is_aligned=True)
    assert same == (0, 0, 9, 7)
    with Image.open(views.path_of(tmp_path, "a.png", "crops")) as image:
        pair = np.asarray(image)
    assert pair.shape == (9, 14, 3) and (pair > 250).all()  # on white
    dot = np.zeros((1, 1, 3), np.uint8)
    assert views.keep(tmp_path, "b.png", (dot, None), (dot, None), is_aligned=True)
    assert views.keep(tmp_path, "c.png", (dot, None)) is None
    assert not views.path_of(tmp_path, "c.png", "crops").exists()


def test_a_small_picture_has_the_shape_of_the_large_one(tmp_path):
    wide = np.zeros((500, 4000, 3), np.uint8)
    views.keep(tmp_path, "a.png", (wide, None))
    with Image.open(views.path_of(tmp_path, "a.png")) as image:
        assert image.size == (160, 20)


def test_what_grows_beyond_its_edges_is_not_laid_over_its_input(call, photo, tmp_path):
    words = ["inpaint", photo("a.png"), "--extend", "8,0,0,0"]
    assert call(*words)[0] == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/jpeg") == 1 and 'class="pair"' not in page


def test_a_report_of_ten_thousand_files_stays_small(tmp_path):
    rows = [
        {
            "key": f"folder/{index:05}.png",
            "status": "done" if index % 50 else "failed",
            "size_in": [100, 100],
            "size_out": [400, 400],
            "seconds": 1.0,
            "warnings": [],
            "place": views.CROP * 2,
            **({} if index % 50 else {"code": "CORRUPT", "error": "broken data; fetch it again"}),
        }
        for index in range(10_000)
    ]
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    views.keep(tmp_path, "one", (noise, None), (noise, noise[..., 0]), is_aligned=True)
    for row in rows[:500]:
        for what in ("thumbs", "crops"):
            path = views.path_of(tmp_path, row["key"], what)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.hardlink_to(views.path_of(tmp_path, "one", what))
    report.write_page(tmp_path / "report.html", rows, {"done": 9800, "seconds": 1}, [tmp_path])
    page = (tmp_path / "report.html").read_text()
    assert len(page) < 10e6 and "5000 more" in page and page.count("CORRUPT") == 200
    assert page.count('class="pair"') > 20


def test_a_page_has_ways_to_its_parts_and_says_when_there_are_none(tmp_path):
    page = tmp_path / "report.html"
    report.write_page(page, [], {"done": 0, "seconds": 0}, [tmp_path])
    assert "nothing to do; 0 s" in page.read_text() and "<nav" not in page.read_text()
    failed = {"key": "a.png", "status": "failed", "code": "CORRUPT", "error": "broken"}
    done = {"key": "b.png", "status": "done", "seconds": 1.0}
    report.write_page(page, [failed, done], {"failed": 1, "done": 1, "seconds": 1}, [tmp_path])
    links = re.findall(r'<a href="#(\w+)">([^<]*)</a>', page.read_text())
    assert links == re.findall(r'<h2 id="(\w+)">([^<]*)</h2>', page.read_text())
    assert [text for _, text in links] == ["failed (1)", "done (1)"]


def test_a_plan_tells_what_a_run_takes(photo, restored, monkeypatch):
    photo("a.png")
    code, _, said = restored("--dry-run")
    assert code == 0 and "1 picture, 0.0 -> 0.0 megapixels" in said
    assert "if all are done, by the rate of this machine" in said
    restored()
    photo("b.png")
    said = restored("--dry-run")[2]
    assert "finished" in said and "1 picture, " in said and "by the files in" in said


def test_the_exit_codes_are_in_the_help(capsys):
    assert cli.main(["--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Exit codes: 0 all well" in said and "143 by SIGTERM" in said


def test_a_table_of_a_run_that_failed_is_not_taken_for_a_whole_one(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="not installed: the extra ray")
    from restore.batch.table import Table

    journal = Journal(tmp_path, "", "")
    row = {"key": "a.png", "status": "done"}
    with Table(journal) as table:
        table.add(row)
    with pytest.raises(RuntimeError), Table(journal) as table:
        table.add({**row, "key": "b.png"})
        raise RuntimeError("a worker died")
    held = parquet.read_table(tmp_path / "report.parquet").to_pylist()
    assert [one["key"] for one in held] == ["a.png"]
    assert [path.name for path in tmp_path.iterdir()] == ["report.parquet"]
