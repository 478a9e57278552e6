"""Percentile bootstrap over videos."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from vidlbc.errors import InputError


def bootstrap_ci(
    values: Sequence[float] | NDArray,
    statistic: Callable[[NDArray], float] | None = None,
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """(low, high) of a statistic of `values`, one row a video, resampled with replacement; the mean by default."""
    data = np.asarray(values)
    if data.shape[:1] in ((), (0,)):
        raise InputError("a confidence interval needs at least one value, got none")
    if not 0.0 < level < 1.0:
        raise InputError(f"the confidence level must be in (0, 1), got {level}")
    rng = np.random.default_rng(seed)
    n = len(data)
    samples = [data[rng.integers(0, n, n)] for _ in range(draws)]
    results = [float(np.mean(s)) if statistic is None else float(statistic(s)) for s in samples]
    low, high = np.quantile(results, [(1.0 - level) / 2.0, (1.0 + level) / 2.0])
    return float(low), float(high)


def paired_difference(values: NDArray, against: NDArray, seed: int = 0) -> tuple[float, tuple[float, float]]:
    """Mean of `values` less `against`, of the same videos in the same order, and its 95% interval."""
    difference = np.asarray(values) - np.asarray(against)
    return float(difference.mean()), bootstrap_ci(difference, seed=seed)
