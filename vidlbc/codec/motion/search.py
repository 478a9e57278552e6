"""Vectors of a frame: what an encoder chooses by. Nothing here decides what decodes.

    small pictures --every displacement--> candidates of blocks of 16x16
    candidates + the field before --sums of differences + price of bits--> vectors, refined to quarters of a pixel
    neighbours' vectors, twice --> smooth fields, cheap to code --> blocks of 8x8 where they pay

A block's cost is its sum of absolute luma differences plus a price times the bits of its vector, estimated from the
difference to its neighbours'; what is found is then weighed by true bits (vidlbc.codec.motion.choosing). All blocks of
all frames of a batch are searched side by side, each against what its neighbours had a pass before: the same on a GPU
as on a CPU, and no block waits for another.
"""

from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor
from torch.nn import functional as F

from vidlbc.codec.motion.field import BLOCK, QUARTERS, enlarged, neighbours
from vidlbc.codec.motion.warp import TAPS
from vidlbc.codec.traced import Traced

_LARGE = 2 * BLOCK
_SMALL_SIDE = 4  # pixels of the picture a pixel of the coarse search
_MARGIN = _LARGE + 4  # pixels around the picture: a block further outside looks the same
_SPLIT_BITS = 4.0  # of a block of 16x16 that has vectors of its own in its parts, beside theirs
_LONGEST = 1 << 12  # of differences whose bits are tabulated
_GUESSED = 1.4  # times the price of bits, where they are estimated


@dataclass(frozen=True)
class Effort:
    """`reach`: pixels that vectors are looked for; `stride`: of the displacements tried there, in quarter-size pixels;
    `steps`: around the best of the candidates, in quarters of a pixel; `passes`: over neighbours' vectors; `split`:
    steps of blocks of 8x8, none: there are none. `key_steps`, `frame_steps`: of gradient on the symbols of a key frame
    and of any other (vidlbc.codec.coding.refining), where they are chosen for rate and distortion."""

    reach: int = 60
    stride: int = 1
    steps: tuple[int, ...] = (8, 4, 2, 1)
    passes: int = 2
    split: tuple[int, ...] = (2, 1)
    key_steps: int = 40
    frame_steps: int = 0


FAST = Effort(reach=32, stride=2, steps=(16, 8, 4, 2, 1), passes=1, split=(), key_steps=0)
DEFAULT = Effort()
BEST = Effort(reach=100, steps=(8, 4, 4, 2, 1), passes=4, split=(4, 2, 1), key_steps=240, frame_steps=40)
EFFORTS = {"fast": FAST, "default": DEFAULT, "best": BEST}


def price_of_bits(qp: Tensor) -> Tensor:
    """Sums of absolute differences (of 8-bit luma) that a bit is worth, by QP: chosen on validation clips."""
    return 24.0 * (18.0 / 56.0) ** ((qp.float() - 8) / 48)


def blocks_of(frames: Tensor, references: Tensor) -> "dict[int, Blocks]":
    """Blocks of 8x8 and of 16x16 of frames, to be compared with references; pictures as of `search`."""
    luma, reference = _luma(frames), _luma(references)
    planes = _phases(F.pad(reference[:, None], (_MARGIN,) * 4, mode="replicate")[:, 0])
    return {side: Blocks(luma, planes, side) for side in (BLOCK, _LARGE)}


def search(
    frames: Tensor,
    references: Tensor,
    qp: Tensor,
    before: Tensor | None = None,
    effort: Effort = DEFAULT,
    coarse: Tensor | None = None,
) -> Tensor:
    """uint8 (B, H, W, 3) each, sides multiples of 32; qp (B,) -> fields (vidlbc.codec.motion.field), int32 (B, H/8,
    W/8, 2).

    `before`: fields of the frames before; `coarse`: what `displacements` gave for about these pictures, None: found
    here.
    """
    qp = qp.to(frames.device)
    coarse = displacements(frames, references, qp, effort) if coarse is None else coarse
    early = () if before is None else (before,)
    field: Tensor = _steps(effort, frames.device)[1](frames, references, qp, coarse, *early)
    return field


def displacements(frames: Tensor, references: Tensor, qp: Tensor, effort: Effort = DEFAULT) -> Tensor:
    """Pictures as of `search` -> the displacement of each block of 16x16 that fits best at a quarter of the size, of
    it and half of its neighbours; int32 (B, H/16, W/16, 2), quarters of a pixel."""
    found: Tensor = _steps(effort, frames.device)[0](frames, references, qp.to(frames.device))
    return found


@cache
def _steps(effort: Effort, device: torch.device) -> tuple[Traced, Traced]:
    """`displacements` and the rest of `search` as graphs, which belong to one device: encoders search beside other
    threads."""
    return Traced(partial(_displacements, effort)), Traced(partial(_field, effort))


