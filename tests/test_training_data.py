"""Pictures come from anywhere, each once per number, and bad ones cost no good ones."""

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from folders import all_pairs, posix
from hostile import identity, segfault
from PIL import Image
from pydantic import ValidationError
from torch.utils.data import Dataset

import degradations
from degradations import consent
from restore import cli, file_search
from restore.errors import ConfigError, ImageError
from restore.images import picture, sandbox
from restore.storage import digests
from restore.training.data import latent_pairs, shards, sources, stored
from restore.training.data.crops import PhotoOptions, Photos
from restore.training.data.loading import Rows, build_loader
from restore.training.data.paired import PairedPhotos
from restore.training.data.pairs import PairOptions
from restore.training.data.stored import contents


@pytest.fixture(scope="module")
def photos(tmp_path_factory, pixels):
    folder = tmp_path_factory.mktemp("photos")
    (folder / "deep").mkdir()
    for seed, name in enumerate(("a.png", "deep/b.png", "deep/c.jpg")):
        Image.fromarray(pixels(90 + seed, 120, seed)).save(folder / name)
    return folder


@pytest.fixture
def packed(photos, tmp_path):
    assert cli.main(["data", "pack", str(photos), "-o", str(tmp_path / "shards")]) == 0
    return tmp_path / "shards"


def crops(photos, count=6, **how):
    return [photos.crop(32, 2, np.random.default_rng((0, n)), **how) for n in range(count)]


def assert_same(one, other):
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_a_folder_a_list_and_shards_give_the_same_crops(photos, packed, tmp_path):
    names = sorted(path for path in photos.rglob("*.*"))
    listed = tmp_path / "list.txt"
    listed.write_text("# mine\n\n" + "".join(f"{path}\n" for path in names))
    one = crops(Photos(photos, 64))
    for place in (listed, packed, packed / "shard-000000.tar"):
        assert_same(one, crops(Photos(place, 64)))


def test_a_pack_keeps_the_order_and_the_set_of_its_folder(tmp_path, pixels):
    folder, named = (
        tmp_path / "photos",
        "a-1.png a/1.png a/2.png a b.png B.png b.png a.png a/b/1.png",
    )
    for seed, name in enumerate([*named.replace("a b.png ", "").split(), "a b.png"]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(64, 70 + seed, seed)).save(folder / name)
    Image.fromarray(pixels(64, 64, 99)).save(tmp_path / "outside.png")
    (folder / "a" / "link.png").symlink_to(tmp_path / "outside.png")
    order = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.png"))]
    assert sources.find(folder).names == order != sorted(order)
    assert cli.main(["data", "pack", str(folder), "-o", str(tmp_path / "shards"), "--size=1"]) == 0
    whole, packed = sources.find(folder), sources.find(tmp_path / "shards")
    assert packed.sizes == whole.sizes
    assert_same(crops(Photos(folder, 64), 12), crops(Photos(tmp_path / "shards", 64), 12))


def test_pictures_read_anew_give_the_same_crops_as_those_that_are_kept(photos):
    kept, read = Photos(photos, 64), Photos(photos, 64, memory_gb=0)
    assert kept.cache and read.cache is None
    assert_same(crops(kept), crops(read))


def test_a_dataset_gives_the_same_crops(photos, monkeypatch):
    files = sorted(path for path in photos.rglob("*.*"))
    cells = [{"image": {"bytes": path.read_bytes(), "path": path.name}} for path in files]

    class Rows(list):
        column_names = ("image", "label")

        def select_columns(self, names):
            assert names == ["image"]
            return self

        def cast_column(self, name, kind):
            assert (name, kind.decode) == ("image", False)
            return self

    module = ModuleType("datasets")
    module.Image = lambda decode: SimpleNamespace(decode=decode)
    module.load_dataset = lambda name, split, revision: Rows(cells)
    monkeypatch.setitem(sys.modules, "datasets", module)
    options = PhotoOptions.model_validate({"photos": {"dataset": "org/name"}, "crop": 64})
    assert_same(crops(Photos(photos, 64)), crops(options.open()))
    with pytest.raises(ConfigError, match="no column 'imag'; did you mean 'image'"):
        sources.find(sources.DatasetOptions(dataset="org/name", column="imag"))


