"""Codecs with one setting that moves their rate, and the setting that meets a number of bytes.

x264 is what others are held against: a raw H.264 stream (Annex B, no container), libx264 medium, 4:2:0, CRF.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidlbc.errors import VidlbcError
from vidlbc.evaluate.codecs.ffmpeg import VideoCodec
from vidlbc.video.x264 import without_messages


class OutOfReach(VidlbcError):
    """A codec has no setting near the bytes wanted."""


class Coder(ABC):
    """Frames uint8 (T, H, W, 3) to bytes and back. `settings`: values of its one setting, by rising rate."""

    name: str
    setting: str
    settings: tuple[float, ...]

    @abstractmethod
    def encode(self, frames: np.ndarray, value: float) -> bytes: ...

    @abstractmethod
    def decode(self, data: bytes) -> np.ndarray: ...

    def seen(self, frames: np.ndarray, value: float, chosen: Sequence[int]) -> list[Tensor]:
        """What a head sees of the `chosen` frames: one tensor a level, here pictures (T, H, W, 3) uint8."""
        return [torch.from_numpy(self.decode(self.encode(frames, value))[list(chosen)])]


class X264(Coder):
    """Odd sides are padded by one, and stay so when decoded. `bare`: without the message, some 700 bytes a stream, in
    which libx264 names its settings; decoders do not need it. Raises InputError where PyAV has no libx264."""

    name, setting = "x264", "crf"
    settings = tuple(float(crf) / 4 for crf in range(4 * 51, -1, -1))

    def __init__(self, bare: bool = False) -> None:
        self.bare = bare
        self._codec = VideoCodec("x264")

    def encode(self, frames: np.ndarray, value: float) -> bytes:
        data = self._codec.stream(frames, value, Fraction(15))
        return without_messages(data) if self.bare else data

    def decode(self, data: bytes) -> np.ndarray:
        return self._codec.decode(data)


def nearest(coder: Coder, frames: np.ndarray, target: int, tolerance: float = 0.01) -> tuple[float, bytes]:
    """A setting whose bytes for one clip are within `tolerance` of `target`, or else the nearest one, and those bytes.

    Steps as large as an H.264 quantiser's would be (half the bytes every 6) take about half of the trials of `matched`.
    """
    low, high, at = -1, len(coder.settings), len(coder.settings) // 2
    found: dict[int, bytes] = {}
    while high - low > 1:
        found[at] = coder.encode(frames, coder.settings[at])
        off = math.log(len(found[at]) / target)
        if abs(off) <= math.log1p(tolerance):
            break
        low, high = (low, at) if off > 0 else (at, high)
        unit = abs(coder.settings[min(at + 1, len(coder.settings) - 1)] - coder.settings[max(at - 1, 0)]) / 2
        step = round(-off * 6 / math.log(2) / unit)
        at = min(max(at + step, low + 1), high - 1)
    best = min(found, key=lambda index: abs(math.log(len(found[index]) / target)))
    return coder.settings[best], found[best]


def matched(coder: Coder, clips: Sequence[np.ndarray], target: int, on_trial: Callable[[], Any] | None = None) -> float:
    """The setting at which the clips' bytes are nearest to `target`: bisection over the settings.

    Raises OutOfReach where even the ends of the range are more than twice too large or too small.
    """

    def size(index: int) -> int:
        if index not in sizes:
            sizes[index] = sum(len(coder.encode(clip, coder.settings[index])) for clip in clips)
            if on_trial is not None:
                on_trial()
        return sizes[index]

    sizes: dict[int, int] = {}
    low, high = 0, len(coder.settings) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(middle) < target else (low, middle)
    best = min((low, high), key=lambda index: abs(size(index) - target))
    if not target / 2 <= size(best) <= 2 * target:
        at = f"{coder.setting} {coder.settings[best]:g}"
        raise OutOfReach(f"{coder.name}: its nearest to {target} bytes are {size(best)} at {at}; change probe.qps")
    return coder.settings[best]
