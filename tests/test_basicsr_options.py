"""Option files of BasicSR: the published values give the named recipes; what is amiss is told."""

import pytest
import yaml

from degradations import Recipe, RecipeError, recipes
from degradations.basicsr_options import PUBLISHED, load
from degradations.ops import Blur, GaussianNoise
from degradations.ranges import Choice, Uniform

KERNELS = ("iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso")
BLUR = {  # Wang et al. 2021 and the released settings of x4plus
    "blur_kernel_size": 21,
    "kernel_list": list(KERNELS),
    "kernel_prob": [0.45, 0.25, 0.12, 0.03, 0.12, 0.03],
    "sinc_prob": 0.1,
    "blur_sigma": [0.2, 3],
    "betag_range": [0.5, 4],
    "betap_range": [1, 2],
}
BLUR |= {f"{key}2": value for key, value in BLUR.items()} | {"blur_sigma2": [0.2, 1.5]}
X4PLUS = {
    "name": "x4plus",
    "scale": 4,
    "num_gpu": 4,
    "manual_seed": 0,
    "l1_gt_usm": True,
    "percep_gt_usm": True,
    "gan_gt_usm": False,
    "resize_prob": [0.2, 0.7, 0.1],
    "resize_range": [0.15, 1.5],
    "gaussian_noise_prob": 0.5,
    "noise_range": [1, 30],
    "poisson_scale_range": [0.05, 3],
    "gray_noise_prob": 0.4,
    "jpeg_range": [30, 95],
    "second_blur_prob": 0.8,
    "resize_prob2": [0.3, 0.4, 0.3],
    "resize_range2": [0.3, 1.2],
    "gaussian_noise_prob2": 0.5,
    "noise_range2": [1, 25],
    "poisson_scale_range2": [0.05, 2.5],
    "gray_noise_prob2": 0.4,
    "jpeg_range2": [30, 95],
    "gt_size": 256,
    "queue_size": 180,
    "datasets": {
        "train": {
            "type": "RealESRGANDataset",
            "dataroot_gt": "datasets/DF2K",
            "io_backend": {"type": "disk"},
            **BLUR,
            "final_sinc_prob": 0.8,
            "use_hflip": True,
            "num_worker_per_gpu": 5,
        },
        "val": {"noise_range": [0, 1], "blurry": True},
    },
    "network_g": {"type": "RRDBNet", "num_in_ch": 3},
    "train": {"optim_g": {"betas": [0.9, 0.99]}, "gan_opt": {"real_label_val": 1.0}},
}


STABLESR = {  # IceClear/StableSR configs/stableSRNew/v2-finetune_text_T_512.yaml, those that count
    "degradation": {
        "resize_prob": [0.2, 0.7, 0.1],
        "resize_range": [0.3, 1.5],
        "gaussian_noise_prob": 0.5,
        "noise_range": [1, 15],
        "poisson_scale_range": [0.05, 2.0],
        "gray_noise_prob": 0.4,
        "jpeg_range": [60, 95],
        "second_blur_prob": 0.5,
        "resize_prob2": [0.3, 0.4, 0.3],
        "resize_range2": [0.6, 1.2],
        "gaussian_noise_prob2": 0.5,
        "noise_range2": [1, 12],
        "poisson_scale_range2": [0.05, 1.0],
        "gray_noise_prob2": 0.4,
        "jpeg_range2": [60, 100],
        "no_degradation_prob": 0.01,
    },
    "data": {
        "blur_kernel_size": 21,
        "kernel_list": list(KERNELS),
        "kernel_prob": [0.45, 0.25, 0.12, 0.03, 0.12, 0.03],
        "sinc_prob": 0.1,
        "blur_sigma": [0.2, 1.5],
        "betag_range": [0.5, 2.0],
        "betap_range": [1, 1.5],
        "blur_kernel_size2": 11,  # the code draws 7 to 21 all the same
        "kernel_list2": list(KERNELS),
        "kernel_prob2": [0.45, 0.25, 0.12, 0.03, 0.12, 0.03],
        "sinc_prob2": 0.1,
        "blur_sigma2": [0.2, 1.0],
        "betag_range2": [0.5, 2.0],
        "betap_range2": [1, 1.5],
        "final_sinc_prob": 0.8,
    },
}


