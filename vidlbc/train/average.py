"""Exponential moving average of the weights: what is validated, kept and shipped."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class ExponentialAverage:
    """EMA of the parameters that are trained; its decay warms up as (1 + n) / (10 + n)."""

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self._trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self.values = {n: p.detach().clone() for n, p in self._trained.items()}

    def weight(self, step: int) -> float:
        """Of the new weights in step `step`'s update."""
        return 1 - min(self.decay, (1 + step) / (10 + step))

    @torch.no_grad()
    def update(self, weight: Tensor) -> None:
        """average += weight * (parameters - average). `weight` () lies on their device: no host sync."""
        values = list(self.values.values())
        change = torch._foreach_sub(list(self._trained.values()), values)
        torch._foreach_mul_(change, weight)
        torch._foreach_add_(values, change)

    @torch.no_grad()
    def copy_to_module(self) -> None:
        for name, parameter in self._trained.items():
            parameter.copy_(self.values[name])

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Within, the module holds the average; its own weights come back, at the same addresses."""
        own = {name: parameter.detach().clone() for name, parameter in self._trained.items()}
        self.copy_to_module()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self._trained.items():
                    parameter.copy_(own[name])
