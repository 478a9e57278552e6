"""Clips to look at side by side, in one video."""

import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from vidlbc.errors import InputError
from vidlbc.video import write_mp4

# Near what the eye can tell from the decoded frames; the captions have the true figures.
_SHOWN_CRF = 12
_LARGEST = 3 << 20  # bytes of a page's video: more is cut to fewer frames, not shown worse than it is


@dataclass(frozen=True)
class Panel:
    """One choice of a player: frames uint8 (T, H, W, 3), a name and what is to be said of them."""

    name: str
    caption: str
    frames: np.ndarray


@dataclass(frozen=True)
class Player:
    """Panels of the same clip, two at a time with a divider. Raises InputError where their shapes differ."""

    panels: tuple[Panel, ...]
    fps: Fraction | float

    def __post_init__(self) -> None:
        if len({panel.frames.shape for panel in self.panels}) != 1:
            raise InputError("a player's panels must be frames of the same clip")

    def video(self) -> tuple[bytes, int]:
        """An mp4 with the panels below one another: one video cannot run apart from itself; and how many frames it has.

        It has all of them, or as many leading ones as a page can carry.
        """
        stacked = np.concatenate([_even(panel.frames) for panel in self.panels], axis=1)
        frames = len(stacked)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "panels.mp4"
            while True:
                write_mp4(path, stacked[:frames], self.fps, crf=_SHOWN_CRF)
                size = path.stat().st_size
                if size <= _LARGEST or frames == 1:
                    return path.read_bytes(), frames
                frames = max(1, min(frames - 1, int(0.9 * frames * _LARGEST / size)))

    def spec(self) -> dict[str, Any]:
        height, width = _even(self.panels[0].frames).shape[1:3]
        told = [{"name": panel.name, "caption": panel.caption} for panel in self.panels]
        return {"width": width, "height": height, "panels": told}


def _even(frames: np.ndarray) -> np.ndarray:
    """4:2:0 pictures have even sides; a panel must begin on one."""
    return np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")
