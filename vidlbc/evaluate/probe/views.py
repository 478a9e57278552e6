"""Which frames a view of a video holds.

A view is `frames` frames at even spacing over `span` of the video. Evaluation views are a fixed set: with span 1 they
interleave (view v is shifted by a fraction of the spacing), with a smaller span they also spread from the video's
start to its end. Training views add jitter: a random shift and a random trim of up to `trim` at both ends, which is
temporal augmentation, decided by (seed, key, view) alone and the same for every input that is compared.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vidlbc.errors import InputError


@dataclass(frozen=True)
class ViewPlan:
    """How views are drawn from a video."""

    frames: int = 16
    views: int = 2
    span: float = 1.0
    jitter: bool = False
    trim: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.frames < 1 or self.views < 1:
            raise InputError(f"views and frames a view must be at least 1, got {self.views} and {self.frames}")
        if not 0.0 < self.span <= 1.0:
            raise InputError(f"the span of a view must be in (0, 1], got {self.span}")
        if not 0.0 <= self.trim < 0.5:
            raise InputError(f"the trim of a view must be in [0, 0.5), got {self.trim}")


def view_indices(n_frames: int, plan: ViewPlan, key: str = "") -> NDArray[np.int64]:
    """Frame indices (views, frames), non-decreasing in a view, within [0, n_frames). Short videos repeat frames."""
    if n_frames < 1:
        raise InputError(f"a view needs at least 1 frame, video '{key}' has {n_frames}")
    rows = []
    for view in range(plan.views):
        place = (view + 0.5) / plan.views
        start = (1.0 - plan.span) * (view / (plan.views - 1) if plan.views > 1 else 0.5)
        stop = start + plan.span
        if plan.jitter:
            rng = np.random.default_rng(_seed(plan.seed, key, view))
            place, head, tail = rng.uniform(0.0, 1.0), *rng.uniform(0.0, plan.trim, 2)
            start, stop = start + head * plan.span, stop - tail * plan.span
        centres = start + (stop - start) * (np.arange(plan.frames) + place) / plan.frames
        rows.append(np.clip(np.floor(centres * n_frames), 0, n_frames - 1))
    return np.stack(rows).astype(np.int64)


def _seed(seed: int, key: str, view: int) -> int:
    digest = hashlib.sha256(f"{seed}/{key}/{view}".encode()).digest()
    return int.from_bytes(digest[:8], "little")
