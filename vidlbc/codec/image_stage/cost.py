"""Compute of an image stage, and widths that give two blocks the same.

Multiply-adds are counted by torch.utils.flop_counter (convolutions and matrix products; element-wise work is not
counted) on fake tensors: nothing is computed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from vidlbc.codec.image_stage.base import channels_last
from vidlbc.codec.image_stage.families import build_image_stage
from vidlbc.errors import InputError

WIDTH_STEP = 4


@dataclass(frozen=True)
class Compute:
    """Multiply-adds of one frame: of the transforms and of the intra prior."""

    analysis: int
    synthesis: int
    prior: int

    @property
    def total(self) -> int:
        """Of the transforms: what blocks and widths decide."""
        return self.analysis + self.synthesis


def multiply_adds(family: str, options: Mapping[str, Any], size: int = 256) -> Compute:
    """Count for a frame of `size` x `size`. Raises InputError where the family or its options do not fit."""
    with FakeTensorMode():
        stage = build_image_stage(family, **options)
        frame = torch.empty(1, 3, size, size)
        qp = torch.zeros(1, dtype=torch.long)
        latents = [torch.empty(1, v.channels, size // v.stride, size // v.stride) for v in stage.levels]
        with torch.no_grad(), FlopCounterMode(display=False) as analysis:
            stage.analysis(stage.pad(frame))
        with torch.no_grad(), FlopCounterMode(display=False) as synthesis:
            stage.synthesis(latents, qp)
        # As in training: without gradients the prior would round to its grid, by a constant that is no fake tensor.
        seen = [channels_last(y).requires_grad_() for y in latents]
        with FlopCounterMode(display=False) as prior:
            stage.prior(seen, qp, stage.gains_at(qp))
    counted = (mode.get_total_flops() // 2 for mode in (analysis, synthesis, prior))
    return Compute(*counted)


def match_widths(
    options: Mapping[str, Any], target: Compute, widths: Sequence[int], floor: Sequence[int], tolerance: float = 0.05
) -> tuple[int, ...]:
    """Widths of an `lbc` stage: `widths` times one factor, in steps of 4 and not below `floor`, nearest to `target`.

    Raises InputError where the nearest is further off than `tolerance` (a share of the target's multiply-adds).
    """

    def scaled(factor: float) -> tuple[int, ...]:
        return tuple(
            max(least, WIDTH_STEP * round(factor * w / WIDTH_STEP)) for w, least in zip(widths, floor, strict=True)
        )

    @cache  # neighbouring factors round to the same widths
    def excess(chosen: tuple[int, ...]) -> float:
        return multiply_adds("lbc", {**options, "widths": chosen}).total / target.total - 1

    low, high = 0.0, 2.0
    while high - low > 0.01:  # compute rises with the factor
        middle = (low + high) / 2
        low, high = (middle, high) if excess(scaled(middle)) < 0 else (low, middle)
    best = min((scaled(low), scaled(high)), key=lambda chosen: abs(excess(chosen)))
    if abs(excess(best)) > tolerance:
        raise InputError(
            f"block {options.get('block')} at widths {list(best)} needs {100 * excess(best):+.1f}% of the reference's "
            f"multiply-adds, expected within {100 * tolerance:.0f}%: choose other block counts"
        )
    return best
