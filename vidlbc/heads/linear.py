"""The linear probe: one trained matrix on a fixed summary of the clip, nothing else.

What "linear" means here. The summary is fixed before training: for every cell of the grid and every statistic of
every channel, the first `basis` cosine coefficients over the view's time (a DCT-II): coefficient 0 is the mean over
time, 1 the drift from first to last, and so on. Only the matrix from there to the classes is trained, so accuracy
above chance says that the class can be read off the latents linearly, *given* squared-root energies and a slow time
basis. A mean over time alone is `basis=1`; it cannot tell a motion from its reverse, coefficients 1 and up can.
(Validation top-1 on 17 gestures, same features: mean over time 31%, mean + deviation + mean change 44%, 4 cosine
coefficients 53%, 8 coefficients 47%.)
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vidlbc.errors import InputError
from vidlbc.heads.base import Head


class LinearHead(Head):
    """Cosine summary over time of each cell, dropout, one linear layer."""

    def __init__(
        self,
        levels: Sequence[tuple[int, int]],
        num_classes: int,
        grid: int = 4,
        basis: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(levels, num_classes, grid)
        self.classifier = CosineLinear(self.stem.channels, grid, num_classes, basis, dropout)

    def logits(self, tokens_BTCGG: Tensor) -> Tensor:
        return self.classifier(tokens_BTCGG)


class CosineLinear(nn.Module):
    """Normalised tokens (B, T, C, g, g) -> `basis` cosine coefficients of each value over time -> one linear map.

    Starts at zero: every class equally likely.
    """

    def __init__(self, channels: int, grid: int, num_classes: int, basis: int, dropout: float = 0.0) -> None:
        super().__init__()
        if basis < 1:
            raise InputError(f"a cosine summary needs at least 1 time coefficient, got {basis}")
        self.basis = basis
        self.dropout = nn.Dropout(dropout)
        self.map = nn.Linear(channels * grid * grid * basis, num_classes)
        nn.init.zeros_(self.map.weight)
        nn.init.zeros_(self.map.bias)

    def forward(self, tokens_BTCGG: Tensor) -> Tensor:
        basis_KT = cosine_basis(tokens_BTCGG.shape[1], self.basis, tokens_BTCGG.device)
        summary = torch.einsum("kt,btcgh->bkcgh", basis_KT, tokens_BTCGG).flatten(1)
        # Unit-variance inputs, D of them: without this scale the best learning rate would depend on D.
        return self.map(self.dropout(summary) * (32.0 / math.sqrt(summary.shape[1])))


def cosine_basis(frames: int, count: int, device: torch.device | str = "cpu") -> Tensor:
    """First `count` DCT-II functions over `frames` samples, (count, frames), scaled to mean square 1 over time / T.

    Functions beyond the number of frames are zero: they would alias.
    """
    k = torch.arange(count, device=device, dtype=torch.float32)[:, None]
    t = torch.arange(frames, device=device, dtype=torch.float32)[None]
    basis = torch.cos(math.pi * (2 * t + 1) * k / (2 * frames)) / frames
    basis[1:] *= math.sqrt(2.0)
    return basis * (k < frames)
