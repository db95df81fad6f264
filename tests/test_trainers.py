"""The examples of training loops train, and BasicSR's loader draws as all others do."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import yaml
from PIL import Image
from torch.utils.data import DataLoader

import degradations
from degradations import RecipeError, Trace, replay

EXAMPLES = Path(__file__).resolve().parents[1] / "docs" / "examples" / "trainers"
BASICSR = importlib.util.find_spec("basicsr")
COUNT = 12
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


@pytest.fixture(scope="module")
def photos(tmp_path_factory, pixels):
    """With a folder within, as a class of torchvision's ImageFolder."""
    folder = tmp_path_factory.mktemp("classes") / "photos"
    folder.mkdir()
    for n in range(COUNT):
        Image.fromarray(pixels(80, 90, n)).save(folder / f"{n:02}.png")
    return folder


@pytest.fixture(scope="module")
def shards(photos, tmp_path_factory):
    webdataset = pytest.importorskip("webdataset")
    folder = tmp_path_factory.mktemp("shards")
    for shard in range(3):
        with webdataset.TarWriter(str(folder / f"{shard}.tar")) as tar:
            for file in sorted(photos.iterdir())[shard::3]:
                tar.write({"__key__": file.stem, "png": file.read_bytes()})
    return folder


def losses(name, folder, capsys):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    example = importlib.util.module_from_spec(spec)
    sys.modules[name] = example  # its workers look for it
    try:
        spec.loader.exec_module(example)
        example.main(str(folder))
    finally:
        del sys.modules[name]
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said] == ["epoch 0", "epoch 1"]
    return [float(line.split()[-1]) for line in said]


@pytest.mark.parametrize("name", ["by_number", "on_device", "with_albumentations"])
def test_an_example_learns(name, photos, capsys):
    first, last = losses(name, photos, capsys)
    assert last < first / 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_the_example_of_shards_learns(shards, capsys):
    first, last = losses("from_shards", shards, capsys)
    assert last < first / 2


def test_the_example_of_torchvision_learns(photos, capsys):
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError) as error:  # absent, or built for another torch
        pytest.skip(f"needs torchvision: {error}")
    first, last = losses("with_torchvision", photos.parent, capsys)
    assert last < first / 2


@pytest.fixture(scope="module")
def basicsr():
    """Its sampler and registry, with our dataset in it; the whole package needs torchvision."""
    if not BASICSR:
        pytest.skip("needs basicsr 1.4.2")
    stands = {name: ModuleType(name) for name in ("basicsr", "basicsr.data", "basicsr.utils")}
    for name, module in stands.items():
        module.__path__ = [f"{BASICSR.submodule_search_locations[0]}/{name.partition('.')[2]}"]
    with patch.dict(sys.modules, stands):
        sampling = importlib.import_module("basicsr.data.data_sampler")
        registry = importlib.import_module("basicsr.utils.registry").DATASET_REGISTRY
        plain = sampling.EnlargedSampler.__iter__
        for _ in range(2):  # twice is as good as once
            importlib.import_module("degradations.basicsr").register()
        yield SimpleNamespace(sampler=sampling.EnlargedSampler, datasets=registry, plain=plain)


def options(photos, **more):
    """Of the example's file, as BasicSR hands them to a dataset."""
    told = yaml.safe_load((EXAMPLES / "with_basicsr.yml").read_text())
    made = told["datasets"]["train"] | {"phase": "train", "scale": told["scale"]}
    return made | {"dataroot_gt": str(photos)} | more


def met(basicsr, pairs, workers=0, rank=0, ranks=1, ratio=2, **how):
    sampler = basicsr.sampler(pairs, ranks, rank, ratio)
    loader = DataLoader(pairs, 2, sampler=sampler, num_workers=workers, **how)
    for epoch in range(2):
        sampler.set_epoch(epoch)
        yield from (
            (trace, gt, lq)
            for batch in loader
            for trace, gt, lq in zip(batch["trace"], batch["gt"], batch["lq"], strict=True)
        )


def test_basicsr_draws_nothing_twice_and_workers_change_nothing(basicsr, photos):
    pairs = basicsr.datasets.get("RecipePairs")(options(photos))
    alone = list(met(basicsr, pairs))
    traces = [Trace.from_json(trace) for trace, _, _ in alone]
    assert len({str(trace.steps) for trace in traces}) == len(traces) == 2 * 2 * COUNT
    for trace, (_, *pair) in zip(traces, alone, strict=True):
        gt, lq = ((rgb * 255).round().byte().permute(1, 2, 0).numpy() for rgb in pair)
        assert (replay(trace, gt) == lq).all()
    for workers, how in ((1, {}), (4, {}), (2, {"persistent_workers": True})):
        again = [trace for trace, _, _ in met(basicsr, pairs, workers, **how)]
        assert again == [trace for trace, _, _ in alone]
    ranks = [[row[0] for row in met(basicsr, pairs, rank=rank, ranks=2)] for rank in (0, 1)]
    assert sorted(ranks[0] + ranks[1]) == sorted(trace for trace, _, _ in alone)


def test_basicsr_shuffles_as_before(basicsr, photos):
    """Ours in its order, other datasets' wholly as they were."""
    pairs = basicsr.datasets.get("RecipePairs")(options(photos))
    sampler = basicsr.sampler(pairs, 3, 1, 2.5)
    sampler.set_epoch(4)
    assert [index for index, _ in sampler] == list(basicsr.plain(sampler))
    sampler.dataset = list(range(COUNT))
    assert list(sampler) == list(basicsr.plain(sampler))


def test_basicsr_options_say_what_is_in_the_pairs(basicsr, photos, tmp_path):
    make = basicsr.datasets.get("RecipePairs")
    (tmp_path / "meta.txt").write_text("03.png (80,90,3)\n05.png\n")
    how = {"meta_info": str(tmp_path / "meta.txt"), "recipe": "realesrgan_compat"}
    few = make(options(photos, **how, use_rot=False, severity=0.5, seed=3))
    assert len(few) == 2
    first = few[1]
    assert Path(first["gt_path"]).name == Path(first["lq_path"]).name == "05.png"
    plain = (first["gt_plain"] * 255).round().byte().permute(1, 2, 0).numpy()
    sharp = (first["gt"] * 255).round().byte().permute(1, 2, 0).numpy()
    assert (degradations.sharpen(plain) == sharp).all()
    trace = Trace.from_json(first["trace"])
    assert (trace.recipe, trace.seed) == ("realesrgan_compat@0.5", 3)
    with Image.open(photos / "05.png") as picture:
        photo = np.array(picture)
    assert any((photo[y : y + 64, x : x + 64] == plain).all() for y in range(17) for x in range(27))
    with pytest.raises(RecipeError, match="gt_sice is not an option of RecipePairs; did you mean"):
        make(options(photos, gt_sice=64))
    given = options(photos)
    del given["recipe"]
    with pytest.raises(RecipeError, match="needs recipe"):
        make(given)