def written(tmp_path, values, name="mine.yml"):
    path = tmp_path / name
    path.write_text(values if isinstance(values, str) else yaml.safe_dump(values))
    return path


def test_the_published_values_give_the_named_recipe(tmp_path):
    made = load(written(tmp_path, X4PLUS))
    assert made.recipe.steps == recipes.named("realesrgan").steps
    assert made.recipe.sharpen  # as the file says; the named recipe leaves it to the user
    assert made.scale == 4 and made.notes == ()
    plain = {key: value for key, value in X4PLUS.items() if not key.endswith("_usm")}
    made = load(written(tmp_path, plain | {"gt_usm": False}))
    assert not made.recipe.sharpen and made.notes == ()


def test_stablesrs_own_file_gives_the_named_recipe(tmp_path):
    made = load(written(tmp_path, STABLESR))
    assert made.recipe.steps == recipes.named("stablesr_light").steps
    told = " ".join(made.notes)
    assert "no_degradation_prob is left out" in told and "assumed [" not in told


def test_compat_gives_the_recipe_with_the_published_faults(tmp_path):
    made = load(written(tmp_path, X4PLUS), compat=True).recipe
    named = recipes.named("realesrgan_compat")
    assert (made.steps, made.sharpen) == (named.steps, named.sharpen)


def test_an_imported_recipe_survives_being_saved(tmp_path):
    made = load(written(tmp_path, X4PLUS | {"jpeg_range": [40, 80], "gaussian_noise_prob2": 0.3}))
    made.recipe.save(tmp_path / "mine.yaml")
    loaded = Recipe.load(tmp_path / "mine.yaml")
    assert loaded == made.recipe and loaded.digest() == made.recipe.digest()
    assert loaded.name == "mine" and "mine.yml" in loaded.paper


def test_every_value_has_its_place(tmp_path):
    values = {
        "kernel_list": ["aniso", "plateau_iso"],
        "kernel_prob": [3, 1],
        "sinc_prob": 0.4,
        "blur_sigma": [1, 2],
        "betag_range": [0.7, 1],
        "betap_range": [0.5, 1.5],
        "resize_prob": [0, 1, 0],
        "resize_range": [0.5, 1.1],
        "gaussian_noise_prob": 0.2,
        "noise_range": [3, 4],
        "poisson_scale_range": [0.5, 0.6],
        "gray_noise_prob": 0.1,
        "jpeg_range": [70, 71],
    }
    twice = values | {f"{key}2": value for key, value in values.items()}
    path = written(tmp_path, twice | {"second_blur_prob": 0.25, "final_sinc_prob": 0.5})
    blur, resize, noise, jpeg, maybe, resize2, noise2, end = load(path).recipe.steps
    assert blur.weights == (0.6, 0.15, 0.25) and maybe.step == blur and maybe.p == 0.25
    assert blur.steps[0] == Blur(
        shape=Choice(("anisotropic", "plateau_isotropic"), (3, 1)),
        sigma=Uniform(1, 2),
        beta_generalised=Choice((Uniform(0.7, 1), 1)),
        beta_plateau=Choice((Uniform(0.5, 1), Uniform(1, 1.5))),
    )
    factor = Choice((Uniform(1, 1.1), Uniform(0.5, 1), 1), (0, 1, 0))
    assert (resize.factor, resize.of) == (factor, "current")
    assert (resize2.factor, resize2.of) == (factor, "target")
    assert noise == noise2 and noise.weights == (0.2, 0.8)
    assert noise.steps[0] == GaussianNoise(sigma_levels=Uniform(3, 4), grey=0.1)
    assert (noise.steps[1].scale, noise.steps[1].grey) == (Uniform(0.5, 0.6), 0.1)
    assert jpeg.quality == Uniform(70, 71)
    assert end.steps[0].steps[1].p == 0.5 and end.steps[1].steps[0].quality == Uniform(70, 71)