def test_a_dataset_without_its_package_names_the_mend(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match="pip install datasets"):
        sources.find(sources.DatasetOptions(dataset="org/name"))


def test_packing_twice_gives_the_same_bytes_and_keeps_the_pictures(photos, packed, tmp_path):
    cli.main(["data", "pack", str(photos), "-o", str(tmp_path / "again")])
    (one,), (other,) = (sorted(folder.iterdir()) for folder in (packed, tmp_path / "again"))
    assert one.read_bytes() == other.read_bytes()
    with tarfile.open(one) as tar:
        assert tar.getnames()[:2] == ["0000000.png", "0000000.json"]
        assert tar.extractfile("0000000.png").read() == (photos / "a.png").read_bytes()
        assert json.load(tar.extractfile("0000001.json")) == {"key": "deep/b.png"}


def test_packing_cuts_by_size_and_reports_what_it_left_out(photos, tmp_path, monkeypatch, capsys):
    bad = tmp_path / "bad"
    bad.mkdir()
    for number in range(3):
        Image.fromarray(np.full((40, 40, 3), number, np.uint8)).save(bad / f"{number}.png")
    (bad / "torn.jpg").write_bytes((photos / "deep" / "c.jpg").read_bytes()[:500])
    (bad / "photos.csv").write_text("file,source,licence\n0.png,me,CC0\n")
    made = shards.pack([(path.name, path) for path in sorted(bad.glob("*.png"))], tmp_path / "s", 1)
    assert [path.name for path in made.shards] == [f"shard-{n:06d}.tar" for n in range(3)]
    assert cli.main(["data", "pack", str(bad), "-o", str(tmp_path / "out")]) == 1
    told = capsys.readouterr()
    assert "torn.jpg: the file is cut short" in told.err
    assert "3 pictures in 1 shard, 1 left out" in told.out
    assert (tmp_path / "out" / "photos.csv").is_file()
    assert cli.main(["data", "pack", str(bad), "-o", str(tmp_path / "out")]) == 2


def member(name, data=b"x", **more):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in more.items():
        setattr(info, key, value)
    return info, data


