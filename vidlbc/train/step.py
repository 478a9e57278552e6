"""One step of training without a host sync: loss, gradients, clipping, AdamW, moving average, figures.

    batch --loss_fn--> loss --backward--> gradients --clip--> fused AdamW --> weights --> average
                 \\--> figures, summed on the device; `read` fetches them, every so many steps

A step whose loss or gradient is not finite changes neither weights nor average: on a device too that is decided
without asking the host. On a GPU, steps of one shape are captured as one CUDA graph each (vidlbc.train.captured).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from vidlbc.run import distributed
from vidlbc.train.average import ExponentialAverage

Figures = Mapping[str, float | Tensor]
Loss = Callable[[nn.Module, Any, int], tuple[Tensor, Figures]]

BETAS = (0.9, 0.98)


@dataclass
class Reading:
    """Means over the steps since the last reading that were taken; counts of those skipped."""

    figures: dict[str, float]
    steps: int
    skipped: int
    in_a_row: int


class TrainingStep:
    """`module`'s parameters that require gradients are trained; they and all else of a step lie on their device."""

    def __init__(
        self, module: nn.Module, loss_fn: Loss, lr: float, weight_decay: float, clip: float, ema: float, bf16: bool
    ):
        self.module, self.loss_fn, self.clip, self.bf16 = module, loss_fn, clip, bf16
        self.trained = [p for p in module.parameters() if p.requires_grad]
        self.device = self.trained[0].device
        on_gpu = self.device.type == "cuda"
        # What a captured graph reads anew at each replay has to be a tensor.
        self.optimiser = torch.optim.AdamW(
            self.trained,
            torch.tensor(lr, device=self.device) if on_gpu else lr,
            BETAS,
            weight_decay=weight_decay,
            fused=True,
            capturable=on_gpu,
        )
        self.average = ExponentialAverage(module, ema)
        self._new = torch.zeros((), device=self.device)
        self._sums: dict[tuple[str, ...], Tensor] = {}
        self._skipped = torch.zeros(2, device=self.device)  # in all since the last reading, and in a row until now
        self._longest = torch.zeros((), device=self.device)

    def prepare(self, step: int, rate: float) -> None:
        """Learning rate and weight of the average for the next `compute`, filled in without a sync."""
        for group in self.optimiser.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        self._new.fill_(self.average.weight(step))

    def compute(self, batch: Any, step: int) -> None:
        """One update of the weights."""
        on_gpu = self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16, cache_enabled=not on_gpu):
            loss, parts = self.loss_fn(self.module, batch, step)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        distributed.average_gradients(self.trained)
        norm = torch.nn.utils.clip_grad_norm_(self.trained, self.clip)
        loss = loss.detach()
        bad = distributed.any_of((~(norm.isfinite() & loss.isfinite())).float())
        # Fused AdamW leaves weights, moments and its count of steps as they are where found_inf is 1.
        self.optimiser.found_inf, self.optimiser.grad_scale = bad, None  # type: ignore[attr-defined]
        self.optimiser.step()
        self.average.update(self._new * (1 - bad))
        self._count({"loss": loss, "grad_norm": norm, **parts}, bad)

    @torch.no_grad()
    def _count(self, figures: Figures, bad: Tensor) -> None:
        names = tuple(figures)
        values = [torch.as_tensor(figures[name], dtype=torch.float32, device=self.device) for name in names]
        taken = 1 - bad
        now = torch.where(bad > 0, 0.0, torch.stack([*(value.detach() for value in values), taken]))
        if names not in self._sums:
            self._sums[names] = torch.zeros_like(now)
        self._sums[names].add_(now)
        self._skipped[1].add_(1).mul_(bad)
        self._skipped[0].add_(bad)
        self._longest.copy_(torch.maximum(self._longest, self._skipped[1]))

    def read(self) -> Reading:
        """The one place where the host waits for the device."""
        names = list(self._sums)
        everything = torch.cat([*self._sums.values(), self._skipped, self._longest[None]]).tolist()
        totals: dict[str, float] = {}
        counts: dict[str, float] = {}
        steps = 0.0
        for key in names:
            *values, count = everything[: len(key) + 1]
            everything = everything[len(key) + 1 :]
            steps += count
            for name, value in zip(key, values, strict=True):
                totals[name] = totals.get(name, 0.0) + value
                counts[name] = counts.get(name, 0.0) + count
        skipped, _, longest = everything
        for tensor in (*self._sums.values(), self._skipped[:1], self._longest):
            tensor.zero_()
        self._longest.copy_(self._skipped[1])
        figures = distributed.mean({n: totals[n] / counts[n] if counts[n] else math.nan for n in totals})
        return Reading({n: v for n, v in figures.items() if not math.isnan(v)}, int(steps), int(skipped), int(longest))
