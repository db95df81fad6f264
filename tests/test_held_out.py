"""Held-out pictures are never trained on, by whatever name they are reached."""

import pytest
import torch
from PIL import Image

from restore import cli
from restore.errors import ConfigError
from restore.training.data.crops import PhotoOptions
from restore.training.data.pairs import PairOptions
from restore.training.data.scratched import ScratchedOptions
from restore.training.stages.autoencoder import AutoencoderOptions, AutoencoderStage
from restore.training.stages.restorer import LowOptions, open_pairs
from restore.training.stages.scratches import ScratchOptions, ScratchStage

CPU = torch.device("cpu")
TINY = {"channels": 8, "encoder_blocks": (0,), "decoder_blocks": (0,)}


@pytest.fixture
def places(tmp_path, pixels):
    """A folder with another inside, by several names; and a place of its own."""
    for folder, seeds in (("photos", (0, 1)), ("photos/val", (2, 3)), ("other", (4,))):
        (tmp_path / folder).mkdir()
        for seed in seeds:
            Image.fromarray(pixels(104, 104, seed)).save(tmp_path / folder / f"{seed}.png")
    (tmp_path / "linked").symlink_to(tmp_path / "photos" / "val")
    (tmp_path / "list.txt").write_text("other/4.png\nphotos/val/../1.png\n")
    assert cli.main(["data", "pack", str(tmp_path / "photos"), "-o", str(tmp_path / "tars")]) == 0
    return tmp_path


@pytest.mark.parametrize(
    ("photos", "held_out", "first"),
    [
        ("photos", "photos/val", "2.png"),
        ("photos", "photos", "0.png"),
        ("photos", "linked", "2.png"),
        ("photos", "list.txt", "photos/val/../1.png"),
        ("list.txt", "photos", "1.png"),
        ("tars", "tars", "0"),
    ],
)
def test_a_picture_that_is_trained_on_is_not_held_out(places, photos, held_out, first):
    given = PhotoOptions(photos=places / photos, held_out=places / held_out, crop=32)
    with pytest.raises(ConfigError, match=f"held_out: .*{first}.* is among stage.data.photos"):
        given.open(given.held_out)


def test_what_is_held_out_elsewhere_is_opened(places):
    given = PhotoOptions(photos=places / "photos", held_out=places / "other", crop=32)
    assert given.open(given.held_out).source.names == ["4.png"]


def data_of(places, kind, **more):
    return kind(photos=places / "photos", held_out=places / "photos" / "val", crop=32, **more)


@pytest.mark.parametrize(
    "begin",
    [
        lambda at: open_pairs(data_of(at, LowOptions), 4, 0),
        lambda at: data_of(at, PairOptions, window=8).pictures(32, held_out=True),
        lambda at: data_of(at, PairOptions, window=8, low=at / "photos").pictures(32, True),
        lambda at: ScratchStage(ScratchOptions(data=data_of(at, ScratchedOptions)), 0, CPU),
        lambda at: AutoencoderStage(
            AutoencoderOptions(data=data_of(at, PhotoOptions), **TINY), 0, CPU
        ),
    ],
    ids=["restorer", "pairs", "given pairs", "scratches", "autoencoder"],
)
def test_no_stage_trains_on_what_it_is_scored_by(places, begin):
    with pytest.raises(ConfigError, match=r"held_out: .*is among"):
        begin(places)


@pytest.mark.parametrize("seed", [0, 3])
def test_a_preview_of_the_training_photos_shows_other_crops(tmp_path, pixels, seed):
    Image.fromarray(pixels(160, 160)).save(tmp_path / "0.png")
    photos = {"photos": tmp_path, "crop": 128, "detail": 4}
    samples, shown = open_pairs(LowOptions(**photos), 4, seed)
    trained = [samples[n]["truth"] for n in range(8)]
    assert not any(torch.equal(a, b) for a in shown["truth"] for b in trained)
    stage = AutoencoderStage(AutoencoderOptions(data=PhotoOptions(**photos), **TINY), seed, CPU)
    trained = [torch.from_numpy(stage.samples[n]) for n in range(8)]
    assert stage.preview_batch.shape[1:] == trained[0].shape
    assert not any(torch.equal(a, b) for a in stage.preview_batch for b in trained)
