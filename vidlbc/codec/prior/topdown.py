"""The prior that all temporal kinds share: a coarse-to-fine pass over the levels of one frame.

    coarsest level                                                    finest level
    start(qp) -> [+ context] -> blocks -> head -> (mean, scale)       level coded: symbols known
                     ^                              |                       |
                 past frames                   range coder            absorb symbols -> up -> next level ...

Without context it is the *intra prior* of the image stage (Xie et al., arXiv 2105.13978, levels of Figure 2; the
top-down conditioning is that of ladder models). A temporal stage adds `context` readers (vidlbc.codec.temporal_stage)
and starts from the intra prior's weights. Levels finer than stride 8 are folded (space to depth) and worked on at
stride 8: pixels are where the time goes.

Shapes: B frames; symbols q_l (B, H_l, W_l, C_l), channels last, dequantised latents y_l = q_l / gain_l.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidlbc.codec.entropy.distribution import Distribution
from vidlbc.codec.prior.grid import Block, Linear, depth_to_space, snap, space_to_depth

NUM_QP = 64
FINEST_WORK_STRIDE = 8
# Offset of the scale head: an untrained prior starts with a logistic scale of 2^-3 in units of y.
SCALE_OFFSET = -3.0


@dataclass(frozen=True)
class Level:
    """One resolution of the latents. The priors look at latents divided by 2^`view_bits`, which should be under 16."""

    stride: int
    channels: int
    view_bits: int = 0

    @property
    def work_stride(self) -> int:
        return max(self.stride, FINEST_WORK_STRIDE)

    @property
    def fold(self) -> int:
        """Space-to-depth ratio between the level and the grid it is worked on."""
        return self.work_stride // self.stride

    def view(self, latent: Tensor) -> Tensor:
        """Dequantised latents (B, H, W, C) as the priors take them in: scaled, on their grid, folded."""
        seen = snap(latent * 2.0**-self.view_bits)
        return space_to_depth(seen, self.fold) if self.fold > 1 else seen


@dataclass(frozen=True)
class Gains:
    """Quantisation of one level for each frame of a batch: q = round(gain * y). All (B, C_l)."""

    gain: Tensor
    step: Tensor
    log2_gain: Tensor


def levels_at(levels: Sequence[Level], stride: int) -> list[int]:
    """Indices of the levels worked on at a stride, fine to coarse."""
    return [index for index, level in enumerate(levels) if level.work_stride == stride]


# Takes what the past says about level `index` into the hidden state: (index, hidden) -> hidden.
Context = Callable[[int, Tensor], Tensor]
# What the past expects the level's latents to be, to be added to the head's mean: (index, hidden) -> folded latents.
Expected = Callable[[int, Tensor], Tensor]


def rows(table: Tensor, index: Tensor) -> Tensor:
    """table[index]: (N, C), (B,) -> (B, C).

    On a GPU the backward of plain indexing sorts. That of an embedding, up to 3,072 rows, is one kernel, which a CUDA
    graph can hold (pytorch issue 82886).
    """
    return F.embedding(index, table)


class QPTable(nn.Module):
    """A vector per QP: linear interpolation between anchors every 8 QPs."""

    def __init__(self, channels: int):
        super().__init__()
        self.anchors = nn.Parameter(torch.zeros(NUM_QP // 8 + 1, channels))

    def forward(self, qp: Tensor) -> Tensor:
        """qp (B,) int64 -> (B, C)."""
        low = torch.div(qp, 8, rounding_mode="floor")
        weight = ((qp - 8 * low).to(self.anchors.dtype) / 8)[:, None]
        return rows(self.anchors, low) * (1 - weight) + rows(self.anchors, low + 1) * weight


class TopDownPrior(nn.Module):
    """Distributions of a frame's symbols, level by level from coarse to fine."""

    def __init__(self, levels: Sequence[Level], widths: Sequence[int], blocks: int = 2):
        """`widths`: hidden channels of each working stride, fine to coarse (one entry a distinct working stride)."""
        super().__init__()
        self.levels = tuple(levels)
        self.block_count = blocks
        self.work_strides = sorted({level.work_stride for level in levels})
        if len(widths) != len(self.work_strides):
            raise ValueError(f"{len(widths)} widths given for {len(self.work_strides)} working strides")
        self.widths = dict(zip(self.work_strides, widths, strict=True))
        coarsest = self.work_strides[-1]
        self.start_vector = nn.Parameter(torch.zeros(self.widths[coarsest]))
        self.qp_vector = nn.ModuleDict({str(s): QPTable(w) for s, w in self.widths.items()})
        self.up = nn.ModuleDict()
        for fine, coarse in zip(self.work_strides[:-1], self.work_strides[1:], strict=True):
            self.up[str(fine)] = Linear(self.widths[coarse], self.widths[fine] * (coarse // fine) ** 2)
        self.blocks, self.heads, self.embed = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        for level in self.levels:
            width, channels = self.widths[level.work_stride], level.channels * level.fold**2
            count = blocks if level.fold == 1 else 1
            self.blocks.append(nn.Sequential(*[Block(width, expand=2) for _ in range(count)]))
            head = Linear(width, 2 * channels)
            nn.init.normal_(head.weight, std=0.01)
            self.heads.append(head)
            self.embed.append(Linear(channels, width))

    def start(self, qp: Tensor, height: int, width: int) -> Tensor:
        """Hidden state at the coarsest working stride: qp (B,), sizes in its cells -> (B, height, width, C)."""
        vector = self.start_vector + self.qp_vector[str(self.work_strides[-1])](qp)
        return snap(vector)[:, None, None, :].expand(-1, height, width, -1)

    def distribution(
        self, index: int, hidden: Tensor, gains: Gains, expected: Expected | None = None
    ) -> tuple[Distribution, Tensor]:
        """Distribution of level `index` from the hidden state at its working stride, and the state after its blocks."""
        level = self.levels[index]
        hidden = self.blocks[index](hidden)
        mean, log2_scale = self.heads[index](hidden).chunk(2, dim=-1)
        if expected is not None:
            mean = mean + expected(index, hidden)
        if level.fold > 1:
            mean, log2_scale = depth_to_space(mean, level.fold), depth_to_space(log2_scale, level.fold)
        mean = mean * gains.gain[:, None, None]
        log2_scale = log2_scale + (SCALE_OFFSET + gains.log2_gain)[:, None, None]
        return Distribution(mean, log2_scale), hidden

    def absorb(self, index: int, hidden: Tensor, latent: Tensor, qp: Tensor) -> Tensor:
        """Take in the dequantised latents of level `index`; the result is at the next level's working stride."""
        level = self.levels[index]
        hidden = snap(hidden + self.embed[index](level.view(latent)))
        if index == 0 or self.levels[index - 1].work_stride == level.work_stride:
            return hidden
        finer = self.levels[index - 1].work_stride
        hidden = depth_to_space(self.up[str(finer)](hidden), level.work_stride // finer)
        return snap(hidden + self.qp_vector[str(finer)](qp)[:, None, None])

    def forward(
        self,
        latents: Sequence[Tensor],
        qp: Tensor,
        gains: Sequence[Gains],
        context: Context | None = None,
        expected: Expected | None = None,
    ) -> list[Distribution]:
        """All levels at once, the symbols being known (training, encoder). Lists are fine to coarse."""
        out: list[Distribution | None] = [None] * len(self.levels)
        _, height, width, _ = latents[-1].shape
        hidden = self.start(qp, height * self.levels[-1].fold, width * self.levels[-1].fold)
        for index in reversed(range(len(self.levels))):
            if context is not None:
                hidden = context(index, hidden)
            out[index], hidden = self.distribution(index, hidden, gains[index], expected)
            if index:
                hidden = self.absorb(index, hidden, latents[index], qp)
        return out  # type: ignore[return-value]


def symbol_bits(q: Tensor, distribution: Distribution) -> Tensor:
    """Bits of each symbol under its discretised logistic distribution; q float, same shape as the mean."""
    probability, upper = symbol_probability(q, distribution)
    # Far in the tail the difference underflows; log(p) ~ upper keeps the gradient alive there.
    safe = torch.log(probability.clamp_min(1e-6))
    return torch.where(probability > 1e-6, safe, F.logsigmoid(upper)) * (-1.0 / math.log(2))


def symbol_probability(q: Tensor, distribution: Distribution) -> tuple[Tensor, Tensor]:
    """Of each symbol, and the logit of the cumulative distribution at its edge nearer the mean."""
    inverse_scale = torch.exp2(-distribution.log2_scale.clamp(-5, 7))
    centred = (q - distribution.mean).abs()
    # Symmetric form on the negative side: both terms keep their precision in the tails.
    upper, lower = (0.5 - centred) * inverse_scale, (-0.5 - centred) * inverse_scale
    return torch.sigmoid(upper) - torch.sigmoid(lower), upper
