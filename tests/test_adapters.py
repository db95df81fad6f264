"""Other people's loaders and transforms: no draw twice, the same for any workers, replayable."""

import copy
import importlib.util
import json
import logging
import multiprocessing
import os
import pickle
import random
import subprocess
import sys
import warnings
from pathlib import Path

import albumentations
import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps, features
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Subset

import degradations
from degradations import RecipeError, Trace, recipes, replay
from degradations.albumentations import Degrade as Transform
from degradations.basicsr import RecipePairs
from degradations.samples import pixels as read_pixels
from degradations.torch import Degrade, Epochs, Keyed, PairDataset, PairStream

ROOT = Path(__file__).resolve().parents[1]
COUNT = 8
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture(scope="module")
def photos(tmp_path_factory, pixels):
    folder = tmp_path_factory.mktemp("photos")
    for n in range(COUNT):
        Image.fromarray(pixels(40 + n, 48, n)).save(folder / f"{n}.png")
    return folder


def opened(file):
    with Image.open(file) as picture:
        return picture.copy()


class Photos(Dataset):
    """As someone else has written it: it knows nothing of keys."""

    def __init__(self, folder, transform):
        self.files, self.transform = sorted(folder.iterdir()), transform

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        return self.transform(opened(self.files[index]))


def cut_by_chance(picture):
    """A transform of torch's global generator, as torchvision's RandomCrop is."""
    y, x = (int(torch.randint(side - 32 + 1, ())) for side in picture.size[::-1])
    return picture.crop((x, y, x + 32, y + 32))


class Chain:
    """torchvision's Compose, and ToTensor at its end."""

    def __init__(self, recipe="realesrgan"):
        self.degrade = Degrade(recipe, scale=4, seed=5)

    def __call__(self, picture):
        made = self.degrade(cut_by_chance(picture))
        trace = made.pop("trace")
        return {k: torch.from_numpy(np.array(v)) for k, v in made.items()} | {"trace": trace}


class Composed:
    """A dataset's transform by albumentations."""

    def __init__(self):
        crop = albumentations.RandomCrop(32, 32)
        self.compose = albumentations.Compose([crop, Transform("realesrgan", scale=4, seed=5)])

    def __call__(self, picture):
        made = self.compose(image=np.asarray(picture))
        return {"lr": made["image"], "hr": made["hr"], "trace": made["trace"]}


def by_number(folder):
    return PairDataset(folder, "realesrgan", 4, seed=5, crop=32)


def by_stream(folder):
    return PairStream(sorted(folder.iterdir()), "realesrgan", 4, seed=5, crop=32)


def by_transform(folder):
    return Keyed(Photos(folder, Chain()), seed=5)


def by_albumentations(folder):
    transform = Composed()
    return Keyed(Photos(folder, transform), seed=5, seeded=[transform.compose])


ADAPTERS = [by_number, by_stream, by_transform, by_albumentations]


def levels(picture):
    """A sample's picture -> uint8 (H, W, 3)."""
    if picture.dtype == torch.uint8:
        return picture.numpy()
    return (picture * 255).round().byte().permute(1, 2, 0).numpy()


def drawn(dataset, workers, epochs=2, batch=2, **how):
    """By epoch: {key: (trace, hr, lr)}."""
    sampler = Epochs(dataset, seed=5) if hasattr(dataset, "__len__") else None
    loader = DataLoader(dataset, batch, sampler=sampler, num_workers=workers, **how)
    made = []
    for _ in range(epochs):
        found = {}
        for samples in loader:
            rows = zip(samples["trace"], samples["hr"], samples["lr"], strict=True)
            for trace, hr, lr in rows:
                key = Trace.from_json(trace).key
                assert key not in found
                found[key] = trace, levels(hr), levels(lr)
        made.append(found)
    return made


def steps(epochs):
    return [str(Trace.from_json(row[0]).steps) for found in epochs for row in found.values()]


def same(one, other):
    assert [sorted(found) for found in one] == [sorted(found) for found in other]
    for mine, theirs in zip(one, other, strict=True):
        for key, (trace, hr, lr) in mine.items():
            assert trace == theirs[key][0]
            assert (hr == theirs[key][1]).all() and (lr == theirs[key][2]).all()