def hostile(kind):
    made = {
        "climbs": member("../a.png"),
        "climbs back": member("..\\a.png"),
        "absolute": member("/a.png"),
        "drive": member("C:\\a.png"),
        "symlink": member("a.png", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        "hardlink": member("a.png", b"", type=tarfile.LNKTYPE, linkname="b.png"),
        "device": member("a.png", b"", type=tarfile.CHRTYPE),
        "pipe": member("a.png", b"", type=tarfile.FIFOTYPE),
    }
    return made[kind]


KINDS = ("climbs", "climbs back", "absolute", "drive", "symlink", "hardlink", "device", "pipe")


@pytest.mark.parametrize("kind", KINDS)
def test_a_shard_that_could_harm_who_unpacks_it_is_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        info, data = hostile(kind)
        tar.addfile(info, io.BytesIO(data))
    with pytest.raises(ConfigError, match=r"s\.tar: .*(leads out|is a link|no plain file)"):
        sources.find(tmp_path / "s.tar")


def test_a_shard_that_is_mostly_holes_or_names_is_refused(tmp_path, monkeypatch):
    shard = tmp_path / "s.tar"
    info, _ = member("a.png")
    info.size = 10 << 30
    shard.write_bytes(info.tobuf() + bytes(1024))
    with pytest.raises(ConfigError, match="larger than it can be"):
        sources.find(shard)
    # GNU's old way to write a file that is mostly holes: its real size stands elsewhere
    header = bytearray(member("a.png")[0].tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[386:398], header[398:410] = b"00000000000\0", b"00000000001\0"
    header[483:495] = b"%011o\0" % (10 << 30)
    header[148:156] = b" " * 8
    header[148:155] = b"%06o\0" % sum(header)
    shard.write_bytes(bytes(header) + bytes(2048))
    with pytest.raises(ConfigError, match=r"no plain file|larger than it can be"):
        sources.find(shard)
    monkeypatch.setattr(shards, "MOST", 10)
    with tarfile.open(shard, "w") as tar:
        for number in range(11):
            tar.addfile(member(f"{number}.txt", b"")[0])
    with pytest.raises(ConfigError, match="over 10 files"):
        sources.find(shard)


def test_a_shard_is_read_through_no_decompressor_and_no_pipe(tmp_path, packed):
    with tarfile.open(tmp_path / "s.tar", "w:gz"):
        pass
    with pytest.raises(ConfigError, match=r"an uncompressed \.tar"):
        sources.find(tmp_path / "s.tar")
    with pytest.raises(ConfigError, match="no such file or folder"):
        Photos(PhotoOptions(photos="pipe:touch here").photos, 64)


def test_files_of_other_kinds_in_a_shard_are_never_read(tmp_path, photos):
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        data = (photos / "a.png").read_bytes()
        for name in ("0.png", "0.pyd", "0.pickle", "0.json"):
            tar.addfile(member(name, data)[0], io.BytesIO(data))
    assert sources.find(tmp_path / "s.tar").names == ["s.tar/0.png"]


def test_what_is_hidden_in_a_folder_is_not_trained_on(packed, photos):
    for folder in (packed, photos):
        (folder / ".restore").mkdir()
    (photos / ".restore" / "thumb.png").write_bytes((photos / "a.png").read_bytes())
    shutil.copyfile(next(packed.glob("*.tar")), packed / ".restore" / "old.tar")
    for folder in (packed, photos):
        assert sources.find(folder).names
        assert not [name for name in sources.find(folder).names if ".restore" in name]
        shutil.rmtree(folder / ".restore")


def test_a_folder_of_pictures_and_shards_is_refused(packed, photos):
    (packed / "a.png").write_bytes((photos / "a.png").read_bytes())
    with pytest.raises(ConfigError, match="1 shard and 1 picture;"):
        sources.find(packed)


@pytest.mark.parametrize("memory_gb", [4, 0])
def test_pictures_that_cannot_be_read_are_left_out_and_listed(
    photos, tmp_path, pixels, memory_gb, caplog
):
    for seed in range(3):
        Image.fromarray(pixels(80, 80, seed)).save(tmp_path / f"{seed}.jpg")
    torn = tmp_path / "1.jpg"
    torn.write_bytes(torn.read_bytes()[:-200])  # its header is whole
    (tmp_path / "page.png").write_text("<html>404</html>")
    (tmp_path / "empty.png").touch()
    found = Photos(tmp_path, 64, memory_gb=memory_gb)
    found.refused.keep_in(tmp_path / "list.jsonl")
    assert len(crops(found, 20)) == 20
    rows = [json.loads(line) for line in (tmp_path / "list.jsonl").read_text().splitlines()]
    assert sorted(row["picture"] for row in rows) == ["1.jpg", "empty.png", "page.png"]
    assert all(row["why"] for row in rows)
    assert "page.png" in caplog.text


def test_an_empty_folder_and_a_missing_one_say_so(tmp_path):
    with pytest.raises(ConfigError, match="none of its 0 pictures"):
        Photos(tmp_path, 64)
    with pytest.raises(ConfigError, match=f"no such file or .* data scenes -o {tmp_path / 'none'}"):
        Photos(tmp_path / "none", 64)


def test_one_picture_is_no_place_of_pictures(photos):
    with pytest.raises(ConfigError, match="is one picture; name its folder, or a text file that"):
        Photos(next(photos.rglob("*.png")), 64)


def test_pictures_smaller_than_the_crop_are_left_out_aloud_or_continued(
    photos, tmp_path, pixels, caplog
):
    Image.fromarray(pixels(20, 100, 0)).save(tmp_path / "small.png")
    with pytest.raises(ConfigError, match="none of its 1 pictures is 64 px or more"):
        Photos(tmp_path, 64)
    Image.fromarray(pixels(100, 100, 0)).save(tmp_path / "large.png")
    assert len(Photos(tmp_path, 64)) == 1
    assert "1 of 2 pictures are smaller than 64 px and left out (data.small): small.png" in (
        caplog.text
    )
    both = Photos(tmp_path, 64, small="reflect", turns=False)
    assert len(both) == 2
    grown = both.read(1)
    assert grown.shape == (64, 100, 3)
    assert np.array_equal(grown[:20], pixels(20, 100, 0))
    assert np.array_equal(grown[20], grown[18])  # mirrored about the last row
    assert both.crop(64, 1, np.random.default_rng(0)).shape == (64, 64, 3)


def test_geometry_moves_pixels_and_repeats(photos):
    how = {"geometry": [{"transform": "Affine", "params": {"rotate": [30, 30]}}], "crop": 64}
    options = PhotoOptions.model_validate({"photos": photos, **how})
    moved, plain = crops(options.open()), crops(Photos(photos, 64))
    assert_same(moved, crops(options.open()))
    assert not any(np.array_equal(a, b) for a, b in zip(moved, plain, strict=True))
    assert {crop.shape for crop in moved} == {(32, 32, 3)}
    darkest = min(int(Photos(photos, 64).read(n).min()) for n in range(3))
    assert min(int(crop.min()) for crop in moved) >= darkest - 1  # no black edges


@pytest.mark.parametrize(
    ("transform", "params", "told"),
    [
        ("Afine", {}, "did you mean 'Affine'"),
        ("GaussianBlur", {}, "no geometric transform 'GaussianBlur'"),
        ("Affine", {"rotat": 3}, "does not take"),
    ],
)
def test_geometry_that_cannot_be_is_refused_by_name(transform, params, told):
    geometry = [{"transform": transform, "params": params}]
    with pytest.raises(ValidationError, match=told):
        PhotoOptions.model_validate({"photos": "x", "geometry": geometry})


@pytest.fixture
def given(tmp_path, pixels):
    """Two good pictures, each beside one of a quarter of its size."""
    for seed in range(2):
        high = pixels(128, 160, seed)
        low = cv2.resize(high, (40, 32), interpolation=cv2.INTER_AREA)
        for folder, rgb, suffix in (("hr", high, "png"), ("lr", low, "bmp")):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(rgb).save(tmp_path / folder / f"{seed}.{suffix}")
    return tmp_path


def test_given_pairs_are_cut_turned_and_mirrored_together(given):
    found = PairedPhotos(given / "hr", given / "lr", 64)
    for number in range(8):
        cut = found.cut(64, 2, np.random.default_rng(number))
        small = cv2.resize(cut.truth, (16, 16), interpolation=cv2.INTER_AREA)
        assert cut.scale == 4
        assert np.abs(small.astype(int) - cut.low).max() <= 1


def test_given_pairs_that_lack_or_misfit_a_partner_are_listed(given, pixels):
    Image.fromarray(pixels(128, 128)).save(given / "hr" / "alone.png")
    Image.fromarray(pixels(128, 128)).save(given / "hr" / "odd.png")
    Image.fromarray(pixels(33, 32)).save(given / "lr" / "odd.png")
    found = PairedPhotos(given / "hr", given / "lr", 64)
    assert len(found) == 2
    assert "no partner" in found.refused.why["alone.png"]
    assert "128x128 px is no whole multiple of its partner's 32x33" in found.refused.why["odd.png"]


@pytest.mark.parametrize("suffix", [".bmp", ".png"])
def test_partners_of_another_unicode_form_are_partners(given, suffix):
    for folder, form in (("hr", "NFC"), ("lr", "NFD")):
        for path in (given / folder).iterdir():
            image, stem = Image.open(path), unicodedata.normalize(form, f"é{path.stem}")
            image.save(given / folder / f"{stem}{suffix if folder == 'lr' else '.png'}")
            path.unlink()
    assert len(PairedPhotos(given / "hr", given / "lr", 64)) == 2


def test_partners_that_are_all_broken_are_told_and_not_tried_for_ever(given):
    for path in (given / "lr").iterdir():
        path.write_bytes(path.read_bytes()[:500])
    found = PairedPhotos(given / "hr", given / "lr", 64)
    with pytest.raises(ConfigError, match="1000 pictures in a row cannot be read"):
        found.cut(64, 2, np.random.default_rng(0))
    assert found.refused.why.keys() == {"0.bmp", "1.bmp"}


@pytest.mark.parametrize("side, size", [("hr", (100, 100)), ("hr", (20, 20)), ("lr", (200, 200))])
def test_a_pair_that_no_longer_fits_is_left_out_while_training_runs(given, pixels, side, size):
    found = PairedPhotos(given / "hr", given / "lr", 64, memory_gb=0)
    Image.fromarray(pixels(*size)).save(next((given / side).glob("0.*")))
    for number in range(16):
        assert found.cut(64, 1, np.random.default_rng(number)).scale == 4
    assert "no whole multiple" in found.refused.why["0.png"]


def pair_options(photos, **more):
    return PairOptions.model_validate({"photos": str(photos), "crop": 64, "window": 16, **more})


class Decoded(Dataset):
    """What becomes of a decoder in a loader's worker: its process, or why it has none."""

    def __getitem__(self, index):
        how = (identity, segfault, identity)[index]
        try:
            return {"worker": os.getpid(), "decoder": sandbox._call(30, how), "why": ""}
        except ImageError as error:
            return {"worker": os.getpid(), "decoder": 0, "why": error.code}


@posix
def test_a_loaders_worker_decodes_in_a_process_that_may_die():
    first, second, third = build_loader(Decoded(), [[0], [1], [2]], workers=1)
    assert first["decoder"] not in (0, first["worker"], os.getpid())
    assert second["why"] == ["CRASHED"]
    assert third["worker"] == first["worker"]
    until = time.monotonic() + 100
    for batch in (first, third):  # they end with their worker
        while time.monotonic() < until and is_running(int(batch["decoder"])):
            time.sleep(0.05)
        assert not is_running(int(batch["decoder"]))


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_of_two_low_pictures_of_one_name_none_is_taken_by_chance(tmp_path, pixels):
    for name, seed in (("a.png", 1), ("a.bmp", 2), ("b.png", 3)):
        for folder in ("hr", "lr"):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(pixels(64, 64, seed)).save(tmp_path / folder / name)
    (tmp_path / "lr/b.png").rename(tmp_path / "lr/b.tif")
    Image.fromarray(pixels(64, 64, 4)).save(tmp_path / "lr/b.bmp")
    found = PairedPhotos(tmp_path / "hr", tmp_path / "lr", 64)
    assert [found.source.names[n] for n in found.numbers] == ["a.bmp", "a.png"]
    for index in range(2):  # each its own
        assert np.array_equal(found.read(index), found.read_low(index))
    assert "b.bmp and b.tif could both be its partner" in found.refused.why["b.png"]


def test_given_pairs_are_what_the_denoiser_is_shown(given, stack):
    options = pair_options(given / "hr", low=str(given / "lr"), tasks={"restore": 1}, mode="live")
    live = latent_pairs.LivePairs(options, stack.context, 0)
    pair = live.pair(3)
    assert pair.trace is None and (pair.trust == 128).all()
    assert 0 < np.abs(pair.conditioning.astype(int) - pair.truth).mean() < 20


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"low": "lr", "recipe": "bsrgan"}, "recipe would do nothing"),
        ({"low": "lr", "mode": "device"}, "low goes with mode cached or live"),
        ({"window": 32}, "a window of 32 latents is 128 px, a crop only 64"),
        ({"tasks": {"fill": 0}}, "weights of tasks must be"),
        ({"scales": {"4": -1, "2": 3}}, "weights of scales must be"),
        ({"mode": "offline"}, "'cached', 'live' or 'device'"),
        ({"severity": [0.6, 0.4]}, "from 0 to 1, the milder first, not 0.6 to 0.4"),
        ({"severity": [0, 1.5]}, "from 0 to 1, the milder first"),
    ],
)
def test_options_that_contradict_each_other_are_refused(more, told):
    with pytest.raises(ValidationError, match=told):
        pair_options("hr", **more)


