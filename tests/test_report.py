"""The report: a page for people, rows for machines, and what a run takes told before it."""

import json

import numpy as np

from restore import cli
from restore.batch import report


def test_a_report_shows_failures_first_and_each_picture_before_and_after(photo, restored, tmp_path):
    for index in range(3):
        photo(f"{index}.png", index)
    (tmp_path / "in" / "bad <b>&\x1b[31m.png").write_text("<script>alert(1)</script>")
    assert restored()[0] == 1
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count("data:image/jpeg") == 3
    assert page.index("failed (1)") < page.index("done (3)")
    assert "bad &lt;b&gt;&amp;\\x1b[31m.png" in page
    assert "<script" not in page and "<b>" not in page and "\x1b" not in page
    assert "http:" not in page and "https:" not in page
    told = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert (told["done"], told["failed"], told["left"], told["stopped"]) == (3, 1, 0, "")
    assert told["expected_seconds"] is not None


def test_a_report_of_ten_thousand_files_stays_small(tmp_path):
    rows = [
        {
            "key": f"folder/{index:05}.png",
            "status": "done" if index % 50 else "failed",
            "size_in": [100, 100],
            "size_out": [400, 400],
            "warnings": [],
            **({} if index % 50 else {"code": "CORRUPT", "error": "broken data; fetch it again"}),
        }
        for index in range(10_000)
    ]
    noise = np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8)
    for row in rows[:500]:
        report.keep_thumbs(tmp_path, row["key"], (noise, None), (noise, noise[..., 0]))
    report.write_page(tmp_path / "report.html", rows, {"done": 9800, "seconds": 1}, [tmp_path])
    page = (tmp_path / "report.html").read_text()
    assert len(page) < 10e6 and "5000 more" in page and page.count("CORRUPT") == 200


def test_a_plan_tells_what_a_run_takes(photo, restored, monkeypatch):
    photo("a.png")
    code, _, said = restored("--dry-run")
    assert code == 0 and "1 picture, 0.0 -> 0.0 megapixels" in said
    assert "if all are done, by the rate of this machine" in said
    restored()
    assert "time: about" in restored("--dry-run")[2]


def test_the_exit_codes_are_in_the_help(capsys):
    assert cli.main(["--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Exit codes: 0 all well" in said and "143 by SIGTERM" in said