@pytest.mark.parametrize("make", ADAPTERS)
def test_draws_are_unique_the_same_for_any_workers_and_replayable(make, photos):
    two = drawn(make(photos), workers=2)
    assert [len(found) for found in two] == [COUNT, COUNT]
    assert len(set(steps(two))) == 2 * COUNT
    for found in two:
        for trace, hr, lr in found.values():
            assert (replay(Trace.from_json(trace), hr) == lr).all()
    for workers, how in ((0, {}), (1, {}), (4, {}), (2, {"persistent_workers": True})):
        same(drawn(make(photos), workers, **how), two)


@pytest.mark.parametrize("make", ADAPTERS)
def test_workers_that_have_nothing_of_this_process_draw_the_same(make, photos):
    how = {"multiprocessing_context": "spawn", "persistent_workers": True}
    same(drawn(make(photos), 1, **how), drawn(make(photos), 0))


def test_ranks_of_a_distributed_sampler_hear_of_the_epoch_from_the_dataset(photos):
    traces = []
    for rank in range(2):
        pairs = by_number(photos)
        sampler = DistributedSampler(pairs, 2, rank, seed=1)
        loader = DataLoader(pairs, 2, sampler=sampler, num_workers=2, persistent_workers=True)
        for epoch in range(2):
            sampler.set_epoch(epoch), pairs.set_epoch(epoch)
            traces += [trace for batch in loader for trace in batch["trace"]]
    keys = {Trace.from_json(trace).key for trace in traces}
    assert keys == {f"{epoch}/{index}" for epoch in range(2) for index in range(COUNT)}
    assert len({str(Trace.from_json(trace).steps) for trace in traces}) == 2 * COUNT


def test_a_part_of_a_dataset_is_told_the_epoch_by_the_whole(photos):
    pairs = by_number(photos)
    part, rest = torch.utils.data.random_split(pairs, [5, COUNT - 5])
    traces = []
    for epoch in range(2):
        pairs.set_epoch(epoch)
        traces += [s["trace"] for s in DataLoader(part, None, shuffle=True, num_workers=2)]
    assert len(set(traces)) == len(traces) == 10
    for whole in (part, part + rest):
        with pytest.raises(TypeError, match=r"does not take \(index, epoch\)"):
            Epochs(whole)
    keyed = Keyed(Subset(Photos(photos, Chain()), [1, 3]), seed=5)
    assert len(set(steps(drawn(keyed, 2)))) == 4


@pytest.mark.parametrize("make", ADAPTERS)
def test_training_that_is_gone_on_with_sees_what_it_would_have_seen(make, photos):
    whole, late = drawn(make(photos), 0), make(photos)
    if isinstance(late, PairStream):
        late.set_epoch(1)
        same(drawn(late, 2, epochs=1), whole[1:])
        return
    sampler = Epochs(late, seed=5)
    sampler.set_epoch(1)
    samples = [sample for sample in DataLoader(late, None, sampler=sampler)]
    assert [sample["trace"] for sample in samples] == [row[0] for row in whole[1].values()]


@pytest.mark.parametrize("workers", [(3, 1, 0, 2), (0, 2, 3), (1, 3)])
def test_a_stream_draws_nothing_twice_whatever_workers_its_passes_have(workers, photos):
    stream, passes = by_stream(photos), []
    for count in workers:
        found = drawn(stream, count, epochs=1)
        passes.append(found[0])
    same(passes, drawn(by_stream(photos), 0, epochs=len(workers)))
    assert len(set(steps(passes))) == len(workers) * COUNT


def test_a_look_at_one_sample_is_a_pass_of_its_own(photos):
    wanted, stream = drawn(by_stream(photos), 0, epochs=4), by_stream(photos)
    next(iter(stream))
    same(drawn(stream, 3, epochs=1), wanted[1:2])
    next(iter(DataLoader(stream, None, num_workers=3)))
    same(drawn(stream, 2, epochs=1, persistent_workers=True), wanted[3:4])
    stream.set_epoch(0)
    same(drawn(stream, 2, epochs=4, persistent_workers=True), wanted)


def test_a_loader_that_is_seeded_again_goes_on_to_the_next_epoch(photos):
    wanted, stream = drawn(by_stream(photos), 0, epochs=3), by_stream(photos)
    for epoch in range(3):
        torch.manual_seed(0)
        same(drawn(stream, 2, epochs=1), wanted[epoch : epoch + 1])


