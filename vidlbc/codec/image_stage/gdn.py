"""Generalised divisive normalisation (Balle et al., arXiv 1511.06281, eq. 3):

    y_i = x_i / sqrt(beta_i + sum_j gamma_ij x_j^2)

Values, gradients and tensor names are those of `compressai.layers.GDN`, under which the shipped weights were trained:
the parameters are square roots, so that beta and gamma cannot be negative, and the buffers are stored with them.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_PEDESTAL = 2.0**-36  # keeps the gradient of a root finite at 0
_BETA_MIN = 1e-6
_GAMMA_START = 0.1


class _Bounded(torch.autograd.Function):
    """max(x, bound); below the bound a gradient passes where it leads back up, else none could."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: Tensor) -> Tensor:
        ctx.save_for_backward(x, bound)
        return torch.max(x, bound)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        x, bound = ctx.saved_tensors
        return ((x >= bound) | (gradients[0] < 0)) * gradients[0], None


class LowerBound(nn.Module):
    bound: Tensor

    def __init__(self, bound: float):
        super().__init__()
        self.register_buffer("bound", torch.tensor([bound]))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = _Bounded.apply(x, self.bound)
        return out


class NonNegative(nn.Module):
    """A parameter -> a tensor of at least `minimum`."""

    pedestal: Tensor

    def __init__(self, minimum: float = 0.0):
        super().__init__()
        self.register_buffer("pedestal", torch.tensor([_PEDESTAL]))
        self.lower_bound = LowerBound((minimum + _PEDESTAL) ** 0.5)

    def start(self, x: Tensor) -> nn.Parameter:
        """The parameter that `forward` takes to x."""
        return nn.Parameter(torch.sqrt(torch.max(x + self.pedestal, self.pedestal)))

    def forward(self, parameter: Tensor) -> Tensor:
        out: Tensor = self.lower_bound(parameter) ** 2 - self.pedestal
        return out


class GDN(nn.Module):
    """(B, C, H, W) -> the same shape. `inverse`: multiplies by the root instead (IGDN)."""

    def __init__(self, channels: int, inverse: bool = False):
        super().__init__()
        self.inverse = inverse
        self.beta_reparam, self.gamma_reparam = NonNegative(_BETA_MIN), NonNegative()
        self.beta = self.beta_reparam.start(torch.ones(channels))
        self.gamma = self.gamma_reparam.start(_GAMMA_START * torch.eye(channels))

    def forward(self, x: Tensor) -> Tensor:
        energy = F.conv2d(x**2, self.gamma_reparam(self.gamma)[..., None, None], self.beta_reparam(self.beta))
        return x * (torch.sqrt(energy) if self.inverse else torch.rsqrt(energy))