def test_a_recipe_acts_at_the_severity_that_is_asked_for(photos, stack):
    """A recipe that was measured is not to be made milder where the scale is small."""
    told = {"tasks": {"restore": 1}, "clean": 0, "scales": {2: 1}, "recipe": "scan"}
    full = live(photos, stack, severity=(1, 1), **told)
    assert [full.pair(n).trace.recipe for n in range(4)] == ["scan"] * 4
    half = live(photos, stack, severity=(0.5, 0.6), **told)
    drawn = [float(half.pair(n).trace.recipe.removeprefix("scan@")) for n in range(8)]
    assert 0.5 <= min(drawn) < max(drawn) <= 0.6


def live(photos, stack, **more):
    more = {"mode": "live", "count": 8, **more}
    return latent_pairs.LivePairs(pair_options(photos, **more), stack.context, 5)


def test_live_pairs_are_those_that_would_have_been_stored(photos, stack, tmp_path):
    """The same number of the same stream, made ahead of time or as it is needed."""
    options = pair_options(photos, count=6, workers=0)
    store = stored.PairStore(options, stack, tmp_path, "digest", 5)
    folder = store.fill(range(6))
    pairs, latents = live(photos, stack), np.load(folder / "truth.npy")
    for number in range(6):
        assert np.array_equal(latents[number], pairs[number]["truth"].numpy())
    again = store.samples()
    assert np.array_equal(again.pair(3).truth, latents[again.number(3)])


