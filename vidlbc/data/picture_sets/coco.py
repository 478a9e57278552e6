"""COCO: `annotations/instances_{train,val}2017.json` beside `train2017/` and `val2017/` (2014 likewise).

The test split has `annotations/image_info_test2017.json` and no annotations. Category ids have gaps: classes are
numbered in the order of their ids.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from vidlbc.data.picture_sets.base import IGNORE, Boxes, PictureSet, Sample, picture_size
from vidlbc.data.picture_sets.run_lengths import RunLengthError, decode_counts, fill_runs
from vidlbc.errors import InputError

_FILE = re.compile(r"^(?:instances_(train|val)|image_info_(test))(\d{4})\.json$")

_KEYS = {
    "categories": ("id", "name"),
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("id", "image_id", "category_id", "bbox", "area", "segmentation"),
}
_NUMBERS = {"id", "image_id", "category_id", "area", "height", "width"}


class Coco(PictureSet):
    """Boxes and, from the instances' outlines, a mask: 0 is background, class c is c + 1, crowds are ignored.

    Where instances overlap the smaller one is on top. Outlines are filled by Pillow: a mask's edge may lie a pixel off
    that of pycocotools.
    """

    form = "coco"

    def __init__(self, root: Path, split: str, annotations: Path, folder: Path):
        """Raises InputError where `annotations` is not COCO's."""
        data = _read(annotations)
        categories = sorted(data["categories"], key=lambda category: category["id"])
        kinds = ("boxes", "mask") if "annotations" in data else ()
        self._images = data["images"]
        for image in self._images:
            name = Path(image["file_name"])
            if name.is_absolute() or ".." in name.parts:
                raise InputError(f"{annotations}: image {image['id']}: '{name}' leads out of {folder}")
        super().__init__(
            root, split, [c["name"] for c in categories], kinds, [folder / image["file_name"] for image in self._images]
        )
        self.mask_classes = ("background", *self.classes)
        self._file = annotations
        self._class = {category["id"]: index for index, category in enumerate(categories)}
        self._of: dict[Any, list[dict[str, Any]]] = defaultdict(list)
        known = {image["id"] for image in self._images}
        for found in data.get("annotations", ()):
            if found["image_id"] not in known:
                raise InputError(f"{annotations}: annotation {found['id']} is of image {found['image_id']}, not listed")
            if found["category_id"] not in self._class:
                raise InputError(f"{annotations}: annotation {found['id']} has unknown category {found['category_id']}")
            self._of[found["image_id"]].append(found)

    def sample(self, index: int) -> Sample:
        path = self.picture(index)
        found, image = picture_size(path), self._images[index]
        if found != (image["width"], image["height"]):
            says = f"{self._file} says {(image['width'], image['height'])}"
            raise InputError(f"{path}: {found} pixels, but {says}")
        if "boxes" not in self.kinds:
            return Sample(path)
        instances = self._of.get(image["id"], [])
        corners = [(x, y, x + w, y + h) for x, y, w, h in (each["bbox"] for each in instances)]
        labels = [self._class[each["category_id"]] for each in instances]
        boxes = Boxes.of(corners, labels, [bool(each.get("iscrowd")) for each in instances])
        return Sample(path, boxes=boxes, mask=self._mask(*found, instances))

    def _mask(self, width: int, height: int, found: list[dict[str, Any]]) -> np.ndarray:
        mask = np.zeros((height, width), np.uint8)
        for each in sorted(found, key=lambda each: -each["area"]):
            value = IGNORE if each.get("iscrowd") else self._class[each["category_id"]] + 1
            mask[self._shape(each, height, width)] = value
        return mask

    def _shape(self, found: dict[str, Any], height: int, width: int) -> np.ndarray:
        """bool (H, W) of one instance."""
        from PIL import Image, ImageDraw

        outline = found["segmentation"]
        try:
            if isinstance(outline, dict):
                if list(outline["size"]) != [height, width]:
                    raise RunLengthError(f"size {outline['size']}, but the image is {[height, width]}")
                counts = outline["counts"]
                return fill_runs(decode_counts(counts) if isinstance(counts, str) else counts, height, width)
            picture = Image.new("1", (width, height))
            for polygon in outline:
                ImageDraw.Draw(picture).polygon([float(value) for value in polygon], fill=1)
            return np.array(picture)
        except (RunLengthError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{self._file}: annotation {found['id']}: damaged segmentation ({error})") from None


def is_coco(root: Path) -> bool:
    """Is there an annotation file of COCO's name?"""
    return bool(_annotations(root))


def open_coco(root: Path, split: str) -> Coco:
    """The split's newest year. Raises InputError: no annotations of it, no folder of its pictures."""
    files = [path for name, path in _annotations(root) if name == split]
    if not files:
        found = ", ".join(sorted({name for name, _ in _annotations(root)})) or "none"
        raise InputError(f"{root / 'annotations'}: no instances_{split}2017.json (splits found: {found})")
    match = _FILE.match(files[-1].name)
    assert match is not None
    folder = root / f"{split}{match[3]}"
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder (expected the pictures of {files[-1].name})")
    return Coco(root, split, files[-1], folder)


def _annotations(root: Path) -> list[tuple[str, Path]]:
    """(split, file), sorted by year."""
    folder = root / "annotations"
    found = [(match, folder / match[0]) for path in folder.glob("*.json") if (match := _FILE.match(path.name))]
    return [(match[1] or match[2], path) for match, path in sorted(found, key=lambda pair: pair[0][3])]


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    for part, keys in _KEYS.items():
        rows = data.get(part) if isinstance(data, dict) else None
        if rows is None and part == "annotations" and "image_info" in path.name:
            continue
        if not isinstance(rows, list):
            raise InputError(f"{path}: no list '{part}' (expected COCO's instances)")
        for number, row in enumerate(rows):
            missing = [key for key in keys if not isinstance(row, dict) or key not in row]
            if missing:
                raise InputError(f"{path}: {part} {number} has no '{missing[0]}'")
            for key in _NUMBERS & row.keys():
                if not _is_number(row[key]):
                    raise InputError(f"{path}: {part} {number} has {key} {row[key]!r}, expected a number")
            box = row["bbox"] if part == "annotations" else [0, 0, 0, 0]
            if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
                raise InputError(f"{path}: annotation {row['id']}: bbox {box}, expected [x, y, width, height]")
    return data


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)
