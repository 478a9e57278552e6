"""OpenImages V4 to V7: image-level labels and boxes in CSV files, pictures in a folder of their split, by ImageID.

    *class-descriptions*.csv                            LabelName,DisplayName (older files have no header)
    *SPLIT-annotations-human-imagelabels*.csv           ImageID,..,LabelName,Confidence
    *SPLIT-annotations-bbox.csv                         ImageID,..,LabelName,..,XMin,XMax,YMin,YMax,IsGroupOf
    train/ (or train_0/ ...), validation/, test/        ImageID.jpg, also below images/

The lists lie in the root or in a folder of it. They name up to millions of pictures, of which a part may be on disk:
the set is the pictures that are both listed and there.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidlbc.data.corpus import split_name
from vidlbc.data.picture_sets.base import Boxes, PictureSet, Sample, listing, picture_size, pictures_under, text_lines
from vidlbc.errors import InputError

_LIST = re.compile(r"(?:^|[-_])(train|validation|test)-annotations-(human-imagelabels|bbox)")
_CLASSES = "class-descriptions"
_SIDES = {"xmin": "XMin", "ymin": "YMin", "xmax": "XMax", "ymax": "YMax"}


@dataclass(frozen=True)
class _Rows:
    """A table's rows sorted by picture: those of picture i are `starts[i]:starts[i + 1]` of every column."""

    ids: dict[str, int]
    starts: np.ndarray
    columns: dict[str, np.ndarray]

    def of(self, picture: str) -> dict[str, np.ndarray]:
        at = self.ids.get(picture)
        where = slice(0, 0) if at is None else slice(self.starts[at], self.starts[at + 1])
        return {name: values[where] for name, values in self.columns.items()}


class OpenImages(PictureSet):
    """A label is the positive image-level label of the highest confidence, the first listed of equals: it names
    something in the picture, so every label is weak. Boxes are given in pixels; groups are odd."""

    form = "openimages"
    weak = True

    def __init__(
        self,
        root: Path,
        split: str,
        classes: Sequence[str],
        pictures: Sequence[Path],
        labels: _Rows | None,
        boxes: _Rows | None,
    ):
        kinds = [kind for kind, rows in (("label", labels), ("boxes", boxes)) if rows is not None]
        super().__init__(root, split, classes, kinds, pictures)
        self._labels, self._boxes = labels, boxes

    def label(self, index: int) -> int | None:
        if self._labels is None:
            return None
        rows = self._labels.of(self.picture(index).stem)
        best = int(rows["confidence"].argmax()) if len(rows["class"]) else -1
        return int(rows["class"][best]) if best >= 0 and rows["confidence"][best] > 0 else None

    def sample(self, index: int) -> Sample:
        path = self.picture(index)
        return Sample(path, self.label(index), boxes=self._boxes_of(path), weak=True)

    def _boxes_of(self, path: Path) -> Boxes | None:
        if self._boxes is None:
            return None
        rows = self._boxes.of(path.stem)
        width, height = picture_size(path)
        sides = [rows[name] * side for name, side in zip(_SIDES, (width, height, width, height), strict=True)]
        corners = np.stack(sides, 1)
        return Boxes(corners.astype(np.float32), rows["class"].astype(np.int64), rows["group"] > 0)


def is_openimages(root: Path) -> bool:
    """Is there a list of OpenImages' name?"""
    return any(_LIST.search(path.name) for path in _lists(root))


def open_openimages(root: Path, split: str) -> OpenImages:
    """Raises InputError: no class descriptions, no list of the split, a list of another form, no picture on disk."""
    files = _lists(root)
    classes = sorted((path for path in files if _CLASSES in path.name), key=lambda path: "boxable" not in path.name)
    if not classes:
        raise InputError(f"{root}: no {_CLASSES}*.csv (expected OpenImages' class names)")
    names, index = _read_classes(classes[0])
    chosen = {m[2]: path for path in files if (m := _LIST.search(path.name)) and split_name(m[1]) == split}
    if not chosen:
        raise InputError(f"{root}: no list of split '{split}' (expected {split}-annotations-human-imagelabels.csv)")
    labels = boxes = None
    if "human-imagelabels" in chosen:
        labels = _read_rows(chosen["human-imagelabels"], index, {"confidence": "Confidence"})
    if "bbox" in chosen:
        boxes = _read_rows(chosen["bbox"], index, {**_SIDES, "group": "IsGroupOf"})
    listed = {name for rows in (labels, boxes) if rows for name in rows.ids}
    pictures = [path for folder in _folders(root, split) for path in pictures_under(folder) if path.stem in listed]
    if not pictures:
        raise InputError(f"{root}: none of the {len(listed)} pictures listed for split '{split}' is there")
    return OpenImages(root, split, names, pictures, labels, boxes)


def _lists(root: Path) -> list[Path]:
    return sorted([*root.glob("*.csv"), *root.glob("*/*.csv")])


def _folders(root: Path, split: str) -> list[Path]:
    """The split's folders of pictures: `train`, `train_0`, `validation`, in the root or in `images`."""
    places = [*listing(root, "OpenImages"), *(listing(root / "images", "") if (root / "images").is_dir() else [])]
    return [path for path in places if path.is_dir() and split_name(re.sub(r"_[0-9a-f]$", "", path.name)) == split]


def _read_classes(path: Path) -> tuple[list[str], dict[str, int]]:
    rows = [row for row in csv.reader(text_lines(path, "LabelName,DisplayName rows")) if row[:1] != ["LabelName"]]
    for number, row in enumerate(rows, 1):
        if len(row) != 2:
            raise InputError(f"{path} row {number}: expected LabelName,DisplayName, found '{','.join(row)[:60]}'")
    return [name for _, name in rows], {code: number for number, (code, _) in enumerate(rows)}


def _read_rows(path: Path, index: dict[str, int], numbers: dict[str, str]) -> _Rows:
    """Rows of classes in `index`, with the columns `numbers` (ours: theirs). Arrow reads tens of millions of rows."""
    import pyarrow as pa
    import pyarrow.compute as pc
    from pyarrow import csv as arrow_csv

    types: dict[str, Any] = {"ImageID": pa.string(), "LabelName": pa.string()}
    types.update(dict.fromkeys(numbers.values(), pa.float32()))
    options = arrow_csv.ConvertOptions(column_types=types, include_columns=list(types), strings_can_be_null=False)
    try:
        table = arrow_csv.read_csv(path, convert_options=options)
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: {str(error).splitlines()[0]} (expected columns {', '.join(types)})") from None
    codes = pc.index_in(table["LabelName"], pa.array(list(index)))
    known = pc.is_valid(codes)
    table, kinds = table.filter(known), codes.filter(known)
    if not len(table):
        raise InputError(f"{path}: no row of a class of the class descriptions")
    pictures = table["ImageID"].combine_chunks().dictionary_encode()
    which = pictures.indices.to_numpy()
    order = np.argsort(which, kind="stable")
    columns = {ours: np.nan_to_num(table[theirs].to_numpy())[order] for ours, theirs in numbers.items()}
    columns["class"] = kinds.to_numpy()[order]
    ids = pictures.dictionary.to_pylist()
    starts = np.searchsorted(which[order], np.arange(len(ids) + 1))
    return _Rows({name: at for at, name in enumerate(ids)}, starts, columns)