def test_pairs_damaged_by_the_device_equal_those_of_the_workers(photos, stack):
    ours, theirs = (live(photos, stack, mode=mode) for mode in ("live", "device"))
    numbers = range(16)
    batch = torch.utils.data.default_collate([theirs[n] for n in numbers])
    assert len({trace for trace in batch["trace"] if trace}) > 8
    known = latent_pairs.degrade_pixels(batch, batch["trace"], batch["hole"]).numpy().astype(int)
    wanted = np.stack([ours[n]["conditioning"].numpy() for n in numbers]).astype(int)
    error = np.abs(known - wanted)
    assert error.mean() < 0.5  # resizes round apart, and a JPEG after them may tip over
    assert (error <= 2).mean() > 0.97
    latents = latent_pairs.prepare_batch(dict(batch), stack, torch.device("cpu"))
    assert latents["conditioning"].shape == latents["target"].shape == (16, 8, 16, 16)
    assert torch.equal(latents["truth"], torch.stack([ours[n]["truth"] for n in numbers]))


def test_a_recipe_that_sharpens_sharpens_the_target(photos, stack, tmp_path):
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: r\nsharpen: true\nsteps: [{kind: blur}]\n")
    how = {"recipe": str(recipe), "tasks": {"restore": 1}}
    pair = live(photos, stack, **how).pair(0)
    assert np.array_equal(pair.truth, degradations.sharpen(pair.original))
    on_device = live(photos, stack, mode="device", **how)
    batch = torch.utils.data.default_collate([on_device[0]])
    known = latent_pairs.degrade_pixels(batch, batch["trace"], batch["hole"])[0].numpy().astype(int)
    assert np.abs(known - pair.conditioning).max() <= 2


