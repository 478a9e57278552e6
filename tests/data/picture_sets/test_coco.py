"""COCO: category ids have gaps, boxes are x, y, width, height, masks are outlines or run lengths."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vidlbc.data.picture_sets import detect_form, open_picture_set
from vidlbc.errors import InputError

WIDTH, HEIGHT = 12, 8


def pack(counts):
    """COCO's string of counts, as pycocotools' rleToString writes it."""
    text = ""
    for i, count in enumerate(counts):
        value = count - counts[i - 2] if i > 2 else count
        while True:
            bits, value = value & 31, value >> 5
            more = value != (-1 if bits & 16 else 0)
            text += chr(48 + (bits | (32 if more else 0)))
            if not more:
                break
    return text


def runs_of(mask):
    """Run lengths down the columns, the first of zeros."""
    flat = mask.T.ravel().astype(int)
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, flat.size]).tolist()
    return counts if not flat[0] else [0, *counts]


def annotation(number, image=7, category=3, segmentation=((1, 1, 4, 1, 4, 4, 1, 4),), bbox=(1, 1, 3, 3), **more):
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": list(bbox),
        "area": bbox[2] * bbox[3],
        "segmentation": segmentation if isinstance(segmentation, dict) else [list(s) for s in segmentation],
        "iscrowd": 0,
        **more,
    }


@pytest.fixture
def coco(tmp_path, picture):
    """`coco(annotations, **changes)` writes a set of two pictures, 7 and 9, and gives its root."""

    def write(annotations, split="train", **changes):
        images = [
            {"id": i, "file_name": f"00000000000{i}.jpg", "width": WIDTH, "height": HEIGHT, "license": 1}
            for i in (9, 7)
        ]
        categories = [{"id": 90, "name": "toothbrush"}, {"id": 3, "name": "car"}, {"id": 1, "name": "person"}]
        for image in images:
            picture(tmp_path / f"{split}2017" / image["file_name"], WIDTH, HEIGHT)
        data = {"images": images, "categories": categories, "annotations": annotations, **changes}
        (tmp_path / "annotations").mkdir(exist_ok=True)
        path = tmp_path / "annotations" / f"instances_{split}2017.json"
        path.write_text(json.dumps({name: rows for name, rows in data.items() if rows is not None}))
        return tmp_path

    return write


def sample_of(found, stem):
    return next(found.sample(i) for i in range(len(found)) if found.picture(i).stem.endswith(stem))


def test_boxes_and_labels(coco):
    root = coco([annotation(1), annotation(2, category=90, bbox=(0.5, 2, 10, 4.25)), annotation(3, iscrowd=1)])
    assert detect_form(root) == "coco"
    found = open_picture_set(root)
    assert found.classes == ("person", "car", "toothbrush") and found.kinds == ("boxes", "mask")
    boxes = sample_of(found, "7").boxes
    assert boxes.corners.tolist() == [[1, 1, 4, 4], [0.5, 2, 10.5, 6.25], [1, 1, 4, 4]]
    assert boxes.labels.tolist() == [1, 2, 1] and boxes.odd.tolist() == [False, False, True]
    empty = sample_of(found, "9")
    assert empty.boxes.corners.shape == (0, 4) and empty.label is None and not empty.mask.any()


def test_masks_small_ones_on_top_and_crowds_ignored(coco):
    large = annotation(1, category=1, segmentation=((0, 0, 11, 0, 11, 7, 0, 7),), bbox=(0, 0, 12, 8))
    small = annotation(2, category=90, segmentation=((2, 2, 4, 2, 4, 5, 2, 5),), bbox=(2, 2, 3, 4))
    crowd = np.zeros((HEIGHT, WIDTH), bool)
    crowd[6:, 9:] = True
    runs = {"size": [HEIGHT, WIDTH], "counts": runs_of(crowd)}
    found = open_picture_set(coco([small, large, annotation(3, segmentation=runs, iscrowd=1, bbox=(9, 6, 3, 2))]))
    mask = sample_of(found, "7").mask
    expected = np.ones((HEIGHT, WIDTH), int)
    expected[2:6, 2:5] = 3
    expected[crowd] = 255
    assert mask.dtype == np.uint8 and np.array_equal(mask, expected)
    assert found.mask_classes == ("background", "person", "car", "toothbrush")


@pytest.mark.parametrize("packed", [False, True])
def test_run_lengths(coco, packed):
    shape = np.random.default_rng(3).random((HEIGHT, WIDTH)) < 0.5
    shape[:, 4:9] = True  # a run of over 31, which takes two characters
    runs = runs_of(shape)
    assert max(runs) > 31
    segmentation = {"size": [HEIGHT, WIDTH], "counts": pack(runs) if packed else runs}
    mask = sample_of(open_picture_set(coco([annotation(1, segmentation=segmentation)])), "7").mask
    assert np.array_equal(mask == 2, shape)


def test_the_string_of_the_reference_implementation():
    from vidlbc.data.picture_sets.run_lengths import decode_counts

    # Values by hand: '6' is 6; 'P1' is 0 + 1 * 32; from the fourth on a difference: 'N' is -2, to the 32 two before.
    assert decode_counts("6P14N") == [6, 32, 4, 30]


@pytest.mark.parametrize(
    ("counts", "size", "says"),
    [
        ([5, 5], [HEIGHT, WIDTH], "counts of 10 pixels, expected 96"),
        ([100, -4], [HEIGHT, WIDTH], "counts of 96 pixels"),
        ("0\x01", [HEIGHT, WIDTH], "character"),
        ("0P", [HEIGHT, WIDTH], "end within a number"),
        ([96], [4, 4], r"size \[4, 4\], but the image is \[8, 12\]"),
    ],
)
def test_damaged_run_lengths(coco, counts, size, says):
    found = open_picture_set(coco([annotation(1, segmentation={"size": size, "counts": counts})]))
    with pytest.raises(InputError, match=f"instances_train2017.json: annotation 1: damaged segmentation .*{says}"):
        sample_of(found, "7")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"annotations": [annotation(1, image=5)]}, "annotation 1 is of image 5, not listed"),
        ({"annotations": [annotation(1, category=2)]}, "annotation 1 has unknown category 2"),
        ({"annotations": [annotation(4, bbox=(1, 2, 3, 4)) | {"bbox": [1, 2]}]}, r"annotation 4: bbox \[1, 2\]"),
        ({"annotations": [annotation(4) | {"bbox": [1, 2, "3", 4]}]}, r"annotation 4: bbox \[1, 2, '3', 4\]"),
        ({"annotations": [annotation([4])]}, r"annotations 0 has id \[4\], expected a number"),
        ({"annotations": [annotation(4, area=None)]}, "annotations 0 has area None, expected a number"),
        ({"annotations": None}, "no list 'annotations'"),
        ({"images": []}, "split 'train' has no pictures"),
        ({"images": [{"id": 7, "file_name": "a.jpg", "width": 3}]}, "images 0 has no 'height'"),
        (
            {"images": [{"id": 7, "file_name": "../../a.jpg", "width": 3, "height": 3}]},
            r"image 7: '../../a.jpg' leads out of",
        ),
    ],
)
def test_damaged_lists(coco, changes, says):
    with pytest.raises(InputError, match=says):
        open_picture_set(coco(**{"annotations": [annotation(1)], **changes}))


def test_a_picture_of_another_size(coco, picture):
    root = coco([annotation(1)])
    picture(root / "train2017" / "000000000007.jpg", WIDTH + 1, HEIGHT)
    with pytest.raises(InputError, match=r"07.jpg: \(13, 8\) pixels, .*instances_train2017.json says \(12, 8\)"):
        sample_of(open_picture_set(root), "7")


def test_missing_files_are_named(coco):
    root = coco([annotation(1)])
    with pytest.raises(InputError, match=r"no instances_val2017.json \(splits found: train\)"):
        open_picture_set(root, split="val")
    found = open_picture_set(root)
    (root / "train2017" / "000000000007.jpg").unlink()
    with pytest.raises(InputError, match="000000000007.jpg: no such file"):
        sample_of(found, "7")
    (root / "annotations" / "instances_train2017.json").write_text('{"images": [')
    with pytest.raises(InputError, match=r"instances_train2017.json: not JSON"):
        open_picture_set(root)


def test_the_test_split_has_pictures_only(coco, picture):
    root = coco([annotation(1)])
    picture(root / "test2017" / "a ü.jpg")
    (root / "annotations" / "image_info_test2017.json").write_text(
        json.dumps({"images": [{"id": 1, "file_name": "a ü.jpg", "width": 12, "height": 8}], "categories": []})
    )
    found = open_picture_set(root, split="test")
    assert len(found) == 1 and found.kinds == () and found.sample(0).boxes is None