def test_who_forgets_the_epoch_is_told_once(photos):
    pairs = by_number(photos)
    loader = DataLoader(pairs, 2, num_workers=0)
    list(loader)
    with pytest.warns(UserWarning, match=r"give the loader sampler=Epochs\(dataset\)"):
        list(loader)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(loader)
        fixed = by_number(photos)
        fixed.set_epoch(0)  # as for pictures to validate with
        first, second = ([s["trace"] for s in fixed] for _ in range(2))
    assert first == second


@pytest.mark.parametrize("persistent", [True, False])
def test_workers_hear_of_an_epoch_that_is_told_to_the_dataset(photos, persistent):
    pairs = by_number(photos)
    loader = DataLoader(pairs, 2, num_workers=2, persistent_workers=persistent)
    traces = []
    for epoch in range(2):
        pairs.set_epoch(epoch)
        traces += [trace for batch in loader for trace in batch["trace"]]
    wanted = [pairs[index, epoch]["trace"] for epoch in range(2) for index in range(COUNT)]
    assert traces == wanted


def test_ranks_share_an_epoch_without_loss_or_doubling(photos):
    whole = list(Epochs(range(11), seed=1))
    for ranks in (2, 3):
        parts = [list(Epochs(range(11), True, 1, rank, ranks)) for rank in range(ranks)]
        assert {len(part) for part in parts} == {11 // ranks}
        met = [pair for part in parts for pair in part]
        assert len(set(met)) == len(met) and set(met) <= set(whole)
    with pytest.raises(ValueError, match="2 pictures cannot be shared by 3 ranks"):
        Epochs(range(2), ranks=3)
    with pytest.raises(ValueError, match="rank 2 is none of 2; give 0 to 1"):
        Epochs(range(11), rank=2, ranks=2)


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_stream_is_shared_without_loss_or_doubling(photos, ranks, workers):
    files, counts, met = sorted(photos.iterdir()), [], []
    for rank in range(ranks):
        stream = PairStream(files, "clean_bicubic", 4, 0, crop=32, rank=rank, ranks=ranks)
        mine = [s["trace"] for s in DataLoader(stream, None, num_workers=workers)]
        counts.append(len(mine))
        met += mine
    assert max(counts) - min(counts) <= 1
    wanted = PairStream(files, "clean_bicubic", 4, 0, crop=32)
    assert sorted(met) == sorted(s["trace"] for s in wanted)


def test_a_stream_of_a_folder_s_name_is_no_stream_of_letters(tmp_path):
    for path in (tmp_path, str(tmp_path)):
        with pytest.raises(TypeError, match="is a path, no stream of photos; give it to Pair"):
            PairStream(path, "clean_bicubic", 4, 0)


def test_a_stream_that_shares_itself_out_is_keyed_by_name(photos):
    def named(worker, workers):
        return [(f.stem, f) for f in sorted(photos.iterdir())[worker::workers]]

    class Own:
        def __iter__(self):
            info = torch.utils.data.get_worker_info()
            return iter(named(info.id, info.num_workers) if info else named(0, 1))

    def traces(workers):
        stream = PairStream(Own(), "realesrgan", 4, 0, crop=32, named=True)
        return sorted(s["trace"] for s in DataLoader(stream, None, num_workers=workers))

    assert traces(3) == traces(0) and len(traces(0)) == COUNT
    assert Trace.from_json(traces(0)[0]).key == "0/0"


@pytest.mark.skipif(not importlib.util.find_spec("webdataset"), reason="extra")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_shards_of_webdataset_are_a_stream(photos, tmp_path):
    import webdataset

    files = sorted(photos.iterdir())
    for shard in range(4):
        with webdataset.TarWriter(str(tmp_path / f"{shard}.tar")) as tar:
            for file in files[shard::4]:
                tar.write({"__key__": f"p{file.stem}", "png": file.read_bytes()})

    def stream():
        urls = [str(tmp_path / f"{shard}.tar") for shard in range(4)]
        shards = webdataset.WebDataset(urls, shardshuffle=False).decode("rgb8")
        return PairStream(
            shards.to_tuple("__key__", "png"), "realesrgan", 4, 5, crop=32, named=True
        )

    alone = drawn(stream(), 0)
    assert [len(found) for found in alone] == [COUNT, COUNT]
    assert len(set(steps(alone))) == 2 * COUNT
    same(drawn(stream(), 2), alone)


def test_a_bad_photo_costs_no_other(photos, tmp_path, caplog):
    for file in sorted(photos.iterdir())[:3]:
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "1.png").write_bytes(b"no picture")
    Image.new("RGB", (20, 20)).save(tmp_path / "2.png")
    pairs = PairDataset(tmp_path, "realesrgan", 4, 0, crop=32)
    with caplog.at_level(logging.WARNING):
        samples = [pairs[index, epoch] for epoch in range(2) for index in range(3)]
    assert [sample["photo"] for sample in samples] == [0] * 6
    assert len({sample["trace"] for sample in samples}) == 6
    assert len(caplog.records) == 2  # once each
    assert "is no picture that OpenCV reads" in caplog.text
    assert "20x20 px is smaller than the crop of 32 px" in caplog.text
    stream = PairStream(sorted(tmp_path.iterdir()), "realesrgan", 4, 0, crop=32)
    assert len(list(stream)) == 1
    (tmp_path / "0.png").unlink()
    with pytest.raises(RecipeError, match="none of 2 photos can be used; the last: 20x20"):
        PairDataset(tmp_path, "realesrgan", 4, 0, crop=32)[0]


