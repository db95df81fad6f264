"""Other people's upscalers: what loads, what it answers by windows, and what is refused."""

import io
import pickle
import subprocess
import sys
import warnings
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pixel_nets
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_security import harms
from torch import nn

import restore
from restore.checkpoints import devices, library, pixel
from restore.errors import ConfigError, ModelError, NonFiniteError
from restore.images.picture import Picture
from restore.options import Img2imgOptions, UpscaleOptions
from restore.pixel import model as pixel_model
from restore.pixel import tail
from restore.pixel.model import FAR, PixelModel
from restore.pixel.windows import PixelWindows, enlarge
from restore.tasks import run

pytestmark = pytest.mark.skipif(not find_spec("spandrel"), reason="the extra pixel")
CPU = torch.device("cpu")
SIZES = [(1, 1), (5, 130), (64, 64), (65, 200), (150, 97), (128, 256)]


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """A file of each kind, made when it is asked for."""
    folder, made = tmp_path_factory.mktemp("upscalers"), {}

    def file(kind: str, suffix: str = ".safetensors") -> Path:
        name = kind, suffix
        made[name] = made.get(name) or pixel_nets.save(folder, kind, suffix)
        return made[name]

    return file


@pytest.fixture
def loaded(files):
    return lambda kind, dtype="fp32": pixel.load(files(kind), kind, "digest", CPU, dtype)


def photo(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """rgb (1, 3, height, width): soft blobs and a grain."""
    rng = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, height // 8 + 2, width // 8 + 2, generator=rng)
    soft = nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return 0.8 * soft + 0.2 * torch.rand(1, 3, height, width, generator=rng)


def by_windows(model, rgb: torch.Tensor, windows: PixelWindows) -> torch.Tensor:
    height, width = rgb.shape[-2:]
    made = torch.full((1, 3, height * model.scale, width * model.scale), torch.nan)

    def write(rows, columns, part):
        assert made[..., rows, columns].isnan().all(), "written twice"
        made[..., rows, columns] = part

    with torch.inference_mode():
        size = height, width
        enlarge(model, model.scale, size, windows, lambda r, c: rgb[..., r, c], write)
    assert not made.isnan().any(), "left out"
    return made


def refused(path: Path, *words: str) -> str:
    with pytest.raises(ModelError) as caught:
        pixel.load(path, str(path), "digest", CPU, "auto")
    told = str(caught.value)
    assert all(word in told for word in (path.name, *words)), told
    return told


# Windows


class Nearest(nn.Module):
    def __init__(self, scale: int):
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))
        self.scale = scale

    def forward(self, rgb):
        return nn.functional.interpolate(rgb * self.one, scale_factor=float(self.scale))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("windows", [PixelWindows(32, 16), PixelWindows(48, 16, 8)])
@pytest.mark.parametrize("scale", [1, 3])
def test_what_changes_nothing_changes_nothing_by_windows(size, windows, scale):
    rgb = photo(*size)
    model = PixelModel(Nearest(scale), scale)
    made = by_windows(model, rgb, windows)
    torch.testing.assert_close(made, model(rgb), atol=1e-6, rtol=0)


@pytest.mark.parametrize("length", [1, 40, 64, 65, 79, 80, 81, 200, 1000])
@pytest.mark.parametrize("windows", [PixelWindows(64, 16), PixelWindows(64, 24, 8)])
def test_windows_begin_on_one_grid_and_count_up_to_one(windows, length):
    cuts = windows.cuts(length)
    assert [cut.sees.start for cut in cuts] == [64 * nth for nth in range(len(cuts))]
    total = torch.zeros(2 * length)
    for cut in cuts:
        total[2 * cut.answers.start : 2 * cut.answers.stop] += cut.weight(2)
        assert cut.sees.stop - cut.sees.start <= 64 + 2 * windows.halo
    torch.testing.assert_close(total, torch.ones(2 * length))
    longer = windows.cuts(length + 640)  # what comes after moves nothing before
    assert [cut.sees.start for cut in longer][: len(cuts)] == [cut.sees.start for cut in cuts]


