"""A picture moved by block vectors: exact, so that encoder and decoder predict from the same numbers.

Quarter-pixel places are interpolated by the 8-tap filters of HEVC (Sullivan et al., 2012), across and then down,
without rounding in between: 8-bit pixels and taps of 64ths make sums below 2^22, whole numbers in float32. Blocks may
overlap as those of H.263 do (ITU-T H.263, annex F.3; Orchard and Sullivan, 1994).
"""

import torch
from torch import Tensor

from vidlbc.motion.field import BLOCK, QUARTERS, neighbours
from vidlbc.prior.grid import snap

TAPS = (
    (0, 0, 0, 64, 0, 0, 0, 0),
    (-1, 4, -10, 58, 17, -5, 1, 0),
    (-1, 4, -11, 40, 40, -11, 4, -1),
    (0, 1, -5, 17, 58, -10, 4, -1),
)
_BEFORE = 3  # taps before the pixel itself
_SPAN = BLOCK + len(TAPS[0]) - 1
# Pictures as the networks see them: [0, 1] - 1/2, times 16, so that the grid of 2^-8 holds 12 bits of it.
CONTRAST = 16.0
_UNIT = CONTRAST / (255 * 64 * 64)


def _filters() -> Tensor:
    """(4, span, block): the filter of a phase as a matrix that takes a row of a block's surroundings to its pixels."""
    filters = torch.zeros(QUARTERS, _SPAN, BLOCK)
    for phase, taps in enumerate(TAPS):
        for pixel in range(BLOCK):
            filters[phase, pixel : pixel + len(taps), pixel] = torch.tensor(taps, dtype=torch.float32)
    return filters


_FILTERS = _filters()
# Of a pixel of a block, in eighths: what its own vector leads to counts for the most, what those of the blocks above or
# below and left or right lead to, whichever are nearer, for the rest.
_OWN = (
    (4, 5, 5, 5, 5, 5, 5, 4),
    (5, 5, 5, 5, 5, 5, 5, 5),
    (5, 5, 6, 6, 6, 6, 5, 5),
    (5, 5, 6, 6, 6, 6, 5, 5),
)
_ABOVE = (
    (2, 2, 2, 2, 2, 2, 2, 2),
    (1, 1, 2, 2, 2, 2, 1, 1),
    (1, 1, 1, 1, 1, 1, 1, 1),
    (1, 1, 1, 1, 1, 1, 1, 1),
)


def _shares() -> Tensor:
    """(5, 8, 1, 8): of a block's own vector and of those above, below, left and right; they add up to one."""
    own, above = (torch.tensor(half, dtype=torch.float32) for half in (_OWN, _ABOVE))
    own, none = torch.cat([own, own.flip(0)]), torch.zeros_like(above)
    beside = 8 - own - torch.cat([above, above.flip(0)])
    left = torch.arange(BLOCK) < BLOCK // 2
    shares = [own, torch.cat([above, none]), torch.cat([none, above.flip(0)]), beside * left, beside * ~left]
    return torch.stack(shares)[:, :, None] / 8


_SHARES = _shares()


def moved(reference: Tensor, field: Tensor, overlap: bool = False) -> Tensor:
    """Reference pictures uint8 (B, H, W, 3), sides multiples of 8, by fields int32 (B, H/8, W/8, 2).

    Gives float32 (B, H, W, 3), pixels as `seen` makes them. Beyond its border a picture goes on as its last pixels.
    `overlap`: blocks run into each other: where vectors differ, edges would be seen, and be copied on.
    """
    batch, height, width, channels = reference.shape
    if not overlap:
        blocks = _blocks(reference, field[..., None, :])[:, :, :, 0]
    else:
        several = _blocks(reference, torch.cat([field[..., None, :], neighbours(field)], -2))
        shares = _SHARES if reference.device.type == "cpu" else _SHARES.to(reference.device)
        # Eighths of numbers on the grid, 7 bits and a sign before the point: exact in any order.
        blocks = snap((several * shares).sum(3))
    return blocks.permute(0, 1, 3, 2, 5, 4).reshape(batch, height, width, channels)


def _blocks(reference: Tensor, vectors: Tensor) -> Tensor:
    """What each of K vectors of a block, int32 (B, H/8, W/8, K, 2), leads to: (B, H/8, W/8, K, 8, 3, 8), down and
    across."""
    batch, height, width, channels = reference.shape
    rows, columns, count = vectors.shape[1:4]
    device = reference.device
    filters = _FILTERS if device.type == "cpu" else _FILTERS.to(device)
    whole = torch.div(vectors, QUARTERS, rounding_mode="floor")
    phase = vectors - QUARTERS * whole
    top = torch.arange(rows, device=device)[:, None, None] * BLOCK + whole[..., 0] - _BEFORE
    left = torch.arange(columns, device=device)[:, None] * BLOCK + whole[..., 1] - _BEFORE
    y = (top[..., None] + torch.arange(_SPAN, device=device)).clamp_(0, height - 1)
    # Runs of pixels are taken whole. Past the picture by a run's length, all of a run's pixels are the border's.
    x = left.clamp_(-_SPAN, width) + _SPAN
    ends = [reference[:, :, at : at + 1].expand(-1, -1, _SPAN, -1) for at in (0, width - 1)]
    wide = torch.cat([ends[0], reference, ends[1]], 2)
    places = wide.numel() // channels - _SPAN + 1
    runs = wide.view(-1).as_strided((places, _SPAN * channels), (channels, 1))
    clip = torch.arange(batch, device=device)[:, None, None, None, None] * height
    starts = (clip + y) * wide.shape[2] + x[..., None]
    blocks = runs.index_select(0, starts.view(-1)).float().view(-1, _SPAN, _SPAN * channels)
    # Down first: whole rows of a block's surroundings are then the columns of one matrix.
    down = filters[phase[..., 0]].view(-1, _SPAN, BLOCK).transpose(1, 2) @ blocks
    across = down.view(-1, BLOCK, _SPAN, channels).transpose(2, 3).reshape(-1, BLOCK * channels, _SPAN)
    sums = across @ filters[phase[..., 1]].view(-1, _SPAN, BLOCK)
    sums = sums.clamp_(0, 255 * 64 * 64).view(batch, rows, columns, count, BLOCK, channels, BLOCK)
    return snap(sums.mul_(_UNIT).sub_(CONTRAST / 2))


def seen(picture: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) -> float32, as `moved` makes it of a picture that stands still."""
    return snap(picture.float().mul_(64.0 * 64.0).mul_(_UNIT).sub_(CONTRAST / 2))


def shown(picture: Tensor) -> Tensor:
    """float32 (B, H, W, 3) on the grid -> uint8: the inverse of `seen`."""
    return (picture * (255 / CONTRAST) + 127.5).round_().clamp_(0, 255).to(torch.uint8)
