"""Masks from LabelMe and COCO: every shape is drawn, and no file can make it take long."""

import base64
import io
import json
import math
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from restore.batch import outlines, run_lengths
from restore.errors import RestoreError

SIZE = (40, 48)


def written(folder: Path, tree: object, name: str = "a.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(tree))
    return path


def labelme(folder: Path, *shapes: dict, size=SIZE) -> np.ndarray:
    tree = {"shapes": list(shapes), "imageHeight": size[0], "imageWidth": size[1]}
    path = written(folder, tree)
    return outlines.draw(outlines.labelme(path), SIZE, path)


def shape(kind: str, *points, **more) -> dict:
    return {"shape_type": kind, "points": points, **more}


def test_lines_are_scratches_with_a_width(tmp_path):
    mask = labelme(tmp_path, shape("linestrip", [4, 20], [20, 20], [40, 20]))
    assert (mask[19:22, 4:41] == 255).all() and mask[:17].sum() == mask[25:].sum() == 0
    assert (mask[:, 45:] == 0).all()  # open: no way back to its beginning
    assert labelme(tmp_path, shape("line", [4, 4], [40, 30]))[17, 22] == 255
    dot = labelme(tmp_path, shape("point", [10, 10]))
    assert dot[10, 10] == 255 and 0 < (dot > 0).sum() < 60


def test_a_lines_width_grows_with_the_picture(tmp_path):
    path = written(tmp_path, {"shapes": [shape("line", [0, 1500], [2999, 1500])]})
    mask = outlines.draw(outlines.labelme(path), (3000, 3000), path)
    assert 8 <= (mask[:, 1000] > 0).sum() <= 13


def test_a_mask_in_the_file_is_laid_where_it_says(tmp_path):
    ink = np.zeros((10, 12), np.uint8)
    ink[2:5, 3:9] = 255
    buffer = io.BytesIO()
    Image.fromarray(ink).convert("1").save(buffer, "PNG")
    text = base64.b64encode(buffer.getvalue()).decode()
    mask = labelme(tmp_path, shape("mask", [20, 30], [31, 39], mask=text))
    want = np.zeros(SIZE, np.uint8)
    want[32:35, 23:29] = 255
    assert (mask == want).all()
    outside = labelme(tmp_path, shape("mask", [-8, 35], [3, 44], mask=text))
    assert (outside[37:40, :1] == 255).all() and outside.sum() == 255 * 3


COCO = {
    "annotations": [{"image_id": 1, "segmentation": [[4, 4, 20, 4, 20, 20]]}],
    "images": [{"id": 1, "file_name": "images/pic.png", "width": 48, "height": 40}],
}


def coco(folder: Path, **change) -> outlines.Outlines:
    found = outlines.coco(written(folder, {**COCO, **change}))
    assert found
    return found


@pytest.mark.parametrize(
    "name", ["pic.png", "images/pic.png", "images\\pic.png", "./images/pic.png"]
)
@pytest.mark.parametrize("key", ["pic.png", "images/pic.png"])
def test_a_path_in_coco_is_found_with_either_slash(tmp_path, name, key):
    found = coco(tmp_path, images=[{**COCO["images"][0], "file_name": name}])
    assert len(found.of(key)) == 1 and found.names("other.png") == []


def test_two_of_one_name_are_told_apart_by_folders_or_refused(tmp_path):
    images = [
        {**COCO["images"][0], "id": n, "file_name": f"set/{folder}/pic.png"}
        for n, folder in ((1, "a"), (2, "b"))
    ]
    found = coco(tmp_path, images=images)
    assert found.of("b/pic.png") == () and len(found.of("a/pic.png")) == 1
    with pytest.raises(RestoreError, match="could both be meant"):
        found.of("pic.png")


BAD_SHAPES = {
    "nan": shape("polygon", [math.nan, 1], [2, 3], [4, 5]),
    "infinite": shape("polygon", [math.inf, 1], [2, 3], [4, 5]),
    "far": shape("polygon", [2**30, 1], [2, 3], [4, 5]),
    "far circle": shape("circle", [0, 0], [10**6, 10**6]),
    "no points": shape("polygon"),
    "unknown": shape("spiral", [1, 1]),
    "three corners": shape("rectangle", [1, 1], [2, 2], [3, 3]),
    "words": shape("polygon", ["x", "y"]),
    "a broken mask": shape("mask", [1, 1], mask="!!"),
    "a mask of nothing": shape("mask", [1, 1], mask="aGVsbG8="),
    "no shape": 7,
}


@pytest.mark.parametrize("bad", BAD_SHAPES.values(), ids=BAD_SHAPES)
def test_a_bad_shape_is_named_by_its_place(tmp_path, bad):
    with pytest.raises(RestoreError, match=r"a\.json: shapes\[1\]: "):
        labelme(tmp_path, shape("point", [1, 1]), bad)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"annotations": [{"image_id": 9, "bbox": [1, 1, 2, 2]}]}, "image_id, 9, is not among"),
        ({"annotations": [{"image_id": 1, "bbox": [1, 1, -2, 2]}]}, "a box of -2x2"),
        ({"annotations": [{"image_id": 1, "bbox": [1, math.nan, 2, 2]}]}, "a point at"),
        (
            {"annotations": [{"image_id": 1, "segmentation": {"counts": []}}]},
            "run-length mask of N",
        ),
        ({"annotations": [{"image_id": 1, "segmentation": [[1, 2, 3]]}]}, r"annotations\[0\]"),
        ({"images": [{"id": 1}]}, "images: lacks 'file_name'"),
        ({"images": [{**COCO["images"][0], "height": -4}]}, "-4 px on a side"),
        ({"images": 3}, "images"),
    ],
)
def test_a_broken_coco_file_is_named_by_its_place(tmp_path, change, told):
    with pytest.raises(RestoreError, match=told):
        coco(tmp_path, **change)