class Deep(nn.Sequential):
    """So many convolutions of 3 x 3 one after the other."""

    def __init__(self, count: int):
        super().__init__(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(count)))
        for layer in self:
            nn.init.dirac_(layer.weight)
            layer.weight.data += 0.01


@pytest.mark.parametrize("count", [1, 7, 40])
def test_the_reach_of_convolutions_is_their_number(count):
    model = PixelModel(Deep(count).requires_grad_(False), 1)
    assert model.is_convolutional and model.reach == count
    assert model.windows.ramp == 0 and count <= model.windows.margin < count + 16


def test_deeper_networks_and_global_ones_blend():
    deep = PixelModel(Deep(100).requires_grad_(False), 1)
    assert deep.reach == FAR + 1 and (deep.windows.margin, deep.windows.ramp) == (64, 8)
    everywhere = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(1, 4), nn.Conv2d(4, 3, 1))
    model = PixelModel(everywhere.requires_grad_(False), 1)
    assert model.reach == FAR + 1 and not model.is_convolutional
    assert (model.windows.margin, model.windows.ramp) == (16, 16)


def test_a_network_that_hides_what_is_not_a_number_is_taken_for_far():
    class Deaf(Nearest):
        def forward(self, rgb):
            return super().forward(rgb.nan_to_num(0.5))

    assert PixelModel(Deaf(2).requires_grad_(False), 2).reach == FAR + 1


def test_windows_are_smaller_where_layers_are_wide():
    wide = nn.Sequential(nn.Conv2d(3, 6000, 1), nn.Conv2d(6000, 3, 1))
    model = PixelModel(wide.requires_grad_(False), 1)
    assert model.bytes_a_pixel == 4 * 6003
    assert model.windows.inner < 300 and model.windows.inner % 32 == 0
    assert model.window_bytes((5000, 5000)) < pixel_model.LAYERS * pixel_model.BUDGET
    assert model.window_bytes((10, 10)) == pixel_model.LAYERS * 100 * model.bytes_a_pixel


@pytest.mark.parametrize("size", [(1, 9), (2, 30), (3, 7), (17, 12), (40, 23)])
@pytest.mark.parametrize(
    "shape", [{}, {"scale": 8}, {"scale": 2}, {"scale": 1}, {"plus": True}], ids=str
)
def test_the_tail_of_an_esrgan_is_the_same_strip_by_strip(shape, size, tmp_path, monkeypatch):
    pixel.import_spandrel()
    from spandrel.architectures import ESRGAN

    torch.manual_seed(0)
    network = ESRGAN.ESRGAN(**{"num_filters": 8, "num_blocks": 1, "scale": 4} | shape)
    save_file(network.state_dict(), tmp_path / "esrgan.safetensors")
    model = pixel.read(tmp_path / "esrgan.safetensors", "esrgan")
    (last,) = (part for part in model.network.modules() if isinstance(part, tail.Tail))
    rgb = photo(*size)
    with torch.inference_mode():
        for values in (1, 2000):
            monkeypatch.setattr(tail, "CACHED", values)
            last.is_whole = False
            made = model.network(rgb)
            last.is_whole = True
            assert torch.allclose(made, model.network(rgb), atol=1e-6)


def test_layers_that_run_by_strips_do_not_make_windows_smaller(loaded):
    by_strips, whole = loaded("RRDBNet"), loaded("RRDBNet")
    for part in whole.network.modules():
        if isinstance(part, tail.Tail):
            part.is_whole = True
    assert by_strips.bytes_a_pixel < whole.bytes_a_pixel == 4 * 16 * 2 * 8


