"""Changed copies of training clips, coded as the clips themselves are, for the heads to train on.

A picture can be moved by a pixel or recoloured after decoding, latents cannot: a shift by a pixel is another set of
symbols. A head that sees few clips must be shown that these changes mean nothing, so they are made before coding, alike
for every codec. Copies are never counted in a rate. (Without them the sub-pixel ResNet learned 38% of the gestures'
training clips in 500 steps and was at chance on val.)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from vidlbc.errors import InputError


@dataclass(frozen=True)
class CopySettings:
    """`count` copies of each clip, zoomed by 1 +- `scale`, moved by up to `shift` of the side, the channels' gain and
    offset changed by up to `colour`; a clip's frames all alike. No flips: left and right are part of a gesture."""

    count: int = 8
    scale: float = 0.15
    shift: float = 0.08
    colour: float = 0.15

    def __post_init__(self) -> None:
        if self.count < 0:
            raise InputError(f"copies.count={self.count}: expected at least 0")
        for name in ("scale", "shift", "colour"):
            if not 0 <= getattr(self, name) < 1:
                raise InputError(f"copies.{name}={getattr(self, name)}: expected 0 to 1")


@dataclass(frozen=True)
class Copies:
    """`origin[j]` is the index of the clip that `clips[j]` is a copy of; a medium has them after all clips."""

    clips: list[np.ndarray]
    origin: NDArray[np.int64]

    def of(self, chosen: Sequence[int], clips: int) -> list[int]:
        """Rows in a medium of `clips` clips of all copies of the `chosen` ones."""
        return [clips + int(row) for row in np.flatnonzero(np.isin(self.origin, list(chosen)))]


def make_copies(clips: Sequence[np.ndarray], of: Sequence[int], settings: CopySettings, seed: int) -> Copies:
    """Copies of the clips `of` (indices); clips uint8 (T, H, W, 3). A function of the seed, the clip and the copy."""
    made = [_changed(clips[i], settings, [seed, i, copy]) for copy in range(settings.count) for i in of]
    return Copies(made, np.tile(np.array(of, np.int64), settings.count))


def _changed(frames: np.ndarray, s: CopySettings, seed: Sequence[int]) -> np.ndarray:
    rng = np.random.default_rng(list(seed))
    zoom = 1 + rng.uniform(-s.scale, s.scale)
    down, right = 2 * rng.uniform(-s.shift, s.shift, 2)  # affine_grid measures in halves of the side
    x = torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 3, 1, 2).float() / 255
    place = torch.tensor([[zoom, 0, right], [0, zoom, down]], dtype=torch.float32).expand(len(x), 2, 3)
    grid = F.affine_grid(place, list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, padding_mode="border", align_corners=False)
    gain = (1 + rng.uniform(-s.colour, s.colour)) * (1 + rng.uniform(-s.colour, s.colour, 3))
    offset = rng.uniform(-s.colour, s.colour) / 2
    x = (x - 0.5) * torch.from_numpy(gain).float()[:, None, None] + 0.5 + offset
    return np.ascontiguousarray((255 * x.clamp(0, 1)).round().byte().permute(0, 2, 3, 1).numpy())
