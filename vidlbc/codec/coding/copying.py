"""Which blocks an encoder copies (vidlbc.codec.motion.copies). Nothing here decides what decodes.

A block is copied where its bits are worth more than what the moved picture is worse:

    bits > weight * lambda(qp) * (error of the moved picture - error of the reference that symbols would make)

The weight is less where the block was copied before, or comes from a key frame: what has lasted will last, and bits
that are spent on it now are spent again with every frame, as noise changes, while bits of a key frame serve all. How
much less depends on the share of blocks that were copied: where little lasts, an error is soon paid for again.
Neither bits nor that reference are known before the frame is coded. Bits grow with how far symbols are from what the
moved picture predicts, summed over a block as log2(1 + 16 d^2); the reference is a little worse than what the frame's
rounded symbols show. Both were fitted on blocks of six training clips, coded at five QPs.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vidlbc.codec.image_stage.base import qp_lambda
from vidlbc.codec.motion.copies import BLOCK
from vidlbc.codec.motion.field import commonest, moved_cells
from vidlbc.codec.prior.topdown import Gains

# Of bits = a x^b of the sum x, and of the reference's error over that of rounded symbols.
_BITS, _POWER, _WORSE = 0.0327, 1.433, 1.07
_FLAG = 0.3  # bits
FRESH, LASTING = 1.3, 0.5  # weights, the second where most blocks are copied
SHARE = 0.75  # of blocks: what an encoder begins with


def worth_copying(
    frames: Tensor,
    moved: Tensor,
    alone: Tensor,
    scaled: Sequence[Tensor],
    expected: Sequence[Tensor],
    gains: Sequence[Gains],
    qp: Tensor,
    lasting: Tensor,
    weights: tuple[float, float] = (FRESH, LASTING),
    visible: Tensor | None = None,
) -> Tensor:
    """Flags, bool (B, H/16, W/16).

    frames: what shall be shown; moved: the moved pictures; alone: what the frames' rounded symbols show; uint8 (B, H,
    W, 3) each, H and W multiples of 32. scaled: gain * y; expected: y as the moved pictures predict it; float (B, H_l,
    W_l, C_l) a level. qp (B,). lasting: bool as the flags, what was copied before, or coded in a key frame, moved.
    visible: of the pixels, (1, H, W), 1 or 0; blocks without any are copied.
    """
    size = moved.shape[1] // BLOCK, moved.shape[2] // BLOCK
    apart = [y - e * g.gain[:, None, None] for y, e, g in zip(scaled, expected, gains, strict=True)]
    far = torch.stack([_of_blocks((1 + 16 * d.square()).log2().sum(-1), size) for d in apart]).sum(0)
    bits = _BITS * (far + 1) ** _POWER
    gain = _error(moved, frames, visible) - _WORSE * _error(alone, frames, visible)
    weight = torch.where(lasting, weights[1], weights[0])
    worth = bits - _FLAG > weight * qp_lambda(qp)[:, None, None] / 3 * gain
    return worth if visible is None else worth | (F.max_pool2d(visible, BLOCK) == 0)


def lasting(copied: Tensor, key: bool, field: Tensor) -> Tensor:
    """What `worth_copying` takes, from the flags of the frame before, whether that was a key frame, and vectors."""
    before = torch.ones_like(copied) if key else copied
    return moved_cells(before[..., None], commonest(field), BLOCK)[..., 0]


def lasting_weight(share: float) -> float:
    """The weight of what has lasted where that share of blocks was copied lately."""
    return min(max(1.6 - 1.3 * share, 0.35), FRESH)


def _of_blocks(cells: Tensor, size: tuple[int, int]) -> Tensor:
    """Sums of a map (B, h, w) over each of so many blocks, among which larger cells are shared out."""
    cells_a_block = cells.shape[1] * cells.shape[2] / (size[0] * size[1])
    return F.adaptive_avg_pool2d(cells[:, None], size)[:, 0] * cells_a_block


def _error(a: Tensor, b: Tensor, visible: Tensor | None) -> Tensor:
    squares = (a.float() - b.float()).square_().sum(-1)
    if visible is not None:
        squares.mul_(visible)
    return F.avg_pool2d(squares[:, None], BLOCK)[:, 0] * BLOCK**2