def test_a_photo_is_read_upright_in_8_bits_without_alpha(tmp_path, pixels):
    rgb = pixels(40, 60, 0)
    turned = Image.Exif()
    turned[274] = 6  # a quarter turn
    Image.fromarray(rgb).save(tmp_path / "a.png", exif=turned)
    Image.fromarray(rgb).convert("RGBA").save(tmp_path / "b.png")
    Image.fromarray(rgb[..., 0].astype(np.uint16) * 257).save(tmp_path / "c.png")
    how = {"crop": None, "turns": False}
    pairs = PairDataset(tmp_path, "clean_bicubic", 2, 0, **how)
    upright, plain, grey = (levels(pairs[n, 0]["hr"]) for n in range(3))
    assert (upright == np.rot90(rgb, -1)).all() and (plain == rgb).all()
    assert (grey == rgb[..., :1]).all()


def test_any_sequence_of_pictures_serves(photos):
    files = sorted(photos.iterdir())
    arrays = [np.array(opened(file)) for file in files]
    kinds = {
        "arrays": arrays,
        "pictures": [opened(file) for file in files],
        "tensors": [torch.from_numpy(a).permute(2, 0, 1) for a in arrays],
        "floats": [torch.from_numpy(a).permute(2, 0, 1) / 255 for a in arrays],
        "labelled": [(a, 3) for a in arrays],
    }
    wanted = [sample["trace"] for sample in by_number(photos)]
    for kind, given in kinds.items():
        pairs = PairDataset(given, "realesrgan", 4, 5, crop=32)
        first = pairs[3, 0]
        assert first["trace"] == wanted[3], kind
        assert torch.equal(first["lr"], by_number(photos)[3, 0]["lr"]), kind


def test_grey_deep_and_see_through_pictures_become_rgb_of_8_bits(pixels):
    rgb = pixels(32, 32, 0)
    grey, alpha = rgb[..., :1], np.full_like(rgb[..., :1], 9)
    channels = torch.from_numpy(rgb).permute(2, 0, 1)
    deep = grey[..., 0].astype(np.uint16) * 257
    coloured = {
        "RGBA": Image.fromarray(np.dstack([rgb, alpha])),
        "array with alpha": np.dstack([rgb, alpha]),
        "tensor with alpha": torch.cat([channels, channels[:1]]),
        "16 bits": rgb.astype(np.uint16) * 257,
        "16 bits, big-endian": (rgb.astype(np.uint16) * 257).astype(">u2"),
        "floats, big-endian": (rgb / 255).astype(">f4"),
        "floats": rgb / 255,
        "half": channels.half() / 255,
        "brain float": (channels / 255).to(torch.float32).bfloat16(),
    }
    greys = {
        "L": Image.fromarray(grey[..., 0]),
        "I;16": Image.fromarray(deep),
        "I;16B": Image.frombytes("I;16B", deep.shape[::-1], deep.astype(">u2").tobytes()),
        "I": Image.fromarray(deep.astype(np.int32)),
        "F": Image.fromarray(grey[..., 0].astype(np.float32) / 255),
        "array": grey[..., 0],
        "array of one channel": grey,
        "tensor": channels[:1],
        "flat tensor": channels[0],
    }
    for kind, given in coloured.items():
        found = read_pixels(given)
        assert found.dtype == np.uint8 and found.shape == rgb.shape, kind
        assert np.abs(found.astype(int) - rgb).max() <= (kind == "brain float"), kind
    for kind, given in greys.items():
        found = read_pixels(given)
        assert found.dtype == np.uint8 and (found == np.repeat(grey, 3, 2)).all(), kind
    degrade = Degrade("realesrgan")
    for given in (*coloured.values(), *greys.values()):
        made = degrade(given, key="a")["lr"]
        assert isinstance(made, type(given))
        shape = np.shape(made) if isinstance(made, Image.Image) else made.shape
        assert sorted(shape) == [3, 8, 8]
    assert degrade(coloured["floats"], key="a")["lr"].max() <= 1
    assert degrade(coloured["16 bits"], key="a")["lr"].dtype == np.uint16
    bit = Image.fromarray(grey[..., 0] > 99)
    assert set(np.unique(read_pixels(bit))) == {0, 255}


