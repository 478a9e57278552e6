"""Pascal VOC: boxes count from 1, masks are palette numbers, XML is only XML."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vidlbc.data.picture_sets import detect_form, open_picture_set
from vidlbc.errors import InputError

OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult>
<bndbox><xmin>{0}</xmin><ymin>{1}</ymin><xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object>"""


def annotation(*objects):
    return "<annotation><filename>x.jpg</filename>" + "".join(objects) + "</annotation>"


def thing(*corners, name="dog", difficult=0):
    return OBJECT.format(*corners, name=name, difficult=difficult)


@pytest.fixture
def voc(tmp_path, picture):
    folder = tmp_path / "VOCdevkit" / "VOC2012"
    for name in ("2007_000027", "2007_000032", "2008_000002"):
        picture(folder / "JPEGImages" / f"{name}.jpg", 6, 4)
    for name in ("Annotations", "SegmentationClass", "ImageSets/Main", "ImageSets/Segmentation"):
        (folder / name).mkdir(parents=True)
    (folder / "ImageSets/Main/train.txt").write_text("2007_000027\n2008_000002 \n\n")
    (folder / "ImageSets/Main/val.txt").write_text("2007_000032\n")
    (folder / "ImageSets/Segmentation/train.txt").write_text("2008_000002\n")
    (folder / "Annotations/2007_000027.xml").write_text(
        annotation(thing(1, 1, 6, 4, name="person"), thing("2.7", 2, 3, 3, difficult=1))
    )
    (folder / "Annotations/2008_000002.xml").write_text(annotation())
    mask = Image.fromarray(np.array([[0, 0, 12, 12, 255, 20]] * 4, np.uint8), "L")
    mask.putpalette([value for i in range(256) for value in (i, 255 - i, 0)])
    mask.save(folder / "SegmentationClass/2008_000002.png")
    return tmp_path


def test_boxes_and_masks(voc):
    assert detect_form(voc) == detect_form(voc / "VOCdevkit") == detect_form(voc / "VOCdevkit" / "VOC2012") == "voc"
    found = open_picture_set(voc)
    assert len(found) == 2 and len(found.classes) == 20 and found.kinds == ("boxes", "mask")
    first = found.sample(0)
    assert np.allclose(first.boxes.corners, [[0, 0, 6, 4], [1.7, 1, 3, 3]])
    assert [found.classes[i] for i in first.boxes.labels] == ["person", "dog"]
    assert first.boxes.odd.tolist() == [False, True] and first.mask is None
    assert list(found.having("mask")) == [1] and list(found.having("boxes")) == [0, 1]
    second = found.sample(1)
    assert second.mask.tolist() == [[0, 0, 12, 12, 255, 20]] * 4 and second.boxes.corners.shape == (0, 4)
    assert found.mask_classes[12] == "dog"


def test_the_newest_year_unless_one_is_named(voc, picture):
    older = voc / "VOCdevkit" / "VOC2007"
    picture(older / "JPEGImages" / "000001.jpg")
    (older / "ImageSets/Main").mkdir(parents=True)
    (older / "ImageSets/Main/test.txt").write_text("000001\n")
    assert open_picture_set(voc).root.name == "VOC2012"
    test = open_picture_set(older, split="test")
    assert len(test) == 1 and test.sample(0).boxes is None


def test_what_is_missing_is_named(voc):
    folder = voc / "VOCdevkit" / "VOC2012"
    with pytest.raises(InputError, match=r"ImageSets/Main/test.txt: no such file"):
        open_picture_set(voc, split="test")
    with pytest.raises(InputError, match=r"2007_000032.xml: No such file or directory"):
        open_picture_set(voc, split="val").sample(0)
    found = open_picture_set(voc)
    (folder / "JPEGImages/2007_000027.jpg").unlink()
    with pytest.raises(InputError, match=r"2007_000027.jpg: no such file \(listed in .*ImageSets\)"):
        found.sample(0)
    Image.fromarray(np.full((4, 6), 21, np.uint8)).save(folder / "SegmentationClass/2008_000002.png")
    with pytest.raises(InputError, match=r"2008_000002.png: class number 21, expected 0 to 20 or 255"):
        found.sample(1)
    (folder / "ImageSets/Main/train.txt").write_text("../../etc/passwd\n")
    with pytest.raises(InputError, match=r"train.txt: '../../etc/passwd' is not an id"):
        open_picture_set(voc)
    (folder / "ImageSets/Main/train.txt").write_text("\n \n")
    with pytest.raises(InputError, match=r"train.txt: empty list"):
        open_picture_set(voc)


BOMB = '<!DOCTYPE a [<!ENTITY b "dog"><!ENTITY c "&b;&b;">]>' + annotation(thing(1, 1, 2, 2, name="&c;"))
OUTSIDE = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hostname">]>' + annotation(thing(1, 1, 2, 2, name="&b;"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BOMB, "declares a document type"),
        (BOMB.encode("utf-16"), "declares a document type"),
        (OUTSIDE, "declares a document type"),
        (" " * 2**20 + annotation(), r"\d+ bytes, expected at most 1048576"),
        ("<annotation>", "not XML"),
        (annotation(thing(1, 1, 2, 2, name="unicorn")), "unknown class 'unicorn'"),
        (annotation(thing(1, 1, "two", 2)), "bndbox: could not convert string to float: 'two'"),
        (annotation(thing(1, 1, "nan", 2)), "bndbox 1 1 nan 2, expected finite numbers"),
        (annotation(thing(1, 1, "", 2)), "no <xmax> in <bndbox>"),
        (annotation("<object><name>dog</name></object>"), "object 'dog' has no bndbox"),
    ],
)
def test_hostile_annotations(voc, text, says):
    path = voc / "VOCdevkit/VOC2012/Annotations/2007_000027.xml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=f"2007_000027.xml: {says}") as caught:
        open_picture_set(voc).sample(0)
    assert "\n" not in str(caught.value)