# run lengths


def with_runs(folder: Path, counts: object, of=SIZE, **change) -> np.ndarray:
    images = [{**COCO["images"][0], "height": of[0], "width": of[1]}]
    note = {"image_id": 1, "segmentation": {"size": list(of), "counts": counts, **change}}
    found = coco(folder, annotations=[note], images=images)
    return outlines.draw(found.of("pic.png"), of, folder / "a.json")


def test_run_lengths_go_down_the_columns(tmp_path):
    # 2 x 3: the first column's lower pixel and the second's upper one
    for counts in ([1, 2, 3], [1, 1, 0, 1, 3], "123", "11003"):
        mask = with_runs(tmp_path, counts, of=(2, 3))
        assert mask.tolist() == [[0, 255, 0], [255, 0, 0]], counts
    assert with_runs(tmp_path, [40 * 48]).sum() == 0
    assert with_runs(tmp_path, [0, 40 * 48]).min() == 255
    # written by pycocotools
    made = with_runs(tmp_path, "312000O0", of=(3, 4))
    assert (made > 0).astype(int).tolist() == [[0, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 1]]


def columns_of(mask: np.ndarray) -> list[int]:
    """The run lengths of a mask, as COCO's documentation defines them."""
    flat = np.concatenate([[False], mask.ravel(order="F")])
    changes = np.flatnonzero(np.diff(flat.astype(np.int8)))
    return np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (40, 48), (131, 97), (300, 1000)])
