"""inpaint, and upscale with damage, from the command line, over a tiny stack."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restore.images import scratches


@pytest.fixture
def photos(tmp_path, pixels):
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    Image.fromarray(pixels(40, 50)).save(folder / "a.png")
    Image.fromarray(pixels(40, 50, 1)).save(folder / "sub" / "b.jpg")
    return folder


def masked(path: Path, size=(50, 40)) -> Path:
    mask = Image.new("L", size)
    mask.paste(255, (10, 10, 25, 20))
    path.parent.mkdir(parents=True, exist_ok=True)
    mask.save(path)
    return path


def rows(folder):
    found = [json.loads(line) for line in (folder / "report.jsonl").read_text().splitlines()]
    return {row["key"]: row for row in found}


def opened(path):
    return np.asarray(Image.open(path).convert("RGB"))


def test_a_folder_of_masks_is_paired_and_one_missing_is_a_row(call, photos, tmp_path):
    masked(tmp_path / "masks" / "a.tif")
    words = (photos, "--mask", tmp_path / "masks", "--steps", 1, "--feather", 0)
    code, out, err = call("inpaint", *words)
    assert code == 1 and "1 done, 1 failed" in out and "no mask" in err
    assert rows(tmp_path / "out")["sub/b.jpg"]["code"] == "NO_MASK"
    masked(tmp_path / "masks" / "sub" / "b.png")
    assert "1 done, 1 finished" in call("inpaint", *words)[1]
    for name, source in (("a.png", "a.png"), ("sub/b.png", "sub/b.jpg")):
        made, old = opened(tmp_path / "out" / name), opened(photos / source)
        outside = np.ones(made.shape[:2], bool)
        outside[10:20, 10:25] = False
        assert np.array_equal(made[outside], old[outside])
        assert not np.array_equal(made, old)


def test_another_mask_is_another_result_and_the_same_one_is_not_done_again(call, photos, tmp_path):
    mask = masked(tmp_path / "m.png")
    words = (photos / "a.png", "--mask", mask, "--steps", 1)
    assert "1 done" in call("inpaint", *words)[1]
    assert "1 finished" in call("inpaint", *words)[1]
    Image.new("L", (50, 40)).save(mask)
    assert "1 done" in call("inpaint", *words)[1]
    assert np.array_equal(opened(tmp_path / "out" / "a.png"), opened(photos / "a.png"))


def test_a_dry_run_says_which_mask_goes_with_which_picture(call, photos, tmp_path):
    masked(tmp_path / "masks" / "a.png")
    masked(tmp_path / "masks" / "c.png")
    code, out, _ = call("inpaint", photos, "--mask", tmp_path / "masks", "--dry-run")
    assert code == 0
    assert f"unpaired {tmp_path / 'masks' / 'c.png'}" in out
    assert f"a.png + {tmp_path / 'masks' / 'a.png'} -> " in out
    assert "b.jpg (no mask: it will fail) -> " in out
    said = call("inpaint", photos, "--mask", tmp_path / "masks", "--dry-run", "--json")[1]
    assert [row.get("code") for row in map(json.loads, said.splitlines())] == [None, "NO_MASK"]
    assert not (tmp_path / "out").exists()


def test_candidates_lie_beside_a_sheet_of_them(call, photos, tmp_path):
    words = (photos / "a.png", "--mask", masked(tmp_path / "m.png"), "--steps", 2)
    assert call("inpaint", *words, "-n", 3)[0] == 0
    made = [opened(tmp_path / "out" / f"a_00{n}.png") for n in (1, 2, 3)]
    assert not np.array_equal(made[0], made[1])
    assert opened(tmp_path / "out" / "a.png").shape[1] > 100
    call("inpaint", *words, "--seed", 2, out="alone")
    assert np.array_equal(opened(tmp_path / "alone" / "a.png"), made[2])


def test_jpeg_says_that_it_cannot_keep_the_rest(call, photos, tmp_path):
    words = (photos / "a.png", "--mask", masked(tmp_path / "m.png"), "--steps", 1)
    assert "cannot keep what lies outside" in call("inpaint", *words, "--format", "jpeg")[2]


def test_a_picture_is_painted_on_beyond_its_edges(call, photos, tmp_path):
    words = (photos / "a.png", "--steps", 1, "--feather", 0)
    assert call("inpaint", *words, "--extend", "6,0,4,2")[0] == 0
    made = opened(tmp_path / "out" / "a.png")
    assert made.shape == (42, 60, 3)
    assert np.array_equal(made[:40, 6:56], opened(photos / "a.png"))
    assert call("inpaint", *words, "--aspect", "1:1", out="square")[0] == 0
    assert opened(tmp_path / "square" / "a.png").shape == (50, 50, 3)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "needs --mask"),
        (("--mask", "nowhere"), "no such file"),
        (("--extend", "1,2"), "write LEFT,TOP,RIGHT,BOTTOM"),
        (("--extend", "1,2,-3,4"), "inpaint.extend.2 must be greater than or equal to 0"),
        (("--mask", "alpha", "-n", "2", "--format", "jpeg"), "their sheet are PNG, not jpeg"),
        (("--extend", "a,b,c,d"), "LEFT,TOP,RIGHT,BOTTOM"),
        (("--extend", "1,1,1,1", "--aspect", "1:1"), "not both"),
        (("--aspect", "wide"), "aspect"),
        (("--mask", "alpha", "--engine", "tela"), "did you mean 'telea'"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(call, photos, tmp_path, words, told):
    code, _, err = call("inpaint", photos, *words)
    assert code == 2 and told in err
    assert not (tmp_path / "out").exists()


def test_damage_is_filled_while_enlarging(call, photos, tmp_path):
    mask = masked(tmp_path / "m.png")
    plain, given = ((photos / "a.png", "-s", 2, *more) for more in ((), ("--damage", mask)))
    assert call("upscale", *plain, out="plain")[0] == call("upscale", *given, out="given")[0] == 0
    made = [opened(tmp_path / name / "a.png") for name in ("plain", "given")]
    assert not np.array_equal(*made)
    code, _, err = call("upscale", *given, "--find-scratches", out="both")
    assert code == 2 and "--find-scratches looks for them" in err


@pytest.fixture
def found(monkeypatch):
    """What is found in any picture: a scratch, and what a thumbnail of it shows."""
    monkeypatch.setattr(scratches, "find", lambda picture: drawn(picture.size))

    def drawn(size):
        mask = np.zeros(size, np.uint8)
        mask[10:13, 5:-5] = 255
        return mask

    return drawn


@pytest.mark.parametrize("word", ["--find-scratches", "--find-scratches=propose"])
def test_scratches_are_proposed_and_nothing_is_filled(call, photos, tmp_path, found, word):
    words = (photos / "a.png", "-s", 2)
    assert call("upscale", *words, out="plain")[0] == 0
    code, out, _ = call("upscale", word, *words, out="found")
    assert code == 0 and "nothing was filled" in out and "--damage" in out
    plain, made = (tmp_path / name / "a.png" for name in ("plain", "found"))
    assert plain.read_bytes() == made.read_bytes()
    mask = opened(tmp_path / "found" / "a_damage.png")
    assert np.array_equal(mask[..., 0], found(mask.shape[:2]))
    shown = opened(tmp_path / "found" / "a_overlay.jpg").astype(int)
    red = shown[..., 0] - shown[..., 1] > 100
    assert (red == (mask[..., 0] > 0)).mean() > 0.95
    [row] = map(json.loads, (tmp_path / "found" / "report.jsonl").read_text().splitlines())
    assert row["damage"] == pytest.approx((mask[..., 0] > 0).mean(), abs=1e-5)
    html = (tmp_path / "found" / "report.html").read_text()
    assert "a_overlay.jpg" in html and "nothing was filled" in html


def test_proposed_scratches_are_filled_when_they_are_given_or_applied(
    call, photos, tmp_path, found
):
    words = (photos / "a.png", "-s", 2)
    assert call("upscale", *words, "--find-scratches", out="found")[0] == 0
    given = (*words, "--damage", tmp_path / "found")
    code, said, _ = call("upscale", *given, "--dry-run", out="again")
    assert code == 0 and "a_damage.png" in said
    assert (
        "unpaired" not in said
    )  # no overlay, no thumbnails, no summary.json: only masks are masks
    assert call("upscale", *given, out="given")[0] == 0
    code, out, _ = call("upscale", *words, "--find-scratches", "apply", out="applied")
    assert code == 0 and "nothing was filled" not in out
    paths = [tmp_path / name / "a.png" for name in ("found", "given", "applied")]
    plain, given, applied = (path.read_bytes() for path in paths)
    assert given == applied != plain


def test_a_corrected_proposal_is_not_written_over(call, photos, tmp_path, found):
    words = (photos / "a.png", "-s", 2, "--find-scratches")
    assert call("upscale", *words)[0] == 0
    mine = masked(tmp_path / "out" / "a_damage.png").read_bytes()
    assert call("upscale", *words)[0] == 1
    assert (tmp_path / "out" / "a_damage.png").read_bytes() == mine


def test_a_proposal_beside_a_jpeg_is_lossless(call, photos, tmp_path, found):
    words = (photos / "a.png", "-s", 2, "--format", "jpeg", "--find-scratches")
    assert call("upscale", *words)[0] == 0
    assert {path.name for path in (tmp_path / "out").glob("a*")} == {
        *("a.jpg", "a_damage.png", "a_overlay.jpg")
    }


def test_the_picture_after_find_scratches_is_no_word_for_it(call, photos, tmp_path, found):
    code, _, err = call("upscale", "--find-scratches", photos / "a.png", "-s", 2)
    assert code == 0, err
    code, _, err = call("upscale", "--find-scratches=fill", photos / "a.png", "-s", 2)
    assert code == 2 and "propose" in err and "apply" in err


def test_what_was_transparent_is_filled_to_be_seen(call, tmp_path, pixels):
    rgba = np.dstack([pixels(40, 50), np.full((40, 50), 255, np.uint8)])
    rgba[10:20, 10:25, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "a.png")
    words = (tmp_path / "a.png", "--mask", "alpha", "--steps", 1, "--feather", 0)
    assert call("inpaint", *words)[0] == 0
    made = np.asarray(Image.open(tmp_path / "out" / "a.png"))
    assert (made[..., 3] == 255).all()
    outside = rgba[..., 3] > 0
    assert np.array_equal(made[outside], rgba[outside])


def test_a_dry_run_of_a_shard_finds_no_mask_of_another_shard_unpaired(call, photos, tmp_path):
    for name in ("a.png", "sub/b.png"):
        masked(tmp_path / "masks" / name)
    masked(tmp_path / "masks" / "c.png")
    for shard in ("1/2", "2/2"):
        words = (photos, "--mask", tmp_path / "masks", "--shard", shard, "--dry-run")
        told = call("inpaint", *words)[1]
        assert told.count("unpaired") == 1 and "c.png: a mask without" in told


def holed(path: Path, corners, sizes=((50, 40),) * 3) -> Path:
    """Frames of one colour each; each has a transparent hole at a place of its own."""
    frames = []
    for nth, (corner, size) in enumerate(zip(corners, sizes, strict=True)):
        frame = Image.new("RGBA", size, (60 + 40 * nth, 90, 120, 255))
        if corner:
            frame.paste((0, 0, 0, 0), (*corner, corner[0] + 8, corner[1] + 8))
        frames.append(frame)
    more = {"compression": "tiff_deflate"} if path.suffix == ".tif" else {"blend": 0}
    frames[0].save(path, save_all=True, append_images=frames[1:], **more)
    return path


def test_each_frame_has_the_hole_of_its_own_transparency(call, tmp_path):
    corners = ((4, 4), (20, 20), None)
    source = holed(tmp_path / "an.png", corners)
    words = ("--mask", "alpha", "--frames", "all", "--feather", 0, "--steps", 1)
    assert call("inpaint", source, *words)[0] == 0
    for nth, corner in enumerate(corners, 1):
        made = Image.open(tmp_path / "out" / ("an.png" if nth == 1 else f"an_{nth:03}.png"))
        values = np.asarray(made.convert("RGBA"))
        assert (values[..., 3] == 255).all()
        opaque = np.ones((40, 50), bool)
        if corner:
            opaque[corner[1] : corner[1] + 8, corner[0] : corner[0] + 8] = False
        assert (values[opaque] == (20 + 40 * nth, 90, 120, 255)).all()


@pytest.mark.parametrize("words", [("inpaint", "--mask"), ("upscale", "-s", 1, "--damage")])
def test_pages_of_another_size_than_the_mask_are_a_row_with_its_mend(call, tmp_path, words):
    source = holed(tmp_path / "two.tif", (None, None), ((50, 40), (40, 30)))
    command, *options = words
    words = (source, *options, masked(tmp_path / "m.png"), "--frames", "all", "--background", "red")
    assert call(command, *words)[0] == 1
    row = rows(tmp_path / "out")["two.tif"]
    assert row["code"] == "MASK_SIZE"
    assert "for frame 2, 50x40 px, but the picture has 40x30 px; --fit-mask" in row["error"]
    assert call(command, *words, "--fit-mask")[0] == 0
    assert opened(tmp_path / "out" / "two_002.png").shape == (30, 40, 3)


def test_a_mask_of_several_pages_gives_each_page_its_own(call, tmp_path):
    source = holed(tmp_path / "an.tif", (None, None), ((50, 40),) * 2)
    pages = [Image.open(masked(tmp_path / "m.png")), Image.new("L", (50, 40))]
    pages[1].paste(255, (30, 25, 40, 30))
    pages[0].save(tmp_path / "m.tif", save_all=True, append_images=pages[1:])
    words = (source, "--mask", tmp_path / "m.tif", "--frames", "all")
    assert call("inpaint", *words, "--feather", 0, "--steps", 1)[0] == 0
    for name, box in (("an.png", np.s_[10:20, 10:25]), ("an_002.png", np.s_[25:30, 30:40])):
        made = opened(tmp_path / "out" / name)
        outside = np.ones((40, 50), bool)
        outside[box] = False
        assert (made[outside] == made[0, 0]).all()
    pages[0].save(tmp_path / "m.tif", save_all=True, append_images=[pages[1], pages[1]])
    assert call("inpaint", *words)[0] == 1
    row = rows(tmp_path / "out")["an.tif"]
    assert row["code"] == "MASK_SIZE" and "3 frames, but the picture has 2" in row["error"]


@pytest.mark.parametrize("place", ["masks", "masks/sub", "masks/one.png"])
def test_results_among_the_masks_are_refused(call, photos, tmp_path, place):
    mask = masked(tmp_path / "masks" / "a.png")
    words = ("upscale", photos / "a.png", "-s", 1, "--damage", tmp_path / "masks")
    code, _, told = call(*words, out=place)
    assert code == 2 and "results there would be taken for masks; give another -o" in told
    assert [*(tmp_path / "masks").rglob("*")] == [mask]


def test_proposed_masks_may_have_the_filled_results_beside_them(call, photos, tmp_path, found):
    words = ("upscale", photos / "a.png", "-s", 1)
    assert call(*words, "--find-scratches", out="out")[0] == 0
    for more in (("1 done",), ("1 finished",)):
        code, said, told = call(*words, "--damage", tmp_path / "out", out="out")
        assert code == 0 and more[0] in said, told