def test_what_is_no_photo_is_named(photos):
    rgb = np.array(opened(photos / "0.png"))
    normal = (torch.from_numpy(rgb).permute(2, 0, 1) / 255 - 0.5) / 0.25
    for given, told in (
        (normal, "floats of a photo are in .0, 1.; degrade it before it is normalised"),
        (rgb.astype(np.float32), "floats of a photo are in"),
        (torch.from_numpy(rgb), "permute.2, 0, 1. puts the channels first"),
        (torch.zeros(2, 3, 8, 8), "a photo is .3, H, W."),
        (np.zeros((8, 8, 2), np.uint8), "a photo is .H, W, 3."),
        (rgb.astype(np.int64), "int64: a photo has uint8, uint16 or floats"),
        (np.full((8, 8, 3), np.nan), "nan"),
        (rgb.astype(np.int32), "int32: a photo has uint8, uint16 or floats"),
        (rgb.astype(">i4"), "i4: a photo has uint8, uint16 or floats"),
        (torch.from_numpy(rgb).permute(2, 0, 1).int(), "int32: a photo has uint8"),
        (Image.fromarray(np.full((8, 8), 70_000, np.int32)), "int32: a photo has uint8"),
    ):
        with pytest.raises(ValueError, match=told):
            Degrade("realesrgan")(given)
    with pytest.raises(RecipeError, match="none of 2 photos can be used; the last: values from"):
        PairDataset([normal, normal], "realesrgan", 4, 0, crop=32)[0]
    assert len(PairDataset(photos / "0.png", "realesrgan", 4, 0, crop=32)) == 1


def test_16_bits_are_the_same_from_a_file_as_from_an_array(tmp_path):
    deep = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    for values in (deep, np.dstack([deep, deep.T, deep[::-1]])):
        (tmp_path / "a.png").write_bytes(cv2.imencode(".png", values)[1].tobytes())
        bgr = values[..., ::-1] if values.ndim == 3 else values
        assert (read_pixels(tmp_path / "a.png") == read_pixels(np.ascontiguousarray(bgr))).all()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif", ".avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_file_of_any_format_is_set_upright(suffix, orientation, tmp_path):
    if suffix == ".avif" and not features.check("avif"):
        pytest.skip("this Pillow writes no AVIF")
    lying = np.zeros((48, 32, 3), np.uint8)
    lying[:8, :8] = 255
    exif, path = Image.Exif(), tmp_path / f"a{suffix}"
    exif[274] = orientation
    Image.fromarray(lying).save(path, exif=exif, quality=95)
    with Image.open(path) as picture:
        upright = np.asarray(ImageOps.exif_transpose(picture).convert("RGB")).astype(int)
    assert upright.shape == ((48, 32, 3) if orientation < 5 else (32, 48, 3))
    assert np.abs(read_pixels(path) - upright).mean() < 8


def test_a_recipe_that_sharpens_and_one_that_damages_say_more(photos):
    sharp = PairDataset(photos, "realesrgan_compat", 4, 0, crop=32)[0, 0]
    hr = levels(sharp["hr"])
    assert (levels(sharp["hr_sharp"]) == degradations.sharpen(hr)).all()
    assert (replay(Trace.from_json(sharp["trace"]), hr) == levels(sharp["lr"])).all()
    old = PairDataset(photos, "old_photo", 2, 0, crop=32)
    marked = [old[index, 0]["damage"] for index in range(COUNT)]
    assert {tuple(m.shape) for m in marked} == {(1, 16, 16)} and max(m.max() for m in marked) == 1


