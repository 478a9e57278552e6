"""BSDS500: splits by name, regions and boundaries as pictures; the published MATLAB files are not read."""

from __future__ import annotations

import numpy as np
import pytest

from vidlbc.data.picture_sets import detect_form, open_picture_set
from vidlbc.errors import InputError


@pytest.fixture
def bsds(tmp_path, picture, plane):
    for name in ("train_100075", "train_12003", "val_3096"):
        picture(tmp_path / "images/bsds" / f"bsds500_{name}.jpg", 4, 2)
        plane(tmp_path / "segmentation" / f"{name}_segments.png", np.array([[1, 1, 2, 300]] * 2, np.uint16))
        plane(tmp_path / "segmentation" / f"{name}_boundaries.png", np.array([[0, 51, 255, 0]] * 2, np.uint8))
    return tmp_path


def test_regions_and_boundaries(bsds):
    assert detect_form(bsds) == "bsds"
    train, val = open_picture_set(bsds), open_picture_set(bsds, split="val")
    assert [p.picture(i).stem for p in (train, val) for i in range(len(p))] == [
        "bsds500_train_100075",
        "bsds500_train_12003",
        "bsds500_val_3096",
    ]
    sample = val.sample(0)
    assert sample.regions.tolist() == [[1, 1, 2, 300]] * 2
    assert np.allclose(sample.boundaries, [[0, 0.2, 1, 0]] * 2) and sample.mask is None
    with pytest.raises(InputError, match="bsds split 'test' has no pictures"):
        open_picture_set(bsds, split="test")


def test_annotations_that_do_not_fit(bsds, plane):
    plane(bsds / "segmentation/val_3096_boundaries.png", np.zeros((3, 4), np.uint8))
    with pytest.raises(InputError, match=r"val_3096_boundaries.png: uint8 \(3, 4\), expected uint8 \(2, 4\)"):
        open_picture_set(bsds, split="val").sample(0)
    (bsds / "segmentation/val_3096_segments.png").unlink()
    with pytest.raises(InputError, match="val_3096_segments.png: no such file"):
        open_picture_set(bsds, split="val").sample(0)


def test_as_published(tmp_path, picture):
    picture(tmp_path / "images/test/100007.jpg")
    (tmp_path / "groundTruth/test").mkdir(parents=True)
    (tmp_path / "groundTruth/test/100007.mat").write_bytes(b"MATLAB 5.0")
    assert detect_form(tmp_path) == "bsds"
    found = open_picture_set(tmp_path, split="test")
    assert found.kinds == () and found.sample(0).regions is None
    with pytest.raises(InputError, match="images/train: no such folder"):
        open_picture_set(tmp_path)


def test_the_real_set(shared_data):
    found = open_picture_set(shared_data, "bsds")
    sample = found.sample(len(found) - 1)
    assert len(found) == 200 and sample.regions.shape == sample.boundaries.shape
    assert 0 < sample.boundaries.mean() < 0.2 and sample.regions.min() == 1
