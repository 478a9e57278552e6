"""How a decoded picture lies on the screen: the file's display matrix, as MP4, MOV, Matroska and H.264 have it.

This module is imported by every decoder process: it stays free of anything but numpy and the standard library.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

_RIGHT = 0.5  # degrees off a right angle that are none


@dataclass(frozen=True)
class Placement:
    """Mirrored left to right if `mirrored`, then turned counter-clockwise by `rotation`: 0, 90, 180 or 270 degrees.

    `odd`: the angle of a matrix that is none of these, which is not applied.
    """

    rotation: int = 0
    mirrored: bool = False
    odd: float = 0.0

    @classmethod
    def of(cls, matrix: bytes) -> Placement:
        """Of a display matrix, nine int32. One that turns by no right angle, or is damaged, changes nothing."""
        if len(matrix) < 36:
            return cls()
        a, b, _, c, d = (float(x) for x in np.frombuffer(matrix, np.int32)[:5])
        if not (a or b) or not (c or d):
            return cls()
        mirrored = a * d - b * c < 0
        degrees = -math.degrees(math.atan2(-b if mirrored else b, -a if mirrored else a)) % 360
        right = round(degrees / 90) * 90
        if abs(degrees - right) > _RIGHT:
            return cls(odd=degrees)
        return cls(right % 360, mirrored)

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """(H, W, 3) as coded -> as shown."""
        return np.rot90(picture[:, ::-1] if self.mirrored else picture, self.rotation // 90)
