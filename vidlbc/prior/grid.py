"""Layers whose result is the same number on every machine.

A decoder must find exactly the distributions the encoder used, or the stream turns to noise. Floating-point networks
round differently on another device, batch size or library; so the priors here compute on a fixed-point grid *carried in
float64*:

    activations  multiples of 2^-12, |x| <= 2^11          weights  multiples of 2^-14
    products     multiples of 2^-26; a sum of them needs  |sum| < 2^27 * 2^26 = 2^53

Every sum of products then fits the 53 bits of a float64 exactly, so no order of summation, thread count, fused
multiply-add or BLAS can change it. What is left is element-wise IEEE arithmetic (+ - * / sqrt, round half to even),
which is correctly rounded everywhere. No exp, no transcendental function. `check_exact` proves the bound for given
weights.

One code path serves both uses: with float32 inputs the layers train as usual (the grid is far finer than float32
training noise); with float64 inputs (`module.double()` after `to_grid`) every output is snapped to the grid.

Tensors are channels-last, (B, H, W, C): a 1x1 convolution is then one matrix product.
"""

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATION_BITS = 12
WEIGHT_BITS = 14
LIMIT = 2.0**11
# Adding and subtracting 1.5 * 2^(52-12) leaves a float64 rounded to a multiple of 2^-12, half to even: two passes
# instead of the four of scale, round, unscale, and the same on every IEEE machine.
_MAGIC = 1.5 * 2.0 ** (52 - ACTIVATION_BITS)

M = TypeVar("M", bound=nn.Module)


def snap(x: Tensor) -> Tensor:
    """Round a float64 tensor to the activation grid and clamp it to +-2^11; float32 (training) passes unchanged.

    In place: hand over a temporary. A fresh tensor for each of some 190 calls a frame costs more than the arithmetic.
    """
    if x.dtype != torch.float64:
        return x
    return x.add_(_MAGIC).sub_(_MAGIC).clamp_(-LIMIT, LIMIT)


def to_grid(module: M) -> M:
    """Turn a trained prior into its exact form, in place: float64, weights on the grid. Returns the module.

    Raises ArithmeticError where a layer could leave the exactly representable range.
    """
    module.double()
    scale = 2.0**WEIGHT_BITS
    with torch.no_grad():
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.dtype == torch.float64:
                tensor.copy_((tensor * scale).round_() / scale)
    module.requires_grad_(False)
    check_exact(module)
    return module


def check_exact(module: nn.Module) -> None:
    """Prove that no sum in `module` can exceed 2^53 grid units, whatever the input.

    Raises ArithmeticError naming the layer otherwise.
    """
    budget = 2.0 ** (53 - ACTIVATION_BITS - WEIGHT_BITS)
    for name, layer in module.named_modules():
        if isinstance(layer, Linear | DepthwiseConv):
            worst = float(layer.reach().max()) * LIMIT
            if not worst < budget:
                raise ArithmeticError(f"layer {name}: sums up to {worst:.3g} exceed the exact range {budget:.3g}")


class Linear(nn.Linear):
    """1x1 convolution on (..., C_in) -> (..., C_out), exact on the grid."""

    def forward(self, x: Tensor) -> Tensor:
        return snap(F.linear(x, self.weight, self.bias))

    def reach(self) -> Tensor:
        reach = self.weight.detach().abs().sum(1)
        return reach if self.bias is None else reach + self.bias.detach().abs()


class DepthwiseConv(nn.Module):
    """Depth-wise k x k convolution on (B, H, W, C), zero padding, exact on the grid."""

    def __init__(self, channels: int, kernel: int = 3):
        super().__init__()
        self.kernel = kernel
        self.weight = nn.Parameter(torch.randn(channels, 1, kernel, kernel) / kernel)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        k, pad = self.kernel, self.kernel // 2
        if x.dtype != torch.float64:
            y = F.conv2d(x.permute(0, 3, 1, 2), self.weight, self.bias, padding=pad, groups=self.weight.shape[0])
            return y.permute(0, 2, 3, 1)
        # Shifted multiply-adds: torch's float64 depth-wise convolution on CPU is one small GEMM a channel, 4x slower.
        height, width = x.shape[1:3]
        padded = F.pad(x, (0, 0, pad, pad, pad, pad))
        y = self.bias.expand_as(x).clone()
        for i in range(k):
            for j in range(k):
                y.addcmul_(padded[:, i : i + height, j : j + width], self.weight[:, 0, i, j])
        return snap(y)

    def reach(self) -> Tensor:
        return self.weight.detach().abs().sum((1, 2, 3)) + self.bias.detach().abs()


class RMSNorm(nn.Module):
    """x / rms(x) over the last axis; the sum of squares is exact, sqrt and division are correctly rounded."""

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype == torch.float64:
            # Squares of at most 2^18 with 24 fractional bits: sums of up to 1024 of them stay below 53 bits, exact.
            x = x.clamp(-(2.0**9), 2.0**9)
        energy = (x * x).sum(-1, keepdim=True) / self.channels
        return snap(x / (energy + 2.0**-10).sqrt())


class Block(nn.Module):
    """Residual block: depth-wise k x k, then a two-layer 1x1 network. The last layer starts at zero (identity)."""

    def __init__(self, channels: int, expand: int = 1, kernel: int = 3):
        super().__init__()
        self.depthwise = DepthwiseConv(channels, kernel)
        self.expand = Linear(channels, channels * expand)
        self.reduce = Linear(channels * expand, channels)
        nn.init.zeros_(self.reduce.weight)
        nn.init.zeros_(self.reduce.bias)

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.expand(self.depthwise(x)), 0.125)
        return snap(x + self.reduce(snap(y)))


def space_to_depth(x: Tensor, ratio: int) -> Tensor:
    """(B, H, W, C) -> (B, H/r, W/r, r*r*C)."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // ratio, ratio, w // ratio, ratio, c).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h // ratio, w // ratio, ratio * ratio * c)


def depth_to_space(x: Tensor, ratio: int) -> Tensor:
    """(B, H, W, r*r*C) -> (B, H*r, W*r, C)."""
    b, h, w, c = x.shape
    x = x.reshape(b, h, w, ratio, ratio, c // ratio**2).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(b, h * ratio, w * ratio, c // ratio**2)
