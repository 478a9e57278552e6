"""The quality at which a codec meets a number of bytes."""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from vidlbc.evaluate.codecs.base import Anchor

# What x264 at equal bytes is told; its decisions depend on it a little, and clips of pictures have no rate.
X264_FPS = Fraction(15)


def nearest(
    anchor: Anchor, clips: Sequence[np.ndarray], target: int, fps: Fraction, tolerance: float = 0.01
) -> tuple[float, list[bytes]]:
    """A quality of `anchor.steps` at which the clips' files together have `target` bytes, and those files.

    The first one found within `tolerance` of the target, or else the nearest there is. Guesses are bracketed and step
    as an H.264 quantiser's would (half the bytes every 6), which takes about half of the trials of bisection.
    """
    low, high, at = -1, len(anchor.steps), len(anchor.steps) // 2
    best: tuple[int, float, list[bytes]] | None = None
    while high - low > 1:
        files = [anchor.encode(clip, anchor.steps[at], fps) for clip in clips]
        size = sum(map(len, files))
        if best is None or abs(size - target) < best[0]:
            best = abs(size - target), anchor.steps[at], files
        off = math.log(size / target)
        if abs(off) <= math.log1p(tolerance):
            break
        low, high = (low, at) if off > 0 else (at, high)
        unit = abs(anchor.steps[min(at + 1, len(anchor.steps) - 1)] - anchor.steps[max(at - 1, 0)]) / 2
        step = round(-off * 6 / math.log(2) / unit)
        at = min(max(at + step, low + 1), high - 1)
    assert best is not None
    return best[1:]
