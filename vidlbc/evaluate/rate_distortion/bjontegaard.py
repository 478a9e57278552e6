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

    Logarithms of rates, interpolated over quality and integrated over the range that both curves cover. `method`:
    `akima`, JVET's present practice, `pchip`, or `cubic`, Bjontegaard's own (VCEG-M33: one polynomial).
    None where the qualities overlap over less than half of the shorter curve: an average over so little means nothing.
    """
    anchor = _curve("anchor", anchor_rate, anchor_quality)
    ours = _curve("tested", rate, quality)
    low, high = max(anchor[1][0], ours[1][0]), min(anchor[1][-1], ours[1][-1])
    span = min(anchor[1][-1] - anchor[1][0], ours[1][-1] - ours[1][0])
    if high - low < 0.5 * span:
        return None
    areas = [_area(quality, np.log(rate), low, high, method) for rate, quality in (anchor, ours)]
    return float(100 * np.expm1((areas[1] - areas[0]) / (high - low)))


def _area(x: np.ndarray, y: np.ndarray, low: float, high: float, method: str) -> float:
    """Under the curve through the points, from `low` to `high`."""
    from scipy.interpolate import Akima1DInterpolator, PchipInterpolator

    if method == "cubic":
        integral = np.polyint(np.polyfit(x, y, 3))
        return float(np.polyval(integral, high) - np.polyval(integral, low))
    curve = {"akima": Akima1DInterpolator, "pchip": PchipInterpolator}[method](x, y)
    return float(curve.integrate(low, high))


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
