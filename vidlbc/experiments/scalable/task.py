"""The base's task, action recognition on clips: the head that reads y^_b, and the clips that it is trained on."""

import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidlbc.codec.prior.topdown import NUM_QP
from vidlbc.errors import InputError
from vidlbc.experiments.clips import ClipSet, moved
from vidlbc.run.tensor_files import load_tensors, save_tensors

_GROUPS = 8


class ResidualUnit(nn.Module):
    """Two 3x3 convolutions with group normalisation: a frame's features do not depend on the frames beside it."""

    def __init__(self, channels: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(_GROUPS, channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(_GROUPS, channels),
            nn.SiLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class ClipHead(nn.Module):
    """y^_b of a clip (B, T, M_base, h, w) -> logits (B, classes): a small ResNet a frame, an LSTM over the frames."""

    shift: Tensor
    scale: Tensor

    def __init__(self, channels: int, classes: int, width: int = 64, dropout: float = 0.4):
        super().__init__()
        self.register_buffer("shift", torch.zeros(channels, 1, 1))
        self.register_buffer("scale", torch.ones(channels, 1, 1))
        self.config = {"channels": channels, "classes": classes, "width": width, "dropout": dropout}
        self.frame = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1),
            ResidualUnit(width),
            nn.Conv2d(width, width, 3, stride=2, padding=1),
            ResidualUnit(width),
            nn.GroupNorm(_GROUPS, width),
            nn.SiLU(),
        )
        # Where in the frame a hand is tells as much as what it looks like: cells are kept, few channels each.
        self.cells = nn.Conv2d(width, 8, 1)
        self.join = nn.Sequential(nn.Dropout(dropout), nn.Linear(width + 8 * 16, width), nn.SiLU())
        self.lstm = nn.LSTM(width, width, batch_first=True, bidirectional=True)
        self.classify = nn.Sequential(nn.Dropout(dropout), nn.Linear(2 * width, classes))

    def normalise(self, y: Tensor) -> None:
        """Take shift and scale from latents (B, M_base, h, w): fresh channels differ a hundredfold in scale."""
        mean, deviation = y.mean((0, 2, 3)), y.std((0, 2, 3))
        self.shift.copy_(mean[:, None, None])
        self.scale.copy_(1 / deviation.clamp_min(1e-3)[:, None, None])

    def forward(self, y: Tensor) -> Tensor:
        maps = self.frame((y.flatten(0, 1) - self.shift) * self.scale)
        cells = F.adaptive_avg_pool2d(self.cells(maps), 4).flatten(1)
        frames = self.join(torch.cat([maps.mean((2, 3)), cells], 1)).unflatten(0, y.shape[:2])
        return self.classify(self.lstm(frames)[0].mean(1))

    def save(self, path: Path, extra: Mapping[str, Any]) -> None:
        """One safetensors file; `extra` is kept beside the sizes."""
        save_tensors(path, dict(self.state_dict()), {"head": self.config, **extra})

    @classmethod
    def load(cls, path: Path) -> tuple["ClipHead", dict[str, Any]]:
        """The head, ready to use, and what was kept with it. Raises InputError where the file holds none."""
        tensors, meta = load_tensors(path)
        try:
            head = cls(**meta["head"])
            head.load_state_dict(tensors)
        except (KeyError, TypeError, RuntimeError) as error:
            raise InputError(f"{path} holds no head of a scalable base ({str(error).splitlines()[0]})") from None
        return head.eval().requires_grad_(False), meta


@dataclass(frozen=True)
class TaskSettings:
    """`frames` of a clip, `batch` clips a step, `shift` in pixels and `jitter` of brightness, contrast and colour."""

    frames: int = 6
    batch: int = 6
    shift: int = 10
    jitter: float = 0.25

    def __post_init__(self) -> None:
        if min(self.frames, self.batch) < 1 or self.shift < 0 or not 0 <= self.jitter < 1:
            told = ", ".join(f"task.{name}={value}" for name, value in asdict(self).items())
            raise InputError(f"{told}: expected at least 1, 1 and 0, and 0 to 1")


class TaskClips:
    """`clips(step)` -> float (B, T, 3, S, S) in [0, 1], labels (B,), qp (B,): a pure function of (seed, step).

    A frame is drawn from each of T equal segments (Wang et al., arXiv 1608.00859). All frames of a clip get the same
    shift, gain and offset of colours; no flips, as some gestures are told apart by their side.
    """

    def __init__(self, clips: ClipSet, settings: TaskSettings, seed: int):
        self.labelled = [i for i, label in enumerate(clips.labels) if label >= 0]
        if not self.labelled:
            raise InputError("the train split has no labelled clip: the base needs a task")
        self.clips, self.settings, self.seed = clips, settings, seed

    def __call__(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        draw = random.Random(self.seed * 1_000_003 + step)
        chosen = [draw.choice(self.labelled) for _ in range(self.settings.batch)]
        clips = torch.stack([self._varied(self.clips.clips[i], draw) for i in chosen])
        qp = torch.tensor([draw.randrange(NUM_QP) for _ in chosen])
        return clips, torch.from_numpy(self.clips.labels[chosen]), qp

    def _varied(self, clip: np.ndarray, draw: random.Random) -> Tensor:
        s = self.settings
        chosen = clip[segment_frames(len(clip), s.frames, draw)]
        across, down = draw.randint(-s.shift, s.shift), draw.randint(-s.shift, s.shift)
        frames = torch.from_numpy(moved(chosen, -down, -across)).permute(0, 3, 1, 2).float() / 255
        gain = torch.tensor([1 + draw.uniform(-s.jitter, s.jitter)] * 3)
        gain = gain * torch.tensor([1 + draw.uniform(-s.jitter, s.jitter) / 3 for _ in range(3)])
        offset = draw.uniform(-s.jitter, s.jitter) / 3
        middle = frames.mean()
        return ((frames - middle) * gain[:, None, None] + middle + offset).clamp(0, 1)


def segment_frames(length: int, count: int, draw: random.Random | None = None) -> np.ndarray:
    """Indices of `count` frames of `length`, one of each equal segment: a random one, or its middle without `draw`."""
    at = [(index + (draw.random() if draw else 0.5)) * length / count for index in range(count)]
    return np.minimum(np.array(at).astype(int), length - 1)