def test_pairs_are_made_anew_where_the_recipe_or_the_photos_are_others(photos, stack, tmp_path):
    """Their names may be the same."""
    recipe, folder = tmp_path / "mine.yaml", tmp_path / "photos"
    shutil.copytree(photos, folder)
    names = set()

    def kept():
        given = pair_options(folder, count=2, workers=0, recipe=str(recipe))
        return all_pairs(tmp_path / "pairs", given, stack).name

    for quality in (90, 20):
        recipe.write_text(f"name: mine\nsteps: [{{kind: jpeg, quality: {quality}}}]\n")
        names |= {kept(), kept()}
    shutil.copy(next(folder.glob("*.*")), folder / "zz_more.png")
    names.add(kept())
    assert len(names) == 3


def test_who_needs_pairs_that_another_run_makes_waits_for_them(photos, stack, tmp_path):
    given = pair_options(photos, count=4, workers=0)
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(all_pairs, tmp_path, given, stack) for _ in range(2)]
        one, other = (made.result() for made in both)
    assert one == other
    assert np.load(one / "truth.npy").any((1, 2, 3)).all()


@pytest.mark.filterwarnings("ignore:This DataLoader will create 3")
def test_f12_no_draw_comes_twice_and_workers_and_ranks_change_no_sample(photos, stack):
    pairs = live(photos, stack, tasks={"restore": 1}, clean=0, mode="device")
    batch, steps = 4, 9
    alone = [pairs[index]["trace"] for index in range(batch * steps)]
    assert len({json.dumps(json.loads(trace)["steps"]) for trace in alone}) == len(alone)
    # each number of workers with each of ranks, and either with one loader or one an epoch
    for workers, ranks, epochs in (
        (0, 1, 1),
        (0, 2, 3),
        (1, 1, 3),
        (1, 2, 1),
        (3, 1, 1),
        (3, 2, 3),
    ):
        met, each = {}, steps // epochs
        for rank in range(ranks):
            for epoch in range(epochs):
                rows = Rows(epoch * each * batch, batch, each, rank, ranks)
                for numbers, made in zip(rows, build_loader(pairs, rows, workers), strict=True):
                    assert not met.keys() & set(numbers)
                    met |= zip(numbers, made["trace"], strict=True)
        assert [met[index] for index in sorted(met)] == alone


