"""A linear classifier on a fixed summary of the clip: the probe that a few hundred clips can train.

    latents (or pictures as DCT patches on the grid of the latents) --TokenGrid--> --cosine basis over time--> (n, D)
        --standardise on training clips, unit length--> ridge regression on one-hot labels, closed form

The summary is that of `vidlbc.heads.linear`; nothing in it is trained. The ridge is chosen on val.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vidlbc.evaluate.probe.patches import patchify, pixel_levels
from vidlbc.experiments.machine_perception.lowshot import ridge_scores
from vidlbc.experiments.machine_perception.media import Medium
from vidlbc.heads.linear import cosine_basis
from vidlbc.heads.tokens import TokenGrid

GRID, BASIS = 4, 4
RIDGES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
_BATCH = 32


@torch.no_grad()
def summaries(medium: Medium, grid: Sequence[tuple[int, int]], count: int) -> Tensor:
    """Summary of the first `count` clips of a medium, (count, D); `grid`: (channels, stride) that pictures are cut
    into patches for."""
    levels = pixel_levels(grid) if medium.is_pictures else medium.levels
    stem = TokenGrid(levels, GRID)
    parts = []
    for start in range(0, count, _BATCH):
        tokens = stem(_levels(medium, slice(start, min(start + _BATCH, count)), levels))
        basis = cosine_basis(tokens.shape[1], BASIS)
        parts.append(torch.einsum("kt,btcgh->bkcgh", basis, tokens).flatten(1))
    return torch.cat(parts)


def _levels(medium: Medium, clips: slice, grid: Sequence[tuple[int, int]]) -> list[Tensor]:
    """One (B, T, C_l, H_l, W_l) a level."""
    if not medium.is_pictures:
        return [level[clips].float() for level in medium.frames]
    frames = medium.frames[0][clips]
    return [x.unflatten(0, frames.shape[:2]) for x in patchify(frames.flatten(0, 1), grid)]


def standardised(features: Tensor, training: Sequence[int]) -> Tensor:
    """Zero mean and unit deviation on the training clips, then unit length; what never varies there is left out."""
    chosen = features[list(training)]
    deviation = chosen.std(0)
    scale = torch.where(deviation > 1e-5, 1.0 / deviation.clamp_min(1e-5), torch.zeros_like(deviation))
    return F.normalize((features - chosen.mean(0)) * scale, dim=1)


def ridge_logits(
    features: Tensor, targets: Tensor, train: Sequence[int], val: Sequence[int], test: Sequence[int]
) -> tuple[Tensor, float]:
    """Scores of the test clips (n, classes) and the ridge, of RIDGES, that recognises most of val (the middle one
    without val; the larger of equals). features (N, D) and targets (N,) are of all clips."""
    best = RIDGES[len(RIDGES) // 2]
    if val:
        scores = {r: ridge_scores(features[train], targets[train], features[val], r) for r in RIDGES}
        right = {r: float((s.argmax(1) == targets[val]).double().mean()) for r, s in scores.items()}
        best = max(RIDGES, key=lambda r: (right[r], r))
    return ridge_scores(features[train], targets[train], features[test], best), best
