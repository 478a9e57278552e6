"""Pascal VOC 2007 to 2012: boxes in `Annotations/*.xml`, masks in `SegmentationClass/*.png`, splits in `ImageSets/`."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from xml.parsers import expat

import numpy as np

from vidlbc.data.picture_sets.base import IGNORE, Boxes, PictureSet, Sample, read_plane, text_lines
from vidlbc.errors import InputError

CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
_MAX_XML_BYTES = 2**20


class Voc(PictureSet):
    """Boxes of every picture; masks (0 background, class c is c + 1, outlines ignored) of `having("mask")`."""

    form = "voc"
    mask_classes = ("background", *CLASSES)

    def __init__(self, root: Path, split: str, listed: Sequence[str], segmented: Sequence[str]):
        """`listed`: the pictures' ids; `segmented`: those with a mask."""
        kinds = [kind for kind, there in (("boxes", (root / "Annotations").is_dir()), ("mask", segmented)) if there]
        super().__init__(root, split, CLASSES, kinds, [root / "JPEGImages" / f"{name}.jpg" for name in listed])
        self._listed = listed
        self._segmented = frozenset(segmented)

    def having(self, kind: str) -> Sequence[int]:
        if kind != "mask":
            return super().having(kind)
        return [index for index, name in enumerate(self._listed) if name in self._segmented]

    def sample(self, index: int) -> Sample:
        name, path = self._listed[index], self.picture(index)
        if not path.is_file():
            raise InputError(f"{path}: no such file (listed in {self.root / 'ImageSets'})")
        mask = self._mask(name) if name in self._segmented else None
        return Sample(path, boxes=self._boxes(name) if "boxes" in self.kinds else None, mask=mask)

    def _mask(self, name: str) -> np.ndarray:
        path = self.root / "SegmentationClass" / f"{name}.png"
        mask = read_plane(path, "a palette picture of class numbers")
        wrong = mask[(mask > len(CLASSES)) & (mask != IGNORE)]
        if wrong.size:
            raise InputError(f"{path}: class number {wrong[0]}, expected 0 to {len(CLASSES)} or {IGNORE}")
        return mask.astype(np.uint8)

    def _boxes(self, name: str) -> Boxes | None:
        path = self.root / "Annotations" / f"{name}.xml"
        if self.split == "test" and not path.is_file():  # the test annotations of most years are not public
            return None
        corners, labels, odd = [], [], []
        for item in _read_xml(path).iter("object"):
            kind = _text(item, "name", path)
            if kind not in CLASSES:
                raise InputError(f"{path}: unknown class '{kind[:40]}'")
            box = item.find("bndbox")
            if box is None:
                raise InputError(f"{path}: object '{kind}' has no bndbox")
            try:
                x0, y0, x1, y1 = (float(_text(box, key, path)) for key in ("xmin", "ymin", "xmax", "ymax"))
            except ValueError as error:
                raise error if isinstance(error, InputError) else InputError(f"{path}: bndbox: {error}") from None
            if not np.isfinite([x0, y0, x1, y1]).all():
                raise InputError(f"{path}: bndbox {x0:g} {y0:g} {x1:g} {y1:g}, expected finite numbers")
            corners.append((x0 - 1, y0 - 1, x1, y1))  # VOC counts pixels from 1 and includes the last
            labels.append(CLASSES.index(kind))
            odd.append((item.findtext("difficult") or "0").strip() == "1")
        return Boxes.of(corners, labels, odd)


def is_voc(root: Path) -> bool:
    """Is this, or does this hold, a folder VOC20xx?"""
    return bool(_years(root))


def open_voc(root: Path, split: str) -> Voc:
    """The newest year below `root`; another one by its own folder. Raises InputError where the split is not listed."""
    years = _years(root)
    if not years:
        raise InputError(f"{root}: no VOC2012/ImageSets (nor another year's)")
    folder = years[-1]
    main, segmentation = (folder / "ImageSets" / part / f"{split}.txt" for part in ("Main", "Segmentation"))
    segmented = _ids(segmentation) if segmentation.is_file() else []
    if not main.is_file() and not segmented:
        raise InputError(f"{main}: no such file (expected the ids of split '{split}')")
    return Voc(folder, split, _ids(main) if main.is_file() else segmented, segmented)


def _ids(path: Path) -> list[str]:
    """The first word of each line. Raises InputError for one that would lead out of the folder."""
    found = [line.split()[0] for line in text_lines(path, "an id a line")]
    for name in found:
        if "/" in name or "\\" in name:
            raise InputError(f"{path}: '{name[:60]}' is not an id")
    return found


def _years(root: Path) -> list[Path]:
    candidates = [root, *sorted(root.glob("VOC20??")), *sorted(root.glob("VOCdevkit/VOC20??"))]
    return [path for path in candidates if (path / "ImageSets").is_dir() and (path / "JPEGImages").is_dir()]


def _read_xml(path: Path) -> ElementTree.Element:
    """The root element. A document type is refused before anything is expanded: entities cannot be declared without
    one, so neither nested entities nor files named by them are ever followed. Raises InputError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror} (expected annotations)") from None
    if len(data) > _MAX_XML_BYTES:
        raise InputError(f"{path}: {len(data)} bytes, expected at most {_MAX_XML_BYTES}")

    def refuse(*_: object) -> None:
        raise InputError(f"{path}: declares a document type, which VOC's annotations have not")

    check = expat.ParserCreate()
    check.StartDoctypeDeclHandler = refuse
    try:
        check.Parse(data, True)
        return ElementTree.fromstring(data)
    except (expat.ExpatError, ElementTree.ParseError, LookupError) as error:
        raise InputError(f"{path}: not XML ({error})") from None


def _text(item: ElementTree.Element, key: str, path: Path) -> str:
    found = (item.findtext(key) or "").strip()
    if not found:
        raise InputError(f"{path}: no <{key}> in <{item.tag}>")
    return found