def test_a_picture_no_larger_than_a_window_is_one(loaded):
    model = loaded("SRVGGNetCompact")
    side = model.windows.inner + 2 * (FAR + pixel_model.BLEND)
    for size in ((side, side), (side // 2, 2 * side), (10, side**2 // 10)):
        assert model.windows_for(size).is_one(size)
        assert not model.windows_for((size[0] + 1, size[1])).is_one((size[0] + 1, size[1]))


@pytest.mark.parametrize("kind", pixel_nets.EIGHT)
def test_by_windows_is_as_whole(loaded, monkeypatch, kind):
    monkeypatch.setattr(pixel_model, "LARGEST", 64)
    model = loaded(kind)
    rgb = photo(100, 140)
    with torch.inference_mode():
        whole = model(rgb)
    assert whole.std() > 0.01
    gap = (by_windows(model, rgb, model.windows) - whole).abs().max() * 255
    # Attention sees the whole picture: no window can answer as the whole
    assert gap < (0.01 if kind in pixel_nets.CONVOLUTIONAL else 25), gap


# Files


@pytest.mark.parametrize("kind", pixel_nets.EIGHT)
def test_both_kinds_of_file_answer_alike(files, kind):
    rgb = photo(33, 47)
    models = [
        pixel.load(files(kind, suffix), kind, "digest", CPU, "auto")
        for suffix in (".pth", ".safetensors")
    ]
    with torch.inference_mode():
        one, other = (model(rgb) for model in models)
    scale = models[0].scale
    assert torch.equal(one, other) and one.shape[-2:] == (33 * scale, 47 * scale)
    own = pixel_nets.network(kind)
    assert models[0].about["parameters"] == str(sum(part.numel() for part in own.parameters()))


def test_other_ways_to_keep_a_state_dict_are_read(files, tmp_path):
    state = load_file(files("SRVGGNetCompact"))
    torch.save(state, tmp_path / "bare.pth")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.save({"params": {f"module.{k}": v.half() for k, v in state.items()}}, tmp_path / "a.PTH")
    torch.save({**state, "iter": 5, "loss": [0.5]}, tmp_path / "counted.pth")
    torch.save({"net_g_ema": state, "iter": 5}, tmp_path / "training.pth")
    answers, rgb = [], photo(9, 8)
    for path in sorted(tmp_path.glob("*.[pP]*")):
        assert pixel.load(path, "x", "digest", CPU, "auto").scale == 4
        added = library.add(path.stem, path)  # which keeps what fitted
        answers.append(pixel.load(added.path, "x", "digest", CPU, "auto")(rgb))
    whole = [one for one in answers if torch.equal(one, answers[-1])]
    assert (len(whole), len(answers)) == (4, 5)  # one is in half precision
    (tmp_path / "bare.pth").rename(tmp_path / "bare.pt")
    refused(tmp_path / "bare.pt", "call it .pth")


@pytest.mark.parametrize("kind", harms(Path("x")))
def test_no_pickle_is_obeyed(tmp_path, kind):
    canary = tmp_path / "canary"
    path = tmp_path / "evil.pth"
    evil = harms(canary)[kind]
    torch.save({"params": {"body.0.weight": torch.zeros(1)}, "x": evil}, path)
    refused(path, "holds more than tensors", "never loaded")
    path.write_bytes(pickle.dumps(evil, protocol=2))
    refused(path)
    torch.save({"x": evil}, path, _use_new_zipfile_serialization=False)
    refused(path)
    assert not canary.exists()


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("suffix", [".pth", ".pt"])
def test_a_program_is_never_run(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("it was loaded"))
    path = tmp_path / f"net{suffix}"
    torch.jit.save(torch.jit.trace(nn.Conv2d(3, 3, 1), torch.zeros(1, 3, 4, 4)), str(path))
    refused(path, "TorchScript", "never run")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_cut_file_is_refused_by_its_name(files, tmp_path, suffix, share):
    data = files("SPAN", suffix).read_bytes()
    path = tmp_path / f"cut{suffix}"
    path.write_bytes(data[: int(share * len(data))])
    refused(path)


def test_a_cut_file_of_the_old_kind_is_refused(files, tmp_path):
    held = io.BytesIO()
    torch.save(load_file(files("SPAN")), held, _use_new_zipfile_serialization=False)
    for length in range(1, len(held.getvalue()), 9973):
        (tmp_path / "old.pth").write_bytes(held.getvalue()[:length])
        refused(tmp_path / "old.pth")


@pytest.mark.parametrize(
    "page", [b"<!doctype html>", b"version https://git-lfs.github.com/spec/v1", b""]
)
def test_a_page_or_a_pointer_in_place_of_a_file_is_told(tmp_path, page):
    for name in ("model.pth", "model.safetensors"):
        path = tmp_path / name
        path.write_bytes(page)
        refused(path, *["git lfs pull"] * (b"lfs" in page))


def test_weights_of_no_known_network_name_themselves(tmp_path):
    path = tmp_path / "mine.safetensors"
    save_file({"mine.weight": torch.zeros(3)}, path)
    refused(path, "mine.weight", "no upscaler that spandrel")


def test_types_of_tensors_that_no_pickle_is_read_with_are_no_code(tmp_path):
    torch.save({"params": {"a": torch.zeros(3).to(torch.float8_e4m3fn)}}, tmp_path / "f8.pth")
    refused(tmp_path / "f8.pth", "are of float8", "take a .safetensors")


def test_weights_that_make_up_no_network_are_told(files, tmp_path):
    state = load_file(files("SRVGGNetCompact"))
    del state["body.4.weight"]
    save_file(state, tmp_path / "torn.safetensors")
    refused(tmp_path / "torn.safetensors", "do not make up a network")


def test_without_spandrel_the_mend_is_told(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(ModelError, match=r"pip install 'restore-toolkit\[pixel\]'"):
        pixel.load(files("SPAN"), "x", "digest", CPU, "auto")


def test_what_fills_holes_or_mends_faces_alone_is_told(files, monkeypatch, tmp_path):
    spandrel = pixel.import_spandrel()
    arch = pixel.build(spandrel, load_file(files("SPAN")), tmp_path)[0].architecture
    net, made = nn.Conv2d(3, 3, 1), []
    monkeypatch.setattr(
        spandrel.ModelLoader, "load_from_state_dict", lambda self, state: made.pop()
    )
    how = {"supports_half": True, "supports_bfloat16": True, "tags": [], "scale": 1}
    sides = {"input_channels": 3, "output_channels": 3}
    image = spandrel.ImageModelDescriptor
    made.append(image(net, net.state_dict(), arch, "FaceSR", **how, **sides))
    refused(files("SPAN"), "face")
    made.append(
        image(net, net.state_dict(), arch, "SR", **how, input_channels=7, output_channels=3)
    )
    refused(files("SPAN"), "channels")
    del how["scale"]
    masked = spandrel.MaskedImageModelDescriptor
    made.append(masked(net, net.state_dict(), arch, "Inpainting", **how, **sides))
    refused(files("SPAN"), "fills holes")


# What is fed


def test_networks_of_one_channel_answer_each_channel(loaded):
    model = loaded("DnCNN")
    rgb = photo(20, 30)
    made = model(rgb)
    assert model.scale == 1
    for channel in range(3):
        grey = rgb[:, channel : channel + 1].expand(-1, 3, -1, -1)
        torch.testing.assert_close(model(grey)[:, 0], made[:, channel])


def test_networks_of_four_channels_are_fed_what_is_opaque(tmp_path):
    pixel.import_spandrel()
    from spandrel.architectures import ESRGAN

    torch.manual_seed(0)
    net = ESRGAN.ESRGAN(in_nc=4, out_nc=4, num_filters=4, num_blocks=1, scale=2)
    path = tmp_path / "rgba.safetensors"
    save_file(net.state_dict(), path)
    model = pixel.load(path, "rgba", "digest", CPU, "auto")
    rgb = photo(12, 14)
    with torch.inference_mode():
        own = net(torch.cat([rgb, torch.ones(1, 1, 12, 14)], 1)).clamp(0, 1)
        torch.testing.assert_close(model(rgb), own[:, :3])


def test_a_noise_level_is_passed_as_spandrel_does(loaded):
    model = loaded("DRUNet")  # four channels in, one of them made by spandrel
    assert model(photo(17, 23)).shape == (1, 3, 17, 23)
    assert model.windows.margin % 16 == 0


def test_a_network_that_changes_its_input_changes_a_copy(loaded):
    rgb = photo(20, 30)
    given = rgb.clone()
    loaded("RCAN")(given)
    assert torch.equal(given, rgb)


# Pictures


def picture(height: int, width: int, **more) -> Picture:
    rgb = photo(height, width)[0].permute(1, 2, 0).numpy()
    return Picture(np.rint(rgb * 255).astype(np.uint8), **more)


def done(model, low, **options):
    return run.restore(low, UpscaleOptions(**options), model, 0)


def test_the_scale_is_the_models_or_reached_by_a_last_resize(loaded):
    model = loaded("SPAN")
    assert model.scale == 2
    low = picture(40, 50)
    native = done(model, low)
    assert native.size == (80, 100)
    with torch.inference_mode():
        whole = model(torch.from_numpy(low.pixels / np.float32(255)).permute(2, 0, 1)[None])
    expected = (whole[0].permute(1, 2, 0) * 255).round().numpy().astype(np.uint8)
    assert np.array_equal(native.pixels, expected)
    for scale, size in ((1, (40, 50)), (1.5, (60, 75)), (3, (120, 150))):
        made = done(model, low, scale=scale)
        assert made.size == size
        again = restore.images.resample.resize_band(native.pixels, size, (0, size[0])) * 255
        assert np.abs(made.pixels - again).max() < 1.6  # the one was rounded in between


def test_16_bits_alpha_grey_and_profile_stay(loaded):
    model = loaded("SPAN")
    eight = picture(40, 50)
    deep = replace(eight, pixels=eight.pixels.astype(np.uint16) * 257)
    made = done(model, deep)
    assert made.depth == 16 and len(np.unique(made.pixels)) > 1000
    assert np.abs(made.pixels / 257 - done(model, eight).pixels).max() <= 0.51
    alpha = np.full((40, 50), 255, np.uint8)
    alpha[:, :20] = 0
    shown = done(model, replace(eight, alpha=alpha, exif=b"exif", icc=b"icc"))
    assert shown.alpha is not None and shown.alpha.shape == (80, 100)
    assert set(np.unique(shown.alpha[:, 60:])) == {255} and (shown.exif, shown.icc) == (
        b"exif",
        b"icc",
    )
    grey = replace(eight, pixels=np.repeat(eight.pixels[..., :1], 3, 2), grey=True)
    channels = done(model, grey).pixels
    assert (channels == channels[..., :1]).all()


def test_what_is_transparent_does_not_bleed(loaded):
    model = loaded("SPAN")
    low = picture(40, 50, alpha=np.zeros((40, 50), np.uint8))
    low.alpha[:, 25:] = 255
    painted = replace(low, pixels=low.pixels.copy())
    painted.pixels[:, :25] = (255, 0, 255)
    assert np.array_equal(done(model, low).pixels, done(model, painted).pixels)
    damage = np.zeros((40, 50), np.uint8)
    damage[10:14, 20:35] = 255
    one, other = (
        run.restore(each, UpscaleOptions(), model, 0, mask=damage) for each in (low, painted)
    )
    assert np.array_equal(one.pixels[one.alpha > 0], other.pixels[one.alpha > 0])


def test_damage_is_mended_beforehand(loaded):
    model = loaded("SRVGGNetCompact")
    low, hole = picture(30, 40), np.zeros((30, 40), np.uint8)
    hole[10:14, 5:30] = 255
    scratched = replace(low, pixels=low.pixels.copy())
    scratched.pixels[hole > 0] = 255
    made = run.restore(scratched, UpscaleOptions(), model, 0, mask=hole)
    clean = done(model, low)
    dirty = done(model, scratched)
    gaps = [np.abs(one.pixels.astype(int) - clean.pixels).mean() for one in (made, dirty)]
    assert gaps[0] < gaps[1] / 2


def test_options_of_a_walk_and_other_tasks_are_refused(loaded):
    model = loaded("SPAN")
    with pytest.raises(ConfigError, match="prompt, steps: SPAN is a pixel upscaler"):
        done(model, picture(8, 8), steps=4, prompt="sharp")
    with pytest.raises(ModelError, match="SPAN: is a pixel upscaler: upscale, but not img2img"):
        run.restore(picture(8, 8), Img2imgOptions(), model, 0)
    with pytest.raises(ConfigError, match="lowpass"):
        done(model, picture(8, 8), scale=1, colour="lowpass")


def test_who_wants_whole_pictures_is_told_of_windows(loaded, monkeypatch):
    model = loaded("SwinIR")
    assert not done(model, picture(40, 40)).warnings
    monkeypatch.setattr(pixel_model, "WIDE", 64)
    assert "it saw 64 px of this at a time" in done(model, picture(40, 1100)).warnings[0]


def test_colours_are_given_back(loaded):
    made = done(loaded("SRVGGNetCompact"), picture(30, 40), colour="adain")
    mean, wanted = made.pixels.mean((0, 1)), picture(30, 40).pixels.mean((0, 1))
    assert np.abs(mean - wanted).max() < 2


def test_progress_is_told_window_by_window_and_may_end_it(files, monkeypatch):
    monkeypatch.setattr(pixel_model, "LARGEST", 64)
    restorer = restore.load(str(files("SRVGGNetCompact")), device="cpu")
    seen = []
    low = picture(150, 300).pixels
    assert restorer.upscale(low, callback=lambda *at: seen.append(at[:2])).shape == (600, 1200, 3)
    assert seen == [(nth, 10) for nth in range(1, 11)]
    with pytest.raises(restore.Cancelled):
        restorer.upscale(low, callback=lambda step, *_: step < 2)


# Devices and precision


def widened(model: PixelModel) -> PixelModel:
    """The same function, by way of numbers that fp16 cannot hold."""
    body, so_far = model.network.model.body, 1.0
    for layer, gain in zip(body[0:8:2], (700, 700, 1 / 700, 1 / 700), strict=True):
        so_far *= gain
        layer.weight.data *= gain
        layer.bias.data *= so_far
    return model


def test_half_precision_that_overflows_is_computed_again_in_fp32(loaded):
    low = picture(20, 24)
    assert not done(loaded("SRVGGNetCompact", "fp16"), low).warnings
    halved = widened(loaded("SRVGGNetCompact", "fp16"))
    made = done(halved, low)
    assert "computed again in fp32" in made.warnings[0] and halved.is_half
    with halved.in_fp32():
        assert np.array_equal(done(halved, low).pixels, made.pixels)


def test_an_infinity_is_no_white(loaded):
    model = loaded("SRVGGNetCompact")
    model.network.model.body[-1].bias.data[:] = torch.inf
    with pytest.raises(NonFiniteError, match="SRVGGNetCompact left the finite numbers"):
        done(model, picture(8, 8))


def test_a_precision_that_does_not_serve_is_refused(files):
    with pytest.raises(ModelError, match="SwinIR does not compute in fp16; --dtype fp32, bf16"):
        pixel.load(files("SwinIR"), "x", "digest", CPU, "fp16")


def test_out_of_memory_goes_to_the_cpu(loaded, monkeypatch):
    model, seen = loaded("SPAN"), []
    plain = done(loaded("SPAN"), picture(20, 20))
    forward = model.network.forward

    def once(rgb):
        seen.append(rgb)
        if len(seen) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(rgb)

    monkeypatch.setattr(model.network, "forward", once)
    made = done(model, picture(20, 20))
    assert np.array_equal(made.pixels, plain.pixels) and "on the CPU" in made.warnings[0]


@pytest.mark.parametrize(
    "how", [{"compiled": True}, {"offload": True}, {"loras": [("a.safetensors", 1.0)]}]
)
def test_what_has_one_part_is_not_offloaded_nor_fused(files, how):
    with pytest.raises(ConfigError, match="is a pixel upscaler, one network"):
        devices.load(str(files("SPAN")), "cpu", **how)


def test_a_stack_is_not_made_of_a_pixel_upscaler(files):
    from restore.checkpoints.load import load

    with pytest.raises(ModelError, match="is a pixel upscaler; what is asked for here"):
        load(str(files("SPAN")), "cpu")


def test_loading_says_nothing(files):
    path = files("DAT")
    code = (
        "from pathlib import Path; from restore.checkpoints import pixel; "
        f"pixel.read(Path({str(path)!r}), 'x')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixel.load(files("HAT"), "x", "digest", CPU, "auto")
