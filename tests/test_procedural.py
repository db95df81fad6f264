"""Drawn pictures: functions of their generator, like what they imitate, a share of what trains."""

import math
import shutil
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pytest
import torch
import yaml
from folders import all_pairs
from PIL import Image
from pydantic import ValidationError

from restore.config import load_config
from restore.errors import ConfigError
from restore.training import loop, model_card
from restore.training.data import latent_pairs
from restore.training.data.crops import PhotoOptions, Photos
from restore.training.data.loading import Rows, build_loader
from restore.training.data.pairs import PairOptions
from restore.training.data.procedural import lettering, pictures
from restore.training.data.procedural.drawings import FINE, Pen, circle
from restore.training.data.procedural.lettering import Face
from restore.training.data.procedural.palette import contrast, halve, plain
from restore.training.data.procedural.screens import Screen

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
FACES = lettering.faces()
GREY = 90  # of every photo here: what else is seen was drawn
BLACK, WHITE = np.zeros((1, 3)), np.full(3, 255.0)


def rng(*seed):
    return np.random.default_rng(seed)


def drawn(kind, size, number=0):
    return pictures.draw(rng(3, number), size, FACES, kind)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number in range(2):
        Image.fromarray(np.full((72, 80, 3), GREY, np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("kind", pictures.KINDS)
@pytest.mark.parametrize("size", [16, 32, 101, 256, 512])
def test_a_picture_is_a_function_of_its_generator_at_any_size(kind, size):
    numbers = range(12 if size == 32 else 2)
    made = [drawn(kind, size, number) for number in numbers]
    for number in reversed(numbers):  # what was drawn before changes nothing
        one = made[number]
        assert (one.shape, one.dtype) == ((size, size, 3), np.uint8)
        assert one.flags.c_contiguous
        assert np.array_equal(one, drawn(kind, size, number))
    assert size < 100 or not np.array_equal(*made[:2])


def test_kinds_are_drawn_by_their_shares(monkeypatch):
    for number, kind in enumerate(pictures.KINDS):
        blank = np.full((128, 128, 3), number)
        monkeypatch.setitem(pictures.KINDS, kind, lambda *_, blank=blank: blank)
    met = [pictures.draw(rng(number), 1, ()).item(0) for number in range(1000)]
    for number, kind in enumerate(pictures.KINDS):
        assert abs(met.count(number) / 1000 - pictures.SHARES[kind]) < 0.05
    assert sum(pictures.SHARES.values()) == pytest.approx(1)


def kurtosis(x):
    x = x - x.mean()
    return (x**4).mean() / (x**2).mean() ** 2


def test_dead_leaves_have_the_heavy_tails_of_photos_at_every_scale():
    """Gaussian differences have a kurtosis of 3, those of photos 10 and more (Huang 1999)."""
    found = {1: [], 2: []}
    for number in range(6):
        green = drawn("leaves", 256, number)[..., 1]
        for scale, kept in found.items():
            side = 256 // scale
            small = cv2.resize(green, (side, side), interpolation=cv2.INTER_AREA)
            kept.append(kurtosis(np.diff(small.astype(float))))
    assert min(found[1]) > 8
    assert min(found[2]) > 5


def test_a_page_is_ink_on_ground_with_sharp_edges():
    for number in range(6):
        page = plain(256, 256, WHITE)
        lettering.page(rng(number), page, FACES, BLACK)
        assert (page[..., 0] == page[..., 1]).all()  # nothing between ink and ground has a colour
        level = page[..., 0].astype(int)
        assert (level > 230).mean() > 0.6
        assert (level < 25).mean() > 0.005
        assert np.abs(np.diff(level)).max() > 200


@pytest.mark.parametrize("face", FACES[:8], ids=lambda face: str(face.source))
@pytest.mark.parametrize("px", [12, 48])
def test_a_line_stands_where_it_was_put_and_is_as_wide_as_it_says(face, px):
    page = plain(80, 400, WHITE)
    lettering.write(page, "HEX", (20, 60), px, face, BLACK[0], fine=2)
    rows, columns = np.nonzero(page[..., 0] < 128)
    assert abs(rows.max() + 1 - 60) <= 1.5 + 0.03 * px  # half a stroke
    assert 0.5 * px < np.ptp(rows) + 1 < px
    assert columns.min() >= 18
    assert abs(columns.max() + 1 - 20 - face.width("HEX", px)) < 0.15 * px + 2


def test_letters_drawn_finer_cover_as_much():
    coarse, fine = (plain(64, 300, WHITE) for _ in range(2))
    for page, times in ((coarse, 1), (fine, 3)):
        lettering.write(page, "Some words", (5.0, 45.0), 40, Face(None), BLACK[0], times)
    assert 255 - fine.mean() == pytest.approx(255 - coarse.mean(), rel=0.05)


def test_inks_can_be_read_on_their_ground():
    for number in range(200):
        ground, inks = contrast(rng(number))
        light = np.array([[0.299, 0.587, 0.114]])
        assert abs(light @ (inks[0] - ground)) > 40


def test_the_edges_of_line_art_are_averages_over_areas():
    pen = Pen(rng(0), 128)
    pen.rgb[:] = 0
    pen.flats = np.full((1, 3), 255)
    pen.fill(0.5 + 0.31 * circle(np.linspace(0, 2 * np.pi, 400)), rng(0))
    small = halve(halve(pen.rgb))
    assert FINE == 4 and small.shape == (128, 128, 3)
    assert small.mean() / 255 == pytest.approx(math.pi * 0.31**2, rel=0.02)
    assert len(np.unique(small)) > 10


def test_boxes_on_a_screen_end_at_whole_pixels():
    made = Screen(rng(0), 64, FACES)
    made.box((3, 5, 21, 10), 255 - np.round(made.ground))
    rgb = halve(made.rgb)
    inside = np.zeros((64, 64), bool)
    inside[5:15, 3:24] = True
    assert (rgb[inside] == rgb[5, 3]).all() and (rgb[~inside] == rgb[0, 0]).all()
    assert (rgb[5, 3] != rgb[0, 0]).any()


def test_gradients_have_no_edges():
    for number in range(12):
        made = drawn("gradient", 256, number).astype(int)
        assert max(np.abs(np.diff(made, axis=axis)).max() for axis in (0, 1)) <= 6


@pytest.fixture
def fonts(tmp_path):
    folder = tmp_path / "fonts"
    (folder / "deep").mkdir(parents=True)
    shutil.copy(FONTS / "cmb10.ttf", folder / "deep" / "mine.TTF")
    (folder / "readme.txt").write_text("not a font, and not said to be one")
    return folder


def test_fonts_of_a_folder_are_used_beside_our_own(fonts):
    found = lettering.faces(fonts)
    assert found[:-1] == FACES
    assert found[-1].source == fonts / "deep" / "mine.TTF"
    assert "latin" in found[-1].scripts and "cyrillic" not in found[-1].scripts
    one, other = (pictures.draw(rng(0), 128, faces, "text") for faces in (found[-1:], FACES[:1]))
    assert not np.array_equal(one, other)


def test_broken_fonts_are_left_out_and_told(fonts, caplog):
    (fonts / "page.ttf").write_text("<html>404</html>")
    (fonts / "empty.otf").touch()
    (fonts / "torn.ttf").write_bytes((FONTS / "DejaVuSans.ttf").read_bytes()[:40_000])
    shutil.copy(FONTS / "STIXSizOneSymReg.ttf", fonts / "symbols.ttf")
    assert len(lettering.faces(fonts)) == len(FACES) + 1
    for name in ("page.ttf", "empty.otf", "torn.ttf", "symbols.ttf"):
        assert name in caplog.text


def test_a_folder_without_a_font_that_can_be_used_is_refused(tmp_path):
    (tmp_path / "page.ttf").write_text("<html>404</html>")
    with pytest.raises(ConfigError, match=r"data\.fonts: .*none of its 1 .ttf and .otf files"):
        lettering.faces(tmp_path)
    with pytest.raises(ConfigError, match=r"data\.fonts: .*is no folder"):
        lettering.faces(tmp_path / "missing")


def test_letters_of_other_scripts_are_used_where_the_face_has_them():
    dejavu = next(face for face in FACES if str(face.source).endswith("DejaVuSans.ttf"))
    assert {"latin", "accented", "greek", "cyrillic"} <= set(dejavu.scripts)
    assert "hangul" not in dejavu.scripts
    said = "".join(lettering.words(rng(0), 200, "greek"))
    assert set("αβγ") <= set(said) and not set("abc") & set(said)


def is_drawn(rgb):
    return not (rgb == GREY).all()


def test_the_share_that_is_drawn_is_what_was_asked_for(photos):
    made = Photos(photos, 32, drawn=0.3)
    share = np.mean([is_drawn(made.picture(16, 1, rng(n))) for n in range(300)])
    assert 0.2 < share < 0.4
    assert not any(is_drawn(made.crop(16, 1, rng(n))) for n in range(10))


def test_without_drawn_pictures_the_stream_is_as_it_was(photos):
    made = Photos(photos, 32)
    ours, theirs = rng(0), rng(0)
    assert np.array_equal(made.picture(32, 2, ours), made.crop(32, 2, theirs))
    assert ours.random() == theirs.random()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"drawn": 1.5}, "less than or equal to 1"),
        ({"drawn": -0.1}, "greater than or equal to 0"),
        ({"drawn": "some"}, "valid number"),
        ({"fonts": "folder"}, r"set drawn=0\.1"),
        ({"low": "lr", "drawn": 0.1}, "drawn would do nothing"),
    ],
)
def test_options_that_cannot_be_are_refused(more, told):
    with pytest.raises(ValidationError, match=told):
        PairOptions.model_validate({"photos": "hr", "crop": 64, "window": 16, **more})


