"""Contact sheets and histograms: what they show is what the recipe does and draws."""

import math

import cv2
import numpy as np
import pytest
from PIL import Image
from test_pipeline import RUNNABLE, photo

from degradations import Recipe, histogram, preview, recipes
from degradations.ops import Blur, Jpeg, Maybe, OneOf, Repeat, Resize, Sequence
from degradations.ranges import Choice, Uniform

FULL = recipes.named("realesrgan")
PICTURES = {"a": photo(96, 120), "b <i>": photo(300, 280, 1)}


def test_a_row_is_the_middle_of_a_picture_as_the_recipe_degrades_it():
    small, large = preview.rows(PICTURES, FULL, range(3), 4, 128)
    assert small.hr.shape == (96, 120, 3) and large.hr.shape == (128, 128, 3)
    assert (large.hr == PICTURES["b <i>"][86:214, 76:204]).all()
    for seed, degraded in enumerate(large.degraded):
        assert (degraded.lr == FULL.degrade(large.hr, 4, seed, "b <i>").lr).all()


@pytest.mark.parametrize("name", RUNNABLE)
def test_every_step_is_told_in_a_few_words(name):
    recipe = recipes.named(name)
    for key in map(str, range(40)):
        steps = recipe.draw((64, 64), 4, 0, key).steps
        lines = preview.describe(steps)
        assert len(lines) == len(steps)
        assert all(len(line) < 60 and "_" not in line and "seed" not in line for line in lines)


def test_the_words_are_those_of_the_parameters():
    blur = {"kind": "blur", "shape": "anisotropic", "size": 7, "sigma": [1.3, 0.61], "angle": 1.0}
    steps = [
        blur,
        blur | {"shape": "generalised_isotropic", "beta": 0.7},
        {"kind": "resize", "of": "current", "factor": 0.43, "mode": "area", "antialias": True},
        {"kind": "resize", "of": "target", "factor": 1.0, "mode": "area", "antialias": True},
        {"kind": "gaussian_noise", "sigma_levels": 12.2, "grey": True, "seed": 3},
        {"kind": "jpeg", "quality": 43, "chroma": "4:2:0"},
        {"kind": "sinc", "size": 7, "cutoff": math.pi / 2},
        {"kind": "my_ops.Rust", "amount": 0.25, "wet": True, "how": "slowly", "by": [1, 20.2]},
    ]
    assert preview.describe(steps) == [
        "blur aniso 1.3 x 0.61",
        "blur gen iso 1.3 β 0.7",
        "resize x0.43 area",
        "to LR area",
        "noise 12 grey",
        "jpeg 43",
        "sinc 0.50π on 7",
        "my ops.Rust 0.25 wet slowly by 1/20",
    ]


def test_a_kernel_is_what_the_blur_does_to_one_bright_pixel():
    recipe = Recipe(name="a", steps=(Blur(sigma=2, size=25), Jpeg(), Blur(sigma=[0.3, 0.5])))
    steps = recipe.draw((64, 64), 1, 0, "a").steps
    wide, narrow = preview.kernels(steps)
    assert wide.shape == narrow.shape == (25, 25)
    for kernel in (wide, narrow):
        assert kernel.sum() == pytest.approx(1, abs=1e-4)
        assert kernel.argmax() == 12 * 25 + 12
    assert wide.max() < 0.1 < narrow.max()


def test_the_page_holds_every_picture_and_no_foreign_markup(tmp_path):
    path = tmp_path / "a.html"
    preview.write_page(preview.rows(PICTURES, FULL, range(3), 4, 64), FULL, path)
    html = path.read_text(encoding="utf-8")
    assert html.count("<img") == 2 * 4 and html.count("data:image/png") == 2 * 4
    assert "b &lt;i&gt;" in html and "b <i>" not in html
    assert "jpeg" in html and "seed 2, 16 x 16" in html and FULL.paper in html


def test_the_sheet_shows_each_result_enlarged_without_smoothing(tmp_path):
    recipe = Recipe(name="a", steps=(Resize(of="target", mode="area"),))
    rows = preview.rows({"a": photo(64, 64)}, recipe, [0], 4, 64)
    path = tmp_path / "a.png"
    preview.write_png(rows, recipe, path, dpi=300)
    image = np.asarray(Image.open(path).convert("RGB"))
    assert image.shape[1] == pytest.approx(300 * (2 * 1.5 + 0.15), abs=2)
    left, top, side = round(0.1 * 300 + 1.5 * 300), round(0.3 * 300), round(1.45 * 300)
    shown = image[top : top + side, left : left + side]
    blocks = cv2.resize(shown, (16, 16), interpolation=cv2.INTER_AREA)
    assert np.abs(blocks.astype(int) - rows[0].degraded[0].lr).mean() < 6