@pytest.mark.parametrize("share", [0, 0.02, 0.5, 0.98, 1])
def test_run_lengths_are_what_pycocotools_takes_them_for(tmp_path, size, share):
    masks = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(size[0])
    noise = rng.random(size) < share
    blob = np.zeros(size, bool)
    blob[size[0] // 4 : size[0] // 2 + 1, size[1] // 3 : size[1] // 2 + 1] = share > 0
    for mask in (noise, blob):
        packed = masks.encode(np.asfortranarray(mask.astype(np.uint8)))
        made = with_runs(tmp_path, packed["counts"].decode(), of=size)
        assert np.array_equal(made > 0, mask)
        assert np.array_equal(with_runs(tmp_path, columns_of(mask), of=size), made)


def test_run_lengths_of_another_size_are_scaled_if_that_is_asked(tmp_path):
    want = np.zeros((20, 24), bool)
    want[5:10, 3:21] = True
    note = {"image_id": 1, "segmentation": {"size": [20, 24], "counts": columns_of(want)}}
    images = [{**COCO["images"][0], "height": 20, "width": 24}]
    shapes = coco(tmp_path, annotations=[note], images=images).of("pic.png")
    with pytest.raises(RestoreError, match="--fit-mask"):
        outlines.draw(shapes, SIZE, tmp_path / "a.json")
    made = outlines.draw(shapes, SIZE, tmp_path / "a.json", fit=True)
    assert np.array_equal(made > 0, want.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize(
    ("counts", "change", "told"),
    [
        ([1, 2], {}, "of 3 px together, for a picture of 1,920"),
        ([1920, 2**52], {}, "px together"),
        ([-1, 1921], {}, "no whole numbers"),
        ([1920.0], {}, "no whole numbers"),
        ([True, 1919], {}, "no whole numbers"),
        ([2**70], {}, "no whole numbers"),
        ([0] * (10**6 + 1), {}, "1,000,001 run lengths"),
        ("0" * (10**6 + 1), {}, "1,000,001 run lengths"),
        ("P", {}, "end within a number"),
        ("o" * 20 + "0", {}, "beyond any picture"),
        ("\u00e9", {}, "letters that are none"),
        ("/", {}, "letters that are none"),
        ("@", {}, "below 0"),
        ("", {}, "of 0 px together"),
        ({}, {}, "are a dict"),
        (None, {}, "are a NoneType"),
        ([1920], {"size": [48, 40]}, r"of \[48, 40\], for a picture of \[40, 48\]"),
        ([1920], {"size": None}, "run-length mask of None"),
    ],
)
def test_wrong_run_lengths_are_named_by_their_place(tmp_path, counts, change, told):
    with pytest.raises(RestoreError, match=rf"a\.json: annotations\[0\]: .*{told}"):
        with_runs(tmp_path, counts, **change)


def test_huge_run_lengths_take_no_memory(tmp_path):
    size = (10**6, 10**6)
    note = {"image_id": 1, "segmentation": {"size": list(size), "counts": [0, 10**12]}}
    images = [{**COCO["images"][0], "height": size[0], "width": size[1]}]
    shapes = coco(tmp_path, annotations=[note], images=images).of("pic.png")
    for picture in (SIZE, (20_000, 20_000)):
        with pytest.raises(RestoreError, match="more than 100 times"):
            outlines.draw(shapes, picture, tmp_path / "a.json", fit=True)
    tall = outlines.Shape((), (10**6, 300), runs=np.array([0, 3 * 10**8], np.int32))
    with pytest.raises(RestoreError, match="the limit is 268,435,456 px"):
        outlines.draw([tall], (2000, 2000), tmp_path / "a.json", fit=True)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(st.characters(min_codepoint=40, max_codepoint=120), max_size=40))
def test_any_letters_are_run_lengths_or_refused(text):
    try:
        runs = run_lengths.read({"size": [4, 5], "counts": text}, (4, 5))
    except ValueError:
        return
    assert runs.sum() == 20 and runs.min() >= 0


def test_what_would_take_long_is_refused_at_once(tmp_path):
    whole = shape("polygon", [0, 0], [9999, 0], [9999, 9999])
    path = written(tmp_path, {"shapes": [whole] * 15_000})
    began = time.process_time()
    with pytest.raises(RestoreError, match="more than 100 times"):
        outlines.draw(outlines.labelme(path), (4000, 4000), path)
    path = written(tmp_path, {"shapes": [shape("point", [1, 1])] * 100_000})
    with pytest.raises(RestoreError, match="100,000 shapes; the limit"):
        outlines.labelme(path)
    path = written(tmp_path, {"shapes": [shape("polygon", *([[1, 1]] * 1_000_001))]})
    with pytest.raises(RestoreError, match="the limit is 1,000,000"):
        outlines.draw(outlines.labelme(path), SIZE, path)
    path.write_text("[" * 100_000)
    with pytest.raises(RestoreError, match=r"nested|JSON"):
        outlines.labelme(path)
    assert time.process_time() - began < 20


def test_a_pipe_is_not_waited_for(tmp_path):
    import os

    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(RestoreError, match="no plain file"):
        outlines.labelme(tmp_path / "a.json")


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)  # fmt: skip
NUMBER = st.floats() | st.integers(-(2**31), 2**31)
POINTS = st.lists(st.tuples(NUMBER, NUMBER), max_size=5) | ANY
KINDS = st.sampled_from(
    ["polygon", "rectangle", "circle", "line", "linestrip", "point", "mask", ""]
)
LABELLED = st.fixed_dictionaries({"points": POINTS}, optional={"shape_type": KINDS, "mask": ANY})
FILES = st.fixed_dictionaries(
    {"shapes": st.lists(LABELLED | ANY, max_size=4) | ANY},
    optional={"imageHeight": st.integers(-2, 100) | ANY, "imageWidth": st.integers(-2, 100) | ANY},
) | st.fixed_dictionaries(
    {
        "images": st.lists(
            st.fixed_dictionaries(
                {"id": st.integers(0, 2) | ANY},
                optional={"file_name": st.text() | ANY, "width": NUMBER | ANY, "height": ANY},
            ),
            max_size=3,
        )
        | ANY,
        "annotations": st.lists(
            st.fixed_dictionaries(
                {"image_id": st.integers(0, 3) | ANY},
                optional={
                    "segmentation": st.lists(st.lists(NUMBER, max_size=8)) | ANY,
                    "bbox": ANY,
                },
            )
            | ANY,
            max_size=4,
        )
        | ANY,
    }
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(FILES | ANY, st.booleans())
def test_any_file_is_drawn_or_refused_in_a_line(tmp_path, tree, fit):
    path = written(tmp_path, tree)
    try:
        found = outlines.coco(path)
        shapes = found.of("a.png") if found else outlines.labelme(path)
        mask = outlines.draw(shapes, SIZE, path, fit)
    except RestoreError as error:
        assert "\n" not in str(error)
    else:
        assert mask.shape == SIZE
