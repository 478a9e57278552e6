"""Block vectors, and the levels that they are coded as.

A *field* holds a vector (down, right) for each block of 8x8 pixels, int32 (B, H/8, W/8, 2), in quarters of a pixel: the
block at a place shows what the reference picture has at that place plus the vector. Its levels, fine to coarse, are the
differences of blocks of 8, 16 and 32 pixels from the block around them, each of which takes the vector that most of its
parts have: where motion is smooth all but the coarsest are 0.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from vidlbc.prior.topdown import Level

BLOCK = 8
QUARTERS = 4
# Vectors of up to 64 pixels lie on the priors' grid; longer ones are seen as such.
LEVELS = tuple(Level(stride, 2, view_bits=4) for stride in (8, 16, 32))
LIMIT = 1 << 12  # 1024 pixels


def to_levels(field: Tensor) -> list[Tensor]:
    """Field (B, h, w, 2) with h and w multiples of 4 -> differences, int32 (B, h', w', 2) a level, fine to coarse."""
    levels = []
    while len(levels) < len(LEVELS) - 1:
        coarse = _commonest(field)
        levels.append(field - enlarged(coarse))
        field = coarse
    return [*levels, field]


def from_levels(levels: Sequence[Tensor]) -> Tensor:
    """The field of `to_levels`."""
    field = levels[-1]
    for difference in reversed(levels[:-1]):
        field = enlarged(field) + difference
    return field


def pyramid(field: Tensor) -> list[Tensor]:
    """The vectors themselves of blocks of 8, 16 and 32 pixels, fine to coarse."""
    fields = [field]
    while len(fields) < len(LEVELS):
        fields.append(_commonest(fields[-1]))
    return fields


def enlarged(field: Tensor) -> Tensor:
    """(B, h, w, C) -> (B, 2h, 2w, C), by repetition."""
    return field.repeat_interleave(2, 1).repeat_interleave(2, 2)


def _commonest(field: Tensor) -> Tensor:
    """(B, h, w, 2) -> (B, h/2, w/2, 2): of each 2x2 vectors the one that most of them equal, the first of those."""
    b, h, w, _ = field.shape
    four = field.reshape(b, h // 2, 2, w // 2, 2, 2).permute(0, 1, 3, 2, 4, 5).reshape(b, h // 2, w // 2, 4, 2)
    equal = (four[..., :, None, :] == four[..., None, :, :]).all(-1).sum(-1)
    # argmax takes any of several largest: the first is asked for by what earlier ones have on top.
    first = (equal * 4 + torch.arange(3, -1, -1, device=field.device)).argmax(-1)
    return four.gather(3, first[..., None, None].expand(-1, -1, -1, 1, 2))[..., 0, :]
