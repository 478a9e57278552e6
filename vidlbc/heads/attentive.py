"""The attentive probe: V-JEPA 2's pooler (self-attention, then one learned query) at a size for a CPU.

    tokens (B, T, C, g, g) --linear, GELU--> `cell` channels --3-D convolution, every `tubelet` frames--> + place, time
        --`depth` self-attention blocks--> --cross-attention with one learned query--> linear --> logits

Source: V-JEPA 2, `src/models/attentive_pooler.py` (3 blocks of 16 heads there; 1 block of 4 heads here). Places are
Fourier features of normalised coordinates, so that any T works. The convolution stands for the backbone's: tubelets
of single cells needed 48 epochs to tell left from right on 160 clips of moving blobs, these 16.

A linear path beside the attention was tried and left out: it lowers the holdout loss on small sets of gestures, where
the linear probe is better anyway, but fits the training clips first, and the attention then never learns the motion.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from vidlbc.errors import InputError
from vidlbc.heads.base import Head


class AttentiveHead(Head):
    """Tubelet tokens with space-time positions, self-attention, one learned query."""

    def __init__(
        self,
        levels: Sequence[tuple[int, int]],
        num_classes: int,
        grid: int = 4,
        width: int = 64,
        depth: int = 1,
        heads: int = 4,
        tubelet: int = 2,
        cell: int = 32,
        dropout: float = 0.1,
        token_dropout: float = 0.1,
    ) -> None:
        super().__init__(levels, num_classes, grid)
        if width % heads:
            raise InputError(f"the attentive head's width must be a multiple of its heads, got {width} and {heads}")
        if tubelet < 1:
            raise InputError(f"a tubelet holds at least 1 frame, got {tubelet}")
        self.tubelet = tubelet
        self.token_dropout = token_dropout
        self.input_dropout = nn.Dropout(dropout)
        self.cell = nn.Linear(self.stem.channels, cell)
        # Reaches into the neighbouring cells and tubelets, as motion does; any T gives ceil(T / tubelet) steps.
        self.embed = nn.Conv3d(cell, width, (2 * tubelet + 1, 3, 3), (tubelet, 1, 1), (tubelet, 1, 1))
        self.place = nn.Linear(3 * 2 * FOURIER_BANDS, width)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(depth))
        self.query = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.norm = nn.LayerNorm(width)
        self.cross = nn.MultiheadAttention(width, heads, batch_first=True)
        self.classifier = nn.Sequential(nn.LayerNorm(width), nn.Dropout(dropout), nn.Linear(width, num_classes))

    def logits(self, tokens_BTCGG: Tensor) -> Tensor:
        x = self._tubelets(tokens_BTCGG)  # (B, T', g, g, width)
        x = (x + self.place(positions(x.shape[1], x.shape[2], x.device))).flatten(1, 3)
        if self.training and self.token_dropout > 0:
            keep = max(1, round(x.shape[1] * (1.0 - self.token_dropout)))
            x = x[:, torch.randperm(x.shape[1], device=x.device)[:keep]]
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        pooled, _ = self.cross(self.query.expand(len(x), -1, -1), x, x, need_weights=False)
        return self.classifier(pooled[:, 0])

    def _tubelets(self, tokens_BTCGG: Tensor) -> Tensor:
        x = F.gelu(self.cell(self.input_dropout(rearrange(tokens_BTCGG, "b t c y x -> b t y x c"))))
        return rearrange(self.embed(rearrange(x, "b t y x c -> b c t y x")), "b c t y x -> b t y x c")


class Block(nn.Module):
    """Pre-norm self-attention and MLP."""

    def __init__(self, width: int, heads: int, dropout: float, expand: int = 2) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.norm_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, expand * width), nn.GELU(), nn.Linear(expand * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm_1(x)
        x = x + self.dropout(self.attention(y, y, y, need_weights=False)[0])
        return x + self.dropout(self.mlp(self.norm_2(x)))


FOURIER_BANDS = 4


def positions(frames: int, grid: int, device: torch.device | str = "cpu") -> Tensor:
    """Fourier features of the cell centres' (t, y, x) in [0, 1]: (frames, grid, grid, 6 * FOURIER_BANDS)."""
    t = (torch.arange(frames, device=device) + 0.5) / frames
    s = (torch.arange(grid, device=device) + 0.5) / grid
    centres = torch.stack(torch.meshgrid(t, s, s, indexing="ij"), dim=-1)  # (T, g, g, 3)
    octaves = math.pi * 2.0 ** torch.arange(FOURIER_BANDS, device=device)
    angles = (centres[..., None] * octaves).flatten(-2)
    return F.layer_norm(torch.cat([angles.sin(), angles.cos()], dim=-1), (6 * FOURIER_BANDS,))