def _displacements(effort: Effort, frames: Tensor, references: Tensor, qp: Tensor) -> Tensor:
    stride, side = effort.stride, _LARGE // _SMALL_SIDE
    small, reference = (F.avg_pool2d(_luma(x)[:, None], _SMALL_SIDE)[:, 0] for x in (frames, references))
    batch, height, width = small.shape
    farthest = min(effort.reach, max(frames.shape[1:3]) // 2) // _SMALL_SIDE
    reach = max(1, farthest // stride) * stride
    around = F.pad(reference[:, None], (reach,) * 4, mode="replicate")[:, 0]
    shifted = around.unfold(2, 2 * reach + 1, 1)[..., ::stride]  # (B, h + 2 reach, w, displacements across)
    off, rows = small.new_empty(batch, height, width, shifted.shape[-1]), []
    for down in range(0, 2 * reach + 1, stride):
        torch.sub(shifted[:, down : down + height], small[..., None], out=off).abs_()
        # Sums over a block, first down and then across: contiguous, which is several times as fast as pooling.
        lines = off.view(batch, height // side, side, -1).sum(2)
        rows.append(lines.view(batch, height // side, width // side, side, -1).sum(3))
    cost = _with_halves(_with_halves(torch.stack(rows, 3).flatten(3), 1), 2) * (_SMALL_SIDE**2 / 4)
    steps = torch.arange(-reach, reach + 1, stride, dtype=torch.int32, device=frames.device) * (_SMALL_SIDE * QUARTERS)
    moves = torch.cartesian_prod(steps, steps)
    best = (cost + _GUESSED * price_of_bits(qp)[:, None, None, None] * _bits(moves)).argmin(-1)
    return moves[best]


def _field(
    effort: Effort, frames: Tensor, references: Tensor, qp: Tensor, coarse: Tensor, before: Tensor | None = None
) -> Tensor:
    return _Search(frames, references, _GUESSED * price_of_bits(qp), effort).field(coarse, before)


def _with_halves(x: Tensor, axis: int) -> Tensor:
    """Each entry plus half of both neighbours along an axis; at an end its own in place of the missing one."""
    count = x.shape[axis]
    before = torch.cat([x.narrow(axis, 0, 1), x.narrow(axis, 0, count - 1)], axis)
    after = torch.cat([x.narrow(axis, 1, count - 1), x.narrow(axis, count - 1, 1)], axis)
    return before.add_(after).mul_(0.5).add_(x)


class _Search:
    def __init__(self, frames: Tensor, references: Tensor, price: Tensor, effort: Effort):
        self.effort, self.price = effort, price[:, None, None, None]
        self.blocks = blocks_of(frames, references)

    def field(self, coarse: Tensor, before: Tensor | None) -> Tensor:
        zero = torch.zeros_like(coarse)[..., None, :]
        candidates = [zero, coarse[..., None, :], neighbours(coarse)]
        if before is not None:
            early = before[:, ::2, ::2]
            candidates += [early[..., None, :], before[:, 1::2, 1::2][..., None, :], neighbours(early)]
        field = self._best(_LARGE, torch.cat(candidates, -2), coarse)
        for step in self.effort.steps:
            field = self._best(_LARGE, _around(field, step), field)
        for turn in range(2 * self.effort.passes):
            field = self._best(_LARGE, torch.cat([field[..., None, :], neighbours(field), zero], -2), field, turn)
        return self._split(field) if self.effort.split else enlarged(field)

    def _split(self, field: Tensor) -> Tensor:
        """Blocks of 8x8 where they are cheaper than the one of 16x16 that holds them."""
        whole = enlarged(field)
        small = self._best(BLOCK, torch.cat([whole[..., None, :], neighbours(whole)], -2), whole)
        for step in self.effort.split:
            small = self._best(BLOCK, _around(small, step), whole)
        both = self._cost(BLOCK, torch.stack([whole, small], -2), whole)
        gain = F.avg_pool2d((both[..., 0] - both[..., 1])[:, None], 2)[:, 0] * 4
        worth = gain > _SPLIT_BITS * self.price[..., 0]
        return torch.where(enlarged(worth[..., None]), small, whole)

    def _best(self, side: int, candidates: Tensor, near: Tensor, turn: int | None = None) -> Tensor:
        """The cheapest of candidates (B, h, w, N, 2); their bits are those of their differences to `near`'s."""
        cost = self._cost(side, candidates, near)
        best = candidates.gather(3, cost.argmin(-1)[..., None, None].expand(-1, -1, -1, 1, 2))[..., 0, :]
        if turn is None:
            return best
        # Every other block only: two that take each other's vectors would swap them for ever.
        return torch.where(self.blocks[side].halves[turn % 2], best, near)

    def _cost(self, side: int, candidates: Tensor, near: Tensor) -> Tensor:
        differences = self.blocks[side].differences(candidates)
        if side == BLOCK:
            return differences + self.price * _bits(candidates - near[..., None, :])
        beside = neighbours(near)
        # Between the middle two.
        expected = (beside.sum(3, dtype=torch.int32) - beside.amax(3) - beside.amin(3))[..., None, :]
        bits = _bits(candidates - (expected >> 1))
        # As one of the neighbours: a network that sees them expects it.
        same = (_packed(candidates)[..., None] == _packed(beside)[..., None, :]).any(-1)
        return differences + self.price * torch.where(same, bits.clamp_max(2.0), bits)


class Blocks:
    """The blocks of one size of a batch of frames; of every other row of their pixels, which is nearly as good."""

    def __init__(self, luma: Tensor, planes: Tensor, side: int):
        """luma (B, H, W); planes: of the references with a margin, as `_phases` gives them."""
        batch, rows, columns = luma.shape[0], luma.shape[1] // side, luma.shape[2] // side
        device = luma.device
        own = luma[:, ::2].view(batch, rows, side // 2, columns, side).transpose(2, 3)
        self.own = own.reshape(batch, rows, columns, 1, -1)
        down = torch.arange(rows, dtype=torch.int32, device=device)[:, None]
        across = torch.arange(columns, dtype=torch.int32, device=device)
        self.corners = torch.stack(torch.broadcast_tensors(down * side, across * side), -1)[..., None, :]
        odd = (down + across)[..., None] % 2 == 1
        self.halves = (odd, ~odd)
        high, wide = planes.shape[2:]
        sizes = torch.tensor([high, wide], dtype=torch.int32, device=device)
        self.lowest = torch.full_like(sizes, -_MARGIN)
        self.highest = sizes - _MARGIN - side
        clips = torch.arange(batch, dtype=torch.int32, device=device)[:, None, None, None]
        self.origin = clips * (QUARTERS**2 * high * wide) + _MARGIN * wide + _MARGIN
        self.of_phase = torch.tensor([QUARTERS * high * wide, high * wide], dtype=torch.int32, device=device)
        self.of_place = torch.tensor([wide, 1], dtype=torch.int32, device=device)
        self.lines = torch.arange(0, side, 2, dtype=torch.int32, device=device) * wide
        # Every run of `side` pixels: rows of blocks are copied whole.
        self.runs = planes.as_strided((planes.numel() - side + 1, side), (1, 1))

    def differences(self, vectors: Tensor) -> Tensor:
        """Sums of absolute differences, (B, h, w, N), for vectors (B, h, w, N, 2)."""
        places = ((vectors >> 2) + self.corners).clamp_(self.lowest, self.highest)
        starts = (places * self.of_place + (vectors & 3) * self.of_phase).sum(-1, dtype=torch.int32) + self.origin
        lines = (starts[..., None] + self.lines).view(-1)
        blocks = self.runs.index_select(0, lines).view(*vectors.shape[:4], -1)
        return blocks.sub_(self.own).abs_().sum(-1) * 2


def _luma(pictures: Tensor) -> Tensor:
    weights = torch.tensor([0.299, 0.587, 0.114], device=pictures.device)
    return pictures.float() @ weights


def _phases(whole: Tensor) -> Tensor:
    """(B, H, W) -> (B, 16, H, W): the picture a quarter, a half, three quarters further down and right.

    Halves are filtered, quarters the mean of what is on both sides: close enough to choose by, in half of the time.
    """
    planes = whole.new_empty(len(whole), QUARTERS, QUARTERS, *whole.shape[1:])
    for down, row in enumerate(_quarters(whole, 1)):
        for across, plane in enumerate(_quarters(row, 2)):
            planes[:, down, across] = plane
    return planes.flatten(1, 2)


def _quarters(x: Tensor, axis: int) -> tuple[Tensor, ...]:
    """A map (B, H, W) none, one, two and three quarters further along an axis."""
    count, taps = x.shape[axis], TAPS[2]
    before = len(taps) // 2 - 1
    pad = (before, len(taps) - 1 - before)
    around = F.pad(x[:, None], (*pad, 0, 0) if axis == 2 else (0, 0, *pad), mode="replicate")[:, 0]
    half = torch.zeros_like(x)
    for k, tap in enumerate(taps):
        half.add_(around.narrow(axis, k, count), alpha=tap / sum(taps))
    return x, (x + half).mul_(0.5), half, (half + around.narrow(axis, before + 1, count)).mul_(0.5)


_LENGTHS = torch.tensor([0.4, *(2.2 + 1.7 * torch.arange(1, _LONGEST + 1).log2()).tolist()])


def _bits(difference: Tensor) -> Tensor:
    """About what a vector's difference, in quarters of a pixel, takes to code; the last axis is that of the vector."""
    size = difference.abs().clamp_max_(_LONGEST)
    return _LENGTHS.to(size.device)[size].sum(-1)


def _packed(vectors: Tensor) -> Tensor:
    """A vector as one number."""
    return (vectors[..., 0] << 16) + vectors[..., 1]


def _around(field: Tensor, step: int) -> Tensor:
    """(B, h, w, 2) -> (B, h, w, 9, 2): each vector and the eight at a distance of `step` around it."""
    moves = torch.tensor([0, -step, step], dtype=torch.int32, device=field.device)
    offsets = torch.stack([moves.repeat_interleave(3), moves.repeat(3)], -1)
    return field[..., None, :] + offsets
