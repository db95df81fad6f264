"""text2img and img2img from the command line, over a tiny stack."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from restore.batch import dry_run
from restore.cli import progress

QUICK = ("--steps", 2)
SMALL = ("--prompt", "a red cube", "--size", "30x20", *QUICK)


def rows(folder):
    return [json.loads(line) for line in (folder / "report.jsonl").read_text().splitlines()]


def test_pictures_are_named_by_seed_and_do_not_depend_on_how_many(call, tmp_path):
    code, out, err = call("text2img", *SMALL, "-n", 3, "--seed", 42)
    assert code == 0
    assert "3 done in" in out
    assert "[2/3] done     0000000043.png: 30x20 in" in err
    made = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.png")}
    assert sorted(made) == ["0000000042.png", "0000000043.png", "0000000044.png"]
    assert len(set(made.values())) == 3
    call("text2img", *SMALL, "--seed", 43, out="alone")
    assert (tmp_path / "alone" / "0000000043.png").read_bytes() == made["0000000043.png"]
    assert "2 done, 3 finished" in call("text2img", *SMALL, "-n", 5, "--seed", 41)[1]
    assert [row["seed"] for row in rows(tmp_path / "out")] == [41, 42, 43, 44, 45]


def test_a_picture_says_how_to_make_it_again(call, tmp_path):
    call("text2img", *SMALL, "--seed", 5, "--guidance", 2, "--sampler", "euler", "--negative", "é")
    path = tmp_path / "out" / "0000000005.png"
    told = json.loads(Image.open(path).text["restore"])
    assert (told["seed"], told["model"], told["weights"]) == (5, "nano", "digest")
    sets = [f"--set=text2img.{key}={json.dumps(value)}" for key, value in told["text2img"].items()]
    assert call("text2img", *sets, "--seed", told["seed"], out="again")[0] == 0
    assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_a_grid_shows_them_all_and_spares_what_is_not_ours(call, tmp_path):
    grid = tmp_path / "out" / "grid.png"
    assert call("text2img", *SMALL, "-n", 5, "--grid")[0] == 0
    with Image.open(grid) as sheet:
        assert sheet.size == (3 * 38 + 8, 2 * 28 + 8)
        corner = np.asarray(sheet)[8:28, 46:76]
    with Image.open(tmp_path / "out" / "0000000001.png") as second:
        assert np.array_equal(corner, np.asarray(second.convert("RGB")))
    assert call("text2img", *SMALL, "-n", 6, "--grid")[0] == 0  # ours: made anew
    Image.new("RGB", (3, 3)).save(grid)
    code, _, err = call("text2img", *SMALL, "-n", 6, "--grid")
    assert code == 3
    assert "no grid of ours" in err
    with Image.open(grid) as sheet:
        assert sheet.size == (3, 3)


def test_the_bars_of_a_terminal_count_steps(call, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    code, _, err = call("text2img", *SMALL, "-n", 2)
    assert code == 0
    assert "pictures" in err
    assert "done     0000000001.png: 30x20 in" in err


@pytest.fixture
def photos(tmp_path, pixels):
    folder = tmp_path / "in" / "sub"
    folder.mkdir(parents=True)
    Image.fromarray(pixels(21, 34)).save(folder / "a.png")
    Image.fromarray(pixels(16, 16)).save(folder.parent / "b.jpg")
    return folder.parent


def test_a_folder_is_made_anew_at_its_own_sizes(call, photos, tmp_path):
    words = (photos, "--prompt", "a", "--strength", 0.5, *QUICK)
    code, _, err = call("img2img", *words)
    assert code == 0, err
    assert "done     sub/a.png: 34x21 -> 34x21" in err
    told = json.loads(Image.open(tmp_path / "out" / "sub" / "a.png").text["restore"])
    assert told["img2img"]["strength"] == 0.5
    assert "2 finished" in call("img2img", *words)[1]
    assert "2 done" in call("img2img", *words, "--strength", 0.6)[1]
    assert "34x21 -> 34x21" in call("img2img", *words, "--dry-run", out="dry")[1]
    assert not (tmp_path / "dry").exists()


def test_loopback_keeps_every_frame(call, photos, tmp_path):
    out = tmp_path / "out" / "sub"
    words = (photos, "--prompt", "a", "--loopback", 3, *QUICK)
    assert call("img2img", *words)[0] == 0
    assert sorted(p.name for p in out.iterdir()) == [
        *("a.png", "a_001.png", "a_002.png", "a_003.png")
    ]
    assert (out / "a_003.png").read_bytes() == (out / "a.png").read_bytes()
    assert (out / "a_002.png").read_bytes() != (out / "a_001.png").read_bytes()
    assert "2 finished" in call("img2img", *words)[1]
    (out / "a_002.png").unlink()  # a frame is part of the result
    assert "1 done, 1 finished" in call("img2img", *words)[1]
    assert (out / "a_002.png").exists()
    assert "2 done" in call("img2img", *words, "--seed", 1)[1]  # its own frames are replaced


def test_a_foreign_frame_is_never_replaced(call, photos, tmp_path):
    foreign = tmp_path / "out" / "b_002.jpg"
    foreign.parent.mkdir()
    foreign.write_text("mine")
    words = (photos, "--loopback", 2, *QUICK)
    assert call("img2img", *words)[0] == 1
    failed = next(row for row in rows(tmp_path / "out") if row["status"] == "failed")
    assert (failed["key"], failed["code"]) == ("b.jpg", "EXISTS")
    assert foreign.read_text() == "mine"
    assert call("img2img", *words, "--exists", "rename")[0] == 0
    assert (tmp_path / "out" / "b_1_002.jpg").exists()
    assert foreign.read_text() == "mine"


def test_frames_that_would_meet_a_result_are_found_before_any_work(call, photos, tmp_path):
    Image.new("RGB", (4, 4)).save(photos / "b_001.jpg")
    code, _, err = call("img2img", photos, "--loopback", 2)
    assert code == 2
    assert "would both become" in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["text2img", "-n", "0"], "'-n'"),
        (["text2img", "--size", "0x512"], "--size 0x512: write WIDTHxHEIGHT"),
        (["text2img", "--size", "512"], "--size 512: write WIDTHxHEIGHT"),
        (["text2img", "--size", "99999x512"], "each 1 to 32768"),
        (["text2img", "--size", "-5x5"], "write WIDTHxHEIGHT"),
        (["text2img", "--steps", "0"], "--steps: text2img.steps must be greater"),
        (["text2img", "--sampler", "dimm"], "--sampler: text2img.sampler must be 'ddim'"),
        (["text2img", "--sampler", "dimm"], "not 'dimm'; did you mean 'ddim'?"),
        (["text2img", "--set", "text2img.promt=x"], "did you mean 'prompt'?"),
        (["text2img", "--seed", str(2**63 - 1), "-n", "2"], "do not fit 63 bits"),
        (["text2img", "--guidance", "nan"], "finite"),
        (["img2img", "IN", "--strength", "0"], "img2img.strength must be greater than 0"),
        (["img2img", "IN", "--strength", "1.5"], "must be less than or equal to 1, not 1.5"),
        (["img2img", "IN", "--loopback", "0"], "img2img.loopback must be greater"),
        (["img2img", "IN", "--colour", "lowpass"], "img2img.colour must be"),
    ],
)
def test_what_cannot_be_is_refused_with_2_before_any_work(call, photos, tmp_path, words, told):
    code, _, err = call(*(str(photos) if word == "IN" else word for word in words))
    assert (code, told in err) == (2, True), err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_an_unknown_option_of_a_sampler_ends_the_run(call):
    code, _, err = call("text2img", *SMALL, "--set", "text2img.sampler_options={clip_sampel: true}")
    assert code == 2
    told = "sampler_options: ddim has no 'clip_sampel'; did you mean 'clip_sample'?"
    assert err == f"restore: {told}\n"


def test_a_yaml_may_hold_sections_for_other_tasks(call, tmp_path):
    config = tmp_path / "all.yaml"
    config.write_text("text2img: {width: 9, height: 7, steps: 1}\nupscale: {scale: 2}\n")
    assert call("text2img", "--config", config)[0] == 0
    with Image.open(tmp_path / "out" / "0000000000.png") as made:
        assert made.size == (9, 7)


@pytest.mark.parametrize("prompt", ["word " * 10_000, "🟥 on 🟦", "((", ""])
def test_any_prompt_is_taken(call, tmp_path, prompt):
    assert call("text2img", "--prompt", prompt, "--size", "9x9", "--steps", 1)[0] == 0
    told = json.loads(Image.open(tmp_path / "out" / "0000000000.png").text["restore"])
    assert told["text2img"]["prompt"] == prompt


def test_a_lora_that_is_none_is_refused(call, tmp_path):
    code, _, err = call("text2img", *SMALL, "--lora", "a.safetensors=much")
    assert code == 2 and "write FILE=SCALE" in err
    code, _, err = call("text2img", *SMALL, "--lora", tmp_path / "nowhere.safetensors")
    assert code == 3 and "no such LoRA" in err


def test_pictures_of_other_words_are_kept(call, tmp_path):
    assert call("text2img", *SMALL)[0] == 0
    path = tmp_path / "out" / "0000000000.png"
    first = path.read_bytes()
    other = ("--prompt", "a blue ball", "--size", "30x20", *QUICK)
    code, _, err = call("text2img", *other)
    assert code == 1 and "made of other words or options" in err
    assert path.read_bytes() == first
    assert call("text2img", *SMALL)[0] == 0  # its own words may make it again
    assert path.read_bytes() == first
    assert call("text2img", *other, "--exists", "rename")[0] == 0
    assert path.read_bytes() == first
    assert call("text2img", *other, "--exists", "overwrite")[0] == 0
    assert path.read_bytes() != first


@pytest.mark.parametrize("command", ["upscale", "img2img", "inpaint"])
@pytest.mark.parametrize("option", ["--prompt=", "--set={}.prompt=", "--set={}.negative="])
def test_a_picture_that_other_words_made_is_kept(call, photo, tmp_path, command, option):
    source = photo("a.png")
    asked = [source, *QUICK]
    if command == "inpaint":
        asked += ["--extend", "0,0,2,0"]
    option = option.format(command)
    assert call(command, *asked, f"{option}a")[0] == 0
    path = tmp_path / "out" / "a.png"
    first = path.read_bytes()
    code, _, err = call(command, *asked, f"{option}b")
    assert code == 1 and "was made of other words" in err and "--exists overwrite" in err
    assert path.read_bytes() == first
    assert call(command, *asked)[0] == 1  # no words are other words
    assert path.read_bytes() == first
    more = (f"{option}a", "--seed", 1)
    code, _, err = call(command, *asked, *more)
    assert code == 0 and "it replaces a result of other options" in err
    assert path.read_bytes() != first


def test_a_picture_that_takes_long_tells_how_far_it_is(call, photo, tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "LONG_S", -1)
    photo("a.png")
    code, _, err = call("upscale", tmp_path / "in", "-s", 1)
    assert code == 0
    for what in ("encode", "walk", "decode"):
        assert f"[1/1] {what}: 1 of 1 parts" in err
    assert "[1/1] walk: 2 of 2 parts" in call("text2img", *SMALL, out="words")[2]


def planned(said):
    """(what a dry run says of the results, bytes on disk)"""
    disk = re.search(r"disk: about ([\d.]+) MB", said)
    return re.search(r"1 picture, (.*) megapixels", said)[1], float(disk[1]) * 1e6


def test_a_dry_run_counts_all_that_one_picture_becomes(call, pixels, tmp_path):
    frames = [Image.fromarray(pixels(500, 800, seed)) for seed in range(3)]
    source = tmp_path / "in" / "an.png"
    source.parent.mkdir()
    frames[0].save(source, save_all=True, append_images=frames[1:])
    one = planned(call("upscale", source, "-s", 1, "--dry-run", out="dry")[1])
    assert one[0] == "0.4 -> 0.4"
    for words in (
        ("upscale", source, "-s", 1, "--frames", "all"),
        ("img2img", source, "--loopback", 2, *QUICK),
        ("inpaint", source, "--extend", "0,0,0,100", "-n", 2),
    ):
        code, said, _ = call(*words, "--dry-run", out="dry")
        made, disk = planned(said)
        results = 2 if words[0] == "inpaint" else 3
        assert code == 0 and made.startswith(f"{results} results, 0.4 -> "), said
        assert float(made.rpartition(" ")[2]) == round(results * (0.48 if results == 2 else 0.4), 1)
        assert "an.png, an_0" in said
        spilled = 8 * 0.4e6
        assert disk > (one[1] - spilled) * results * 0.9 + spilled
    _, said, _ = call("upscale", source, "-s", 1, "--frames", "all", "--dry-run", "--json")
    assert json.loads(said.splitlines()[0])["frames"] == ["an_002.png", "an_003.png"]


def test_the_time_of_all_frames_is_that_of_each():
    rows = [
        {"status": "done", "seconds": 6.0, "size_out": [1000, 1000], "frames": {"b": "", "c": ""}}
    ]
    assert dry_run.seconds_a_megapixel(rows, True) == 2
    assert dry_run.seconds_a_megapixel(rows) == 6
