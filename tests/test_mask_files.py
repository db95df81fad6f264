import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from restore.batch import mask_files
from restore.batch.jobs import Job
from restore.errors import ImageError, UsageError
from restore.images import picture


@pytest.fixture
def photo(tmp_path):
    Image.fromarray(np.full((30, 40, 3), 90, np.uint8)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


def job(photo, key="a.png"):
    return Job(photo, key, photo.with_name("out.png"))


def mask_image(folder: Path, name: str, mode: str = "L", size=(40, 30)) -> Path:
    mask = Image.new("L", size)
    mask.paste(255, (10, 5, 20, 15))
    folder.mkdir(parents=True, exist_ok=True)
    if mode == "RGBA":
        rgba = Image.new("RGBA", size, "white")
        rgba.putalpha(mask)
        mask = rgba
    mask.convert(mode).save(folder / name)
    return folder / name


def read(given, photo, key="a.png", fit=False):
    one = job(photo, key)
    masks = mask_files.open_masks(str(given))
    return mask_files.read(masks, one, [picture.read(photo)], fit)[0]


@pytest.mark.parametrize("mode", ["L", "1", "RGB", "P", "RGBA", "I;16"])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_case_86_and_89_a_mask_of_any_mode_and_extension_is_paired_by_its_stem(
    tmp_path, photo, mode, name
):
    if mode == "I;16":
        values = np.zeros((30, 40), np.uint16)
        values[5:15, 10:20] = 65535
        (tmp_path / "masks").mkdir()
        Image.fromarray(values).save(tmp_path / "masks" / name)
    else:
        mask_image(tmp_path / "masks", name, mode)
    mask = read(tmp_path / "masks", photo)
    assert mask.shape == (30, 40) and mask.dtype == np.uint8
    assert (mask[5:15, 10:20] == 255).all() and mask.sum() == 100 * 255


def test_a_folder_is_paired_by_relative_path(tmp_path, photo):
    mask_image(tmp_path / "masks" / "sub", "a.png")
    assert read(tmp_path / "masks", photo, "sub/a.jpg").any()
    with pytest.raises(ImageError, match="no mask"):
        read(tmp_path / "masks", photo, "other/a.jpg")


def test_case_81_a_missing_mask_is_a_row_and_two_for_one_are_refused(tmp_path, photo):
    mask_image(tmp_path / "masks", "b.png")
    with pytest.raises(ImageError) as caught:
        read(tmp_path / "masks", photo)
    assert caught.value.code == "NO_MASK"
    mask_image(tmp_path / "masks", "b.tif")
    with pytest.raises(UsageError, match="two masks for b"):
        mask_files.open_masks(str(tmp_path / "masks"))
    with pytest.raises(UsageError, match="no such"):
        mask_files.open_masks(str(tmp_path / "nowhere"))
    (tmp_path / "none").mkdir()
    with pytest.raises(UsageError, match="no masks here"):
        mask_files.open_masks(str(tmp_path / "none"))


def test_case_82_a_mask_of_another_size_is_refused_unless_asked_to_fit(tmp_path, photo):
    path = mask_image(tmp_path, "m.png", size=(80, 60))
    with pytest.raises(ImageError, match=r"80x60 px, but the picture has 40x30 px; --fit-mask"):
        read(path, photo)
    assert read(path, photo, fit=True)[4, 7] == 255


def test_case_85_a_grey_mask_keeps_its_levels(tmp_path, photo):
    Image.new("L", (40, 30), 100).save(tmp_path / "m.png")
    assert (read(tmp_path / "m.png", photo) == 100).all()


def test_what_is_transparent_is_the_hole(tmp_path):
    rgba = np.full((30, 40, 4), 255, np.uint8)
    rgba[3:6, :, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "a.png")
    mask = read("alpha", tmp_path / "a.png")
    assert mask[3:6].all() and not mask[:3].any() and not mask[6:].any()


def test_no_alpha_to_take_the_hole_from_is_said(photo):
    with pytest.raises(ImageError, match="no alpha"):
        read("alpha", photo)


def test_labelme_polygons_and_rectangles_are_drawn(tmp_path, photo):
    shapes = [
        {"shape_type": "rectangle", "points": [[10, 5], [19, 14]]},
        {"shape_type": "polygon", "points": [[30, 20], [35, 20], [35, 25], [30, 25]]},
        {"shape_type": "circle", "points": [[5, 24], [8, 24]]},
    ]
    tree = {"imageHeight": 30, "imageWidth": 40, "shapes": shapes}
    (tmp_path / "m.json").write_text(json.dumps(tree))
    mask = read(tmp_path / "m.json", photo)
    assert mask[5:15, 10:20].all() and mask[22, 32] and mask[24, 5]
    assert 100 + 36 + 20 < (mask > 0).sum() < 100 + 36 + 40


def test_coco_is_paired_by_file_name(tmp_path, photo):
    tree = {
        "images": [{"id": 1, "file_name": "a.png", "height": 30, "width": 40}],
        "annotations": [
            {"image_id": 1, "segmentation": [[0, 0, 5, 0, 5, 5, 0, 5]], "bbox": [0, 0, 5, 5]},
            {"image_id": 1, "segmentation": [], "bbox": [20, 10, 4, 4]},
        ],
    }
    (tmp_path / "m.json").write_text(json.dumps(tree))
    mask = read(tmp_path / "m.json", photo, "sub/a.png")
    assert mask[:6, :6].all() and mask[10:15, 20:25].all() and mask.sum() == 255 * (36 + 25)
    with pytest.raises(ImageError, match="no mask"):
        read(tmp_path / "m.json", photo, "b.png")


@pytest.mark.parametrize(("here", "there"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_name_in_another_unicode_form_is_the_same_name(tmp_path, photo, here, there):
    name, key = unicodedata.normalize(here, "é.png"), unicodedata.normalize(there, "é.png")
    mask_image(tmp_path / "masks", name)
    assert read(tmp_path / "masks", photo, key)[6, 12] == 255
    assert not list(mask_files.open_masks(str(tmp_path / "masks")).unused([job(photo, key)]))
    image = {"id": 1, "file_name": name, "height": 30, "width": 40}
    note = {"image_id": 1, "segmentation": [], "bbox": [20, 10, 4, 4]}
    (tmp_path / "m.json").write_text(json.dumps({"images": [image], "annotations": [note]}))
    assert read(tmp_path / "m.json", photo, key)[10:15, 20:25].all()


@pytest.mark.parametrize("text", ["{", "[]", '{"shapes": [{"points": [[1]]}]}', '{"shapes": 3}'])
def test_json_that_holds_no_shapes_is_refused(tmp_path, photo, text):
    (tmp_path / "m.json").write_text(text)
    with pytest.raises(ImageError) as caught:
        read(tmp_path / "m.json", photo)
    assert caught.value.code == "MASK"


def test_masks_kept_beside_results_are_taken_not_the_results(photo, tmp_path):
    """What --find-scratches proposed, corrected where it lay."""
    Image.new("RGB", (40, 30), "white").save(tmp_path / "out.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out.png").rename(tmp_path / "out" / "a.png")
    mask_image(tmp_path / "out", "a_damage.png")
    made = read(tmp_path / "out", photo)
    assert made[10, 15] == 255 and made[0, 0] == 0
