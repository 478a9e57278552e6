"""ImageNet: as the ILSVRC archive has it, or as folders of classes.

Data/CLS-LOC/{train/nXXXX/*.JPEG, val/*.JPEG}, LOC_synset_mapping.txt, LOC_val_solution.csv     ILSVRC (Kaggle)
{train,val,test}/CLASS/*.JPEG                                                                   split folders
CLASS/*.jpg                                                                                     classes alone: train
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from vidlbc.data.corpus import split_name
from vidlbc.data.picture_sets.base import PICTURE_SUFFIXES, PictureSet, Sample, listing, pictures_under, text_lines
from vidlbc.errors import InputError

_ILSVRC = Path("Data") / "CLS-LOC"
_SYNSETS = "LOC_synset_mapping.txt"
_SOLUTION = "LOC_val_solution.csv"


class ImageNet(PictureSet):
    """Pictures with one label each."""

    form = "imagenet"

    def __init__(
        self, root: Path, split: str, classes: Sequence[str], pictures: Sequence[Path], labels: Sequence[int | None]
    ):
        super().__init__(root, split, classes, ("label",) if classes else (), pictures)
        self._labels = labels

    def label(self, index: int) -> int | None:
        return self._labels[index]

    def sample(self, index: int) -> Sample:
        return Sample(self.picture(index), self.label(index))


def is_imagenet(root: Path) -> bool:
    """ILSVRC's own folders, split folders of class folders, or folders that hold nothing but pictures."""
    if (root / _ILSVRC).is_dir():
        return True
    folders = [path for path in listing(root, "a data set") if path.is_dir()]
    splits = [path for path in folders if split_name(path.name)]
    if splits:
        return len(splits) == len(folders) and any(_class_folders(path) for path in splits)
    loose = any(path.is_file() and path.suffix.lower() in (".csv", ".json") for path in root.iterdir())
    return len(folders) > 1 and not loose and len(_class_folders(root)) == len(folders)


def open_imagenet(root: Path, split: str) -> ImageNet:
    """Raises InputError: no such split, no class folder, a class or a validation picture that the lists do not know."""
    if (root / _ILSVRC).is_dir():
        return _open_ilsvrc(root, split)
    folders = {split_name(path.name): path for path in listing(root, "class folders") if path.is_dir()}
    if None not in folders and folders:
        if split not in folders:
            raise InputError(f"{root}: no split '{split}' (found: {', '.join(sorted(filter(None, folders)))})")
        trained = _class_folders(folders.get("train", folders[split]))
        return _of_folders(root, split, [path.name for path in trained], _class_folders(folders[split]))
    if split != "train":
        raise InputError(f"{root}: class folders without splits are all train, no split '{split}'")
    found = _class_folders(root)
    return _of_folders(root, split, [path.name for path in found], found)


def _open_ilsvrc(root: Path, split: str) -> ImageNet:
    synsets = [line.partition(" ") for line in text_lines(root / _SYNSETS, "'nXXXXXXXX name' lines")]
    index = {synset: number for number, (synset, _, _) in enumerate(synsets)}
    classes = [f"{synset} {name.partition(',')[0]}".strip() for synset, _, name in synsets]
    folder = root / _ILSVRC / split
    if split == "train":
        return _of_folders(root, split, classes, _class_folders(folder), index)
    pictures = pictures_under(folder) if listing(folder, f"the {split} pictures") else []
    if split == "test":
        return ImageNet(root, split, (), pictures, [None] * len(pictures))
    by_class = _class_folders(folder)
    if by_class:  # val sorted into class folders, as most trainers want it
        return _of_folders(root, split, classes, by_class, index)
    answers = _read_solution(root / _SOLUTION, index)
    for path in pictures:
        if path.stem not in answers:
            raise InputError(f"{path}: not in {root / _SOLUTION}")
    return ImageNet(root, split, classes, pictures, [answers[path.stem] for path in pictures])


def _read_solution(path: Path, index: dict[str, int]) -> dict[str, int]:
    """`ImageId,PredictionString` rows; a prediction string is `synset x0 y0 x1 y1` once or more."""
    found: dict[str, int] = {}
    for number, row in enumerate(csv.reader(text_lines(path, "ImageId,PredictionString rows")), 1):
        if number == 1 and row[:1] == ["ImageId"]:
            continue
        synset = row[1].split()[0] if len(row) > 1 and row[1].strip() else ""
        if synset not in index:
            raise InputError(f"{path} row {number}: unknown class '{synset[:40]}' (expected ImageId,synset ...)")
        found[row[0]] = index[synset]
    return found


def _of_folders(
    root: Path, split: str, classes: Sequence[str], folders: Sequence[Path], index: dict[str, int] | None = None
) -> ImageNet:
    """`index`: the class of a folder, where its name is not the class's own."""
    index = index or {name: number for number, name in enumerate(classes)}
    if not folders:
        raise InputError(f"{root}: split '{split}' has no class folders with pictures")
    for folder in folders:
        if folder.name not in index:
            raise InputError(f"{folder}: unknown class '{folder.name}' (not among the {len(classes)} known)")
    rows = [(picture, index[folder.name]) for folder in folders for picture in pictures_under(folder)]
    return ImageNet(root, split, classes, [picture for picture, _ in rows], [label for _, label in rows])


def _class_folders(folder: Path) -> list[Path]:
    """Folders that hold a picture themselves."""
    found = [path for path in listing(folder, "class folders") if path.is_dir()]
    return [path for path in found if any(p.suffix.lower() in PICTURE_SUFFIXES for p in path.iterdir())]
