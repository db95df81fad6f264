"""What the degradations promise, which test holds each promise, and those that had no better place.

BARS is the table of both.
"""

import ast
import importlib.util
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from test_ops import picture

from degradations import Trace, recipes, replay, sharpen
from degradations.ops.jpeg import jpeg, to_uint8
from degradations.ops.noise import standard_normal

BARS = {
    "1 JPEG is libjpeg-turbo's to the last bit": [
        "test_degradation_promises.test_jpeg_is_pillows_at_every_quality",
        "test_ops.test_jpeg_equals_pillows",
        "test_device_jpeg.test_no_value_differs_from_libjpeg_turbo_at_any_quality",
        "test_device_jpeg.test_no_value_differs_on_a_gpu",
    ],
    "2 the same bytes for any batch size, worker count and order": [
        "test_degrade_batch.test_workers_batches_and_threads_change_nothing",
        "test_degrade_batch.test_no_split_of_ten_thousand_pictures_changes_a_byte",
        "test_pipeline.test_an_image_degrades_the_same_in_any_order_and_number_of_threads",
        "test_device.test_a_picture_is_the_same_alone_and_in_a_batch",
        "test_device.test_every_recipe_gives_what_the_cpu_gives",
        "test_device.test_a_gpu_gives_what_the_cpu_gives",
    ],
    "3 every parameter is a picture's own": [
        "test_degradation_promises.test_pictures_with_other_keys_share_no_draw",
        "test_degradation_promises.test_noise_of_other_keys_is_other_noise",
        "test_degradation_promises.test_order_codec_and_kinds_are_a_pictures_own",
        "test_device.test_each_picture_has_steps_of_its_own",
        "test_device.test_nothing_waits_for_a_gpu",
    ],
    # measured, not asserted: python tools/benchmark.py degradations
    "4 three hundred crops a second a thread": [
        "test_benchmark.test_contestants_take_turns_and_are_divided_round_by_round",
    ],
    "5 no chain of resizes moves the picture": [
        "test_resize.test_no_chain_of_resizes_moves_a_blob",
        "test_resize.test_enlarging_moves_nothing_where_old_and_new_edges_meet",
        "test_pipeline.test_nothing_moves_along_the_chain",
    ],
    "6 a trace rebuilds its picture bit for bit, and is small and readable": [
        "test_pipeline.test_a_trace_replays_bit_for_bit_from_its_json",
        "test_degradation_promises.test_a_trace_is_small_and_readable",
    ],
    "7 recipes carry their paper; the published faults are there for comparison": [
        "test_recipes.test_the_yaml_equals_the_named_recipe",
        "test_basicsr.test_random_kernels_are_drawn_from_their_distribution",
        "test_basicsr.test_compat_sinc_is_their_low_pass_and_ours_does_not_amplify",
        "test_basicsr.test_compat_poisson_noise_counts_values_as_they_do",
        "test_basicsr.test_compat_jpeg_is_their_differentiable_jpeg",
        "test_basicsr.test_sharpening_is_their_unsharp_mask",
        "test_compat.test_resizing_by_a_factor_drops_the_fraction_and_aliases",
    ],
    "8 an op of one's own is one class; albumentations by name": [
        "test_plugins.test_an_op_beside_the_recipe_runs_nests_and_replays",
        "test_plugins.test_an_op_of_an_installed_package_is_found_by_its_entry_point",
        "test_plugins.test_a_recipe_with_an_own_file_works_in_a_spawned_worker",
        "test_plugins.test_an_albumentations_transform_is_seeded_by_us",
    ],
    "9 a recipe from one's own photos, checked against known truth": [
        "test_measure.test_quality_and_chroma_of_a_file_come_back_exactly",
        "test_measure.test_noise_is_within_15_percent",
        "test_measure.test_noise_of_real_photos",
        "test_measure.test_blur_of_real_photos",
        "test_estimate.test_simulated_pictures_measure_like_the_photos",
    ],
}
RUNNABLE = [name for name in recipes.NAMED if name != "video" or importlib.util.find_spec("av")]
FULL = recipes.named("realesrgan")


