"""Interchangeable building blocks of the image stage: (B, C, H, W) -> (B, C, H, W).

`configs/image_stage/block` chooses one by name; a new block is one class and one line in BLOCKS.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidlbc.codec.image_stage.gdn import GDN
from vidlbc.codec.image_stage.moga import MogaBlock


class DepthwiseBlock(nn.Module):
    """Residual: depth-wise 3x3, then a two-layer 1x1 network. The default: the cheapest block on CPU and GPU.

    The last layer starts at zero, so a fresh network is the linear transform that its resampling layers are set to.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.expand = nn.Conv2d(channels, channels, 1)
        self.reduce = nn.Conv2d(channels, channels, 1)
        _zero(self.reduce)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.reduce(F.leaky_relu(self.expand(self.depthwise(x)), 0.1))


class ResidualGDNBlock(nn.Module):
    """Residual with generalised divisive normalisation (Balle et al., arXiv 1611.01704): conv 3x3, GDN, conv 3x3."""

    def __init__(self, channels: int, inverse: bool = False):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.gdn = GDN(channels, inverse=inverse)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        _zero(self.second)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.gdn(self.first(x)))


class ConvBlock(nn.Module):
    """Residual: dense 3x3, SiLU, dense 3x3. No normalisation: the plain block of a GPU, which multiplies fastest."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        _zero(self.second)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(x)))


class GatedBlock(nn.Module):
    """Residual 1x1, SiLU, depth-wise 3x3, 1x1; then a residual pair of 1x1 layers with a gate between them.

    The depth-wise block of DCVC-RT (Jia et al., arXiv 2502.20762), whose pair adds two activated halves; here one half
    gates the other (SwiGLU; Shazeer, arXiv 2002.05202). `expand`: channels behind the gate over `channels`; with 2 the
    block has the 8 products a channel pair of DCVC-RT's. The last layer of both branches starts at zero.
    """

    def __init__(self, channels: int, expand: int = 2):
        super().__init__()
        self.enter = nn.Conv2d(channels, channels, 1)
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.leave = nn.Conv2d(channels, channels, 1)
        self.expand = nn.Conv2d(channels, 2 * expand * channels, 1)
        self.reduce = nn.Conv2d(expand * channels, channels, 1)
        _zero(self.leave)
        _zero(self.reduce)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.leave(self.depthwise(F.silu(self.enter(x))))
        gate, value = self.expand(x).chunk(2, 1)
        return x + self.reduce(F.silu(gate) * value)


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


BLOCKS: dict[str, Callable[[int], nn.Module]] = {
    "depthwise": DepthwiseBlock,
    "conv": ConvBlock,
    "gated": GatedBlock,
    "residual_gdn": ResidualGDNBlock,
    "moga": MogaBlock,
}


def stack(block: str, channels: int, count: int) -> nn.Sequential:
    """`count` blocks by name. Raises ValueError naming the choices."""
    if block not in BLOCKS:
        raise ValueError(f"unknown block {block!r}: expected one of {', '.join(sorted(BLOCKS))}")
    return nn.Sequential(*[BLOCKS[block](channels) for _ in range(count)])


class RoundSTE(torch.autograd.Function):
    """Rounding whose gradient is the identity (straight-through)."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.round()

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return gradient
