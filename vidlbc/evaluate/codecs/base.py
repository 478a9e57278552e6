"""A codec to compare with: frames to the bytes of a file and back, at a quality of its own scale."""

from abc import ABC, abstractmethod
from fractions import Fraction

import numpy as np


class Anchor(ABC):
    """`name` on the command line and in every table; `scale`: what its qualities are called; `qualities`: by default,
    by rising rate; `settings`: everything else that decides its bytes, in words; `suffix`: of its files."""

    name: str
    suffix: str
    scale: str
    qualities: tuple[int, ...]
    settings: str

    @abstractmethod
    def encode(self, frames: np.ndarray, quality: int, fps: Fraction) -> bytes:
        """uint8 (T, H, W, 3) -> the whole file. Raises InputError for frames that it cannot code."""

    @abstractmethod
    def decode(self, data: bytes, height: int, width: int) -> np.ndarray:
        """The file -> uint8 (T, `height`, `width`, 3)."""

    @abstractmethod
    def check(self, quality: int) -> None:
        """Raises InputError for a quality that is not on the scale."""
