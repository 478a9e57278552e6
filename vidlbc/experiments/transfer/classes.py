"""Classification from f: a linear head on the features of a clip's frames (Xie et al., arXiv 2105.13978, section 3.4).

    frames --f--> x_l at the chosen strides --mean and mean size in g x g cells--> tokens (B, T, C, g, g)
        --normalise--> cosine coefficients over time --linear--> logits

Frozen: the tokens are computed once, the head alone is trained. Tuned: f is trained with the head.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from vidlbc.codec.image_stage.lbc import LBC, STRIDES
from vidlbc.errors import InputError
from vidlbc.evaluate import bootstrap_ci
from vidlbc.experiments.clips import ClipSet
from vidlbc.experiments.transfer.start import Contestant, feature_widths, starting_stage
from vidlbc.heads.linear import CosineLinear
from vidlbc.run.options import option
from vidlbc.train.loop import LoopSettings
from vidlbc.train.schedule import Budget
from vidlbc.train.with_bar import train

_KLT_FRAMES, _KLT_MULTIPLE = 128, 32


@dataclass(frozen=True)
class ClassSettings:
    """`frames` of a clip, evenly spread; features of the strides in `strides`; `steps` where f is frozen."""

    frames: int = option(6, "of a clip that are used, evenly spread")
    strides: tuple[int, ...] = option((16, 32), "strides whose features the head reads")
    grid: int = option(4, "cells of a side")
    basis: int = option(4, "cosine coefficients over time")
    dropout: float = option(0.5, "of the summary that the linear layer reads")
    steps: int = option(600, "where f is frozen: only the head is trained")
    tuned_steps: int = option(120, "where f is trained too")
    batch: int = option(8, "clips a step")
    lr: float = option(0.001, "peak learning rate of AdamW; cosine decay")
    weight_decay: float = option(0.05, "of AdamW")
    ema: float = option(0.99, "decay of the moving average of the weights, which is what is kept")
    seed: int = option(0, "of everything random")

    def __post_init__(self) -> None:
        if not self.strides or not set(self.strides) <= set(STRIDES):
            raise InputError(f"classes.strides={list(self.strides)}: expected some of {list(STRIDES)}")

    def loop(self, frozen: bool) -> LoopSettings:
        steps = self.steps if frozen else self.tuned_steps
        return LoopSettings(
            Budget(steps=steps),
            lr=self.lr,
            weight_decay=self.weight_decay,
            ema=self.ema,
            warmup=0.05,
            seed=self.seed,
            log_every=max(1, min(20, steps // 5)),
        )


class FrameTokens(nn.Module):
    """f, pooled: frames (N, 3, H, W) in [0, 1] -> (N, 2 * sum of widths, g, g), mean and mean size of each feature."""

    def __init__(self, stage: LBC, strides: Sequence[int], grid: int):
        super().__init__()
        self.stage, self.grid = stage, grid
        self.levels = [STRIDES.index(stride) for stride in sorted(strides)]
        for name, parameter in stage.named_parameters():
            used = name.startswith(("down.", "encode.")) and int(name.split(".")[1]) <= self.levels[-1]
            parameter.requires_grad_(used)

    @property
    def channels(self) -> int:
        widths = feature_widths(self.stage)
        return 2 * sum(widths[level] for level in self.levels)

    def forward(self, frames: Tensor) -> Tensor:
        features = self.stage.features(self.stage.pad(frames))
        parts = []
        for level in self.levels:
            # Features oscillate around zero: their mean over a cell says little, their mean size how much is there.
            parts += [features[level], features[level].abs()]
        return torch.cat([F.adaptive_avg_pool2d(part, self.grid) for part in parts], 1)


class LinearClassifier(nn.Module):
    """Tokens (B, T, C, g, g), or frames (B, T, 3, H, W) where `tokens` is given -> logits (B, classes)."""

    def __init__(self, channels: int, classes: int, settings: ClassSettings, tokens: FrameTokens | None = None):
        super().__init__()
        self.tokens = tokens
        self.norm = nn.BatchNorm1d(channels, affine=False)
        self.head = CosineLinear(channels, settings.grid, classes, settings.basis, settings.dropout)

    def forward(self, x: Tensor) -> Tensor:
        if self.tokens is not None:
            x = self.tokens(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        flat = self.norm(rearrange(x, "b t c y x -> b c (t y x)"))
        x = rearrange(flat, "b c (t y x) -> b t c y x", t=x.shape[1], y=x.shape[3])
        return self.head(x)


class ClassTask:
    """Trained on the train split, measured on the test split; the val split is not used, as nothing is chosen."""

    def __init__(self, name: str, model: str, clips: ClipSet, settings: ClassSettings):
        self.name, self.model, self.settings = name, model, settings
        self.classes = clips.classes
        labelled = clips.subset([i for i, label in enumerate(clips.labels) if label >= 0])
        self.training, self.test = labelled.split("train"), labelled.split("test")

    def run(self, contestant: Contestant, folder: Path) -> dict[str, Any]:
        """Train (the same call resumes) and measure."""
        s = self.settings
        stage = starting_stage(contestant, self.model, self._klt_pictures, s.seed)
        torch.manual_seed(s.seed)
        tokens = FrameTokens(stage, s.strides, s.grid)
        model = LinearClassifier(tokens.channels, len(self.classes), s, None if contestant.frozen else tokens)
        inputs, test = self._inputs(self.training, tokens, contestant), self._inputs(self.test, tokens, contestant)
        labels = torch.from_numpy(self.training.labels)

        def batches(step: int) -> tuple[Tensor, Tensor]:
            chosen = random.Random(s.seed * 1_000_003 + step).sample(range(len(labels)), min(s.batch, len(labels)))
            return _floats(inputs[chosen]), labels[chosen]

        title = f"{self.name} {contestant}"
        outcome = train(title, model, cross_entropy, batches, s.loop(contestant.frozen), folder)
        with torch.no_grad():
            parts = [model(_floats(test[i : i + s.batch])) for i in range(0, len(test), s.batch)]
        hits = (torch.cat(parts).argmax(1).numpy() == self.test.labels).astype(float)
        return {
            "steps": outcome.steps,
            "seconds": round(outcome.seconds, 1),
            "top1": float(hits.mean()),
            "top1_ci95": bootstrap_ci(hits),
            "clips": len(hits),
            "hits": hits.astype(int).tolist(),
            "train_loss": outcome.last.get("loss"),
        }

    def baseline(self, folder: Path) -> dict[str, Any]:
        """The largest class of the train split."""
        most = np.bincount(self.training.labels, minlength=len(self.classes)).argmax()
        hits = (self.test.labels == most).astype(float)
        return {"top1": float(hits.mean()), "top1_ci95": bootstrap_ci(hits), "clips": len(hits)}

    @torch.no_grad()
    def _inputs(self, clips: ClipSet, tokens: FrameTokens, contestant: Contestant) -> Tensor:
        """Frames uint8 (N, T, 3, S, S); where f is frozen, their tokens (N, T, C, g, g)."""
        frames = torch.from_numpy(np.stack([_chosen(clip, self.settings.frames) for clip in clips.clips]))
        frames = frames.permute(0, 1, 4, 2, 3)
        return torch.stack([tokens(_floats(clip)) for clip in frames]) if contestant.frozen else frames

    def _klt_pictures(self) -> Tensor:
        clips = self.training.clips
        draw = random.Random(self.settings.seed + 1)
        chosen = [clip[draw.randrange(len(clip))] for clip in draw.choices(clips, k=_KLT_FRAMES)]
        side = clips[0].shape[1] - clips[0].shape[1] % _KLT_MULTIPLE
        return _floats(torch.from_numpy(np.stack(chosen)).permute(0, 3, 1, 2)[..., :side, :side])


def cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
    """Of logits and labels; the share of hits beside it."""
    logits = model(batch[0])
    return F.cross_entropy(logits, batch[1]), {"hits": float((logits.argmax(1) == batch[1]).float().mean())}


def _chosen(clip: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """`count` frames, evenly spread; a shorter clip repeats some."""
    return clip[np.linspace(0, len(clip) - 1, count).round().astype(int)]


def _floats(x: Tensor) -> Tensor:
    return x.float() / 255 if x.dtype == torch.uint8 else x
