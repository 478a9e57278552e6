"""Layers whose result is the same number on every machine.

A decoder must find exactly the distributions the encoder used, or the stream turns to noise. Floating-point networks
round differently on another device, batch size or library; so the priors here compute on a fixed-point grid *carried in
float32*:

    activations  multiples of 2^-8, |x| <= 16: integers of at most 2^12 units
    weights      multiples of 2^-k, k chosen for each output channel so that sum |w| * 2^12 <= 2^24 units

Every sum of products then fits the 24 bits of a float32 exactly, so no order of summation, thread count, fused
multiply-add or BLAS can change it. What is left is element-wise IEEE arithmetic (+ - * / sqrt, round half to even),
which is correctly rounded everywhere, one operation a kernel. No exp, no transcendental function. `check_exact` proves
the bound for given weights; `check_device` tries it on a device.

The layers train as usual: tensors that carry gradients are not rounded (the grid is far finer than training noise).
Tensors are channels-last, (B, H, W, C): a 1x1 convolution is then one matrix product.
"""

from collections.abc import Mapping
from functools import cache
from operator import attrgetter
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidlbc.errors import VidlbcError

ACTIVATION_BITS = 8
LIMIT = 16.0
_SUM = 2.0**24
_FINEST_WEIGHT_BITS, _COARSEST_WEIGHT_BITS = 20, -8

M = TypeVar("M", bound=nn.Module)


def snap(x: Tensor, bits: int = ACTIVATION_BITS, limit: float = LIMIT) -> Tensor:
    """Clamp to +-limit and round to multiples of 2^-bits, half to even; what carries gradients passes unchanged.

    In place: hand over a temporary. A fresh tensor for each of some 190 calls a frame costs more than the arithmetic.
    """
    if x.requires_grad or x.dtype != torch.float32:
        return x
    magic = _magic(bits)
    return x.clamp_(-limit, limit).add_(magic).sub_(magic)


@cache
def _magic(bits: int) -> Tensor:
    """Adding and subtracting 1.5 * 2^(23-bits) leaves a float32 rounded to multiples of 2^-bits: two passes instead of
    the three of scale, round, unscale, and the same on every IEEE machine.

    A tensor: a Python number would be converted to float32 at every use, which costs as much as a small map.
    """
    return torch.tensor(1.5 * 2.0 ** (23 - bits))


def to_grid(module: M) -> M:
    """Turn a trained prior into its exact form, in place: weights and biases of its layers on the grid, frozen."""
    module.requires_grad_(False)
    for layer in module.modules():
        if isinstance(layer, Linear | DepthwiseConv):
            _round_weights(layer)
        elif isinstance(layer, Fixable):
            layer.fix()
    check_exact(module)
    return module


def as_integers(module: nn.Module) -> dict[str, Tensor]:
    """The state of a module that `to_grid` made exact: weights of its layers as int16, and beside each, as `bits`, the
    fractional bits of every output channel, int8; all else as it is."""
    state = dict(module.state_dict())
    for name, layer in module.named_modules():
        if isinstance(layer, Linear | DepthwiseConv):
            rows, _ = _rows(layer)
            bits = torch.full((len(rows),), _COARSEST_WEIGHT_BITS, device=rows.device)
            while bool((part := (rows * torch.exp2(bits.double())[:, None]).frac().any(1)).any()):
                bits = bits + part.long()
            whole = (rows * torch.exp2(bits.double())[:, None]).view_as(layer.weight)
            state[f"{name}.weight"], state[f"{name}.bits"] = whole.to(torch.int16), bits.to(torch.int8)
    return state


