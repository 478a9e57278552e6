"""The recogniser behind the semantic proxy: a small network trained from the labels at hand, then frozen.

    frames --stem (stride 4)--> stage (8) --> stage (16) --> stage (32) --> mean --> one linear head a task

Group normalisation: what it says of a frame does not depend on the frames beside it.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_GROUPS = 8


class Labelled(Protocol):
    """A batch with labels: what vidlbc.train.data.mixed_data gives."""

    @property
    def frames(self) -> Tensor: ...
    @property
    def label(self) -> Tensor: ...
    @property
    def weight(self) -> Tensor: ...
    @property
    def task(self) -> Tensor: ...


class Recogniser(nn.Module):
    """`classes`: of each task. Scores of a task with fewer classes than the largest are -inf beyond its own."""

    def __init__(self, classes: Sequence[int], widths: Sequence[int] = (24, 48, 96, 128)):
        super().__init__()
        self.classes = tuple(classes)
        self.stem = nn.Sequential(
            nn.Conv2d(3, widths[0], 5, stride=2, padding=2),
            nn.GroupNorm(_GROUPS, widths[0]),
            nn.SiLU(),
            nn.Conv2d(widths[0], widths[0], 3, stride=2, padding=1, groups=widths[0]),
        )
        self.stages = nn.ModuleList([_stage(a, b) for a, b in zip(widths[:-1], widths[1:], strict=True)])
        self.heads = nn.ModuleList([nn.Linear(widths[-1], count) for count in self.classes])

    def forward(self, x: Tensor, task: Tensor) -> tuple[list[Tensor], Tensor]:
        """Frames (B, 3, H, W) in [0, 1], task (B,) -> normalised maps at strides 8, 16, 32 and scores (B, classes)."""
        x = self.stem(2 * x - 1)
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features, task_scores(self.heads, F.silu(x).mean((2, 3)), task)


def _stage(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.SiLU(),
        nn.Conv2d(inputs, outputs, 3, stride=2, padding=1),
        nn.GroupNorm(_GROUPS, outputs),
        nn.SiLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1, groups=outputs),
        nn.Conv2d(outputs, outputs, 1),
        nn.GroupNorm(_GROUPS, outputs),
    )


def task_scores(heads: nn.ModuleList, pooled: Tensor, task: Tensor) -> Tensor:
    """Each row's scores from the head of its task: (B, C), (B,) -> (B, most classes), -inf where there is no class."""
    outs = [head(pooled) for head in heads]
    width = max((out.shape[1] for out in outs), default=1)
    padded = torch.stack([F.pad(out, (0, width - out.shape[1]), value=float("-inf")) for out in outs])
    return padded[task, torch.arange(len(task), device=task.device)]


def classification_loss(scores: Tensor, label: Tensor, weight: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy over the rows that have a label, weighted by trust; 0 where none has."""
    known = (label >= 0) & (weight > 0)
    if not bool(known.any()):
        return 0.0 * torch.where(torch.isfinite(scores), scores, 0.0).sum()  # a gradient of zero, not none
    scores, weight = scores[known], weight[known]
    logarithm = scores.log_softmax(1)
    own = -logarithm.gather(1, label[known][:, None])[:, 0]
    exists = torch.isfinite(scores)
    spread = -torch.where(exists, logarithm, 0.0).sum(1) / exists.sum(1)
    return ((1 - smoothing) * own + smoothing * spread).mul(weight).sum() / weight.sum()


def recogniser_loss(module: nn.Module, batch: Labelled, step: int) -> tuple[Tensor, dict[str, float]]:
    """For vidlbc.train.loop.fit: cross-entropy with label smoothing 0.1, colours and brightness varied."""
    assert isinstance(module, Recogniser)
    frames = batch.frames
    shift = 1 + 0.3 * (2 * torch.rand(len(frames), 3, 1, 1, device=frames.device) - 1)
    offset = 0.1 * (2 * torch.rand(len(frames), 1, 1, 1, device=frames.device) - 1)
    _, scores = module((frames * shift + offset).clamp(0, 1), batch.task)
    loss = classification_loss(scores, batch.label, batch.weight, smoothing=0.1)
    known = batch.label >= 0
    right = float((scores.argmax(1) == batch.label)[known].float().mean()) if bool(known.any()) else 0.0
    return loss, {"accuracy": right}


@torch.no_grad()
def accuracy(recogniser: Recogniser, frames: Tensor, label: Tensor, task: Tensor) -> dict[int, tuple[float, int]]:
    """Share of right answers and number of labelled frames, by task: frames (N, 3, H, W), label and task (N,)."""
    recogniser.eval()
    guesses = [recogniser(f, t)[1].argmax(1) for f, t in zip(frames.split(32), task.split(32), strict=True)]
    right = torch.cat(guesses) == label
    found = {}
    for index in range(len(recogniser.classes)):
        rows = (task == index) & (label >= 0)
        if bool(rows.any()):
            found[index] = (float(right[rows].float().mean()), int(rows.sum()))
    return found
