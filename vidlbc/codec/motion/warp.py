"""A picture moved by block vectors: exact, so that encoder and decoder predict from the same numbers.

Quarter-pixel places are interpolated by the 8-tap filters of HEVC (Sullivan et al., 2012), across and then down,
without rounding in between: 8-bit pixels and taps of 64ths make sums below 2^22, whole numbers in float32. Blocks may
overlap as those of H.263 do (ITU-T H.263, annex F.3; Orchard and Sullivan, 1994).
"""

import torch
from torch import Tensor

from vidlbc.codec.motion.field import BLOCK, QUARTERS, neighbours
from vidlbc.codec.prior.grid import snap

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
# Of a pixel of a block, in eighths: what the vector of the block above counts for, or on the left, in its upper or left
# half; below and right likewise. Its own vector counts for the rest.
_ABOVE = (
    (2, 2, 2, 2, 2, 2, 2, 2),
    (1, 1, 2, 2, 2, 2, 1, 1),
    (1, 1, 1, 1, 1, 1, 1, 1),
    (1, 1, 1, 1, 1, 1, 1, 1),
)
_LEFT = ((2, 1, 1, 1), *((2, 2, 1, 1),) * 6, (2, 1, 1, 1))


def _shares() -> Tensor:
    """(4, 8, 1, 8): of the blocks above, below, left and right."""
    shares = torch.zeros(4, BLOCK, BLOCK)
    shares[0, : BLOCK // 2] = torch.tensor(_ABOVE)
    shares[1] = shares[0].flip(0)
    shares[2, :, : BLOCK // 2] = torch.tensor(_LEFT)
    shares[3] = shares[2].flip(1)
    return shares[:, :, None] / 8


_SHARES = _shares()


def moved(reference: Tensor, field: Tensor, overlap: bool = False) -> Tensor:
    """Reference pictures uint8 (B, H, W, 3), sides multiples of 8, by fields int32 (B, H/8, W/8, 2).

    Gives float32 (B, H, W, 3), pixels as `seen` makes them. Beyond its border a picture goes on as its last pixels.
    `overlap`: blocks run into each other: where vectors differ, edges would be seen, and be copied on.
    """
    batch, height, width, channels = reference.shape
    rows, columns = field.shape[1:3]
    vectors = field.view(-1, 2)
    blocks = _blocks(reference, vectors, torch.arange(len(vectors), device=field.device))
    if overlap:
        blocks = _overlapped(reference, blocks, field)
    pixels = blocks.view(batch, rows, columns, BLOCK, channels, BLOCK)
    return pixels.permute(0, 1, 3, 2, 5, 4).reshape(batch, height, width, channels)


def _overlapped(reference: Tensor, blocks: Tensor, field: Tensor) -> Tensor:
    """Blocks as `_blocks` gives all of them -> the same, mixed with what the vectors beside theirs lead to."""
    beside = neighbours(field).flatten(0, 2)  # (N, 4, 2)
    shares = _SHARES.to(reference.device)
    if reference.device.type == "cpu":
        # Few blocks have other vectors beside them. A GPU would have to be asked which.
        which = (beside != field.view(-1, 1, 2)).any(-1).flatten().nonzero()[:, 0]
    else:
        which = torch.arange(beside.shape[0] * 4, device=reference.device)
    block = torch.div(which, 4, rounding_mode="floor")
    other = _blocks(reference, beside.flatten(0, 1).index_select(0, which), block)
    more = (other - blocks.index_select(0, block)) * shares.index_select(0, which - 4 * block)
    # Eighths of numbers on the grid, 8 bits and a sign before the point: exact in any order.
    return snap(blocks.index_add(0, block, more))


def _blocks(reference: Tensor, vectors: Tensor, which: Tensor) -> Tensor:
    """What vectors, int32 (N, 2), of blocks `which`, counted row by row, lead to: (N, 8, 3, 8), down and across."""
    batch, height, width, channels = reference.shape
    device = reference.device
    filters = _FILTERS if device.type == "cpu" else _FILTERS.to(device)
    rows, columns = height // BLOCK, width // BLOCK
    whole = torch.div(vectors, QUARTERS, rounding_mode="floor")
    phase = vectors - QUARTERS * whole
    row = torch.div(which, columns, rounding_mode="floor")
    clip = torch.div(row, rows, rounding_mode="floor")
    top = (row - clip * rows) * BLOCK + whole[:, 0] - _BEFORE
    left = (which - row * columns) * BLOCK + whole[:, 1] - _BEFORE
    y = (top[:, None] + torch.arange(_SPAN, device=device)).clamp_(0, height - 1)
    # Runs of pixels are taken whole. Past the picture by a run's length, all of a run's pixels are the border's.
    x = left.clamp_(-_SPAN, width) + _SPAN
    ends = [reference[:, :, at : at + 1].expand(-1, -1, _SPAN, -1) for at in (0, width - 1)]
    wide = torch.cat([ends[0], reference, ends[1]], 2)
    count = wide.numel() // channels - _SPAN + 1
    runs = wide.view(-1).as_strided((count, _SPAN * channels), (channels, 1))
    starts = (clip[:, None] * height + y) * wide.shape[2] + x[:, None]
    blocks = runs.index_select(0, starts.view(-1)).float().view(-1, _SPAN, _SPAN * channels)
    # Down first: whole rows of a block's surroundings are then the columns of one matrix.
    down = filters[phase[:, 0]].transpose(1, 2) @ blocks
    across = down.view(-1, BLOCK, _SPAN, channels).transpose(2, 3).reshape(-1, BLOCK * channels, _SPAN)
    sums = (across @ filters[phase[:, 1]]).clamp_(0, 255 * 64 * 64).view(-1, BLOCK, channels, BLOCK)
    return snap(sums.mul_(_UNIT).sub_(CONTRAST / 2))


def seen(picture: Tensor) -> Tensor:
    """uint8 (B, H, W, 3) -> float32, as `moved` makes it of a picture that stands still."""
    return snap(picture.float().mul_(64.0 * 64.0).mul_(_UNIT).sub_(CONTRAST / 2))


def shown(picture: Tensor) -> Tensor:
    """float32 (B, H, W, 3) on the grid -> uint8: the inverse of `seen`."""
    return (picture * (255 / CONTRAST) + 127.5).round_().clamp_(0, 255).to(torch.uint8)