def test_parts_of_a_step_make_up_its_batch():
    whole = list(Rows(10, 8, 3))
    parts = [list(Rows(10, 8, 3, rank, 2, accumulate=2)) for rank in (0, 1)]
    for step in range(3):
        cut = [parts[rank][2 * step + micro] for micro in (0, 1) for rank in (0, 1)]
        assert sorted(number for numbers in cut for number in numbers) == whole[step]
    assert len(parts[0]) == 6


def test_the_named_sources_need_no_torch_to_be_refused(tmp_path):
    code = "from restore.cli import main; import sys; sys.exit(main(sys.argv[1:]))"
    words = ["data", "pack", str(tmp_path), "-o", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no picture here" in done.stderr


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("mode", ["cached", "live"])
def test_a_broken_op_of_ones_own_is_named_from_a_worker_as_from_here(
    photos, stack, tmp_path, mode, monkeypatch
):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    (tmp_path / f"my_broken_{mode}.py").write_text(
        "from degradations.ops import Op\n"
        "class Worse(Op):\n"
        "    def draw(self, rng): return {}\n"
        "    @staticmethod\n"
        "    def apply(rgb, params, target): return rgb * float('nan')\n"
    )
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(f"name: mine\nsteps: [{{kind: my_broken_{mode}.Worse}}]\n")
    for workers in (0, 2):
        with consent.given():
            given = pair_options(
                photos, count=8, recipe=str(recipe), mode=mode, workers=workers, clean=0
            )
        with pytest.raises(degradations.RecipeError) as caught, consent.given():
            if mode == "cached":
                all_pairs(tmp_path, given, stack)
            else:
                pairs = latent_pairs.LivePairs(given, stack.context, 5)
                next(iter(build_loader(pairs, Rows(0, 8, 1), workers)))
        assert str(caught.value).startswith(f"my_broken_{mode}.Worse: apply gives NaN or infinity")
        assert len(str(caught.value).splitlines()) == 1


# One list of suffixes, partners by a pattern, the true reason


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".avif", ".gif", ".JPG", ".dib", ".ppm"])
def test_training_takes_what_upscale_takes(tmp_path, pixels, suffix):
    form = {".avif": "AVIF", ".gif": "GIF", ".dib": "DIB", ".ppm": "PPM"}.get(suffix, "JPEG")
    with (tmp_path / f"a{suffix}").open("wb") as file:
        Image.fromarray(pixels(80, 80)).save(file, form)
    assert len(Photos(tmp_path, 64)) == 1
    assert cli.main(["data", "pack", str(tmp_path), "-o", str(tmp_path / "shards")]) == 0
    assert len(Photos(tmp_path / "shards", 64)) == 1


