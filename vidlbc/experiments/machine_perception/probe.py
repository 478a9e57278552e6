"""One head on one medium, everything under it frozen: training, and what it says of every clip asked about.

    training view   a random frame of each of T equal parts of the kept frames, moved by whole cells of the latents
    test views      F / T interleaved sets of frames, logits and features averaged

The same for latents and pictures: a shift by other than whole cells would need the pixels, which is what the copies are
for (machine_perception_copies).
"""

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from vidlbc.errors import InputError
from vidlbc.experiments.machine_perception.data import segment_frames
from vidlbc.experiments.machine_perception.encoder import HeadSettings
from vidlbc.experiments.machine_perception.media import Medium
from vidlbc.heads.clip_resnet import ClipResNet
from vidlbc.run.request import keep_request
from vidlbc.train.loop import LoopSettings
from vidlbc.train.schedule import Budget
from vidlbc.train.with_bar import train

_TEST_BATCH = 16


@dataclass(frozen=True)
class ProbeSettings:
    """`frames` of the `kept` frames make a view; `lrs`: tried on val, the best is used; `shift` in cells of `cell`
    pixels. Raises InputError."""

    steps: int = 2000
    batch: int = 12
    lrs: tuple[float, ...] = (3e-3,)
    weight_decay: float = 0.05
    ema: float = 0.98
    seeds: int = 1
    frames: int = 4
    kept: int = 8
    shift: int = 1
    cell: int = 16

    def __post_init__(self) -> None:
        if self.frames < 1 or self.kept % self.frames:
            raise InputError(f"probe.kept={self.kept}: expected a multiple of probe.frames={self.frames}")
        if self.seeds < 1 or self.batch < 1 or self.steps < 1 or not self.lrs:
            raise InputError("probe: expected at least one seed, clip, step and learning rate")


@dataclass(frozen=True)
class Probe:
    """Of `clips` (indices): logits (n, classes) and features (n, D) before the classifier."""

    clips: tuple[int, ...]
    logits: Tensor
    features: Tensor

    def of(self, clips: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Logits and features of some of them."""
        place = {clip: i for i, clip in enumerate(self.clips)}
        rows = [place[int(clip)] for clip in clips]
        return self.logits[rows], self.features[rows]


class ProbeBatches:
    """`batches(step) -> (latents, targets)`; classes as often as they occur."""

    def __init__(self, medium: Medium, clips: np.ndarray, targets: np.ndarray, s: ProbeSettings, seed: int) -> None:
        self.medium, self.clips, self.targets, self.settings, self.seed = medium, clips, targets, s, seed

    def __call__(self, step: int) -> tuple[list[Tensor], Tensor]:
        s, draw = self.settings, random.Random(self.seed * 1_000_003 + step)
        rows = [draw.randrange(len(self.clips)) for _ in range(s.batch)]
        frames = torch.tensor([segment_frames(s.kept, s.frames, draw) for _ in rows])
        moves = [(draw.randint(-s.shift, s.shift), draw.randint(-s.shift, s.shift)) for _ in rows]
        levels = self.medium.read(torch.from_numpy(self.clips[rows]), frames)
        strides = [stride for _, stride in self.medium.levels]
        moved = [_moved(x, moves, s.cell, stride) for x, stride in zip(levels, strides, strict=True)]
        return moved, torch.from_numpy(self.targets[rows])


def _moved(x: Tensor, moves: Sequence[tuple[int, int]], cell: int, stride: int) -> Tensor:
    """Each clip of (B, T, C, H, W) moved by whole cells (rounded where a level is coarser), the border repeated."""
    height, width = x.shape[-2:]
    out = torch.empty_like(x)
    for i, (down, right) in enumerate(moves):
        rows = (torch.arange(height) - round(down * cell / stride)).clamp(0, height - 1)
        columns = (torch.arange(width) - round(right * cell / stride)).clamp(0, width - 1)
        out[i] = x[i][:, :, rows][:, :, :, columns]
    return out


def cross_entropy(module: nn.Module, batch: tuple[list[Tensor], Tensor], step: int) -> tuple[Tensor, dict[str, float]]:
    logits = module(batch[0]).float()
    right = float((logits.detach().argmax(1) == batch[1]).float().mean())
    return F.cross_entropy(logits, batch[1]), {"top1": right}


def fit_probe(
    medium: Medium,
    head: HeadSettings,
    training: tuple[np.ndarray, np.ndarray],
    classes: int,
    asked: Sequence[int],
    s: ProbeSettings,
    lr: float,
    seed: int,
    folder: Path,
    out: Path,
) -> Probe:
    """Train a head on `training` (clips, targets) and ask it about the clips `asked`; resumes from `folder`.

    Raises InputError where `folder` holds another one.
    """
    wanted = {"head": asdict(head), "medium": [medium.name, medium.setting, medium.bytes], "lr": lr, "seed": seed}
    wanted |= {f"probe.{name}": value for name, value in asdict(s).items() if name not in ("lrs", "seeds")}
    keep_request(folder / "request.json", wanted, out, write=True)
    result = folder / "result.safetensors"
    if not result.is_file():
        torch.manual_seed(seed)
        model = head.build(medium.levels, classes)
        _normalise(model, medium, training[0])
        model = model.to(memory_format=torch.channels_last)
        loop = LoopSettings(
            Budget(steps=s.steps),
            lr=lr,
            weight_decay=s.weight_decay,
            ema=s.ema,
            seed=seed,
            log_every=20,
        )
        batches = ProbeBatches(medium, *training, s, seed)
        train(f"{medium.name} seed {seed}", model, cross_entropy, batches, loop, folder)
        tensors: dict[str, Tensor] = dict(zip(("logits", "features"), _ask(model, medium, asked, s), strict=True))
        part = result.with_suffix(".part")
        save_file(tensors, part)
        part.replace(result)
        (folder / "checkpoint.safetensors").unlink(missing_ok=True)
    stored = load_file(result)
    return Probe(tuple(int(i) for i in asked), stored["logits"], stored["features"])


@torch.no_grad()
def _normalise(model: ClipResNet, medium: Medium, clips: np.ndarray) -> None:
    """Shift of every stacked channel and their scale, from the middle frame of each training clip."""
    at = torch.from_numpy(clips)
    middle = torch.full((len(at), 1), medium.frames[0].shape[1] // 2)
    x = model.stack([level[:, 0] for level in medium.read(at, middle)])
    model.set_normalisation(x.mean((0, 2, 3)), x.std((0, 2, 3)))


@torch.no_grad()
def _ask(model: ClipResNet, medium: Medium, clips: Sequence[int], s: ProbeSettings) -> tuple[Tensor, Tensor]:
    model.eval()
    views = s.kept // s.frames
    at = torch.tensor([int(clip) for clip in clips])
    features = []
    for view in range(views):
        frames = torch.arange(view, s.kept, views)
        parts = [model.clip_features(medium.read(p, frames.expand(len(p), -1))) for p in at.split(_TEST_BATCH)]
        features.append(torch.cat(parts))
    logits = torch.stack([model.classifier(x) for x in features]).mean(0)
    return logits, torch.stack(features).mean(0)
