"""BSDS500: pictures with the regions and boundaries that people drew.

    images/bsds/bsds500_{train,val}_ID.jpg, segmentation/{train,val}_ID_{segments,boundaries}.png    regions, boundaries
    images/{train,val,test}/ID.jpg, groundTruth/                                                     as published

The published ground truth is MATLAB files, which are not read: such a folder gives pictures alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vidlbc.data.picture_sets.base import PictureSet, Sample, listing, pictures_under, read_plane
from vidlbc.errors import InputError

_NAME = re.compile(r"^bsds500_(train|val|test)_(.+)$")
_PLAIN = Path("images") / "bsds"


class Bsds(PictureSet):
    """Regions of one annotator; boundaries as the mean over annotators."""

    form = "bsds"

    def __init__(self, root: Path, split: str, pictures: Sequence[Path], plain: bool):
        """`plain`: the annotations are pictures in `segmentation/`."""
        super().__init__(root, split, (), ("regions", "boundaries") if plain else (), pictures)

    def sample(self, index: int) -> Sample:
        path = self.picture(index)
        if not self.kinds:
            return Sample(path)
        stem = path.stem.removeprefix("bsds500_")
        folder = self.root / "segmentation"
        regions = read_plane(folder / f"{stem}_segments.png", f"the regions of {path.name}").astype(np.int32)
        edges = read_plane(folder / f"{stem}_boundaries.png", f"the boundaries of {path.name}")
        if edges.dtype != np.uint8 or edges.shape != regions.shape:
            found = f"{edges.dtype} {edges.shape}, expected uint8 {regions.shape}"
            raise InputError(f"{folder / stem}_boundaries.png: {found}")
        return Sample(path, regions=regions, boundaries=edges.astype(np.float32) / 255)


def is_bsds(root: Path) -> bool:
    """Either layout."""
    published = (root / "groundTruth").is_dir() or (root / "ground_truth").is_dir()
    return (root / _PLAIN).is_dir() and (root / "segmentation").is_dir() or published and (root / "images").is_dir()


def open_bsds(root: Path, split: str) -> Bsds:
    """Raises InputError where the split has no pictures."""
    if (root / _PLAIN).is_dir():
        named = [(path, _NAME.match(path.stem)) for path in pictures_under(root / _PLAIN)]
        return Bsds(root, split, [path for path, match in named if match and match[1] == split], True)
    folder = root / "images" / split
    return Bsds(root, split, [p for p in listing(folder, f"the {split} pictures") if p.suffix == ".jpg"], False)
