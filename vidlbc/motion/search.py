"""Vectors of a frame: what an encoder chooses by. Nothing here decides what decodes.

    quarter-size pictures --every displacement--> candidates of blocks of 16x16
    candidates + the field before --sums of differences + price of bits--> vectors, refined to quarters of a pixel
    neighbours' vectors, twice --> smooth fields, cheap to code --> blocks of 8x8 where they pay

A block's cost is its sum of absolute luma differences plus `price` times the bits of its vector, estimated from the
difference to its neighbours'. All blocks of all frames of a batch are searched side by side, each against what its
neighbours had a pass before: the same on a GPU as on a CPU, and no block waits for another.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vidlbc.motion.field import BLOCK, QUARTERS, enlarged, neighbours
from vidlbc.motion.warp import TAPS

_LARGE = 2 * BLOCK
_SMALL_SIDE = 4  # pixels of the picture a pixel of the coarse search
_MARGIN = 40  # pixels around the picture that blocks may come from
_OUTSIDE = 32  # how far a block may lie outside of the picture
_SPLIT_BITS = 4.0  # of a block of 16x16 that has vectors of its own in its parts, beside theirs


@dataclass(frozen=True)
class Effort:
    """`reach`: pixels that vectors are looked for; `stride`: of the displacements tried there, in quarter-size pixels;
    `passes`: over neighbours' vectors; `split`: blocks of 8x8 too."""

    reach: int = 60
    stride: int = 1
    passes: int = 2
    split: bool = True


FAST, DEFAULT, BEST = Effort(32, 2, 1, False), Effort(), Effort(100, 1, 4)


def price_of_bits(qp: Tensor) -> Tensor:
    """Sums of absolute differences (of 8-bit luma) that a bit is worth, by QP: chosen on training clips."""
    return 56.0 * (18.0 / 56.0) ** ((qp.float() - 8) / 48)


def search(
    frames: Tensor, references: Tensor, qp: Tensor, before: Tensor | None = None, effort: Effort = DEFAULT
) -> Tensor:
    """uint8 (B, H, W, 3) each, sides multiples of 32; qp (B,) -> fields (vidlbc.motion.field), int32 (B, H/8, W/8, 2).

    `before`: fields of the frames before.
    """
    return _Search(frames, references, price_of_bits(qp).to(frames.device), effort).field(before)


