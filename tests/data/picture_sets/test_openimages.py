"""OpenImages: image-level labels are weak, boxes are fractions of the picture, the lists know more than the disk."""

from __future__ import annotations

import numpy as np
import pytest

from vidlbc.data.picture_sets import detect_form, open_picture_set
from vidlbc.errors import InputError

A, B, C, GONE = "000a1249af2bc5f0", "0001eeaf4aed83f9", "000c4d66ce89aa69", "00ffffffffffffff"


@pytest.fixture
def openimages(tmp_path, picture):
    for name in (f"train_0/{A}.jpg", f"train_0/{B}.jpg", f"train_f/{C}.jpg", f"validation/{A}.jpg"):
        picture(tmp_path / name, 20, 10)
    picture(tmp_path / "train_0" / "notlisted.jpg")
    lists = tmp_path / "csv"
    lists.mkdir()
    (lists / "class-descriptions-boxable.csv").write_text('/m/011k07,Tortoise\n/m/011q46kg,"Container, large"\n')
    (lists / "oidv6-train-annotations-human-imagelabels.csv").write_text(
        "ImageID,Source,LabelName,Confidence\n"
        f"{B},verification,/m/011q46kg,1\n{A},verification,/m/011q46kg,0.6\n{A},verification,/m/unknown,1\n"
        f"{A},verification,/m/011k07,0.8\n{C},verification,/m/011k07,0\n{GONE},verification,/m/011k07,1\n"
    )
    (lists / "oidv6-train-annotations-bbox.csv").write_text(
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n"
        f"{C},xclick,/m/011k07,1,0.25,0.75,0.1,0.5,0,0,0,0,0\n{B},xclick,/m/011q46kg,1,0,1,0,1,0,0,1,0,0\n"
        f"{C},xclick,/m/011q46kg,1,0.5,1,0.5,1,0,0,0,0,0\n"
    )
    return tmp_path


def by_stem(found):
    return {found.picture(i).stem: i for i in range(len(found))}


def test_labels_and_boxes(openimages):
    assert detect_form(openimages) == "openimages"
    train = open_picture_set(openimages)
    at = by_stem(train)
    assert set(at) == {A, B, C} and train.weak and train.classes == ("Tortoise", "Container, large")
    # The highest positive confidence; C's only row says that the class is not there.
    assert [train.label(at[name]) for name in (A, B, C)] == [0, 1, None]
    sample = train.sample(at[C])
    assert sample.weak and sample.label is None
    assert np.allclose(sample.boxes.corners, [[5, 1, 15, 5], [10, 5, 20, 10]])
    assert sample.boxes.labels.tolist() == [0, 1] and not sample.boxes.odd.any()
    assert train.sample(at[B]).boxes.odd.tolist() == [True]
    assert train.sample(at[A]).boxes.corners.shape == (0, 4)


def test_what_is_missing_is_named(openimages):
    with pytest.raises(InputError, match="no list of split 'val'"):
        open_picture_set(openimages, split="val")
    lists = openimages / "csv"
    (lists / "validation-annotations-human-imagelabels-boxable.csv").write_text(
        f"ImageID,Source,LabelName,Confidence\n{GONE},v,/m/011k07,1\n"
    )
    with pytest.raises(InputError, match="none of the 1 pictures listed for split 'val' is there"):
        open_picture_set(openimages, split="val")
    boxes = lists / "oidv6-train-annotations-bbox.csv"
    boxes.write_text("ImageID,LabelName\n")
    with pytest.raises(InputError, match=r"oidv6-train-annotations-bbox.csv: .*expected columns ImageID, LabelName,"):
        open_picture_set(openimages)
    boxes.write_text("")
    with pytest.raises(InputError, match=r"bbox.csv: Empty CSV file"):
        open_picture_set(openimages)
    (lists / "class-descriptions-boxable.csv").write_text("/m/011k07,Tortoise,extra\n")
    with pytest.raises(InputError, match=r"class-descriptions-boxable.csv row 1: expected LabelName,DisplayName"):
        open_picture_set(openimages)
    (lists / "class-descriptions-boxable.csv").unlink()
    with pytest.raises(InputError, match=r"no class-descriptions\*.csv"):
        open_picture_set(openimages)


def test_a_picture_that_went_away_is_named(openimages):
    train = open_picture_set(openimages)
    (openimages / "train_0" / f"{B}.jpg").unlink()
    with pytest.raises(InputError, match=f"{B}.jpg: no such file"):
        train.sample(by_stem(train)[B])