def traces(count, recipe=FULL):
    return [recipe.draw((64, 64), 4, seed=0, key=f"photo_{i}") for i in range(count)]


@pytest.mark.parametrize("bar", BARS)
def test_every_bar_is_held_by_tests_that_exist(bar):
    for name in BARS[bar]:
        module, _, function = name.partition(".")
        tree = ast.parse((Path(__file__).parent / f"{module}.py").read_text(encoding="utf-8"))
        assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize(("chroma", "pillow"), [("4:4:4", 0), ("4:2:2", 1), ("4:2:0", 2)])
def test_jpeg_is_pillows_at_every_quality(chroma, pillow):
    rgb = to_uint8(picture(75, 109))
    for quality in range(1, 101):
        file = io.BytesIO()
        Image.fromarray(rgb).save(file, "JPEG", quality=quality, subsampling=pillow)
        assert (jpeg(rgb, quality, chroma) == np.asarray(Image.open(file))).all(), quality


def test_a_trace_is_small_and_readable():
    sizes = []
    for trace in traces(300):
        text = trace.to_json()
        sizes.append(len(text))
        assert Trace.from_json(text) == trace
        for step in json.loads(text)["steps"]:  # names and plain values, nothing packed
            assert all(isinstance(v, int | float | str | bool | list) for v in step.values())
            assert not any(isinstance(v, str) and len(v) > 25 for v in step.values())
    assert max(sizes) < 2000


def test_pictures_with_other_keys_share_no_draw():
    """Numbers drawn for near keys, and in different steps of one picture, are uncorrelated."""
    first = [{step["kind"]: step for step in reversed(trace.steps)} for trace in traces(4000)]
    quality = np.array([steps["jpeg"]["quality"] for steps in first], float)
    factor = np.array([steps["resize"]["factor"] for steps in first])
    seeds = [step["seed"] for trace in traces(4000) for step in trace.steps if "seed" in step]
    assert len(set(seeds)) == len(seeds)
    bound = 4 / math.sqrt(len(quality))  # 4 sigma
    for values in (quality, factor, np.array(seeds) / 2.0**53):
        for lag in (1, 2, 10):
            assert abs(np.corrcoef(values[:-lag], values[lag:])[0, 1]) < bound
    assert abs(np.corrcoef(quality, factor)[0, 1]) < bound
    assert stats.kstest(np.array(seeds) / 2.0**53, "uniform").pvalue > 1e-4


def test_noise_of_other_keys_is_other_noise():
    seeds = [s["seed"] for trace in traces(30) for s in trace.steps if "seed" in s]
    fields = np.stack([standard_normal(seed, (64, 64)).ravel() for seed in seeds])
    apart = np.corrcoef(fields) - np.eye(len(fields))
    assert np.abs(apart).max() < 5.5 / 64


def test_order_codec_and_kinds_are_a_pictures_own():
    kinds = [tuple(step["kind"] for step in trace.steps) for trace in traces(400)]
    assert len(set(kinds)) > 15
    endings = [one[-1] == "jpeg" for one in kinds]
    assert 150 < sum(endings) < 250
    codecs = [
        {step["kind"] for step in trace.steps} & {"jpeg", "webp", "avif"}
        for trace in traces(400, recipes.named("web_reupload"))
    ]
    assert len({frozenset(one) for one in codecs}) >= 5


@pytest.mark.parametrize("name", RUNNABLE)
def test_pictures_smaller_than_any_kernel_go_through_every_recipe(name):
    recipe = recipes.named(name)
    for size in ((1, 1), (2, 3), (1, 40), (5, 2)):
        hr = to_uint8(picture(*size))
        assert sharpen(hr).shape == hr.shape
        for scale in (1, 4):
            for key in "abcdef":
                degraded = recipe.degrade(hr, scale, seed=0, key=key)
                wanted = tuple(max(1, round(n / scale)) for n in size)
                assert degraded.lr.shape == (*wanted, 3) and degraded.damage.shape == wanted
                assert (replay(degraded.trace, hr) == degraded.lr).all()
