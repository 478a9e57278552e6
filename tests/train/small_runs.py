"""Short runs of both stages of training, on data that is a pure function of the step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.codec.small_models import fill, raw_bits, save_small_model, small_image_stage
from vidlbc.codec import models
from vidlbc.codec.image_stage import ImageStage
from vidlbc.codec.temporal_stage import TemporalStage
from vidlbc.train.loop import LoopSettings, Outcome, fit
from vidlbc.train.objectives.image import RateDistortion
from vidlbc.train.objectives.video import SymbolRate
from vidlbc.train.schedule import Budget

Loss = Callable[[nn.Module, Any, int], tuple[Tensor, dict[str, float]]]


def drifting(key: int, count: int, side: int) -> np.ndarray:
    """uint8 (count, side, side, 3), from Philox bits: the same under every numpy."""
    picture = raw_bits(key, (side + count) ** 2 * 3).reshape(side + count, side + count, 3) >> 4
    for axis in (0, 1):
        picture = (picture + np.roll(picture, 1, axis) + np.roll(picture, 2, axis)) // 3
    return np.stack([picture[t : t + side, t : t + side] for t in range(count)]).astype(np.uint8)


def image_batch(step: int) -> tuple[Tensor, Tensor]:
    frames = torch.from_numpy(drifting(1000 + step, 2, 64)).permute(0, 3, 1, 2).float() / 255
    return frames, torch.tensor([step * 7 % 64, step * 13 % 64])


def clip_batch(step: int) -> tuple[Tensor, Tensor]:
    """uint8 (2, 3, 3, 48, 48), qp (2,)."""
    clips = np.stack([drifting(2000 + 2 * step + clip, 3, 48) for clip in range(2)])
    return torch.from_numpy(clips).permute(0, 1, 4, 2, 3), torch.tensor([step * 11 % 64, 40])


def image_run(folder: Path) -> tuple[ImageStage, Loss, Callable[[int], Any]]:
    stage = small_image_stage(3)
    stage.train().requires_grad_(True)
    return stage, RateDistortion(), image_batch


def temporal_run(folder: Path, kind: str) -> tuple[TemporalStage, SymbolRate, Callable[[int], Any]]:
    if not (folder / "model").exists():
        save_small_model(folder / "model", 3, kinds=())
    image = models.load_image_stage(folder / "model" / "image_stage")
    temporal = models.build_temporal(kind, image.stage)
    fill(temporal, 4)
    return temporal.requires_grad_(True), SymbolRate(image), clip_batch


def settings(steps: int, **changes: Any) -> LoopSettings:
    return LoopSettings(**{"budget": Budget(steps=steps), "lr": 1e-3, "log_every": 1, "save_seconds": 0.0, **changes})


def train(run: tuple[nn.Module, Loss, Callable[[int], Any]], folder: Path, chosen: LoopSettings) -> Outcome:
    return fit(*run, chosen, folder)