class _Search:
    def __init__(self, frames: Tensor, references: Tensor, price: Tensor, effort: Effort):
        self.luma, reference = _luma(frames), _luma(references)
        self.effort, self.price = effort, price[:, None, None, None]
        self.batch, self.height, self.width = self.luma.shape
        self.device = frames.device
        self.whole = F.pad(reference[:, None], (_MARGIN,) * 4, mode="replicate")[:, 0]
        self.reference = reference
        self.planes = _phases(self.whole)
        self.own = {side: self._blocks(side) for side in (BLOCK, _LARGE)}

    def _blocks(self, side: int) -> Tensor:
        """The frame's own pixels, every other row, (B, h, w, 1, side^2 / 2)."""
        luma = self.luma[:, ::2].reshape(self.batch, self.height // side, side // 2, self.width // side, side)
        return luma.transpose(2, 3).reshape(self.batch, self.height // side, self.width // side, 1, -1)

    def field(self, before: Tensor | None) -> Tensor:
        rows, columns = self.height // _LARGE, self.width // _LARGE
        zero = torch.zeros(self.batch, rows, columns, 1, 2, dtype=torch.int32, device=self.device)
        coarse = self._coarse()
        candidates = [zero, coarse[..., None, :], *(neighbours(coarse)[..., k : k + 1, :] for k in range(4))]
        if before is not None:
            early = before[:, ::2, ::2]
            candidates += [early[..., None, :], before[:, 1::2, 1::2][..., None, :], neighbours(early)]
        field = self._best(_LARGE, torch.cat(candidates, -2), coarse)
        for step in (8, 4, 4, 2, 1) if self.effort.stride == 1 else (16, 8, 4, 2, 1):
            field = self._best(_LARGE, _around(field, step), field)
        for turn in range(2 * self.effort.passes):
            field = self._best(_LARGE, torch.cat([field[..., None, :], neighbours(field), zero], -2), field, turn)
            if 0 < turn < 2 * self.effort.passes - 2:
                field = self._best(_LARGE, _around(field, 1), field, turn)
        return self._split(field) if self.effort.split else enlarged(field)

    def _split(self, field: Tensor) -> Tensor:
        """Blocks of 8x8 where they are cheaper than the one of 16x16 that holds them."""
        whole = enlarged(field)
        small = self._best(BLOCK, torch.cat([whole[..., None, :], neighbours(whole)], -2), whole)
        for step in (4, 2, 1):
            small = self._best(BLOCK, _around(small, step), whole)
        both = self._cost(BLOCK, torch.stack([whole, small], -2), whole)
        gain = F.avg_pool2d((both[..., 0] - both[..., 1])[:, None], 2)[:, 0] * 4
        worth = gain > _SPLIT_BITS * self.price[..., 0]
        return torch.where(enlarged(worth[..., None]), small, whole)

    def _best(self, side: int, candidates: Tensor, near: Tensor, turn: int | None = None) -> Tensor:
        """The cheapest of candidates (B, h, w, N, 2); their bits are those of their differences to `near`'s."""
        candidates = self._inside(side, candidates)
        cost = self._cost(side, candidates, near)
        best = candidates.gather(3, cost.argmin(-1)[..., None, None].expand(-1, -1, -1, 1, 2))[..., 0, :]
        if turn is None:
            return best
        # Every other block only: two that take each other's vectors would swap them for ever.
        rows, columns = (torch.arange(n, device=self.device) for n in best.shape[1:3])
        odd = (rows[:, None] + columns + turn) % 2 == 1
        return torch.where(odd[..., None], best, near)

    def _cost(self, side: int, candidates: Tensor, near: Tensor) -> Tensor:
        differences = self._differences(side, candidates)
        if side == BLOCK:
            return differences + self.price * _bits(candidates - near[..., None, :])
        beside = neighbours(near)
        values = beside.float()
        expected = (values.sum(3) - values.amax(3) - values.amin(3)) / 2  # between the middle two
        bits = _bits(candidates - expected[..., None, :])
        # As one of the neighbours: a network that sees them expects it.
        same = (candidates[..., None, :] == beside[..., None, :, :]).all(-1).any(-1)
        return differences + self.price * torch.where(same, bits.clamp_max(2.0), bits)

    def _differences(self, side: int, vectors: Tensor) -> Tensor:
        """Sums of absolute differences of blocks, (B, h, w, N), for vectors (B, h, w, N, 2) that `_inside` gave: of
        every other row, times two."""
        batch, rows, columns, count, _ = vectors.shape
        high, wide = self.whole.shape[1:]
        whole = torch.div(vectors, QUARTERS, rounding_mode="floor")
        phase = vectors - QUARTERS * whole
        top = torch.arange(rows, device=self.device, dtype=torch.int32)[:, None, None] * side + whole[..., 0] + _MARGIN
        left = torch.arange(columns, device=self.device, dtype=torch.int32)[:, None] * side + whole[..., 1] + _MARGIN
        clip = torch.arange(batch, device=self.device, dtype=torch.int32)[:, None, None, None]
        plane = clip * QUARTERS**2 + phase[..., 0] * QUARTERS + phase[..., 1]
        start = (plane * high + top) * wide + left
        axis = torch.arange(side, device=self.device, dtype=torch.int32)
        places = start[..., None] + (axis[::2, None] * wide + axis).view(-1)
        blocks = self.planes.view(-1).index_select(0, places.view(-1)).view(batch, rows, columns, count, -1)
        return blocks.sub_(self.own[side]).abs_().sum(-1) * 2

    def _inside(self, side: int, vectors: Tensor) -> Tensor:
        """Vectors (B, h, w, N, 2), those that leave the picture's surroundings cut off."""
        _, rows, columns, _, _ = vectors.shape
        out = []
        for axis, (count, extent) in enumerate(((rows, self.height), (columns, self.width))):
            start = torch.arange(count, device=self.device, dtype=torch.int32) * side
            start = start[:, None, None] if axis == 0 else start[:, None]
            lowest, highest = -_OUTSIDE - start, extent + _OUTSIDE - side - start
            out.append(vectors[..., axis].clamp(lowest * QUARTERS, highest * QUARTERS))
        return torch.stack(out, -1)

    def _coarse(self) -> Tensor:
        """The displacement of each block of 16x16 that fits best at a quarter of the size; (B, h, w, 2)."""
        small, reference = (F.avg_pool2d(x[:, None], _SMALL_SIDE) for x in (self.luma, self.reference))
        stride = self.effort.stride
        reach = max(1, min(self.effort.reach, max(self.height, self.width) // 2) // _SMALL_SIDE // stride) * stride
        padded = F.pad(reference, (reach,) * 4, mode="replicate")
        side = _LARGE // _SMALL_SIDE
        steps = torch.arange(-reach, reach + 1, stride, device=self.device)
        shifts = padded.unfold(3, small.shape[3], 1)[..., ::stride, :]  # (B, 1, h + 2 reach, displacements, w)
        best: Tensor | None = None
        for number, down in enumerate(range(0, 2 * reach + 1, stride)):
            row = shifts[:, 0, down : down + small.shape[2]].transpose(1, 2)  # (B, displacements, h, w)
            cost = F.avg_pool2d((row - small).abs(), 2 * side, side, side // 2, count_include_pad=False)
            move = torch.stack([steps[number].expand_as(steps), steps], -1) * (_SMALL_SIDE * QUARTERS)
            cost = cost * _LARGE**2 + self.price * _bits(move)[:, None, None]
            lowest, where = cost.min(1)
            vector = move[where]
            if best is None:
                best, least = vector, lowest
            else:
                closer = lowest < least
                best, least = torch.where(closer[..., None], vector, best), torch.where(closer, lowest, least)
        assert best is not None
        return self._inside(_LARGE, best.to(torch.int32)[..., None, :])[..., 0, :]


def _luma(pictures: Tensor) -> Tensor:
    weights = torch.tensor([0.299, 0.587, 0.114], device=pictures.device)
    return pictures.float() @ weights


def _phases(whole: Tensor) -> Tensor:
    """(B, H, W) -> (B, 16, H, W): the picture a quarter, a half, three quarters further down and right."""
    batch, height, width = whole.shape
    before = len(TAPS[0]) // 2 - 1
    pad = (before, len(TAPS[0]) - 1 - before)
    planes = whole.new_empty(batch, QUARTERS, QUARTERS, height, width)
    around = F.pad(whole[:, None], (0, 0, *pad), mode="replicate")[:, 0]
    for down, taps in enumerate(TAPS):
        lower = _filtered([around[:, k : k + height] for k in range(len(taps))], taps) if down else whole
        beside = F.pad(lower[:, None], (*pad, 0, 0), mode="replicate")[:, 0]
        for across, others in enumerate(TAPS):
            shifted = [beside[..., k : k + width] for k in range(len(others))]
            planes[:, down, across] = _filtered(shifted, others) if across else lower
    return planes.flatten(1, 2)


def _filtered(shifted: Sequence[Tensor], taps: Sequence[int]) -> Tensor:
    out = torch.zeros_like(shifted[0])
    for x, tap in zip(shifted, taps, strict=True):
        if tap:
            out.add_(x, alpha=tap / sum(taps))
    return out


def _bits(difference: Tensor) -> Tensor:
    """About what a vector's difference, in quarters of a pixel, takes to code; the last axis is that of the vector."""
    size = difference.abs().float()
    return torch.where(size < 0.5, 0.4, 2.2 + 1.7 * size.clamp_min(1).log2()).sum(-1)


def _around(field: Tensor, step: int) -> Tensor:
    """(B, h, w, 2) -> (B, h, w, 9, 2): each vector and the eight at a distance of `step` around it."""
    moves = torch.tensor([0, -step, step], dtype=torch.int32, device=field.device)
    offsets = torch.stack([moves.repeat_interleave(3), moves.repeat(3)], -1)
    return field[..., None, :] + offsets
