"""Cityscapes: label ids become the 19 train ids, disparity becomes pixels."""

from __future__ import annotations

import numpy as np
import pytest

from vidlbc.data.picture_sets import detect_form, open_picture_set
from vidlbc.errors import InputError

NAME = "aachen_000000_000019"


@pytest.fixture
def cityscapes(tmp_path, picture, plane):
    picture(tmp_path / f"leftImg8bit/train/aachen/{NAME}_leftImg8bit.png", 4, 2)
    # unlabeled, road, bicycle, license plate (-1 in uint8); caravan (not trained), sky, person, train
    labels = np.array([[0, 7, 33, 255], [29, 23, 24, 31]], np.uint8)
    plane(tmp_path / f"gtFine/train/aachen/{NAME}_gtFine_labelIds.png", labels)
    plane(
        tmp_path / f"disparity/train/aachen/{NAME}_disparity.png",
        np.array([[0, 1, 257, 513], [30000, 129, 0, 2]], np.uint16),
    )
    picture(tmp_path / "leftImg8bit/val/ulm/ulm_000001_000019_leftImg8bit.png", 4, 2)
    return tmp_path


def test_masks_and_depth(cityscapes):
    assert detect_form(cityscapes) == "cityscapes"
    found = open_picture_set(cityscapes)
    assert len(found.classes) == 19 and (found.classes[0], found.classes[11], found.classes[18]) == (
        "road",
        "person",
        "bicycle",
    )
    assert found.mask_classes == found.classes and found.kinds == ("mask", "depth")
    sample = found.sample(0)
    assert sample.mask.tolist() == [[255, 0, 18, 255], [255, 10, 11, 16]] and sample.mask.dtype == np.uint8
    assert np.allclose(sample.depth, [[0, 0, 1, 2], [29999 / 256, 0.5, 0, 1 / 256]])
    assert sample.depth.dtype == np.float32


def test_a_split_without_annotations_and_missing_ones(cityscapes):
    val = open_picture_set(cityscapes, split="val")
    assert val.kinds == () and val.sample(0).mask is None and list(val.having("mask")) == []
    with pytest.raises(InputError, match=r"leftImg8bit/test: no such folder \(expected the test cities\)"):
        open_picture_set(cityscapes, split="test")
    found = open_picture_set(cityscapes)
    labels = cityscapes / f"gtFine/train/aachen/{NAME}_gtFine_labelIds.png"
    labels.write_bytes(b"not a PNG")
    with pytest.raises(InputError, match=f"{NAME}_gtFine_labelIds.png: cannot identify"):
        found.sample(0)
    labels.unlink()
    with pytest.raises(InputError, match=f"{NAME}_gtFine_labelIds.png: no such file"):
        found.sample(0)


def test_a_colour_picture_is_no_mask(cityscapes, picture):
    picture(cityscapes / f"gtFine/train/aachen/{NAME}_gtFine_labelIds.png", 4, 2)
    with pytest.raises(InputError, match="labelIds.png: 3 channels"):
        open_picture_set(cityscapes).sample(0)