def test_the_device_can_make_what_the_workers_leave(photos):
    pairs = PairDataset(photos, "realesrgan", 4, 5, crop=32, apply=False)
    batch = next(iter(DataLoader(pairs, COUNT)))
    assert "lr" not in batch
    traces = [Trace.from_json(trace) for trace in batch["trace"]]
    low = degradations.device.degrade(traces, batch["hr"])
    wanted = torch.stack([by_number(photos)[n, 0]["lr"] for n in range(COUNT)])
    assert ((low - wanted).abs() * 255).mean() < 0.1


def test_what_cannot_be_is_refused(photos, tmp_path):
    with pytest.raises(RecipeError, match="no multiple of the scale 4; give one that is, such as"):
        PairDataset(photos, "realesrgan", 4, 0, crop=33)
    with pytest.raises(RecipeError, match=r"a crop is a whole number of pixels, not 32\.0"):
        PairDataset(photos, "realesrgan", 4, 0, crop=32.0)  # pyright: ignore
    assert PairDataset(photos, "realesrgan", 4, 0, crop=np.int64(32))[0]["hr"].shape[1] == 32
    with pytest.raises(RecipeError, match="did you mean 'realesrgan'"):
        PairStream([], "realesrgam", 4, 0)
    with pytest.raises(RecipeError, match="holds no picture"):
        PairDataset(tmp_path, "realesrgan", 4, 0)
    with pytest.raises(ValueError, match="scale must be 1 or more"):
        Degrade("realesrgan", scale=0.5)
    with pytest.raises(IndexError):
        by_number(photos)[COUNT]
    with pytest.raises(ValueError, match="p is 1, not"):
        Transform("realesrgan", p=0.5)


def test_without_a_key_calls_are_counted_and_workers_refused(photos, monkeypatch):
    picture = Image.fromarray(np.array(opened(photos / "0.png"))[:32, :32])
    one, other = (Degrade("realesrgan")(picture)["trace"] for _ in range(2))
    assert Trace.from_json(one).key != Trace.from_json(other).key
    with (
        multiprocessing.get_context("fork").Pool(1) as pool,
        pytest.raises(RecipeError, match=r"Wrap the dataset in degradations.torch.Keyed"),
    ):
        pool.apply(Photos(photos, Chain()).__getitem__, (0,))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match="several processes draw"):
        Degrade("realesrgan")(picture)
    for key in ("mine", ""):
        assert Trace.from_json(Degrade("realesrgan")(picture, key=key)["trace"]).key == key
        made = Transform("realesrgan")(image=np.array(picture), key=key)
        assert Trace.from_json(made["trace"]).key == key
    for key in (0, 7, ("a",)):
        with pytest.raises(TypeError, match=r"a key is text, not .* give str\("):
            Degrade("realesrgan")(picture, key=key)
        with pytest.raises(TypeError, match=r"a key is text, not .* give str\("):
            Transform("realesrgan")(image=np.array(picture), key=key)
    monkeypatch.setenv("WORLD_SIZE", "")
    Degrade("realesrgan")(picture)
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(RecipeError, match="WORLD_SIZE is 'two'; set it to"):
        Degrade("realesrgan")(picture)


def test_a_list_of_basicsr_names_files_with_spaces_and_brackets(photos, tmp_path):
    rgb = opened(photos / "0.png")
    names = "photo (1).png", "plain.png", "b (40,40,3).png"
    for name in names:
        rgb.save(tmp_path / name)
    sizes = " (40,40,3)", "", " (40, 40, 3) 1"
    lines = [name + size for name, size in zip(names, sizes, strict=True)]
    listed = tmp_path / "meta.txt"
    listed.write_text("\n".join(lines), encoding="utf-8-sig")
    given = {"dataroot_gt": tmp_path, "recipe": "clean_bicubic", "scale": 4, "gt_size": 32}
    given |= {"meta_info": listed}
    assert [path.name for path in RecipePairs(given).pairs.photos] == [*names]
    listed.write_text("plain.png\nnone.png (40,40,3)\n")
    with pytest.raises(RecipeError, match=r"1 of 2 files are not there, such as .*none\.png;"):
        RecipePairs(given)
    with pytest.raises(RecipeError, match="use_rot is 'no'; give true or false"):
        RecipePairs(given | {"use_rot": "no"})


def test_a_key_holds_for_each_transform_within_it(photos):
    picture = opened(photos / "0.png")
    both = Degrade("realesrgan"), Degrade("realesrgan", seed=1)
    with degradations.keyed("0/7"):
        first, second = (Trace.from_json(t(picture)["trace"]) for t in both)
        third = Trace.from_json(both[0](picture)["trace"])
    assert [t.key for t in (first, second, third)] == ["0/7", "0/7/1", "0/7/2"]
    with degradations.keyed("0/7"):
        assert both[0](picture)["trace"] == first.to_json()


