"""The contract of a head: latents to logits, with the stem split off so that its output can be cached."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vidlbc.errors import InputError
from vidlbc.heads.tokens import TokenGrid


class Head(nn.Module):
    """`forward(latents) -> logits (B, classes)`; subclasses write `logits(tokens)` on normalised tokens.

    Tokens are (B, T, C, g, g) as TokenGrid makes them. The normalisation is part of the head's state, so a saved head
    needs nothing else.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, levels: Sequence[tuple[int, int]], num_classes: int, grid: int = 4) -> None:
        super().__init__()
        if num_classes < 2:
            raise InputError(f"a head needs at least 2 classes, got {num_classes}")
        self.stem = TokenGrid(levels, grid)
        self.num_classes = num_classes
        self.register_buffer("shift", torch.zeros(self.stem.channels))
        self.register_buffer("scale", torch.ones(self.stem.channels))

    def forward(self, latents: Sequence[Tensor]) -> Tensor:
        """Latents, one (B, T, C_l, H_l, W_l) a level, fine to coarse -> logits (B, classes)."""
        return self.classify(self.stem(latents))

    def classify(self, tokens_BTCGG: Tensor) -> Tensor:
        """Tokens as the stem made them (any float type) -> logits (B, classes)."""
        x = tokens_BTCGG.float()
        return self.logits((x - self.shift[:, None, None]) * self.scale[:, None, None])

    def logits(self, tokens_BTCGG: Tensor) -> Tensor:
        """Normalised tokens -> logits (B, classes)."""
        raise NotImplementedError

    def set_normalisation(self, mean_C: Tensor, std_C: Tensor) -> None:
        """Take shift and scale from statistics of the training split; a channel that never varies is left out."""
        self.shift.copy_(mean_C)
        self.scale.copy_(torch.where(std_C > 1e-5, 1.0 / std_C.clamp_min(1e-5), torch.zeros_like(std_C)))

    def parameter_count(self) -> int:
        """Number of trained values."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)
