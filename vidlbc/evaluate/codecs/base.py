"""A codec in a comparison: frames to the bytes of a file and back, at a quality of its own scale."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from fractions import Fraction

import numpy as np


class Anchor(ABC):
    """`name` on the command line and in every table; `scale`: what its qualities are called; `qualities`: by default,
    by rising rate; `steps`: all that are tried to meet a number of bytes, by rising rate; `settings`: everything else
    that decides its bytes, in words; `suffix`: of its files."""

    name: str
    suffix: str
    scale: str
    qualities: tuple[int, ...]
    steps: Sequence[float]
    settings: str

    @abstractmethod
    def encode(self, frames: np.ndarray, quality: float, fps: Fraction) -> bytes:
        """uint8 (T, H, W, 3) -> the whole file. Raises InputError for frames that it cannot code."""

    @abstractmethod
    def decode(self, data: bytes, height: int | None = None, width: int | None = None) -> np.ndarray:
        """The file -> uint8 (T, `height`, `width`, 3); None: as many as were coded, padding included."""

    @abstractmethod
    def check(self, quality: float) -> None:
        """Raises InputError for a quality that is not on the scale."""
