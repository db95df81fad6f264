"""A batch on a device is what the CPU makes of each trace, up to rounding that is stated here."""

import importlib.util
import threading
from itertools import takewhile

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import degradations
from degradations import device, ops, recipes
from degradations.device import batching, blur, noise, resize
from degradations.device.canvas import Canvas, exact_float32
from degradations.ops.noise import standard_normal
from degradations.pipeline import Recipe, Trace
from degradations.ranges import Choice, Uniform

NEEDS = {"video": "av"}
NAMES = [
    pytest.param(
        name, marks=pytest.mark.skipif(not importlib.util.find_spec(NEEDS[name]), reason="extra")
    )
    if name in NEEDS
    else name
    for name in recipes.NAMED
]
OPS = [
    *(ops.Blur(shape=Choice((shape,)), size=Choice((7, 15, 25))) for shape in ops.blur.SHAPES),
    *(ops.Sinc(), ops.MotionBlur(), ops.Defocus(), ops.Sharpen()),
    *(ops.GaussianNoise(), ops.PoissonNoise(), ops.Speckle(), ops.FilmGrain(), ops.SensorNoise()),
    *(ops.Fade(), ops.Cast(), ops.ChromaShift(), ops.Banding(), ops.Halftone(), ops.ScanLines()),
    *(ops.Scratches(), ops.Dust(), ops.Folds(), ops.Stains()),
    *(ops.Jpeg(chroma=Choice(("4:4:4", "4:2:0", "4:2:2", "4:4:0"))), ops.WebP(), ops.CompatSinc()),
    ops.CompatResize(factor=Uniform(0.3, 1.5)),
]


def batch(pixels, height: int, width: int, count: int) -> torch.Tensor:
    rgb = np.stack([pixels(height, width, seed) for seed in range(count)])
    return torch.from_numpy(rgb).permute(0, 3, 1, 2)


def draw(recipe: Recipe, hr: torch.Tensor, scale: float = 2, seed: int = 0) -> list[Trace]:
    return [recipe.draw(tuple(hr.shape[2:]), scale, seed, str(i)) for i in range(len(hr))]


def replayed(traces: list[Trace], hr: torch.Tensor) -> torch.Tensor:
    pictures = (picture.permute(1, 2, 0).cpu().numpy() for picture in hr)
    lr = [degradations.replay(*pair) for pair in zip(traces, pictures, strict=True)]
    return torch.from_numpy(np.stack(lr)).permute(0, 3, 1, 2)


def levels_apart(traces: list[Trace], hr: torch.Tensor) -> torch.Tensor:
    """How many levels each value differs from the CPU's."""
    ours = device.degrade(traces, hr).cpu() * 255
    assert torch.equal(ours.round(), ours.round().clamp(0, 255))
    assert (ours - ours.round()).abs().max() < 1e-4
    return (ours.round() - replayed(traces, hr)).abs()


# Rounding to 8 bits before a codec flips where two sums differ in their last bit, and a coefficient
# may follow. A codec that searches for the cheapest way to say a picture may then choose otherwise
# for a block or for the whole, by its version: up to it the bounds are tight, behind it loose.
CHOOSING = {"webp", "avif", "h264"}


def before_choices(trace: Trace) -> Trace:
    steps = list(takewhile(lambda step: step["kind"] not in CHOOSING, trace.steps))
    return trace.model_copy(update={"steps": steps})


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_gives_what_the_cpu_gives(name, pixels):
    hr, recipe = batch(pixels, 90, 122, 6), recipes.named(name)
    drawn = [draw(recipe, hr, scale, seed) for seed, scale in enumerate((2, 4, 2.5))]
    cut = [[before_choices(trace) for trace in traces] for traces in drawn]
    for some, mean, share in [(cut, 0.1, 0.985)] + [(drawn, 0.5, 0.95)] * (cut != drawn):
        apart = torch.cat([levels_apart(traces, hr).flatten() for traces in some])
        assert apart.mean() < mean
        assert (apart <= 2).float().mean() > share


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.kind)
def test_every_op_gives_what_the_cpu_gives(op, pixels):
    """At sizes of every picture's own, odd ones among them."""
    hr = batch(pixels, 61, 75, 7)
    recipe = Recipe(name="one", steps=(ops.Resize(factor=Uniform(0.3, 1.4)), op))
    apart = levels_apart(draw(recipe, hr), hr)
    assert (apart == 0).float().mean() > 0.985
    assert (apart <= 1).float().mean() > 0.99


