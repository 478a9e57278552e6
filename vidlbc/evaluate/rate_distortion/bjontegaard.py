"""The Bjontegaard difference between two rate-distortion curves."""

import math
from collections.abc import Sequence

import numpy as np

from vidlbc.errors import InputError


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
