"""Pictures as much brighter or darker as the next frame is: fades, flashes, exposure (weighted prediction of H.264).

What a frame is predicted from is the picture before it with a gain and an offset for each colour, before it is moved:
whole numbers throughout, so exact.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

UNIT = 64  # gains are in 64ths
_SMALL_SIDE, _REACH, _BLOCK = 4, 2, 8  # of an encoder's look: pixels a small pixel; small pixels
_WORTH = 0.85  # of the difference to the frame: what is left of it must be less


class Brightness(NamedTuple):
    """Of red, green and blue: gains in 64ths, 1 to 255, and offsets, -128 to 127 of 255."""

    gains: tuple[int, int, int]
    offsets: tuple[int, int, int]

    def to_bytes(self) -> bytes:
        return bytes(self.gains) + bytes(offset & 0xFF for offset in self.offsets)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Brightness":
        r, g, b, *offsets = data
        x, y, z = (value - 256 * (value > 127) for value in offsets)
        return cls((r, g, b), (x, y, z))


def brightened(picture: Tensor, brightness: Brightness) -> Tensor:
    """uint8 (B, H, W, 3) -> uint8."""
    gains, offsets = (torch.tensor(x, dtype=torch.int32, device=picture.device) for x in brightness)
    return ((picture.int() * gains + UNIT // 2 >> 6) + offsets).clamp_(0, 255).to(torch.uint8)


def brightness_between(frame: Tensor, before: Tensor) -> Brightness | None:
    """What makes the picture before look most like a frame, uint8 (1, H, W, 3) each; None where it is not worth its
    bytes. Nothing here decides what decodes.

    Means and deviations of the whole pictures tell gains and offsets; blocks that move a little what they are worth.
    """
    now, then = (x.reshape(-1, 3).float() for x in (frame, before))
    (spread, middle), (spread_then, middle_then) = (torch.std_mean(x, 0, correction=0) for x in (now, then))
    # A flat picture has no gain to tell.
    ratio = torch.where(spread_then > 1, spread / spread_then.clamp_min(1), 1.0)
    gains = (UNIT * ratio).round().clamp(1, 255)
    offsets = (middle - middle_then * gains / UNIT).round().clamp(-128, 127)
    r, g, b = (int(x) for x in gains)
    x, y, z = (int(x) for x in offsets)
    found = Brightness((r, g, b), (x, y, z))
    if found == ((UNIT,) * 3, (0,) * 3):
        return None
    target = _small(frame)
    as_it_is, as_found = (_apart(target, _small(x)) for x in (before, brightened(before, found)))
    return found if as_found < _WORTH * as_it_is else None


def _small(picture: Tensor) -> Tensor:
    return F.avg_pool2d(picture.permute(0, 3, 1, 2).float(), _SMALL_SIDE)


def _apart(target: Tensor, small: Tensor) -> float:
    """Mean absolute difference of blocks from where they fit best, not far away."""
    height, width = target.shape[2:]
    around = F.pad(small, (_REACH,) * 4, mode="replicate")
    places = range(2 * _REACH + 1)
    apart = [
        F.avg_pool2d((target - around[..., y : y + height, x : x + width]).abs().mean(1, keepdim=True), _BLOCK)
        for y in places
        for x in places
    ]
    return float(torch.stack(apart).amin(0).mean())
