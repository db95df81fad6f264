"""A folder of photos becomes a recipe that makes pictures like them."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from test_measure import SAMPLES, blurred, noisy, scene

from degradations import Recipe, RecipeError, recipes
from degradations.estimate import estimate, write_page
from degradations.fit import fit, fit_whole, recipe_of
from degradations.fit_report import Simulated, compare, simulate
from degradations.measure import Measured
from degradations.ops import OPS
from degradations.ranges import Choice, Uniform
from degradations.rng import Rng

KEYS = [str(number) for number in range(400)]


def photo(**told):
    nothing = dict.fromkeys(Measured.__dataclass_fields__)
    usual = {"path": "a.jpg", "width": 640, "height": 480, "format": "JPEG", "noise_curve": ()}
    return Measured(**(nothing | usual | {"black": 0.02, "white": 0.96} | told))


def drawn(recipe):
    """The steps drawn for 400 pictures, by kind."""
    steps = [step for key in KEYS for step in recipe.draw((64, 64), 1, 0, key).steps]
    return {kind: [step for step in steps if step["kind"] == kind] for kind in OPS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight photos of known damage, and a broken one."""
    made = tmp_path_factory.mktemp("photos")
    for number in range(8):
        rgb = noisy(blurred(scene(256, number % 2), 1 + 0.05 * number), 5 + 0.5 * number)
        Image.fromarray(rgb).save(made / f"{number}.jpg", quality=70 + 2 * number)
    (made / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    return made


@pytest.fixture(scope="module")
def found(folder):
    return estimate(sorted(folder.iterdir()), name="shoe_box")


def test_a_folder_becomes_its_recipe(found):
    assert [photo.quality for photo in found.photos] == [70, 72, 74, 76, 78, 80, 82, 84]
    steps = drawn(found.recipe)
    assert len(steps["jpeg"]) == 400
    assert min(s["quality"] for s in steps["jpeg"]) >= 70
    assert max(s["quality"] for s in steps["jpeg"]) <= 84
    noise = [s["sigma_levels"] for s in steps["gaussian_noise"]]
    assert np.median(noise) == pytest.approx(6.75, rel=0.2)
    blur = [s["sigma"][0] for s in steps["blur"]]
    assert np.median(blur) == pytest.approx(1.2, abs=0.3)


def test_a_broken_file_is_refused_with_a_reason_and_counted(found, tmp_path):
    [(path, why)] = found.refused
    assert path.endswith("broken.jpg")
    assert "cannot be read" in why
    found.save(tmp_path / "mine.yaml")
    assert "1 file could not be used" in (tmp_path / "mine.yaml").read_text()


def test_the_saved_recipe_loads_back_equal(found, tmp_path):
    found.save(tmp_path / "mine.yaml")
    assert Recipe.load(tmp_path / "mine.yaml") == found.recipe
    assert (tmp_path / "mine.yaml").read_text().startswith("# Measured on 8 photos, 8 of them JPEG")


@pytest.mark.parametrize("name", recipes.NAMED)
def test_any_recipe_loads_back_equal(name, tmp_path):
    recipe = recipes.named(name)
    recipe.save(tmp_path / "a.yaml", "two lines", "of comment")
    assert Recipe.load(tmp_path / "a.yaml") == recipe


def test_simulated_pictures_measure_like_the_photos(found, tmp_path):
    Image.fromarray(scene(256, 5)).save(tmp_path / "clean.png")
    made = simulate(found.photos, found.recipe, seed=0, clean=[tmp_path / "clean.png"])
    told = compare(found.photos, made)
    assert told["JPEG quality"]["moved"] < 5
    assert told["noise"]["moved"] < 1.2
    assert told["blur"]["moved"] < 0.45


def test_the_page_stands_alone_and_shows_the_recipe(found, tmp_path):
    write_page(found, tmp_path / "page.html", seed=1)
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    names = ("www.w3.org", "purl.org", "creativecommons.org", "matplotlib.org")  # in its plots
    assert not [link for link in re.findall(r"https?://([\w.]+)", html) if link not in names]
    assert "<script" not in html
    assert html.count("<svg") == html.count('<div role="img" aria-label="') == 2
    assert "kind: gaussian_noise" in html
    assert "broken.jpg" in html


def test_workers_change_nothing(folder):
    paths = sorted(folder.iterdir())[-4:]
    assert estimate(paths, workers=2) == estimate(paths)


def test_two_photos_are_enough_and_one_too():
    paths = [SAMPLES / "portrait.jpg", SAMPLES / "web_1998.jpg"]
    for count in (1, 2):
        recipe = estimate(paths[:count]).recipe
        recipe.degrade(scene(96), 2, seed=0, key="a")


def test_a_few_photos_are_compared_without_a_warning():
    photos, made = ([photo(noise=float(n)) for n in range(first, 10, 2)] for first in (0, 1))
    told = compare(photos, [Simulated(one, np.zeros((1, 1, 3), np.uint8)) for one in made])
    assert told["noise"]["ks"] == pytest.approx(0.2) and told["noise"]["moved"] == 1


def test_no_photos_is_an_error_that_says_what_to_give(tmp_path):
    with pytest.raises(RecipeError, match="give a folder"):
        estimate([])
    (tmp_path / "a.txt").write_text("no picture")
    with pytest.raises(RecipeError, match=r"none of 1 files.*a.txt.*cannot be read"):
        estimate([tmp_path / "a.txt"])


def test_a_photo_is_json(found):
    assert json.loads(json.dumps(found.photos[0].to_dict()))["quality"] == 70


def test_a_fitted_range_has_the_quantiles_of_its_values():
    values = np.random.default_rng(0).lognormal(1, 0.5, 300)
    drawn = [fit(values).draw(Rng(0, key)) for key in KEYS]
    share = (0.1, 0.25, 0.5, 0.75, 0.9)
    assert np.quantile(drawn, share) == pytest.approx(np.quantile(values, share), rel=0.15)


def test_outliers_do_not_stretch_a_range():
    assert max(fit([*np.linspace(1, 2, 99), 1000]).values()) < 2.1


def test_few_distinct_qualities_are_drawn_by_their_counts():
    assert fit_whole([75, 90, 90, 90]) == Choice((75, 90), (1.0, 3.0))
    assert fit_whole([75, 75]) == Uniform(75, 75)


def test_what_some_photos_lack_comes_with_its_share():
    photos = [photo(quality=80, chroma="4:4:4")] * 3 + [photo()]
    steps = drawn(recipe_of(photos, "mine"))
    assert len(steps["jpeg"]) == pytest.approx(300, abs=30)
    assert {step["chroma"] for step in steps["jpeg"]} == {"4:4:4"}
    assert not steps["blur"]
    assert not steps["gaussian_noise"]


def test_a_jpeg_before_comes_before_the_last():
    recipe = recipe_of([photo(quality=85, earlier_quality=50, chroma="4:2:0")], "mine")
    qualities = [s["quality"] for s in recipe.draw((64, 64), 1, 0, "a").steps if "quality" in s]
    assert qualities == [50, 85]


def test_noise_that_grows_with_light_is_shot_noise():
    even = photo(noise=6.68, noise_read=44.6, noise_shot=0.0, colour_noise=True)
    shot = photo(noise=5.0, noise_read=0.0, noise_shot=0.25, colour_noise=False)
    steps = drawn(recipe_of([even, shot], "mine"))
    assert {step["sigma_levels"] for step in steps["gaussian_noise"]} == {10.0}
    assert {step["scale"] for step in steps["poisson_noise"]} == {0.5}
    assert len(steps["poisson_noise"]) == pytest.approx(200, abs=40)


def test_grey_pictures_get_grey_noise_also_where_they_are_jpegs(tmp_path):
    grey = noisy(scene(256), 10, grey=True)[..., 1]
    Image.fromarray(grey).save(tmp_path / "grey.jpg", quality=92)
    Image.fromarray(np.dstack([grey] * 3)).save(tmp_path / "as_rgb.jpg", quality=92)
    Image.fromarray(noisy(scene(256), 10)).save(tmp_path / "colour.jpg", quality=92)
    found = estimate(sorted(tmp_path.glob("*.jpg")))
    assert [(p.grey, p.colour_noise) for p in found.photos] == [
        (True, False),
        (False, None),
        (True, False),
    ]
    (noise,) = recipe_of([p for p in found.photos if p.grey], "grey").steps[-2:-1]
    assert noise.grey == 1 and noise.sigma_levels.low == pytest.approx(10, rel=0.2)


def test_grey_pictures_say_nothing_of_the_noise_of_those_in_colour():
    told = {"noise": 6.68, "noise_read": 44.6, "noise_shot": 0.0}
    colour, grey = photo(**told, grey=False), photo(**told, grey=True, colour_noise=False)
    steps = drawn(recipe_of([colour] * 3 + [grey], "mine"))["gaussian_noise"]
    assert np.mean([step["grey"] for step in steps]) == pytest.approx(0.25, abs=0.06)
    assert max(step["sigma_levels"] for step in steps) == pytest.approx(10, rel=0.01)


def test_an_enlarged_photo_is_shrunk_and_enlarged_again():
    steps = drawn(recipe_of([photo(enlarged=2.5, blur=1.1)], "mine"))
    assert steps["resize"][1]["factor"] == pytest.approx(0.4)
    assert not steps["blur"]


def test_a_blank_page_says_nothing_of_fading():
    faded = [photo(black=0.2, white=0.8)] * 4
    blank = [photo(black=level, white=level + 0.01) for level in (0.3, 0.7, 0.9)]
    assert recipe_of(faded + blank, "a").steps[1:] == recipe_of(faded, "a").steps[1:]
    assert [step.kind for step in recipe_of(blank, "a").steps] == ["resize"]


def test_every_subsampling_that_is_measured_is_drawn():
    for chroma in ("4:4:4", "4:2:2", "4:2:0", "4:4:0"):
        jpeg = recipe_of([photo(format="JPEG", quality=80, chroma=chroma)], "a").steps[-1]
        assert jpeg.chroma.options == (chroma,)


def test_six_clean_photos_that_are_warm_by_chance_have_no_cast_and_no_fade():
    """Gains as six clean photos of one camera have them; two of six with all of the contrast."""
    blues, reds = (0.86, 0.85, 0.95, 0.88, 0.93, 0.93), (1.08, 1.11, 1.01, 1.06, 1.05, 1.03)
    ends = [(0.12, 0.85)] * 4 + [(0.0, 1.0)] * 2
    photos = [
        photo(cast=(red, 3 - red - blue, blue), black=black, white=white)
        for red, blue, (black, white) in zip(reds, blues, ends, strict=True)
    ]
    assert not {"cast", "fade"} & {step.kind for step in recipe_of(photos, "a").steps}


def test_a_fade_and_a_cast_come_in_only_where_most_photos_have_them():
    rng = np.random.default_rng(0)

    def many(cast, black, white):
        return [
            photo(cast=tuple(np.array(cast) + rng.normal(0, 0.03, 3)), black=black, white=white)
            for _ in range(12)
        ]

    plain = drawn(recipe_of(many((1, 1, 1), 0.02, 0.97), "mine"))
    assert not plain["cast"]
    assert not plain["fade"]
    old = drawn(recipe_of(many((1.15, 1.0, 0.85), 0.2, 0.7), "mine"))
    assert np.mean([step["gains"][2] for step in old["cast"]]) == pytest.approx(0.85, abs=0.03)
    assert np.mean([step["amount"] for step in old["fade"]]) == pytest.approx(0.47, abs=0.05)
