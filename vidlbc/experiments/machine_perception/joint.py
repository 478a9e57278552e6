"""Rate, distortion and utility together (Codevilla et al., arXiv 2111.02249, Eq. 6), for one codec of all rates.

    R(y) + R(z) + lambda_d D(x, g(y^)) + sum_t lambda_t L_t(h_t(y^), labels)

    compression batch --> analysis --> quantise, prior --> synthesis       the first three terms
    task batch t -------> analysis --> quantise -----------> head h_t      cross-entropy L_t

A head that knows nothing yet tells an encoder nothing: `Utility` trains it first, alone.

The batches may come from different data: a step takes one of each. lambda_d follows a QP drawn for every frame
(`qp_lambda`), so one model serves all rates; a task's clips have a QP each, so that its head works at all rates too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidlbc.codec.image_stage.base import ImageStage, channels_first, channels_last
from vidlbc.codec.image_stage.blocks import RoundSTE
from vidlbc.train.objectives.image import RateDistortion


@dataclass(frozen=True)
class TaskBatch:
    """Clips (B, T, 3, H, W) in [0, 1], their labels (B,) and QPs (B,)."""

    clips: Tensor
    labels: Tensor
    qp: Tensor


@dataclass(frozen=True)
class JointBatch:
    """`compression`: frames (B, 3, H, W) and qp (B,); `tasks`: by the names of the model's heads."""

    compression: tuple[Tensor, Tensor]
    tasks: Mapping[str, TaskBatch] = field(default_factory=dict)


class JointModel(nn.Module):
    """An image stage and the heads of its tasks, which read the levels given by `levels` (indices, fine to coarse)."""

    def __init__(self, stage: ImageStage, heads: Mapping[str, nn.Module], levels: Sequence[int]) -> None:
        super().__init__()
        self.stage = stage
        self.heads = nn.ModuleDict(heads)
        self.levels = tuple(levels)

    def logits(self, task: str, batch: TaskBatch) -> Tensor:
        """What the task's head says of the dequantised latents: (B, classes)."""
        count, frames = batch.clips.shape[:2]
        flat = batch.clips.flatten(0, 1)
        decoded = dequantised(self.stage, self.stage.analysis(self.stage.pad(flat)), batch.qp.repeat_interleave(frames))
        # The heads' few channels are slower in bf16 than in float32 on a CPU (0.34 against 0.25 s for 72 frames).
        with torch.autocast(flat.device.type, enabled=False):
            return self.heads[task]([decoded[i].unflatten(0, (count, frames)) for i in self.levels])


def dequantised(stage: ImageStage, latents: Sequence[Tensor], qp: Tensor) -> list[Tensor]:
    """Latents (B, C_l, H_l, W_l) as a decoder gets them, rounded straight-through; no rate is estimated."""
    out = []
    for y, gains in zip(latents, stage.gains_at(qp), strict=True):
        symbols = RoundSTE.apply(channels_last(y.float()) * gains.gain[:, None, None])
        out.append(channels_first(symbols * gains.step[:, None, None]))
    return out


@dataclass(frozen=True)
class RateDistortionUtility:
    """Eq. 6, called by the loop. `weights`: lambda_t of each task; without any it is the naive loss (Eq. 5)."""

    weights: Mapping[str, float]
    rate_distortion: RateDistortion = field(default_factory=RateDistortion)

    def __call__(self, module: nn.Module, batch: JointBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        assert isinstance(module, JointModel)
        loss, figures = self.rate_distortion(module.stage, batch.compression, step)
        for task, weight in self.weights.items():
            utility, told = Utility(task)(module, batch.tasks[task], step)
            loss = loss + weight * utility
            figures |= told
        return loss, figures


@dataclass(frozen=True)
class Utility:
    """L_t of one task alone, called by the loop."""

    task: str

    def __call__(self, module: nn.Module, batch: TaskBatch, step: int) -> tuple[Tensor, dict[str, Tensor]]:
        assert isinstance(module, JointModel)
        logits = module.logits(self.task, batch)
        loss = F.cross_entropy(logits.float(), batch.labels)
        right = (logits.detach().argmax(1) == batch.labels).float().mean()
        return loss, {self.task: loss.detach(), f"{self.task}_top1": right}
