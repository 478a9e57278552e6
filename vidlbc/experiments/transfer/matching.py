"""How well predicted boundaries match the annotators': F-measure and average precision within a distance.

The BSDS benchmark (Arbelaez et al., PAMI 2011) matches predicted and true pixels one to one within 0.0075 of the
diagonal. Here a pixel counts as matched when *any* pixel of the other map lies within that distance (dilation instead
of the bipartite assignment), which is kinder to doubled lines: figures compare with each other, not with published
ones.
Predictions are thinned by non-maximum suppression first, as there.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

TOLERANCE = 0.0075
THRESHOLDS = np.linspace(0, 1, 101)[1:-1]


@dataclass(frozen=True)
class BoundaryScore:
    """`ods`: best F at one threshold for the set, `ods_threshold`; `ois`: the best threshold of each picture; `ap`."""

    ods: float
    ods_threshold: float
    ois: float
    ap: float


def match_counts(prediction: NDArray, truth: NDArray) -> NDArray[np.float64]:
    """Thinned prediction and mean of the annotators' maps, (H, W) in [0, 1] -> (4, thresholds).

    Rows: predicted pixels that are matched, predicted pixels, true pixels that are matched, true pixels. A predicted
    pixel is matched by any annotator; a true one counts once for each annotator who drew it, as in the benchmark.
    """
    radius = TOLERANCE * math.hypot(*truth.shape)
    found, drawn = prediction.astype(np.float64), truth.astype(np.float64)
    near_truth = _dilate((drawn > 0).astype(np.float64), radius) > 0
    near_found = _dilate(found, radius)
    total = np.full(len(THRESHOLDS), drawn.sum())
    return np.stack([_above(found, near_truth), _above(found, found > 0), _above(near_found, drawn), total])


def boundary_score(counts: Sequence[NDArray[np.float64]]) -> BoundaryScore:
    """Scores of a set from `match_counts` of its pictures."""
    every = np.stack(counts)  # (N, 4, thresholds)
    total = every.sum(0)
    f = f_measure(total)
    best = int(f.argmax())
    own = f_measure(every.transpose(1, 0, 2)).argmax(1)
    chosen = every[np.arange(len(every)), :, own].sum(0)
    precision, recall = _rates(total)
    # Interpolated precision: the best at any threshold that reaches the recall; 0 beyond the largest recall.
    ap = float(np.mean([max(precision[recall >= at], default=0.0) for at in np.linspace(0, 1, 101)]))
    return BoundaryScore(float(f[best]), float(THRESHOLDS[best]), float(f_measure(chosen)), ap)


def f_measure(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """2PR / (P + R) of counts (4, ...)."""
    precision, recall = _rates(counts)
    return 2 * precision * recall / np.maximum(precision + recall, 1e-12)


def thin(x: Tensor) -> Tensor:
    """Non-maximum suppression: (H, W) in [0, 1] -> the same, 0 where a neighbour across the line is larger.

    Across is the direction of the strongest curvature of the smoothed map (principal axis of its Hessian).
    """
    smooth = F.avg_pool2d(F.avg_pool2d(_framed(x, 4), 5, 1), 5, 1)[0, 0]
    dy, dx = torch.gradient(smooth)
    dyy, dyx = torch.gradient(dy)
    dxx = torch.gradient(dx)[1]
    # 0.5 atan2(2 Hxy, Hxx - Hyy) is the axis of the larger eigenvalue; a ridge bends down, so across it is the other.
    angle = 0.5 * torch.atan2(2 * dyx, dxx - dyy) + math.pi / 2
    height, width = x.shape
    rows = torch.arange(height, dtype=torch.float32)[:, None].expand(height, width)
    columns = torch.arange(width, dtype=torch.float32)[None].expand(height, width)
    keep = torch.ones_like(x, dtype=torch.bool)
    for side in (-1.0, 1.0):
        y = (rows + side * angle.sin()) * 2 / (height - 1) - 1
        z = (columns + side * angle.cos()) * 2 / (width - 1) - 1
        beside = F.grid_sample(x[None, None], torch.stack([z, y], -1)[None], align_corners=True, padding_mode="border")
        keep &= 1.01 * x >= beside[0, 0]  # the slack of the structured-edge toolbox: plateaus stay
    return x * keep


def _rates(counts: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return counts[0] / np.maximum(counts[1], 1), counts[2] / np.maximum(counts[3], 1e-9)


def _above(values: NDArray, weights: NDArray) -> NDArray[np.float64]:
    """Sum of the weights where the value is above each threshold."""
    held = weights != 0
    chosen, weight = values[held], weights[held].astype(np.float64)
    order = np.argsort(chosen)
    upto = np.concatenate([[0.0], np.cumsum(weight[order])])
    return upto[-1] - upto[np.searchsorted(chosen[order], THRESHOLDS, side="right")]


def _dilate(x: NDArray, radius: float) -> NDArray:
    """Largest value within `radius` pixels, as the maximum over the shifts of a disc; values are not below 0."""
    reach = int(radius)
    height, width = x.shape
    framed = np.pad(x, reach)
    shifts = [
        framed[reach + dy : reach + dy + height, reach + dx : reach + dx + width]
        for dy in range(-reach, reach + 1)
        for dx in range(-reach, reach + 1)
        if dy**2 + dx**2 <= radius**2
    ]
    return np.maximum.reduce(shifts)


def _framed(x: Tensor, border: int) -> Tensor:
    return F.pad(x[None, None], (border,) * 4, mode="replicate")
