"""`-o FILE`: one result under its own name, beside files that are not ours."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from restore import cli
from restore.batch.destination import Destination
from restore.errors import UsageError


def seen(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def opened(path):
    with Image.open(path) as image:
        return image.format, image.size


@pytest.mark.parametrize(
    ("name", "form"), [("big.jpg", "JPEG"), ("big.PNG", "PNG"), ("big.webp", "WEBP")]
)
def test_one_picture_becomes_the_file_that_is_named(call, photo, tmp_path, name, form):
    code, said, _ = call("upscale", photo("a.png"), "-s", 2, out=f"new/{name}")
    assert code == 0 and "1 done" in said
    assert seen(tmp_path / "new") == [name]
    assert opened(tmp_path / "new" / name) == (form, (16, 16))


def test_it_has_the_pixels_that_a_folder_would_have(call, photo, tmp_path):
    photo("a.png")
    call("upscale", tmp_path / "in" / "a.png", "-s", 2, out="folder")
    call("upscale", tmp_path / "in", "-s", 2, out="big.png")
    assert (tmp_path / "folder" / "a.png").read_bytes() == (tmp_path / "big.png").read_bytes()


def test_a_second_run_skips_it_and_other_options_replace_it(call, photo, tmp_path):
    small = photo("a.png")
    assert "1 done" in call("upscale", small, "-s", 2, out="big.png")[1]
    assert "1 finished" in call("upscale", small, "-s", 2, out="big.png")[1]
    assert "1 done" in call("upscale", small, "-s", 3, out="big.png")[1]
    assert opened(tmp_path / "big.png")[1] == (24, 24)


def test_a_file_that_is_not_ours_stays(call, photo, tmp_path):
    small, other = photo("a.png"), tmp_path / "big.png"
    Image.new("RGB", (3, 3)).save(other)
    before = other.read_bytes()
    code, _, told = call("upscale", small, "-s", 2, out="big.png")
    assert code == 1 and "EXISTS" in told and other.read_bytes() == before
    assert call("upscale", small, "-s", 2, "--exists", "error", out="big.png")[0] == 2
    assert call("upscale", small, "-s", 2, "--exists", "rename", out="big.png")[0] == 0
    assert opened(tmp_path / "big_1.png")[1] == (16, 16) and other.read_bytes() == before
    assert call("upscale", small, "-s", 2, "--exists", "overwrite", out="big.png")[0] == 0
    assert opened(other)[1] == (16, 16)


def test_a_picture_is_never_written_over_itself(call, photo, tmp_path):
    small = photo("a.png")
    before = small.read_bytes()
    code, _, told = call("upscale", small, out="in/a.png")
    assert code == 2 and "a result would replace it" in told and small.read_bytes() == before


def test_a_mask_is_never_written_over(call, photo, tmp_path):
    small, mask = photo("a.png"), photo("a.png", folder="results/masks")
    before = mask.read_bytes()
    for words, out in (
        ([small, "--mask", mask], "results/masks/a.png"),
        ([small, "--mask", mask], "results/masks"),
        ([small.parent, "--mask", mask.parent], "results"),
    ):
        photo("masks/a.png")
        code, _, told = call("inpaint", *words, "--exists", "overwrite", out=out)
        assert code == 2 and "a result would replace it" in told and mask.read_bytes() == before


def test_two_files_of_one_folder_have_reports_of_their_own(call, photo, tmp_path):
    for name in "ab":
        assert call("upscale", photo(f"{name}.png"), "-s", 2, out=f"in/{name}_big.png")[0] == 0
    for name in "ab":
        home = Destination.parse(tmp_path / "in" / f"{name}_big.png").home
        (row,) = map(json.loads, (home / "report.jsonl").read_text().splitlines())
        assert (row["key"], row["output"]) == (f"{name}.png", f"{name}_big.png")
        assert (home / "report.html").is_file()
    assert seen(tmp_path / "in") == ["a.png", "a_big.png", "b.png", "b_big.png"]


def test_what_another_run_has_in_the_making_is_not_swept_away(call, photo, tmp_path):
    fcntl = pytest.importorskip("fcntl")
    small = photo("a.png")
    assert call("upscale", small, "-s", 2, out="in/one.png")[0] == 0
    from restore import files

    making = files.temporary_for(tmp_path / "in" / "two.png")
    making.write_bytes(b"half")
    with (tmp_path / "in" / ".restore" / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)  # as a run that makes two.png holds it
        assert call("upscale", small, "-s", 2, out="in/three.png")[0] == 0
        assert making.exists()
    assert call("upscale", small, "-s", 2, out="in/four.png")[0] == 0
    assert not making.exists()


def test_frames_and_candidates_lie_beside_it(call, photo, tmp_path):
    mask = tmp_path / "mask.png"
    Image.fromarray(np.pad(np.full((2, 2), 255, np.uint8), 3)).save(mask)
    words = ["inpaint", photo("a.png"), "--mask", mask, "-n", 2]
    assert call(*words, out="x/sheet.png")[0] == 0
    assert seen(tmp_path / "x") == ["sheet.png", "sheet_001.png", "sheet_002.png"]
    code, _, told = call(*words, out="x/sheet.jpg")
    assert code == 2 and "PNG" in told


def test_words_become_one_file(call, tmp_path):
    words = ["text2img", "--size", "16x16"]
    assert call(*words, out="x/picture.png")[0] == 0
    assert opened(tmp_path / "x" / "picture.png") == ("PNG", (16, 16))
    for more in (["-n", "2"], ["--grid"]):
        assert call(*words, *more, out="x/other.png")[0] == 2


def test_it_keeps_what_it_can_of_the_holes(call, photo, tmp_path, monkeypatch):
    from restore.images import scratches

    monkeypatch.setattr(scratches, "find", lambda picture: np.eye(8, dtype=np.uint8) * 255)
    code, said, _ = call("upscale", photo("a.png"), "--find-scratches", out="x/big.png")
    assert code == 0 and str(tmp_path / "x" / "big_damage.png") in said
    assert seen(tmp_path / "x") == ["big.png", "big_damage.png", "big_overlay.jpg"]


def test_what_is_no_file_to_write_is_refused(call, photo, tmp_path):
    small = photo("a.png")
    photo("b.png")
    for name, words, told in [
        ("big.png", [tmp_path / "in"], "is one file, and there are 2 inputs; give -o a folder"),
        ("big.psd", [small], "is not a format that is written"),
        ("big.gif", [small], "is not a format that is written"),
        ("big.jpg", [small, "--format", "png"], "is a jpeg by its name, and --format says png"),
        ("big.jpg", [small, "--lossless"], "jpeg is lossy"),
    ]:
        code, _, err = call("upscale", *words, out=name)
        assert code == 2 and told in err
    assert seen(tmp_path) == ["in"]
    assert cli.main(["evaluate", str(small), "--reference", str(small), "-o", "scores.png"]) == 2


def test_a_folder_is_a_folder_whatever_its_name(tmp_path):
    assert Destination.parse(tmp_path / "run.v2") == Destination(tmp_path / "run.v2")
    (tmp_path / "trip.png").mkdir()
    assert Destination.parse(tmp_path / "trip.png") == Destination(tmp_path / "trip.png")
    assert Destination.parse(tmp_path / "new.png") == Destination(tmp_path, "new.png")
    (tmp_path / "notes").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        Destination.parse(tmp_path / "notes")


def test_a_dry_run_says_the_file(call, photo, tmp_path):
    code, said, _ = call("upscale", photo("a.png"), "-s", 2, "--dry-run", out="big.tiff")
    assert (
        code == 0 and f"-> {tmp_path / 'big.tiff'}" in said and not (tmp_path / "big.tiff").exists()
    )


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_reports_do_not_follow_a_link_out(call, photo, tmp_path):
    small = photo("a.png")
    (tmp_path / "away").mkdir()
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / ".restore").symlink_to(tmp_path / "away")
    assert call("upscale", small, out="x/big.png")[0] == 3
    assert not any((tmp_path / "away").iterdir())
