"""Rates from true file sizes, and the Bjontegaard difference between two rate-distortion curves."""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from vidlbc.errors import InputError


def bits_per_pixel(size_bytes: int, frames: int, height: int, width: int) -> float:
    """8 * bytes / (frames * height * width), with the true size of the pictures, not the padded one."""
    if min(frames, height, width) < 1 or size_bytes < 0:
        raise InputError(f"no bits per pixel for {size_bytes} bytes of {frames} frames of {height} x {width}")
    return 8.0 * size_bytes / (frames * height * width)


def kilobits_per_second(size_bytes: int, frames: int, fps: float | Fraction) -> float:
    """8 * bytes / duration / 1000, duration = frames / fps."""
    if frames < 1 or not fps > 0 or size_bytes < 0:
        raise InputError(f"no kbit/s for {size_bytes} bytes of {frames} frames at {fps} frames/s")
    return 8.0 * size_bytes * float(fps) / frames / 1000.0


def bd_rate(
    anchor_rate: Sequence[float],
    anchor_quality: Sequence[float],
    rate: Sequence[float],
    quality: Sequence[float],
    method: str = "akima",
) -> float | None:
    """Mean difference in rate at equal quality, in percent; negative: fewer bits than the anchor.

    From the package `bjontegaard`. Akima interpolation is JVET's present practice; `cubic` is Bjontegaard's own.
    None where the qualities overlap over less than half of the shorter curve: an average over so little means nothing.
    """
    anchor = _curve("anchor", anchor_rate, anchor_quality)
    ours = _curve("tested", rate, quality)
    low, high = max(anchor[1][0], ours[1][0]), min(anchor[1][-1], ours[1][-1])
    span = min(anchor[1][-1] - anchor[1][0], ours[1][-1] - ours[1][0])
    if high - low < 0.5 * span:
        return None
    import bjontegaard

    value = bjontegaard.bd_rate(*anchor, *ours, method=method, require_matching_points=False, min_overlap=0.0)
    return float(value)


def _curve(name: str, rate: Sequence[float], quality: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """The points in order of rate; quality must rise with it."""
    if len(rate) != len(quality) or len(rate) < 4:
        raise InputError(f"the {name} curve needs at least 4 rates and qualities, got {len(rate)} and {len(quality)}")
    if not all(math.isfinite(v) for v in (*rate, *quality)) or min(rate) <= 0:
        raise InputError(f"the {name} curve needs finite values and rates above 0")
    order = np.argsort(rate)
    r, q = np.asarray(rate, float)[order], np.asarray(quality, float)[order]
    if not (np.diff(q) > 0).all() or not (np.diff(r) > 0).all():
        raise InputError(f"the {name} curve must rise in quality with the rate, got {q.tolist()}")
    return r, q
