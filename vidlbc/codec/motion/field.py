"""Block vectors.

A *field* holds a vector (down, right) for each block of 8x8 pixels, int32 (B, H/8, W/8, 2), in quarters of a pixel: the
block at a place shows what the reference picture has at that place plus the vector. Sides are multiples of 32 pixels.
"""

import torch
from torch import Tensor

BLOCK = 8
QUARTERS = 4
LIMIT = (1 << 14) - 1  # of a vector's parts: almost 4096 pixels; a difference of two is still a symbol


def pyramid(field: Tensor, strides: tuple[int, ...] = (8, 16, 32)) -> dict[int, Tensor]:
    """The vectors of blocks of so many pixels: of four blocks together the one that most of them have."""
    fields, stride = {BLOCK: field}, BLOCK
    while stride < max(strides):
        field, stride = commonest(field), 2 * stride
        fields[stride] = field
    return {s: fields[s] for s in strides}


def enlarged(field: Tensor) -> Tensor:
    """(B, h, w, C) -> (B, 2h, 2w, C), by repetition."""
    return field.repeat_interleave(2, 1).repeat_interleave(2, 2)


def commonest(field: Tensor) -> Tensor:
    """(B, h, w, 2) -> (B, h/2, w/2, 2): of each 2x2 vectors the one that most of them equal, the first of those."""
    b, h, w, _ = field.shape
    four = field.reshape(b, h // 2, 2, w // 2, 2, 2).permute(0, 1, 3, 2, 4, 5).reshape(b, h // 2, w // 2, 4, 2)
    equal = (four[..., :, None, :] == four[..., None, :, :]).all(-1).sum(-1)
    # argmax takes any of several largest: the first is asked for by what earlier ones have on top.
    first = (equal * 4 + torch.arange(3, -1, -1, device=field.device)).argmax(-1)
    return four.gather(3, first[..., None, None].expand(-1, -1, -1, 1, 2))[..., 0, :]


def moved_cells(x: Tensor, vectors: Tensor, stride: int) -> Tensor:
    """A map (B, h, w, C) at a working stride, each cell taken from where its vector (B, h, w, 2) leads, to the nearest
    cell: exact, as nothing is interpolated."""
    batch, height, width, _ = x.shape
    cells = torch.div(vectors + 2 * stride, 4 * stride, rounding_mode="floor")
    rows = (torch.arange(height, device=x.device)[:, None] + cells[..., 0]).clamp(0, height - 1)
    columns = (torch.arange(width, device=x.device) + cells[..., 1]).clamp(0, width - 1)
    clip = torch.arange(batch, device=x.device)[:, None, None] * height
    return x.reshape(-1, x.shape[-1]).index_select(0, ((clip + rows) * width + columns).view(-1)).view_as(x)


def neighbours(x: Tensor) -> Tensor:
    """(B, h, w, C) -> (B, h, w, 4, C): what is above, below, left and right; at a border the block's own."""
    above, below = torch.cat([x[:, :1], x[:, :-1]], 1), torch.cat([x[:, 1:], x[:, -1:]], 1)
    left, right = torch.cat([x[:, :, :1], x[:, :, :-1]], 2), torch.cat([x[:, :, 1:], x[:, :, -1:]], 2)
    return torch.stack([above, below, left, right], 3)