def test_the_suffixes_of_training_and_of_runs_over_files_are_one_list():
    assert sources.SUFFIXES == file_search.PICTURES and file_search.KNOWN >= sources.SUFFIXES


def test_partners_are_told_by_a_pattern(given):
    for path in (given / "lr").iterdir():
        path.rename(path.with_stem(f"{path.stem}x4"))
    with pytest.raises(ConfigError, match=r"no \d among the low ones.*low_name='\{\}x4'"):
        PairedPhotos(given / "hr", given / "lr", 64)
    assert len(PairedPhotos(given / "hr", given / "lr", 64, "{}x4")) == 2
    options = {"photos": str(given / "hr"), "low": str(given / "lr"), "low_name": "{}x4"}
    assert len(PairOptions.model_validate({**options, "crop": 64, "window": 16}).pictures(64)) == 2
    for bad in ("x4", "a/{}", "{}{}"):
        with pytest.raises(ValidationError):
            PairOptions.model_validate({**options, "low_name": bad})


def test_pairs_that_none_fit_say_why_and_not_how_small_they_are(given, pixels):
    for path in (given / "lr").iterdir():
        with path.open("wb") as file:
            Image.fromarray(pixels(33, 32)).save(file, "BMP")
    with pytest.raises(ConfigError, match="no whole multiple"):
        PairedPhotos(given / "hr", given / "lr", 64)


def test_photos_changed_in_place_are_others(photos, tmp_path):
    photos = shutil.copytree(photos, tmp_path / "photos")
    options = pair_options(photos)
    first = contents(options)
    path = next(p for p in photos.iterdir() if p.suffix == ".png")
    before = path.stat()
    data = path.read_bytes()
    path.write_bytes(data[:-20] + bytes(b ^ 1 for b in data[-20:]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))
    assert contents(options) != first
    path.write_bytes(data)
    assert contents(options) == first


def test_a_file_is_hashed_once_until_the_disk_says_that_it_changed(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_bytes(b"one")
    os.utime(path, (1, 1))
    asked = []
    monkeypatch.setattr(digests, "sha256", lambda p: asked.append(p) or "digest")
    assert digests.of([path, tmp_path / "gone"])[0] == "digest"
    assert digests.of([path])[0] == "digest" and len(asked) == 1
    path.write_bytes(b"two")
    digests.of([path])
    assert len(asked) == 2
    digests.of([path])  # it is young: its clock may stand still
    assert len(asked) == 3


def test_photos_are_decoded_in_the_sandbox(photos, tmp_path, monkeypatch):
    photos = shutil.copytree(photos, tmp_path / "photos")
    bad = photos / "bad.png"
    bad.write_bytes(b"\x89PNG\r\n\x1a\n")
    monkeypatch.setattr(picture, "_decode_frames", _not_here)
    found = Photos(photos, 64)
    assert "bad.png" in found.refused.why and len(found) > 0


def _not_here(*_):
    raise AssertionError("decoded in the main process")