def test_a_misspelt_option_names_the_near_one(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("output: x\nstage: {kind: autoencoder, data: {photos: y, drawm: 0.1}}\n")
    with pytest.raises(ConfigError, match="did you mean 'drawn'"):
        load_config(loop.TrainOptions, path)


def test_a_missing_folder_of_fonts_is_named_before_training(photos):
    options = PhotoOptions.model_validate({"photos": photos, "drawn": 0.5, "fonts": "none/here"})
    with pytest.raises(ConfigError, match="none/here"):
        options.open()


def pair_options(photos, **more):
    told = {"photos": str(photos), "crop": 64, "window": 16, "count": 4, "workers": 0, **more}
    return PairOptions.model_validate(told)


def test_drawn_pairs_are_the_same_stored_live_and_for_the_device(photos, stack, tmp_path):
    given = {"drawn": 1, "recipe": "clean_bicubic"}
    stored = all_pairs(tmp_path, pair_options(photos, **given), stack)
    truth = np.load(stored / "truth.npy")
    for mode in ("live", "device"):
        pairs = latent_pairs.LivePairs(pair_options(photos, mode=mode, **given), stack.context, 5)
        for number in range(4):
            assert np.array_equal(truth[number], pairs[number]["truth"].numpy())
    assert all(map(is_drawn, truth))
    batch = torch.utils.data.default_collate([pairs[number] for number in range(4)])
    assert torch.isfinite(
        latent_pairs.prepare_batch(batch, stack, torch.device("cpu"))["conditioning"]
    ).all()


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2")
def test_workers_change_no_drawn_sample(photos, stack):
    options = pair_options(photos, drawn=0.5, mode="live", recipe="clean_bicubic")
    pairs = latent_pairs.LivePairs(options, stack.context, 0)
    alone, shared = (
        torch.cat([batch["truth"] for batch in build_loader(pairs, Rows(0, 4, 3), workers)])
        for workers in (0, 2)
    )
    assert torch.equal(alone, shared)
    assert 2 < sum(map(is_drawn, alone.numpy())) < 10


def test_what_is_judged_is_no_drawn_picture(photos, stack):
    options = pair_options(photos, drawn=1, mode="live")
    shown = latent_pairs.LivePairs(options, stack.context, 0, held_out=True)
    assert not any(is_drawn(shown.pair(number).original) for number in range(4))


def test_pairs_stored_without_drawn_pictures_keep_their_name(photos, stack, tmp_path):
    given = {"count": 1, "recipe": "clean_bicubic"}
    unsaid, none, some = (
        all_pairs(tmp_path, pair_options(photos, **given, **more), stack)
        for more in ({}, {"drawn": 0, "fonts": None}, {"drawn": 0.5})
    )
    assert unsaid == none != some


SMALL = {
    "autoencoder": {"channels": 8, "encoder_blocks": [0, 1, 1], "decoder_blocks": [1, 1, 1]},
    "denoiser": {"channels": [8, 16], "layers": 1, "groups": 4, "text_width": 16, "text_layers": 1},
}


@pytest.mark.parametrize("kind", SMALL)
def test_a_stage_trains_on_drawn_pictures(photos, autoencoder, fonts, tmp_path, kind):
    data = {"photos": str(photos), "crop": 32, "drawn": 1, "fonts": str(fonts)}
    stage = {"kind": kind, "data": data, **SMALL[kind]}
    if kind == "denoiser":
        data |= {"window": 8, "count": 4, "workers": 0, "recipe": "clean_bicubic"}
        stage |= {"autoencoder": str(autoencoder), "cache": str(tmp_path / "pairs")}
    path, once = tmp_path / "c.yaml", {"batch": 2, "steps": 1, "log_every": 1}
    path.write_text(yaml.safe_dump({**once, "stage": stage, "output": str(tmp_path / "run")}))
    loop.run(path, [])
    row = (tmp_path / "run" / "log.csv").read_text().splitlines()[-1]
    assert np.isfinite(float(row.split(",")[2]))
    about = (tmp_path / "run" / "export" / "README.md").read_text()
    assert "100% of the pictures were no photos but drawn" in about
    assert str(tmp_path) not in model_card._configuration({"data": {"fonts": str(fonts)}})
