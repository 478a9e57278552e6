"""The terms of Eq. 3 beside L_rec: L_enc, the quality of the encoder's features, and L_corr, their correlation."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def contrastive_loss(first: Tensor, second: Tensor, temperature: float = 0.2) -> Tensor:
    """NT-Xent (Chen et al., SimCLR, arXiv 2002.05709, Eq. 1): two views of N frames, (N, C) each -> a scalar.

    A frame's other view is to be found among the other 2N - 2 vectors; 0 where N < 2, as there is nothing to tell
    apart.
    """
    count = len(first)
    if count < 2:
        return first.new_zeros(())
    z = F.normalize(torch.cat([first, second]).float(), dim=1)
    similarity = (z @ z.T / temperature).masked_fill(torch.eye(2 * count, dtype=torch.bool, device=z.device), -1e9)
    other = torch.arange(2 * count, device=z.device).roll(count)
    return F.cross_entropy(similarity, other)


def correlation_loss(latents: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """L_corr: mean squared cross-correlation between the channels of different levels, a scalar from 0 to 1.

    `latents`: z_l (B, C_l, H_l, W_l), fine to coarse, each half the size of the one before; levels without channels
    are passed over. `weights[d - 1]`: of pairs that lie d levels apart. The finer level is folded onto the coarser
    one's grid (space to depth): averaging would hide all but its lowest frequencies.
    """
    total = latents[0].new_zeros(())
    weight_sum = 0.0
    for i, fine in enumerate(latents):
        for j in range(i + 1, len(latents)):
            weight = weights[j - i - 1] if j - i <= len(weights) else 0.0
            if weight <= 0 or not fine.shape[1] or not latents[j].shape[1]:
                continue
            a, b = _standardised(F.pixel_unshuffle(fine.float(), 2 ** (j - i))), _standardised(latents[j].float())
            total = total + weight * (a @ b.T / a.shape[1]).square().mean()
            weight_sum += weight
    return total / weight_sum if weight_sum else total


def _standardised(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (C, B H W), each row of mean 0 and variance 1."""
    rows = x.transpose(0, 1).flatten(1)
    rows = rows - rows.mean(1, keepdim=True)
    return rows / rows.square().mean(1, keepdim=True).add(1e-8).sqrt()
