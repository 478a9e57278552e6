"""Pictures and windows of frames in one flat buffer of a device, from which a batch is one gather.

    arrays uint8 (T, H, W, C) of any sizes --Packed--> int32 pixels (P,) --cut--> uint8 (B, T, S, S, C)

A pixel is four bytes, so that a gather reads whole words; everything random is drawn where the pixels lie. On a GPU no
byte of a batch comes from the host, and the draw can be part of a captured CUDA graph.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

CHANNELS = 4  # bytes of a pixel: at most so many channels


class Packed:
    """`extents` int64 (N, 3): frames, height and width of each array; still pictures have one frame."""

    def __init__(self, arrays: Sequence[np.ndarray], device: torch.device | str = "cpu"):
        """`arrays`: uint8 (H, W, C) or (T, H, W, C), C alike and at most 4. They are copied."""
        clips = [array if array.ndim == 4 else array[None] for array in arrays]
        self.channels = clips[0].shape[-1]
        extents = torch.tensor([clip.shape[:3] for clip in clips])
        counts = extents.prod(1)
        pixels = np.zeros((int(counts.sum()), CHANNELS), np.uint8)
        start = counts.cumsum(0) - counts
        for clip, first, count in zip(clips, start.tolist(), counts.tolist(), strict=True):
            pixels[first : first + count, : self.channels] = clip.reshape(-1, self.channels)
        self.pixels = torch.from_numpy(pixels.view(np.int32)[:, 0]).to(device)
        self.start, self.extents = start.to(device), extents.to(device)

    def __len__(self) -> int:
        return len(self.start)

    @property
    def device(self) -> torch.device:
        return self.pixels.device

    @property
    def nbytes(self) -> int:
        return self.pixels.nbytes

    def to(self, device: torch.device | str) -> "Packed":
        """Itself where it lies there already, else a copy."""
        if torch.device(device) == self.device:
            return self
        moved = object.__new__(Packed)
        moved.channels = self.channels
        moved.pixels, moved.start, moved.extents = (t.to(device) for t in (self.pixels, self.start, self.extents))
        return moved

    def cut(self, index: Tensor, frame: Tensor, y: Tensor, x: Tensor, swap: Tensor | None = None) -> Tensor:
        """uint8 (B, T, S, S, C). `index` (B,) of the arrays; `frame` (B, T); `y`, `x` (B, S): rows and columns; `swap`
        (B,) bool: transposed.

        Places past a border are mirrored (the border pixel is not repeated); any distance past it is.
        """
        height, width = self.extents[index, 1, None], self.extents[index, 2, None]
        down, across = _mirror(y, height) * width, _mirror(x, width)
        if swap is not None:
            down, across = torch.where(swap[:, None], across, down), torch.where(swap[:, None], down, across)
        first = self.start[index, None] + frame * height * width
        place = first[:, :, None, None] + (down[:, :, None] + across[:, None, :])[:, None]
        words = self.pixels.index_select(0, place.flatten()).view(place.shape)
        return words.view(torch.uint8).unflatten(-1, (-1, CHANNELS))[..., : self.channels]


def _mirror(place: Tensor, extent: Tensor) -> Tensor:
    period = (2 * extent - 2).clamp_min(1)
    folded = place.remainder(period)
    return torch.where(folded < extent, folded, period - folded)


@dataclass(frozen=True)
class Draw:
    """Random numbers for the rows of a batch: rank r of w keeps rows [r B, (r + 1) B) of what one process with w B rows
    would draw. `generator` None: the device's own, which a captured CUDA graph draws from anew at each replay."""

    batch: int
    device: torch.device
    rank: int = 0
    world: int = 1
    generator: torch.Generator | None = None

    def uniform(self, *shape: int) -> Tensor:
        """float (B, *shape) in [0, 1)."""
        return self._own(torch.rand(self.world * self.batch, *shape, device=self.device, generator=self.generator))

    def normal(self, *shape: int) -> Tensor:
        """float (B, *shape)."""
        return self._own(torch.randn(self.world * self.batch, *shape, device=self.device, generator=self.generator))

    def whole(self, low: int | Tensor, count: int | Tensor) -> Tensor:
        """int64 (B,): `low` to `low + count - 1`, all alike."""
        place = (self.uniform() * count).long()
        return low + (place.minimum(count - 1) if isinstance(count, Tensor) else place.clamp_max(count - 1))

    def _own(self, rows: Tensor) -> Tensor:
        return rows[self.batch * self.rank : self.batch * (self.rank + 1)]


def seeded(generator: torch.Generator, seed: int, step: int) -> torch.Generator:
    """Set to where `step` of a run with `seed` begins. Neighbouring steps get seeds that share no pattern: the CPU's
    generator takes 32 bits, so they are mixed first (splitmix64)."""
    z = ((seed * 1_000_003 + step) * 0x9E3779B97F4A7C15) & (2**64 - 1)
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
    return generator.manual_seed((z ^ (z >> 31)) >> 1)
