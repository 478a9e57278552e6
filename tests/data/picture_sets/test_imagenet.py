"""ImageNet as ILSVRC packs it, and as folders of classes."""

from __future__ import annotations

import pytest

from vidlbc.data.picture_sets import detect_form, open_picture_set
from vidlbc.errors import InputError


@pytest.fixture
def ilsvrc(tmp_path, picture):
    images = tmp_path / "Data" / "CLS-LOC"
    for name in ("n01440764/n01440764_1.JPEG", "n01440764/n01440764_2.JPEG", "n02119789/n02119789_7.JPEG"):
        picture(images / "train" / name)
    for number in (1, 2):
        picture(images / "val" / f"ILSVRC2012_val_0000000{number}.JPEG")
    picture(images / "test" / "ILSVRC2012_test_00000001.JPEG")
    synsets = "n01440764 tench, Tinca tinca\nn02119789 kit fox, Vulpes macrotis\n"
    (tmp_path / "LOC_synset_mapping.txt").write_text(synsets)
    (tmp_path / "LOC_val_solution.csv").write_text(
        "ImageId,PredictionString\n"
        "ILSVRC2012_val_00000001,n02119789 1 2 3 4 n02119789 5 6 7 8 \n"
        "ILSVRC2012_val_00000002,n01440764 1 2 3 4 \n"
    )
    return tmp_path


def labels_of(found):
    return {found.picture(i).name: found.label(i) for i in range(len(found))}


def test_ilsvrc(ilsvrc):
    assert detect_form(ilsvrc) == "imagenet"
    train, val, test = (open_picture_set(ilsvrc, split=split) for split in ("train", "val", "test"))
    assert train.classes == val.classes == ("n01440764 tench", "n02119789 kit fox")
    assert labels_of(train) == {"n01440764_1.JPEG": 0, "n01440764_2.JPEG": 0, "n02119789_7.JPEG": 1}
    assert labels_of(val) == {"ILSVRC2012_val_00000001.JPEG": 1, "ILSVRC2012_val_00000002.JPEG": 0}
    assert labels_of(test) == {"ILSVRC2012_test_00000001.JPEG": None} and test.kinds == ()
    sample = val.sample(0)
    assert sample.path.is_file() and sample.label == 1 and not sample.weak and sample.boxes is sample.mask is None


def test_val_sorted_into_class_folders_needs_no_solution(ilsvrc):
    val = ilsvrc / "Data" / "CLS-LOC" / "val"
    (val / "n02119789").mkdir()
    for path in val.glob("*.JPEG"):
        path.rename(val / "n02119789" / path.name)
    (ilsvrc / "LOC_val_solution.csv").unlink()
    assert set(labels_of(open_picture_set(ilsvrc, split="val")).values()) == {1}


def test_what_ilsvrc_lacks_is_named(ilsvrc, picture):
    solution = ilsvrc / "LOC_val_solution.csv"
    solution.write_text(solution.read_text().replace("n01440764 1", "n00000000 1"))
    with pytest.raises(InputError, match=r"LOC_val_solution.csv row 3: unknown class 'n00000000'"):
        open_picture_set(ilsvrc, split="val")
    solution.write_text("ImageId,PredictionString\nILSVRC2012_val_00000001,n02119789 1 2 3 4\n")
    with pytest.raises(InputError, match=r"val_00000002.JPEG: not in .*LOC_val_solution.csv"):
        open_picture_set(ilsvrc, split="val")
    solution.unlink()
    with pytest.raises(InputError, match=r"LOC_val_solution.csv: no such file"):
        open_picture_set(ilsvrc, split="val")
    picture(ilsvrc / "Data" / "CLS-LOC" / "train" / "n09999999" / "a.JPEG")
    with pytest.raises(InputError, match=r"n09999999: unknown class 'n09999999'"):
        open_picture_set(ilsvrc)
    (ilsvrc / "LOC_synset_mapping.txt").write_text("")
    with pytest.raises(InputError, match=r"LOC_synset_mapping.txt: empty list"):
        open_picture_set(ilsvrc)


def test_split_folders_keep_the_class_numbers_of_train(tmp_path, picture):
    for name in ("train/ape/1.jpg", "train/big cat, ü/2.PNG", "train/cow/3.jpeg", "valid/cow/4.jpg"):
        picture(tmp_path / name)
    (tmp_path / "train" / "cow" / "notes.txt").write_text("no picture")
    assert detect_form(tmp_path) == "imagenet"
    train = open_picture_set(tmp_path)
    assert train.classes == ("ape", "big cat, ü", "cow") and labels_of(train) == {"1.jpg": 0, "2.PNG": 1, "3.jpeg": 2}
    assert labels_of(open_picture_set(tmp_path, split="validation")) == {"4.jpg": 2}
    with pytest.raises(InputError, match=r"no split 'test' \(found: train, val\)"):
        open_picture_set(tmp_path, split="test")
    picture(tmp_path / "valid" / "dog" / "5.jpg")
    with pytest.raises(InputError, match=r"dog: unknown class 'dog' \(not among the 3 known\)"):
        open_picture_set(tmp_path, split="val")


def test_class_folders_alone_are_train(tmp_path, picture):
    for name in ("ape/1.jpg", "cow/2.jpg"):
        picture(tmp_path / name)
    assert labels_of(open_picture_set(tmp_path)) == {"1.jpg": 0, "2.jpg": 1}
    with pytest.raises(InputError, match="class folders without splits are all train, no split 'val'"):
        open_picture_set(tmp_path, split="val")
