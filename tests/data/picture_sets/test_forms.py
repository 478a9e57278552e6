"""Which set is it, and the errors before any annotation is read."""

from __future__ import annotations

import pytest

from vidlbc.data.picture_sets import detect_form, open_picture_set
from vidlbc.errors import InputError


def test_folders_that_are_no_picture_set(tmp_path, picture):
    (tmp_path / "empty").mkdir()
    picture(tmp_path / "flat" / "a.jpg")
    picture(tmp_path / "listed" / "ape" / "a.jpg")
    picture(tmp_path / "listed" / "cow" / "a.jpg")
    (tmp_path / "listed" / "labels.csv").write_text("path,label\nape/a.jpg,ape\n")  # vidlbc.shards reads this one
    for name in ("empty", "flat", "listed"):
        assert detect_form(tmp_path / name) is None
        with pytest.raises(InputError, match=f"{name}: no picture set of a known form"):
            open_picture_set(tmp_path / name)


def test_wrong_arguments(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such folder"):
        open_picture_set(tmp_path / "nowhere")
    with pytest.raises(InputError, match="split 'trian': expected train, val or test"):
        open_picture_set(tmp_path, "coco", "trian")
    with pytest.raises(InputError, match="form 'ms-coco': expected auto, coco"):
        open_picture_set(tmp_path, "ms-coco")


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ("coco", "annotations: no instances_train2017.json"),
        ("openimages", r"no class-descriptions\*.csv"),
        ("cityscapes", "leftImg8bit/train: no such folder"),
        ("voc", "no VOC2012/ImageSets"),
        ("bsds", "images/train: no such folder"),
        ("imagenet", "has no class folders with pictures"),
    ],
)
def test_a_form_that_is_not_there(tmp_path, form, says):
    with pytest.raises(InputError, match=says):
        open_picture_set(tmp_path, form)