def from_integers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `as_integers` was given; a state without integers is as it was."""
    out = {name: tensor for name, tensor in state.items() if not name.endswith(".bits")}
    for name in state:
        weight = f"{name.removesuffix('.bits')}.weight"
        if name.endswith(".bits") and weight in state:  # what lacks is for a model's loader to say
            unit = torch.exp2(-state[name].double())
            out[weight] = (state[weight].double() * unit.view(-1, *[1] * (state[weight].dim() - 1))).float()
    return out


class Fixable(nn.Module):
    """A module that `to_grid` lets compute once what is then constant."""

    def fix(self) -> None:
        raise NotImplementedError


def check_exact(module: nn.Module) -> None:
    """Prove that no sum in `module` can exceed 2^24 grid units, whatever the input.

    Raises ArithmeticError naming the layer otherwise.
    """
    for name, layer in module.named_modules():
        if isinstance(layer, Linear | DepthwiseConv):
            rows, bias = _rows(layer)
            units = torch.stack([rows * 2.0**k for k in range(_COARSEST_WEIGHT_BITS, _FINEST_WEIGHT_BITS + 1)])
            whole = (units == units.round()).all(-1)
            if not bool(whole.any(0).all()):
                raise ArithmeticError(f"layer {name}: weights that lie on no grid (use to_grid)")
            bits = whole.float().argmax(0) + _COARSEST_WEIGHT_BITS
            if not bool((_reach(rows, bias, bits) <= _SUM).all()):
                raise ArithmeticError(f"layer {name}: sums may exceed the exact range of 2^24 units")


def check_device(device: torch.device) -> None:
    """Try the largest sums there are on a device. Raises VidlbcError where it does not compute them exactly.

    That is so where float32 products are allowed to use TF32 or bfloat16 (torch.set_float32_matmul_precision, cuDNN's
    allow_tf32, oneDNN's default math mode).
    """
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        for layer in (Linear(64, 64), DepthwiseConv(64, 5)):
            for tensor in layer.parameters():
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
            to_grid(layer)
            x = torch.randint(-(2**12), 2**12 + 1, (1, 8, 8, 64), generator=generator).float() * 2.0**-ACTIVATION_BITS
            expected = layer.double()(x.double())
            if not torch.equal(layer.float().to(device)(x.to(device)).cpu().double(), expected):
                raise VidlbcError(
                    f"device {device} rounds float32 sums that must be exact: allow no TF32 or bfloat16 in their place "
                    '(torch.set_float32_matmul_precision("highest"), no torch.backends...fp32_precision = "tf32", '
                    "no ONEDNN_DEFAULT_FPMATH_MODE)"
                )


def require_exact_products() -> None:
    """Raises VidlbcError where torch has been allowed to round float32 products since a device was checked.

    cuDNN may use TF32 (`torch.backends.cudnn.allow_tf32` does by default): no convolution of its lies in the priors.
    """
    wanted = 'streams need exact float32 products ("highest") to decode elsewhere'
    try:
        precision = torch.get_float32_matmul_precision()
    except RuntimeError:  # set through torch.backends, which knows more than that function can tell
        precision = "highest"
    if precision != "highest":
        raise VidlbcError(f'torch.set_float32_matmul_precision("{precision}") is in force: {wanted}')
    for name in ("cuda.matmul", "mkldnn.matmul", "mkldnn.conv"):
        found = attrgetter(name)(torch.backends).fp32_precision
        if found not in ("none", "ieee"):
            raise VidlbcError(f'torch.backends.{name}.fp32_precision = "{found}" is in force: {wanted}')


def _rows(layer: "Linear | DepthwiseConv") -> tuple[Tensor, Tensor]:
    """Weights (channels, products) and biases (channels,) of the output channels, float64."""
    rows = layer.weight.detach().double().flatten(1)
    bias: Tensor | None = layer.bias
    return rows, rows.new_zeros(len(rows)) if bias is None else bias.detach().double()


def _round_weights(layer: "Linear | DepthwiseConv") -> None:
    """Each output channel as finely as its sums allow. Whole numbers in float64 decide: the same on every machine."""
    rows, bias = _rows(layer)
    bits = torch.full((len(rows),), _FINEST_WEIGHT_BITS, device=rows.device)
    while bool((over := _reach(rows, bias, bits) > _SUM).any()):
        bits = bits - over.long()
        if int(bits.min()) < _COARSEST_WEIGHT_BITS:
            raise ArithmeticError("weights too large for the grid")
    unit = torch.exp2(bits.double())
    with torch.no_grad():
        layer.weight.copy_(((rows * unit[:, None]).round() / unit[:, None]).view_as(layer.weight))
        if layer.bias is not None:
            unit = unit * 2.0**ACTIVATION_BITS
            layer.bias.copy_((bias * unit).round() / unit)


def _reach(rows: Tensor, bias: Tensor, bits: Tensor) -> Tensor:
    """Largest sum of each output channel, in its units, for weights of so many fractional bits; float64."""
    unit = torch.exp2(bits.double())
    weights = (rows * unit[:, None]).round().abs().sum(1)
    return weights * (LIMIT * 2.0**ACTIVATION_BITS) + (bias * unit * 2.0**ACTIVATION_BITS).round().abs()


class Linear(nn.Linear):
    """1x1 convolution on (..., C_in) -> (..., C_out): exact for inputs on the grid, and *not yet* snapped to it."""


class DepthwiseConv(nn.Module):
    """Depth-wise k x k convolution on (B, H, W, C), zero padding: exact for inputs on the grid, not yet snapped."""

    def __init__(self, channels: int, kernel: int = 3):
        super().__init__()
        self.kernel = kernel
        self.weight = nn.Parameter(torch.randn(channels, 1, kernel, kernel) / kernel)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        k, pad = self.kernel, self.kernel // 2
        if x.device.type == "cpu" or x.requires_grad:
            y = F.conv2d(x.permute(0, 3, 1, 2), self.weight, self.bias, padding=pad, groups=len(self.weight))
            return y.permute(0, 2, 3, 1)
        # Shifted multiply-adds: no choice of algorithm is left to the library.
        height, width = x.shape[1:3]
        padded = F.pad(x, (0, 0, pad, pad, pad, pad))
        y = self.bias.expand_as(x).clone()
        for i in range(k):
            for j in range(k):
                y.addcmul_(padded[:, i : i + height, j : j + width], self.weight[:, 0, i, j])
        return y


class RMSNorm(nn.Module):
    """x / rms(x) over the last axis; the sum of squares is exact, sqrt and division are correctly rounded."""

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            return x / (x.square().mean(-1, keepdim=True) + 2.0**-10).sqrt()
        # Squares of at most 24 bits are exact, and so are their sums in float64. A product by the reciprocal: what CUDA
        # makes of a division by a number.
        energy = x.square().sum(-1, keepdim=True, dtype=torch.float64) * (1 / self.channels)
        return snap(x / (energy + 2.0**-10).sqrt().float())


class Block(nn.Module):
    """Residual block: depth-wise k x k, then a two-layer 1x1 network. The last layer starts at zero (identity)."""

    def __init__(self, channels: int, expand: int = 1, kernel: int = 3, slope: float = 0.125):
        """`slope`: of the activation below zero."""
        super().__init__()
        self.slope = slope
        self.depthwise = DepthwiseConv(channels, kernel)
        self.expand = Linear(channels, channels * expand)
        self.reduce = Linear(channels * expand, channels)
        nn.init.zeros_(self.reduce.weight)
        nn.init.zeros_(self.reduce.bias)

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(snap(self.depthwise(x)))
        y = snap(F.leaky_relu(y, self.slope) if y.requires_grad else F.leaky_relu_(y, self.slope))
        return snap(x + self.reduce(y))


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