def test_a_picture_of_one_pixel_is_a_picture(pixels):
    for steps in ([op] for op in OPS):
        hr = batch(pixels, 1, 1, 2)
        assert levels_apart(draw(Recipe(name="one", steps=tuple(steps)), hr, 1), hr).max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_the_same_alone_and_in_a_batch(name, pixels):
    hr = batch(pixels, 61, 83, 7)
    traces = draw(recipes.named(name), hr)
    together = device.degrade(traces, hr)
    for i in range(7):
        assert torch.equal(device.degrade(traces[i : i + 1], hr[i : i + 1])[0], together[i])


def test_each_picture_has_steps_of_its_own(pixels):
    hr = batch(pixels, 48, 64, 5)
    names = ("realesrgan", "bsrgan", "clean_bicubic", "scan", "old_photo")
    traces = [recipes.named(name).draw((48, 64), 4, 0, name) for name in names]
    together = device.degrade(traces, hr)
    for i, trace in enumerate(traces):
        assert torch.equal(device.degrade([trace], hr[i : i + 1])[0], together[i])


@pytest.mark.parametrize("name", ["realesrgan", "bsrgan"])
def test_parts_by_size_change_nothing(name, pixels, monkeypatch):
    hr = batch(pixels, 64, 80, 9)
    traces = draw(recipes.named(name), hr)
    made = []
    for worth in (10**9, 1000):
        monkeypatch.setitem(batching._WORTH_A_PART, "cpu", worth)
        made.append(device.degrade(traces, hr))
    assert torch.equal(*made)


@pytest.mark.parametrize("name", NAMES)
def test_each_picture_has_a_scale_of_its_own(name, pixels):
    hr, recipe = batch(pixels, 61, 83, 6), recipes.named(name)
    scales = (4, 1, 2.5, 4, 2, 1)
    traces = [recipe.draw((61, 83), scale, 0, str(i)) for i, scale in enumerate(scales)]
    together = device.degrade_each(traces, hr)
    for i, low in enumerate(together):
        assert torch.equal(device.degrade(traces[i : i + 1], hr[i : i + 1])[0], low)


class Launches(TorchDispatchMode):
    """Counts the operations that are more than another view: on a GPU each is a launch or more."""

    views = {
        *("view", "expand", "select", "slice", "unbind", "split", "split_with_sizes", "transpose"),
        *("permute", "t", "unsqueeze", "squeeze", "alias", "detach", "_unsafe_view", "as_strided"),
        *("lift_fresh", "empty", "new_empty", "empty_like", "_reshape_alias"),
    }

    def __enter__(self):
        self.count = 0
        return super().__enter__()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func._schema.name.split("::")[1] not in self.views
        return func(*args, **(kwargs or {}))


# one wave too many costs about 45; before waves and arithmetic were pruned there were 691, 2029, ..
@pytest.mark.parametrize(
    ("name", "most"),
    [("realesrgan", 520), ("bsrgan", 850), ("old_photo", 270), ("web_reupload", 430)],
)
def test_a_batch_takes_few_launches_whatever_its_scales(name, most, pixels, monkeypatch):
    monkeypatch.setitem(batching._WORTH_A_PART, "cpu", batching._WORTH_A_PART["cuda"])
    recipe, hr = recipes.named(name), batch(pixels, 32, 32, 64)
    keys = [str(i) for i in range(64)]
    alike = recipe.draw_batch((32, 32), 4, 0, keys)
    mixed = [recipe.draw((32, 32), (4, 4, 2, 1)[i % 4], 0, key) for i, key in enumerate(keys)]
    for degrade, traces in ((device.degrade, alike), (device.degrade_each, mixed)):
        degrade(traces, hr)  # what is kept for every batch is made once
        with Launches() as launches:
            degrade(traces, hr)
        assert launches.count <= most


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("mode", ["area", "bilinear", "bicubic", "lanczos", "nearest"])
def test_resizing_agrees_with_opencv_and_pillow(mode, antialias):
    rng = np.random.default_rng(0)
    sizes = np.concatenate([rng.integers(1, 90, (40, 2)), [[13, 21], [16, 16], [1, 1], [2, 7]]])
    canvas = torch.zeros(len(sizes), 3, 96, 96)
    given = [rng.random((*size, 3), dtype=np.float32) for size in sizes]
    for plane, rgb in zip(canvas, given, strict=True):
        plane[:, : len(rgb), : rgb.shape[1]] = torch.from_numpy(rgb).permute(2, 0, 1)
    words = {"mode": mode, "antialias": antialias}
    for of in ("current", "target"):
        params = [{"of": of, "factor": f} | words for f in rng.uniform(0.15, 2, len(sizes))]
        done = resize.apply(Canvas(canvas, sizes), params, [(70, 87)] * len(sizes))
        for rgb, p, plane, (height, width) in zip(given, params, done.rgb, done.sizes, strict=True):
            wanted = ops.Resize.apply(rgb, p, (70, 87))
            assert wanted.shape[:2] == (height, width)
            got = plane[:, :height, :width].permute(1, 2, 0).numpy()
            assert np.abs(got - wanted).max() < 1e-4


