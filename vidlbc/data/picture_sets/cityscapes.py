"""Cityscapes: `leftImg8bit/SPLIT/CITY/*_leftImg8bit.png`, `gtFine/` (semantic labels) and `disparity/` beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vidlbc.data.picture_sets.base import IGNORE, PictureSet, Sample, listing, read_plane
from vidlbc.errors import InputError

_PICTURES, _LABELS, _DISPARITY = "leftImg8bit", "gtFine", "disparity"


class Cityscapes(PictureSet):
    """Masks of the 19 classes that the benchmark trains on, all else ignored; depth as disparity.

    Disparity d = (p - 1) / 256 pixels of the 16-bit values p > 0; p = 0 is unknown (data set's README).
    """

    form = "cityscapes"

    def __init__(self, root: Path, split: str, kinds: Sequence[str], pictures: Sequence[Path]):
        names, self._train_id = _train_classes()
        super().__init__(root, split, names, kinds, pictures)
        self.mask_classes = self.classes

    def sample(self, index: int) -> Sample:
        path = self.picture(index)
        if not path.is_file():
            raise InputError(f"{path}: no such file")
        mask = depth = None
        if "mask" in self.kinds:
            labels = self._beside(path, _LABELS, "gtFine_labelIds")
            if labels.max(initial=0) > 255:
                raise InputError(f"{path}: label {labels.max()} in its gtFine_labelIds, expected at most 255")
            mask = self._train_id[labels]
        if "depth" in self.kinds:
            raw = self._beside(path, _DISPARITY, "disparity").astype(np.float32)
            depth = np.where(raw > 0, (raw - 1) / 256, 0).astype(np.float32)
        return Sample(path, mask=mask, depth=depth)

    def _beside(self, picture: Path, folder: str, ending: str) -> np.ndarray:
        name = picture.name.replace(f"_{_PICTURES}", f"_{ending}")
        return read_plane(self.root / folder / self.split / picture.parent.name / name, f"{ending} of {picture.name}")


def is_cityscapes(root: Path) -> bool:
    """Is there a leftImg8bit folder?"""
    return (root / _PICTURES).is_dir()


def open_cityscapes(root: Path, split: str) -> Cityscapes:
    """Raises InputError where the split has no folder or no pictures."""
    cities = [path for path in listing(root / _PICTURES / split, f"the {split} cities") if path.is_dir()]
    pictures = [picture for city in cities for picture in sorted(city.glob(f"*_{_PICTURES}.png"))]
    kinds = [kind for kind, folder in (("mask", _LABELS), ("depth", _DISPARITY)) if (root / folder / split).is_dir()]
    return Cityscapes(root, split, kinds, pictures)


def _train_classes() -> tuple[list[str], np.ndarray]:
    """Class names in the order of their train ids; the train id of every label id, uint8 (256,)."""
    from torchvision.datasets import Cityscapes as Published

    table = np.full(256, IGNORE, np.uint8)
    named = {c.train_id: c.name for c in Published.classes if 0 <= c.train_id < IGNORE}
    for each in Published.classes:
        if each.train_id in named:
            table[each.id] = each.train_id
    return [named[index] for index in sorted(named)], table
