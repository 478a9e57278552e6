"""Multi-order gated aggregation, the block of MogaNet (Li et al., arXiv 2211.03295, section 4).

    x --FD--> x^ --+--> gate: 1x1, SiLU --------------------------------------+
                   |                                                          x--> 1x1 --+-> x + . --CA--> x + .
                   +--> DWConv 5x5 --> |1/8 as is|3/8 5x5 d2|1/2 7x7 d3| --> 1x1, SiLU --+

Names are the paper's. Two things differ, as in the other blocks here: there is no batch normalisation (a synthesis must
not depend on statistics of a batch), and the last layer of both residual branches starts at zero instead of a layer
scale of 1e-5, so that a fresh network is the linear transform that its resampling layers are set to.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Shares of the channels with a low, a middle and a high order of interaction, C_l : C_m : C_h = 1 : 3 : 4.
SPLIT = (1, 3, 4)
# Both feature decompositions start next to the identity, as in the authors' code.
_DECOMPOSE_START = 1e-5


class MultiOrderDWConv(nn.Module):
    """Depth-wise convolutions of three orders on parts of the channels, then a 1x1 layer: (B, C, H, W) -> the same.

    All channels see 5x5; of them 3/8 then 5x5 at dilation 2 (seeing 13x13) and 1/2 7x7 at dilation 3 (23x23).
    """

    def __init__(self, channels: int):
        super().__init__()
        middle, high = (channels * part // sum(SPLIT) for part in SPLIT[1:])
        self.parts = (channels - middle - high, middle, high)
        self.low = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        # A part of no channels (C < 3) has no convolution.
        self.middle = nn.Conv2d(middle, middle, 5, padding=4, dilation=2, groups=middle) if middle else nn.Identity()
        self.high = nn.Conv2d(high, high, 7, padding=9, dilation=3, groups=high) if high else nn.Identity()
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        low, middle, high = self.low(x).split(self.parts, 1)
        return self.mix(torch.cat([low, self.middle(middle), self.high(high)], 1))


class SpatialAggregation(nn.Module):
    """Moga(.): feature decomposition FD(.), then the gated product of a 1x1 and a multi-order branch.

    FD: y = Conv1x1(x), then SiLU(y + gamma * (y - GAP(y))): what differs from the frame's mean is weighed up.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.enter = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.full((channels, 1, 1), _DECOMPOSE_START))
        self.gate = nn.Conv2d(channels, channels, 1)
        self.context = MultiOrderDWConv(channels)
        self.leave = _zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        x = F.silu(x + self.gamma * (x - x.mean((2, 3), keepdim=True)))
        return self.leave(F.silu(self.gate(x)) * F.silu(self.context(x)))


class ChannelAggregation(nn.Module):
    """CA(.): 1x1, depth-wise 3x3, GELU, then h + gamma * (h - GELU(h W_r)) with W_r to one channel, and 1x1 back."""

    def __init__(self, channels: int, expand: int):
        super().__init__()
        hidden = channels * expand
        self.expand = nn.Conv2d(channels, hidden, 1)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.gather = nn.Conv2d(hidden, 1, 1)
        self.gamma = nn.Parameter(torch.full((hidden, 1, 1), _DECOMPOSE_START))
        self.reduce = _zeroed(nn.Conv2d(hidden, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        h = F.gelu(self.depthwise(self.expand(x)))
        return self.reduce(h + self.gamma * (h - F.gelu(self.gather(h))))


class MogaBlock(nn.Module):
    """Spatial, then channel aggregation, both residual: (B, C, H, W) -> the same, for any C.

    `expand`: hidden channels of CA(.) over C; the paper's later stages use 4.
    """

    def __init__(self, channels: int, expand: int = 4):
        super().__init__()
        self.spatial = SpatialAggregation(channels)
        self.channel = ChannelAggregation(channels, expand)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.spatial(x)
        return x + self.channel(x)


def _zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