def test_a_resize_is_the_same_alone_and_in_a_batch():
    """Levels of 8 bits often meet just between two float32: in one of 25 pictures before."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        sizes, new = rng.integers(20, 60, (2, 7, 2))
        modes = rng.choice(["area", "bilinear", "bicubic", "lanczos"], 7)
        params = [{"mode": mode, "antialias": True} for mode in modes]
        canvas = torch.from_numpy(rng.integers(0, 256, (7, 3, 64, 64))) / 255
        together = resize.resize_canvas(Canvas(canvas, sizes), new, params).rgb
        for k, (height, width) in enumerate(new):
            few = slice(k, k + 1)
            small = Canvas(canvas, sizes).of([k])
            alone = resize.resize_canvas(small, new[few], params[few]).rgb[0]
            assert torch.equal(alone[:, :height, :width], together[k, :, :height, :width])


@pytest.mark.parametrize("grey", [True, False])
def test_a_device_draws_the_same_field(grey):
    sizes = np.array([[7, 5], [32, 48], [1, 3], [33, 17]])
    seeds = [0, 2**53 - 1, 2**32 + 5, 12345]
    canvas = Canvas(torch.zeros(4, 3, 48, 48), sizes)
    channels = 1 if grey else 3
    index = noise.words(canvas, [{"seed": seed} for seed in seeds], [channels] * 4)
    fields = noise.look_up(noise._tables(torch.device("cpu")), index)
    for field, seed, (height, width) in zip(fields, seeds, sizes.tolist(), strict=True):
        wanted = standard_normal(seed, (height, width, channels)) * np.ones(3, np.float32)
        assert (field[:, :height, :width].permute(1, 2, 0).numpy() == wanted).all()


@pytest.mark.parametrize("size", [3, 15, 25])
def test_the_transform_equals_the_direct_sum(size):
    padded = torch.rand(3, 3, 70 + size, 51 + size)
    stack = torch.randn(3, size, size) / size
    assert torch.allclose(blur.by_transform(padded, stack), blur.direct(padded, stack), atol=1e-5)


def test_a_training_target_is_sharpened_as_on_the_cpu(pixels):
    hr = batch(pixels, 70, 91, 3)
    ours = (device.sharpen(hr / 255) * 255).round()
    assert torch.equal(device.sharpen(hr.byte()), device.sharpen(hr / 255))
    theirs = np.stack([degradations.sharpen(rgb.permute(1, 2, 0).numpy()) for rgb in hr])
    apart = (ours - torch.from_numpy(theirs).permute(0, 3, 1, 2)).abs()
    assert (apart == 0).float().mean() > 0.999
    assert apart.max() <= 1


def test_float_and_uint8_are_the_same_picture(pixels):
    hr = batch(pixels, 48, 48, 2)
    traces = draw(recipes.named("realesrgan"), hr)
    assert torch.equal(device.degrade(traces, hr), device.degrade(traces, hr.float() / 255))


def test_the_batch_is_not_written_to(pixels):
    hr = batch(pixels, 32, 48, 4).float() / 255
    before = hr.clone()
    for name in ("realesrgan", "realesrgan_compat", "bsrgan"):
        device.degrade(draw(recipes.named(name), hr), hr)
        assert torch.equal(hr, before)


def test_without_asking_there_is_no_gradient(pixels):
    hr = (batch(pixels, 32, 32, 1) / 255).requires_grad_()
    assert not device.degrade(draw(recipes.named("realesrgan"), hr), hr).requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_the_good_picture_through_every_recipe(name, pixels):
    hr = (batch(pixels, 48, 64, 4) / 255).requires_grad_()
    recipe = recipes.named(name)
    traces = draw(recipe, hr)
    lr = device.degrade(traces, hr, differentiable=True)
    assert torch.equal(lr.detach(), device.degrade(traces, hr))
    lr.mean().backward()
    assert hr.grad is not None and hr.grad.isfinite().all()
    # a brighter picture gives a brighter one, by and large as much
    assert (hr.grad.sum((1, 2, 3)) * 4).min() > 0.2
    assert (hr.grad.sum((1, 2, 3)) * 4).max() < 3


def test_gradients_of_the_smooth_part_are_the_finite_differences(pixels):
    hr = (batch(pixels, 40, 56, 3).float() / 255 * 0.8 + 0.1).requires_grad_()
    smooth = (ops.Blur(), ops.Resize(factor=Uniform(0.5, 1.4)), ops.Sinc(), ops.Fade())
    traces = draw(Recipe(name="smooth", steps=(*smooth, ops.ScanLines())), hr)
    weight = torch.from_numpy(np.random.default_rng(0).normal(size=(3, 3, 20, 28))).float()
    (device.degrade(traces, hr, differentiable=True) * weight).sum().backward()
    assert hr.grad is not None
    way = 0.05 * hr.grad.sign()
    with torch.no_grad():
        risen = device.degrade(traces, hr + way) - device.degrade(traces, hr - way)
    slope = float((hr.grad * way).sum())
    assert slope == pytest.approx(float((risen * weight).sum()) / 2, rel=0.03)


def test_what_does_not_fit_is_refused(pixels):
    hr = batch(pixels, 16, 24, 2)
    traces = draw(recipes.named("clean_bicubic"), hr)
    with pytest.raises(degradations.RecipeError, match="1 traces for 2 pictures"):
        device.degrade(traces[:1], hr)
    with pytest.raises(degradations.RecipeError, match="make batches of one scale"):
        device.degrade([traces[0], recipes.named("clean_bicubic").draw((16, 24), 4, 0, "b")], hr)
    with pytest.raises(degradations.RecipeError, match="picture it was made from"):
        device.degrade(traces, hr[..., :20])
    with pytest.raises(ValueError, match="uint8 or float"):
        device.degrade(traces, hr.int())


def test_torchs_generator_is_not_touched(pixels):
    hr = batch(pixels, 24, 24, 2)
    before = torch.get_rng_state()
    device.degrade(draw(recipes.named("realesrgan"), hr), hr)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["realesrgan", "stablesr_light", "bsrgan", "old_photo", "phone"])
def test_nothing_waits_for_a_gpu(name, pixels):
    hr = batch(pixels, 128, 128, 16).cuda()
    recipe = recipes.named(name)
    device.degrade(draw(recipe, hr, 4), hr)  # constants are uploaded once
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        device.degrade(draw(recipe, hr, 4, seed=1), hr)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_a_gpu_gives_what_the_cpu_gives(name, pixels):
    hr = batch(pixels, 128, 128, 7).cuda()
    traces = draw(recipes.named(name), hr, 4)
    apart = levels_apart(traces, hr)
    assert apart.mean() < 0.15
    assert (apart <= 2).float().mean() > 0.97
    alone = torch.cat([device.degrade(traces[i : i + 1], hr[i : i + 1]) for i in range(7)])
    apart = ((alone - device.degrade(traces, hr)) * 255).round().abs()
    assert (apart <= 2).float().mean() > 0.99


def test_threads_leave_torchs_precision_as_it_was():
    backend, begun, ended = torch.backends.cuda.matmul, threading.Event(), threading.Event()
    before = backend.fp32_precision

    def work():
        with exact_float32():
            begun.set()
            ended.wait(100)

    backend.fp32_precision = "tf32"
    try:
        thread = threading.Thread(target=work)
        with exact_float32():
            thread.start()
            assert begun.wait(100)
        assert backend.fp32_precision == "ieee"  # the other still computes
        ended.set()
        thread.join()
        assert backend.fp32_precision == "tf32"
    finally:
        ended.set()
        backend.fp32_precision = before