def test_what_is_missing_is_named_with_what_was_assumed(tmp_path):
    some = {key: X4PLUS[key] for key in ("noise_range", "jpeg_range", "l1_gt_usm")}
    made = load(written(tmp_path, some))
    assert made.recipe.steps == recipes.named("realesrgan").steps and made.scale is None
    missing = [note.split(" no ")[1].split(":")[0] for note in made.notes]
    assert sorted(missing) == sorted(PUBLISHED.keys() - some.keys() - {"blur_kernel_size"}
                                     - {"blur_kernel_size2"})  # fmt: skip
    assert any("no resize_range2: assumed [0.3, 1.2], as in x4plus" in note for note in made.notes)
    assert "no gt_usm or l1_gt_usm: assumed false" in load(
        written(tmp_path, {"noise_range": [1, 2]})
    ).notes[-1]  # fmt: skip


def test_what_is_not_understood_is_warned_about(tmp_path):
    odd = {"jpeg_rnage": [1, 2], "webp_prob": 0.3, "mystery": 1}
    told = "\n".join(load(written(tmp_path, X4PLUS | odd)).notes)
    assert "jpeg_rnage is left out: not a known option; did you mean 'jpeg_range'?" in told
    assert "webp_prob is left out" in told and told.count("\n") == 1
    gfpgan = {"downsample_range": [0.8, 8], "color_jitter_prob": 0.3, "gray_prob": 0.01}
    told = load(written(tmp_path, X4PLUS | gfpgan)).notes
    assert [note.split(": ")[1].split()[0] for note in told] == sorted(gfpgan)
    told = load(written(tmp_path, {"blur_kernel_size": 13, "blur_kernel_size2": 21})).notes[-1]
    assert "blur_kernel_size 13 is left out: the published code draws 7, 9 .. 21" in told


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("jpeg_range", [95, 30], "jpeg_range: [95, 30] cannot be; give the lower end first"),
        ("jpeg_range", [0, 30], "jpeg_range: [0, 30] cannot be; 0 is outside 1 to 100"),
        ("noise_range", 5, "noise_range: 5 cannot be; give 2 numbers"),
        ("noise_range", [1, "x"], "noise_range: [1, 'x'] cannot be; give 2 numbers"),
        ("noise_range", [float("nan"), 2], "noise_range: [nan, 2] cannot be"),
        ("resize_prob2", [0.3, 0.7], "resize_prob2: [0.3, 0.7] cannot be; give 3 numbers"),
        ("resize_prob", [0, 0, 0], "resize_prob: [0, 0, 0] cannot be; give shares, not all 0"),
        ("resize_range", [0.5, 0.9], "resize_range: [0.5, 0.9] cannot be; give a range with 1"),
        ("resize_range", [-1, 1.5], "resize_range: [-1, 1.5] cannot be; -1 is outside 0.01 to 8"),
        ("gray_noise_prob", 1.5, "gray_noise_prob: 1.5 cannot be; give a share from 0 to 1"),
        ("kernel_list", ["isso"], "kernel_list: isso cannot be; did you mean 'iso'?"),
        ("kernel_list2", [], "kernel_list2: [] cannot be; give some of iso, aniso"),
        ("kernel_prob", [1, 2], "kernel_prob: [1, 2] cannot be; give 6 numbers"),
        ("kernel_prob", [-1, 1, 1, 1, 1, 1], "kernel_prob: [-1, 1, 1, 1, 1, 1] cannot be"),
        ("blur_sigma", [-1, 2], "blur_sigma: [-1, 2] cannot be; -1 is outside 0 to inf"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_key(tmp_path, key, value, told):
    with pytest.raises(RecipeError) as caught:
        load(written(tmp_path, {key: value}))
    assert str(caught.value).startswith(f"{tmp_path / 'mine.yml'}: {told}")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: a\nscale: 4", "no option of a degradation here, such as kernel_list"),
        ("datasets: {val: {noise_range: [1, 2]}}", "no option of a degradation here"),
        ("[1, 2]", "no option of a degradation here"),
        ("", "no option of a degradation here"),
        ("a: [", "not YAML"),
        (
            "noise_range: [1, 2]\ndegradation: {noise_range: [1, 3]}",
            "degradation.noise_range is [1, 3] here and [1, 2] above",
        ),
    ],
)
def test_a_file_that_is_none_is_refused(tmp_path, text, told):
    path = written(tmp_path, text)
    with pytest.raises(RecipeError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ") and told in str(caught.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(RecipeError, match=r"none\.yml: cannot be read"):
        load(tmp_path / "none.yml")
