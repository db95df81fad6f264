"""Scratches are proposed where they are, at any resolution, and what the scene holds is not."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from restore.batch.holes import draw_overlay
from restore.images import scratches
from restore.images.picture import Picture
from restore.images.scratches import ScratchNet
from restore.training.data import scratched
from restore.training.data.procedural import pictures, structures
from restore.training.data.scratched import ScratchedOptions
from restore.training.loop import run

HERE = Path(__file__).parent


def rgb_of(name):
    return np.asarray(Image.open(HERE / name).convert("RGB"))


def aged(seed, side=512):
    """A drawn scene as an old photo has it: soft, grainy."""
    rng = np.random.default_rng(seed)
    rgb = cv2.GaussianBlur(pictures.draw(rng, side, (), "leaves"), (0, 0), 1.2)
    noisy = 0.8 * rgb + 25 + rng.normal(0, 7, (side, side, 1))
    return np.clip(np.rint(noisy), 0, 255).astype(np.uint8)


def scratched_by(rgb, seed):
    """(the picture with eight bright lines that wander over it, their mask)"""
    rng, mask = np.random.default_rng(seed), np.zeros(rgb.shape[:2], np.uint8)
    for _ in range(8):
        turns = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.25, 7))
        path = rng.uniform(0, 512, 2) + np.cumsum(45 * np.c_[np.cos(turns), np.sin(turns)], 0)
        line = np.rint(path).astype(np.int32)
        cv2.polylines(mask, [line], False, 255, int(rng.integers(2, 5)))
    return np.where(mask[..., None] > 0, np.uint8(235), rgb), mask > 0


def hit(found, mask):
    """(precision, recall)"""
    both = (found & mask).sum()
    return both / max(1, found.sum()), both / mask.sum()


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_scratches_are_found_at_any_resolution(scale):
    rgb, mask = scratched_by(aged(1), 2)
    large = cv2.resize(rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    wanted = np.kron(mask, np.ones((scale, scale), bool))
    precision, recall = hit(scratches.find(Picture(large)) > 0, wanted)
    assert precision > 0.8 and recall > 0.8


def test_dark_ones_of_16_bits_are_found_and_what_is_transparent_is_not():
    rgb, mask = scratched_by(255 - aged(3), 4)
    deep = (255 - rgb).astype(np.uint16) * 257
    found = scratches.find(Picture(deep)) > 0
    precision, recall = hit(found, mask)
    assert precision > 0.7 and recall > 0.7
    alpha = np.full(mask.shape, 65535, np.uint16)
    alpha[:, :256] = 0
    seen = scratches.find(Picture(deep, alpha)) > 0
    assert not seen[:, :256].any() and np.array_equal(seen[:, 256:], found[:, 256:])


TOLD = (structures.railing, structures.mast, structures.branches, structures.letters)


@pytest.mark.parametrize("kind", TOLD, ids=lambda kind: kind.__name__)
def test_what_a_scene_holds_is_no_scratch(kind, monkeypatch):
    """Softened and grained with the rest. Lone wires and window frames are still proposed."""
    monkeypatch.setattr(structures, "KINDS", (kind,))
    shares = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        rgb = structures.add(pictures.draw(rng, 384, (), "leaves"), rng)
        rgb = cv2.GaussianBlur(rgb, (0, 0), 0.9) + rng.normal(0, 6, (384, 384, 1))
        rgb = np.clip(np.rint(rgb), 0, 255).astype(np.uint8)
        shares.append((scratches.find(Picture(rgb)) > 0).mean())
    assert np.median(shares) < 2e-3


def test_the_osprey_keeps_its_head_and_shows_its_scratches():
    mask = rgb_of("scratched/masks/osprey.png")[..., 0] > 0
    found = scratches.find(Picture(rgb_of("scratched/osprey.jpg"))) > 0
    assert not found[48:72, 154:190].any()
    lines = mask & ~cv2.erode(mask.astype(np.uint8), np.ones((9, 9))).astype(bool)
    assert hit(found, mask)[0] > 0.5 and hit(found, lines)[1] > 0.2  # blots are no scratches


def test_doubtful_marks_alone_are_not_proposed():
    """Two marks of odds that are good enough: they count beside a long sure one."""
    likely = np.zeros((200, 200), np.float32)
    likely[20:24, 20:40] = likely[60:64, 20:40] = 0.91
    assert not scratches._sure(likely).any()
    likely[120:124, 10:190] = 0.96
    assert np.array_equal(scratches._sure(likely), likely > 0)


def test_no_more_than_a_share_of_a_picture_is_proposed():
    rng, rgb = np.random.default_rng(0), aged(5)
    for _ in range(120):
        ends = rng.uniform(0, 512, (2, 2)).astype(int).tolist()
        cv2.line(rgb, *ends, (250, 250, 250), 3)
    assert 0 < (scratches.find(Picture(rgb)) > 0).mean() <= scratches.MOST


def test_bands_answer_as_the_whole():
    torch.manual_seed(0)
    rgb = np.random.default_rng(0).random((3, 700, 90), np.float32)
    for finder in (ScratchNet().eval(), scratches.load_network()):
        whole = scratches.predict(rgb, finder, band=1024)
        assert scratches.predict(rgb, finder, band=64) == pytest.approx(whole, abs=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (3, 40), (17, 5), (2000, 7)])
def test_any_size_is_looked_at(size):
    assert scratches.find(Picture(np.full((*size, 3), 90, np.uint8))).shape == size


def test_the_same_picture_is_answered_the_same():
    picture = Picture(rgb_of("scratched/osprey.jpg"))
    assert np.array_equal(scratches.find(picture), scratches.find(picture))


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(3):
        rng = np.random.default_rng(seed)
        Image.fromarray(pictures.draw(rng, 128, (), "leaves")).save(folder / f"{seed}.png")
    return folder


def test_samples_show_their_damage_and_are_a_function_of_their_number(photos):
    options = ScratchedOptions(photos=photos, crop=32, hurt=1)
    source = options.open(crop=96)
    first, again = (
        [scratched.sample(source, options, np.random.default_rng((1, n))) for n in range(24)]
        for _ in range(2)
    )
    for one, other in zip(first, again, strict=True):
        assert all(np.array_equal(one[name], other[name]) for name in one)
        assert one["pixels"].shape == (32, 32, 3) and one["damage"].shape == (32, 32)
    assert sum(one["damage"].any() for one in first) > 12
    clean = ScratchedOptions(photos=photos, crop=32, hurt=0)
    assert not any(
        scratched.sample(source, clean, np.random.default_rng((1, n)))["damage"].any()
        for n in range(12)
    )


@pytest.mark.parametrize("share", [0, 0.3, 1])
def test_so_many_scenes_are_drawn_as_is_asked(photos, monkeypatch, share):
    drawn, blank = [], np.zeros((32, 32, 3), np.uint8)
    monkeypatch.setattr(pictures, "draw", lambda rng, side, faces: drawn.append(side) or blank)
    source = ScratchedOptions(photos=photos, crop=32, drawn=share).open(crop=96)
    for number in range(400):
        scratched.scene(source, 32, 1, np.random.default_rng((0, number)))
    assert len(drawn) == pytest.approx(400 * share, abs=40)


@pytest.mark.parametrize("kind", scratched.KINDS)
def test_each_kind_of_damage_covers_some_of_a_crop(kind):
    rng, covers = np.random.default_rng(3), []
    for _ in range(6):
        cover, _ = scratched.KINDS[kind][0](96, (1, 4), rng)
        assert cover.shape == (96, 96) and cover.min() >= 0 and cover.max() <= 1
        covers.append((cover > 0.3).mean())
    assert 0 < np.mean(covers) < 0.5


def test_the_stage_trains_and_exports_what_the_finder_loads(photos, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text(
        f"output: {tmp_path / 'out'}\nsteps: 2\nbatch: 2\nwarmup: 1\nlog_with: []\n"
        f"stage: {{kind: scratches, data: {{photos: {photos}, crop: 32}}}}\n"
    )
    path = run(config, []) / "scratches.safetensors"
    ScratchNet().load_state_dict({name: x.float() for name, x in load_file(path).items()})
    again = ["stage.start=" + str(path), f"output={tmp_path / 'more'}"]
    assert (run(config, again) / "scratches.safetensors").is_file()


@pytest.mark.parametrize("grey", [False, True])
def test_an_overlay_is_of_the_colours_of_its_picture(grey):
    pixels, mask = np.full((8, 8, 3), 90, np.uint8), np.zeros((8, 8), np.uint8)
    made = draw_overlay(Picture(pixels, grey=grey, icc=b"a profile"), mask)
    assert made.icc == (None if grey else b"a profile")  # red is none of a grey profile's