def test_a_transform_answers_in_kind(photos):
    picture = opened(photos / "0.png")
    rgb = np.array(picture)
    planes = torch.from_numpy(rgb).permute(2, 0, 1)

    class Tagged(torch.Tensor):
        """As the Image of torchvision's tv_tensors."""

    degrade = Degrade("old_photo", scale=2)
    wanted = degrade(rgb, key="a")
    made = degrade(picture, key="a")
    assert isinstance(made["lr"], Image.Image)
    assert (np.array(made["lr"]) == wanted["lr"]).all()
    for given in (planes, planes.as_subclass(Tagged), planes / 255, (planes / 255).double()):
        made = degrade(given, key="a")
        assert made["trace"] == wanted["trace"]
        for name in ("lr", "hr", "damage"):
            assert type(made[name]) is type(given) and made[name].dtype == given.dtype
            assert made[name].ndim == 3
        is_float = given.is_floating_point()
        lr = (made["lr"] * 255 if is_float else made["lr"]).round().byte().permute(1, 2, 0)
        assert (torch.Tensor(lr).numpy() == wanted["lr"]).all()
    sample, label = degrade(picture, 3, key="a")
    assert label == 3 and sample["trace"] == wanted["trace"]
    assert repr(degrade) == "Degrade('old_photo', scale=2, seed=0)"
    again = pickle.loads(pickle.dumps(copy.deepcopy(degrade)))
    assert again(picture, key="a")["trace"] == wanted["trace"]


def test_the_transform_of_albumentations_is_one_of_its_own(photos):
    rgb = np.array(opened(photos / "0.png"))
    recipe = recipes.named("old_photo")
    crop = albumentations.RandomCrop(32, 32)
    compose = albumentations.Compose([crop, Transform(recipe, scale=2)], seed=1)
    made = compose(image=rgb, mask=rgb[..., 0], key="0/1")
    assert made["mask"].shape == made["hr"].shape[:2] == (32, 32)
    trace = Trace.from_json(made["trace"])
    assert trace.key == "0/1" and (replay(trace, made["hr"]) == made["image"]).all()
    assert made["damage"].shape == (16, 16)
    saved = albumentations.from_dict(json.loads(json.dumps(albumentations.to_dict(compose))))
    assert saved.transforms[1].maker == compose.transforms[1].maker
    noted = albumentations.ReplayCompose([crop, Transform("realesrgan")])
    first = noted(image=rgb)
    again = albumentations.ReplayCompose.replay(first["replay"], image=rgb)
    assert (again["image"] == first["image"]).all() and again["trace"] == first["trace"]
    strict = albumentations.Compose([Transform("realesrgan")], strict=True)
    assert Trace.from_json(strict(image=rgb, key="b")["trace"]).key == "b"


def test_masks_belong_to_the_good_picture_and_points_and_boxes_to_the_bad_one(photos):
    rgb = np.array(opened(photos / "0.png"))
    compose = albumentations.Compose(
        [albumentations.CenterCrop(32, 40), Transform("realesrgan", scale=4)],
        keypoint_params=albumentations.KeypointParams("xy", label_fields=["names"]),
        bbox_params=albumentations.BboxParams("pascal_voc", label_fields=["kinds"]),
    )
    compose = pickle.loads(pickle.dumps(compose))
    points, boxes = np.array([[5.0, 5], [23, 19], [43, 35]]), np.array([[8.0, 8, 40, 28]])
    about = {"keypoints": points, "names": [1, 2, 3], "bboxes": boxes, "kinds": [4]}
    about["mask"] = rgb[..., 0]
    made = compose(image=rgb, key="a", **about)
    assert made["image"].shape == (8, 10, 3)
    assert made["hr"].shape[:2] == made["mask"].shape == (32, 40)
    corner = 4, 4  # of the crop, in a picture of 40 x 48
    assert np.allclose(made["keypoints"] * 4, points - corner) and list(made["names"]) == [1, 2, 3]
    assert np.allclose(made["bboxes"] * 4, boxes - (*corner, *corner), atol=1e-3)
    assert list(made["kinds"]) == [4]
    two = albumentations.Compose(
        [Transform("realesrgan", scale=2)],
        keypoint_params=albumentations.KeypointParams("xy"),
        additional_targets={"second": "keypoints"},
    )
    made = two(image=rgb, keypoints=points, second=points[:1])
    assert np.allclose(made["keypoints"] * 2, points) and np.allclose(
        made["second"] * 2, points[:1]
    )


