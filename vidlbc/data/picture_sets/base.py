"""What a picture set is: pictures of one split, each with the annotations that the data set has of it.

`picture(i)` and `label(i)` cost nothing; `sample(i)` reads all annotations of one picture.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidlbc.errors import InputError

IGNORE = 255
PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff"})


@dataclass(frozen=True)
class Boxes:
    """N boxes in pixels: `corners` float32 (N, 4) as x0, y0, x1, y1, the far edges not included; `labels` int64 (N,)
    into `PictureSet.classes`; `odd` bool (N,): crowds, groups and what the data set calls difficult, which its own
    evaluation leaves out."""

    corners: np.ndarray
    labels: np.ndarray
    odd: np.ndarray

    @classmethod
    def of(cls, corners: Sequence[Sequence[float]], labels: Sequence[int], odd: Sequence[bool]) -> Boxes:
        """From lists, which may be empty."""
        return cls(np.array(corners, np.float32).reshape(-1, 4), np.array(labels, np.int64), np.array(odd, bool))


@dataclass(frozen=True)
class Sample:
    """One picture and what is known of it; None is what the data set does not say.

    label: class index. weak: the labels name something in the picture, not the picture. mask: uint8 (H, W) of class
    indices, 255 ignored. regions: int32 (H, W), a number for each region. boundaries: float32 (H, W) in [0, 1], how
    many annotators see an edge. depth: float32 (H, W), disparity in pixels, 0 unknown.
    """

    path: Path
    label: int | None = None
    boxes: Boxes | None = None
    mask: np.ndarray | None = None
    regions: np.ndarray | None = None
    boundaries: np.ndarray | None = None
    depth: np.ndarray | None = None
    weak: bool = False


class PictureSet(ABC):
    """One split of a data set. `kinds`: which of Sample's annotations (`label`, `boxes`, ...) it has.

    Labels and boxes index `classes`, masks `mask_classes`, which may have a background. `weak`: so are all its labels.
    """

    form: str
    weak: bool = False
    mask_classes: tuple[str, ...] = ()

    def __init__(self, root: Path, split: str, classes: Sequence[str], kinds: Sequence[str], pictures: Sequence[Path]):
        """Raises InputError where there is no picture."""
        if not pictures:
            raise InputError(f"{root}: {self.form} split '{split}' has no pictures")
        self.root, self.split, self.classes, self.kinds = root, split, tuple(classes), tuple(kinds)
        self._pictures = pictures

    def __len__(self) -> int:
        return len(self._pictures)

    def picture(self, index: int) -> Path:
        """Where the picture lies; that it exists is found when it is read."""
        return self._pictures[index]

    def label(self, index: int) -> int | None:
        """The class of picture `index`, where the set says one."""
        return None

    def having(self, kind: str) -> Sequence[int]:
        """The pictures that have annotations of this kind; in some sets only a part has masks."""
        return range(len(self)) if kind in self.kinds else ()

    @abstractmethod
    def sample(self, index: int) -> Sample:
        """Everything about picture `index`. Raises InputError, naming the file, for what is missing or damaged."""


def pictures_under(folder: Path) -> list[Path]:
    """Every picture below `folder`, sorted."""
    return sorted(p for p in folder.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES and p.is_file())


def listing(folder: Path, what: str) -> list[Path]:
    """The folder's entries, sorted, hidden ones left out. Raises InputError where it is no folder."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder (expected {what})")
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def text_lines(path: Path, what: str) -> list[str]:
    """The lines of a text file that are not blank. Raises InputError: missing, not UTF-8, empty."""
    if not path.is_file():
        raise InputError(f"{path}: no such file (expected {what})")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").split("\n")]
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text list (byte {error.start} is not UTF-8)") from None
    found = [line for line in lines if line]
    if not found:
        raise InputError(f"{path}: empty list (expected {what})")
    return found


def picture_size(path: Path) -> tuple[int, int]:
    """(width, height), from the header. Raises InputError where the file is missing or no picture."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: {_reason(error)}") from None


def read_plane(path: Path, what: str) -> np.ndarray:
    """An annotation kept as a one-channel or palette picture: (H, W) of its own numbers, palettes not applied.

    Raises InputError: missing, no picture, or of several channels.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            plane = np.array(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: {_reason(error)} (expected {what})") from None
    if plane.ndim != 2:
        raise InputError(f"{path}: {plane.shape[2]} channels (expected {what}: one channel of numbers)")
    return plane


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return (str(error) or type(error).__name__).splitlines()[0]