def test_pictures_without_kernels_and_of_one_pixel_have_a_sheet(tmp_path):
    recipe = recipes.named("clean_bicubic")
    rows = preview.rows({"dot": photo(1, 1), "line": photo(3, 200)}, recipe, [0], 4, 64)
    preview.write_page(rows, recipe, tmp_path / "a.html")
    preview.write_png(rows, recipe, tmp_path / "a.png")


def test_the_histogram_counts_what_the_recipe_draws():
    steps = (
        Maybe(p=0.3, step=Blur(sigma=[1, 2])),
        OneOf(steps=(Jpeg(quality=50), Sequence(steps=(Jpeg(quality=[80, 90]), Resize())))),
        Blur(shape="isotropic", sigma=Choice((1, Uniform(3, 4)))),
    )
    draws = histogram.draw(Recipe(name="a", steps=steps), 2000)
    assert [one.label for one in draws.passes] == ["blur 1", "jpeg", "resize", "blur 2"]
    first, jpeg, resize, last = draws.passes
    assert first.count == pytest.approx(600, abs=70) and first.positions == {0: first.count}
    assert jpeg.count == last.count == 2000 and resize.count == pytest.approx(1000, abs=100)
    assert jpeg.values["quality"].count(50) == 2000 - resize.count
    assert set(jpeg.values["quality"]) == {50, *range(80, 91)}
    assert min(first.values["sigma"]) >= 1 and "angle" not in last.values
    assert sum(draws.orders.values()) == 2000 and len(draws.orders) == 4
    assert draws.orders[("jpeg", "blur")] == pytest.approx(700, abs=80)


def test_the_histogram_draws_as_the_recipe_does():
    steps = [FULL.draw((64, 64), 4, 7, str(i)).steps for i in range(50)]
    draws = histogram.draw(FULL, 50, 7)
    quality = [step["quality"] for trace in steps for step in trace if step["kind"] == "jpeg"]
    ours = [value for one in draws.passes for value in one.values.get("quality", ())]
    assert sorted(ours) == sorted(quality)
    assert draws.orders.total() == 50
    assert set(draws.orders) == {tuple(step["kind"] for step in trace) for trace in steps}


def test_a_repeated_op_has_a_pass_for_each_time():
    repeat = Repeat(steps=(Jpeg(quality=[50, 90]),), n=3, scale=0.5)
    first, second, third = histogram.draw(Recipe(name="a", steps=(repeat,)), 300).passes
    assert [one.label for one in (first, second, third)] == ["jpeg 1", "jpeg 2", "jpeg 3"]
    assert min(third.values["quality"]) >= 87 > min(second.values["quality"]) >= 75


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([True, False, True, True], "yes 75%, no 25%"),
        (["area"] * 3 + ["bicubic"], "area 75%, bicubic 25%"),
        (list(range(101)), "5 .. 50 .. 95"),
        ([0.5, 0.5], "0.5 .. 0.5 .. 0.5"),
    ],
)
def test_values_are_told_in_a_few_words(values, words):
    assert histogram.summarise(values) == words


@pytest.mark.parametrize("name", ["phone", "bsrgan", "clean_bicubic"])
def test_every_recipe_has_a_page_of_what_it_draws(name, tmp_path):
    recipe, path = recipes.named(name), tmp_path / "a.html"
    histogram.write_page(histogram.draw(recipe, 60), recipe, path)
    html = path.read_text(encoding="utf-8")
    assert html.count("<svg") == 2 and "likeliest" in html
    for step in recipe.draw((8, 8), 1, 0, "0").steps:
        assert step["kind"] in html


def test_a_recipe_without_steps_has_a_page(tmp_path):
    recipe = Recipe(name="nothing")
    draws = histogram.draw(recipe, 10)
    assert list(histogram.table(draws)) == [] and draws.orders == {(): 10}
    histogram.write_page(draws, recipe, tmp_path / "a.html")
    assert "no step" in (tmp_path / "a.html").read_text()