def test_grey_and_float_images_of_albumentations_are_degraded_as_rgb(photos):
    rgb = np.array(opened(photos / "0.png"))
    wanted = Transform("realesrgan")(image=rgb, key="a")
    made = albumentations.Compose([albumentations.ToFloat(255), Transform("realesrgan")])
    assert (made(image=rgb, key="a")["image"] == wanted["image"]).all()
    grey = albumentations.Compose([Transform("realesrgan")])(image=rgb[..., 0], key="a")
    assert grey["image"].shape == (10, 12, 3) and (grey["hr"][..., 0] == rgb[..., 0]).all()
    with pytest.raises(ValueError, match="before it is normalised"):
        albumentations.Compose([albumentations.Normalize(), Transform("realesrgan")])(image=rgb)


def test_keyed_gives_the_global_generators_back(photos):
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    before = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    by_transform(photos)[0, 0]
    assert (random.random(), np.random.rand(), torch.rand(1).item()) == before


def test_a_dataset_survives_pickling_and_its_epoch_with_it(photos):
    pairs = by_number(photos)
    pairs.set_epoch(3)
    again = pickle.loads(pickle.dumps(pairs))
    assert again[1]["trace"] == pairs[1]["trace"] == pairs[1, 3]["trace"]


def test_a_module_named_as_a_library_hides_it_from_nobody():
    """Also where it is run: python -m degradations.torch."""
    code = (
        "import runpy, sys, degradations, torch, albumentations\n"
        "for name in 'torch', 'albumentations':\n"
        "    runpy.run_module(f'degradations.{name}', run_name='__main__')\n"
        "    __import__(f'degradations.{name}')\n"
        "    assert getattr(degradations, name) is not sys.modules[name]\n"
        "    assert hasattr(getattr(degradations, name), 'Degrade')\n"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, env=env)
    assert (done.returncode, done.stderr) == (0, "")


def portable(kind, most, values):
    head = f"{kind}\n{values.shape[1]} {values.shape[0]}\n{most}\n".encode()
    if kind in ("P2", "P3"):
        return head + " ".join(map(str, values.ravel())).encode()
    return head + values.astype(">u2" if most > 255 else "u1").tobytes()


@pytest.mark.parametrize("most", [100, 255, 1023, 4095, 65535])
@pytest.mark.parametrize("kind", ["P2", "P3", "P5", "P6"])
def test_a_portable_picture_is_as_bright_as_its_largest_value_tells(tmp_path, kind, most):
    levels = np.linspace(0, most, 3 * 4 * 6).astype(int).reshape(4, 6, 3)
    levels = levels if kind in ("P3", "P6") else levels[..., :1]
    path = tmp_path / "a.pnm"
    path.write_bytes(portable(kind, most, levels))
    assert np.abs(read_pixels(path) / 255 - levels / most).max() < 0.01


def test_a_portable_picture_of_floats_is_read_or_refused(tmp_path):
    path, levels = tmp_path / "a.pfm", np.linspace(0, 1, 24, dtype="<f4").reshape(4, 6)
    path.write_bytes(b"Pf\n6 4\n-1.0\n" + levels[::-1].tobytes())
    assert np.abs(read_pixels(path) / 255 - levels[..., None]).max() < 0.01
    path.write_bytes(b"PF\n6 4\n-1.0\n" + np.dstack([levels] * 3).tobytes())
    with pytest.raises(RecipeError, match="PFM of colours"):
        read_pixels(path)


def test_another_default_device_changes_no_pair(pixels):
    def pairs():
        dataset = PairDataset([pixels(64, 64)] * 2, "realesrgan", 4, seed=0, crop=32)
        dataset.set_epoch(0)
        stream = PairStream(dataset.photos, "realesrgan", 4, seed=0, crop=32)
        photo = torch.from_numpy(pixels(64, 64)).movedim(2, 0)
        return [sample["lr"] for sample in (dataset[1], *stream, Degrade("bsrgan")(photo, key="k"))]

    wanted = pairs()
    with torch.device("meta"):  # as torch.set_default_device does
        made = pairs()
    assert all(map(torch.equal, made, wanted))
